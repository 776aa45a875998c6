"""Small models with one unstable expression each, and their guarded twins, in the styles people write them in.

Each entry is the body of `forward(self, x)` and of `loss(out)`; the line to be reported carries `# expect: SDNNN`. `h` is a
hidden state of shape (12, 16); `self.a`, `self.b` and `self.one` are linear layers to 4, 4 and 1 units; `I` and `T` are rows
and class targets, `Y` targets of 0 and 1 of shape (12, 1), `H` their one-hot form of shape (12, 4).
"""

from __future__ import annotations

from textwrap import indent

TEMPLATE = """
import math
import torch
import torch.nn.functional as F
from torch import nn

I = torch.arange(12)
T = I % 4
Y = (I % 2).float()[:, None]
H = F.one_hot(T, 4).float()

def safe_log(p):
    return torch.log(p.clamp(min=1e-6))

def normalise(e, dim):
    return e / e.sum(dim, keepdim=True)

class Probabilities(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(16, 4)

    def forward(self, h):
        return nn.Softmax(dim=-1)(self.fc(h))

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.Tanh())
        self.a, self.b, self.one = nn.Linear(16, 4), nn.Linear(16, 4), nn.Linear(16, 1)
        self.p = Probabilities()
        self.lstm = nn.LSTM(16, 16, batch_first=True)
        self.table = nn.Parameter(torch.randn(12, 4))
        self.W = nn.Parameter(torch.zeros(16, 4))
        self.temperature = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x):
        h = self.body(x)
{forward}

def build_model():
    torch.manual_seed({seed})
    return Model()

def example_inputs():
    return (torch.randn(12, 8, generator=torch.Generator().manual_seed({seed} + 1)),)

def loss(out):
{loss}
"""


def model_file(forward: str, loss: str, seed: int = 0) -> str:
    """The text of a model file."""
    return TEMPLATE.format(forward=indent(forward.strip("\n"), " " * 8), loss=indent(loss.strip("\n"), " " * 4), seed=seed)


MEAN = "return out.mean()"

