"""The search finds the way to a singular point where there is a plausible one, and alarms at none that is out of reach.

Each entry is the body of `forward(self, x)` and of `loss(out)` in the template of the zoo; the line to be reported carries
`# expect: SDNNN`, at least as a warning.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.evidence.expressions.zoo import MEAN, model_file
from tests.rule_examples import scanned

SQUARE = "return out.pow(2).mean()"
REACHABLE = {
    "log of a parameter": ("return self.a(h) / 2 + torch.log(self.temperature)  # expect: SD608", MEAN),
    "parameter as divisor": ("return self.a(h) / self.temperature  # expect: SD608", SQUARE),
    "root of a parameter": ("return self.a(h) * torch.sqrt(self.temperature)  # expect: SD608", SQUARE),
    "inverse root of a parameter": ("return self.a(h) * self.temperature.rsqrt()  # expect: SD608", SQUARE),
    "parameter and data in the divisor": (
        "return self.a(h) / (self.temperature + F.relu(self.one(h)))  # expect: SD608",
        SQUARE,
    ),
    "determinant": (
        "return self.a(h).sum(1) - torch.log(torch.abs(torch.det(self.table[:4])))  # expect: SD608",
        MEAN,
    ),
    "signed weights that sum to one": (
        "w = self.table[:4, 0].abs().detach() + self.W[0]\nreturn self.a(h) * (w / w.sum())  # expect: SD608",
        SQUARE,
    ),
    "negative base of a power": ("s = (1 + self.W.sum()) ** -0.5  # expect: SD608\nreturn self.a(h) * s", SQUARE),
    "confident mean of log-probabilities": (
        "score = F.log_softmax(self.a(h), 1).view(4, 3, 4)[:, :, 0].mean(1)\n"
        "return score - torch.log1p(-torch.exp(score))  # expect: SD608",
        MEAN,
    ),
    "angle of directions": (
        "a, b = F.normalize(self.a(h), dim=1), F.normalize(self.b(h), dim=1)\n"
        "return torch.acos((a * b).sum(1))  # expect: SD606",
        MEAN,
    ),
    "fisher transform of a cosine": (
        "return torch.atanh(F.cosine_similarity(self.a(h), self.b(h)))  # expect: SD606",
        MEAN,
    ),
    "hyperbolic distance": (
        "u, v = 0.5 * torch.tanh(self.a(h)), 0.5 * torch.tanh(self.b(h))\n"
        "d2 = (u - v).square().sum(1)\n"
        "return torch.acosh(1 + 2 * d2 / ((1 - u.square().sum(1)) * (1 - v.square().sum(1))))  # expect: SD606",
        MEAN,
    ),
    "importance ratio": (
        "logp = F.log_softmax(self.a(h), -1)[I, T]\nreturn torch.exp(logp - x[:, 0]) * x[:, 1]  # expect: SD605",
        MEAN,
    ),
    "survival of many steps": (
        "alive = torch.cumprod(1 - torch.sigmoid(self.a(h)), 1)\nreturn torch.log(alive)  # expect: SD608",
        MEAN,
    ),
    "overlap of boxes": (
        "w, v = F.relu(self.a(h)), F.relu(self.b(h))\ninter = torch.minimum(w, v).prod(1)\n"
        "return inter / (w.prod(1) + v.prod(1) - inter)  # expect: SD608",
        MEAN,
    ),
    "log of a rate's complement": (
        "return F.softplus(self.one(h))",
        "return -torch.log(1 - torch.exp(-out)).mean()  # expect: SD608",
    ),
    "logit of a probability": ("return torch.logit(torch.sigmoid(self.one(h)))  # expect: SD606", MEAN),
    "pole of a rational function": ("return self.a(h) / (1 - self.one(h))  # expect: SD608", SQUARE),
    "normaliser in probability space": (
        "k = torch.exp(-torch.cdist(self.a(h), self.b(h)) / 0.01)  # expect: SD603\nfor _ in range(3):\n"
        "    k = k / k.sum(1, keepdim=True)\n    k = k / k.sum(0, keepdim=True)\nreturn k",
        SQUARE,
    ),
    "silent target": (
        "y = x[:, :4]\nscale = (self.a(h) * y).sum(1) / (y * y).sum(1)  # expect: SD608\nreturn self.a(h) - scale[:, None] * y",
        SQUARE,
    ),
}

OUT_OF_REACH = {
    "exp of a parameter as divisor": ("return self.a(h) / self.temperature.exp()", SQUARE),
    "softplus of a parameter as divisor": ("return self.a(h) / F.softplus(self.temperature)", SQUARE),
    "clamped parameter": ("return self.a(h) / self.temperature.clamp(min=0.01)", SQUARE),
    "placeholder beside a branch that breaks": (
        "b = self.one(h)\nsafe = torch.where(b > 0, b, torch.ones_like(b)).clamp(min=0.1)\n"
        "return torch.where(b > 0, self.a(h) / safe, F.softplus(self.a(h)))",
        SQUARE,
    ),
    "frozen scale": ("return self.a(h) / self.scale", SQUARE),
    "weights of length one": ("return self.a(h) @ (self.table / self.table.norm(dim=1, keepdim=True)).T", SQUARE),
    "standardised weights": (
        "w = self.table\nreturn self.a(h) @ ((w - w.mean(1, keepdim=True)) / w.std(1, keepdim=True)).T",
        SQUARE,
    ),
    "softmax of parameters": ("return self.a(h) * torch.log(torch.softmax(self.table[0], 0))", MEAN),
    "sum far from 0": ("s = (40 + self.W.sum()) ** -0.5\nreturn self.a(h) * s", SQUARE),
    "log of the magnitude of a determinant, stable": (
        "m = torch.eye(4) + 0.1 * self.table[:4]\nreturn self.a(h).sum(1) - torch.linalg.slogdet(m)[1]",
        MEAN,
    ),
    "scaled cosine": (
        "a, b = F.normalize(self.a(h), dim=1), F.normalize(self.b(h), dim=1)\nreturn torch.acos(0.99 * (a * b).sum(1))",
        MEAN,
    ),
    "scaled similarity": ("return torch.asin(0.99 * F.cosine_similarity(self.a(h), self.b(h)))", MEAN),
    "rare hazard": (
        "z = 3 * self.one(h) - 20\nreturn torch.log(-torch.expm1(-torch.exp(z))), -torch.exp(z)",
        "return -torch.where(Y > 0, out[0], out[1]).mean()",
    ),
    "norm far from 0": (
        "z = torch.cat([self.a(h), h], 1) + 3.0\nreturn z / z.norm(dim=1, keepdim=True)",
        "return out.pow(4).sum()",
    ),
    "autoencoder that samples": (
        "m, v = self.a(h), self.b(h)\nreturn m + torch.exp(0.5 * v) * torch.randn_like(m), m, v",
        "z, m, v = out\nreturn z.pow(2).mean() - 0.5 * (1 + v - m.pow(2) - v.exp()).mean()",
    ),
    "poisson": ("return self.one(h)", "return (out.exp() - Y * out).mean()"),
    "coupling flow": (
        "s = torch.tanh(self.a(h))\nreturn self.b(h) * s.exp(), s",
        "return out[0].pow(2).mean() - out[1].mean()",
    ),
    "proportional hazards": ("return self.one(h)[:, 0]", "return -(out - torch.logcumsumexp(out, 0)).mean()"),
    "clipped ratio": (
        "logp = F.log_softmax(self.a(h), -1)[I, T]\nreturn (logp - x[:, 0]).exp()",
        "return -torch.min(out * Y[:, 0], out.clamp(0.8, 1.2) * Y[:, 0]).mean()",
    ),
    "bounded ratio": (
        "logp = F.log_softmax(self.a(h), -1)[I, T]\nreturn (logp - x[:, 0]).clamp(-5, 5).exp() * x[:, 1]",
        MEAN,
    ),
    "target with a floor": (
        "y = x[:, :4]\nscale = (self.a(h) * y).sum(1) / ((y * y).sum(1) + 1e-6)\nreturn self.a(h) - scale[:, None] * y",
        SQUARE,
    ),
    "root of the whole loss": ("return self.a(h)", "return torch.sqrt(F.mse_loss(out, H))"),
    "angle by two arguments": (
        "a, b = self.a(h), self.b(h)\nreturn 2 * torch.atan2((a - b).square().sum(1) + 1e-3, (a + b).square().sum(1) + 1e-3)",
        MEAN,
    ),
    "survival in log space": ("return torch.cumsum(F.logsigmoid(-self.a(h)), 1)", MEAN),
}


def loud(text: tuple[str, str], folder: Path) -> tuple[set[tuple[int, str]], set[tuple[int, str]]]:
    """What is expected, and what is reported of SD6 at least as a warning: (line, code)."""
    code = model_file(*text)
    report = scanned(code, folder, ignore=["SD1", "SD2", "SD3", "SD4", "SD5", "SD7", "SD8"])
    assert report.error is None
    expected = {(n, c) for n, line in enumerate(code.splitlines(), 1) for c in re.findall(r"# expect: (SD\d+)", line)}
    return expected, {(f.location.line, f.code) for f in report.findings if f.location and f.severity != "info"}


@pytest.mark.parametrize("style", REACHABLE)
def test_what_training_or_data_reach_is_reported(style: str, tmp_path: Path) -> None:
    expected, found = loud(REACHABLE[style], tmp_path)
    assert expected <= found


@pytest.mark.parametrize("style", OUT_OF_REACH)
def test_what_they_do_not_reach_is_silent(style: str, tmp_path: Path) -> None:
    assert loud(OUT_OF_REACH[style], tmp_path)[1] == set()


GRAPH = """
import torch
from torch import nn


