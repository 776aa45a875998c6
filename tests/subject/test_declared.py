"""Training settings that a file declares: what is scanned, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from stabdiag.scanning.pipeline import scan_here
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.load import load
from stabdiag.subject.subject import SubjectError

MODEL = """
import torch
from torch import nn

{declared}

def build_model():
    return nn.Linear(8, 4)

def example_inputs():
    return torch.randn(16, 8)
"""


def written(folder: Path, declared: str) -> str:
    path = folder / "model.py"
    path.write_text(MODEL.format(declared=declared))
    return str(path)


def test_the_files_precisions_are_scanned_unless_others_are_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, 'PRECISIONS = ("float32", "bfloat16")')
    report = scan_here(ScanRequest(path))
    assert [p.name for p in report.precisions] == ["float32", "bfloat16"]
    assert report.subject.training == {"precisions": ["float32", "bfloat16"]}
    assert [p.name for p in scan_here(ScanRequest(path, precisions=["float16"])).precisions] == ["float16"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_scale_of_a_scaler_is_read_though_its_gpu_is_absent(tmp_path: Path, device: str) -> None:
    declared = f'def make_scaler():\n    return torch.amp.GradScaler("{device}", init_scale=2.0**14)'
    assert load(written(tmp_path, declared)).facts.training == {"loss_scale": 2.0**14}


@pytest.mark.parametrize("body", ["return None", "return torch.amp.GradScaler(enabled=False)"])
def test_no_scaler_is_none(tmp_path: Path, body: str) -> None:
    assert load(written(tmp_path, f"def make_scaler():\n    {body}")).facts.training == {}


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ('PRECISIONS = ("float23",)', "float23"),
        ("PRECISIONS = ()", "empty"),
        ("PRECISIONS = 16", "16"),
        ("def make_scaler():\n    return 1 / 0", "division by zero"),
        ("def make_scaler():\n    return 3", "int"),
    ],
)
def test_what_cannot_be_declared_is_one_sentence(tmp_path: Path, declared: str, said: str) -> None:
    with pytest.raises(SubjectError, match=said):
        load(written(tmp_path, declared))
