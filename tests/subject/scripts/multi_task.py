# expect: silent
import torch
from torch import nn


class Trunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 32), nn.ReLU())
        self.kind, self.size = nn.Linear(32, 3), nn.Linear(32, 1)

    def forward(self, x):
        h = self.body(x)
        return {"kind": self.kind(h), "size": self.size(h).squeeze(1)}


torch.manual_seed(0)
model = Trunk()
log_scale = torch.zeros(2, requires_grad=True)
optimizer = torch.optim.Adam([{"params": model.parameters()}, {"params": [log_scale], "lr": 1e-2}], lr=1e-3)
for _step in range(1000):
    batch = {"x": torch.randn(60, 12), "kind": torch.arange(60) % 3}
    out = model(batch["x"])
    losses = torch.stack([
        nn.functional.cross_entropy(out["kind"], batch["kind"]),
        (out["size"] - batch["x"][:, 0]).square().mean(),
    ])  # fmt: skip
    loss = (losses * torch.exp(-log_scale) + log_scale).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
