"""A progress bar on stderr while models are scanned, at a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from stabdiag.scanning.session import Progress


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """A callback that moves one bar per subject, None when nobody watches. The bars disappear in the end."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    bars = Progress(
        SpinnerColumn(),
        TextColumn("{task.fields[target]}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    tasks: dict[str, TaskID] = {}

    def show(target: str, what: str, share: float) -> None:
        if target not in tasks:
            tasks[target] = bars.add_task("", total=1.0, target=target)
        bars.update(tasks[target], description=what, completed=share)

    with bars:
        yield show
