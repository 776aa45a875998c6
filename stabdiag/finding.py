"""What a rule says: a Finding, where it is, how bad it is, and what to do about it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from stabdiag.trace import Location, Op, Run


class Severity(StrEnum):
    """How bad a finding is. Errors fail the gate by default."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        """2 for errors, 1 for warnings, 0 for information."""
        return {"error": 2, "warning": 1, "info": 0}[self.value]


@dataclass(slots=True)
class Fix:
    """One edit that would repair a finding.

    Attributes:
        name: the remedy's name in `stabdiag/repair/remedies/` ("kaiming-init"), or of the rule's own suggestion.
        title: the edit in words, imperative ("initialise the bias at 0").
        snippet: the author's own line as the edit leaves it; rules give none, `stabdiag.repair.advice` makes it.
        proven: True when it was tried and the finding went away, False when it did not, None when it was not tried.
        before, after: the finding's own measured fact before and after, as text with units.
        note: what else is to know: maximum output difference, why it could not be proven.
        diff: unified diff of the user's file when the fix is a source edit.
    """

    name: str
    title: str
    snippet: str = ""
    proven: bool | None = None
    before: str = ""
    after: str = ""
    note: str = ""
    diff: str = ""


Still = Callable[[Run], "Severity | Literal[False] | None"]


@dataclass(slots=True)
class Finding:
    """One cause, found once.

    Attributes:
        code, name: the rule's, filled in by it.
        message: one sentence with the measured fact in numbers and units; code in backticks.
        module: path of the module or layer it is about ("" is the whole model).
        op: aten name of the op, "" when it is about no single op.
        phase: "forward", "backward" or "step".
        precisions: in which it shows, widest first.
        location: the primary place, in the user's file where one is on the stack.
        label: what is written under the marked source text (short: the fact at that place).
        notes: further lines, each "key: text" with key in cause, evidence, help.
        evidence: the numbers behind the message, by name.
        fixes: in order of preference.
        status: "new", "baselined" or "suppressed".
        path: of the file it belongs to, where it has no location.
        blocks: the precisions that cannot be trained in because of it; None leaves that to the rule (`Rule.blocks`).
        states: in which it breaks, where that was tried: values of inputs, parameters and results, one list per state
            (`stabdiag/probe/experiments/confirmation.py`). Fixes are tried in them; no report shows them.
        consequences: findings that were folded into this one, their cause.
        still: `still(run)`, how another run of the same model would be judged: a severity, False where it is gone, None where
            the run cannot tell; None for what is a fact of this run (`stabdiag.judging.persistence` asks).
        fades: the severity of a finding that is gone in another run; None drops it.
        acceptable: whether a baseline may accept it; not what the gate itself reports, which would accept all that follows.
        asked: whether it is about a precision that the request or the file asks for (float32 always is).
    """

    code: str = field(default="", kw_only=True)
    name: str = field(default="", kw_only=True)
    severity: Severity
    message: str
    module: str = ""
    op: str = ""
    phase: str = "forward"
    precisions: list[str] = field(default_factory=list)
    location: Location | None = None
    label: str = ""
    notes: list[str] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)
    fixes: list[Fix] = field(default_factory=list)
    status: str = "new"
    path: str = ""
    blocks: list[str] | None = None
    states: list[list[dict[str, Any]]] = field(default_factory=list, repr=False)
    consequences: list[Finding] = field(default_factory=list)
    still: Still | None = field(default=None, repr=False, compare=False)
    fades: Severity | None = None
    acceptable: bool = True
    asked: bool = True

    @property
    def fingerprint(self) -> str:
        """Identity across edits: code, path, module, op and precisions, but no line number and no measured value."""
        key = "\x1f".join((self.code, self.path, self.module, self.op, self.phase, ",".join(self.precisions)))
        return hashlib.sha256(key.encode()).hexdigest()[:16]

    @property
    def weight(self) -> Severity:
        """The severity that a gate goes by: an error in a precision that nobody asks for weighs as much as a warning."""
        return Severity.WARNING if self.severity is Severity.ERROR and not self.asked else self.severity

    def severity_in(self, precision: str) -> Severity | None:
        """How badly this cause or one of its consequences stands in the way of a precision; None where neither does."""
        severities = [f.severity for f in (self, *self.consequences) if precision in (f.blocks or ())]
        return max(severities, key=lambda severity: severity.rank, default=None)


def at(op: Op | None) -> dict[str, Any]:
    """The keyword arguments of a Finding that say where: `Finding(..., **at(op))`."""
    if op is None:
        return {}
    return {
        "module": op.module if op.module else op.layer,
        "op": op.name,
        "phase": "forward" if op.phase == "loss" else op.phase,
        "location": op.location,
    }
