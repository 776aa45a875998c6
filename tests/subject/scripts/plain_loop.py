# expect: SD602 error
import torch
from torch import nn

torch.manual_seed(0)
X = torch.randn(256, 12)
Y = (X[:, :3].sum(1) > 0).float()
model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _epoch in range(100):
    for i in range(0, 256, 32):
        x, y = X[i : i + 32], Y[i : i + 32]
        p = torch.sigmoid(model(x)).squeeze(1)
        loss = -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()  # DEFECT
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
