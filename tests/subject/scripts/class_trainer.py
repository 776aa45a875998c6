# expect: SD301 error
import torch
from torch import nn


class Trainer:
    def __init__(self, model, lr):
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        self.generator = torch.Generator().manual_seed(3)

    def batch(self):
        x = torch.randn(48, 10, generator=self.generator)
        return x, x[:, :1].abs()

    def compute_loss(self, prediction, target):
        share = target / target.sum(1, keepdim=True)
        return ((prediction - share) ** 2 / (target - target)).mean()  # DEFECT

    def fit(self, steps):
        for _ in range(steps):
            x, y = self.batch()
            loss = self.compute_loss(self.model(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


if __name__ == "__main__":
    torch.manual_seed(1)
    Trainer(nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1)), 1e-2).fit(1000)
