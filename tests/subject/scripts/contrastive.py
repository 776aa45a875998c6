# expect: SD603 error
import torch
from torch import nn


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))

    def forward(self, x):
        return nn.functional.normalize(self.net(x), dim=1)


def info_nce(a, b):
    similarity = a @ b.T / 0.01
    weights = torch.exp(similarity)  # DEFECT
    return -torch.log(weights.diagonal() / weights.sum(1)).mean()


def main():
    torch.manual_seed(0)
    encoder = Encoder()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    data = torch.randn(512, 16)
    for step in range(1000):
        x = data[(step * 64) % 512 :][:64]
        first, second = x + 0.1 * torch.randn_like(x), x + 0.1 * torch.randn_like(x)
        loss = info_nce(encoder(first), encoder(second))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


main()
