"""All weights zero: the hidden layers get no gradient, now or later."""

import torch
from torch import nn


def build_model():
    model = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)  # expect: SD701
    return model


def example_inputs():
    return torch.randn(64, 12)
