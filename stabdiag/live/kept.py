"""The weights before an unusual update, kept in a file until the next step has gone well: memory is the author's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class KeptWeights:
    """Parameters of a model in one file, in the order of their names."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._index: list[tuple[str, torch.dtype, torch.Size]] = []

    def keep(self, model: nn.Module) -> None:
        """Write them."""
        self._index = []
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("wb") as file, torch.no_grad():
            for name, parameter in model.named_parameters():
                words = parameter.detach().contiguous().view(-1).view(_WORDS[parameter.element_size()])
                words.cpu().numpy().tofile(file)
                self._index.append((name, parameter.dtype, parameter.shape))

    def read(self) -> dict[str, Tensor] | None:
        """What was kept, by name; None when nothing is."""
        if not self._index:
            return None
        found: dict[str, Tensor] = {}
        offset = 0
        for name, dtype, shape in self._index:
            size = dtype.itemsize * shape.numel()
            raw = np.fromfile(self._path, dtype=np.int8, count=size, offset=offset)
            found[name] = torch.from_numpy(raw).view(dtype).view(shape) if size else torch.empty(shape, dtype=dtype)
            offset += size
        return found

    def drop(self) -> None:
        """They are of no use any more; the file stays for the next ones."""
        self._index = []

    def forget(self) -> None:
        """Remove the file."""
        self._index = []
        self._path.unlink(missing_ok=True)
