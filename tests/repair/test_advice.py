"""Every code line that a report prints stands in the edited file, parses there, and reads only names that the file knows."""

from __future__ import annotations

import ast
import builtins
from pathlib import Path

import pytest

from stabdiag.finding import Finding, Fix, Severity
from stabdiag.repair.advice import advise
from stabdiag.repair.attempt import State, apply
from stabdiag.repair.remedy import named, remedies_for
from stabdiag.rule import all_rules
from stabdiag.scanning.pipeline import scan_here
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Location
from tests.repair.cases import report
from tests.rule_examples import example
from tests.test_sample_models import SICK

TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in SICK}
EXAMPLES = {rule.code: example(rule, "Bad") for rule in all_rules().values() if "def build_model" in rule.section("Bad")}


def unknown_names(text: str) -> set[str]:
    """Names that a file reads and nothing in it binds."""
    tree = ast.parse(text)
    bound = set(dir(builtins)) | {"__file__", "__name__"}
    read = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
    return read - bound


def edited(finding: Finding, fix: Fix, request: ScanRequest, made: object) -> str | None:
    """The text of the file with the edit that a fix shows; None where no file takes it."""
    for remedy in (*named(fix.name), *(r for r in remedies_for(finding) if r.name == fix.name)):
        attempt = apply(remedy, finding, State(), request, made)  # type: ignore[arg-type]
        if attempt is not None and attempt.fix.snippet == fix.snippet:
            return attempt.text[1] if attempt.text is not None else None
    raise AssertionError(f"{finding.code} {fix.name}: no edit gives {fix.snippet}")


@pytest.mark.long
@pytest.mark.parametrize("text", [*TEXTS.values(), *EXAMPLES.values()], ids=[*TEXTS, *EXAMPLES])
def test_every_printed_line_compiles_in_place_and_its_names_resolve(text: str, tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(text)
    request = ScanRequest(str(path))
    made = scan_here(request)
    assert made.error is None
    for finding in made.findings:
        for fix in finding.fixes:
            if not fix.snippet:
                continue
            after = edited(finding, fix, request, made)
            if after is None:
                assert unknown_names(fix.snippet) <= {"model", "nn", "torch", "math"}, fix.snippet
                continue
            compile(after, "model.py", "exec")
            assert unknown_names(after) <= unknown_names(text), fix.snippet
            assert set(map(str.strip, fix.snippet.splitlines())) <= set(map(str.strip, after.splitlines()))
            assert not set(map(str.strip, fix.snippet.splitlines())) <= set(map(str.strip, text.splitlines()))


def advised(tmp_path: Path, line: str, *fixes: Fix, code: str = "SD601") -> list[Fix]:
    path = tmp_path / "model.py"
    path.write_text(f"import torch\n\n\ndef f(z, x):\n    {line}\n")
    start = line.index("torch.")
    at = Location(str(path), 5, 4 + start, 4 + len(line))
    finding = Finding(Severity.ERROR, "", code=code, name="", location=at, precisions=["float32"], fixes=list(fixes))
    made = report()
    made.findings = [finding]
    advise(made, ScanRequest(str(path)))
    return finding.fixes


def test_the_line_is_the_authors_own(tmp_path: Path) -> None:
    fixes = advised(tmp_path, "y = torch.log(torch.softmax(z, dim=1))", Fix("log-softmax", "title"))
    assert [(f.name, f.snippet) for f in fixes] == [("log-softmax", "y = torch.nn.functional.log_softmax(z, dim=1)")]


def test_what_does_not_fit_the_line_is_left_out_where_something_does(tmp_path: Path) -> None:
    fixes = advised(tmp_path, "y = torch.log(torch.softmax(z, dim=1))", Fix("cross-entropy", ""), Fix("log-softmax", ""))
    assert [f.name for f in fixes] == ["log-softmax"]


def test_the_words_stand_alone_where_nothing_fits(tmp_path: Path) -> None:
    fixes = advised(tmp_path, "y = torch.log(x)", Fix("cross-entropy", "let the loss take logits"))
    assert [(f.name, f.title, f.snippet) for f in fixes] == [("cross-entropy", "let the loss take logits", "")]


def test_a_remedy_that_the_rule_lists_is_shown_where_no_named_one_fits(tmp_path: Path) -> None:
    fixes = advised(tmp_path, "y = torch.log(x.prod(dim=1))", Fix("guarded-log", "keep it from 0"), code="SD608")
    assert [(f.name, f.snippet) for f in fixes] == [("sum-of-logs", "y = torch.log(x).sum(dim=1)")]


def test_advice_that_only_the_author_can_follow_stays(tmp_path: Path) -> None:
    fixes = advised(tmp_path, "y = torch.log(torch.softmax(z, dim=1))", Fix("log-softmax", ""), Fix("mean-loss", "average it"))
    assert [f.name for f in fixes] == ["log-softmax", "mean-loss"]


def test_shared_suggestions_of_a_rule_are_not_written_on(tmp_path: Path) -> None:
    shared = Fix("log-softmax", "")
    advised(tmp_path, "y = torch.log(torch.softmax(z, dim=1))", shared)
    assert shared.snippet == ""
