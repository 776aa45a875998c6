"""Data: what `example_inputs` returns, as an author would prepare it in the data loader."""

from __future__ import annotations

from collections.abc import Callable

from stabdiag.repair.editing.data import prepared
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import spell
from stabdiag.repair.remedy import Case, Edit, Remedy
from stabdiag.rule import rule_of

FEW_SAMPLES = 8
"""Statistics over fewer samples say nothing about the data: over two, every feature becomes ±0.7."""


def _preparing(expression: str, applies: Callable[[Case], bool]) -> Edit:
    """Pass the first tensor through an expression in which `{x}` stands for it."""

    def make(source: Source, case: Case) -> str | None:
        if not applies(case):
            return None
        return prepared(source, lambda x: spell(source, expression.replace("{x}", x)))

    return Edit(make)


def _suggests(name: str) -> Callable[[Case], bool]:
    """Whether the finding itself took the data for what the remedy is for."""
    return lambda case: any(fix.name == name for fix in case.finding.fixes)


def _may_hold_nan(case: Case) -> bool:
    return _suggests("finite-data")(case) or rule_of(case.finding).kind == "start"


def _has_samples(case: Case) -> bool:
    return case.report.batch_size is None or case.report.batch_size >= FEW_SAMPLES


REMEDIES = (
    Remedy(
        "finite-data",
        "Make the data finite before the model reads them",
        _preparing("torch.nan_to_num({x})", _may_hold_nan),
        "One NaN in a batch is a NaN in every gradient. Where a missing value means something, say it with a mask of its own.",
    ),
    Remedy(
        "scale-pixels",
        "Bring pixel values to -1 … 1",
        _preparing("{x} / 127.5 - 1", _suggests("scale-pixels")),
        "What `ToTensor` and `Normalize(0.5, 0.5)` do with images from 0 to 255.",
    ),
    Remedy(
        "standardise-data",
        "Standardise the data",
        _preparing("({x} - {x}.mean(0)) / ({x}.std(0) + 1e-5)", _has_samples),
        'Weights are initialised for inputs of mean 0 and variance 1 (LeCun et al. 1998, "Efficient BackProp", section 4.3). '
        "The statistics of the training set belong there; those of the batch stand in for them.",
    ),
)
