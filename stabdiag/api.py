"""The API: `stabdiag.scan(model, inputs, loss=…)`."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stabdiag import __version__
from stabdiag.errors import UserError, did_you_mean
from stabdiag.judging.report import Report
from stabdiag.reports import format_for, renderer
from stabdiag.reports.parts.place import title
from stabdiag.reports.text import counts
from stabdiag.scanning.session import run
from stabdiag.scanning.settle import settle
from stabdiag.settings.config import SUBJECT_KEYS
from stabdiag.settings.request import RunOptions, ScanRequest
from stabdiag.settings.values import checked

if TYPE_CHECKING:
    import pandas

LISTS = ("precisions", "select", "extend_select", "ignore", "inputs")


class Diagnosis(Report):
    """A report that shows itself: as text, as tables, as a page, in a notebook."""

    @property
    def passed(self) -> bool:
        """Whether a gate would let it pass: every scan happened, and no new error was found."""
        return self.exit_code() == 0

    def to_frame(self) -> pandas.DataFrame:
        """The findings as a pandas table, one row each."""
        from stabdiag.reports.csv import frame

        return frame(self)

    def layers_frame(self) -> pandas.DataFrame:
        """Every op in every precision and phase as a pandas table, one row each."""
        from stabdiag.reports.csv import layers_frame

        return layers_frame(self)

    def verdicts_frame(self) -> pandas.DataFrame:
        """The verdicts as a pandas table, one row per model and precision."""
        from stabdiag.reports.csv import verdicts_frame

        return verdicts_frame(self)

    def to_html(self) -> str:
        """The page that `-o report.html` writes."""
        return renderer("html")(self)

    def to_json(self) -> str:
        """The report in the schema `stabdiag/v1`."""
        return renderer("json")(self)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the report in the format that the file's suffix names. Raises UserError when there is none."""
        target = Path(path)
        target.write_text(renderer(format_for(target))(self), encoding="utf-8")

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from stabdiag.reports.html import fragment

        return fragment(self)

    def __repr__(self) -> str:
        return f"<Diagnosis of {', '.join(title(run) for run in self.runs) or 'nothing'}: {counts(self.findings)}>"

    def __str__(self) -> str:
        """The report as a terminal shows it."""
        return renderer("text")(self)


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
