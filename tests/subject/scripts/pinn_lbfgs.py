# expect: silent
import torch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = torch.optim.LBFGS(net.parameters(), max_iter=5, line_search_fn="strong_wolfe")
t = torch.linspace(0, 1, 32).unsqueeze(1).requires_grad_(True)


def closure():
    optimizer.zero_grad()
    u = net(t)
    (du,) = torch.autograd.grad(u, t, torch.ones_like(u), create_graph=True)
    loss = (du + u).square().mean() + (net(torch.zeros(1, 1)) - 1).square().mean()
    loss.backward()
    return loss


for _step in range(50):
    optimizer.step(closure)
