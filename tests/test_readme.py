"""The README shows what the tool says today."""

from __future__ import annotations

import pytest

from tests.readme import README, generated, rule_table

REPAIR = "the README is stale: run `python -m tests.readme`"


def test_the_rule_table_is_current() -> None:
    assert rule_table() in README.read_text(encoding="utf-8"), REPAIR


@pytest.mark.long
def test_the_shown_output_is_current() -> None:
    text = README.read_text(encoding="utf-8")
    assert generated(text) == text, REPAIR


def test_it_starts_with_two_commands() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.index("make demo") < text.index("make test") < text.index("pip install")
