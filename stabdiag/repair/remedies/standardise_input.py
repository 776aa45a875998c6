"""Standardise the input with a normalisation in front of the first layer.

Weights are initialised for inputs of mean 0 and variance 1. A BatchNorm without weights of its own does per feature what
`(x - mean) / std` with the statistics of the training set does in the data loader, which is as good.
"""

from __future__ import annotations

from stabdiag.evidence.graph.structure import Weight
from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.statements import replace_each
from stabdiag.rule import rule_of

REPAIRS = ("SD101", "SD102", "SD202", "SD302", "SD502", "SD703", "SD705", "SD804")
KEEPS_FUNCTION = False

_CONVOLUTIONS = {"Conv1d": 1, "Conv2d": 2, "Conv3d": 3}


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """In front of every layer that reads the model's input."""
    first = [
        w for w in report.weights if w.reads_input and w.input_channels and (w.kind in _CONVOLUTIONS or w.kind == "Linear")
    ]
    rule = rule_of(finding)
    if rule.level != "model":
        own = [w for w in first if w.module == finding.module]
        first = own or (first if rule.kind == "training" else [])
    found: list[str] = []
    for w in first:
        found += replace_each([w.module], report.modules, lambda layer, w=w: f"nn.Sequential({_norm(w)}, {layer})")  # type: ignore[misc]
    return found or None


def _norm(layer: Weight) -> str:
    dims = _CONVOLUTIONS.get(layer.kind, 0)
    if dims or layer.input_dims == 2:
        return f"nn.BatchNorm{dims or 1}d({layer.input_channels}, affine=False)"
    return f"nn.LayerNorm({layer.input_channels}, elementwise_affine=False)"
