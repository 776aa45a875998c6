"""Lines of styled text: wrapping with a hanging indent."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from stabdiag.reports.parts.place import one_line

_CONSOLE = Console(width=80)  # Text.wrap asks for one; nothing is printed to it


def prose(text: str) -> Text:
    """A sentence; what stands between backticks is set off in bold."""
    styled = Text(one_line(text))
    styled.highlight_regex(re.compile(r"`[^`]+`"), "bold")
    return styled


def hanging(head: Text, body: Text, width: int, indent: int) -> Iterator[Text]:
    """`head` and `body` on one line, wrapped at `width` columns with `indent` columns before every further line."""
    first = max(16, width - cell_len(head.plain))
    rest = max(16, width - indent)
    if cell_len(body.plain) <= first:
        yield head.append_text(body)
        return
    lines = list(body.wrap(_CONSOLE, first))
    yield head.append_text(lines[0])
    remainder = body[len(lines[0].plain.rstrip()) :] if len(lines) > 1 else Text()
    plain = remainder.plain
    remainder = remainder[len(plain) - len(plain.lstrip()) :]
    for line in remainder.wrap(_CONSOLE, rest) if remainder.plain else []:
        yield Text(" " * indent).append_text(line)
