"""What methods share that begin far from the base dynamics and come to it in steps."""

import jax.numpy as jnp

from poprnn.core.arrays import Array, Bool, Count
from poprnn.core.blueprint import NonNegativeInt, PositiveInt
from poprnn.training.methods.contract import Method


class AnnealedMethod(Method):
    """Base of methods with ``n_increments`` equal changes in the first ``annealing_steps`` training steps.

    n increments make n + 1 values, each held for ``annealing_steps`` / (n + 1) steps; the last is the base dynamics'
    and stays. Defaults: the code released with the paper.
    """

    traced = frozenset({"n_increments", "annealing_steps"})

    n_increments: PositiveInt = 5
    """Changes on the way to the base dynamics (the paper tries 1, 5 and 10)."""
    annealing_steps: NonNegativeInt = 20_000
    """Training steps after which the method has ended; 0: it never begins."""

    def stage(self, n_step: Count | int) -> Array:
        """0 … ``n_increments``: how many of the changes have been made at a training step."""
        made = jnp.asarray(n_step) * (self.n_increments + 1) // jnp.maximum(self.annealing_steps, 1)
        return jnp.minimum(made, self.n_increments)

    def progress(self, n_step: Count | int) -> tuple[Array, Bool[Array, ""]]:
        """Share of the way made, in [0, 1], and whether all of it is."""
        ended = (self.stage(n_step) >= self.n_increments) | (jnp.asarray(n_step) >= self.annealing_steps)
        return jnp.where(ended, 1.0, self.stage(n_step) / self.n_increments), ended
