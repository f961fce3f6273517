"""Vectors composed of independent factors, some combinations of which are held out of training."""

import jax
import jax.numpy as jnp
import numpy as np

from poprnn.core.arrays import Array, Bool, Count, Float, PRNGKey
from poprnn.core.blueprint import NonNegativeInt, PositiveInt
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.distributions.contract import Distribution, kind


class Compositional(Distribution):
    """``x = sum_f a_f[v_f] / sqrt(F)``: each of F factors has one of V values, and each value a pattern a_f[v] of its
    own.

    A combination (v_1 … v_F) is held out of training where ``(v_1 + … + v_F) mod V < n_held_out``. So every value of a
    factor is trained with as many combinations of the others as every other value is (and with F > 2 every pair of
    values): what is new about a held-out vector is the combination alone.

    Our choices throughout, as the text only names the question: two factors of 4 values, one in four combinations held
    out; patterns are white Gaussian vectors, fixed by ``pattern_seed`` and shifted so that those of a factor have mean
    0. The kind of a vector is the number of its combination, ``sum_f v_f V^f``.

    >>> inputs = Compositional(n_factors=2, n_values=3)
    >>> inputs.combinations(held_out=True).tolist()
    [[0, 0], [1, 2], [2, 1]]
    """

    n_dimensions: PositiveInt = 8  # type: ignore[misc]
    """Number d of channels."""
    n_factors: PositiveInt = 2
    """Number F of factors."""
    n_values: PositiveInt = 4
    """Number V of values of each."""
    n_held_out: NonNegativeInt = 1
    """How many in V combinations are held out."""
    pattern_seed: NonNegativeInt = 0
    """Of the patterns."""
    held_out_only: bool = False
    """Draw combinations that were held out, instead of those that were not."""

    def __post_init__(self) -> None:
        if self.n_values < 2 or self.n_held_out >= self.n_values:
            raise ConfigurationError(
                f"Compositional: n_held_out = {self.n_held_out}, n_values = {self.n_values}: there must be two values, "
                "and fewer held out"
            )
        if self.held_out_only and not self.n_held_out:
            raise ConfigurationError("Compositional: held_out_only with n_held_out = 0: nothing is held out")

    @property
    def n_kinds(self) -> int:  # type: ignore[override]
        """A kind for each combination."""
        return self.n_values**self.n_factors

    def combinations(self, held_out: bool) -> np.ndarray:
        """``[combination, factor]``: those held out, or those trained."""
        every = np.indices(self.n_factors * [self.n_values]).reshape(self.n_factors, -1).T
        return every[(every.sum(axis=1) % self.n_values < self.n_held_out) == held_out]

    def patterns(self) -> Float[np.ndarray, "factor value input"]:
        """Of every value of every factor."""
        shape = (self.n_factors, self.n_values, self.n_dimensions)
        patterns = np.random.default_rng(self.pattern_seed).normal(size=shape)
        return patterns - patterns.mean(axis=1, keepdims=True)

    def arrays(self) -> dict[str, np.ndarray]:
        """The patterns."""
        return {"patterns": self.patterns().astype(np.float32)}

    def sample(
        self, arrays: dict[str, Array], held_out: Bool[Array, ""] | bool, *, key: PRNGKey
    ) -> tuple[Float[Array, "input"], Count]:
        """All values but the last are free; the last makes the sum what it has to be."""
        keys = jax.random.split(key)
        values = jax.random.randint(keys[0], (self.n_factors,), 0, self.n_values)
        bounds = (0, self.n_held_out) if self.held_out_only else (self.n_held_out, self.n_values)
        remainder = jax.random.randint(keys[1], (), *bounds)
        values = values.at[-1].set((remainder - jnp.sum(values[:-1])) % self.n_values)
        x = jnp.sum(jnp.asarray(arrays["patterns"])[jnp.arange(self.n_factors), values], axis=0)
        return x / self.n_factors**0.5, kind(jnp.sum(values * self.n_values ** jnp.arange(self.n_factors)))

    def covariance(self) -> Float[np.ndarray, "input input"]:
        """Of the combinations that are drawn."""
        values, patterns = self.combinations(self.held_out_only), self.patterns()
        x = patterns[np.arange(self.n_factors), values].sum(axis=1) / self.n_factors**0.5
        return np.cov(x.T, ddof=0).reshape(2 * [self.n_dimensions])

    def out_of_distribution(self) -> "Compositional":
        """The combinations that were held out."""
        return self.substitute({"held_out_only": True}) if self.n_held_out else super().out_of_distribution()  # type: ignore[return-value]
