# expect: SD602 error
import torch
from torch import nn

torch.manual_seed(0)
G = nn.Sequential(nn.Linear(8, 32), nn.LeakyReLU(0.2), nn.Linear(32, 2))
D = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
opt_g = torch.optim.Adam(G.parameters(), lr=2e-4, betas=(0.5, 0.999))
opt_d = torch.optim.Adam(D.parameters(), lr=2e-4, betas=(0.5, 0.999))
for _step in range(2000):
    real = torch.randn(64, 2) * 0.5 + 1
    fake = G(torch.randn(64, 8))
    loss_d = nn.functional.softplus(-D(real)).mean() + nn.functional.softplus(D(fake.detach())).mean()
    opt_d.zero_grad()
    loss_d.backward()
    opt_d.step()
    loss_g = torch.log(1 - torch.sigmoid(D(fake))).mean()  # DEFECT
    opt_g.zero_grad()
    loss_g.backward()
    opt_g.step()