# kind -> style -> (forward, loss)
UNSTABLE: dict[str, dict[str, tuple[str, str]]] = {
    "log of softmax": {
        "loss on probabilities": (
            "return torch.softmax(self.a(h), dim=1)",
            "return -torch.log(out)[I, T].mean()  # expect: SD601",
        ),
        "module in module": ("return self.p(h)", "return -(H * out.log()).sum(1).mean()  # expect: SD601"),
        "nll_loss": ("return F.softmax(self.a(h), -1)", "return F.nll_loss(torch.log(out), T)  # expect: SD601"),
        "behind an LSTM": (
            "return torch.softmax(self.a(self.lstm(h[:, None])[0][:, -1]), 1)",
            "return -torch.log(out)[I, T].mean()  # expect: SD601",
        ),
        "of a layer that starts at 0": (
            "return torch.softmax(h @ self.W, 1)",
            "return torch.mean(-torch.sum(H * torch.log(out), 1))  # expect: SD601",
        ),
        "mixture of softmaxes": (
            "gate, experts = torch.softmax(self.b(h)[:, :2], 1), torch.softmax(self.a(h).view(12, 2, 2), -1)\n"
            "return torch.einsum('bk,bko->bo', gate, experts)",
            "return F.nll_loss(out.log(), T % 2)  # expect: SD601",
        ),
        "ratio of softmaxes": (
            "p, q = torch.softmax(self.a(h), 1), torch.softmax(self.b(h), 1)\n"
            "return (p * (p / (0.5 * (p + q))).log()).sum(1)  # expect: SD601",
            MEAN,
        ),
        "gather": (
            "return torch.softmax(self.a(h), -1)",
            "picked = out.gather(1, T[:, None])\nreturn -picked.log().mean()  # expect: SD601",
        ),
        "entropy": ("p = self.p(h)\nreturn -(p * torch.log(p)).sum(-1)  # expect: SD601", MEAN),
        "kl by hand": (
            "return self.p(h), torch.softmax(self.b(h), -1)",
            "p, q = out\nreturn (p * (p.log() - q.log())).sum()  # expect: SD601",
        ),
        "policy gradient": (
            "return torch.softmax(self.a(h), -1)",
            "log_probability = torch.log(out[I, T])  # expect: SD601\nreturn -(log_probability * Y[:, 0]).mean()",
        ),
        "log2": ("return torch.softmax(self.a(h), -1)", "return -(H * torch.log2(out)).sum(1).mean()  # expect: SD601"),
        "in place": (
            "return torch.softmax(self.a(h), -1)",
            "q = out * 1.0\nq.log_()  # expect: SD601\nreturn -(H * q).mean()",
        ),
        "absorbed epsilon": (
            "return torch.softmax(self.a(h), -1)",
            "return -(H * torch.log(1e-46 + out)).mean()  # expect: SD601",
        ),
        "temperature": ("return torch.softmax(self.a(h) / 0.1, -1)", "return -(H * torch.log(out)).mean()  # expect: SD601"),
        "mixture of two": (
            "return torch.softmax(self.a(h), -1), torch.softmax(self.b(h), -1)",
            "m = 0.5 * (out[0] + out[1])\nreturn -(H * torch.log(m)).mean()  # expect: SD601",
        ),
        "by hand, shifted": (
            "z = self.a(h)\ne = torch.exp(z - z.max(1, keepdim=True).values)\nreturn e / e.sum(1, keepdim=True)",
            "return -(H * torch.log(out)).mean()  # expect: SD601",
        ),
        "sum of classes": (
            "return torch.softmax(self.a(h), -1)",
            "return -torch.log(out[:, :2].sum(1)).mean()  # expect: SD601",
        ),
        "clamped at one only": (
            "return torch.softmax(self.a(h), -1).clamp(max=1.0)",
            "return -(H * torch.log(out)).mean()  # expect: SD601",
        ),
    },
    "binary cross-entropy by hand": {
        "both terms": (
            "return torch.sigmoid(self.one(h))",
            "return -(Y * torch.log(out) + (1 - Y) * torch.log(1 - out)).mean()  # expect: SD602",
        ),
        "one term": ("return self.one(h).sigmoid()", "return -torch.log(1 - out).mean()  # expect: SD602"),
        "method": ("return nn.Sigmoid()(self.one(h))", "return -(out.log() * Y).mean()  # expect: SD602"),
        "two lines": (
            "return torch.sigmoid(self.one(h))",
            "pos = Y * torch.log(out)  # expect: SD602\n"
            "neg = (1 - Y) * (1 - out).log()  # expect: SD602\nreturn -(pos + neg).mean()",
        ),
        "focal": (
            "return torch.sigmoid(self.one(h))",
            "pt = torch.where(Y == 1, out, 1 - out)\nreturn -((1 - pt) ** 2 * torch.log(pt)).mean()  # expect: SD602",
        ),
        "absorbed epsilon": (
            "return torch.sigmoid(self.one(h))",
            "return -(Y * torch.log(1e-10 + out) + (1 - Y) * torch.log(1e-10 + 1 - out)).mean()  # expect: SD602",
        ),
        "absorbed epsilon in a tensor": (
            "return torch.sigmoid(self.one(h))",
            "one = torch.ones_like(out)\nreturn -torch.log(1e-10 + one - out).mean()  # expect: SD602",
        ),
        "clamp that rounds to one": (
            "return torch.sigmoid(self.one(h)).clamp(1e-8, 1 - 1e-8)",
            "return -torch.log(1 - out).mean()  # expect: SD602",
        ),
        "gan": (
            "return torch.sigmoid(self.one(h)), torch.sigmoid(self.one(-h))",
            "real, fake = out\nreturn -torch.mean(torch.log(real) + torch.log(1.0 - fake))  # expect: SD602",
        ),
        "log1p": ("return torch.sigmoid(self.one(h))", "return -torch.log1p(-out).mean()  # expect: SD602"),
    },
    "softmax by hand": {
        "one line": (
            "z = self.a(h)\nreturn torch.exp(z) / torch.exp(z).sum(1, keepdim=True)  # expect: SD603",
            "return out.pow(2).mean()",
        ),
        "two lines": ("e = self.a(h).exp()  # expect: SD603\nreturn e / e.sum(1, keepdim=True)", "return out.pow(2).mean()"),
        "helper": ("return normalise(torch.exp(self.a(h)), 1)  # expect: SD603", "return out.pow(2).mean()"),
        "temperature": (
            "e = torch.exp(self.a(h) / self.temperature)  # expect: SD603\nreturn e / e.sum(1, keepdim=True)",
            "return out.pow(2).mean()",
        ),
        "masked": (
            "e = torch.exp(self.a(h)) * H  # expect: SD603\nreturn e / (e.sum(1, keepdim=True) + 1e-8)",
            "return out.pow(2).mean()",
        ),
        "attention": (
            "s = self.a(h) @ self.b(h).T\ne = torch.exp(s)  # expect: SD603\nreturn (e @ h) / e.sum(-1, keepdim=True)",
            "return out.pow(2).mean()",
        ),
        "logsumexp": ("return torch.log(torch.exp(self.a(h)).sum(1))  # expect: SD603", MEAN),
        "infonce": (
            "return self.a(h) @ self.b(h).T",
            "e = torch.exp(out / 0.1)  # expect: SD603\nreturn -torch.log(e.diag() / e.sum(1)).mean()",
        ),
        "over edges": (
            "e = self.one(h)[:, 0].exp()  # expect: SD603\ntotal = torch.zeros(4).index_add(0, T, e)\nreturn e / total[T]",
            "return out.pow(2).mean()",
        ),
        "recursion over time": (
            "alpha = self.a(h)\nfor t in range(3):\n"
            "    alpha = torch.log(torch.exp(alpha.unsqueeze(2) + self.W[:4]).sum(1))  # expect: SD603\nreturn alpha",
            MEAN,
        ),
        "mean of exp": ("return torch.log(torch.mean(torch.exp(self.a(h)), dim=1))  # expect: SD603", MEAN),
    },
    "log(1 + exp)": {
        "plain": ("return self.a(h)", "return torch.log(1 + torch.exp(out)).mean()  # expect: SD604"),
        "log1p": ("return self.a(h)", "return torch.log1p(out.exp()).mean()  # expect: SD604"),
        "negative": ("return self.a(h)", "return (1 + (-out).exp()).log().mean()  # expect: SD604"),
        "activation": ("return torch.log(torch.exp(self.a(h)) + 1.0)  # expect: SD604", MEAN),
        "free energy": (
            "return self.a(h)",
            "wx = out * 2.0\nhidden = torch.sum(torch.log(1 + torch.exp(wx)), 1)  # expect: SD604\nreturn -hidden.mean()",
        ),
        "logaddexp": ("return self.a(h), self.b(h)", "return torch.log(out[0].exp() + out[1].exp()).mean()  # expect: SD604"),
        "log cosh": ("return self.a(h) - H", "return torch.log(torch.cosh(out)).mean()  # expect: SD604"),
    },
    "sqrt(exp)": {
        "standard deviation": (
            "m, v = self.a(h), self.b(h)\nreturn m + torch.sqrt(torch.exp(v)) * torch.ones_like(m)  # expect: SD606",
            "return out.pow(2).mean()",
        ),
        "method": ("return self.b(h).exp().sqrt()  # expect: SD606", MEAN),
        "power": ("return self.b(h).exp() ** 0.5  # expect: SD606", MEAN),
        "noise": (
            "m, v = self.a(h), self.b(h)\neps = torch.randn_like(m)\nreturn m + eps * torch.sqrt(v.exp())  # expect: SD606",
            "return out.pow(2).mean()",
        ),
        "variable": ("variance = torch.exp(self.b(h))\nreturn torch.sqrt(variance)  # expect: SD606", MEAN),
    },
    "division by a computed scale": {
        "norm": ("z = self.a(h)\nreturn z / z.norm(dim=1, keepdim=True)  # expect: SD608", "return out.pow(2).sum()"),
        "standard deviation": (
            "z = self.a(h)\nreturn (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)  # expect: SD608",
            "return out.pow(2).sum()",
        ),
        "min-max": (
            "z = self.a(h)\nlow, high = z.min(), z.max()\nreturn (z - low) / (high - low)  # expect: SD608",
            "return out.pow(2).sum()",
        ),
        "sum of relu": ("z = F.relu(self.a(h))\nreturn z / z.sum(1, keepdim=True)  # expect: SD608", "return out.pow(2).sum()"),
        "raw": ("return self.a(h) / self.one(h)  # expect: SD608", "return out.pow(2).sum()"),
        "root of squares": (
            "z = self.a(h)\nreturn z / torch.sqrt((z ** 2).sum(1, keepdim=True))  # expect: SD608",
            "return out.pow(2).sum()",
        ),
        "cosine by hand": (
            "a, b = self.a(h), self.b(h)\nreturn (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))  # expect: SD608",
            MEAN,
        ),
        "maximum": ("z = self.a(h).abs()\nreturn z / z.max()  # expect: SD608", "return out.pow(2).sum()"),
        "rsqrt": (
            "z = self.a(h)\nreturn z * torch.rsqrt(z.pow(2).mean(1, keepdim=True))  # expect: SD608",
            "return out.pow(2).sum()",
        ),
    },
    "log of a raw value": {
        "linear": ("return self.a(h)", "return torch.log(out).mean()  # expect: SD608"),
        "root of a layer": ("return (self.one(h) + 1.5) ** 0.5  # expect: SD608", MEAN),
        "root, as a function": ("return torch.sqrt(self.one(h) + 1.5)  # expect: SD608", MEAN),
        "relu": ("return F.relu(self.a(h))", "return (out - H * torch.log(out)).mean()  # expect: SD608"),
        "offset": ("return self.one(h) + 1.5", "return torch.log(out).mean()  # expect: SD608"),
        "square": ("return self.a(h)", "return torch.log(out ** 2).mean()  # expect: SD608"),
        "gaussian density": (
            "return self.a(h)",
            "density = torch.exp(-0.5 * (out - H) ** 2) / math.sqrt(2 * math.pi)\n"
            "return -torch.log(density).mean()  # expect: SD608",
        ),
        "mixture density": (
            "pi, mu = torch.softmax(self.a(h), 1), self.b(h)\nreturn (pi * torch.exp(-0.5 * (Y - mu) ** 2)).sum(1)",
            "return -torch.log(out).mean()  # expect: SD608",
        ),
    },
    "singular gradient": {
        "pairwise": ("z = self.a(h)\nreturn torch.sqrt(((z[:, None] - z[None]) ** 2).sum(-1))  # expect: SD606", MEAN),
        "triplet": (
            "return self.a(h), self.b(h)",
            "d = ((out[0] - out[1]) ** 2).sum(1).sqrt()  # expect: SD606\nreturn d.mean()",
        ),
        "power": ("return self.a(h).abs() ** 0.5  # expect: SD606", MEAN),
        "saturation": ("t = torch.sigmoid(self.a(h))\nreturn torch.sqrt(1 - t ** 2)  # expect: SD606", MEAN),
        "arc cosine": ("return torch.acos(torch.tanh(self.a(h)))  # expect: SD606", MEAN),
    },
    "where trap": {
        "sqrt": ("return self.a(h)", "return torch.where(out > 0, out.sqrt(), torch.zeros_like(out)).mean()  # expect: SD607"),
        "masked fill": ("return self.a(h)", "r = torch.sqrt(out)  # expect: SD607\nreturn r.masked_fill(out <= 0, 0.0).mean()"),
        "elu": ("z = self.a(h)\nreturn torch.where(z > 0, z, torch.exp(z) - 1)  # expect: SD607", MEAN),
        "softplus": ("z = self.a(h)\nreturn torch.where(z > 20, z, torch.log(1 + z.exp()))  # expect: SD607", MEAN),
        "division": (
            "n = F.relu(self.one(h))\nreturn torch.where(n > 0, self.a(h) / n, torch.zeros(1))  # expect: SD607",
            "return out.pow(2).mean()",
        ),
    },
    "late clamp": {
        "clamp": ("return torch.exp(self.a(h)).clamp(max=50.0)  # expect: SD605", MEAN),
        "minimum": ("return torch.minimum(self.a(h).exp(), torch.tensor(50.0))  # expect: SD605", MEAN),
        "sigmoid": ("return 1 / (1 + torch.exp(-self.a(h)))  # expect: SD605", MEAN),
        "swish": ("z = self.a(h)\nreturn z / (1 + torch.exp(-z))  # expect: SD605", MEAN),
    },
    "singleton": {
        "logits": ("return torch.softmax(self.one(h), dim=1)  # expect: SD612", "return F.binary_cross_entropy(out, Y)"),
    },
}

