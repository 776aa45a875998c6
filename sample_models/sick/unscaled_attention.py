"""Dot products of 512 terms without the 1/sqrt(d): softmax picks one key and passes no gradient."""

import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self, width=512):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        for layer in (self.query, self.key):
            nn.init.orthogonal_(layer.weight, gain=1.5)
        self.output = nn.Linear(width, 8)

    def forward(self, x):
        x = self.norm(x)
        scores = self.query(x) @ self.key(x).transpose(1, 2)  # expect: SD405
        return self.output((scores.softmax(dim=-1) @ self.value(x)).mean(1))


def example_inputs():
    return torch.randn(8, 24, 512)
