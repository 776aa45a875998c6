"""The JSON report, schema `stabdiag/v1`: written here and read here, so that a saved run can be rendered again.

Deterministic bytes: six significant digits, no times. Strict JSON: what is not finite is null. Columns count from 1 in
characters, as in an editor. Left out: op rows (they have a CSV of their own) and tracebacks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, fields, replace
from math import isfinite
from typing import Any, TypeVar

from stabdiag.errors import ScanError, UserError
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.judging.report import SCHEMA, VERDICTS, Layer, PrecisionVerdict, Report, SubjectReport
from stabdiag.reports.parts.place import columns
from stabdiag.trace import Location, SubjectFacts

SUFFIX = ".json"
LIMIT = 5_000_000  # bytes; beyond it, a report is thinned
THINNED_LIST = 32  # entries of a list of evidence that stay in a thinned report

T = TypeVar("T")


def render(report: Report) -> str:
    """The report as JSON text, with a final newline. Above 5 MB, branches and long lists are left out."""
    document = _document(report)
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if len(text.encode()) > LIMIT:
        text = json.dumps(_thinned(document), ensure_ascii=False, allow_nan=False) + "\n"
    return text


def _document(report: Report) -> dict[str, Any]:
    return {"schema": SCHEMA, "version": report.version, "runs": [_run(run) for run in report.runs]}


def _run(run: SubjectReport) -> dict[str, Any]:
    return {
        "subject": plain(asdict(run.subject)),
        "precisions": [plain(asdict(precision)) for precision in run.precisions],
        "findings": [_finding(finding) for finding in run.findings],
        "layers": [plain(asdict(layer)) for layer in run.layers],
        "coverage": plain(run.coverage),
        "training": plain(run.training),
        "rules_run": list(run.rules_run),
        "error": {"kind": run.error.kind, "message": run.error.message} if run.error else None,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    data: dict[str, Any] = plain(asdict(replace(finding, states=[], consequences=[], still=None)))
    for internal in ("blocks", "states", "consequences", "still", "fades", "acceptable"):
        del data[internal]
    if finding.location is not None:
        start, end = columns(finding.location)
        data["location"] |= {"column": start, "end_column": end}
    return data | {"fingerprint": finding.fingerprint}


def plain(value: Any) -> Any:
    """What JSON can hold: six digits, None for what is not finite, lists for sequences, strings for the rest."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        # A lone surrogate (a file name that is not UTF-8) cannot be written; show it escaped.
        return str(value).encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float):
        return float(f"{value:.6g}") if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def _thinned(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _thinned(item, name) for name, item in value.items()}
    if key == "layers":
        return [layer for layer in value if layer["main"]]
    if isinstance(value, list):
        kept = value if key in ("runs", "findings", "precisions") else value[:THINNED_LIST]
        return [_thinned(item) for item in kept]
    return value


def load(text: str, name: str = "the report") -> Report:
    """The report that `text` holds. `name` is used in messages.

    Raises UserError: not JSON (truncated), not a report, a newer schema, a field missing or of the wrong type.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{name} is no complete JSON (line {error.lineno}: {error.msg}); scan again with `-o {name}`") from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(schema, str) or not schema.startswith("stabdiag/"):
        raise UserError(f"{name} is no stabdiag report: its `schema` is {schema!r}, expected `{SCHEMA}`")
    if schema != SCHEMA:
        raise UserError(f"{name} has schema `{schema}`, this version reads `{SCHEMA}`; upgrade stabdiag or scan again")
    try:
        return Report(str(data["version"]), [_load_run(run) for run in data["runs"]])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{name} is damaged ({_reason(error)}); scan again with `-o {name}`") from None


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _load_run(data: dict[str, Any]) -> SubjectReport:
    error = data["error"]
    return SubjectReport(
        subject=_load(SubjectFacts, data["subject"]),
        precisions=[_load_precision(item) for item in data["precisions"]],
        findings=[_load_finding(item) for item in data["findings"]],
        layers=[_load(Layer, item) for item in data["layers"]],
        coverage=dict(data.get("coverage") or {}),
        training=dict(data.get("training") or {}),
        error=ScanError(str(error["kind"]), str(error["message"])) if error else None,
        rules_run=[str(code) for code in data.get("rules_run", [])],
    )


def _load_precision(data: dict[str, Any]) -> PrecisionVerdict:
    verdict = _load(PrecisionVerdict, data)
    if verdict.verdict not in VERDICTS:
        raise ValueError(f"verdict `{verdict.verdict}` is none of {', '.join(VERDICTS)}")
    return verdict


def _load_finding(data: dict[str, Any]) -> Finding:
    finding = _load(Finding, {"code": data["code"], "name": data["name"], **data})
    finding.severity = Severity(finding.severity)
    finding.fixes = [_load(Fix, item) for item in data.get("fixes", [])]
    finding.location = _load_location(data["location"]) if data.get("location") else None
    return finding


def _load_location(data: dict[str, Any]) -> Location:
    source = str(data.get("source", ""))

    def offset(column: int | None) -> int | None:
        if column is None:
            return None
        return len(source[: column - 1].encode()) if source else column - 1

    return _load(Location, data | {name: offset(data.get(name)) for name in ("column", "end_column")})


def _load(kind: type[T], data: dict[str, Any]) -> T:
    """A dataclass from the keys it knows; keys of later versions are ignored, wrong plain types refused."""
    plain_types = {"str": str, "int": int, "bool": bool, "list[str]": list}
    known: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in data:
            value = data[field.name]
            expected = plain_types.get(str(field.type))
            if expected is not None and not isinstance(value, expected):
                raise TypeError(f"`{field.name}` is {value!r}, expected {field.type}")
            known[field.name] = value
        elif field.default is MISSING and field.default_factory is MISSING:
            raise KeyError(field.name)
    return kind(**known)
