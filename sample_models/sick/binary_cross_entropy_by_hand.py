"""Binary cross-entropy written out: log(1 - p) is log(0) once the sigmoid rounds to 1, at a logit of 17."""

import torch
from torch import nn


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(40, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))

    def forward(self, x):
        return torch.sigmoid(self.net(x))


def example_inputs():
    return torch.randn(32, 40)


def loss(p):
    y = (torch.arange(32) % 2).to(p.dtype)[:, None]
    positive = y * torch.log(p)  # expect: SD602
    negative = (1 - y) * torch.log(1 - p)  # expect: SD602
    return -(positive + negative).mean()
