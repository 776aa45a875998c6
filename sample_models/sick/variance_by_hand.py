"""E[x²] - E[x]² of values around 3000: the difference of two large numbers has no digits left, and may be negative."""

import torch
from torch import nn


class Standardise(nn.Module):
    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        variance = (x * x).mean(1, keepdim=True) - mean * mean  # expect: SD609
        return (x - mean) / torch.sqrt(variance + 1e-3)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.standardise, self.rnn, self.fc = Standardise(), nn.GRU(8, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x):
        return self.fc(self.rnn(self.standardise(x))[0][:, -1])


def example_inputs():
    return 3000 + torch.randn(16, 40, 8)
