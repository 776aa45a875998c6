"""Training steps: what is found on models × modes, and what 20 watched steps cost relative to 20 bare ones.

    python benchmarks/training.py            # both tables
    python benchmarks/training.py --cost     # the second only

Cost: watched steps (loss, gradient norm, finiteness of the weights) and a bare training loop take turns, three rounds; the
median of the ratios is given. Emulated 16-bit steps are compared with bare float32 ones.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stabdiag.evidence.numbers.loss_scale import FIRST_SCALE
from stabdiag.finding import Finding
from stabdiag.probe.optimizer import choose
from stabdiag.probe.recorder import Recorder
from stabdiag.probe.runner import probe
from stabdiag.probe.training import Trainer
from stabdiag.scanning.pipeline import report_on
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.subject import Inputs, Subject
from stabdiag.trace import SubjectFacts

MODES = ["float32", "float16", "bfloat16", "amp-float16", "amp-bfloat16"]
STEPS = 20
SD8 = ("SD106", "SD504", "SD505", "SD80")


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, length, width)
        x = x + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class LanguageModel(nn.Module):
    """GPT-2's shape and initialisation."""

    def __init__(self, width: int = 128, depth: int = 4, tokens: int = 500, length: int = 64) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(tokens, width), nn.Parameter(torch.empty(length, width))
        self.blocks = nn.Sequential(*[Block(width, 4) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, tokens, bias=False)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.tokens(ids) + self.positions)))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


def resnet() -> nn.Module:
    stem = [nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(*stem, *[Residual(32) for _ in range(4)], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 10))


def random(*shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def ids() -> Tensor:
    return torch.randint(0, 500, (8, 64), generator=torch.Generator().manual_seed(1))


def next_token(output: Tensor) -> Tensor:
    return F.cross_entropy(output[:, :-1].flatten(0, 1).float(), ids()[:, 1:].flatten().to(output.device))


def classes(output: Tensor) -> Tensor:
    return F.cross_entropy(output.float(), (torch.arange(len(output)) % 10).to(output.device))


def sgd(lr: float, momentum: float = 0.0) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)


def adamw(lr: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: torch.optim.AdamW(model.parameters(), lr=lr)


# name: model, input, loss, optimizer (None for the default), further options of the scan, what it should say
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], Any, Any, dict[str, Any], str]] = {
    "transformer, AdamW 3e-4": (LanguageModel, ids, next_token, adamw(3e-4), {}, "healthy"),
    "transformer, default": (LanguageModel, ids, next_token, None, {}, "healthy"),
    "transformer, AdamW 1": (LanguageModel, ids, next_token, adamw(1.0), {}, "SD801"),
    "transformer, AdamW 1e-6": (LanguageModel, ids, next_token, adamw(1e-6), {}, "SD504"),
    "ResNet, SGD 0.1 momentum 0.9": (resnet, lambda: random(32, 3, 16, 16), classes, sgd(0.1, 0.9), {}, "healthy"),
    "ResNet, SGD 100": (resnet, lambda: random(32, 3, 16, 16), classes, sgd(100.0), {}, "SD801"),
    "MLP, SGD 0.1": (mlp, lambda: random(64, 64), classes, sgd(0.1), {}, "healthy"),
    "MLP, SGD 1e-5": (mlp, lambda: random(64, 64), classes, sgd(1e-5), {}, "SD504"),
    "MLP, loss × 1e-6": (mlp, lambda: random(64, 64), lambda o: classes(o) * 1e-6, sgd(5e4), {}, "SD801 float16"),
    "MLP, loss × 1e-10, Adam": (mlp, lambda: random(64, 64), lambda o: classes(o) * 1e-10, adamw(1e-3), {}, "SD106"),
    "MLP, loss × 1e20, clipped": (mlp, lambda: random(64, 64), lambda o: classes(o) * 1e20, sgd(0.1), {"clip": 1.0}, "SD805"),
    "MLP, input × 1e6": (mlp, lambda: random(64, 64, scale=1e6), classes, adamw(1e-3), {}, "SD803"),
}


