"""Success."""

from typing import ClassVar

import jax.numpy as jnp

from poprnn.core.arrays import Array, Bool, Count, Tree
from poprnn.core.blueprint import NonNegative, PositiveInt
from poprnn.training.monitors.contract import Monitor, Observation


class Solved(Monitor):
    """The curriculum's last stage is passed; or, where ``loss`` is given, the loss on fresh trials stays below it.

    >>> Solved(loss=0.05, patience=3).outcome
    'solved'
    """

    outcome: ClassVar[str] = "solved"

    loss: NonNegative | None = None
    """Loss to stay below; ``None``: the curriculum decides."""
    patience: PositiveInt = 1
    """Evaluations in a row for which the condition must hold."""

    def init(self) -> Count:
        """Evaluations in a row so far."""
        return jnp.asarray(0)

    def update(self, state: Tree, observation: Observation) -> tuple[Tree, Bool[Array, ""] | bool]:
        """Count, and compare with the patience."""
        good = observation.finished if self.loss is None else observation.loss < self.loss
        count = jnp.where(good, state + 1, 0)
        return count, count >= self.patience
