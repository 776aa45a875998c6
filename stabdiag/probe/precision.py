"""Precisions as ways to run: what is cast, whether autocast is on, and how an op runs in the reference and in emulated 16 bits.

Emulated: matrix products, convolutions, reductions, normalisations and losses compute in float32 and their result is rounded
to the format, which is what a GPU with float32 accumulation does. Pointwise kernels round every result in either case, so they
run as they are. What a device runs as several kernels (`torch.cdist` by a matrix product) is emulated kernel by kernel: each of
them rounds, and a sum of squares overflows before its root is taken. CPU half kernels can be 200 times slower
(convolution) and keep statistics in float16 where a GPU does not; their troubles would be this device's, not the model's.

Unrounded: the float64 run is what the others are measured against, so what the author casts to 16 bits stays float64 there.
Else the reference would lose the same digits, and nobody would see them go.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stabdiag.recording.eager import EagerMode
from stabdiag.recording.operator import Operator, operator
from stabdiag.recording.torch_private import run_parts, tree_map

HALF = (torch.float16, torch.bfloat16)
NARROW = (*HALF, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
"""Formats with fewer digits than any that a whole model is trained in without a second thought."""
_DTYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Saved statistics that GPU kernels hand on in float32 even when their input is 16-bit.
_STATISTICS_IN_FLOAT32 = (
    "native_layer_norm",
    "native_group_norm",
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_fused_rms_norm",
)
_ONE_DTYPE = ("mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "convolution", "linear", "scatter", "index_copy")
_KEEP_NATIVE = (
    "copy_",
    "_to_copy",
    "clone",
    "fill_",
    "masked_fill",
    "masked_fill_",
    "index_fill",
    "index_fill_",
    "zero_",
    "index_put_",
    "detach_",
    "random_",
    "uniform_",
    "normal_",
    "bernoulli_",
)


@dataclass(frozen=True, slots=True)
class Precision:
    """How to run one precision.

    Attributes:
        name: one of `stabdiag.trace.formats.PRECISIONS`.
        cast: dtype of parameters, buffers and floating-point inputs.
        autocast: dtype of the autocast region, None without one.
        compute: the narrowest dtype in play.
    """

    name: str
    cast: torch.dtype
    autocast: torch.dtype | None

    @property
    def compute(self) -> torch.dtype:
        """The format whose limits apply."""
        return self.autocast or self.cast

    def context(self, device: str) -> AbstractContextManager[Any]:
        """The autocast region around forward and loss."""
        return torch.autocast(device, dtype=self.autocast) if self.autocast is not None else nullcontext()


def precision(name: str) -> Precision:
    """The precision of this name. Raises KeyError for an unknown one."""
    if name.startswith("amp-"):
        return Precision(name, torch.float32, _DTYPES[name[4:]])
    return Precision(name, _DTYPES[name], None)


def cast(tree: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """A deep copy of nested inputs with floating-point tensors in `dtype`; integer ones are moved and never cast."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        wanted = dtype if leaf.is_floating_point() else leaf.dtype
        return leaf.detach().to(device=device, dtype=wanted, copy=True).requires_grad_(leaf.requires_grad)

    return tree_map(one, tree)


def unrounded(func: Any, info: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run one op of the reference: a result that is asked for in a narrow format is float64, narrow operands are read as such.

    Casts to float32 stay. They say what the author keeps wide in every precision, which predictions go by, and no model that
    is trained in float32 could tell the difference.
    """
    if kwargs.get("dtype") in NARROW:
        kwargs = {**kwargs, "dtype": torch.float64}
    if not info.view and not info.mutates and any(t.dtype in NARROW for t in _tensors(args, kwargs)):
        args, kwargs = tree_map(_double, (list(args), kwargs))
    return func(*args, **kwargs)


def emulated(func: Any, info: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run one op with float32 arithmetic, its 16-bit inputs read exactly and its result rounded to their format."""
    if info.view or info.pointwise or info.name in _KEEP_NATIVE or not info.made:
        return func(*args, **kwargs)
    floating = [t for t in _tensors(args, kwargs) if t.is_floating_point()]
    if not any(t.dtype in HALF for t in floating):
        return func(*args, **kwargs)
    if info.composite:
        with Emulation():
            return run_parts(func, args, kwargs)
    if info.name in _ONE_DTYPE and len({t.dtype for t in floating}) > 1:
        return func(*args, **kwargs)  # torch refuses to mix dtypes here, and so must we
    if info.mutates:
        return _emulated_in_place(func, info, args, kwargs)
    wanted = kwargs.get("dtype") or floating[0].dtype
    if any(t.dtype == torch.float32 for t in floating) and info.name in ("cat", "stack", "where"):
        wanted = torch.float32
    up = tree_map(_upcast, (list(args), dict(kwargs)))
    result = func(*up[0], **up[1])
    keep = 1 if info.name in _STATISTICS_IN_FLOAT32 else None
    return _round(result, wanted, keep)


class Emulation(EagerMode):
    """Emulated 16 bits for every op that runs while it is entered, recording nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return emulated(func, operator(func), args, kwargs or {})


def _emulated_in_place(func: Any, info: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Compute on float32 copies, then write the rounded values where the op would have."""
    up = [_upcast(a) for a in args]
    up_kwargs = {k: _upcast(v) for k, v in kwargs.items()}
    result = func(*up, **up_kwargs)
    written: dict[int, Tensor] = {}
    for i in info.mutates:
        before = args[i] if i < len(args) else kwargs.get(info.arguments[i])
        after = up[i] if i < len(args) else up_kwargs.get(info.arguments[i])
        if isinstance(before, Tensor) and isinstance(after, Tensor):
            if after is not before:  # an `out=` is given its shape by the op
                before.resize_(after.shape).copy_(after)
            written[id(after)] = before
        elif isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
            for b, a in zip(before, after, strict=True):
                if isinstance(b, Tensor) and a is not b:
                    b.copy_(a)
    if isinstance(result, Tensor) and id(result) in written:
        return written[id(result)]
    first = next((t for t in _tensors(args, kwargs) if t.dtype in HALF), None)
    return tree_map(lambda r: written.get(id(r), r), _round(result, first.dtype, 1) if first is not None else result)


def _tensors(args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    flat: list[Tensor] = []
    for a in (*args, *kwargs.values()):
        if isinstance(a, Tensor):
            flat.append(a)
        elif isinstance(a, (list, tuple)):
            flat.extend(t for t in a if isinstance(t, Tensor))
    return flat


def _double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.dtype in NARROW else leaf


def _upcast(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.float() if leaf.dtype in HALF else leaf
    if isinstance(leaf, (list, tuple)):
        return type(leaf)(_upcast(x) for x in leaf) if type(leaf) in (list, tuple) else leaf
    return torch.float32 if isinstance(leaf, torch.dtype) and leaf in HALF else leaf


def _round(result: Any, dtype: torch.dtype, keep: int | None) -> Any:
    if isinstance(result, Tensor):
        return result.to(dtype) if result.dtype == torch.float32 and dtype in HALF else result
    if isinstance(result, (list, tuple)):
        rounded = [_round(r, dtype, None) if keep is None or i < keep else r for i, r in enumerate(result)]
        return type(result)(rounded) if type(result) in (list, tuple) else type(result)(*rounded)
    return result
