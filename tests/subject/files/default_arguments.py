import torch.nn as nn


class Classifier(nn.Module):
    def __init__(self, in_features=20, hidden=64, num_classes=5):
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, x):
        return self.fc2(self.fc1(x).relu())
