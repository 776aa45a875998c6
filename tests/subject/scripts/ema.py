# expect: silent
import copy

import torch
from torch import nn

torch.manual_seed(0)
student = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 6))
teacher = copy.deepcopy(student)
for p in teacher.parameters():
    p.requires_grad_(False)
optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
for _step in range(1000):
    x = torch.randn(64, 12)
    with torch.no_grad():
        target = teacher(x + 0.05 * torch.randn_like(x))
    loss = nn.functional.mse_loss(student(x), target + x[:, :6])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
            slow.mul_(0.99).add_(fast, alpha=0.01)
