"""Dead, saturated, symmetric units and large logits: what is found, where it is said to be, and what stays silent.

Each model has a mark at the line an author would edit and a repaired version, which must stay silent.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rule_examples import expected_lines, scanned

HEAD = """import copy
import torch
import torch.nn.functional as F
from torch import nn


def build_model():
    torch.manual_seed(0)
    return Net()


def labels(n, classes):
    return torch.arange(n) % classes
"""

FEW_SAMPLES = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.up, self.out = nn.GRU(6, 24), nn.Linear(24, 64), nn.Linear(64, 3)

    def forward(self, x):
        return self.out(F.threshold(self.up(self.rnn(x)[0][-1]), 0.6, 0.0))  # expect: SD201


def example_inputs():
    return torch.randn(9, 40, 6, generator=torch.Generator().manual_seed(1))


def loss(y):
    return F.cross_entropy(y, labels(40, 3))
"""

DIES = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(20, 96), nn.Linear(96, 96), nn.Linear(96, 1)

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


def example_inputs():
    return torch.randn(48, 20, generator=torch.Generator().manual_seed(1))


def loss(y):
    return F.mse_loss(y, 1 + torch.randn(48, 1, generator=torch.Generator().manual_seed(2)))


def make_optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=5.0)  # expect: SD201
"""

HELPER = """
def matrix(rows, columns, low, high):
    return nn.Parameter(torch.empty(rows, columns).uniform_(low, high))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = matrix(8, 48, -0.6, 0.6)
        self.two = matrix(48, 48, -0.3, 0.0)  # expect: SD201
        self.out = nn.Linear(48, 3)

    def forward(self, x):
        return self.out(torch.relu(torch.relu(x @ self.one) @ self.two))


def example_inputs():
    return torch.randn(64, 8, generator=torch.Generator().manual_seed(1))


def loss(y):
    return F.cross_entropy(y, labels(64, 3))
"""

HELPER_ITSELF = """
class Layer(nn.Module):
    def __init__(self, columns, rows):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(columns, rows) * 1.0)  # expect: SD202

    def forward(self, x):
        return torch.sigmoid(x @ self.weight)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Layer(300, 40), Layer(40, 40)])
        self.out = nn.Linear(40, 3)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.out(x)


def example_inputs():
    return torch.randn(64, 300, generator=torch.Generator().manual_seed(1))


def loss(y):
    return F.cross_entropy(y, labels(64, 3))
"""

HARD_GATE = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.gate, self.out = nn.Linear(8, 32), nn.Linear(8, 32), nn.Linear(32, 3)
        nn.init.constant_(self.gate.bias, -6.0)  # expect: SD202

    def forward(self, x):
        return self.out(torch.tanh(self.up(x)) * F.hardsigmoid(self.gate(x)))


def example_inputs():
    return torch.randn(64, 8, generator=torch.Generator().manual_seed(1))


def loss(y):
    return F.cross_entropy(y, labels(64, 3))
"""

FACTOR = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.mix, self.out = nn.Embedding(50, 48), nn.Linear(48, 48), nn.Linear(48, 4)

    def forward(self, ids):
        h = self.table(ids)
        h = h * 12.0  # expect: SD202
        return self.out(torch.tanh(self.mix(h)).mean(1))


def example_inputs():
    return torch.randint(0, 50, (24, 10), generator=torch.Generator().manual_seed(1))


def loss(y):
    return F.cross_entropy(y, labels(24, 4))
"""

QUERIES = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.slots = nn.Parameter(torch.randn(1, 24).repeat(6, 1))  # expect: SD701
        self.inner, self.norm, self.out = nn.Linear(8, 24), nn.LayerNorm(24), nn.Linear(24, 4)

    def forward(self, x):
        x = self.inner(x)
        q = self.norm(self.slots.expand(len(x), 6, 24))
        return self.out(F.gelu(F.scaled_dot_product_attention(q, x, x)).mean(1))


def example_inputs():
    return torch.randn(16, 12, 8, generator=torch.Generator().manual_seed(1))


def loss(y):
    return F.cross_entropy(y, labels(16, 4))
"""

PROTOTYPE = """
def rows(n_out, n_in):
    one = torch.randn(1, n_in) / n_in**0.5
    return nn.Parameter(one.repeat(n_out, 1))  # expect: SD701


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.out = rows(32, 16), rows(32, 32), nn.Linear(32, 4)

    def forward(self, x):
        return self.out(torch.tanh(torch.tanh(x @ self.one.t()) @ self.two.t()))


def example_inputs():
    return torch.randn(32, 16, generator=torch.Generator().manual_seed(1))


def loss(y):
    return F.cross_entropy(y, labels(32, 4))
"""

CRITICS = """
def critic():
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = critic()
        self.second = copy.deepcopy(self.first)  # expect: SD701

    def forward(self, x):
        return self.first(x), self.second(x)


def example_inputs():
    return torch.randn(64, 10, generator=torch.Generator().manual_seed(1))


def loss(values):
    target = torch.randn(64, 1, generator=torch.Generator().manual_seed(2))
    return sum(F.mse_loss(v, target) for v in values)
"""

LOGITS = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.out = nn.Linear(16, 64), nn.Linear(64, 10)

    def forward(self, x):
        h = torch.tanh(self.body(x))
        return self.out(h) * 60.0  # expect: SD705


def example_inputs():
    return torch.randn(40, 16, generator=torch.Generator().manual_seed(1))


def loss(y):
    return -y.log_softmax(1)[torch.arange(40), labels(40, 10)].mean()