STABLE: dict[str, tuple[str, str]] = {
    "log_softmax": ("return F.log_softmax(self.a(h), 1)", "return F.nll_loss(out, T)"),
    "cross_entropy": ("return self.a(h)", "return F.cross_entropy(out, T)"),
    "softmax beside log_softmax": (
        "z = self.a(h)\nreturn (torch.softmax(z, 1) * torch.log_softmax(z, 1)).sum(1)",
        MEAN,
    ),
    "log of clamped softmax": ("return torch.softmax(self.a(h), 1)", "return -(H * torch.log(out.clamp(min=1e-7))).mean()"),
    "log of clamp both sides": (
        "return torch.sigmoid(self.one(h)).clamp(1e-6, 1 - 1e-6)",
        "return -(Y * out.log() + (1 - Y) * (1 - out).log()).mean()",
    ),
    "epsilon after": ("return torch.softmax(self.a(h), 1)", "return -(H * torch.log(out + 1e-10)).mean()"),
    "epsilon after the difference": ("return torch.sigmoid(self.one(h))", "return -torch.log(1 - out + 1e-10).mean()"),
    "helper with clamp": ("return torch.softmax(self.a(h), 1)", "return -(H * safe_log(out)).mean()"),
    "maximum": ("return torch.softmax(self.a(h), 1)", "return -(H * torch.log(torch.maximum(out, torch.tensor(1e-8)))).mean()"),
    "bce": ("return torch.sigmoid(self.one(h))", "return F.binary_cross_entropy(out, Y)"),
    "bce with logits": ("return self.one(h)", "return F.binary_cross_entropy_with_logits(out, Y)"),
    "logsigmoid": ("return self.one(h)", "return -(Y * F.logsigmoid(out) + (1 - Y) * F.logsigmoid(-out)).mean()"),
    "softplus": ("return F.softplus(self.a(h))", MEAN),
    "shifted softmax": (
        "z = self.a(h)\ne = torch.exp(z - z.amax(1, keepdim=True))\nreturn e / e.sum(1, keepdim=True)",
        "return out.pow(2).mean()",
    ),
    "detached shift": (
        "z = self.a(h)\ne = (z - z.detach().max(1, keepdim=True)[0]).exp()\nreturn e / e.sum(1, keepdim=True)",
        "return out.pow(2).mean()",
    ),
    "logsumexp": ("return torch.logsumexp(self.a(h), 1)", MEAN),
    "logsumexp by hand, shifted": (
        "z = self.a(h)\nm = z.amax(1, keepdim=True)\nreturn m + torch.log(torch.exp(z - m).sum(1, keepdim=True))",
        MEAN,
    ),
    "stable softplus by hand": ("z = self.a(h)\nreturn z.clamp(min=0) + torch.log1p(torch.exp(-z.abs()))", MEAN),
    "stable bce by hand": (
        "return self.one(h)",
        "return (out.clamp(min=0) - out * Y + torch.log(1 + torch.exp(-out.abs()))).mean()",
    ),
    "double where": (
        "return self.a(h)",
        "ok = out > 0\nsafe = torch.where(ok, out, torch.ones_like(out))\n"
        "return torch.where(ok, safe.log(), torch.zeros_like(out)).mean()",
    ),
    "root with epsilon": ("z = self.a(h)\nreturn torch.sqrt(((z[:, None] - z[None]) ** 2).sum(-1) + 1e-8)", MEAN),
    "root of relu": ("return torch.sqrt(F.relu(self.a(h)))", MEAN),
    "root of shifted relu": ("return torch.sqrt(F.relu(self.a(h) + 5.0))", MEAN),
    "root of clamped": ("z = self.a(h)\nreturn ((z[:, None] - z[None]) ** 2).sum(-1).clamp(min=1e-8).sqrt()", MEAN),
    "cdist": ("return torch.cdist(self.a(h), self.b(h))", MEAN),
    "vector norm": ("return torch.linalg.vector_norm(self.a(h) - self.b(h), dim=1)", MEAN),
    "normalize": ("return F.normalize(self.a(h), dim=1)", "return out.pow(4).sum()"),
    "cosine similarity": ("return F.cosine_similarity(self.a(h), self.b(h))", MEAN),
    "norm plus epsilon": ("z = self.a(h)\nreturn z / (z.norm(dim=1, keepdim=True) + 1e-6)", "return out.pow(4).sum()"),
    "standardised with epsilon": (
        "z = self.a(h)\nreturn (z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-6)",
        "return out.pow(4).sum()",
    ),
    "rms norm": (
        "z = self.a(h)\nreturn z * torch.rsqrt(z.pow(2).mean(1, keepdim=True) + 1e-6)",
        "return out.pow(4).sum()",
    ),
    "layer norm by hand": (
        "z = self.a(h)\nm = z.mean(1, keepdim=True)\n"
        "v = (z - m).pow(2).mean(1, keepdim=True)\nreturn (z - m) / torch.sqrt(v + 1e-5)",
        "return out.pow(4).sum()",
    ),
    "masked mean": (
        "mask = (x[:, :4] > -0.5).float()\nreturn (self.a(h) * mask).sum(1) / mask.sum(1).clamp(min=1)",
        MEAN,
    ),
    "division by a count": ("return self.a(h).sum(0) / torch.tensor(h.shape[0])", MEAN),
    "division by a length": ("n = torch.full((12, 1), 3).float()\nreturn self.a(h) / n", MEAN),
    "division by softplus": ("return self.a(h) / (F.softplus(self.one(h)) + 1e-3)", "return out.pow(2).mean()"),
    "division by one plus square": ("return self.a(h) / (1 + self.one(h) ** 2)", MEAN),
    "softsign": ("z = self.a(h)\nreturn z / (1 + z.abs())", MEAN),
    "radial basis": ("return torch.exp(-(self.a(h) - H) ** 2)", MEAN),
    "bounded exp": ("return torch.exp(torch.tanh(self.a(h)) * 3)", MEAN),
    "clamped exponent": ("return torch.exp(self.a(h).clamp(-10, 10))", MEAN),
    "sigmoid exponent": ("return torch.exp(torch.sigmoid(self.a(h)))", MEAN),
    "exp of parameter": ("return self.a(h) * self.temperature.exp()", MEAN),
    "decay": ("return h[:, :4] * torch.exp(-F.softplus(self.a(h)) * torch.exp(self.temperature))", MEAN),
    "log of constant": ("return self.a(h) * torch.log(self.scale) / math.log(10)", MEAN),
    "log of one plus square": ("return torch.log(1 + self.a(h) ** 2)", MEAN),
    "log1p of relu": ("return torch.log1p(F.relu(self.a(h)))", MEAN),
    "log of softplus": ("return torch.log(F.softplus(self.a(h)) + 1e-4)", MEAN),
    "log of bounded softmax": (
        "return torch.softmax(5 * torch.tanh(self.a(h)), 1)",
        "return -(H * torch.log(out)).mean()",
    ),
    "log of mixed bounded softmaxes": (
        "return torch.softmax(torch.tanh(self.b(h)), 1) @ torch.softmax(torch.tanh(self.table[:4]), 1)",
        "return -(H * torch.log(out)).mean()",
    ),
    "guarded ratio of softmaxes": (
        "p, q = torch.softmax(self.a(h), 1), torch.softmax(self.b(h), 1)\n"
        "return (p * ((p + 1e-6) / (0.5 * (p + q) + 1e-6)).log()).sum(1)",
        MEAN,
    ),
    "softmax over edges, shifted": (
        "z = self.one(h)[:, 0]\ne = (z - z.max()).clamp(min=-60).exp()\n"
        "total = torch.zeros(4).index_add(0, T, e)\nreturn e / total[T]",
        "return out.pow(2).mean()",
    ),
    "behind an LSTM, stable": (
        "return F.log_softmax(self.a(self.lstm(h[:, None])[0][:, -1]), 1)",
        "return F.nll_loss(out, T)",
    ),
    "recursion over time in log space": (
        "alpha = self.a(h)\nfor t in range(3):\n    alpha = torch.logsumexp(alpha.unsqueeze(2) + self.W[:4], 1)\nreturn alpha",
        MEAN,
    ),
    "contrastive, normalised": (
        "a, b = F.normalize(self.a(h), dim=1), F.normalize(self.b(h), dim=1)\nreturn a @ b.T",
        "e = torch.exp(out / 0.5)\nreturn -torch.log(e.diag() / e.sum(1)).mean()",
    ),
    "gaussian nll": (
        "return self.a(h), F.softplus(self.b(h)) + 1e-3",
        "return F.gaussian_nll_loss(out[0], H, out[1])",
    ),
    "kl_div": (
        "return F.log_softmax(self.a(h), 1), torch.softmax(self.b(h), 1)",
        "return F.kl_div(out[0], out[1], reduction='batchmean')",
    ),
    "ratio of policies": (
        "action = F.log_softmax(self.a(h), -1)[I, T]\nreturn (action - x[:, 0]).exp()",
        "return -torch.min(out, out.clamp(0.8, 1.2)).mean()",
    ),
    "exp of half": (
        "m, v = self.a(h), self.b(h)\nreturn m + torch.exp(0.5 * v.clamp(-20, 20)) * torch.randn_like(m)",
        "return out.pow(2).mean()",
    ),
    "attention": (
        "q, k = self.a(h), self.b(h)\nreturn torch.softmax(q @ k.T / math.sqrt(4), -1) @ h",
        "return out.pow(2).mean()",
    ),
    "fused attention": (
        "q, k = self.a(h)[None, None], self.b(h)[None, None]\nreturn F.scaled_dot_product_attention(q, k, k)",
        "return out.pow(2).mean()",
    ),
    "mixture with logsumexp": (
        "return F.log_softmax(self.a(h), 1), self.b(h)",
        "return -torch.logsumexp(out[0] - 0.5 * (Y - out[1]) ** 2, 1).mean()",
    ),
    "sinkhorn in log space": (
        "z = -torch.cdist(self.a(h), self.b(h))\nfor _ in range(4):\n    z = z - torch.logsumexp(z, 1, keepdim=True)\n"
        "    z = z - torch.logsumexp(z, 0, keepdim=True)\nreturn z.exp()",
        MEAN,
    ),
    "positive integer powers": ("z = self.a(h)\nreturn z ** 2 + z ** 3 - z ** 4", MEAN),
    "linear attention": (
        "q, k = F.elu(self.a(h)) + 1, F.elu(self.b(h)) + 1\nreturn (q @ (k.T @ h)) / (q @ k.sum(0, keepdim=True).T + 1e-6)",
        "return out.pow(2).mean()",
    ),
    "gem pooling": ("return h.clamp(min=1e-6).pow(3).mean(1).pow(1 / 3)", MEAN),
    "top-k routing": (
        "p = torch.softmax(self.a(h), -1)\nw, i = p.topk(2)\nreturn w / w.sum(-1, keepdim=True)",
        "return out.pow(2).mean()",
    ),
}
