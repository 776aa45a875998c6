"""Keep the operand of a logarithm above 0.

log(0) is -inf and its slope infinite; clamped at 1e-6 it is -13.8. float16 holds 1e-6, and not the usual 1e-8. Where a softmax
or sigmoid in one function meets its logarithm in another, this is the edit of one line; the stable form needs both.
"""

from __future__ import annotations

import libcst as cst

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, rewrite, unless_guarded
from stabdiag.repair.editing.source import Source
from stabdiag.trace import Location

REPAIRS = ("SD601", "SD602", "SD608", "SD301", "SD505")
KEEPS_FUNCTION = False

RULES: list[Rule] = [
    ("log(x + eps)", "torch.log(x.clamp_min(1e-6))"),
    ("log(eps + 1 - x)", "torch.log((1 - x).clamp_min(1e-6))"),
    ("log(x)", unless_guarded("x", "torch.log(x.clamp_min(1e-6))")),
    ("log2(x)", unless_guarded("x", "torch.log2(x.clamp_min(1e-6))")),
    ("log10(x)", unless_guarded("x", "torch.log10(x.clamp_min(1e-6))")),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Clamp what the logarithm is taken of; an epsilon that is absorbed gives way to the clamp.

    Every logarithm of the line, since log p seldom stands without log (1 - p).
    """
    at = finding.location
    logarithms = source.all(cst.Call, lambda call: at is not None and source.line(call) == at.line and _is_log(call.func))
    text = rewrite(source, at, RULES) if not logarithms else None
    for call in reversed(logarithms):  # from the right: what stands to the left keeps its column
        here = Source(source.path, text or source.text)
        start = source.positions[call].start
        edited = rewrite(
            here, Location(source.path, start.line, len(source.lines[start.line - 1][: start.column].encode())), RULES
        )
        if edited is not None and _elsewhere(edited, start.line) == _elsewhere(here.text, start.line):
            text = edited
    return text


def _is_log(callee: cst.BaseExpression) -> bool:
    name = callee.attr if isinstance(callee, cst.Attribute) else callee
    return isinstance(name, cst.Name) and name.value in ("log", "log2", "log10")


def _elsewhere(text: str, line: int) -> list[str]:
    lines = text.splitlines()
    return lines[: line - 1] + lines[line:]
