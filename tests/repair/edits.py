"""Before and after of every source edit: (remedy, code, marked expression, what takes the place of which lines).

`before` is the body of a file behind the usual imports; «…» marks the expression that the finding is about. `after` is the
whole body after the edit.
"""

from __future__ import annotations

FORWARD = "class Net(nn.Module):\n    def forward(self, x):\n        return {}\n\n\ndef loss(out):\n    return {}\n"

EDITS: list[tuple[str, str, str]] = [
    ("log-softmax", "y = «torch.log(torch.softmax(z, dim=1))»", "y = F.log_softmax(z, dim=1)"),
    ("log-softmax", "y = «(z + 1).softmax(-1).log()»", "y = F.log_softmax(z + 1, -1)"),
    ("log-softmax", "y = «torch.log(z.softmax(1) + 1e-8)».mean()", "y = F.log_softmax(z, 1).mean()"),
    ("log-softmax", "y = «z.softmax(1).clamp(min=1e-8).log()»", "y = F.log_softmax(z, 1)"),
    ("log-softmax", "p = F.softmax(z, dim=1)\ny = «p.log()»", "y = F.log_softmax(z, dim=1)"),
    (
        "log-softmax",
        "p = F.softmax(f(z), dim=1)\ny = «p.log()» * p",
        "logits = f(z)\np = F.softmax(logits, dim=1)\ny = F.log_softmax(logits, dim=1) * p",
    ),
    ("log-softmax", "z = f(x)\nz = z.softmax(1)\ny = «z.log()»", "z = f(x)\ny = F.log_softmax(z, 1)"),
    ("log-softmax", "e = z.exp()\ny = «torch.log(e / e.sum(-1, keepdim=True))»", "y = F.log_softmax(z, dim=-1)"),
    (
        "log-softmax",
        FORWARD.format("torch.softmax(self.fc(x), dim=1)", "F.nll_loss(«torch.log(out)», t)"),
        FORWARD.format("self.fc(x)", "F.nll_loss(F.log_softmax(out, dim=1), t)"),
    ),
    (
        "log-softmax",
        FORWARD.format("torch.softmax(self.fc(x), dim=1)", "«torch.log(out)».mean() + out.mean()"),
        FORWARD.format("self.fc(x)", "F.log_softmax(out, dim=1).mean() + torch.softmax(out, dim=1).mean()"),
    ),
    ("cross-entropy", "y = F.nll_loss(«torch.log(z.softmax(1))», t)", "y = F.cross_entropy(z, t)"),
    (
        "bce-with-logits",
        "p = torch.sigmoid(z)\nl = -(y * «torch.log(p)» + (1 - y) * torch.log(1 - p)).mean()",
        "l = F.binary_cross_entropy_with_logits(z, y)",
    ),
    (
        "bce-with-logits",
        "p = z.sigmoid()\na = y * «torch.log(p + 1e-8)»\nb = (1 - y) * torch.log(1 - p + 1e-8)\nl = -(a + b)",
        'l = F.binary_cross_entropy_with_logits(z, y, reduction="none")',
    ),
    (
        "bce-with-logits",
        "l = F.binary_cross_entropy(«torch.sigmoid(z)», y, w)",
        "l = F.binary_cross_entropy_with_logits(z, y, w)",
    ),
    (
        "bce-with-logits",
        FORWARD.format("torch.sigmoid(self.fc(x))", "-(y * «torch.log(out)» + (1 - y) * torch.log(1 - out)).sum()"),
        FORWARD.format("self.fc(x)", 'F.binary_cross_entropy_with_logits(out, y, reduction="sum")'),
    ),
    (
        "bce-with-logits",
        FORWARD.format("torch.sigmoid(self.fc(x))", "0").replace(
            "    return 0",
            "    y = t.to(out.dtype)\n    a = y * «torch.log(out)»\n    b = (1 - y) * torch.log(1 - out)\n"
            "    return -(a + b).mean()",
        ),
        FORWARD.format("self.fc(x)", "F.binary_cross_entropy_with_logits(out, y)").replace(
            "    return F.", "    y = t.to(out.dtype)\n    return F."
        ),
    ),
    ("logsigmoid", "y = «torch.log(torch.sigmoid(z))»", "y = F.logsigmoid(z)"),
    ("logsigmoid", "y = «torch.log(1 - torch.sigmoid(a + b))»", "y = F.logsigmoid(-(a + b))"),
    ("logsigmoid", "y = «torch.log(1e-10 + 1 - z.sigmoid())»", "y = F.logsigmoid(-z)"),
    ("logsumexp", "y = «torch.log(torch.exp(z).sum(dim=-1, keepdim=True))»", "y = torch.logsumexp(z, dim=-1, keepdim=True)"),
    ("softmax", "e = «torch.exp(z)»\np = e / e.sum(-1, keepdim=True)", "p = torch.softmax(z, dim=-1)"),
    ("softmax", "p = «z.exp()» / (z.exp().sum(dim=1, keepdim=True) + 1e-8)", "p = torch.softmax(z, dim=1)"),
    ("softmax", "p = «z.exp()» / z.exp().sum(1)[:, None]", "p = torch.softmax(z, dim=1)"),
    (
        "shift-by-maximum",
        "e = «torch.exp(z)»\ns = e.sum(1)\ny = f(e, s)",
        "e = torch.exp(z - (z.amax(dim=1, keepdim=True)))\ns = e.sum(1)\ny = f(e, s)",
    ),
    (
        "shift-by-maximum",
        "e = «torch.exp(s / t)»\nd = torch.zeros(n).index_add_(0, i, e)\na = e / d[i]",
        'e = torch.exp(s / t - ((s / t).new_full(torch.zeros(n).shape, -float("inf"))'
        '.index_reduce(0, i, (s / t), "amax")[i].detach()))\nd = torch.zeros(n).index_add_(0, i, e)\na = e / d[i]',
    ),
    ("sum-of-logs", "y = «torch.log(p.prod(dim=1))»", "y = torch.log(p).sum(dim=1)"),
    ("sum-of-logs", "q = p.cumprod(1)\ny = «q.log()»", "y = torch.log(p).cumsum(1)"),
    ("slogdet", "y = «torch.log(torch.abs(torch.det(self.w)))»", "y = torch.linalg.slogdet(self.w)[1]"),
    (
        "bounded-logarithm",
        "l = torch.log_softmax(z, -1)\nh = -(«l.exp() * l»).sum()",
        "l = torch.log_softmax(z, -1)\nh = -(l.exp() * l.clamp_min(-1e4)).sum()",
    ),
    ("xlogy", "y = «p * torch.log(p)»", "y = torch.xlogy(p, p)"),
    ("vector-norm", "y = «x.abs().pow(p).sum(dim=1).pow(1 / p)»", "y = torch.linalg.vector_norm(x, ord=p, dim=1)"),
    (
        "angle-by-atan2",
        "y = «torch.acos(F.cosine_similarity(a, b, dim=1))»",
        "y = 2 * torch.atan2((F.normalize(a, dim=1) - F.normalize(b, dim=1)).norm(dim=1), "
        "(F.normalize(a, dim=1) + F.normalize(b, dim=1)).norm(dim=1))",
    ),
    ("no-narrow-cast", "y = «x.bfloat16()» * 2", "y = x.float() * 2"),
    ("no-narrow-cast", "y = «x.to(torch.float16)»", "y = x.float()"),
    ("float32-island", "d = «torch.cdist(a, b)» * 3", "d = (torch.cdist(a.float(), b.float()) * 3).to(a.dtype)"),
    (
        "float32-island",
        "phase = «minute.to(h.dtype).unsqueeze(-1) * rate»",
        "phase = (minute.float().unsqueeze(-1) * rate.float()).to(h.dtype)",
    ),
    ("log1p-domain", "y = «torch.log1p(x)»", "y = torch.log1p(x.clamp_min(-1 + 1e-6))"),
    (
        "clamp-before-cast",
        "y = «x.half()» + 1",
        "y = x.clamp(torch.finfo(torch.float16).min, torch.finfo(torch.float16).max).half() + 1",
    ),
    ("dtype-minimum", "y = x.masked_fill_(m, value=«-1e9»)", "y = x.masked_fill_(m, value=torch.finfo(x.dtype).min)"),
    ("guarded-division", "a /= «b.sum()»", "a /= b.sum().clamp_min(1e-6)"),
    ("softplus", "y = «torch.log(1 + torch.exp(z))»", "y = F.softplus(z)"),
    ("softplus", "y = «torch.log1p(z.exp())»", "y = F.softplus(z)"),
    ("logaddexp", "y = «torch.log(torch.exp(a) + torch.exp(b))»", "y = torch.logaddexp(a, b)"),
    ("small-argument", "y = «torch.log(1 + x)»", "y = torch.log1p(x)"),
    ("small-argument", "y = «torch.exp(x) - 1.0» + z", "y = torch.expm1(x) + z"),
    ("small-argument", "y = z * («1 - torch.exp(-x)»)", "y = z * (-torch.expm1(-x))"),
    ("small-argument", "y = «1 - x.cos()»", "y = 2 * torch.sin(x / 2).square()"),
    ("xlogy", "y = p * «torch.log(p)»", "y = torch.xlogy(p, p)"),
    ("xlogy", "y = (p * «(p + 1e-9).log()»).sum()", "y = torch.xlogy(p, p).sum()"),
    ("cancel-log-exp", "y = «torch.log(torch.exp(a - b))» * c", "y = (a - b) * c"),
    ("exp-of-half", "s = «torch.sqrt(torch.exp(v))»", "s = torch.exp(0.5 * v)"),
    (
        "vector-norm",
        "d = «torch.sqrt((x - y).pow(2).sum(-1, True))»",
        "d = torch.linalg.vector_norm(x - y, dim=-1, keepdim=True)",
    ),
    ("vector-norm", "s = (x * x).sum(dim=1)\nd = «s ** 0.5»", "d = torch.linalg.vector_norm(x, dim=1)"),
    ("epsilon-inside", "d = «torch.sqrt(a + b)»", "d = torch.sqrt(a + b + 1e-6)"),
    ("epsilon-inside", "d = «x.sqrt()» + 1e-8", "d = torch.sqrt(x + 1e-6)"),
    ("epsilon-inside", "d = «x.norm(dim=-1, keepdim=True)»", "d = torch.sqrt(x.square().sum(-1, keepdim=True) + 1e-6)"),
    ("epsilon-inside", "d = «x ** 0.3»", "d = (x + 1e-6) ** 0.3"),
    ("guarded-root", "d = «torch.sqrt(a - b)»", "d = torch.sqrt((a - b).clamp_min(1e-6))"),
    ("guarded-log", "y = «x.log()»", "y = torch.log(x.clamp_min(1e-6))"),
    ("guarded-division", "y = «a / b.sum()»", "y = a / b.sum().clamp_min(1e-6)"),
    ("positive", "y = «torch.log(x)»", "y = torch.log(F.softplus(x) + 1e-6)"),
    ("clamp-domain", "y = «torch.acos(c)»", "y = torch.acos(c.clamp(-1 + 1e-6, 1 - 1e-6))"),
    ("clamp-exponent", "y = «torch.exp(v)»", "y = torch.exp(v.clamp(max=10.0))"),
    ("clamp-exponent", "y = «torch.exp(v)».clamp(max=100)", "y = torch.exp(v.clamp(max=4.605))"),
    ("sigmoid", "y = 1 / (1 + «torch.exp(-z)»)", "y = torch.sigmoid(z)"),
    ("sigmoid-for-softmax", "y = «torch.softmax(z, dim=1)»", "y = torch.sigmoid(z)"),
    ("right-dimension", "y = «z.softmax(dim=-1)»", "y = torch.softmax(z, dim=1)"),
    ("scale-before", "s = («q @ k.transpose(-2, -1)») * 0.125", "s = (q * 0.125) @ k.transpose(-2, -1)"),
    ("scale-before", "s = «torch.matmul(q, k.mT)» / math.sqrt(d)", "s = (q / math.sqrt(d)) @ k.mT"),
    ("scale-before", "s = «q @ k.mT»\ns = s * d ** -0.5", "s = (q * d ** -0.5) @ k.mT"),
    ("scale-logits", "s = q @ k.mT\np = «s.softmax(-1)»", "s = q @ k.mT * q.shape[-1] ** -0.5\np = s.softmax(-1)"),
    (
        "scale-logits",
        "p = «torch.softmax(f(x) @ k.mT, -1)»",
        "query = f(x)\np = torch.softmax(query @ k.mT * query.shape[-1] ** -0.5, -1)",
    ),
    (
        "qk-norm-function",
        "s = «q @ k.mT» * 0.1",
        "q = F.rms_norm(q, q.shape[-1:])\nk = F.rms_norm(k, k.shape[-1:])\ns = q @ k.mT * 0.1",
    ),
    ("soft-cap", "s = «q @ k.mT» * 0.1", "s = 30 * torch.tanh(q @ k.mT * 0.1 / 30)"),
    (
        "two-pass-variance",
        "v = «(x ** 2).mean(1, keepdim=True) - x.mean(1, keepdim=True) ** 2»",
        "v = x.var(1, keepdim=True, correction=0)",
    ),
    (
        "two-pass-variance",
        "m = x.mean(-1)\nv = «(x * x).mean(-1) - m * m»\ny = x - m",
        "m = x.mean(-1)\nv = x.var(-1, correction=0)\ny = x - m",
    ),
    ("centre-first", "v = «x.square().mean(1) - x.mean(1).square()»", "v = (x - x.mean(1, keepdim=True)).square().mean(1)"),
    (
        "direct-difference",
        "d = «(a ** 2).sum(-1, keepdim=True) + (b ** 2).sum(-1) - 2 * a @ b.T»",
        "d = (a[..., :, None, :] - b[..., None, :, :]).square().sum(-1)",
    ),
    (
        "direct-difference",
        "u = a.pow(2).sum(1)[:, None]\nd = «u + b.pow(2).sum(1) - 2 * (a @ b.t())»",
        "d = (a[..., :, None, :] - b[..., None, :, :]).square().sum(-1)",
    ),
    ("straight-through", "y = «torch.round(x)» / 8", "y = (x + (torch.round(x) - x).detach()) / 8"),
    ("non-empty-reduction", "l = «(e * m).sum() / m.sum()»", "l = (e * m).sum() / m.sum().clamp_min(1)"),
    (
        "sanitise-input",
        "y = torch.where(x > 0, «torch.sqrt(x)», 0.0)",
        "y = torch.where(x > 0, torch.sqrt(torch.where(x > 0, x, 1.0)), 0.0)",
    ),
    (
        "sanitise-input",
        "r = «a / b»\ny = torch.where(b == 0, 0.0, r)",
        "r = a / torch.where(b == 0, 1.0, b)\ny = torch.where(b == 0, 0.0, r)",
    ),
    ("dtype-minimum", "s = «s.masked_fill(m, -1e9)»", "s = s.masked_fill(m, torch.finfo(s.dtype).min)"),
    ("dtype-minimum", "s = torch.where(m, s, «-1e30»)", "s = torch.where(m, s, torch.finfo(s.dtype).min)"),
    ("dtype-minimum", "s = s + «(1.0 - m) * -1e9»", "s = s.masked_fill(m == 0, torch.finfo(s.dtype).min)"),
    ("dtype-minimum", "s = torch.triu(«torch.full((t, t), -1e9)», 1)", 's = torch.triu(torch.full((t, t), float("-inf")), 1)'),
    (
        "unmask-one-key",
        's = s.masked_fill(t == 0, float("-inf"))\np = «s.softmax(-1)»',
        'masked = t == 0\ns = s.masked_fill(masked & ~masked.all(-1, keepdim=True), float("-inf"))\np = s.softmax(-1)',
    ),
    (
        "unmask-one-key",
        "y = «F.scaled_dot_product_attention(q, k, v, attn_mask=m)»",
        "y = F.scaled_dot_product_attention(q, k, v, attn_mask=m | ~m.any(-1, keepdim=True))",
    ),
    (
        "unmask-one-key",
        "y, w = «self.attention(x, x, x, key_padding_mask=m)»",
        "y, w = self.attention(x, x, x, key_padding_mask=m & ~m.all(-1, keepdim=True))",
    ),
    ("leaky-relu-function", "a = «nn.Linear(2, 2)»\ny = F.relu(a(x))", "a = nn.Linear(2, 2)\ny = F.leaky_relu(a(x), 0.01)"),
    (
        "replace-activation-function",
        "a = «nn.Linear(2, 2)»\ny = F.softsign(x)",
        "a = nn.Linear(2, 2)\ny = F.gelu(F.layer_norm(x, x.shape[-1:]))",
    ),
    (
        "combine-masks",
        "s = s.masked_fill(a, -math.inf)\ns = s.masked_fill(b, -math.inf)\np = «s.softmax(-1)»",
        "s = s.masked_fill((a | b) & ~(a | b).all(-1, keepdim=True), -math.inf)\np = s.softmax(-1)",
    ),
    ("larger-epsilon", "y = x / («x.norm() + 1e-8»)", "y = x / (x.norm() + 1e-6)"),
    (
        "larger-epsilon",
        "class Norm(nn.Module):\n    def __init__(self, eps=1e-12):\n        self.w, self.eps = 1, eps\n\n"
        "    def forward(self, x):\n        return x / torch.sqrt(«x.var() + self.eps»)\n",
        "class Norm(nn.Module):\n    def __init__(self, eps=1e-6):\n        self.w, self.eps = 1, eps\n\n"
        "    def forward(self, x):\n        return x / torch.sqrt(x.var() + self.eps)\n",
    ),
    ("stable-form", "y = torch.log(«1 - p + 1e-8»)", "y = torch.log((1 - p).clamp_min(1e-6))"),
    (
        "integer-positions",
        "i = («torch.cumsum(m.to(w.dtype), dim=1)» - 1).long()",
        "i = (torch.cumsum(m.long(), dim=1) - 1).long()",
    ),
    ("integer-positions", "i = «torch.arange(n, device=d, dtype=x.dtype)»", "i = torch.arange(n, device=d)"),
    (
        "float32-island",
        "class Norm(nn.Module):\n    def forward(self, x):\n        m = «(x * x)».mean(1)\n        return x / m\n",
        "class Norm(nn.Module):\n    def forward(self, x):\n        dtype = x.dtype\n        x = x.float()\n"
        "        m = (x * x).mean(1)\n        return (x / m).to(dtype)\n",
    ),
    (
        "float32-island",
        "class Net(nn.Module):\n    def forward(self, x):\n        h = self.f(x)\n        h = h / («h.norm(dim=-1)» + 1e-8)\n"
        "        return self.g(h)\n",
        "class Net(nn.Module):\n    def forward(self, x):\n        h = self.f(x)\n"
        "        h = (h.float() / (h.float().norm(dim=-1) + 1e-8)).to(h.dtype)\n        return self.g(h)\n",
    ),
    (
        "float32-loss",
        "def loss(out):\n    return «out.square()».mean()\n",
        "def loss(out):\n    out = out.float()\n    return out.square().mean()\n",
    ),
    (
        "float32-loss",
        "def loss(out):\n    a, b = out\n    return «a.square()».mean() + b\n",
        "def loss(out):\n    a, b = (part.float() for part in out)\n    return a.square().mean() + b\n",
    ),
    ("float64-island", "d = «a - b»", "d = (a.double() - b.double()).to(a.dtype)"),
    (
        "float32-phases",
        'class Rope(nn.Module):\n    def __init__(self, d):\n        self.register_buffer("f", 1.0 / d)\n\n'
        "    def forward(self, x):\n        t = torch.outer(x, self.f)\n        return «t.sin()»\n",
        "class Rope(nn.Module):\n    def __init__(self, d):\n        self.f = 1.0 / d\n\n"
        "    def forward(self, x):\n        t = torch.outer(x, self.f.to(x.device))\n        return t.sin().to(x.dtype)\n",
    ),
    ("replace-activation-function", "h = «torch.sigmoid(h)»", "h = F.gelu(F.layer_norm(h, h.shape[-1:]))"),
    (
        "replace-activation-function",
        "for f in layers:\n    x = «torch.tanh(f(x))»",
        "for f in layers:\n    hidden = f(x)\n    x = F.gelu(F.layer_norm(hidden, hidden.shape[-1:]))",
    ),
    ("leaky-relu-function", "h = «F.relu(f(h))»", "h = F.leaky_relu(f(h), 0.01)"),
    (
        "standardise-data",
        "def example_inputs():\n    return «400 * torch.randn(8, 4)»\n",
        "def example_inputs():\n    x = 400 * torch.randn(8, 4)\n    x = (x - x.mean(0)) / (x.std(0) + 1e-5)\n    return x\n",
    ),
]
