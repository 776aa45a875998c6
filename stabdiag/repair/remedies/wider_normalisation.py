"""Normalise over all channels of a sample instead of a few elements.

A mean and variance over one or two elements leave nothing of the input: x − x is 0, and two elements become ±1. Over all
channels and positions (GroupNorm with one group) they are statistics (Wu & He 2018, arXiv:1803.08494). A LayerNorm over one
feature has nothing wider beside it in its layer, and goes.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.statements import replace_each

REPAIRS = ("SD704",)
KEEPS_FUNCTION = False

_CHANNELS = {"GroupNorm": "num_channels"} | {
    f"{kind}Norm{d}d": "num_features" for kind in ("Instance", "Batch") for d in (1, 2, 3)
}


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """The module of the finding."""
    kind = report.modules.get(finding.module, "")
    if kind == "LayerNorm":
        return replace_each([finding.module], report.modules, lambda layer: "nn.Identity()")
    if (channels := _CHANNELS.get(kind)) is None:
        return None
    return replace_each([finding.module], report.modules, lambda layer: f"nn.GroupNorm(1, {layer}.{channels})")
