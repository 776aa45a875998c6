"""One input tensor in words: shape, dtype and values; written as `ids=4x128:int64<1000` on the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch

from stabdiag.subject.subject import SubjectError

SAMPLES = 2
"""Samples in a trial forward: few, and unlike other sizes, so that a size in an error message tells its dimension."""

TOKENS, STEPS, IMAGE, VOLUME, SIGNAL, NODES = 24, 24, 32, 32, 128, 22
"""Sizes of trial inputs that nothing fixes: ids and time steps per sample, sides, samples of a waveform, nodes of a graph."""

_FORM = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d+(?:[x×]\d+)*)?(?::(?P<dtype>\w+))?(?:<(?P<high>\d+))?")
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.int32,
        torch.int64,
        torch.uint8,
        torch.bool,
    )
} | {"int": torch.int64, "long": torch.int64, "float": torch.float32, "double": torch.float64}


@dataclass(frozen=True)
class Specification:
    """What one argument of forward is filled with.

    Attributes:
        name: the argument's; "" for the next positional one; `batch[image]` for the entry of a dict.
        shape: sizes; `batch` is the dimension that counts samples, None when there is none (graphs).
        dtype: of the tensor.
        values: "normal" (standard normal), "integers" (uniform below `high`), "labels" (each class equally often),
            "ones" and "zeros" (masks), "lengths" (all equal to `high`), "adjacency" (a ring with self-loops, normalised),
            "steps" (spread evenly over 0 … high-1), "none", "number" (the Python number `high`), "pair" (a tuple of two
            normal tensors), "batched" (the number of samples), "mapping" (an empty dict).
        high: see `values`.
        why: the reason, for the report.
    """

    name: str
    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32
    values: str = "normal"
    high: int = 0
    batch: int | None = 0
    why: str = ""

    def sample(self, generator: torch.Generator) -> Any:
        """Draw the argument from a seeded CPU generator."""
        if self.values == "none":
            return None
        if self.values == "mapping":
            return {}
        if self.values == "number":
            return self.high
        if self.values == "pair":
            return (torch.randn(self.shape, generator=generator), torch.randn(self.shape, generator=generator))
        if self.values == "integers":
            return torch.randint(0, max(1, self.high), self.shape, generator=generator).to(self.dtype)
        if self.values == "labels":
            return balanced(self.shape, self.high, generator).to(self.dtype)
        if self.values == "ones":
            return torch.ones(self.shape, dtype=self.dtype)
        if self.values == "lengths":
            return torch.full(self.shape, self.high, dtype=self.dtype)
        if self.values == "steps":
            count = int(torch.Size(self.shape).numel())
            return (torch.arange(count) * max(1, self.high - 1) // max(1, count - 1)).reshape(self.shape).to(self.dtype)
        if self.values == "zeros":
            return torch.zeros(self.shape, dtype=self.dtype)
        if self.values == "adjacency" and len(self.shape) > 1 and self.shape[-1] == self.shape[-2]:
            nodes = self.shape[-1]
            ring = torch.eye(nodes) + torch.eye(nodes).roll(1, 0) + torch.eye(nodes).roll(-1, 0)
            return (ring / ring.sum(-1, keepdim=True)).expand(self.shape).to(self.dtype).clone()
        return torch.randn(self.shape, generator=generator).to(self.dtype)

    def resized(self, samples: int) -> Specification:
        """The same with another number of samples."""
        if self.batch is None or not self.shape:
            return self
        shape = (*self.shape[: self.batch], samples, *self.shape[self.batch + 1 :])
        return Specification(self.name, shape, self.dtype, self.values, self.high, self.batch, self.why)

    def __str__(self) -> str:
        if self.values in ("none", "number"):
            return f"{self.name}={None if self.values == 'none' else self.high}"
        dtype = str(self.dtype).removeprefix("torch.")
        below = f"<{self.high}" if self.values in ("integers", "labels") else ""
        kind = "" if dtype == "float32" else f":{dtype}{below}"
        return f"{self.name or 'input'} {'×'.join(map(str, self.shape)) or 'scalar'}{kind}"


def balanced(shape: tuple[int, ...], classes: int, generator: torch.Generator) -> torch.Tensor:
    """Class indices of the given shape in which every class occurs equally often (up to one), in seeded order."""
    count = int(torch.Size(shape).numel())
    return (torch.arange(count) % classes)[torch.randperm(count, generator=generator)].reshape(shape)


def parse(text: str) -> Specification:
    """Read one `--input`.

    Raises:
        SubjectError: kind "usage", when it is not of the form [name=]AxBxC[:dtype][<high].
    """
    match = _FORM.fullmatch(text.strip())
    expected = "expected [name=]AxBxC[:dtype][<high], for example 8x3x32x32 or ids=4x128:int64<1000"
    if match is None or not match["shape"]:
        raise SubjectError(f"--input {text} cannot be read; {expected}.", "usage")
    name = match["dtype"] or ("int64" if match["high"] else "float32")
    if name not in _DTYPES:
        raise SubjectError(f"--input {text}: unknown dtype {name}; expected one of {', '.join(sorted(_DTYPES))}.", "usage")
    dtype, shape = _DTYPES[name], tuple(int(n) for n in re.split("[x×]", match["shape"]))
    if 0 in shape:
        raise SubjectError(f"--input {text} has a dimension of size 0; {expected}.", "usage")
    if dtype == torch.bool:
        return Specification(match["name"] or "", shape, dtype, "ones", why="--input")
    whole = not dtype.is_floating_point
    if match["high"] and (not whole or int(match["high"]) < 1):
        raise SubjectError(f"--input {text}: `<high` needs an integer dtype and a bound of at least 1; {expected}.", "usage")
    high = int(match["high"] or 2) if whole else 0
    return Specification(match["name"] or "", shape, dtype, "integers" if whole else "normal", high, why="--input")
