"""Stages that follow one another by the clock: continual training while the task changes."""

from typing import NamedTuple

import jax.numpy as jnp

from poprnn.core.arrays import Array, Bool, Count, Float
from poprnn.core.blueprint import PositiveInt, Tuple
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Task
from poprnn.training.curricula.contract import Curriculum


class Clock(NamedTuple):
    """A member's place, and how long it has been trained."""

    index: Count  # type: ignore[assignment]
    """Stages passed."""
    finished: Bool[Array, ""]
    """Never: training ends with its budget."""
    n_epochs: Count
    """Evaluations so far."""


class Shifts(Curriculum):
    """All heads are trained; after ``epochs[i]`` epochs stage i + 1 begins, however well stage i was learnt.

    What a stage is, the task says: ``static_vectors`` has a distribution of inputs for each. The threshold that other
    curricula wait for plays no part.

    >>> from poprnn.tasks import StaticVectors
    >>> curriculum = Shifts(epochs=[2])
    >>> place, stages = curriculum.init(StaticVectors()), []
    >>> for _ in range(4):
    ...     stages.append(int(place.index))
    ...     place = curriculum.update(StaticVectors(), place, {})
    >>> stages
    [0, 0, 1, 1]
    """

    epochs: Tuple[PositiveInt] = (10,)
    """Epochs after which the stages but the first begin, in order (our choice: one shift, after 10)."""

    def __post_init__(self) -> None:
        if not self.epochs or list(self.epochs) != sorted(set(self.epochs)):
            raise ConfigurationError(
                f"Shifts: epochs = {self.epochs}: must be one or more numbers, each above the last"
            )

    def n_stages(self, task: Task) -> int:
        """One more than there are shifts."""
        return len(self.epochs) + 1

    def init(self, task: Task) -> Clock:
        """At the first."""
        return Clock(jnp.asarray(0), jnp.asarray(False), jnp.asarray(0))

    def update(self, task: Task, progress: Clock, scores: dict[str, Float[Array, "..."]]) -> Clock:
        """An epoch later."""
        n_epochs = progress.n_epochs + 1
        return Clock(jnp.sum(n_epochs >= jnp.asarray(self.epochs)), progress.finished, n_epochs)
