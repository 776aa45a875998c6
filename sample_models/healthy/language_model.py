"""An LSTM language model on token ids; the embedding is tied to the output."""

from torch import nn


class LanguageModel(nn.Module):
    def __init__(self, vocabulary=500, width=64, layers=2, dropout=0.2):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.rnn = nn.LSTM(width, width, layers, batch_first=True, dropout=dropout)
        self.output = nn.Linear(width, vocabulary)
        self.output.weight = self.embedding.weight
        nn.init.normal_(self.embedding.weight, std=0.05)

    def forward(self, tokens):
        hidden, _ = self.rnn(self.embedding(tokens))
        return self.output(hidden)
