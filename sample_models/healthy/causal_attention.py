"""Attention by hand with a causal mask of -inf, the way it is written on blackboards."""

import math

import torch
from torch import nn


class CausalAttention(nn.Module):
    def __init__(self, vocabulary=200, width=64, heads=4):
        super().__init__()
        self.heads = heads
        self.embedding, self.position = nn.Embedding(vocabulary, width), nn.Embedding(64, width)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def split(self, x):
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, tokens):
        x = self.embedding(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        future = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device).triu(1)
        weights = torch.softmax(scores.masked_fill(future, float("-inf")), dim=-1)
        return self.output(self.norm(x + (weights @ v).transpose(1, 2).flatten(2)))


def example_inputs():
    return torch.randint(0, 200, (8, 32))
