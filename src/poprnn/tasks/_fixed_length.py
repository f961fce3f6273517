"""What tasks share whose trials all last equally long."""

import dataclasses
from typing import Any, Self

import jax

from poprnn.core.arrays import PRNGKey
from poprnn.core.blueprint import PositiveInt
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Setting, Stage, Task


class FixedLength(Task):
    """Base of tasks whose trials last ``n_steps``; twice as long is outside of what is trained on."""

    traced = frozenset({"n_steps"})

    n_steps: PositiveInt = 100
    """Steps of a trial."""
    max_steps: PositiveInt | None = None
    """Steps there is room for, so that members with different ``n_steps`` share one program; ``None``: no more than a
    trial has."""

    def __post_init__(self) -> None:
        if self.max_steps is not None and self.max_steps < self.length:
            raise ConfigurationError(
                f"{type(self).__name__}: max_steps = {self.max_steps}: must be at least the {self.length} of a trial"
            )

    @property
    def length(self) -> int:
        """Steps of a trial; what a batch is told."""
        return self.n_steps

    @property
    def capacity(self) -> int:  # type: ignore[override]
        """Steps there is room for."""
        if self.max_steps is not None:
            return self.max_steps
        if isinstance(self.length, jax.Array):
            raise ConfigurationError(
                f"{type(self).__name__}: trials last differently long in different members: give max_steps, "
                "the longest of them"
            )
        return self.length

    def draw(self, stage: Stage, *, key: PRNGKey) -> Setting:
        """All trials are equally long."""
        del stage, key
        return Setting(self.length)

    def out_of_distribution(self) -> Self:
        """Trials of twice the length, with the room that takes."""
        return self.stretched(n_steps=2 * self.n_steps)

    def stretched(self, **options: Any) -> Self:
        """This task with options that make its trials longer, and the room that takes."""
        long: Self = dataclasses.replace(self, **{"max_steps": None, **options})  # type: ignore[type-var]
        if self.max_steps is None:
            return long
        return dataclasses.replace(long, max_steps=max(self.max_steps, long.length))  # type: ignore[type-var]
