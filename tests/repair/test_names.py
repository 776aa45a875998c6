"""Rules and remedies speak of the same fixes."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import stabdiag
import stabdiag.repair.remedies as remedies
from stabdiag.repair.remedy import all_remedies
from stabdiag.rule import all_rules

ADVICE = {
    "bfloat16",  # another precision is a verdict, not an edit
    "construct-separately",  # how the copies are told apart is the author's design
    "dependent-loss",  # what the loss was to depend on, the author knows
    "float32-state",  # how a state is kept beside the weights, the author decides
    "python-number",  # what else reads the tensor, the author knows
    "keep-the-graph",  # which of several cuts was meant, the author knows
    "smooth-activation",  # which smooth function the second derivative should see, the author decides
    "float32-master-weights",  # autocast belongs to the training loop
    "layerwise-rates",  # how the optimizer groups parameters is not in the model file
    "log-parameter",  # which name the logarithm gets, and what else reads the parameter, the author knows
    "lower-threshold",  # which values are noise, the author knows
    "mean-loss",  # whether a sum or a mean was meant, the author knows
    "no-factor",  # what the factor was to do, the author knows
    "pseudo-inverse",  # whether the smallest solution is meant, the author knows
    "read-all-steps",  # what a sequence is summarised by is part of the task
    "repeat",  # a scan, not the model
    "run-eagerly",  # how the model is run, not what it is
    "see-the-loss",  # how the script is run, not what it is
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


def test_rules_list_remedies_that_exist_and_every_remedy_is_of_use_to_one() -> None:
    listed = {name for rule in all_rules().values() for name in rule.remedies}
    assert listed <= set(all_remedies())
    bases = {name.removesuffix("-function") for name in listed | named_by_rules()}
    assert {name.removesuffix("-function") for name in all_remedies()} <= bases


def test_every_family_is_listed_and_no_name_is_used_twice() -> None:
    files = {path.stem for path in Path(remedies.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == set(remedies.FAMILIES)
    tables = [importlib.import_module(f"{remedies.__name__}.{family}").REMEDIES for family in remedies.FAMILIES]
    assert sum(map(len, tables)) == len(all_remedies())


def test_a_remedy_says_what_it_does_and_why() -> None:
    for remedy in all_remedies().values():
        assert remedy.title[0].isupper() and not remedy.title.endswith(".")
        assert remedy.reason.endswith((".", ")")), remedy.name


def test_rules_hold_no_code() -> None:
    """The code beside a fix is made by an edit, never by a template in a rule."""
    for path in (Path(stabdiag.__file__).parent / "rules").glob("sd*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Fix":
                assert len(node.args) == 2 and not node.keywords, f"{path.name}:{node.lineno}"
