"""A regulariser weighted by 1e-8: in float16 its gradients are below the smallest number there is."""

import torch
import torch.nn.functional as F
from torch import nn


class TwoHeads(nn.Module):  # expect-anywhere: SD106
    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(64, 16), nn.Linear(16, 64)
        self.prior = nn.Sequential(nn.Linear(16, 512), nn.Tanh(), nn.Linear(512, 1))

    def forward(self, x):
        z = torch.tanh(self.encode(x))
        return self.decode(z), self.prior(z.detach())


def example_inputs():
    return torch.randn(64, 64, generator=torch.Generator().manual_seed(1))


def loss(output):
    reconstruction, energy = output
    return F.mse_loss(reconstruction, example_inputs().to(reconstruction)) + 1e-8 * energy.square().mean()  # expect: SD104
