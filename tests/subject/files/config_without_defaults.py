from dataclasses import dataclass

import torch.nn as nn


@dataclass
class Config:
    width: int
    depth: int
    dropout: float = 0.1


class Net(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(config.width, config.width) for _ in range(config.depth)])

    def forward(self, x):
        return self.layers(x)
