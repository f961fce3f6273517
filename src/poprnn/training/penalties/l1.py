"""L1 norm of weights."""

import jax.numpy as jnp

from poprnn.core.arrays import Array, Float, Scalar
from poprnn.training.penalties._weights import WeightPenalty


class L1(WeightPenalty):
    """``strength · sum |W_ij|``, which makes weights sparse.

    >>> float(L1().on_array(jnp.array([[1.0, -2.0]])))
    3.0
    """

    def on_array(self, array: Float[Array, "..."]) -> Scalar:
        """Sum of absolute values."""
        return jnp.sum(jnp.abs(array))
