"""Theorem 3: weights that are minus a product of positive diagonal and positive definite matrices."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from poprnn.cells.contract import Parameters
from poprnn.cells.modules.contract import Built, Leaf
from poprnn.core.arrays import PRNGKey
from poprnn.core.blueprint import NonNegative, Positive
from poprnn.core.contraction.certificate import Matrix
from poprnn.core.contraction.theorems import sector_rate
from poprnn.core.linear import over_stack


class DiagonalProduct(Leaf):
    """Trained weights ``W = -P1 Q P2``, ``P_k = diag(d_k²) + eps``, ``Q = E^T E + eps I``; metric (P1 Q P1)^-1, rate 1.

    Arrays, trained: E [module, unit, unit], starting from N(0, gain² / n); d1 and d2 [module, unit], from U(0.5, 1).
    Parameterisation: Kozachkov, Ennis & Slotine, NeurIPS 2022, theorem 3 ("some small positive constant"); the start
    and the size of eps are our choices. Such weights only inhibit in the mean, and can be large: Euler steps must be
    the smaller for it.

    >>> import jax
    >>> module = DiagonalProduct(n_units=4)
    >>> module.build(module.init(1.0, key=jax.random.key(0)).trainable, 1.0).rate.tolist()
    [1.0]
    """

    cites = ("kozachkov2022",)
    theorem: ClassVar[str | None] = "3"

    eps: Positive = 0.01
    """Smallest diagonal entries and eigenvalues."""
    gain: NonNegative = 1.0
    """Scale of E at the start."""

    def init(self, slope: float, *, key: PRNGKey) -> Parameters:
        """Random factors."""
        keys, shape = jax.random.split(key, 3), (self.count, self.n_units)
        E = self.gain * jax.random.normal(keys[0], (*shape, self.n_units)) / self.n_units**0.5
        d1, d2 = (jax.random.uniform(k, shape, minval=0.5, maxval=1.0) for k in keys[1:])
        return Parameters({"E": E, "d1": d1, "d2": d2}, {})

    def build(self, arrays: dict[str, Any], slope: float) -> Built:
        """The product."""
        E = arrays["E"]
        Q = E.mT @ E + self.eps * jnp.eye(self.n_units, dtype=E.dtype)
        P1, P2 = (arrays[name] ** 2 + self.eps for name in ("d1", "d2"))
        inverse = P1[:, :, None] * Q * P1[:, None, :]
        one = jnp.ones(self.count, E.dtype)
        metric = over_stack(jnp.linalg.inv, inverse)
        return Built(-P1[:, :, None] * Q * P2[:, None, :], metric, inverse, one, one * jnp.inf)

    def verify(self, weights: Matrix, metric: Matrix, slope: float) -> tuple[float, float]:
        """By theorem 3, as the sector condition with multiplier t = P1 / P2, which ``-W diag(t) = M^-1`` tells.

        In the metric ``W D`` is minus a product F D F^T, F F^T = diag(1 / t) M^-1, whose norm is at most g times the
        spectral radius of W.
        """
        inverse = np.linalg.inv(metric)
        t = -np.sum(inverse * weights, axis=0) / np.sum(weights**2, axis=0)
        if not (t > 0).all():
            return -np.inf, np.inf
        return sector_rate(weights, metric, t, slope), slope * float(np.abs(np.linalg.eigvals(weights)).max())
