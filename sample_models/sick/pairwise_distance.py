"""Distances of all pairs, each point with itself included: the root has no slope at zero, and backward is NaN."""

import torch
import torch.nn.functional as F
from torch import nn


class Embedder(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 8))

    def forward(self, x):
        z = self.net(x)
        difference = z[:, None] - z[None]
        return torch.sqrt(difference.pow(2).sum(-1))  # expect: SD606


def example_inputs():
    return torch.randn(16, 12)


def loss(distance):
    same = (torch.arange(16)[:, None] % 4) == (torch.arange(16)[None] % 4)
    return torch.where(same, distance, F.relu(1 - distance)).mean()