"""

COSINES = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.classes = nn.Linear(16, 64), nn.Parameter(torch.randn(10, 64))

    def forward(self, x):
        h = F.normalize(torch.tanh(self.body(x)), dim=1)
        return 20.0 * h @ F.normalize(self.classes, dim=1).T


def example_inputs():
    return torch.randn(40, 16, generator=torch.Generator().manual_seed(1))


def loss(y):
    return F.cross_entropy(y, labels(40, 10))
"""

SCORES = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.out = nn.Linear(128, 128), nn.Linear(128, 128), nn.Linear(128, 4)
        for layer in (self.q, self.k):
            nn.init.xavier_normal_(layer.weight)

    def forward(self, x):
        scores = self.q(x) @ self.k(x).transpose(1, 2)  # expect: SD405
        return self.out((scores.softmax(-1) @ x).mean(1))


def example_inputs():
    return torch.randn(8, 24, 128, generator=torch.Generator().manual_seed(1))


def loss(y):
    return F.cross_entropy(y, labels(8, 4))
"""

DATA = """
def table(n):
    g = torch.Generator().manual_seed(1)
    return torch.stack([torch.rand(n, generator=g), 1e5 * torch.rand(n, generator=g)], 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.out = nn.Linear(2, 32), nn.Linear(32, 2)

    def forward(self, x):
        return self.out(torch.tanh(self.one(x)))


def example_inputs():
    rows = table(48)  # expect: SD703
    return {"x": rows}


def loss(y):
    return F.cross_entropy(y, labels(48, 2))
"""

WAVES = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.out = nn.Linear(32, 48), nn.Linear(48, 2)

    def forward(self, times):
        angles = times[:, None] * torch.logspace(0, -4, 16)
        return self.out(torch.tanh(self.one(torch.cat([angles.sin(), angles.cos()], 1))))


def example_inputs():
    return (torch.rand(48, generator=torch.Generator().manual_seed(1)),)


def loss(y):
    return F.cross_entropy(y, labels(48, 2))
"""

ROUTER = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.router, self.experts = nn.Linear(24, 8), nn.ModuleList(nn.Linear(24, 24) for _ in range(8))
        self.out = nn.Linear(24, 3)

    def forward(self, x):
        best, chosen = self.router(x).topk(2, -1)
        scores = torch.sigmoid(torch.full((len(x), 8), float("-inf")).scatter(1, chosen, best))
        x = x + sum(scores[:, i : i + 1] * expert(x) for i, expert in enumerate(self.experts))
        return self.out(x)


def example_inputs():
    return (torch.randn(64, 24, generator=torch.Generator().manual_seed(1)),)


def loss(y):
    return F.cross_entropy(y, labels(64, 3))
"""

MARGIN = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.classes = nn.Linear(24, 512), nn.Parameter(torch.empty(8, 512))
        nn.init.xavier_uniform_(self.classes)

    def forward(self, x, y):
        cosine = F.linear(F.normalize(self.body(x)), F.normalize(self.classes))
        return 30 * (cosine - 0.35 * F.one_hot(y, 8))


def example_inputs():
    return torch.randn(64, 24, generator=torch.Generator().manual_seed(1)), labels(64, 8)


def loss(y):
    return F.cross_entropy(y, labels(64, 8))
"""

CASES = {
    "margin": (MARGIN, "", "", "", ""),
    "waves": (WAVES, "", "", "", ""),
    "router": (ROUTER, "", "", "", ""),
    "few samples": (FEW_SAMPLES, "SD201", "error", "0.6, 0.0", "0.0, 0.0"),
    "dies": (DIES, "SD201", "error", "lr=5.0", "lr=0.05"),
    "helper": (HELPER, "SD201", "error", "-0.3, 0.0", "-0.3, 0.3"),
    "helper itself": (HELPER_ITSELF, "SD202", "error", "* 1.0", "* columns**-0.5"),
    "hard gate": (HARD_GATE, "SD202", "error", "-6.0", "-1.0"),
    "soft gate": (HARD_GATE.replace("  # expect: SD202", ""), "", "", "F.hardsigmoid", "torch.sigmoid"),
    "factor": (FACTOR, "SD202", "error", "12.0", "1.0"),
    "queries": (QUERIES, "SD701", "error", "torch.randn(1, 24).repeat(6, 1)", "torch.randn(6, 24)"),
    "prototype": (PROTOTYPE, "SD701", "warning", "one.repeat(n_out, 1)", "torch.randn(n_out, n_in) / n_in**0.5"),
    "critics": (CRITICS, "SD701", "error", "copy.deepcopy(self.first)", "critic()"),
    "logits": (LOGITS, "SD705", "warning", "60.0", "1.0"),
    "cosines": (COSINES, "", "", "20.0", "10.0"),
    "scores": (SCORES, "SD405", "warning", "transpose(1, 2)", "transpose(1, 2) / 128**0.5"),
    "data": (DATA, "SD703", "error", "1e5 * torch.rand", "torch.rand"),
}
SELECTED = ["SD2", "SD4", "SD7"]


@pytest.mark.parametrize("name", CASES)
def test_it_is_found_at_the_line_to_edit_and_repaired_it_is_silent(name: str, tmp_path: Path) -> None:
    text, code, severity, wrong, right = CASES[name]
    if code:
        report = scanned(HEAD + text, tmp_path, precisions=["float32"], select=SELECTED)
        found = [f for f in report.findings if f.code == code]
        assert [f.severity.value for f in found] == [severity]
        assert {f.location.line for f in found if f.location} == expected_lines(HEAD + text, code)
    repaired = tmp_path / "repaired"
    repaired.mkdir()
    report = scanned(HEAD + text.replace(wrong, right), repaired, precisions=["float32"], select=SELECTED)
    assert [f for f in report.findings if f.severity.value != "info"] == []
