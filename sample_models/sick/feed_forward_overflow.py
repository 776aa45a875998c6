"""A gated feed-forward layer whose products exceed 65,504: fine in bfloat16, infinite in float16."""

import torch
import torch.nn.functional as F
from torch import nn


class GatedFeedForward(nn.Module):
    def __init__(self, width=64, hidden=256):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate, self.up = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        for layer in (self.gate, self.up, self.down):
            nn.init.normal_(layer.weight, std=3.0)

    def forward(self, x):
        h = self.norm(x)
        return x + self.down(F.gelu(self.gate(h)) * self.up(h))  # expect: SD302


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block, self.norm, self.head = GatedFeedForward(), nn.LayerNorm(64), nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.norm(self.block(x)))


def example_inputs():
    return torch.randn(32, 64)
