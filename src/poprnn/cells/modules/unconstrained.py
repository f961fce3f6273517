"""No theorem: any weights, for comparison."""

from typing import Any

import jax
import jax.numpy as jnp

from poprnn.cells.contract import Parameters
from poprnn.cells.modules.contract import Built, Leaf
from poprnn.core.arrays import PRNGKey
from poprnn.core.blueprint import NonNegative


class Unconstrained(Leaf):
    """Trained weights without any constraint, a control; an assembly that holds one has no certificate.

    Arrays: W [module, to, from], trained, starting from N(0, gain² / n) (our choice).

    >>> import jax
    >>> Unconstrained(n_units=4, count=2).init(1.0, key=jax.random.key(0)).trainable["W"].shape
    (2, 4, 4)
    """

    gain: NonNegative = 0.5
    """Scale of W at the start."""

    def init(self, slope: float, *, key: PRNGKey) -> Parameters:
        """Normal weights."""
        W = self.gain * jax.random.normal(key, (self.count, self.n_units, self.n_units)) / self.n_units**0.5
        return Parameters({"W": W}, {})

    def build(self, arrays: dict[str, Any], slope: float) -> Built:
        """As they are, in the identity."""
        W = arrays["W"]
        eye = jnp.broadcast_to(jnp.eye(self.n_units, dtype=W.dtype), W.shape)
        nothing = jnp.zeros(self.count, W.dtype)
        return Built(W, eye, eye, nothing, nothing + jnp.inf)
