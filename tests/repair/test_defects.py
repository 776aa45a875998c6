"""Small models with one defect each, in the styles of other people: which edit is proven, and which must not be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from stabdiag.repair.search import prove
from stabdiag.scanning.pipeline import scan_here
from stabdiag.settings.request import ScanRequest

HEAD = """import torch
import torch.nn as nn
import torch.nn.functional as F

PRECISIONS = ("float32",)


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

"""


@dataclass(frozen=True)
class Defect:
    """proven: pattern that the accepted diffs match, "" for any; never: pattern that no line that they add has."""

    text: str
    proven: str
    never: str = r"clamp_min\(1e-0?6\)"


DEFECTS = {
    "likelihood of a dictionary entry": Defect(
        """
class Spell(nn.Module):
    def __init__(self):
        super().__init__()
        self.letters = nn.Linear(9, 11)

    def forward(self, strokes):
        odds = self.letters(strokes).softmax(-1)
        word = odds[..., 0].prod(dim=1)
        return word.log()

def example_inputs():
    return (noise(12, 30, 9),)

def loss(score):
    return -score.mean() / 30
""",
        r"\+.*log_softmax\(self\.letters\(strokes\), -1\)\[\.\.\., 0\]\.sum\(dim=1\)",
        "clamp",
    ),
    "angle between neighbours": Defect(
        """