class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(5, 3)

    def forward(self, x, near):
        {degree}
        scale = degree.pow(-0.5)
        return (scale[:, None] * near * scale) @ self.lin(x)


def build_model():
    torch.manual_seed(0)
    return Graph()


def example_inputs():
    g = torch.Generator().manual_seed(1)
    near = (torch.rand(9, 9, generator=g) > 0.5).float()
    near = ((near + near.T) > 0).float()
    near.fill_diagonal_({loops})
    return torch.randn(9, 5, generator=g), near


def loss(out):
    return out.square().mean()
"""


@pytest.mark.parametrize(
    ("degree", "loops", "said"),
    [
        ("degree = near.sum(1)", 0.0, True),
        ("degree = near.sum(1)", 1.0, False),
        ("degree = near.sum(1) + 1", 0.0, False),
    ],
)
def test_a_node_without_neighbours(degree: str, loops: float, said: bool, tmp_path: Path) -> None:
    report = scanned(GRAPH.format(degree=degree, loops=loops), tmp_path, ignore=["SD1", "SD2", "SD3", "SD4", "SD5", "SD7"])
    assert report.error is None
    assert bool([f for f in report.findings if f.code == "SD608" and f.severity != "info"]) is said


NORMALISED = """
import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 3, bias={bias})
        if self.fc.bias is not None:
            nn.init.ones_(self.fc.bias)

    def forward(self, x):
        return F.normalize(self.fc(x), dim=-1)


