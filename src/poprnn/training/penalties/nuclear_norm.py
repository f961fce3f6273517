"""Nuclear norm of weights."""

import jax
import jax.numpy as jnp

from poprnn.core.arrays import Array, Float, Scalar
from poprnn.training.penalties._weights import WeightPenalty


@jax.custom_vjp
def _nuclear_norm(array: Float[Array, "row column"]) -> Scalar:
    return jnp.sum(jnp.linalg.svd(array, compute_uv=False))


def _forward(array: Array) -> tuple[Scalar, Array]:
    u, s, vt = jnp.linalg.svd(array, full_matrices=False)
    # U V^T over the singular values that are not zero: the subgradient of least norm, finite also where singular
    # values coincide (the derivative of the decomposition itself is not)
    used = s > s[0] * max(array.shape) * jnp.finfo(array.dtype).eps
    return jnp.sum(s), (u * used) @ vt


_nuclear_norm.defvjp(_forward, lambda direction, g: (g * direction,))


class NuclearNorm(WeightPenalty):
    """``strength · sum of the singular values of W``, which lowers its rank.

    >>> round(float(NuclearNorm().on_array(jnp.diag(jnp.array([3.0, -1.0])))), 4)
    4.0
    """

    def on_array(self, array: Float[Array, "..."]) -> Scalar:
        """Sum of singular values."""
        return _nuclear_norm(array)
