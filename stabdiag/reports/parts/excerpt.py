"""A line of source with carets under the place and a label behind them, as compilers show it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len
from rich.text import Text

from stabdiag.reports.parts.lines import hanging, prose
from stabdiag.reports.parts.place import columns, one_line
from stabdiag.trace import Location

TAB = 4
LABEL = 28  # columns a label needs to stand behind the carets rather than below them


def excerpt(location: Location, label: str, gutter: int, width: int, style: str) -> Iterator[Text]:
    """The source line, cropped around the place where it is too long, and below it the carets with the label.

    Without a column, the whole statement on the line is marked.
    """
    source, start, end = _marked(location)
    room = max(20, width - gutter - 3)
    source, start, end = _cropped(source, start, end, room)
    bar = Text(" " * gutter).append(" |", "blue")
    yield bar.copy()
    yield Text(f"{location.line:>{gutter}}").append(" | ", "blue").append(one_line(source))
    left = cell_len(source[:start])
    carets = "^" * max(1, cell_len(source[start:end]))
    under = bar.copy().append(" " * (left + 1)).append(carets, style)
    behind = gutter + 3 + left + len(carets) + 1
    if not label:
        yield under
    elif width - behind >= min(LABEL, cell_len(label)):
        yield from hanging(under.append(" "), prose(label), width, behind)
    else:
        yield under
        indent = min(left + 1, max(1, width - gutter - 2 - 2 * LABEL))
        for line in hanging(Text(), prose(label), width - gutter - 2 - indent, 0):
            yield bar.copy().append(" " * indent).append_text(line)


def _marked(location: Location) -> tuple[str, int, int]:
    """The line with tabs expanded, and the marked span in its characters, from 0."""
    source = location.source.rstrip()
    first, behind = columns(location)
    if first is None:
        first, behind = len(source) - len(source.lstrip()) + 1, len(source) + 1
    if behind is None or behind <= first:
        behind = first + 1
    start, end = (len(source[: column - 1].expandtabs(TAB)) for column in (first, behind))
    return source.expandtabs(TAB), start, max(start + 1, end)


def _cropped(source: str, start: int, end: int, room: int) -> tuple[str, int, int]:
    if cell_len(source) <= room:
        return source, start, min(end, max(start + 1, len(source)))
    # Wide characters take two cells: halving the room is always enough.
    room = room if len(source) == cell_len(source) else room // 2
    begin = max(0, min(start - room // 4, len(source) - room))
    piece = source[begin : begin + room]
    if begin:
        piece = "…" + piece[1:]
    if begin + room < len(source):
        piece = piece[:-1] + "…"
    return piece, start - begin, min(end - begin, len(piece))
