"""The layout: imports point one way, no package reads another's private names, and what judges does not import torch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import stabdiag

PACKAGE = Path(stabdiag.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# From the ground up: a part may import parts of its own floor's name and those above it in this list, never those below.
ORDER = (
    ("errors",),
    ("trace",),
    ("finding",),
    ("rule", "rules"),
    ("evidence",),
    ("settings.request",),
    ("recording",),
    ("subject",),
    ("probe",),
    ("judging",),
    ("reports",),
    ("settings",),
    ("gate", "repair"),
    ("scanning",),
    ("live",),
    ("integrations",),
    ("api", "testing"),
    ("commands",),
    ("__main__",),
)
# `rule` finds the files of `rules` by name; what they share is `evidence`, which reads rules' measurements nowhere.
ABOVE = {"rules": ("evidence",)}
WITH_TORCH = ("recording", "subject", "probe", "live", "integrations")


def imports(path: Path, *, late: bool = False) -> set[str]:
    """Modules of ours and others imported when the file is imported, or (`late`) when its functions run; not those for type
    checking only."""
    found: set[str] = set()
    stack: list[ast.AST] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        elif late or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            stack.extend(ast.iter_child_nodes(node))
    return found


def module_name(path: Path) -> str:
    """The dotted name of a module below `stabdiag`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def floor(module: str) -> int:
    """How high a module stands in ORDER. Raises StopIteration where a new part has no floor yet."""
    fits = [(len(name), height) for height, names in enumerate(ORDER) for name in names if f"{module}.".startswith(f"{name}.")]
    assert fits, f"{module} has no floor: give it one in ORDER"
    return max(fits)[1]


def part(module: str) -> str:
    """The package a module lives in, or its own name at the top level."""
    return module.split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    module = module_name(path)
    if module == "__init__":
        return
    ours = [name.removeprefix("stabdiag.") for name in imports(path, late=True) if name.startswith("stabdiag.")]
    for name in ours:
        if part(name) == part(module) or part(name) in ABOVE.get(part(module), ()) or name == "__version__":
            continue
        assert floor(name) <= floor(module), f"{module} imports {name}, which stands above it"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_no_package_reads_the_private_names_of_another(path: Path) -> None:
    module = module_name(path)
    for name in imports(path, late=True):
        *parents, last = name.split(".")
        own = part(name.removeprefix("stabdiag.")) == part(module)
        private = [word for word in (*parents[1:], last) if word.startswith("_") and word != "__version__"]
        assert own or not (name.startswith("stabdiag.") and private), f"{module} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_what_judges_does_not_import_torch(path: Path) -> None:
    if part(module_name(path)) not in WITH_TORCH:
        assert not [name for name in imports(path) if name.split(".")[0] in ("torch", "numba", "pandas")]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_private_names_of_torch_are_used_in_one_module(path: Path) -> None:
    if module_name(path) == "recording.torch_private":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | imports(path, late=True)
    private = [name for name in used if name.startswith("torch.") and any(part.startswith("_") for part in name.split("."))]
    assert not [name for name in private if not name.endswith("__")], "look it up in stabdiag/recording/torch_private.py"
    assert not [name for name in used if name.startswith("unittest")], "what is replaced in production is no mock"


def test_rules_do_not_import_each_other() -> None:
    for path in (PACKAGE / "rules").glob("sd*.py"):
        assert not [name for name in imports(path) if name.startswith("stabdiag.rules")], path.name
