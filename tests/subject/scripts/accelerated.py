# expect: SD703 warning,error
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
accelerator = Accelerator(cpu=True)
x = torch.rand(256, 6) * torch.tensor([1.0, 1.0, 40000.0, 1.0, 90000.0, 1.0])  # DEFECT
data = TensorDataset(x, x[:, :1] - x[:, 1:2])
model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(data, batch_size=64))
for _epoch in range(50):
    for features, target in loader:
        loss = nn.functional.mse_loss(model(features), target)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
