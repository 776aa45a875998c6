"""Every filter starts as the same filter, gets the same gradient, and stays the same."""

import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 32, 3)
        self.fc = nn.Linear(32, 4)
        nn.init.constant_(self.conv1.weight, 0.1)  # expect: SD701
        nn.init.constant_(self.conv2.weight, 0.02)

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.fc(x.mean((-1, -2)))


def example_inputs():
    return torch.rand(16, 1, 16, 16)
