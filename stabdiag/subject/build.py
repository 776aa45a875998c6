"""Building the chosen model: which arguments its constructor gets, and where each comes from."""

from __future__ import annotations

import argparse
import ast
import difflib
import inspect
import sys
import typing
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import nn

from stabdiag.subject.attributes import uncompiled
from stabdiag.subject.frames import one_line, place, user_traceback
from stabdiag.subject.subject import SubjectError
from stabdiag.subject.usage import constructor_call

_OPTIONS = ("config", "cfg", "conf", "args", "hparams", "hp", "params", "opt", "options")
_EMPTY = inspect.Parameter.empty


class NeedsArgumentsError(SubjectError):
    """The constructor has required arguments and nothing tells their values."""


def literal(text: str) -> Any:
    """The value of a `--arg`: a Python literal, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def bind(
    target: Callable[..., Any], name: str, module: ModuleType, given: dict[str, Any]
) -> tuple[list[Any], dict[str, Any], str]:
    """The arguments for calling `target`, and in words where they come from.

    In this order: `--arg`; defaults; a configuration class whose fields have defaults; a variable of the file of the same
    name; the call the file itself makes, under `__main__` or in a function.

    Raises:
        SubjectError: kind "usage", for a `--arg` that fits nothing.
        NeedsArgumentsError: a required argument stays open.
    """
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return [], {}, ""
    named = {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    kwargs = {key: value for key, value in given.items() if key in named}
    rest = {key: value for key, value in given.items() if key not in named}
    notes = [f"{key}={value!r} from --arg" for key, value in kwargs.items()]
    missing = [p for p in named.values() if p.default is _EMPTY and p.name not in kwargs]
    opened: list[str] = []
    if missing and not given and (call := constructor_call(module, name)) is not None:
        args, own, line = call
        if _fits(target, args, own):
            return args, own, f"with the arguments of the call in line {line}"
    for parameter in missing:
        configuration = _configuration_class(target, parameter, module)
        if configuration is not None:
            fields = _fields(configuration)
            taken = {key: rest.pop(key) for key in list(rest) if key in fields}
            lacking = [key for key, default in fields.items() if default is _EMPTY and key not in taken]
            if lacking:
                opened += lacking
            else:
                kwargs[parameter.name] = _call(configuration, taken, configuration.__name__)
                notes.append(f"{parameter.name}={configuration.__name__}({', '.join(f'{k}={v!r}' for k, v in taken.items())})")
            continue
        variable = _variable(parameter.name, module)
        reader = _options_reader(parameter.name, module) if variable is None else None
        if reader is not None:
            kwargs[parameter.name] = _options(reader)
            notes.append(f"{parameter.name}={reader.__name__}() with an empty command line")
        elif variable is not None:
            kwargs[parameter.name] = vars(module)[variable]
            notes.append(f"{parameter.name} is the file's own {variable}")
        else:
            opened.append(parameter.name)
    if rest and takes_any:
        kwargs, rest = kwargs | rest, {}
    if rest:
        key = next(iter(rest))
        choices = list(named) + [f for p in named.values() for f in _fields(_configuration_class(target, p, module))]
        near = difflib.get_close_matches(key, choices, 1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(choices) or 'none at all'}."
        raise SubjectError(f"--arg {key}: {name} takes no such argument; {hint}", "usage")
    if opened:
        shown = " ".join(f"--arg {key}=…" for key in opened)
        raise NeedsArgumentsError(
            f"{name} cannot be built without {_listed(opened)}: pass {shown}, or add a build_model() to the file.",
            "load",
        )
    positional = [kwargs.pop(p.name) for p in named.values() if p.kind is p.POSITIONAL_ONLY and p.name in kwargs]
    return positional, kwargs, ", ".join(notes)


def build(target: Callable[..., Any], name: str, module: ModuleType, given: dict[str, Any]) -> nn.Module:
    """Call the class or factory.

    Raises:
        SubjectError: it raised, left the program, or returned no model.
    """
    args, kwargs, _ = bind(target, name, module, given)
    model = _call(target, kwargs, name, args)
    model = uncompiled(model)
    if not isinstance(model, nn.Module):
        raise SubjectError(f"{name}() returned {type(model).__name__}; expected it to return the model, an nn.Module.", "load")
    return model


def _call(target: Callable[..., Any], kwargs: dict[str, Any], name: str, args: list[Any] | None = None) -> Any:
    try:
        return target(*(args or []), **kwargs)
    except SystemExit as error:
        raise SubjectError(
            f"{name}() calls sys.exit({error.code!r}){place(error)}; it must return the model.",
            "load",
            user_traceback(error),
        ) from error
    except SubjectError:
        raise
    except Exception as error:
        raise SubjectError(
            f"{name}() raises {one_line(error)}{place(error)}; repair it, or pass other values with --arg.",
            "load",
            user_traceback(error),
        ) from error


def _fits(target: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> bool:
    try:
        inspect.signature(target).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _configuration_class(target: Any, parameter: inspect.Parameter, module: ModuleType) -> type | None:
    """The class a parameter wants: annotated, named by the model class (`config_class`), or the file's only configuration."""
    function = target.__init__ if inspect.isclass(target) else target
    try:
        wanted = typing.get_type_hints(function).get(parameter.name)
    except Exception:
        wanted = parameter.annotation
    if isinstance(wanted, str):
        wanted = vars(module).get(wanted)
    if inspect.isclass(wanted):
        simple = wanted.__module__ in ("builtins", "typing", "torch") or issubclass(wanted, nn.Module)
        return None if simple else wanted
    if parameter.name not in _OPTIONS:
        return None
    declared = getattr(target, "config_class", None)
    if inspect.isclass(declared):
        return declared
    words = ("config", "cfg", "args", "params", "options", "setting")
    own = [
        value
        for key, value in vars(module).items()
        if inspect.isclass(value) and not issubclass(value, nn.Module) and any(word in key.lower() for word in words)
    ]
    own = [value for value in own if value.__module__ == module.__name__] or own
    return own[0] if len(own) == 1 else None


def _fields(configuration: type | None) -> dict[str, Any]:
    """Constructor arguments of a configuration class and their defaults."""
    if configuration is None:
        return {}
    try:
        parameters = inspect.signature(configuration).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {p.name: p.default for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _variable(name: str, module: ModuleType) -> str | None:
    for key, value in vars(module).items():
        plain = not callable(value) and not isinstance(value, ModuleType)
        if plain and not key.startswith("__") and key.lower() == name.lower():
            return key
    return None


def _options_reader(name: str, module: ModuleType) -> Callable[[], Any] | None:
    """The file's own function that makes the options: `get_args()`, `parse_options()`, `make_config()`."""
    if name not in _OPTIONS:
        return None
    for key, value in vars(module).items():
        own = inspect.isfunction(value) and value.__module__ == module.__name__
        if own and any(word in key.lower() for word in ("args", "arguments", "options", "config", "hparams", "parser")):
            required = [p for p in inspect.signature(value).parameters.values() if p.default is _EMPTY]
            if not required:
                return value  # type: ignore[no-any-return]
    return None


def _options(reader: Callable[[], Any]) -> Any:
    argv, sys.argv = sys.argv, sys.argv[:1]
    try:
        options = _call(reader, {}, reader.__name__)
        return options.parse_args([]) if isinstance(options, argparse.ArgumentParser) else options
    except SystemExit as error:
        raise SubjectError(f"{reader.__name__}() needs a command line; add a build_model() to the file.", "load") from error
    finally:
        sys.argv = argv


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
