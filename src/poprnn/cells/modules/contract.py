"""What a module is: recurrent weights that contract in a known metric, whatever a gradient step does to its arrays."""

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from poprnn.cells.contract import Parameters
from poprnn.core.arrays import Array, Float, PRNGKey
from poprnn.core.blueprint import Blueprint, PositiveInt
from poprnn.core.contraction.certificate import Matrix, in_metric
from poprnn.core.contraction.theorems import diagonal_metric


class Built(NamedTuple):
    """Modules of one kind as their dynamics are, ``tau dx/dt = -x + W phi(x) + u``, stacked."""

    W: Float[Array, "module to from"]
    metric: Float[Array, "module unit unit"]
    inverse: Float[Array, "module unit unit"]
    """Of the metric."""
    rate: Float[Array, "module"]
    """A lower bound on each one's rate of contraction, in units of 1/tau."""
    norm: Float[Array, "module"]
    """An upper bound on each one's g ||R W R^-1||, R^T R the metric; infinite where theorem 5 does not hold in it."""


class Module(Blueprint):
    """Base of what an assembly is made of: modules of one kind (:class:`Leaf`), or a group of others."""

    family = "modules"

    count: PositiveInt = 1
    """Number of such modules."""


class Leaf(Module):
    """Base of modules with weights of their own: one kind, ``count`` of them.

    It gives :meth:`init` and :meth:`build`, and says by :meth:`verify` what its theorem makes of weights and a
    metric; that is asked of the stored arrays at every evaluation, in float64. All arrays have an axis ``module``.
    """

    theorem: ClassVar[str | None] = None
    """Which one certifies it; ``None``: none does."""
    is_singular: ClassVar[bool] = False
    """Whether theorem 5 holds in its (diagonal) metric, so that Euler steps have a certificate in closed form."""

    n_units: PositiveInt = 32
    """Units in a module (Kozachkov et al., their best networks: 32)."""

    def init(self, slope: float, *, key: PRNGKey) -> Parameters:
        """Random arrays, for an activation function of that largest slope."""
        raise NotImplementedError

    def build(self, arrays: dict[str, Any], slope: float) -> Built:
        """Weights, metrics and rates."""
        raise NotImplementedError

    def verify(self, weights: Matrix, metric: Matrix, slope: float) -> tuple[float, float]:
        """The rate at which a module's weights contract in a metric (at most 0: they do not), and the largest norm of
        ``W D`` in it over all slopes D; NumPy, float64."""
        raise NotImplementedError


def in_diagonal_metric(W: Float[Array, "module to from"], diagonal: Array, rate: Array, norm: Array) -> Built:
    """Modules whose metric is diagonal."""
    eye = jnp.eye(W.shape[-1], dtype=W.dtype)
    return Built(W, diagonal[:, None, :] * eye, (1 / diagonal)[:, None, :] * eye, rate, norm)


def by_absolute_values(W: Float[Array, "module to from"], slope: float) -> Built:
    """Modules in theorem 1's metric."""
    return in_diagonal_metric(W, *diagonal_metric(W, slope))


def norm_in_metric(weights: Matrix, metric: Matrix, slope: float) -> float:
    """Largest ``||R W D R^-1||`` over slopes D: exact bound g ||R W R^-1|| where the metric R^T R is diagonal."""
    if np.count_nonzero(metric - np.diag(np.diagonal(metric))) == 0:
        return slope * float(np.linalg.norm(in_metric(weights, metric), 2))
    R = np.linalg.cholesky(metric).T
    return slope * float(np.linalg.norm(R @ weights, 2) * np.linalg.norm(np.linalg.inv(R), 2))


def from_triangle(values: Float[Array, "module entry"], n: int) -> Float[Array, "module unit unit"]:
    """Strictly lower triangular matrices from their entries, row by row.

    >>> from_triangle(jnp.array([[1.0, 2.0, 3.0]]), 3).tolist()
    [[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 3.0, 0.0]]]
    """
    rows, columns = np.tril_indices(n, -1)
    return jnp.zeros((values.shape[0], n, n), values.dtype).at[:, rows, columns].set(values)
