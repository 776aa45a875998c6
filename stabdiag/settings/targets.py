"""Folders and patterns as targets: the files in them that have a model, told from their code."""

from __future__ import annotations

import ast
from pathlib import Path

from stabdiag.errors import UserError


def expanded(target: str) -> list[str]:
    """The targets that a folder or a pattern (`src/`, `models/*.py`) stands for, in order; anything else stands for itself.

    Raises UserError where there is no model in it.
    """
    path = Path(target)
    if path.is_dir():
        files = sorted(path.rglob("*.py"))
    elif any(sign in target for sign in "*?[") and not path.exists():
        files = sorted(Path(path.anchor or ".").glob(target.removeprefix(path.anchor)))
    else:
        return [target]
    found = [file.as_posix() for file in files if _is_source(file, path) and _has_model(file)]
    if not found:
        raise UserError(
            f"{target} holds no file with a model; expected Python files with an nn.Module class or a build_model()"
        )
    return found


def _is_source(file: Path, folder: Path) -> bool:
    """Whether a file is no test and lies in no hidden folder, cache or environment below the one that was asked for."""
    parts = file.parts[len(folder.parts) :] if folder.is_dir() else file.parts[-1:]
    installed = any((parent / "pyvenv.cfg").exists() for parent in file.parents)
    hidden = any(part.startswith((".", "__pycache__")) or part in ("site-packages", "node_modules") for part in parts)
    return file.suffix == ".py" and not (installed or hidden or file.name.startswith(("test_", "conftest")))


def _has_model(file: Path) -> bool:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    return any(
        (isinstance(node, ast.FunctionDef) and node.name == "build_model")
        or (isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Module") for base in node.bases))
        for node in tree.body
    )
