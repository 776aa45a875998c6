"""Use an LSTM in place of the plain recurrence.

Its cell state passes from step to step through a gate instead of a weight, so the gradient need not shrink (Hochreiter &
Schmidhuber 1997). The forget gates start open.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.built import attribute
from stabdiag.repair.remedies._recurrent import gated

REPAIRS = ("SD101", "SD102")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Every `nn.RNN`; where the model uses its second result, the hidden state, the LSTM's pair does not fit and GRU does."""
    found = gated(finding, report, "LSTM")
    if found is None:
        return None
    width = {w.module: w.shape[1] for w in report.weights if w.recurrent and w.kind == "RNN"}
    return found + [f"{attribute(path)}.bias_ih_l0.data[{n}:{2 * n}].fill_(1.0)" for path, n in width.items()]
