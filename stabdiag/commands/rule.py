"""`stabdiag rule`: what a rule means. Does not import torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from stabdiag.commands.output import to_stdout
from stabdiag.errors import one_of
from stabdiag.rule import Rule, all_rules
from stabdiag.settings.values import rule_named


def rule(
    name: Annotated[str | None, typer.Argument(metavar="[CODE|NAME]", help="SD201 or dead-relu.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every rule in full.")] = False,
    format: Annotated[str, typer.Option("--format", "-f", help="text, json or markdown.")] = "text",
) -> int:
    """Explain a rule; without a name, list all of them."""
    one_of("format", format, ("text", "json", "markdown"))
    rules = [rule_named(name)] if name else list(all_rules().values())
    if format == "json":
        to_stdout(json.dumps([_plain(rule) for rule in rules], indent=2, ensure_ascii=False) + "\n")
    elif format == "markdown" and (name or everything):
        to_stdout("\n".join(markdown(rule) for rule in rules))
    elif format == "markdown":
        to_stdout(table(rules))
    elif name or everything:
        _print(rules)
    else:
        width = max((len(rule.name) for rule in rules), default=0)
        to_stdout("".join(f"{rule.code}  {rule.name:{width}}  {rule.summary}\n" for rule in rules))
    return 0


def markdown(rule: Rule) -> str:
    """A rule's documentation as a Markdown page."""
    page = f"# {rule.code} {rule.name}\n\n{rule.documentation.strip()}\n"
    if rule.thresholds:
        page += "\n## Configuration\n\n"
        page += f"```toml\n[tool.stabdiag.thresholds.{rule.name}]\n"
        page += "".join(f"{name} = {json.dumps(value)}\n" for name, value in rule.thresholds.items()) + "```\n"
    return page


def table(rules: Iterable[Rule], link: str = "{}") -> str:
    """All rules as a Markdown table; `link` is how a code is written."""
    lines = ["| code | name | severities | what |", "| --- | --- | --- | --- |"]
    for rule in rules:
        summary = rule.summary.replace("|", "\\|")
        lines.append(f"| {link.format(rule.code)} | {rule.name} | {', '.join(rule.severities)} | {summary} |")
    return "\n".join(lines) + "\n"


def _plain(rule: Rule) -> dict[str, object]:
    return {
        "code": rule.code,
        "name": rule.name,
        "summary": rule.summary,
        "severities": rule.severities,
        "thresholds": rule.thresholds,
        "explains": list(rule.explains),
        "documentation": rule.documentation,
    }


def _print(rules: list[Rule]) -> None:
    """Rendered Markdown at a terminal, the text itself elsewhere."""
    if not sys.stdout.isatty():
        to_stdout("\n".join(markdown(rule) for rule in rules))
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    with console.capture() as captured:
        for rule in rules:
            console.print(Markdown(markdown(rule)))
    to_stdout(captured.get())
