"""Watching a training: what it costs, whether it stays silent on healthy ones, and whether it names the culprit of sick ones.

python benchmarks/watching.py healthy            # 8 architectures × 5 settings, 300 steps each: no trip
python benchmarks/watching.py cost [WORKLOAD]    # watched loop / bare loop, interleaved, median
python benchmarks/watching.py faults             # the trainings of tests/live/faults.py: culprit, rule, line
"""

from __future__ import annotations

import json
import resource
import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stabdiag
from benchmarks.workloads import ON_CPU, Workload
from stabdiag.live.watch import TrippedError, Watcher
from tests.live.faults import FAULTS, marked

STEPS = 300
EVERY = 50


class Attention(nn.Module):
    def __init__(self, width: int = 32, tokens: int = 20) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(tokens, width), nn.Parameter(0.02 * torch.randn(12, width))
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(width, tokens)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.body(self.tokens(ids) + self.positions[: ids.shape[1]]))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRU(4, 24, batch_first=True), nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


class Variational(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 8))
        self.decoder = nn.Sequential(nn.Linear(4, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, logvar = self.encoder(x).chunk(2, -1)
        return self.decoder(mean + torch.randn_like(mean) * (0.5 * logvar).exp()), mean, logvar


class Residual(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.inputs, self.head = nn.Linear(16, width), nn.Linear(width, 4)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 64), nn.SiLU(), nn.Dropout(0.1), nn.Linear(64, width))
            for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.inputs(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def convolutional() -> nn.Module:
    layers = [
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


def perceptron(inputs: int = 16, outputs: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs))


def classes() -> tuple[Tensor, Tensor]:
    y = torch.randint(4, (32,))
    return torch.randn(32, 16) + 2 * F.one_hot(y, 16).float(), y


def pictures() -> tuple[Tensor, Tensor]:
    y = torch.randint(4, (32,))
    return torch.randn(32, 1, 12, 12) + y.view(-1, 1, 1, 1) - 1.5, y


def sentences() -> tuple[Tensor, Tensor]:
    ids = (torch.randint(20, (16, 1)) + torch.arange(13) * torch.randint(1, 3, (16, 1))) % 20
    return ids[:, :-1], ids[:, 1:]


def series() -> tuple[Tensor, Tensor]:
    x = torch.randn(32, 10, 4)
    return x, x[:, :, 0].mean(1, keepdim=True)


def numbers() -> tuple[Tensor, Tensor]:
    x = torch.randn(32, 16)
    return x, (x[:, :1] * x[:, 1:2]) + 0.1 * torch.randn(32, 1)


def reconstruction(output: Any, x: Tensor) -> Tensor:
    made, mean, logvar = output
    return F.mse_loss(made, x) - 0.005 * (1 + logvar - mean.square() - logvar.exp()).sum(1).mean()


def ordinary(output: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(output.flatten(0, -2), y.flatten())


HEALTHY: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]], Callable[[Any, Tensor], Tensor]]] = {
    "perceptron": (perceptron, classes, ordinary),
    "regression": (lambda: perceptron(16, 1), numbers, F.mse_loss),
    "robust regression": (lambda: perceptron(16, 1), numbers, F.smooth_l1_loss),
    "convolution, BatchNorm": (convolutional, pictures, ordinary),
    "transformer": (Attention, sentences, ordinary),
    "GRU": (Recurrent, series, F.mse_loss),
    "VAE": (Variational, lambda: (lambda x: (x, x))(classes()[0]), reconstruction),
    "residual, dropout": (Residual, classes, ordinary),
}
SETTINGS = ("SGD", "SGD momentum, cosine", "AdamW", "AdamW warm-up, bfloat16 autocast", "Adam, float16 autocast and scaler")


def trained(model: nn.Module, setting: str, steps: int) -> Iterator[tuple[Any, ...]]:
    """Yields (optimizer, scaler, schedule, autocast) once: the ingredients of a setting."""
    rate = 0.02 if setting.startswith("SGD") else 2e-3
    kind = {"S": torch.optim.SGD, "A": torch.optim.AdamW}[setting[0]]
    optimizer = kind(model.parameters(), lr=rate, **({"momentum": 0.9} if "momentum" in setting else {}))
    scaler = torch.amp.GradScaler("cpu") if "scaler" in setting else None
    schedule = None
    if "cosine" in setting:
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    if "warm-up" in setting:
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, (k + 1) / 50))
    dtype = torch.bfloat16 if "bfloat16" in setting else torch.float16 if "float16" in setting else None
    yield optimizer, scaler, schedule, dtype