def subject(name: str) -> Subject:
    make, inputs, loss, optimizer, _, _ = CASES[name]

    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return make()

    facts = SubjectFacts(name, "", 0, "", "", declared=["optimizer"] if optimizer else [])
    return Subject(
        build(0), lambda k: Inputs((inputs(),)), lambda o, _: loss(o), facts, make_optimizer=optimizer, rebuild=build
    )


def findings() -> None:
    print(f"{'model':30} {'expected':14} " + " ".join(f"{mode:>13}" for mode in MODES) + "  findings (error, warning, info)")
    for name, (*_, options, expected) in CASES.items():
        request = ScanRequest(name, precisions=MODES, steps=STEPS, budget=40.0, **options)
        report = report_on(probe(subject(name), request), request)
        curves = {row["precision"]: [] for row in report.training["rows"]}
        for row in report.training["rows"]:
            if row["seed"] == 0:
                curves[row["precision"]].append(row["loss"])
        ends = " ".join(f"{c[0]:>5.2g} → {c[-1]:<5.2g}" if (c := curves.get(m)) else f"{'not run':>13}" for m in MODES)
        said = [text for f in report.findings if (text := told(f))]
        print(f"{name:30} {expected:14} {ends}  {', '.join(said) or 'none'}", flush=True)


def told(finding: Finding) -> str:
    """A finding about training steps, or one that explains what they do, with what it explains; "" for the others."""
    explained = [code for code in finding.evidence.get("consequences", ()) if code.startswith(SD8)]
    if not finding.code.startswith(SD8) and not explained:
        return ""
    of = f" of {' '.join(explained)}" if explained else ""
    return f"{finding.code}{of}({finding.severity.value[0]}: {' '.join(finding.precisions)})"


def bare(case: Subject, steps: int) -> float:
    model = case.model
    optimizer = case.make_optimizer(model) if case.make_optimizer else torch.optim.AdamW(model.parameters())
    began = time.perf_counter()
    for _ in range(steps):
        inputs = case.batch(0)
        optimizer.zero_grad()
        loss = case.loss(model(*inputs.args), inputs)
        loss.backward()
        optimizer.step()
        loss.item()
    return time.perf_counter() - began


def watched(case: Subject, mode: str, steps: int) -> float:
    recorder = Recorder(case, torch.device("cpu"))
    with recorder.stage(mode) as stage:
        scaling = mode == "amp-float16"
        trainer = Trainer(
            recorder,
            stage,
            choose(case, stage.model, ScanRequest("")),
            scaling=scaling,
            scale=FIRST_SCALE if scaling else 1.0,
        )
        began = time.perf_counter()
        for _ in range(steps):
            trainer.step()
        return time.perf_counter() - began


def steady(name: str) -> Subject:
    """With SGD: Adam would break float16 weights, and broken steps are cheap."""
    case = subject(name)
    case.make_optimizer = sgd(0.01)
    return case


def cost() -> None:
    print(f"\n{STEPS} watched steps / {STEPS} bare float32 steps (median of 3)")
    print(f"{'model':30} " + " ".join(f"{mode:>13}" for mode in MODES))
    for name in ("transformer, AdamW 3e-4", "ResNet, SGD 0.1 momentum 0.9", "MLP, SGD 0.1"):
        ratios: dict[str, list[float]] = {mode: [] for mode in MODES}
        bare(steady(name), 3)
        for _ in range(3):
            for mode in MODES:
                alone = bare(steady(name), STEPS)
                ratios[mode].append(watched(steady(name), mode, STEPS) / alone)
        print(f"{name.partition(',')[0]:30} " + " ".join(f"{median(ratios[mode]):13.2f}" for mode in MODES), flush=True)


if __name__ == "__main__":
    if "--cost" not in sys.argv:
        findings()
    cost()
