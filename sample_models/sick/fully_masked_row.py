"""An empty document: every key of its rows is masked, and softmax of nothing is NaN."""

import torch
from torch import nn


class Pooling(nn.Module):
    def __init__(self, vocabulary=100, width=32):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=0)
        self.score, self.output = nn.Linear(width, 1), nn.Linear(width, 4)

    def forward(self, tokens):
        x = self.embedding(tokens)
        scores = self.score(x).squeeze(-1)
        scores = scores.masked_fill(tokens == 0, float("-inf"))  # expect: SD403
        weights = torch.softmax(scores, dim=-1)
        return self.output((weights.unsqueeze(-1) * x).sum(1))


def example_inputs():
    tokens = torch.randint(1, 100, (16, 12))
    tokens[3] = 0
    return tokens
