"""Weights drawn with standard deviation 1, whatever the width: activations and gradients grow at every layer."""

import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    layers = []
    for _ in range(8):
        layers += [nn.Linear(128, 128), nn.ReLU()]  # expect: SD302
    model = nn.Sequential(*layers, nn.Linear(128, 1))
    for module in model:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)  # expect: SD102
            nn.init.zeros_(module.bias)
    return model
