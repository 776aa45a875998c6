"""The Bad and Good examples of a rule's documentation, ready to be scanned."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from stabdiag.judging.report import SubjectReport
from stabdiag.rule import Rule
from stabdiag.scanning.pipeline import scan_here
from stabdiag.settings.request import ScanRequest


def example(rule: Rule, title: str) -> str:
    """The Python block below `## Bad` or `## Good`."""
    found = re.search(r"```python\n(.*?)```", rule.section(title), re.S)
    assert found, f"{rule.code} has no python example under ## {title}"
    return found.group(1)


def scanned(code: str, folder: Path, **options: object) -> SubjectReport:
    """Write a model file and scan it in this process. `# scan: steps=3` in the code sets options of the request."""
    path = folder / "model.py"
    path.write_text(code)
    wanted = dict(options)
    for line in re.findall(r"^# scan: (.*)$", code, re.M):
        name, _, value = line.partition("=")
        wanted[name.strip()] = _literal(value.strip())
    return scan_here(ScanRequest(target=str(path), **wanted))  # type: ignore[arg-type]


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def expected_lines(code: str, rule: str) -> set[int]:
    """Lines marked `# expect: SD201`."""
    return {n for n, line in enumerate(code.splitlines(), 1) if re.search(rf"# expect:.*\b{rule}\b", line)}
