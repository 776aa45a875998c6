"""The layout: imports point one way, and what judges does not import torch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import stabdiag

PACKAGE = Path(stabdiag.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# What each part may not import at its top level, besides torch where it is no part of the worker.
FORBIDDEN = {
    "rules": ("stabdiag.reports", "stabdiag.probe", "stabdiag.subject", "stabdiag.fixes", "stabdiag.commands"),
    "reports": ("stabdiag.rules", "stabdiag.probe", "stabdiag.subject", "stabdiag.fixes", "stabdiag.commands"),
    "evidence": ("stabdiag.rules", "stabdiag.reports", "stabdiag.probe", "stabdiag.subject", "stabdiag.fixes"),
    "fixes": ("stabdiag.rules", "stabdiag.reports", "stabdiag.probe", "stabdiag.subject", "stabdiag.commands"),
    "subject": ("stabdiag.rules", "stabdiag.reports", "stabdiag.fixes", "stabdiag.commands", "stabdiag.pipeline"),
    "probe": ("stabdiag.reports", "stabdiag.fixes", "stabdiag.commands", "stabdiag.pipeline"),
}
WITH_TORCH = ("subject", "probe")


def imports(path: Path) -> set[str]:
    """Modules imported when the file is imported: not those of functions, nor those for type checking only."""
    found: set[str] = set()
    stack: list[ast.AST] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            stack.extend(ast.iter_child_nodes(node))
    return found


def part(path: Path) -> str:
    """The folder of the package a module lives in, "" for its top level."""
    inside = path.relative_to(PACKAGE).parts
    return inside[0] if len(inside) > 1 else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    found = imports(path)
    if part(path) not in WITH_TORCH:
        assert not [name for name in found if name.split(".")[0] in ("torch", "numba", "pandas")]
    assert not [name for name in found if name.startswith(FORBIDDEN.get(part(path), ()) or ("-",))]


def test_rules_do_not_import_each_other() -> None:
    for path in (PACKAGE / "rules").glob("sd*.py"):
        assert not [name for name in imports(path) if name.startswith("stabdiag.rules")], path.name
