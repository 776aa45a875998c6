# expect: SD401,SD601 error
import torch
from torch import nn


class Recogniser(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(8, 24, batch_first=True), nn.Linear(24, 6)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def train():
    torch.manual_seed(0)
    model = Recogniser()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.CTCLoss(zero_infinity=True)
    for _step in range(300):
        sound = torch.randn(6, 20, 8)
        text = torch.randint(1, 6, (6, 5))
        chances = torch.softmax(model(sound) * 30, dim=-1)
        logs = torch.log(chances).transpose(0, 1)  # DEFECT
        loss = criterion(logs, text, torch.full((6,), 20), torch.full((6,), 5))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    train()
