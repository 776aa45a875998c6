"""Who is measured: each a function from a workload to a `Contender`, or None where its library is not installed.

A contender is a context, entered outside the measured time, that gives the step as it runs under that tool.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from workloads import Workload

from stabdiag.probe.recorder import Recorder
from stabdiag.subject.subject import Inputs, Subject
from stabdiag.trace import SubjectFacts

Step = Callable[[], Any]
Contender = Callable[[], AbstractContextManager[Step]]


def bare(work: Workload) -> Contender:
    return lambda: nullcontext(work.step)


class Nothing(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def empty_mode(work: Workload) -> Contender:
    def step() -> None:
        with Nothing():
            work.step()

    return lambda: nullcontext(step)


class Extremes(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel():
                self.found.append(torch.aminmax(leaf))
        return result


def aminmax(work: Workload) -> Contender:
    def step() -> None:
        with Extremes():
            work.step()

    return lambda: nullcontext(step)


def detect_anomaly(work: Workload) -> Contender:
    def step() -> None:
        with torch.autograd.detect_anomaly(check_nan=True):
            work.step()

    return lambda: nullcontext(step)


def underflow_overflow(work: Workload) -> Contender | None:
    if find_spec("transformers") is None:
        return None
    from transformers.debug_utils import DebugUnderflowOverflow

    watched = Workload(work.name, copy.deepcopy(work.model), work.inputs, work.loss)
    DebugUnderflowOverflow(watched.model)
    return lambda: nullcontext(watched.step)


def attention_by_hand(work: Workload) -> Contender:
    """Bare, but `scaled_dot_product_attention` as the sum of its ops: what recording, which looks inside, runs instead."""

    def step() -> None:
        with sdpa_kernel(SDPBackend.MATH):
            work.step()

    return lambda: nullcontext(step)


def stabdiag(work: Workload) -> Contender:
    """Everything recorded: every op forward and backward, distributions, source lines, parameters and their gradients."""
    facts = SubjectFacts(work.name, work.name, 0, "", "")
    subject = Subject(work.model, lambda batch: Inputs(work.inputs), lambda output, inputs: work.loss(output), facts)
    recorder = Recorder(subject, work.device)

    @contextmanager
    def recording() -> Iterator[Step]:
        with recorder.stage(work.precision) as stage:
            yield lambda: recorder.record(stage)

    return recording


ALL: dict[str, Callable[[Workload], Contender | None]] = {
    "attention op by op": attention_by_hand,
    "empty dispatch mode": empty_mode,
    "aminmax of every op": aminmax,
    "detect_anomaly": detect_anomaly,
    "DebugUnderflowOverflow": underflow_overflow,
    "stabdiag": stabdiag,
}