def train(name: str, setting: str, folder: Path, steps: int = STEPS, seed: int = 0) -> tuple[str, list[dict[str, Any]]]:
    """One watched training: what tripped ("" for nothing), and the journal."""
    torch.manual_seed(seed)
    build, batch, loss_of = HEALTHY[name]
    model = build()
    (optimizer, scaler, schedule, dtype), *_ = trained(model, setting, steps)
    recorder = stabdiag.watch(model, optimizer, scaler, every=EVERY, directory=folder)
    tripped = ""
    try:
        for _ in range(steps):
            x, y = batch()
            with recorder.step((x, y)):
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype) if dtype is not None else nullcontext():
                    loss = loss_of(model(x), y)
                (loss if scaler is None else scaler.scale(loss)).backward()
                if scaler is None:
                    optimizer.step()
                else:
                    scaler.step(optimizer)
                    scaler.update()
            if schedule is not None:
                schedule.step()
        recorder.close()
    except TrippedError as error:
        tripped = str(error)
    journal = folder / "steps.jsonl"
    return tripped, [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def healthy(steps: int = STEPS) -> int:
    """The table; returns how many tripped."""
    tripped = 0
    for name in HEALTHY:
        for setting in SETTINGS:
            with tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()):
                trip, events = train(name, setting, Path(folder), steps)
            spikes = sum(event["event"] == "spike" for event in events)
            forecasts = sorted({text for e in events for text in e.get("forecasts", ())})
            print(f"{name:24} {setting:34} {trip or 'silent'}  spikes by sample: {spikes}  {forecasts[-1:] or ''}", flush=True)
            tripped += bool(trip)
    print(f"{tripped} of {len(HEALTHY) * len(SETTINGS)} tripped")
    return tripped


def loop(work: Workload, optimizer: torch.optim.Optimizer, recorder: Watcher | None, steps: int) -> float:
    """Seconds per step of a bare or watched training."""
    began = time.perf_counter()
    for _ in range(steps):
        with recorder.step() if recorder is not None else nullcontext():
            optimizer.zero_grad()
            work.loss(work.model(*work.inputs)).backward()
            optimizer.step()
    return (time.perf_counter() - began) / steps


def cost(names: list[str], every: int = 200, rounds: int = 9, steps: int = 4) -> None:
    """Watched and bare loops take turns on one model; medians of the ratios. The recorded step and its judgement are timed by
    themselves and spread over `every` steps."""
    print(f"{'workload':34} {'between samples':>16} {f'at every={every}':>14} {'recorded step':>14} {'memory':>8}")
    for name in names or list(ON_CPU):
        torch.manual_seed(0)
        work = ON_CPU[name]()
        optimizer = torch.optim.AdamW(work.model.parameters(), lr=1e-4)
        loop(work, optimizer, None, 2)
        with tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()):
            train("perceptron", "SGD", Path(folder), 4)  # what is loaded once is not counted
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with tempfile.TemporaryDirectory() as folder:
            recorder = stabdiag.watch(work.model, optimizer, every=10**9, directory=folder, on_trip="warn")
            loop(work, optimizer, recorder, 10)  # the first is recorded, and the first eight keep their weights
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / memory
            began = time.perf_counter()
            recorder._pending = recorder._previous
            recorder._judge_pending()
            recorded = time.perf_counter() - began
            history = recorder.history
            recorder.close()
            bare, watched = [], []
            for _ in range(rounds):
                recorder = stabdiag.watch(work.model, optimizer, every=10**9, directory=folder, on_trip="warn")
                recorder.history, recorder.number = history, 1
                watched.append(loop(work, optimizer, recorder, steps))
                recorder.close()
                bare.append(loop(work, optimizer, None, steps))
        between = median(a / b for a, b in zip(watched, bare, strict=True))
        step = median(bare)
        print(
            f"{work.name:34} {between:16.3f} {between + recorded / step / every:14.3f} "
            f"{recorded / step:8.1f} steps {grown:7.2f}",
            flush=True,
        )


def faults(only: list[str]) -> int:
    """The table of faults; returns how many were named right."""
    right = 0
    chosen = {name: fault for name, fault in FAULTS.items() if not only or any(part in name for part in only)}
    for name, fault in chosen.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "training.py"
            file.write_text(fault.text)
            said = StringIO()
            arguments, sys.argv = sys.argv, [str(file), f"{folder}/out"]
            try:
                with redirect_stderr(said):
                    runpy.run_path(str(file), run_name="__main__")
            finally:
                sys.argv = arguments
            events = [json.loads(line) for line in (Path(folder) / "out" / "steps.jsonl").read_text().splitlines()]
        trip = next((event for event in events if event["event"] == "trip"), {})
        named = trip.get("culprit") == fault.culprit and any(code in trip["finding"] for code in fault.codes)
        near = any(abs(line - trip["line"]) <= 2 for line in marked(fault.text)) if trip.get("line") else False
        right += named and near
        print(f"{name:36} {'right' if named and near else 'WRONG'}  {trip.get('culprit')}: {trip.get('finding')}", flush=True)
    print(f"{right} of {len(chosen)} right")
    return right


if __name__ == "__main__":
    what, *rest = sys.argv[1:] or ["healthy"]
    {"healthy": lambda names: healthy(), "cost": cost, "faults": faults}[what](rest)
