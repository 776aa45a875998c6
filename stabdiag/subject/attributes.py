"""Reading attributes of someone's module without running someone's code: no `__getattr__`, `__eq__` or `__hash__` of theirs."""

from __future__ import annotations

from typing import Any

_TABLES = ("_parameters", "_buffers", "_modules")


def attribute(owner: Any, name: str, default: Any = None) -> Any:
    """An attribute as Python and `nn.Module` themselves would find it, `default` where there is none.

    A module's own `__getattr__` may invent attributes, recurse or raise; a module that was not initialised yet has no tables.
    """
    try:
        return object.__getattribute__(owner, name)
    except AttributeError:
        pass
    try:
        own = object.__getattribute__(owner, "__dict__")
    except AttributeError:
        return default
    return next((own[table][name] for table in _TABLES if isinstance(own.get(table), dict) and name in own[table]), default)


def uncompiled(model: Any) -> Any:
    """The module that `torch.compile` wrapped, anything else as it is."""
    return attribute(model, "_orig_mod", model)
