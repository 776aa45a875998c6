"""The layer picture: forward and gradient magnitude of every block on the main path, as bars on a log2 axis.

A signal that vanishes or explodes shows as bars that shrink or grow from line to line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, floor, isfinite, log2

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from stabdiag.judging.report import Layer
from stabdiag.reports.parts.place import one_line

ROWS = 24  # lines of the picture without --verbose
SPAN = 8  # least width of an axis in bits, so that healthy differences look small
EIGHTHS = " ▏▎▍▌▋▊▉█"


def picture(layers: list[Layer], width: int, home: str = "", everything: bool = False) -> Iterator[Text]:
    """Header, one line per row of the main path (thinned to ROWS), and a line that says what was thinned.

    Places in the file `home` are named by their line alone.
    """
    rows = layers if everything else [layer for layer in layers if layer.main]
    shown = rows if everything else thinned(rows)
    names = [one_line(" ".join(part for part in (layer.module, layer.op) if part)) for layer in shown]
    places = [_source(layer, home) for layer in shown]
    name_width = min(max([9, *map(cell_len, names)]), max(12, width // 4))
    place_width = min(max([6, *map(cell_len, places)]), max(10, width // 5))
    bar = max(12, min(24, (width - name_width - place_width - 2 - 2 * 9) // 2))
    forward, backward = axis([layer.forward_rms for layer in shown]), axis([layer.gradient_rms for layer in shown])
    head = Text(f"{'main path':{name_width}} {'source':{place_width}} ", "dim")
    yield head.append("forward RMS".ljust(bar + 9)).append("gradient RMS")
    if forward or backward:
        yield Text(" " * (name_width + place_width + 2) + _scale(forward, bar) + _scale(backward, bar), "dim")
    for layer, name, place in zip(shown, names, places, strict=True):
        line = Text(f"{_fit(name, name_width)} {_fit(place, place_width)} ")
        line.append(_bar(layer.forward_rms, forward, bar), "cyan").append(f" {_number(layer.forward_rms):>7} ")
        line.append(_bar(layer.gradient_rms, backward, bar), "magenta").append(f" {_number(layer.gradient_rms):>7} ")
        yield line
    if len(shown) < len(rows):
        yield Text(f"{len(shown)} of {len(rows)} rows, evenly spread; all of them with --verbose", "dim")


def thinned(rows: Sequence[Layer], limit: int = ROWS) -> list[Layer]:
    """At most `limit` rows, evenly spread, the first and the last among them."""
    if len(rows) <= limit:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (limit - 1))] for i in range(limit)]


def axis(values: Sequence[float | None]) -> tuple[int, int] | None:
    """Exponents of 2 at the two ends of an axis that holds all positive finite values, at least SPAN apart.

    None when there is no such value.
    """
    exponents = [log2(value) for value in values if value is not None and value > 0 and isfinite(value)]
    if not exponents:
        return None
    low, high = floor(min(exponents)) - 1, ceil(max(exponents))
    missing = max(0, SPAN - (high - low))
    return low - missing + missing // 2, high + missing // 2


def _source(layer: Layer, home: str) -> str:
    if not layer.line:
        return ""
    return f"line {layer.line}" if layer.path == home else one_line(f"{layer.path.rpartition('/')[2]}:{layer.line}")


def _bar(value: float | None, ends: tuple[int, int] | None, cells: int) -> str:
    if ends is None or value is None or not value > 0 or not isfinite(value):
        return " " * cells
    low, high = ends
    eighths = max(1, round((log2(value) - low) / (high - low) * cells * 8))
    full, part = divmod(min(eighths, cells * 8), 8)
    return ("█" * full + (EIGHTHS[part] if part else "")).ljust(cells)


def _scale(ends: tuple[int, int] | None, cells: int) -> str:
    if ends is None:
        return " " * (cells + 9)
    low, high = f"2^{ends[0]}", f"2^{ends[1]}"
    return f"{low} {'·' * (cells - len(low) - len(high) - 2)} {high}".ljust(cells + 9)


def _number(value: float | None) -> str:
    return "–" if value is None else "0" if value == 0 else f"{value:.2g}"


def _fit(text: str, width: int) -> str:
    """The text in exactly `width` cells; what is too long loses its beginning, the end says more."""
    while cell_len(text) > width:
        text = "…" + text[2:]
    return set_cell_size(text, width)
