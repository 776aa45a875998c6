"""Scalars of sampled steps to whatever logger is there: told by what it can do, never imported for its own sake.

Names: `stabdiag/headroom/blocks.11.attn` and so on, see `stabdiag.live.trends.MEASURES`; `stabdiag/findings/dead-relu` counts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

PREFIX = "stabdiag/"


def log_to(*loggers: Any) -> Callable[[int, dict[str, float]], None]:
    """The `log` of `stabdiag.watch` that writes to these loggers.

    Args:
        loggers: TensorBoard's SummaryWriter (`add_scalar`), Lightning's (`log_metrics`), a W&B run (`log`), or a function of
            the step and its scalars. Without any: the W&B run and the MLflow run that this process has started, if it has.

    Raises:
        TypeError: a logger that can do none of that.
    """
    for logger in loggers:
        _writer(logger)

    def log(step: int, scalars: dict[str, float]) -> None:
        named = {PREFIX + name: value for name, value in scalars.items()}
        for logger in loggers or _running():
            _writer(logger)(step, named)

    return log


def _writer(logger: Any) -> Callable[[int, dict[str, float]], Any]:
    if hasattr(logger, "add_scalar"):
        return lambda step, scalars: [logger.add_scalar(name, value, step) for name, value in scalars.items()]
    if hasattr(logger, "log_metrics"):  # Lightning's loggers, and the mlflow module
        return lambda step, scalars: logger.log_metrics(scalars, step=step)
    if hasattr(logger, "log"):
        # W&B's own step counts calls: ours is one more column, so that it never runs backwards for the author.
        return lambda step, scalars: logger.log(scalars | {PREFIX + "step": step}, commit=False)
    if callable(logger):
        return logger  # type: ignore[no-any-return]
    raise TypeError(f"a {type(logger).__name__} is no logger: expected add_scalar, log_metrics, log, or a function")


def _running() -> list[Any]:
    """What has been started in this process, looked up at each step: a run may start after the training does."""
    found: list[Any] = []
    wandb, mlflow = sys.modules.get("wandb"), sys.modules.get("mlflow")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        found.append(wandb.run)
    if mlflow is not None and mlflow.active_run() is not None:
        found.append(mlflow)
    return found
