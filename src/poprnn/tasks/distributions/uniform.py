"""Uniform vectors."""

import jax
import numpy as np

from poprnn.core.arrays import Array, Bool, Count, Float, PRNGKey
from poprnn.core.blueprint import Finite, PositiveInt
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.distributions.contract import Distribution, kind


class Uniform(Distribution):
    """``x_i ~ U(low, high)``, independent channels. Our choice of the bounds: mean 0, variance 1.

    >>> Uniform(n_dimensions=2, low=0.0, high=1.0).spectrum().round(4).tolist()
    [0.0833, 0.0833]
    """

    n_dimensions: PositiveInt = 8  # type: ignore[misc]
    """Number d of channels; 1 is the uniform scalar."""
    low: Finite = -(3**0.5)
    """Lower bound."""
    high: Finite = 3**0.5
    """Upper bound."""

    static = frozenset({"low", "high"})

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ConfigurationError(f"Uniform: low = {self.low} must be below high = {self.high}")

    def sample(
        self, arrays: tuple[()], held_out: Bool[Array, ""] | bool, *, key: PRNGKey
    ) -> tuple[Float[Array, "input"], Count]:
        """Independent numbers."""
        return jax.random.uniform(key, (self.n_dimensions,), minval=self.low, maxval=self.high), kind()

    def covariance(self) -> Float[np.ndarray, "input input"]:
        """(high - low)² / 12 in every channel."""
        return np.eye(self.n_dimensions) * (self.high - self.low) ** 2 / 12
