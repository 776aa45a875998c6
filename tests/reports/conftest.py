from types import SimpleNamespace

import pytest

from stabdiag.reports import junit, sarif

NAMES = {"SD101": "vanishing-gradient", "SD201": "dead-relu", "SD301": "non-finite"}


@pytest.fixture
def fixed_rules(monkeypatch):
    """Three rules whose documentation never changes."""
    rules = {
        code: SimpleNamespace(
            code=code,
            page=f"https://example.org/{code}/",
            name=name,
            summary=f"Summary of {name}.",
            documentation=f"Summary of {name}.\n\n## What it does\nLooks for {name}.",
            section=lambda title, name=name: f"Looks for {name}.",
            severities=["error", "warning"],
        )
        for code, name in NAMES.items()
    }
    for module in (sarif, junit):
        monkeypatch.setattr(module, "all_rules", lambda: rules)
