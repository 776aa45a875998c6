"""Rules and remedies speak of the same fixes."""

from __future__ import annotations

import ast
from pathlib import Path

import stabdiag
from stabdiag.repair.remedy import all_remedies
from stabdiag.rule import all_rules

ADVICE = {
    "construct-separately",  # how the copies are told apart is the author's design
    "layerwise-rates",  # how the optimizer groups parameters is not in the model file
    "lower-threshold",  # which values are noise, the author knows
    "mean-loss",  # whether a sum or a mean was meant, the author knows
    "no-factor",  # what the factor was to do, the author knows
    "read-all-steps",  # what a sequence is summarised by is part of the task
    "scale-down",  # which power of two, the author's units decide
}
"""Fixes that rules name and nobody but the author can make."""


def named_by_rules() -> set[str]:
    names = set()
    for path in Path(stabdiag.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Fix" and node.args:
                names |= {node.args[0].value} if isinstance(node.args[0], ast.Constant) else set()
    return names


def test_every_fix_that_a_rule_names_is_a_remedy_or_advice() -> None:
    assert named_by_rules() - set(all_remedies()) - ADVICE == set()


def test_advice_is_named_by_a_rule_and_is_no_remedy() -> None:
    assert named_by_rules() >= ADVICE
    assert not ADVICE & set(all_remedies())


def test_remedies_repair_rules_that_exist() -> None:
    codes = {rule.code for rule in all_rules().values()}
    for remedy in all_remedies().values():
        assert set(remedy.repairs) <= codes, remedy.name


def test_a_remedy_says_what_it_does_and_is_of_one_kind() -> None:
    for remedy in all_remedies().values():
        assert remedy.title[0].isupper() and not remedy.title.endswith(".")
        assert sum(hasattr(remedy.module, kind) for kind in ("edit", "statements", "settings")) == 1, remedy.name
