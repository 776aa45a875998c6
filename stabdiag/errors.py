"""Errors for people: one sentence that says what was given, what was expected, and how to repair it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


class UserError(Exception):
    """Something the person at the keyboard can repair. The message is one sentence; the exit code is 2."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`; did you mean `x`?` for the nearest known word, else the list of known words."""
    words = list(known)
    near = get_close_matches(given.lower(), [word.lower() for word in words], n=1, cutoff=0.5)
    if near:
        word = next(word for word in words if word.lower() == near[0])
        return f"; did you mean `{word}`?"
    return f"; known are {', '.join(words)}" if words else ""


def one_of(what: str, given: str, known: Iterable[str]) -> str:
    """`given` itself when it is known. Raises UserError with a suggestion when it is not."""
    words = list(known)
    if given not in words:
        raise UserError(f"unknown {what} `{given}`{did_you_mean(given, words)}")
    return given


@dataclass(slots=True)
class ScanError:
    """Why the scan of a subject did not happen (or broke off). `kind`: usage, configuration, load, input, forward, timeout,
    crash, internal. `detail` is shown with -v only."""

    kind: str
    message: str
    detail: str = ""
