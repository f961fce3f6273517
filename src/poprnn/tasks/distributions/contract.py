"""What a distribution of vectors is: draws on the device, moments in closed form or from its data."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from poprnn.core.arrays import Array, Bool, Count, Float, PRNGKey, Tree
from poprnn.core.blueprint import Blueprint
from poprnn.core.errors import NotApplicableError


class Distribution(Blueprint):
    """Base of all distributions; one of your own gives the three parts below.

    >>> import jax, jax.numpy as jnp, numpy as np
    >>> class Corners(Distribution):
    ...     n_dimensions: int = 2
    ...     def sample(self, arrays, held_out, *, key):
    ...         return jax.random.bernoulli(key, 0.5, (self.n_dimensions,)).astype(jnp.float32), 0
    ...     def covariance(self):
    ...         return np.eye(self.n_dimensions) / 4
    >>> Corners().spectrum().tolist()
    [0.25, 0.25]
    """

    family = "distributions"
    n_dimensions: ClassVar[int]
    """Length d of a vector (a field or a property)."""
    n_kinds: ClassVar[int] = 1
    """Number of kinds of vectors (patterns of a dictionary, classes of pictures), numbered from 0."""

    def arrays(self) -> Tree:
        """Data that :meth:`sample` draws from, handed to it."""
        return ()

    def sample(
        self, arrays: Tree, held_out: Bool[Array, ""] | bool, *, key: PRNGKey
    ) -> tuple[Float[Array, "input"], Count]:
        """A vector and the number of its kind. ``held_out``: one for evaluation, where data is kept for that."""
        raise NotImplementedError

    def covariance(self) -> Float[np.ndarray, "input input"]:
        """Covariance of the vectors that are trained on."""
        raise NotImplementedError

    def spectrum(self) -> Float[np.ndarray, "input"]:
        """Eigenvalues of the covariance, the largest first."""
        return np.maximum(np.linalg.eigvalsh(self.covariance())[::-1], 0)

    def out_of_distribution(self) -> "Distribution":
        """Vectors that were held out of training."""
        raise NotApplicableError(f"distribution '{self.name()}' holds nothing out")


def kind(number: Count = 0) -> Array:
    """The number of a kind, of one type for all distributions: those of a curriculum take one another's place."""
    return jnp.asarray(number, jnp.int32)
