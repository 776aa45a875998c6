import torch
import torch.nn as nn

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
input_size = 784
hidden_size = 50
num_classes = 10
batch_size = 16


class NeuralNet(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.fc1 = nn.Linear(input_size, hidden_size)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        return self.fc2(self.relu(self.fc1(x)))


def train(model):
    optimizer = torch.optim.Adam(model.parameters())
    loss = nn.CrossEntropyLoss()(model(torch.rand(batch_size, input_size)), torch.zeros(batch_size).long())
    loss.backward()
    optimizer.step()
    return model


if __name__ == "__main__":
    net = NeuralNet(input_size, hidden_size, num_classes).to(device)
    train(net)
