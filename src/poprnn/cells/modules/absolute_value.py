"""Theorem 1: fixed sparse weights whose absolute values are stable."""

from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from pydantic import Field

from poprnn.cells.contract import Parameters
from poprnn.cells.modules.contract import Built, Leaf, by_absolute_values, norm_in_metric
from poprnn.core.arrays import Array, Count, Float, PRNGKey, Scalar
from poprnn.core.blueprint import NonNegativeInt, Positive
from poprnn.core.contraction.certificate import Matrix
from poprnn.core.contraction.theorems import absolute_rate, diagonal_metric

SQUARINGS = 12
"""||A^(2^12)||^(1 / 2^12) exceeds the spectral radius of 32 units by less than 0.1 %."""


class AbsoluteValue(Leaf):
    """Random sparse weights, fixed, with ``g|W| - I`` Hurwitz; the metric is theorem 1's closed form diag(y / x).

    ``round(density · n²)`` entries U(-bound, bound) stand off the diagonal. A module is drawn anew until it is Hurwitz;
    after ``n_draws`` draws the last one is scaled instead, as is every one with ``scaled``. The array ``n_draws``
    [module] says how many draws each took, 0 where it was scaled after all of them failed. Arrays, all fixed:
    W [module, to, from], n_draws [module].

    Density and bound must fit one another: for 32 units, 3.3 % at bound 1 takes one draw, 10 % at 1 about 1,200,
    and 26.5 % at 0.4 never ends. Default density: Kozachkov et al., NeurIPS 2022, section 4.2.2 (the best of four);
    the bound, the exact number of entries and the limit on draws are our choices.

    >>> import jax
    >>> module = AbsoluteValue(n_units=8, count=3, density=0.2)
    >>> arrays = module.init(1.0, key=jax.random.key(0)).fixed
    >>> arrays["W"].shape, bool((module.build(arrays, 1.0).rate > 0).all())
    ((3, 8, 8), True)
    """

    cites = ("kozachkov2022",)
    theorem: ClassVar[str | None] = "1"
    is_singular: ClassVar[bool] = True
    static = frozenset({"density"})

    density: Annotated[float, Field(ge=0, le=1)] = 0.033
    """Share of the n² entries that are not zero (at most all off the diagonal)."""
    bound: Positive = 1.0
    """Largest absolute value of an entry as drawn."""
    n_draws: NonNegativeInt = 5000
    """Draws after which a module that is still not Hurwitz is scaled; 0: the first is scaled if need be."""
    radius: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Spectral radius of g|W| that is scaled to (within 0.1 % below)."""
    scaled: bool = False
    """Whether every module is scaled to ``radius``, also those drawn with a smaller one (not those with none: 0)."""

    def init(self, slope: float, *, key: PRNGKey) -> Parameters:
        """Draw until Hurwitz, module by module."""
        W, n_draws = jax.vmap(lambda k: self._draw_until(slope, key=k))(jax.random.split(key, self.count))
        return Parameters({}, {"W": W, "n_draws": n_draws})

    def _draw(self, key: PRNGKey) -> Float[Array, "to from"]:
        n = self.n_units
        places, values = jax.random.split(key)
        order = jnp.where(jnp.eye(n, dtype=bool), 2.0, jax.random.uniform(places, (n, n)))
        n_entries = min(round(self.density * n * n), n * (n - 1))
        last = jnp.sort(order.ravel())[n_entries - 1] if n_entries else -1.0
        return jnp.where(order <= last, jax.random.uniform(values, (n, n), minval=-self.bound, maxval=self.bound), 0.0)

    def _draw_until(self, slope: float, *, key: PRNGKey) -> tuple[Float[Array, "to from"], Count]:
        def draw(i: Count) -> tuple[Count, Array, Array]:
            W = self._draw(jax.random.fold_in(key, i))
            return i + 1, W, diagonal_metric(W, slope).rate > 0

        n_draws, W, good = lax.while_loop(
            lambda c: ~c[2] & (c[0] < self.n_draws), lambda c: draw(c[0]), draw(jnp.int32(0))
        )
        radius = slope * spectral_radius(jnp.abs(W))
        factor = jnp.where(radius > 0, self.radius / jnp.where(radius > 0, radius, 1.0), 1.0)
        return jnp.where(good & (not self.scaled), W, factor * W), jnp.where(good, n_draws, 0)

    def build(self, arrays: dict[str, Any], slope: float) -> Built:
        """The fixed weights in their metric."""
        return by_absolute_values(arrays["W"], slope)

    def verify(self, weights: Matrix, metric: Matrix, slope: float) -> tuple[float, float]:
        """By theorem 1."""
        return absolute_rate(weights, metric, slope), norm_in_metric(weights, metric, slope)


def spectral_radius(matrix: Float[Array, "unit unit"]) -> Scalar:
    """Spectral radius of a matrix without negative entries, from above: ``||A^k||^(1/k)``, k = 4096, Frobenius' norm.

    >>> float(spectral_radius(jnp.array([[0.0, 2.0], [0.5, 0.0]])).round(2))
    1.0
    >>> float(spectral_radius(jnp.array([[0.0, 2.0], [0.0, 0.0]])))
    0.0
    """
    logarithm = jnp.zeros((), matrix.dtype)
    for i in range(SQUARINGS):
        norm = jnp.linalg.norm(matrix)
        matrix = matrix / jnp.where(norm > 0, norm, 1.0)
        logarithm += jnp.where(norm > 0, jnp.log(jnp.where(norm > 0, norm, 1.0)), -jnp.inf) / 2**i
        matrix = matrix @ matrix
    norm = jnp.linalg.norm(matrix)
    return jnp.where(norm > 0, jnp.exp(logarithm) * jnp.where(norm > 0, norm, 1.0) ** (1 / 2**SQUARINGS), 0.0)
