"""Early stopping."""

from typing import ClassVar

import jax.numpy as jnp

from poprnn.core.arrays import Array, Bool, Tree
from poprnn.core.blueprint import NonNegative, PositiveInt
from poprnn.training.monitors.contract import Monitor, Observation


class EarlyStopping(Monitor):
    """The loss on fresh trials has not fallen by more than ``min_change`` below its best for ``patience`` evaluations.

    The best moves only when it is beaten by that much, so that a slow but steady fall counts as improvement.

    >>> EarlyStopping(patience=5).outcome
    'stopped_early'
    """

    outcome: ClassVar[str] = "stopped_early"

    patience: PositiveInt = 10
    """Evaluations without improvement that end a member."""
    min_change: NonNegative = 0.0
    """Fall of the loss that counts as improvement."""

    def init(self) -> Tree:
        """Best loss so far, and evaluations since."""
        return jnp.asarray(jnp.inf, jnp.float32), jnp.asarray(0)

    def update(self, state: Tree, observation: Observation) -> tuple[Tree, Bool[Array, ""] | bool]:
        """Compare with the best."""
        best, since = state
        better = observation.loss < best - self.min_change
        since = jnp.where(better, 0, since + 1)
        return (jnp.where(better, observation.loss, best), since), since >= self.patience
