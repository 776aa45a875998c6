"""Writes the pages that come from the code: one per rule, the reference of commands and settings, the changelog.

`make docs` runs it before the site is built; what it writes is not kept in git, so it cannot be stale.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import typer

from stabdiag.commands.application import app
from stabdiag.commands.rule import markdown, table
from stabdiag.rule import all_rules
from stabdiag.settings.config import SUBJECT_KEYS
from stabdiag.settings.request import RunOptions, ScanRequest

DOCS = Path(__file__).parent
RULES = """# Rules

Every threshold is a keyword of its rule and can be set in the configuration: `[tool.stabdiag.thresholds.dead-relu]`.
"""
INTERNAL = {"edited", "after_build", "target", "models"}


def settings_page() -> str:
    """Every key of `[tool.stabdiag]` with its default, its environment variable and its meaning, from the dataclasses."""
    lines = [
        "# Configuration and environment",
        "",
        "The command line overrides the environment, which overrides the nearest `pyproject.toml` (`[tool.stabdiag]`) or",
        "`stabdiag.toml`. `stabdiag scan --show-settings` shows every value and where it came from.",
        "",
        "| key | environment | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for kind in (ScanRequest, RunOptions):
        meanings = _meanings(kind.__doc__ or "")
        for entry in dataclasses.fields(kind):
            if entry.name in INTERNAL or (kind is ScanRequest and entry.name not in SUBJECT_KEYS):
                continue
            default = _default(entry)
            key = entry.name.replace("_", "-")
            meaning = meanings.get(entry.name, "").replace("|", "\\|")
            lines.append(f"| `{key}` | `STABDIAG_{entry.name.upper()}` | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _default(entry: dataclasses.Field[object]) -> str:
    value = entry.default_factory() if callable(entry.default_factory) else entry.default
    return "" if value in (None, [], {}, "") else f"`{value}`"


def _meanings(docstring: str) -> dict[str, str]:
    """Attribute -> its sentence, from the `Attributes:` section of a docstring."""
    body = docstring.partition("Attributes:")[2]
    found: dict[str, str] = {}
    for entry in re.split(r"\n {8}(?=\w)", body):
        names, colon, text = entry.strip().partition(":")
        if colon:
            for name in names.split(","):
                found[name.strip()] = " ".join(text.split())
    return found


def commands_page() -> str:
    """The help text of every command."""
    command = typer.main.get_command(app)
    lines = ["# Command line", "", "```", _help(command, "stabdiag"), "```", ""]
    for name, inner in sorted(command.commands.items()):  # type: ignore[attr-defined]
        lines += [f"## stabdiag {name}", "", "```", _help(inner, f"stabdiag {name}"), "```", ""]
    return "\n".join(lines)


def _help(command: object, name: str) -> str:
    context = command.make_context(name, [], resilient_parsing=True, terminal_width=100, max_content_width=100)  # type: ignore[attr-defined]
    return re.sub(r"\x1b\[[0-9;]*m", "", str(command.get_help(context))).rstrip()  # type: ignore[attr-defined]


def main() -> None:
    """Write all generated pages."""
    rules = list(all_rules().values())
    pages = {f"rules/{rule.code}.md": markdown(rule) for rule in rules}
    pages |= {
        "rules/index.md": f"{RULES}\n{table(rules, '[{0}]({0}.md)')}",
        "reference/configuration.md": settings_page(),
        "reference/command-line.md": commands_page(),
        "changelog.md": (DOCS.parent / "CHANGELOG.md").read_text(encoding="utf-8"),
    }
    for name, text in pages.items():
        path = DOCS / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
