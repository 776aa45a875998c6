"""Training settings written into a model file: `PRECISIONS`, `make_scaler()`, `make_optimizer(model)`, a factor in `loss`.

What the file declares itself is edited in place; what it leaves open is added. Clipping, warm-ups and rounding belong to the
training loop, which a model file does not hold.
"""

from __future__ import annotations

from math import log2
from typing import Any

import libcst as cst

from stabdiag.repair.editing.source import Source, bound

OF_OPTIMIZER = ("lr", "eps", "weight_decay", "momentum")
DEFAULT_OPTIMIZER = ("torch.optim.AdamW", {"lr": 1e-3})  # what is scanned where a file declares none


def declare(source: Source, settings: dict[str, Any]) -> str | None:
    """The text with settings declared (fields of a scan request); None when one of them has no place in the file."""
    text: str | None = source.text
    for name, value in settings.items():
        here = Source(source.path, text) if text is not None else source
        if name == "precisions":
            text = _constant(
                here, "PRECISIONS", "({})".format("".join(f'"{p}", ' for p in value)[: -1 if len(value) == 1 else -2])
            )
        elif name == "loss_scale":
            text = _call(here, "make_scaler", "", "torch.amp.GradScaler", {"init_scale": f"2.0**{round(log2(value))}"})
        elif name in OF_OPTIMIZER:
            kind, options = DEFAULT_OPTIMIZER
            written = {k: f"{v:.3g}" for k, v in {**options, name: value}.items()}
            exists = _function(here, "make_optimizer") is not None
            text = _call(here, "make_optimizer", "model", kind, {name: written[name]} if exists else written)
        elif name == "loss_factor":
            text = _scaled_loss(here, f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-"))
        else:
            return None
        if text is None:
            return None
    return text


def _function(source: Source, name: str) -> cst.FunctionDef | None:
    """The function of the file's top level with this name."""
    return next((s for s in source.tree.body if isinstance(s, cst.FunctionDef) and s.name.value == name), None)


def _constant(source: Source, name: str, value: str) -> str | None:
    """The text with a constant set: where it is assigned, else behind the imports."""
    last: cst.CSTNode | None = None
    for line in source.tree.body:
        if not isinstance(line, cst.SimpleStatementLine):
            continue
        first = line.body[0]
        if isinstance(first, cst.Assign) and source.code(first.targets[0].target) == name:
            return source.replaced((first.value, value[1:-1] if first.value.lpar else value))  # a span leaves parentheses out
        if isinstance(first, cst.Import | cst.ImportFrom) and bound(first):
            last = line
    return source.spliced([source.behind(last, ["", f"{name} = {value}"], "")]) if last is not None else None


def _call(source: Source, function: str, argument: str, callee: str, options: dict[str, str]) -> str | None:
    """The text with keyword arguments set in the one call that a function makes and returns; the function is added where the
    file has none."""
    there = _function(source, function)
    if there is None:
        given = [f"{argument}.parameters()"] * bool(argument) + [f"{name}={value}" for name, value in options.items()]
        newline = source.tree.default_newline
        lines = ["", "", f"def {function}({argument}):", f"    return {callee}({', '.join(given)})", ""]
        return source.text.rstrip() + newline + newline.join(lines)
    calls = [c for c in source.all(cst.Call, lambda c: there in source.ancestors(c)) if _constructs(source, c, argument)]
    if len(calls) != 1:
        return None
    call, changes, missing = calls[0], [], []
    for name, value in options.items():
        same = [a for i, a in enumerate(call.args) if _is(a, name, i)]
        if same:
            changes.append((same[0].value, value))
        else:
            missing.append(f"{name}={value}")
    splices = [(*source.span(node), new) for node, new in changes]
    if missing:
        end = source.span(call.args[-1].value)[1] if call.args else source.span(call)[1] - 1
        splices.append((end, end, (", " if call.args else "") + ", ".join(missing)))
    return source.spliced(splices)


def _constructs(source: Source, call: cst.Call, argument: str) -> bool:
    """Whether a call makes the scaler, or an optimizer of all parameters."""
    if not argument:
        return source.code(call.func).endswith("GradScaler")
    return bool(call.args) and source.code(call.func).rpartition(".")[2][:1].isupper()


def _is(argument: cst.Arg, name: str, position: int) -> bool:
    """Whether an argument is the one of this name; the learning rate is the second of every optimizer."""
    if argument.keyword is not None:
        return argument.keyword.value == name
    return argument.star == "" and name == "lr" and position == 1


def _scaled_loss(source: Source, factor: str) -> str | None:
    """The text with the value that `loss` returns multiplied."""
    function = _function(source, "loss")
    returns = source.all(cst.Return, lambda r: function is not None and source.around(r, cst.FunctionDef) is function)
    if len(returns) != 1 or returns[0].value is None:
        return None
    value = returns[0].value
    code = source.code(value)
    if code.startswith(f"{factor} *"):
        return None
    if not isinstance(value, cst.Name | cst.Call | cst.Attribute | cst.Subscript) and not value.lpar:
        code = f"({code})"
    return source.replaced((value, f"{factor} * {code}"))
