"""Which dimension of a tensor counts units (channels, features): known where a layer makes it, followed through views.

A guess from the number of dimensions takes positions for units in a transposed Conv1d output, and units for positions in an
unbatched one; the layer that made the tensor knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_LAST = frozenset(
    [
        "mm",
        "addmm",
        "bmm",
        "baddbmm",
        "linear",
        "matmul",
        "embedding",
        "_embedding_bag",
        "native_layer_norm",
        "_fused_rms_norm",
        "_thnn_fused_lstm_cell",
    ]
)
_SECOND = frozenset(
    [
        "convolution",
        "_convolution",
        "conv2d",
        "native_batch_norm",
        "_native_batch_norm_legit",
        "cudnn_batch_norm",
        "native_group_norm",
        "mkldnn_convolution",
        "slow_conv2d",
        "thnn_conv2d",
        "_slow_conv2d_forward",
        "slow_conv3d_forward",
        "_batch_norm_with_update",
    ]
)
# Some of the units are units still: the gates of a recurrent cell, the halves of a gated product, their concatenation.
_PARTS = frozenset(
    ["split", "unsafe_split", "split_with_sizes", "unsafe_split_with_sizes", "chunk", "slice", "narrow", "cat", "index_select"]
)
_UNITS_LOST = frozenset(
    ["sum", "mean", "amax", "amin", "max", "min", "_softmax", "_log_softmax", "var", "std", "norm", "linalg_vector_norm"]
)


def unit_dim(
    name: str, shape: Sequence[int], inputs: Sequence[tuple[Sequence[int], int | None]], attributes: Mapping[str, Any]
) -> int | None:
    """The unit dimension of an op's output, None when unknown.

    Args:
        name: aten name; shape: of the output.
        inputs: (shape, unit dimension) of each tensor input.
        attributes: arguments that are no tensors, by schema name.
    """
    dims = len(shape)
    if dims < 2:
        return 0 if dims == 1 and inputs and inputs[0][1] is not None and tuple(inputs[0][0]) == tuple(shape) else None
    if name in _LAST:
        return dims - 1
    if name in _SECOND:
        return 1
    known = [(s, d) for s, d in inputs if d is not None]
    if not known:
        return None
    before, dim = known[0]
    if name in ("t", "transpose", "transpose_", "swapaxes"):
        a, b = (attributes.get("dim0", 0) % dims, attributes.get("dim1", 1) % dims)
        return b if dim == a else a if dim == b else dim
    if name == "permute":
        return [d % dims for d in attributes["dims"]].index(dim)
    if name == "unsqueeze":
        return dim + 1 if attributes["dim"] % dims <= dim else dim
    if name in ("select", "squeeze"):
        at = attributes.get("dim")
        at = at % len(before) if isinstance(at, int) else None
        return None if at is None or at == dim else dim - 1 if at < dim and dims < len(before) else dim
    if name == "unbind":
        at = attributes.get("dim", 0) % len(before)
        return None if at == dim else dim - 1 if at < dim else dim
    if name in _PARTS and len(before) == dims:
        return dim
    if name in ("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten"):
        return _through_view(before, dim, shape)
    same_rank = [(s, d) for s, d in known if len(s) == dims and s[d] == shape[d]]
    if same_rank and (name not in _UNITS_LOST or tuple(same_rank[0][0]) == tuple(shape)):
        return same_rank[0][1]
    return None


def _through_view(before: Sequence[int], dim: int, after: Sequence[int]) -> int | None:
    """Follow a dimension through a reshape: it survives where the sizes before it multiply to the same and it keeps its own.

    When trailing positions are flattened into it ((N, C, H, W) to (N, C·H·W)), every element of the merged one is a unit.
    """
    lead = 1
    for size in before[:dim]:
        lead *= size
    product = 1
    for i, size in enumerate(after):
        if product == lead and size != 1:
            if size == before[dim]:
                return i
            if i == len(after) - 1 and size % before[dim] == 0:
                return i
        product *= size
    return None
