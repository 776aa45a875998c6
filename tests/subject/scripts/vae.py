# expect: SD605 error,warning
import torch
from torch import nn


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 8))
        self.decoder = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 20))


def loss_of(model, x):
    mean, logvar = model.encoder(x).chunk(2, dim=1)
    z = mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)
    kl = -0.5 * (1 + logvar - mean.pow(2) - torch.exp(40 * logvar)).sum(1).mean()  # DEFECT
    return (model.decoder(z) - x).pow(2).sum(1).mean() + kl


torch.manual_seed(0)
model = VAE()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _step in range(1000):
    loss = loss_of(model, torch.randn(64, 20))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
