"""Penalty on the units' activity."""

from typing import Literal

import jax.numpy as jnp

from poprnn.core.arrays import Array, Float, Scalar
from poprnn.training.penalties.contract import Penalty


class Activity(Penalty):
    """``strength ·`` mean over steps, trials and units of ``|h|`` (``power = 1``) or ``h²`` (``power = 2``).

    >>> float(Activity(power=1).on_activity(jnp.array([1.0, -3.0])))
    2.0
    """

    power: Literal[1, 2] = 2
    """1: absolute values, 2: squares."""

    def on_activity(self, activity: Float[Array, "unit"]) -> Scalar:
        """Mean over units."""
        each = jnp.abs(activity) if self.power == 1 else activity**2
        # a product: XLA's sums over a short last axis take ten times as long on CPUs
        return each @ jnp.full(each.shape, 1 / each.size, each.dtype)
