"""A page of HTML that needs nothing else: no network; light and dark, print. Also what a notebook shows of a Report.

Verdicts and findings are plain HTML and stand without a script; the distribution of every operation, their table and training
curves are drawn by the script in the page from data embedded once.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from stabdiag.judging.report import Report, SubjectReport
from stabdiag.reports.parts.layers import axis
from stabdiag.reports.parts.page_data import data
from stabdiag.reports.parts.place import columns, one_line, place, title
from stabdiag.reports.text import counts, remarks, verdict_words
from stabdiag.rule import all_rules
from stabdiag.trace import Location

if TYPE_CHECKING:
    from jinja2 import Environment

SUFFIX = ".html"


def render(report: Report) -> str:
    """The report as a page."""
    return _environment().get_template("page.html").render(report=report)


def fragment(report: Report) -> str:
    """The report as a piece of a page, with its own styles, as a notebook cell shows it."""
    return _environment().get_template("fragment.html").render(report=report)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("stabdiag.reports.parts", "html_templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": _code, "error": _error, "bits": _bits, "plainly": one_line}
    environment.globals |= {
        "title": title,
        "counts": counts,
        "place": place,
        "remarks": remarks,
        "verdict_words": verdict_words,
        "marked": marked,
        "data": lambda report: Markup(data(report)),
        "headline": headline,
        "precisions": lambda report: list(dict.fromkeys(p.name for run in report.runs for p in run.precisions)),
        "recorded": recorded,
        "rule_page": lambda code: all_rules()[code].page if code in all_rules() else "",
        "verdict_in": lambda run, name: next((p for p in run.precisions if p.name == name), None),
        "picture": picture,
    }
    return environment


def headline(report: Report) -> str:
    """How many models, and what was found."""
    models = f"{len(report.runs)} model{'s' if len(report.runs) != 1 else ''}"
    return f"{models}: {counts(report.findings)}"


def recorded(run: SubjectReport) -> str:
    """What was run, from the coverage."""
    coverage = run.coverage
    spent = sum((coverage.get("spent") or {}).values())
    parts = [f"{coverage.get(what, 0):,} {what}" for what in ("ops", "batches", "seeds")]
    return ", ".join(parts) + (f", for {spent:.1f} bare training steps" if spent else "")


def marked(location: Location) -> tuple[str, str, str]:
    """The source line in three parts: before the place, the place, behind it."""
    source = location.source.rstrip()
    start, end = columns(location)
    start = (start or len(source) - len(source.lstrip()) + 1) - 1
    end = max(start + 1, end - 1 if end else len(source))
    return source[:start], source[start:end], source[end:]


def picture(report_layers: list[Any]) -> list[dict[str, Any]]:
    """Rows of the layer picture: bars as percentages of a log2 axis, None where there is no bar."""
    from math import isfinite, log2

    rows = [layer for layer in report_layers if layer.main]
    ends = {name: axis([getattr(layer, name) for layer in rows]) for name in ("forward_rms", "gradient_rms")}

    def bar(layer: Any, name: str) -> float | None:
        value, between = getattr(layer, name), ends[name]
        if between is None or value is None or not value > 0 or not isfinite(value):
            return None
        low, high = between
        return round(100 * (log2(value) - low) / (high - low), 1)

    return [{"layer": layer, "forward": bar(layer, "forward_rms"), "gradient": bar(layer, "gradient_rms")} for layer in rows]


def _code(text: str) -> Any:
    """A sentence; what stands between backticks as code."""
    from markupsafe import Markup, escape

    parts = one_line(text).split("`")
    if len(parts) % 2 == 0:  # a backtick without a partner is a backtick
        return escape(one_line(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )


def _error(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _bits(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} bits"
