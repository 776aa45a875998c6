"""What torch does not promise to keep: every private name that is used, looked up once, here and nowhere else.

What a torch lacks is in MISSING, one sentence each with what a scan does not see for it; only without what nothing works is
the import an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._pytree import tree_flatten as tree_flatten
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map as tree_map
from torch.utils._pytree import tree_map_only as tree_map_only
from torch.utils._pytree import tree_unflatten as tree_unflatten

SUPPORTED = "torch>=2.6,<2.14"
MISSING: list[str] = []


def _find(name: str, without: str = "") -> Any:
    """The thing of this name below `torch`; None where there is none, and MISSING says what is lost `without` it, if any."""
    found: Any = torch
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None and without:
        MISSING.append(f"torch {torch.__version__} has no torch.{name}, so that {without}; {SUPPORTED} has it")
    return found


undispatched: Callable[[], AbstractContextManager[Any]] = _find("_C._DisableTorchDispatch", "nothing can be measured")
"""A context in which no dispatch mode sees an op: what measures is not measured."""
if undispatched is None:
    raise ImportError(MISSING[-1])

_sequence_number = _find("_C._autograd._get_sequence_nr", "gradients are not attributed to lines")
_running_node = _find("_C._current_autograd_node", "ops of the backward pass are not attributed to lines")
_onednn, _set_onednn = (
    _find(f"_C.{name}_mkldnn_enabled", "the gates of recurrent layers are not seen on the CPU") for name in ("_get", "_set")
)
_kernels = _find("_VF", "the gates of recurrent layers are not seen on a GPU")
_warn_of_loops = _find("_C._functorch._set_vmap_fallback_warning_enabled")
_innermost_mode = _find("utils._python_dispatch._get_current_dispatch_mode", "the lines that made data are not known")
_function_modes, _push_function_mode, _pop_function_mode = (
    _find(f"_C.{name}", "a script that is watched cannot enter modes of its own")
    for name in ("_len_torch_function_stack", "_push_on_torch_function_stack", "_pop_torch_function_stack")
)
_has_kernel = _find("_C._dispatch_has_kernel_for_dispatch_key", "what a device runs as several kernels rounds only once")
_composed = _find("_C.DispatchKey.CompositeExplicitAutograd")
_graph_task = _find("_C._current_graph_task_id")
_modes = [
    _find(f"_C.{name}", "the loss of a watched training is not seen")
    for name in (
        "_len_torch_function_stack",
        "_get_function_stack_at",
        "_pop_torch_function_stack",
        "_push_on_torch_function_stack",
    )
]
_scale, _norms = _find("_foreach_mul_"), _find("_foreach_norm")


def last_node() -> int:
    """The number of the autograd node that was made last in this thread; no node's where that cannot be asked."""
    return int(_sequence_number()) - 1 if _sequence_number is not None else -2


def running_node() -> int | None:
    """The number of the autograd node that runs now; None outside of a backward pass."""
    node = _running_node() if _running_node is not None else None
    return number_of(node) if node is not None else None


def in_backward() -> bool:
    """Whether a backward pass is running in this thread: activation checkpointing runs forwards again in it."""
    return _graph_task is not None and _graph_task() != -1


def leave_function_mode(mode: Any) -> bool:
    """Take the innermost mode for functions of torch off, if it is this one; whether it was."""
    if None in _modes:
        return False
    length, at, pop, _ = _modes
    if not length() or at(length() - 1) is not mode:
        return False
    pop()
    return True


def enter_function_mode(mode: Any) -> None:
    """Put it back after `leave_function_mode` returned True."""
    _modes[3](mode)


def times_written(tensor: Tensor) -> int:
    """How often a tensor was written in place; 0 where torch does not count."""
    return 0 if tensor.is_inference() else int(tensor._version)


def number_of(node: Any) -> int:
    """The number of an autograd node, counted up as nodes are made; no node's where it has none."""
    number = getattr(node, "_sequence_nr", None)
    return int(number()) if number is not None else -2


def composed(func: Any) -> bool:
    """Whether an overload is implemented by other operators on every device instead of by a kernel for each."""
    if _has_kernel is None or _composed is None:
        return False
    name = func.name()
    return bool(_has_kernel(name, _composed.name)) and not any(_has_kernel(name, device) for device in ("CPU", "CUDA"))


def run_parts(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run a composed overload such that a dispatch mode that is entered sees the operators that it is composed of."""
    return func._op_dk(_composed, *args, **kwargs)


@contextmanager
def without_onednn() -> Iterator[None]:
    """Leave oneDNN out on the CPU while the context lasts, so that recurrent layers run op by op."""
    if _onednn is None or _set_onednn is None:
        yield
        return
    before = _onednn()
    _set_onednn(False)
    try:
        yield
    finally:
        _set_onednn(before)


@contextmanager
def kernels_replaced(instead: Callable[[str, Callable[..., Any]], Callable[..., Any]], names: list[str]) -> Iterator[None]:
    """Let `torch.nn` call `instead(name, kernel)` in place of the fused kernels of these names while the context lasts."""
    if _kernels is None:
        yield
        return
    # The module hands all names on to a class of C functions, so most are no attributes of its own.
    fused = {name: instead(name, getattr(_kernels, name)) for name in names if hasattr(_kernels, name)}
    with replaced(_kernels, **fused):
        yield


@cache
def decompositions() -> ModuleType | None:
    """torch's own decompositions of fused ops, None where there are none. Importing them takes time that the CPU can save."""
    try:
        return import_module("torch._decomp.decompositions")
    except ImportError:
        _find("_decomp.decompositions", "the gates of recurrent layers are not seen on a GPU")
        return None


@contextmanager
def replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Give an object (or a module) other attributes while the context lasts; those it did not have are gone afterwards."""
    before = {name: vars(owner)[name] for name in values if name in vars(owner)}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name in values:
            if name in before:
                setattr(owner, name, before[name])
            else:
                delattr(owner, name)


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Let `torch.amp.GradScaler` be made as if there were a GPU: without one it switches itself off."""
    from torch.cuda.amp import common

    with replaced(common, amp_definitely_not_available=lambda: False):
        yield


def is_innermost(mode: TorchDispatchMode) -> bool:
    """Whether no other dispatch mode was entered since this one, so that it can be left."""
    return _innermost_mode is not None and _innermost_mode() is mode


def leave(mode: Any) -> None:
    """Take a function mode off torch's stack wherever in it it is: others may have been entered since."""
    if _pop_function_mode is None or _push_function_mode is None or _function_modes is None:
        return
    above = []
    while _function_modes() > 0:
        top = _pop_function_mode()
        if top is mode:
            break
        above.append(top)
    for other in reversed(above):
        _push_function_mode(other)


def loops_unannounced() -> None:
    """Keep torch from warning that `vmap` runs an op lane by lane."""
    if _warn_of_loops is not None:
        _warn_of_loops(False)


def scale_(tensors: list[Tensor], factor: float) -> None:
    """Multiply tensors in place, all at once."""
    if _scale is not None:
        _scale(tensors, factor)
        return
    for tensor in tensors:
        tensor.mul_(factor)


def norms(tensors: list[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    """The L2 norms of tensors, accumulated in `dtype`."""
    if _norms is not None:
        return list(_norms(tensors, 2, dtype))
    return [torch.linalg.vector_norm(tensor, 2, dtype=dtype) for tensor in tensors]
