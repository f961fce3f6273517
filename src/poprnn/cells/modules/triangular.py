"""Theorem 4: triangular weights."""

from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
from pydantic import Field

from poprnn.cells.contract import Parameters
from poprnn.cells.modules.contract import Built, Leaf, by_absolute_values, from_triangle, norm_in_metric
from poprnn.core.arrays import PRNGKey
from poprnn.core.blueprint import NonNegative, Positive
from poprnn.core.contraction.certificate import Matrix
from poprnn.core.contraction.theorems import absolute_rate


class Triangular(Leaf):
    """Trained lower triangular weights, ``W_ii = (1 - slack) / g - d_i²``, ``W_ij = bound · tanh(R_ij / bound)`` below.

    ``gW - I`` is Hurwitz whatever d and R; the metric is theorem 1's closed form. A chain of n units each of which
    passes on more than it gets amplifies exponentially in n, and every metric of it must span as many orders of
    magnitude; the bound keeps that within the range of float32. Arrays, trained: R [module, n (n-1) / 2], row by row,
    starting from N(0, gain² / n), and d [module, unit], from U(0.5, 1.5). Kozachkov, Ennis & Slotine, NeurIPS 2022,
    theorem 4; parameterisation and defaults are our choices.

    >>> import jax
    >>> module = Triangular(n_units=4)
    >>> bool((module.build(module.init(1.0, key=jax.random.key(0)).trainable, 1.0).rate > 0).all())
    True
    """

    cites = ("kozachkov2022",)
    theorem: ClassVar[str | None] = "4"

    slack: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """How far g W_ii stays below 1."""
    bound: Positive = 1.0
    """Largest absolute value below the diagonal."""
    gain: NonNegative = 1.0
    """Scale of R at the start."""

    def init(self, slope: float, *, key: PRNGKey) -> Parameters:
        """Random below the diagonal."""
        below, diagonal = jax.random.split(key)
        n = self.n_units
        R = self.gain * jax.random.normal(below, (self.count, n * (n - 1) // 2)) / n**0.5
        return Parameters({"R": R, "d": jax.random.uniform(diagonal, (self.count, n), minval=0.5, maxval=1.5)}, {})

    def build(self, arrays: dict[str, Any], slope: float) -> Built:
        """The triangle in its metric."""
        below = from_triangle(self.bound * jnp.tanh(arrays["R"] / self.bound), self.n_units)
        diagonal = (1 - self.slack) / slope - arrays["d"] ** 2
        W = below + diagonal[:, None, :] * jnp.eye(self.n_units, dtype=below.dtype)
        # self-inhibition, which theorem 1 leaves out, may make the norm as large as it likes
        return by_absolute_values(W, slope)._replace(norm=jnp.full(self.count, jnp.inf, W.dtype))

    def verify(self, weights: Matrix, metric: Matrix, slope: float) -> tuple[float, float]:
        """By theorem 1's inequality."""
        return absolute_rate(weights, metric, slope), norm_in_metric(weights, metric, slope)
