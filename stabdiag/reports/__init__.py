"""One file per report format: `stabdiag/reports/NAME.py` with `render(report) -> str` and its file suffix.

The listing of this folder is the list of formats; `parts` holds what several of them share.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import cast

from stabdiag.errors import UserError, one_of
from stabdiag.judging.report import Report


@cache
def formats() -> tuple[str, ...]:
    """The names of all formats, sorted."""
    return tuple(sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.ispkg))


def renderer(name: str) -> Callable[[Report], str]:
    """The `render` of a format. Raises UserError when there is no such format."""
    module = importlib.import_module(f"{__name__}.{one_of('format', name, formats())}")
    return cast(Callable[[Report], str], module.render)


def format_for(path: Path) -> str:
    """The format that a file's suffix stands for. Raises UserError when it stands for none."""
    suffixes = {importlib.import_module(f"{__name__}.{name}").SUFFIX: name for name in formats()}
    suffixes.pop("", None)
    if path.suffix.lower() not in suffixes:
        raise UserError(
            f"cannot tell a format from `{path.name}`; give the file one of the suffixes {', '.join(sorted(suffixes))}"
        )
    return suffixes[path.suffix.lower()]
