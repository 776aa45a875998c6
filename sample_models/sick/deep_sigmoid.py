"""Twelve sigmoid layers: each hands back at most a quarter of the gradient it gets."""

import torch
from torch import nn


class DeepSigmoid(nn.Module):
    def __init__(self, depth=12, width=64):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        for layer in self.layers:
            x = torch.sigmoid(layer(x))  # expect: SD101
        return self.head(x)
