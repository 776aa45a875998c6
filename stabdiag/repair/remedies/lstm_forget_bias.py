"""Initialise the forget gates' bias at 1.

An LSTM whose forget gates start half closed halves its state at every step; at a bias of 1 they start open (Jozefowicz et
al. 2015).
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.statements import each

REPAIRS = ("SD101",)
KEEPS_FUNCTION = False

_FORGET = "{layer}.{bias}.data[{width}:{twice}].fill_(1.0)"


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Every recurrent weight of an `nn.LSTM` or `nn.LSTMCell`, whose second quarter is the forget gate."""
    found = []
    for w in report.weights:
        if w.recurrent and w.kind in ("LSTM", "LSTMCell") and w.bias and w.shape[0] == 4 * w.shape[1]:
            bias, width = w.bias.removeprefix(w.module).lstrip("."), w.shape[1]
            found += each(
                [w.module],
                report.modules,
                lambda layer, b=bias, n=width: _FORGET.format(layer=layer, bias=b, width=n, twice=2 * n),  # type: ignore[misc]
            )
    return found or None
