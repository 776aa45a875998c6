# expect: silent
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 5))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
ACCUMULATE = 4
for step in range(4000):
    x = torch.randn(16, 16)
    loss = nn.functional.cross_entropy(model(x), torch.arange(16) % 5) / ACCUMULATE
    loss.backward()
    if (step + 1) % ACCUMULATE == 0:
        optimizer.step()
        optimizer.zero_grad()
