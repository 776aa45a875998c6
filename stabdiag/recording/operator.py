"""What is known about an aten operator before it runs: whether it views, mutates, draws random numbers, and which of its
outputs are results. Read from its schema and tags once per operator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from stabdiag.recording.torch_private import composed

# Outputs after the first that are saved statistics or indices, not results: they may hold anything.
_STATISTICS_AFTER_FIRST = (
    "native_layer_norm",
    "native_group_norm",
    "native_batch_norm",
    "_native_batch_norm_legit",
    "cudnn_batch_norm",
    "batch_norm_with_update",
    "_batch_norm_with_update",
    "native_dropout",
    "nll_loss_forward",
    "nll_loss2d_forward",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_cudnn_attention",
    "_ctc_loss",
    "_fused_rms_norm",
    "_embedding_bag",
    "_embedding_bag_forward_only",
)
_NO_RESULT = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted", "resize_")
_NOT_AN_OP = (
    "_local_scalar_dense",
    "is_same_size",
    "sym_size",
    "sym_numel",
    "equal",
    "item",
    "_has_compatible_shallow_copy_type",
)
# Running statistics that are written though the schema does not say so.
_WRITES = {"native_batch_norm": (3, 4), "cudnn_batch_norm": (3, 4), "miopen_batch_norm": (3, 4)}
# One kernel on a device, though it stands as a choice between several in torch.
_ONE_KERNEL = ("convolution", "_convolution", "convolution_backward", "convolution_overrideable", "embedding", "index_put")
# Views by meaning that the schema does not mark as aliases.
_COPIES = ("_to_copy", "clone", "copy_", "_unsafe_view", "lift_fresh", "lift_fresh_copy", "contiguous", "_reshape_copy")


@dataclass(frozen=True, slots=True)
class Operator:
    """An aten overload.

    Attributes:
        name: without namespace and overload.
        view: its output aliases or copies its first input, element for element or in part.
        mutates: positions of the arguments it writes.
        random: draws from a generator.
        pointwise: computes element by element.
        results: how many leading outputs are results; None for all.
        made: False for operators whose output is uninitialised memory.
        traced: False for operators that answer a question instead of computing.
        composite: runs as several kernels of a device, each of which rounds its result.
        arguments: schema names of the positional arguments, then of the keyword arguments.
    """

    name: str
    view: bool
    mutates: tuple[int, ...]
    random: bool
    pointwise: bool
    results: int | None
    made: bool
    traced: bool
    composite: bool
    arguments: tuple[str, ...]


@cache
def operator(func: Any) -> Operator:
    """The facts of one overload (`torch.ops.aten.mm.default`)."""
    schema = func._schema
    name = schema.name.rpartition("::")[2]
    mutates = tuple(i for i, a in enumerate(schema.arguments) if a.alias_info is not None and a.alias_info.is_write)
    mutates = mutates or _WRITES.get(name, ())
    aliases = any(r.alias_info is not None for r in schema.returns)
    return Operator(
        name=name,
        view=(aliases and not mutates) or name in _COPIES or torch.Tag.inplace_view in func.tags,
        mutates=mutates,
        random=torch.Tag.nondeterministic_seeded in func.tags and name not in ("_scaled_dot_product_flash_attention_for_cpu",),
        pointwise=torch.Tag.pointwise in func.tags,
        results=1 if name in _STATISTICS_AFTER_FIRST else None,
        made=name not in _NO_RESULT,
        traced=name not in _NOT_AN_OP and bool(schema.returns or mutates),
        composite=name not in _ONE_KERNEL and composed(func),
        arguments=tuple(a.name for a in schema.arguments),
    )
