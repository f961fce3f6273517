"""Theorem 5: singular values below 1 / g in a diagonal metric."""

from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from pydantic import Field

from poprnn.cells.contract import Parameters
from poprnn.cells.modules.contract import Built, Leaf, from_triangle, in_diagonal_metric, norm_in_metric
from poprnn.core.arrays import Array, Float, PRNGKey
from poprnn.core.contraction.certificate import Matrix
from poprnn.core.contraction.theorems import singular_rate
from poprnn.core.linear import over_stack


class SingularValue(Leaf):
    """Trained weights ``W = Theta^-1 U S V^T Theta``, U and V orthogonal, S < 1 / g, in the metric ``P = Theta²``.

    U and V are made of skew matrices, Theta = exp(theta), ``S = (1 - slack) / g · sigmoid(s)``. Arrays, trained:
    U and V [module, n (n-1) / 2] (the skew matrices below their diagonals, row by row), starting from N(0, 1 / n),
    s [module, unit] from N(0, 1), theta [module, unit] from 0. Kozachkov, Ennis & Slotine, NeurIPS 2022, theorem 5
    and SVD Combo Net; how S and Theta are kept positive and the start are our choices.

    >>> import jax
    >>> module = SingularValue(n_units=4)
    >>> W = module.build(module.init(1.0, key=jax.random.key(0)).trainable, 1.0).W
    >>> bool(jnp.linalg.norm(W[0], 2) < 1)
    True
    """

    cites = ("kozachkov2022",)
    theorem: ClassVar[str | None] = "5"
    is_singular: ClassVar[bool] = True

    slack: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """How far g times the largest singular value stays below 1."""
    orthogonal: Literal["cayley", "exponential"] = "cayley"
    """How a skew matrix A becomes orthogonal: ``(I - A)^-1 (I + A)`` (faster; no eigenvalue -1) or ``exp(A)``."""

    def init(self, slope: float, *, key: PRNGKey) -> Parameters:
        """Random rotations and singular values."""
        keys, n = jax.random.split(key, 3), self.n_units
        U, V = (jax.random.normal(k, (self.count, n * (n - 1) // 2)) / n**0.5 for k in keys[:2])
        s = jax.random.normal(keys[2], (self.count, n))
        return Parameters({"U": U, "V": V, "s": s, "theta": jnp.zeros((self.count, n))}, {})

    def rotation(self, values: Float[Array, "module entry"]) -> Float[Array, "module unit unit"]:
        """Orthogonal matrices from the lower triangles of skew ones."""
        below = from_triangle(values, self.n_units)
        A, eye = below - below.mT, jnp.eye(self.n_units, dtype=values.dtype)
        if self.orthogonal == "cayley":
            return over_stack(jnp.linalg.solve, eye - A, eye + A)
        return over_stack(jax.scipy.linalg.expm, A)

    def build(self, arrays: dict[str, Any], slope: float) -> Built:
        """The product."""
        S = (1 - self.slack) / slope * jax.nn.sigmoid(arrays["s"])
        theta = jnp.exp(arrays["theta"])
        W = (self.rotation(arrays["U"]) * S[:, None, :]) @ self.rotation(arrays["V"]).mT
        W = W / theta[:, :, None] * theta[:, None, :]
        norm = slope * jnp.max(S, axis=1)
        return in_diagonal_metric(W, theta**2, 1 - norm, norm)

    def verify(self, weights: Matrix, metric: Matrix, slope: float) -> tuple[float, float]:
        """By theorem 5."""
        return singular_rate(weights, metric, slope), norm_in_metric(weights, metric, slope)
