"""Running the author's file as a module, the way Python itself would find its neighbours."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from stabdiag.subject.frames import one_line, place, user_traceback
from stabdiag.subject.overlay import source_bytes
from stabdiag.subject.subject import SubjectError


@dataclass(frozen=True)
class Target:
    """`path[:name]` or `module:name`, taken apart. `path` is None for a module."""

    path: Path | None
    module: str
    name: str | None


def parse_target(target: str) -> Target:
    """Take `model.py`, `model.py:Net` or `package.module:Net` apart.

    Raises:
        SubjectError: there is no such file, or it is a directory.
    """
    path, name = Path(target), None
    if not path.exists() and ":" in target:
        left, _, name = target.rpartition(":")
        path = Path(left)
        if not name.strip():
            raise SubjectError(f"{target!r} names no model after the colon; expected FILE.py:Name.", "usage")
    if path.is_dir():
        raise SubjectError(f"{path} is a directory; expected a Python file, for example {path / 'model.py'}.", "load")
    if path.exists():
        return Target(path, "", name)
    text = str(path)
    if not text.endswith(".py") and all(part.isidentifier() for part in text.split(".")) and _installed(text):
        return Target(None, text, name)
    raise SubjectError(f"{path} does not exist; expected a Python file with a model in it (FILE.py or FILE.py:Name).", "load")


def import_target(target: Target) -> ModuleType:
    """Import the file or module, with an empty command line and gradients enabled.

    Raises:
        SubjectError: kind "load", for everything that can go wrong in it, sys.exit and endless recursion included.
    """
    shown = str(target.path or target.module)
    if target.path is not None:
        tree = _parse(target.path)
    argv, sys.argv = sys.argv, [shown]
    # A guest leaves no bytecode behind; it would also be stale when a file changes twice within its time stamp's second.
    wrote, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        with torch.enable_grad(), _silent_argparse():
            return importlib.import_module(target.module) if target.path is None else _import_file(target.path, tree)
    except SystemExit as error:
        what = "parses command-line arguments" if _raised_by(error, "argparse.py") else f"calls sys.exit({error.code!r})"
        raise SubjectError(
            f'{shown} {what} when it is imported{place(error)}; move that under `if __name__ == "__main__":`.',
            "load",
            user_traceback(error),
        ) from error
    except ModuleNotFoundError as error:
        raise SubjectError(
            f"{shown} imports {error.name!r}{place(error)}, which is not installed here; install it in this environment.",
            "load",
            user_traceback(error),
        ) from error
    except Exception as error:
        raise SubjectError(
            f"{shown} cannot be imported, it raises {one_line(error)}{place(error)}; repair it so that `python {shown}` works.",
            "load",
            user_traceback(error),
        ) from error
    finally:
        sys.argv, sys.dont_write_bytecode = argv, wrote


@contextmanager
def _silent_argparse() -> Iterator[None]:
    """Without argparse's own usage text: the error that follows says what to do."""
    show = argparse.ArgumentParser._print_message
    argparse.ArgumentParser._print_message = lambda *_: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        argparse.ArgumentParser._print_message = show  # type: ignore[method-assign]


def _parse(path: Path) -> ast.Module:
    if path.suffix != ".py":
        raise SubjectError(f"{path} is not a Python file; expected a .py file with the model in it.", "load")
    try:
        return ast.parse(source_bytes(path), str(path))
    except SyntaxError as error:
        raise SubjectError(
            f"{path} is not valid Python: {error.msg} in line {error.lineno}; repair that line first.", "load"
        ) from error
    except (ValueError, UnicodeDecodeError, RecursionError, MemoryError) as error:
        raise SubjectError(f"{path} is not Python source ({one_line(error)}); expected a .py text file.", "load") from error
    except OSError as error:
        raise SubjectError(f"{path} cannot be read: {error.strerror}.", "load") from error


def _import_file(path: Path, tree: ast.Module) -> ModuleType:
    """Import one file under the name its own imports expect: dotted inside a package, its stem elsewhere."""
    path = path.resolve()
    root, parts = path.parent, [path.stem]
    levels = max((n.level for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)), default=0)
    # A package ends where __init__.py does; relative imports without any still tell how far up it reaches.
    while (root / "__init__.py").exists() or len(parts) <= levels:
        if root.parent == root or not root.name.isidentifier():
            break
        parts.insert(0, root.name)
        root = root.parent
    for folder in (str(path.parent), str(root)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    importlib.invalidate_caches()
    # The file may have been edited since it was last imported here; an old module would hide that.
    for known in [
        known for known, module in list(sys.modules.items()) if not known.startswith("__") and _same_file(module, path)
    ]:
        del sys.modules[known]
    name = ".".join(parts)
    if len(parts) == 1 and not _is_free(name, path):
        name = f"stabdiag_subject_{path.stem}"
    if len(parts) > 1:
        importlib.import_module(".".join(parts[:-1]))
    already = sys.modules.get(name)
    if already is not None and _same_file(already, path):  # its package has just imported it
        return already
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _is_free(name: str, path: Path) -> bool:
    """Whether a file may be imported under its stem: `random.py` or `test.py` must not replace a module others need."""
    if name in sys.modules or name in sys.stdlib_module_names:
        return False
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == path


def _same_file(module: ModuleType, path: Path) -> bool:
    file = vars(module).get("__file__")  # not getattr: a lazy module would import its parts to answer
    return isinstance(file, str) and Path(file).name == path.name and Path(file).resolve() == path


def _installed(name: str) -> bool:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _raised_by(error: BaseException, filename: str) -> bool:
    trace = error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).name == filename:
            return True
        trace = trace.tb_next
    return False
