"""What watching does to a training: nothing, until something goes wrong."""

from __future__ import annotations

import copy
import gc
import json
import weakref
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

import stabdiag
from stabdiag.errors import UserError
from stabdiag.live.watch import TrippedError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)

    def forward(self, x):
        return self.second(F.dropout(F.relu(self.norm(self.first(x))), 0.1, self.training))


def losses(steps: int = 25, watched: str = "", **options) -> list[float]:
    """A training; watched "with" `recorder.step` or by "hooks" alone."""
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    recorder = stabdiag.watch(model, optimizer, every=5, **options) if watched else None
    found = []
    for _ in range(steps):
        x, y = torch.randn(16, 8), torch.randint(4, (16,))
        with recorder.step() if watched == "with" else nullcontext():
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append(loss.item())
    if recorder is not None:
        recorder.close()
    return found


@pytest.mark.parametrize("watched", ["with", "hooks"])
def test_the_losses_are_the_same_bit_for_bit(folder: Path, watched: str) -> None:
    assert losses() == losses(watched=watched)
    events = [json.loads(line) for line in Path("stabdiag/steps.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "sample"] == [0, 5, 10, 15, 20]
    assert {file.name for file in Path("stabdiag").iterdir()} >= {"report.txt", "report.html", "findings.csv", "report.json"}


def hooks() -> int:
    gc.collect()
    return len(_global_forward_hooks) + len(_global_forward_pre_hooks)


def test_hooks_are_gone_after_close(folder: Path) -> None:
    before = hooks()
    losses(3, watched="with")
    assert hooks() == before


def test_hooks_are_gone_when_the_optimizer_is(folder: Path) -> None:
    before = hooks()
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watcher = weakref.ref(stabdiag.watch(model, optimizer))
    assert hooks() == before + 2
    assert watcher() is not None, "nobody has to hold it"
    del model, optimizer
    gc.collect()
    assert watcher() is None
    assert hooks() == before


def test_an_exception_in_the_step_leaves_nothing_behind(folder: Path) -> None:
    model = Net()
    recorder = stabdiag.watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(RuntimeError), recorder.step():
        model(torch.randn(4, 9))
    assert torch._C._len_torch_function_stack() == 0
    recorder.close()
    recorder.close()


def test_the_model_can_be_copied_and_saved(folder: Path) -> None:
    model = Net()
    recorder = stabdiag.watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert "stabdiag" not in str(copy.deepcopy(model).__dict__)
    torch.save(model, "model.pt")
    recorder.close()


def test_validation_is_not_a_step(folder: Path) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = stabdiag.watch(model, optimizer)
    with torch.no_grad():
        model(torch.randn(4, 8))
    assert recorder._tape is None
    recorder.close()


def broken(on_trip: str, **options) -> tuple[nn.Module, torch.optim.Optimizer, stabdiag.watch]:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = stabdiag.watch(model, optimizer, on_trip=on_trip, **options)
    for step in range(4):
        x = torch.randn(16, 8)
        if step == 2:
            x[3] = torch.nan
        with recorder.step():
            optimizer.zero_grad()
            model(x).square().mean().backward()
            before = [p.detach().clone() for p in model.parameters()]
            optimizer.step()
        if step == 2:
            same = all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
            assert same == (on_trip == "skip")
    return model, optimizer, recorder


def test_raise_comes_before_the_weights_are_touched(folder: Path) -> None:
    with pytest.raises(TrippedError, match="step 2") as caught:
        broken("raise")
    assert caught.value.capsule == Path("stabdiag/capsule-0000002")
    assert caught.value.report.findings[0].evidence["culprit"]["rows"] == [3]
    assert torch._C._len_torch_function_stack() == 0


def test_skip_leaves_the_step_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, _, recorder = broken("skip")
    recorder.close()
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    assert "this sample: sample 3 of the 16" in " ".join(capsys.readouterr().err.split())


def test_warn_only_tells(folder: Path) -> None:
    model, _, recorder = broken("warn")
    recorder.close()
    assert not all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_only_the_newest_capsules_are_kept(folder: Path) -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = stabdiag.watch(model, optimizer, on_trip="skip", capsules=1)
    for step in range(5):
        x = torch.randn(16, 8)
        if step % 2:
            x[step] = torch.nan
        with recorder.step():
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    recorder.close()
    assert [file.name for file in Path("stabdiag").glob("capsule-*")] == ["capsule-0000003"]


def test_a_loss_outside_the_model_is_said_to_be_unseen(folder: Path) -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stabdiag.watch(model, optimizer)
    with pytest.raises(TrippedError) as caught:
        for step in range(3):
            optimizer.zero_grad()
            output = model(torch.randn(16, 8))
            (output.square().sum() / (step - 1) * (step - 1) if step == 1 else output.square().mean()).backward()
            optimizer.step()
    finding = caught.value.report.findings[0]
    assert (finding.code, finding.evidence["culprit"]["kind"]) == ("SD807", "loss")
    assert "recorder.step(batch)" in finding.fixes[0].title


def test_two_models_and_two_optimizers(folder: Path) -> None:
    torch.manual_seed(0)
    generator, critic = nn.Sequential(nn.Linear(4, 8)), nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizers = [torch.optim.Adam(m.parameters(), lr=1e-3) for m in (generator, critic)]
    recorder = stabdiag.watch([generator, critic], optimizers, every=4, on_trip="raise")
    for _ in range(9):
        with recorder.step():
            fake = generator(torch.randn(16, 4))
            optimizers[1].zero_grad()
            (F.softplus(critic(fake.detach())) + F.softplus(-critic(torch.randn(16, 8)))).mean().backward()
            optimizers[1].step()
            optimizers[0].zero_grad()
            F.softplus(-critic(fake)).mean().backward()
            optimizers[0].step()
    assert recorder.number == 9
    recorder.close()


@pytest.mark.parametrize("watched", ["with", "hooks"])
def test_accumulated_gradients_are_one_step(folder: Path, watched: str) -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = stabdiag.watch(model, optimizer, on_trip="skip")
    for step in range(3):
        optimizer.zero_grad()
        for part in range(4):
            x = torch.randn(16, 8)
            if (step, part) == (2, 1):
                x[7] = torch.nan
            with recorder.step() if watched == "with" else nullcontext():
                model(x).square().mean().backward()
                if part == 3:
                    optimizer.step()
    assert recorder.number == 3
    trips = [e for e in map(json.loads, Path("stabdiag/steps.jsonl").read_text().splitlines()) if e["event"] == "trip"]
    assert [trip["step"] for trip in trips] == [2]
    recorder.close()


def test_a_scaler_that_skips_is_no_trip(folder: Path) -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    recorder = stabdiag.watch(model, optimizer, scaler)
    for _ in range(30):
        with recorder.step():
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = F.cross_entropy(model(torch.randn(16, 8)), torch.randint(4, (16,)))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert any(step.skipped for step in recorder.history.steps)
    assert abs(recorder.history.steps[-1].loss - loss.item()) < 1e-3, "the loss is told unscaled"
    recorder.close()


def test_a_loss_scale_that_collapses_trips(folder: Path) -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    recorder = stabdiag.watch(model, optimizer, scaler)
    with pytest.raises(TrippedError, match="loss scale collapse") as caught:
        for _ in range(30):
            with recorder.step():
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.float16):
                    loss = (model(torch.randn(16, 8) * 1e5)).square().mean()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
    assert caught.value.report.findings[0].evidence["culprit"]["kind"] in ("sample", "format")


def test_options_that_cannot_be(folder: Path) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UserError, match="on_trip"):
        stabdiag.watch(model, optimizer, on_trip="stop")
    with pytest.raises(UserError, match="every"):
        stabdiag.watch(model, optimizer, every=0)