def build_model():
    torch.manual_seed(0)
    return Model()


def example_inputs():
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    x[3] = 0.0
    return (x,)


def loss(out):
    return (out - torch.eye(3)[torch.arange(8) % 3]).square().mean()
"""


@pytest.mark.parametrize("bias", [False, True])
def test_an_empty_row_that_is_normalised_drowns_the_other_gradients(bias: bool, tmp_path: Path) -> None:
    report = scanned(NORMALISED.format(bias=bias), tmp_path, ignore=["SD5"])
    assert report.error is None
    errors = [f for f in report.findings if f.code == "SD606" and f.severity == "error" and "float32" in f.precisions]
    assert bool(errors) is not bias


def test_a_division_is_not_blamed_for_another_branch(tmp_path: Path) -> None:
    text = (
        "b = self.one(h)\nsafe = torch.where(b > 0, b, torch.ones_like(b)).clamp(min=0.1)\n"
        "other = torch.log(b)  # expect: SD607\nreturn torch.where(b > 0, self.a(h) / safe, other)",
        SQUARE,
    )
    assert {line for line, code in loud(text, tmp_path)[1]} == {line for line, code in loud(text, tmp_path)[0]}


def test_the_log_behind_a_softmax_by_hand_is_part_of_it(tmp_path: Path) -> None:
    text = (
        "return self.a(h)",
        "e = torch.exp(out)  # expect: SD603\nreturn -torch.log(e / e.sum(1, keepdim=True))[I, T].mean()",
    )
    expected, found = loud(text, tmp_path)
    assert found == expected


PRICES = """
import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 1)

    def forward(self, prices):
        return self.fc(torch.log(prices))


def build_model():
    torch.manual_seed(0)
    return Model()


def example_inputs():
    return (0.2 + torch.rand(16, 4, generator=torch.Generator().manual_seed(1)),)


def loss(out):
    return out.square().mean()
"""


def test_data_that_come_positive_stay_positive(tmp_path: Path) -> None:
    report = scanned(PRICES, tmp_path, ignore=["SD7"])
    assert not [f for f in report.findings if f.code == "SD608" and f.severity != "info"]
