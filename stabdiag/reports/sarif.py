"""SARIF 2.1.0 as GitHub code scanning takes it: one run, relative URIs, regions, fingerprints, rule help.

Only new findings are in it: GitHub shows every result it is given, suppressed or not. Limits (25,000 results, 1,024 characters
of a rule's description, 20 tags): docs.github.com, "SARIF support for code scanning".
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import Report, SubjectReport
from stabdiag.reports.json import plain
from stabdiag.reports.parts.place import columns, in_repository, one_line, title
from stabdiag.rule import DOCUMENTATION, all_rules

SUFFIX = ".sarif"
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
RESULTS = 25_000
DESCRIPTION = 1_024


def render(report: Report) -> str:
    """The new findings as a SARIF log with one run; what could not be scanned is a notification of its invocation."""
    found = [(run, finding) for run in report.runs for finding in run.findings if finding.status == "new"][:RESULTS]
    codes = sorted({finding.code for _, finding in found})  # with the rules that found nothing a log of ten findings has 400 kB
    names = {finding.code: finding.name for _, finding in found}
    seen: Counter[str] = Counter()
    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "stabdiag",
                        "version": report.version,
                        "semanticVersion": report.version,
                        "rules": [_rule(code, names.get(code, code)) for code in codes],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "invocations": [_invocation(report)],
                "results": [_result(run, finding, codes.index(finding.code), seen) for run, finding in found],
            }
        ],
    }
    return json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _rule(code: str, name: str) -> dict[str, Any]:
    """A rule's metadata; a code this version does not know (a report of a later one) has its name for everything."""
    rule = all_rules().get(code)
    summary = rule.summary if rule else name
    documentation = rule.documentation if rule else name
    about = rule.section("What it does") if rule else name
    page = rule.page if rule else DOCUMENTATION
    levels = [LEVELS[Severity(severity)] for severity in rule.severities] if rule else []
    return {
        "id": code,
        "name": rule.name if rule else name,
        "shortDescription": {"text": summary[:DESCRIPTION]},
        "fullDescription": {"text": (" ".join(about.split()) or summary)[:DESCRIPTION]},
        "help": {"text": f"{summary} See {page}", "markdown": documentation},
        "helpUri": page,
        "defaultConfiguration": {"level": levels[0] if levels else "warning"},
        "properties": {"tags": ["numerical-stability", f"{code[:3]}xx"], "precision": "high"},
    }


def _invocation(report: Report) -> dict[str, Any]:
    failed = [run for run in report.runs if run.error]
    invocation: dict[str, Any] = {"executionSuccessful": not failed}
    if failed:
        invocation["toolExecutionNotifications"] = [
            {"level": "error", "message": {"text": f"{title(run)} was not scanned: {run.error.message}"}}
            for run in failed
            if run.error
        ]
    return invocation


def _result(run: SubjectReport, finding: Finding, index: int, seen: Counter[str]) -> dict[str, Any]:
    seen[finding.fingerprint] += 1
    return {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": LEVELS[finding.severity],
        "message": {"text": message(finding)},
        "locations": [{"physicalLocation": _place(run, finding)} | _logical(finding)],
        "partialFingerprints": {
            "primaryLocationLineHash": f"{finding.fingerprint}:{seen[finding.fingerprint]}",
            "stabdiag/v1": finding.fingerprint,
        },
        "properties": {"model": title(run), "precisions": finding.precisions, "evidence": plain(finding.evidence)},
    }


def message(finding: Finding) -> str:
    """The finding in plain sentences: the fact, the cause, the first fix."""
    parts = [finding.message, finding.label, *(note.partition(": ")[2] or note for note in finding.notes)]
    if finding.fixes:
        fix = finding.fixes[0]
        parts.append(f"Fix: {fix.title}" + (f": {fix.snippet}" if fix.snippet else ""))
    return ". ".join(one_line(part).rstrip(".") for part in parts if part) + "."


def _place(run: SubjectReport, finding: Finding) -> dict[str, Any]:
    """Where GitHub puts the alert; a finding about the whole model is put at the top of its file."""
    at = finding.location
    path = in_repository(at.path if at else run.subject.path)
    start, end = columns(at) if at else (None, None)
    line = at.line if at else 1
    start = start or 1
    if not end or end <= start:
        end = max(start + 1, len(at.source.rstrip()) + 1 if at else 2)
    region = {"startLine": line, "startColumn": start, "endLine": line, "endColumn": end}
    if at and at.source:
        region["snippet"] = {"text": at.source}  # type: ignore[assignment]
    if PurePosixPath(path).is_absolute():
        return {"artifactLocation": {"uri": f"file://{quote(path)}"}, "region": region}
    return {"artifactLocation": {"uri": quote(path), "uriBaseId": "%SRCROOT%"}, "region": region}


def _logical(finding: Finding) -> dict[str, Any]:
    if not finding.module:
        return {}
    return {"logicalLocations": [{"fullyQualifiedName": finding.module, "kind": "module"}]}
