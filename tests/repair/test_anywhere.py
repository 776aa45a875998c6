"""A remedy that is asked about any expression of any file either edits it into Python again or says that it does not apply."""

from __future__ import annotations

import ast
from pathlib import Path

import libcst as cst
import pytest

from stabdiag.repair.editing.source import Source
from stabdiag.repair.remedy import all_remedies
from stabdiag.trace import Location
from tests.repair.cases import case, edited

SAMPLES = sorted((Path(__file__).parents[2] / "sample_models" / "sick").glob("*.py"))
REMEDIES = [remedy for remedy in all_remedies().values() if remedy.of_source]


@pytest.mark.long
@pytest.mark.parametrize("path", SAMPLES, ids=lambda p: p.stem)
def test_every_remedy_at_every_expression(path: Path) -> None:
    source = Source("model.py", path.read_text(encoding="utf-8"))
    for node in source.all(cst.BaseExpression):  # type: ignore[type-abstract]
        if not isinstance(node, cst.Call | cst.BinaryOperation):
            continue
        at, start = source.positions[node], source.positions[node].start
        end = at.end.column if at.end.line == start.line else None
        for remedy in REMEDIES:
            at_node = Location("model.py", start.line, start.column, end)
            text = edited(remedy, source, case(remedy, at_node, precisions=("float16",)))
            if text is not None:
                ast.parse(text)
                assert text != source.text
