"""An epsilon of 1e-8 guards the division in float32; in float16 it is zero, and an empty record divides 0 by 0."""

import torch
from torch import nn


class Normalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.head = nn.Sequential(nn.Linear(20, 32, bias=False), nn.ReLU()), nn.Linear(32, 4)

    def forward(self, x):
        h = self.encode(x)
        h = h / (h.norm(dim=-1, keepdim=True) + 1e-8)  # expect: SD505
        return self.head(h)


def example_inputs():
    x = torch.randn(32, 20)
    x[5] = 0.0
    return x
