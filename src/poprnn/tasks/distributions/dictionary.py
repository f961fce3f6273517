"""A finite dictionary of patterns, some more frequent than others."""

import jax
import jax.numpy as jnp
import numpy as np

from poprnn.core.arrays import Array, Bool, Count, Float, PRNGKey
from poprnn.core.blueprint import NonNegative, NonNegativeInt, PositiveInt
from poprnn.tasks.distributions.contract import Distribution, kind


class Dictionary(Distribution):
    """One of M patterns, drawn with Zipf's probabilities, ``p_i = i^-exponent / sum_j j^-exponent`` for i = 1 … M.

    Patterns are white Gaussian vectors, fixed by ``pattern_seed`` and the same for all members; the kind of a vector is
    i - 1, its place in the order of frequency. Our choices: 16 patterns of 8 channels, exponent 1 (Zipf's law proper).

    Reference: Zipf, Human Behavior and the Principle of Least Effort, 1949.

    >>> Dictionary(n_patterns=3).probabilities().round(3).tolist()
    [0.545, 0.273, 0.182]
    """

    n_dimensions: PositiveInt = 8  # type: ignore[misc]
    """Number d of channels."""
    n_patterns: PositiveInt = 16
    """Number M of patterns."""
    exponent: NonNegative = 1.0
    """0 makes all patterns equally frequent."""
    pattern_seed: NonNegativeInt = 0
    """Of the patterns."""

    static = frozenset({"exponent"})

    @property
    def n_kinds(self) -> int:  # type: ignore[override]
        """A kind for each pattern."""
        return self.n_patterns

    def probabilities(self) -> Float[np.ndarray, "pattern"]:
        """Of the patterns, the most frequent first."""
        weights = np.arange(1.0, self.n_patterns + 1) ** -self.exponent
        return weights / weights.sum()

    def patterns(self) -> Float[np.ndarray, "pattern input"]:
        """All of them."""
        return np.random.default_rng(self.pattern_seed).normal(size=(self.n_patterns, self.n_dimensions))

    def arrays(self) -> dict[str, np.ndarray]:
        """Patterns and the logarithms of their probabilities."""
        logits = np.log(self.probabilities())
        return {"patterns": self.patterns().astype(np.float32), "logits": logits.astype(np.float32)}

    def sample(
        self, arrays: dict[str, Array], held_out: Bool[Array, ""] | bool, *, key: PRNGKey
    ) -> tuple[Float[Array, "input"], Count]:
        """A pattern."""
        place = jax.random.categorical(key, jnp.asarray(arrays["logits"]))
        return jnp.asarray(arrays["patterns"])[place], kind(place)

    def covariance(self) -> Float[np.ndarray, "input input"]:
        """Over draws, not over patterns."""
        return np.cov(self.patterns().T, aweights=self.probabilities(), ddof=0).reshape(2 * [self.n_dimensions])