class Bend(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(3, 5, bias=False)

    def forward(self, chain):
        step = self.map(chain)
        return torch.acos(F.cosine_similarity(step[:, 1:], step[:, :-1], dim=2))

def example_inputs():
    chain = noise(4, 6, 3)
    chain[0, 1] = chain[0, 0]
    return (chain,)

def loss(bend):
    return bend.square().mean()
""",
        "atan2",
        r"clamp\(-1",
    ),
    "power mean": Defect(
        """
class Pool(nn.Module):
    def __init__(self):
        super().__init__()
        self.feature, self.p = nn.Linear(6, 8), 3.0

    def forward(self, rows):
        kept = torch.tanh(self.feature(rows))
        return kept.abs().pow(self.p).sum(dim=1).pow(1 / self.p)

def example_inputs():
    rows = noise(16, 5, 6)
    rows[3] = 0.0
    return (rows,)

def build_model():
    torch.manual_seed(3)
    net = Pool()
    nn.init.zeros_(net.feature.bias)
    return net

def loss(pooled):
    return pooled.mean()
""",
        r"vector_norm\(kept, ord=self\.p, dim=1\)",
    ),
    "weights that are normalised in place": Defect(
        """
class Blend(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(4, 6, bias=False)

    def forward(self, parts):
        weight = self.gate(parts).square()
        weight /= weight.sum(dim=1, keepdim=True)
        return weight

def example_inputs():
    parts = noise(10, 4)
    parts[2] = 0.0
    return (parts,)

def build_model():
    torch.manual_seed(5)
    return Blend()

def loss(weight):
    return weight.square().mean()
""",
        r"\+\s+weight /= weight\.sum\(dim=1, keepdim=True\)\.clamp_min\(",
        "softplus",
    ),
    "entropy of legal moves": Defect(
        """
class Player(nn.Module):
    def __init__(self):
        super().__init__()
        self.moves = nn.Linear(7, 5)

    def forward(self, board, illegal):
        return self.moves(board).masked_fill(illegal, float("-inf"))

def example_inputs():
    illegal = noise(8, 5, seed=2) > 0.6
    illegal[:, 0] = False
    return noise(8, 7), illegal

def loss(score):
    logp = F.log_softmax(score, dim=1)
    return (logp.exp() * logp).sum(dim=1).mean()
""",
        r"logp\.clamp_min\(-1e4\)",
    ),
    "one utterance that is too long": Defect(
        """
class Listen(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 5)

    def forward(self, frames):
        return F.log_softmax(self.out(frames), dim=-1)

def example_inputs():
    return (noise(9, 4, 6),)

def loss(logp):
    text = torch.ones(4, 7, dtype=torch.long)
    length = torch.tensor([3, 2, 7, 4])
    return F.ctc_loss(logp, text, torch.full((4,), 9), length)
""",
        r"zero_infinity=True",
    ),
    "volume of a flow": Defect(
        """
class Mix(nn.Module):
    def __init__(self, n=60):
        super().__init__()
        self.w = nn.Parameter(0.02 * noise(n, n, seed=4))

    def forward(self, x):
        return x @ self.w, torch.log(torch.abs(torch.det(self.w)))

def build_model():
    return Mix()

def example_inputs():
    return (noise(16, 60),)

def loss(output):
    y, volume = output
    return y.square().mean() - volume / 60
""",
        r"slogdet",
        "clamp",
    ),
    "attention over the edges of a graph": Defect(
        """
class Edges(nn.Module):
    def __init__(self):
        super().__init__()
        self.rate = nn.Linear(6, 1)

    def forward(self, edge, to):
        score = 60 * self.rate(edge).squeeze(1)
        e = torch.exp(score)
        total = torch.zeros(5).index_add(0, to, e)
        return e / total[to]

def example_inputs():
    return noise(20, 6), torch.arange(20) % 5

def build_model():
    torch.manual_seed(0)
    return Edges()

def loss(share):
    return share.square().mean()
""",
        r"index_reduce\(0, to, score, \"amax\"\)",
    ),
    "gain in decibels of a prediction": Defect(
        """
class Level(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Linear(8, 8)

    def forward(self, x):
        return torch.log1p(self.gain(x))

def example_inputs():
    return (noise(64, 8),)

def build_model():
    torch.manual_seed(2)
    return Level()

def loss(level):
    return level.square().mean()
""",
        r"log1p\(F\.softplus\(self\.gain\(x\)\)\)",
    ),
    "gates that never open, by apply": Defect(
        """
class Valve(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(10, 40), nn.Linear(40, 3)
        nn.init.constant_(self.a.bias, -9.0)

    def forward(self, x):
        return self.b(F.relu(self.a(x)))

def build_model():
    torch.manual_seed(1)
    return Valve()

def example_inputs():
    return (noise(32, 10),)

def loss(y):
    return F.cross_entropy(y, torch.arange(32) % 3)
""",
        r"-\s+nn\.init\.constant_\(self\.a\.bias, -9\.0\)\n\+\s+nn\.init\.zeros_\(self\.a\.bias\)",
    ),
    "contrast of views": Defect(
        """
class Views(nn.Module):
    SHARP = 0.008

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(12, 9), nn.Linear(12, 9)

    def forward(self, a, b):
        return F.normalize(self.left(a)) @ F.normalize(self.right(b)).T

def example_inputs():
    return noise(14, 12), noise(14, 12, seed=7)

def build_model():
    torch.manual_seed(6)
    return Views()

def loss(sim):
    close = torch.exp(sim / Views.SHARP)
    return -torch.log(close.diagonal() / close.sum(1)).mean()
""",
        r"log_softmax\(sim / Views\.SHARP, dim=1\)\.diagonal\(\)",
    ),
    "weights from a file": Defect(
        """
class Old(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(10, 40), nn.Linear(40, 3)

    def forward(self, x):
        return self.b(F.relu(self.a(x)))

def build_model():
    torch.manual_seed(1)
    old, new = Old(), Old()
    nn.init.constant_(old.a.bias, -9.0)
    new.load_state_dict(old.state_dict())
    return new

def example_inputs():
    return (noise(32, 10),)

def loss(y):
    return F.cross_entropy(y, torch.arange(32) % 3)
""",
        "",
        r"init\.",
    ),
    "quality of a cleaned recording": Defect(
        """
class Clean(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(16, 16)
        nn.init.eye_(self.f.weight)
        nn.init.zeros_(self.f.bias)

    def forward(self, heard, true):
        rest = (self.f(heard) - true).square().mean(dim=1)
        return true.square().mean(dim=1) / rest

def example_inputs():
    true = noise(24, 16)
    return true + 0.003 * noise(24, 16, seed=9), true

def loss(quality):
    return -quality.log1p().mean()
""",
        "",
        r"softplus|clamp_min\(1e-0?[1-6]\)|[+] 1e-0?[1-6]\b",
    ),
    "distances with a twin one line on": Defect(
        """
class Far(nn.Module):
    def __init__(self):
        super().__init__()
        self.place = nn.Linear(4, 2, bias=False)

    def forward(self, a, b):
        gap = (self.place(a) - self.place(b)).square().sum(-1)
        near = gap.sqrt()
        far = gap.pow(0.5) * 2
        return near + far

def example_inputs():
    a = noise(9, 4)
    b = noise(9, 4, seed=8)
    b[0] = a[0]
    return a, b

def loss(d):
    return d.mean()
""",
        r"\+.*near = [^\n]*\n(?s:.*)\+.*far = ",
        "softplus",
    ),
    "kernel of crowded points": Defect(
        """
class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.warp = nn.Linear(1, 1)

    def forward(self, t):
        x = self.warp(t)
        k = torch.exp(-(x - x.T).square())
        return torch.linalg.cholesky(k)

def build_model():
    torch.manual_seed(0)
    return Field()

def example_inputs():
    return (torch.linspace(0, 1, 40)[:, None],)

def loss(factor):
    return factor.diagonal().square().mean()
""",
        r"torch\.eye",
    ),
    "surprise of a confident model": Defect(
        """
class Sure(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(5, 4)

    def forward(self, x):
        return F.log_softmax(self.f(x), dim=1)

def example_inputs():
    return (noise(30, 5),)

def build_model():
    torch.manual_seed(8)
    return Sure()

def loss(logp):
    return -torch.log(1 - torch.exp(logp)).mean()
""",
        "",
        r"clamp_min\(1e-0?[1-6]\)",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", DEFECTS)
def test_what_is_proven_is_what_its_author_would_write(name: str, tmp_path: Path) -> None:
    defect, path = DEFECTS[name], tmp_path / "model.py"
    path.write_text(HEAD + defect.text)
    outcome = prove(ScanRequest(str(path)), scan_here)
    tried = [(a.fix.name, a.fix.proven, a.fix.note, a.fix.snippet) for a in outcome.attempts]
    diffs = "".join(a.fix.diff for a in outcome.accepted)
    assert re.search(defect.proven, diffs), tried
    assert not re.search(defect.never, "".join(line for line in diffs.splitlines() if line.startswith("+"))), tried
