"""Features in the hundreds go straight into a sigmoid, which is flat there."""

import torch
from torch import nn


class Scorer(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.output = nn.Linear(20, 64), nn.Linear(64, 3)

    def forward(self, sensors):
        return self.output(torch.sigmoid(self.hidden(sensors)))  # expect: SD202


def example_inputs():
    return 300 * torch.randn(64, 20)  # expect: SD703
