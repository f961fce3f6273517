"""Theorem 2: symmetric weights with eigenvalues below 1 / g."""

from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
from pydantic import Field

from poprnn.cells.contract import Parameters
from poprnn.cells.modules.contract import Built, Leaf, norm_in_metric
from poprnn.core.arrays import PRNGKey
from poprnn.core.blueprint import NonNegative
from poprnn.core.contraction.certificate import Matrix
from poprnn.core.contraction.theorems import sector_rate
from poprnn.core.linear import over_stack


class Symmetric(Leaf):
    """Trained symmetric weights, ``W = a I - K²`` with ``K = E^T E`` and ``a = (1 - slack) / g``.

    Every symmetric W <= a I is of this form, whatever E. The metric is ``(sqrt(a) I + K)^-2``, the rate ``slack``.
    Arrays: E [module, unit, unit], trained, starting from ``a^¼ (I + spread N(0, 1/n))``, so that W starts near 0.
    Kozachkov, Ennis & Slotine, NeurIPS 2022, theorem 2, which names neither a metric nor a parameterisation: both are
    ours (:func:`poprnn.core.contraction.theorems.theorem_2`), as are the defaults.

    >>> import jax
    >>> module = Symmetric(n_units=4)
    >>> built = module.build(module.init(1.0, key=jax.random.key(0)).trainable, 1.0)
    >>> bool(jnp.allclose(built.W, built.W.mT, atol=1e-6)), bool(jnp.linalg.eigvalsh(built.W).max() < 0.9001)
    (True, True)
    """

    cites = ("kozachkov2022",)
    theorem: ClassVar[str | None] = "2"

    slack: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """How far g times the largest eigenvalue stays below 1, and the rate."""
    spread: NonNegative = 0.1
    """Spread of E at the start."""

    def init(self, slope: float, *, key: PRNGKey) -> Parameters:
        """W near 0."""
        noise = jax.random.normal(key, (self.count, self.n_units, self.n_units)) / self.n_units**0.5
        return Parameters({"E": ((1 - self.slack) / slope) ** 0.25 * (jnp.eye(self.n_units) + self.spread * noise)}, {})

    def build(self, arrays: dict[str, Any], slope: float) -> Built:
        """W and its metric from K."""
        E = arrays["E"]
        a, eye = (1 - self.slack) / slope, jnp.eye(self.n_units, dtype=E.dtype)
        K = E.mT @ E
        shifted = jnp.sqrt(a) * eye + K
        part = over_stack(jnp.linalg.inv, shifted)
        rate = jnp.full(self.count, self.slack, E.dtype)
        return Built(a * eye - K @ K, part @ part.mT, shifted @ shifted.mT, rate, jnp.full_like(rate, jnp.inf))

    def verify(self, weights: Matrix, metric: Matrix, slope: float) -> tuple[float, float]:
        """By theorem 2, as the sector condition with multiplier 1."""
        return sector_rate(weights, metric, 1.0, slope), norm_in_metric(weights, metric, slope)
