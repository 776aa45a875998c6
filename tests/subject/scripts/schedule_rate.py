# expect: SD801,SD802,SD806 error,warning
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=10.0)  # DEFECT
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=10.0, total_steps=1000, div_factor=1.0)
x = torch.randn(128, 10)
y = x[:, :2].sum(1, keepdim=True)
for _step in range(1000):
    loss = (model(x) - y).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
