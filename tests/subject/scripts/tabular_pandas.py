# expect: SD703 warning,error
import numpy as np
import pandas as pd
import torch
from torch import nn

rng = np.random.default_rng(0)
frame = pd.DataFrame({"age": rng.uniform(18, 90, 400), "income": rng.lognormal(11, 1, 400), "score": rng.normal(size=400)})
frame["bought"] = (frame["score"] > 0).astype(int)
X = torch.tensor(frame[["age", "income", "score"]].to_numpy(), dtype=torch.float32)  # DEFECT
y = torch.tensor(frame["bought"].to_numpy())
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 2))
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _epoch in range(200):
    order = torch.randperm(len(X))
    for rows in order.split(100):
        loss = criterion(model(X[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
