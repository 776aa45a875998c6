"""log(softmax(x)) in two steps: -inf as soon as one class is sure enough."""

import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 6))

    def forward(self, x):
        return F.softmax(self.body(x), dim=-1)


def example_inputs():
    return torch.randn(48, 30)


def loss(probabilities):
    return F.nll_loss(torch.log(probabilities), torch.arange(48) % 6)  # expect: SD601
