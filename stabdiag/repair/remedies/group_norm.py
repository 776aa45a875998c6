"""Use GroupNorm in place of BatchNorm.

GroupNorm takes its statistics over groups of channels of one sample, so it does not degenerate when few elements share a
channel (Wu & He 2018, arXiv:1803.08494).
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.statements import replace_each

REPAIRS = ("SD704", "SD804")
KEEPS_FUNCTION = False

_KINDS = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm")


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Every batch normalisation of the model; up to 32 groups, as many as divide the channels."""
    found: list[str] = []
    for kind in _KINDS:
        paths = [path for path, of in report.modules.items() if of == kind]
        found += replace_each(paths, report.modules, _group) if paths else []
    return found or None


def _group(layer: str) -> str:
    return f"nn.GroupNorm(math.gcd(32, {layer}.num_features), {layer}.num_features)"
