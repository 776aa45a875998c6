# expect: silent
import math

import torch
from torch import nn

STEPS = 100
beta = torch.linspace(1e-4, 0.02, STEPS)
kept = torch.cumprod(1 - beta, 0)


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.time = nn.Linear(16, 32)
        self.inner, self.outer = nn.Linear(2, 32), nn.Sequential(nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 2))

    def forward(self, x, t):
        angles = t[:, None].float() / STEPS * torch.exp(torch.arange(8) * -math.log(100.0) / 8)
        return self.outer(self.inner(x) + self.time(torch.cat([angles.sin(), angles.cos()], 1)))


if __name__ == "__main__":
    torch.manual_seed(0)
    model = Denoiser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _step in range(1000):
        x0 = torch.randn(64, 2) * torch.tensor([1.0, 0.3])
        t = torch.randint(0, STEPS, (64,))
        noise = torch.randn_like(x0)
        xt = kept[t].sqrt()[:, None] * x0 + (1 - kept[t]).sqrt()[:, None] * noise
        loss = nn.functional.mse_loss(model(xt, t), noise)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
