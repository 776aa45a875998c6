"""Values of settings: read from text, checked for type and meaning. What is wrong is said in one sentence."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any, get_args, get_type_hints

from stabdiag.errors import UserError, did_you_mean, one_of
from stabdiag.finding import Severity
from stabdiag.reports import formats
from stabdiag.rule import Rule, all_rules, matching
from stabdiag.settings.request import RunOptions, ScanRequest
from stabdiag.trace.formats import PRECISIONS

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
POSITIVE = ("batches", "seeds", "budget", "jobs", "memory_limit", "lr", "clip")
NOT_NEGATIVE = ("steps", "timeout", "momentum")


def checked(key: str, value: Any, where: str) -> Any:
    """The value of a setting, brought into its field's form. `where` begins the message when it is wrong."""
    try:
        if key == "memory_limit":
            value = byte_count(value)
        value = _typed(key, value)
        if isinstance(value, float) and not isfinite(value):
            raise UserError(f"`{_spelled(key)}` is {value}, expected a finite number")
        if key in POSITIVE and value is not None and not value > 0:
            raise UserError(f"`{_spelled(key)}` is {value}, expected more than 0")
        if key in NOT_NEGATIVE and value is not None and value < 0:
            raise UserError(f"`{_spelled(key)}` is {value}, expected 0 or more")
        return MEANINGS[key](value) if key in MEANINGS else value
    except UserError as error:
        raise UserError(str(error) if where == "command line" else f"{where}: {error}") from None


def _spelled(key: str) -> str:
    return key.replace("_", "-")


def _hints() -> dict[str, Any]:
    return get_type_hints(ScanRequest) | get_type_hints(RunOptions)


def _typed(key: str, value: Any) -> Any:
    hint = _hints()[key]
    kinds = [getattr(kind, "__origin__", kind) for kind in get_args(hint) or (hint,) if kind is not type(None)]
    kind = getattr(hint, "__origin__", None) or kinds[0]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
    if wrong or (hint == list[str] and not all(isinstance(item, str) for item in value)):
        words = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", dict: "a table"}
        raise UserError(f"`{_spelled(key)}` is {value!r}, expected {words.get(kind, 'a list of strings')}")
    return value


def from_text(key: str, text: str) -> Any:
    """A setting's value from an environment variable: lists are separated by commas."""
    hint = _hints()[key]
    kinds = get_args(hint) or (hint,)
    if hint == list[str]:
        return split([text])
    if bool in kinds:
        if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
            return text
        return text.lower() in ("1", "true", "yes", "on")
    if int in kinds or float in kinds:
        try:
            return int(text) if int in kinds else float(text)
        except ValueError:
            return text
    return text


def split(values: Iterable[str]) -> list[str]:
    """Values that may be given repeatedly or separated by commas."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def byte_count(value: Any) -> Any:
    """2_000_000_000 for 2000000000, 8 * 2**30 for "8G" and "8 GiB". Raises UserError."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", value.strip(), re.I)
    if not found:
        raise UserError(f"`memory-limit` is {value!r}, expected a size such as 8G or 512M")
    return int(float(found[1]) * UNITS[found[2].upper()])


def keyword_arguments(values: Iterable[str]) -> dict[str, Any]:
    """`--arg key=value` as a dict; a value is a Python literal where it can be read as one, else a string."""
    arguments = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key.strip().isidentifier():
            raise UserError(f"`--arg {text}` is no argument; write --arg name=value, such as --arg width=64")
        try:
            arguments[key.strip()] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            arguments[key.strip()] = value
    return arguments


def rule_named(text: str) -> Rule:
    """The rule with this code or name. Raises UserError with a suggestion."""
    found = [rule for rule in matching(text) if text.upper() == rule.code or text.lower() == rule.name]
    if not found:
        known = [word for rule in all_rules().values() for word in (rule.code, rule.name)]
        raise UserError(f"no rule `{text}`{did_you_mean(text, known) if known else ''}")
    return found[0]


def _precisions(values: list[str]) -> list[str]:
    if not values:
        raise UserError(f"`precisions` is empty; known are {', '.join(PRECISIONS)}")
    return list(dict.fromkeys(one_of("precision", value, PRECISIONS) for value in values))


def _selectors(values: list[str]) -> list[str]:
    for value in values:
        if not matching(value):
            known = [word for rule in all_rules().values() for word in (rule.code, rule.name)]
            raise UserError(f"unknown rule `{value}`{did_you_mean(value, known)}")
    return values


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise UserError(f"unknown device `{value}`{did_you_mean(value, ('auto', 'cpu', 'cuda'))}")
    return value


def _severities(table: dict[str, Any]) -> dict[str, str]:
    known = [severity.value for severity in Severity]
    return {rule_named(rule).code: one_of("severity", str(value), known) for rule, value in table.items()}


def _thresholds(table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = {}
    for name, values in table.items():
        rule = rule_named(name)
        if not isinstance(values, dict):
            raise UserError(f"thresholds of {rule.name} are {values!r}, expected a table such as {{ {_example(rule)} }}")
        for key, value in values.items():
            threshold = key.replace("-", "_")
            if threshold not in rule.thresholds:
                raise UserError(f"{rule.code} has no threshold `{key}`{did_you_mean(threshold, rule.thresholds)}")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"threshold `{key}` of {rule.code} is {value!r}, expected a number")
            result.setdefault(rule.code, {})[threshold] = value
    return result


def _example(rule: Rule) -> str:
    return ", ".join(f"{key} = {value}" for key, value in list(rule.thresholds.items())[:1]) or "name = 1.0"


def _floor(value: str) -> str:
    return one_of("severity", value, [severity.value for severity in Severity])


MEANINGS: dict[str, Callable[[Any], Any]] = {
    "precisions": _precisions,
    "device": _device,
    "select": _selectors,
    "extend_select": _selectors,
    "ignore": _selectors,
    "severity": _severities,
    "thresholds": _thresholds,
    "min_severity": _floor,
    "fail_on": lambda value: one_of("severity", value, [*(severity.value for severity in Severity), "never"]),
    "format": lambda value: one_of("format", value, formats()),
}
