"""What a curriculum is: the order in which a member meets the heads (or distributions) of its task."""

from typing import ClassVar, NamedTuple

import jax.numpy as jnp

from poprnn.core.arrays import Array, Bool, Count, Float
from poprnn.core.blueprint import Blueprint, Fraction
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Stage, Task


class Progress(NamedTuple):
    """A member's place in its curriculum."""

    index: Count  # type: ignore[assignment]
    """Stages passed."""
    finished: Bool[Array, ""]
    """Whether the last stage has been passed."""


class Curriculum(Blueprint):
    """Base of all curricula: stages in a row, each with its active heads; every member moves at its own pace.

    A stage is passed when both the mean score over the active heads and that of the newest head exceed
    ``threshold``. The optimiser is not reset. Subclasses say how many stages there are and which heads are active;
    those with other rules override :meth:`init`, :meth:`update` and :meth:`stage`.
    """

    family = "curricula"
    shared_readout: ClassVar[bool] = False
    """Whether all heads are answered by the readout of head 0."""

    threshold: Fraction = 0.98
    """Score to be exceeded (Khajehabdollahi et al., ICLR 2024: accuracy 98 %)."""

    def check(self, task: Task) -> None:
        """Raise ``ConfigurationError`` if the task cannot be taught this way."""
        del task

    def require_heads(self, task: Task) -> None:
        """For curricula that make no sense with a single head."""
        if task.n_heads < 2:
            raise ConfigurationError(
                f"curriculum '{self.name()}' needs a task with several heads; '{task.name()}' has one"
            )

    def n_stages(self, task: Task) -> int:
        """Number of stages."""
        del task
        return 1

    def heads(self, task: Task, index: Count) -> tuple[Bool[Array, "head"], Count]:
        """Active heads of stage ``index`` and the newest among them. Default: all, newest the last."""
        del index
        return jnp.ones(task.n_heads, bool), jnp.asarray(task.n_heads - 1)

    def init(self, task: Task) -> Progress:
        """A member's place at the start."""
        del task
        return Progress(jnp.asarray(0), jnp.asarray(False))

    def stage(self, task: Task, progress: Progress) -> Stage:
        """What the task is told when it draws a batch."""
        active, newest = self.heads(task, progress.index)
        return Stage(active, newest, progress.index, self.shared_readout)

    def update(self, task: Task, progress: Progress, scores: dict[str, Float[Array, "..."]]) -> Progress:
        """The place after an evaluation whose mean scores are given."""
        stage = self.stage(task, progress)
        score = jnp.broadcast_to(jnp.ravel(scores[task.score]), (task.n_heads,))
        mean = jnp.sum(jnp.where(stage.active, score, 0.0)) / jnp.sum(stage.active)
        passed = (mean > self.threshold) & (score[stage.newest] > self.threshold)
        last = self.n_stages(task) - 1
        return Progress(
            jnp.minimum(progress.index + passed, last), progress.finished | (passed & (progress.index >= last))
        )


def up_to(task: Task, newest: Count, oldest: Count | int = 0) -> Bool[Array, "head"]:
    """Heads from ``oldest`` to ``newest``."""
    heads = jnp.arange(task.n_heads)
    return (heads >= oldest) & (heads <= newest)
