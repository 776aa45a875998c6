"""Settings: command line before environment before configuration file before default, and where each value came from.

The keys are the fields of `ScanRequest` (per subject) and `RunOptions` (for the run as a whole). In files
they are spelled with dashes (`extend-select`), in the environment `STABDIAG_EXTEND_SELECT`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from stabdiag.errors import UserError, did_you_mean
from stabdiag.settings.request import RunOptions, ScanRequest
from stabdiag.settings.targets import expanded
from stabdiag.settings.values import checked, from_text

FILES = ("stabdiag.toml", ".stabdiag.toml", "pyproject.toml")


RUN_KEYS = {f.name for f in fields(RunOptions)}
SUBJECT_KEYS = {f.name for f in fields(ScanRequest)} - {"target", "script", "at", "keep_going"}
MERGED = ("severity", "thresholds")  # tables: a later source adds to an earlier one instead of replacing it


@dataclass
class Settings:
    """All settings with their sources.

    Attributes:
        values, sources: by key; a key that nobody set is in neither.
        models: configured subjects: their own settings, `target` among them.
        file: the configuration file, None when there is none.
    """

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    models: list[dict[str, Any]] = field(default_factory=list)
    file: Path | None = None

    @property
    def options(self) -> RunOptions:
        """The settings of the run as a whole."""
        return RunOptions(**{key: value for key, value in self.values.items() if key in RUN_KEYS})

    def requests(self, targets: list[str]) -> list[ScanRequest]:
        """One request per target, the configured models when there are none.

        A target that is configured, by itself or as a file, is scanned with its own settings. Raises UserError when
        there is nothing to scan.
        """
        if not targets and not self.models:
            raise UserError("nothing to scan; give a file (`stabdiag scan model.py`) or set `models` in [tool.stabdiag]")
        single = [one for target in targets for one in expanded(target)]
        chosen = [model for target in single for model in self._configured(target)] if targets else self.models
        return [self._request(model) for model in chosen]

    def _configured(self, target: str) -> list[dict[str, Any]]:
        same = [m for m in self.models if m["target"] == target or m["target"].rpartition(":")[0] == target]
        return same or [{"target": target}]

    def _request(self, model: Mapping[str, Any]) -> ScanRequest:
        """A model's own settings replace those of the file, not those of the environment and the command line."""
        values = {key: value for key, value in self.values.items() if key in SUBJECT_KEYS}
        for key, value in model.items():
            if key in MERGED:
                values[key] = merged(value, values.get(key, {}))
            elif key not in values or not self.sources[key].startswith(("command line", "environment")):
                values[key] = value
        return ScanRequest(**values)

    def show(self) -> str:
        """Every setting with its source, one per line, as `--show-settings` prints it."""
        kinds = RunOptions(), ScanRequest("").with_declared({})
        defaults = {f.name: getattr(kind, f.name) for kind in kinds for f in fields(kind)}
        rows = [
            (key.replace("_", "-"), self.values.get(key, defaults[key]), self.sources.get(key, "default"))
            for key in sorted(RUN_KEYS | SUBJECT_KEYS)
            if key != "models"
        ]
        rows += [("model", model, str(self.file)) for model in self.models]
        lines = [f"{key} = {value!r}" for key, value, _ in rows]
        width = min(60, max(map(len, lines)))
        return "".join(f"{line:{width}}  # {row[2]}\n" for line, row in zip(lines, rows, strict=True))


def merged(over: Mapping[str, Any], under: Mapping[str, Any]) -> dict[str, Any]:
    """Two tables, the first one winning, tables in them merged likewise."""
    result = dict(under)
    for key, value in over.items():
        result[key] = merged(value, result.get(key, {})) if isinstance(value, Mapping) else value
    return result


