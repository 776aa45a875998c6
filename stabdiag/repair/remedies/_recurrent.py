"""What the remedies that replace a plain recurrence share."""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.statements import replace_each


def gated(finding: Finding, report: SubjectReport, kind: str) -> list[str] | None:
    """Statements that put a gated recurrence of the same sizes in the place of every `nn.RNN`, for findings about time."""
    paths = [path for path, of in report.modules.items() if of == "RNN" and path]
    if not paths or "decades_per_step" not in finding.evidence:
        return None

    def made(rnn: str) -> str:
        sizes = f"{rnn}.input_size, {rnn}.hidden_size, {rnn}.num_layers"
        return f"nn.{kind}({sizes}, batch_first={rnn}.batch_first, bidirectional={rnn}.bidirectional)"

    return replace_each(paths, report.modules, made)
