"""One line per epoch: what was reached, how long it took, and how long it will take."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

from lightning.pytorch.callbacks import Callback

from mmedge.console import err
from mmedge.errors import CheckError

from ..recipe import Recipe
from ..tasks import KINDS
from .checkpoint import Checkpoint

TASK = "task/"  # how the metrics of tasks are called, so that none is mistaken for a loss
_log = logging.getLogger("mmedge.export")


class Epochs(Callback):
    """Tells of each epoch and keeps its state.

    Args:
        recipe: Tasks and the number of epochs.
        checkpoint: Where the state goes; None: nowhere.
        lines: Print the line on stderr; else it is only logged.
        prefix: Of the line: which seed.
    """

    def __init__(self, recipe: Recipe, checkpoint: Checkpoint | None, *, lines: bool, prefix: str = "") -> None:
        self._recipe, self._checkpoint, self._lines, self._prefix = recipe, checkpoint, lines, prefix
        self._before_s = 0.0 if checkpoint is None else checkpoint.seconds
        self._first: int | None = None
        self._start_s = self._epoch_s = time.monotonic()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to count."""
        self._epoch_s = time.monotonic()
        if self._first is None:
            self._first, self._start_s = trainer.current_epoch, self._epoch_s

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Tell what the epoch gave, and keep its state.

        Raises:
            CheckError: If the loss is no number any more; the state of the epoch before stays.
        """
        for name in ("loss", "validation"):
            if not math.isfinite(float(trainer.callback_metrics.get(name, 0.0))):
                raise CheckError(
                    f"the {name} is not finite after epoch {trainer.current_epoch + 1}: training has diverged",
                    where=self._recipe.at("train"),
                    fix="lower train.learning_rate, and look at mean and std of the inputs and at the targets",
                )
        now_s, done = time.monotonic(), trainer.current_epoch + 1
        spent_s = now_s - self._start_s
        left_s = spent_s / (done - (self._first or 0)) * (self._recipe.train.epochs - done)
        line = f"{self._prefix}epoch {done} of {self._recipe.train.epochs}: {self._figures(trainer.callback_metrics)}"
        line += f", {now_s - self._epoch_s:.1f} s, {_duration(left_s)} left"
        if self._lines:
            err.print(line, highlight=False, soft_wrap=True)
        else:
            _log.info("%s", line)
        if self._checkpoint is not None:
            self._checkpoint.save(trainer, self._before_s + spent_s)

    def _figures(self, metrics: Any) -> str:
        found = [f"{name} {float(metrics[name]):.4f}" for name in ("loss", "validation") if name in metrics]
        for name, task in self._recipe.tasks.items():
            if TASK + name in metrics:
                value = float(metrics[TASK + name])
                found.append(f"{name} {100 * value:.1f} %" if KINDS[task.kind].counted else f"{name} error {value:.4g}")
        return ", ".join(found)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
