"""Steps along doubtful gradients, tried: only where there is doubt, from the weights as they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stabdiag.evidence.numbers.descent import Outcome, descent_of
from stabdiag.probe.experiments.descent import _sampling
from stabdiag.probe.recorder import Recorder
from stabdiag.probe.runner import probe
from stabdiag.recording.reference import Reference, difference
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Trace
from tests.probe.recording import subject_of


def outcome(trace: Trace, precision: str) -> Outcome:
    run = trace.run(precision)
    assert run is not None
    found = descent_of(trace, run)
    assert found is not None
    return found.outcome


class Offset(nn.Module):
    """Centres data with a large offset, of which 16 bits keep nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x - x.mean(0))
        return out


def test_data_that_a_format_does_not_hold_fail_it() -> None:
    torch.manual_seed(0)
    model = Offset()
    before = [p.detach().clone() for p in model.parameters()]
    trace = probe(subject_of(model, 5000 + torch.randn(64, 8)), ScanRequest("model.py"))
    assert outcome(trace, "bfloat16") is Outcome.LOST
    assert outcome(trace, "float32") is Outcome.DESCENDS
    assert trace.experiments.descent.actual > 0
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_nothing_is_tried_without_doubt() -> None:
    torch.manual_seed(0)
    trace = probe(subject_of(Offset(), torch.randn(64, 8)), ScanRequest("model.py"))
    assert outcome(trace, "bfloat16") is Outcome.DESCENDS
    assert "descent" not in trace.spent and trace.experiments.descent is None


def small_batch(depth: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(depth):
        layers += [nn.Linear(48, 48), nn.BatchNorm1d(48), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(48, 10))


@pytest.mark.parametrize("seed", range(3))
def test_batch_statistics_over_few_samples_fail_no_precision(seed: int) -> None:
    torch.manual_seed(seed)
    labels = torch.arange(4)
    subject = subject_of(small_batch(16), torch.randn(4, 3, 4, 4), loss=lambda out: nn.functional.cross_entropy(out, labels))
    trace = probe(subject, ScanRequest("model.py", precisions=["float32", "bfloat16"], batches=1, seeds=1))
    run = trace.run("bfloat16")
    assert run is not None and run.gradient_error is not None and run.gradient_error > 0.5
    assert outcome(trace, "bfloat16") is not Outcome.LOST


def test_noise_between_samples_is_that_between_batches() -> None:
    torch.manual_seed(0)
    model, target = nn.Linear(8, 1), torch.randn(8, 1)

    def gradients(seed: int) -> tuple[Recorder, Reference]:
        x = torch.randn(64, 8, generator=torch.Generator().manual_seed(seed))
        recorder = Recorder(
            subject_of(model, x, loss=lambda out: (out - (x @ target).to(out)).abs().mean()), torch.device("cpu")
        )
        kept = Reference()
        with recorder.stage("float64") as stage:
            recorder.record(stage, keep=kept)
        return recorder, kept

    batches = [gradients(seed) for seed in range(40)]
    everything = torch.stack([torch.cat(list(kept.gradients.values())) for _, kept in batches])
    between = float(everything.var(0).sum().sqrt() / everything.mean(0).norm())
    within = [_sampling(recorder, "float64", kept.gradients) for recorder, kept in batches]
    measured = torch.tensor([w for w in within if w is not None]).square().mean().sqrt()
    assert len(within) == 40 and between / 1.5 < float(measured) < 1.5 * between


def test_a_loss_that_no_sample_is_told_of_has_no_known_noise() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.as_tensor(self.layer(x).square().mean())

    recorder, kept = Recorder(subject_of(Own(), torch.randn(4, 8), loss=lambda out: out), torch.device("cpu")), Reference()
    with recorder.stage("float64") as stage:
        recorder.record(stage, keep=kept)
    assert _sampling(recorder, "float64", kept.gradients) is None
    assert difference([], []).error is None