def load(
    command_line: Mapping[str, Any], *, config: Path | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """All settings. `command_line` holds what was typed, by key; None and empty lists count as not typed.

    Raises UserError: a file that is no TOML, an unknown key, a value of the wrong type, an unknown rule.
    """
    settings = Settings(file=config or nearest())
    table = _read(settings.file) if settings.file else {}
    where = str(settings.file)
    models = [*table.pop("models", []), *table.pop("model", [])]
    _take(settings, _keys(table, RUN_KEYS | SUBJECT_KEYS, where), where)
    for model in models:
        own = {"target": model} if isinstance(model, str) else model
        if not isinstance(own, dict) or not isinstance(own.get("target"), str):
            raise UserError(f'{where}: a model is {own!r}, expected "FILE.py:Name" or a table with `target`')
        own = _keys(own, SUBJECT_KEYS | {"target"}, f"{where}, model {own['target']}")
        settings.models.append(_from_here(own, settings.file))
    settings.values = _from_here(settings.values, settings.file)
    _take(settings, *_environment(os.environ if environment is None else environment))
    typed = {key: value for key, value in command_line.items() if value is not None and value != [] and value is not False}
    _take(settings, {key: checked(key, value, "command line") for key, value in typed.items()}, "command line")
    return settings


def _take(settings: Settings, values: Mapping[str, Any], source: str) -> None:
    for key, value in values.items():
        settings.values[key] = merged(value, settings.values.get(key, {})) if key in MERGED else value
        settings.sources[key] = f"{source} STABDIAG_{key.upper()}" if source == "environment" else source


def nearest(start: Path | None = None) -> Path | None:
    """The nearest configuration file, from the working directory upwards."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        for name in FILES:
            file = folder / name
            if file.is_file() and (name != "pyproject.toml" or "stabdiag" in _toml(file).get("tool", {})):
                return file
    return None


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8 text; TOML files must be") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is no valid TOML: {error}") from None


def _read(file: Path) -> dict[str, Any]:
    table = _toml(file)
    if file.name == "pyproject.toml" or "stabdiag" in table.get("tool", {}):
        table = table.get("tool", {}).get("stabdiag", {})
    if not isinstance(table, dict):
        raise UserError(f"{file}: [tool.stabdiag] is {table!r}, expected a table")
    for key in ("models", "model"):
        if not isinstance(table.get(key, []), list):
            raise UserError(f"{file}: `{key}` is {table[key]!r}, expected a list of models")
    return table


def _keys(table: Mapping[str, Any], known: set[str], where: str) -> dict[str, Any]:
    spelled = {key.replace("_", "-"): key for key in known}
    for key in table:
        if key not in spelled:
            raise UserError(f"{where}: unknown key `{key}`{did_you_mean(key, sorted(spelled))}")
    return {spelled[key]: checked(spelled[key], value, where) for key, value in table.items()}


def _environment(environment: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    names = {f"STABDIAG_{key.upper()}": key for key in (RUN_KEYS | SUBJECT_KEYS) - {"models", *MERGED}}
    found: dict[str, Any] = {}
    for name in sorted(environment):
        if name.startswith("STABDIAG_"):
            if name not in names:
                raise UserError(f"unknown environment variable `{name}`{did_you_mean(name, sorted(names))}")
            found[names[name]] = checked(names[name], from_text(names[name], environment[name]), f"environment {name}")
    return found, "environment"


def _from_here(values: Mapping[str, Any], file: Path | None) -> dict[str, Any]:
    """Paths of a configuration file are relative to it; make them relative to the working directory."""
    folder = file.resolve().parent if file else Path.cwd()

    def moved(path: str) -> str:
        return os.path.relpath(folder / path).replace(os.sep, "/")

    result = dict(values)
    for key in ("data", "weights", "baseline"):
        if result.get(key):
            result[key] = moved(result[key])
    target = result.get("target", "")
    path, colon, name = target.partition(":") if ".py" in target else ("", "", "")
    if path:
        result["target"] = moved(path) + colon + name
    return result
