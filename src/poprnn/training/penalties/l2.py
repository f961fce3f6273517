"""Squared L2 norm of weights."""

import jax.numpy as jnp

from poprnn.core.arrays import Array, Float, Scalar
from poprnn.training.penalties._weights import WeightPenalty


class L2(WeightPenalty):
    """``strength · sum W_ij²``.

    >>> float(L2().on_array(jnp.array([[1.0, -2.0]])))
    5.0
    """

    def on_array(self, array: Float[Array, "..."]) -> Scalar:
        """Sum of squares."""
        return jnp.sum(array**2)
