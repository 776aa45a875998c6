"""transformers: `Trainer(…, callbacks=[stabdiag.integrations.transformers.Watch(every=200)])`."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback

from stabdiag.integrations.loggers import log_to
from stabdiag.live.watch import Watcher, watch


class Watch(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Watches `trainer.train()`. Takes the options of `stabdiag.watch`; scalars go to what `report_to` has started.

    The Trainer's steps are followed by hooks: the loss that a model computes itself is seen; of a loss that `compute_loss`
    computes outside of it, the gradient that comes back to the model is.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self.watcher: Watcher | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin, once the Trainer has made its optimizer."""
        optimizer, model = kwargs.get("optimizer"), kwargs.get("model")
        if optimizer is None or model is None:
            return
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        options = {"directory": f"{args.output_dir}/stabdiag"} | self._options
        options.setdefault("log", log_to())
        self.watcher = watch(model, inner, getattr(optimizer, "scaler", None), **options)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The reports are written."""
        watcher, self.watcher = self.watcher, None
        if watcher is not None:
            with torch.enable_grad():
                watcher.close()
