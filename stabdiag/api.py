"""The API: `stabdiag.scan(model, inputs, loss=…)`."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any

from stabdiag import __version__
from stabdiag.errors import UserError, did_you_mean
from stabdiag.judging.report import Report
from stabdiag.scanning.session import run
from stabdiag.scanning.settle import settle
from stabdiag.settings.config import SUBJECT_KEYS
from stabdiag.settings.request import RunOptions, ScanRequest
from stabdiag.settings.values import checked

if TYPE_CHECKING:
    import pandas

LISTS = ("precisions", "select", "extend_select", "ignore", "inputs")


class Diagnosis(Report):
    """A report that shows itself: as text, as a table, in a notebook."""

    def to_frame(self) -> pandas.DataFrame:
        """The findings as a pandas table, one row each."""
        from stabdiag.reports.csv import frame

        return frame(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from stabdiag.reports.html import fragment

        return fragment(self)

    def __str__(self) -> str:
        """The report as a terminal shows it."""
        from stabdiag.reports.text import render

        return render(self)


def scan(model: Any, inputs: Any = None, loss: Callable[[Any], Any] | None = None, **options: Any) -> Diagnosis:
    """Diagnose a model.

    Args:
        model: an `nn.Module`, which is probed in this process and left bit for bit as found, or the path of a Python file
            (`"model.py"`, `"model.py:Net"`), which is run in a process of its own.
        inputs: for a module: a tensor, a tuple of positional or a dict of keyword arguments; for a file: specifications such
            as "8x3x32x32". None infers them.
        loss: `loss(output) -> scalar`, for a module; None infers the objective.
        options: fields of `stabdiag.settings.request.ScanRequest`, such as `precisions=["float32", "bfloat16"]`
            or `select="SD2"`.

    Returns:
        A Diagnosis: `report.findings`, `report.runs[0].precisions`, `report.to_frame()`, `report.exit_code(fail_on="error")`.

    Raises:
        UserError: an option that there is not, or a value it cannot have.
        stabdiag.subject.subject.SubjectError: the module cannot be probed. For a file, this is `report.runs[0].error`.
    """
    values = {key: _checked(key, value) for key, value in options.items()}
    if isinstance(model, str | PathLike):
        if loss is not None:
            raise UserError("`loss` was given for a file; define a function `loss(output)` in the file instead")
        specifications = _checked("inputs", inputs) if inputs is not None else []
        report = run([ScanRequest(str(model), inputs=specifications, **values)], RunOptions())
        return Diagnosis(report.version, report.runs)
    from stabdiag.scanning.pipeline import scan_model

    request = ScanRequest(type(model).__name__, **values)
    diagnosis = Diagnosis(__version__, [scan_model(model, inputs, loss, request)])
    settle(diagnosis, [request])
    return diagnosis


def _checked(key: str, value: Any) -> Any:
    if key not in SUBJECT_KEYS:
        raise UserError(f"scan() has no option `{key}`{did_you_mean(key, sorted(SUBJECT_KEYS))}")
    if key in LISTS:
        value = [value] if isinstance(value, str) else list(value)
    return checked(key, value, "scan()") if value is not None else None
