"""Vectors of -1 and +1."""

import jax
import numpy as np

from poprnn.core.arrays import Array, Bool, Count, Float, PRNGKey
from poprnn.core.blueprint import PositiveInt
from poprnn.tasks.distributions.contract import Distribution, kind


class Signs(Distribution):
    """``x_i = -1 or +1``, equally likely and independent.

    >>> import jax
    >>> abs(Signs(n_dimensions=3).sample((), False, key=jax.random.key(0))[0]).tolist()
    [1.0, 1.0, 1.0]
    """

    n_dimensions: PositiveInt = 8  # type: ignore[misc]
    """Number d of channels."""

    def sample(
        self, arrays: tuple[()], held_out: Bool[Array, ""] | bool, *, key: PRNGKey
    ) -> tuple[Float[Array, "input"], Count]:
        """Independent signs."""
        return jax.random.rademacher(key, (self.n_dimensions,), float), kind()

    def covariance(self) -> Float[np.ndarray, "input input"]:
        """The identity."""
        return np.eye(self.n_dimensions)
