"""Lightning: `Trainer(callbacks=[stabdiag.integrations.lightning.Watch(every=200)])`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from stabdiag.integrations.loggers import log_to
from stabdiag.live.watch import Watcher, watch

try:
    from lightning.pytorch.callbacks import Callback
except ImportError:
    from pytorch_lightning.callbacks import Callback  # type: ignore[assignment]


class Watch(Callback):  # type: ignore[misc, unused-ignore]
    """Watches `trainer.fit`. Takes the options of `stabdiag.watch`; scalars go to the Trainer's loggers.

    Each batch is a step with its loss seen, and so are several batches whose gradients accumulate.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._step: AbstractContextManager[Watcher] | None = None
        self.watcher: Watcher | None = None

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Begin, once the strategy has made the optimizers."""
        optimizers = [getattr(optimizer, "optimizer", optimizer) for optimizer in trainer.optimizers]
        options = {"directory": f"{trainer.default_root_dir}/stabdiag"} | self._options
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        options.setdefault("log", log_to(*trainer.loggers))
        self.watcher = watch(pl_module, optimizers, scaler, **options)

    def on_train_batch_start(self, trainer: Any, pl_module: nn.Module, batch: Any, batch_idx: int) -> None:
        """A step begins."""
        if self.watcher is not None:
            self._step = self.watcher.step(batch)
            self._step.__enter__()

    def on_train_batch_end(self, trainer: Any, pl_module: nn.Module, outputs: Any, batch: Any, batch_idx: int) -> None:
        """It ended."""
        self._leave(None)

    def on_exception(self, trainer: Any, pl_module: nn.Module, exception: BaseException) -> None:
        """It broke off."""
        self._leave(exception)
        self._close()

    def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
        """The reports are written."""
        self._close()

    def _leave(self, exception: BaseException | None) -> None:
        step, self._step = self._step, None
        if step is None:
            return
        if exception is None:
            step.__exit__(None, None, None)
            return
        try:
            step.__exit__(type(exception), exception, exception.__traceback__)
        except BaseException as raised:
            if raised is not exception:
                raise

    def _close(self) -> None:
        watcher, self.watcher = self.watcher, None
        if watcher is not None:
            with torch.enable_grad():
                watcher.close()
