"""Gaussian vectors, white or coloured."""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from poprnn.core.arrays import Array, Bool, Count, Float, PRNGKey
from poprnn.core.blueprint import PositiveInt, Tuple
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.distributions.contract import Distribution, kind


class Gaussian(Distribution):
    """``x_i ~ N(0, variance_i)``, independent channels: white noise, or coloured by the variances that are given.

    Our choices: channels are the principal axes (dense weights do not see a rotation), so that another order of the
    same variances is another distribution of the same spectrum; there are 8.

    >>> import jax
    >>> Gaussian(n_dimensions=3).sample((), False, key=jax.random.key(0))[0].shape
    (3,)
    >>> Gaussian(n_dimensions=2, variances=[1.0, 4.0]).spectrum().tolist()
    [4.0, 1.0]
    """

    n_dimensions: PositiveInt = 8  # type: ignore[misc]
    """Number d of channels."""
    variances: Tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None
    """Of each channel; ``None``: 1."""

    def __post_init__(self) -> None:
        if self.variances is None:
            return
        if len(self.variances) != self.n_dimensions or not any(self.variances):
            raise ConfigurationError(
                f"Gaussian: variances = {self.variances}: must be {self.n_dimensions} numbers, one for each channel "
                "and not all 0"
            )

    def _variances(self) -> np.ndarray:
        return np.ones(self.n_dimensions) if self.variances is None else np.array(self.variances)

    def sample(
        self, arrays: tuple[()], held_out: Bool[Array, ""] | bool, *, key: PRNGKey
    ) -> tuple[Float[Array, "input"], Count]:
        """Noise, scaled."""
        noise = jax.random.normal(key, (self.n_dimensions,))
        return noise * jnp.asarray(np.sqrt(self._variances()), noise.dtype), kind()

    def covariance(self) -> Float[np.ndarray, "input input"]:
        """Diagonal."""
        return np.diag(self._variances())
