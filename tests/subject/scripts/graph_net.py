# expect: silent
import torch
import torch.nn.functional as F
from torch import nn


class GCN(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(7, 24), nn.Linear(24, 4)

    def forward(self, x, adjacency):
        x = F.relu(adjacency @ self.first(x))
        return adjacency @ self.second(F.dropout(x, 0.3, self.training))


def main():
    torch.manual_seed(0)
    nodes = 80
    edges = torch.randint(0, nodes, (2, 300))
    dense = torch.eye(nodes)
    dense[edges[0], edges[1]] = 1
    dense = (dense + dense.T).clamp(max=1)
    degree = dense.sum(1).rsqrt()
    adjacency = degree[:, None] * dense * degree[None]
    features, labels = torch.randn(nodes, 7), torch.arange(nodes) % 4
    known = torch.rand(nodes) < 0.6
    model = GCN()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=5e-4)
    for _epoch in range(200):
        model.train()
        out = model(features, adjacency)
        loss = F.cross_entropy(out[known], labels[known])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            accuracy = (model(features, adjacency).argmax(1) == labels).float().mean()
    print(accuracy)


main()
