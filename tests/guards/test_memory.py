"""Whose memory is whose: what the tracer takes an operand for, and what a guest puts back."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from stabdiag.probe.guest import as_found
from stabdiag.scanning.pipeline import scan_here
from stabdiag.settings.request import ScanRequest
from tests.probe.recording import record


class Cell(nn.Module):
    """Two gates in one matrix product, the first squashed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.fc(x)
        gate, value = h[:, :3], h[:, 3:]
        gate.sigmoid_()
        return gate * value


def test_what_is_written_to_one_chunk_is_not_written_to_the_other() -> None:
    run = record(Cell(), torch.randn(8, 4))
    product = next(op for op in run.ops if op.name == "mul" and op.phase == "forward")
    first, second = (run.producer(value) for value in product.inputs)
    assert first is not None and first.name == "sigmoid"
    assert second is not None and second.name != "sigmoid"


class Partly(nn.Module):
    """A part of a result is overwritten before the whole is read."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.fc(x).tanh()
        h[:, :3].mul_(2.0)
        return h.exp()


def test_the_whole_depends_on_what_was_written_to_a_part() -> None:
    run = record(Partly(), torch.randn(8, 4))
    whole = next(op for op in run.ops if op.name == "exp" and op.phase == "forward")
    made_by = run.producer(whole.inputs[0])
    assert made_by is not None and made_by.name == "mul"


def test_flags_and_random_state_are_put_back() -> None:
    model = nn.Linear(3, 3)
    model.bias.requires_grad_(False)
    before = torch.get_rng_state()
    with as_found(model):
        model.weight.requires_grad_(False)
        model.bias.requires_grad_(True)
        torch.rand(5)
    assert model.weight.requires_grad and not model.bias.requires_grad
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_text_in_two_files_has_two_places(tmp_path: Path) -> None:
    places = []
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text("from torch import nn\n\n\ndef build_model():\n    return nn.Linear(3, 3)\n")
        report = scan_here(ScanRequest(str(tmp_path / name), precisions=["float32"]))
        places += {Path(row.path).name for row in report.op_rows if row.phase == "forward" and row.path}
    assert places == ["one.py", "two.py"]
