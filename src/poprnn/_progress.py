"""Progress on a terminal; silence elsewhere."""

import sys
from typing import Any, Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from poprnn.training.trainer import Update


class Watcher:
    """Called with every update of a training; draws one bar a training."""

    def __init__(self, show: bool | None = None) -> None:
        self.console = Console(stderr=True)
        self.shown = sys.stderr.isatty() if show is None else show
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20 if self.console.width > 100 else 6),  # everything must fit 80 columns
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.shown,
        )
        self._bar: Any = None
        self._title = "training"

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self.progress.stop()

    def say(self, text: str) -> None:
        """Name what comes next; on a terminal the line also stays."""
        self._close()
        self._title = text

    def _close(self) -> None:
        if self._bar is not None:
            self.progress.update(self._bar, refresh=True)
            self.progress.stop_task(self._bar)
            self._bar = None

    def __call__(self, update: Update) -> None:
        if not self.shown:
            return
        if self._bar is None:
            self._bar = self.progress.add_task(self._title, total=update.n_epochs, note="")
        losses = update.training_loss[np.isfinite(update.training_loss)]
        note = f"loss {np.median(losses):.3g}" if losses.size else ""
        if update.evaluated and "newest" in update.record:
            stages = update.record["newest"][update.record["newest"] >= 0]
            if stages.size and stages.max() > 0:
                note += f", head {int(np.median(stages)) + 1}"
        note += f", {int(update.active.sum())} of {update.active.size} on"
        steps = update.n_steps / max(update.n_steps_per_epoch, 1)
        self.progress.update(self._bar, completed=round(steps, 2) if not update.evaluated else update.epoch, note=note)
