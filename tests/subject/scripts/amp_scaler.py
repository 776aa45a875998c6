# expect: SD301,SD302 error
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.b(h)


torch.manual_seed(0)
model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
for _step in range(1000):
    x, y = torch.randn(64, 16), torch.arange(64) % 4
    with torch.autocast("cpu", dtype=torch.float16):
        logits = model(x)
        energy = (logits.half() * 400).square().mean()  # DEFECT
        loss = nn.functional.cross_entropy(logits, y) + 1e-9 * energy.float()
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    scaler.step(optimizer)
    scaler.update()
