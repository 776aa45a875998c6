"""What only torch's private interface tells: how an operator is composed of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

_COMPOSED = "CompositeExplicitAutograd"


def composed(func: Any) -> bool:
    """Whether an overload is implemented by other operators on every device instead of by a kernel for each."""
    kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return bool(kernel(func.name(), _COMPOSED)) and not kernel(func.name(), "CPU") and not kernel(func.name(), "CUDA")


def run_parts(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run a composed overload such that a dispatch mode that is entered sees the operators that it is composed of."""
    return func._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *args, **kwargs)
