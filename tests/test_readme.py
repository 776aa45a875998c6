"""The README shows what the tool says today."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.readme import PAGES, README, generated

REPAIR = "the README is stale: run `python -m tests.readme`"


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in PAGES if "<!-- output" in page.read_text(encoding="utf-8")], ids=str)
def test_the_shown_output_is_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert generated(text) == text, REPAIR


def test_it_starts_with_two_commands() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.index("make demo") < text.index("make test") < text.index("pip install")
