"""What a certificate is, and what all of them are made from."""

from typing import NamedTuple

import numpy as np

from poprnn.core.arrays import Float
from poprnn.core.errors import ConfigurationError

Matrix = Float[np.ndarray, "unit unit"]
ROUNDING = 1e-10
"""Margins and rates below this may be rounding alone: such a certificate does not hold."""


class Certificate(NamedTuple):
    """The answer of a theorem for one network."""

    theorem: str
    """Which one was asked."""
    holds: bool
    """Whether the network is certified."""
    metric: Matrix | None
    """M, symmetric and positive definite; ``None`` where there is none."""
    rate: float
    """Rate l in this metric, in units of 1/tau: distances fall at least as exp(-l t / tau); NaN without a metric."""
    margin: float
    """Distance of the theorem's condition from its boundary, each theorem in its own measure; negative: violated."""
    assumptions: tuple[str, ...]
    """What must be true besides the numbers that were checked."""


SLOPES = "0 <= phi' <= g"


def decide(theorem: str, metric: Matrix | None, rate: float, margin: float, *assumptions: str) -> Certificate:
    """The certificate, which holds if margin and rate are positive by more than rounding."""
    holds = metric is not None and bool(margin > ROUNDING and rate > ROUNDING and np.isfinite(metric).all())
    return Certificate(theorem, holds, metric, float(rate), float(margin), (SLOPES, *assumptions))


def square(weights: Matrix, slope: float) -> Matrix:
    """The weights in float64; ``ConfigurationError`` unless they are a finite square matrix and the slope positive."""
    weights = np.asarray(weights, np.float64)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or not np.isfinite(weights).all():
        raise ConfigurationError(f"weights of shape {list(weights.shape)}: must be a finite square matrix")
    if not slope > 0:
        raise ConfigurationError(f"slope = {slope}: must be positive")
    return weights


def largest_symmetric(matrix: Matrix) -> float:
    """Largest eigenvalue of the symmetric part; infinite where the matrix is not finite."""
    matrix = np.asarray(matrix, np.float64)
    if not np.isfinite(matrix).all():
        return np.inf
    return float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[-1])


def root(metric: Matrix) -> Matrix:
    """Upper R with ``R^T R = M``: in the coordinates ``R x`` the metric is the identity.

    Raises:
        ConfigurationError: the metric is not positive definite.

    >>> root(np.diag([4.0, 9.0])).tolist()
    [[2.0, 0.0], [0.0, 3.0]]
    """
    try:
        return np.linalg.cholesky((metric + metric.T) / 2).T
    except np.linalg.LinAlgError:
        raise ConfigurationError("a metric must be symmetric and positive definite") from None


def in_metric(matrix: Matrix, metric: Matrix) -> Matrix:
    """A matrix in the coordinates in which the metric is the identity, ``R A R^-1``."""
    R = root(metric)
    return np.linalg.solve(R.T, (R @ matrix).T).T


def rate_form(certificate: Certificate) -> Certificate:
    """The certificate of ``tau dr/dt = -r + phi(W r + u)`` from a theorem asked about ``W^T``.

    There the Jacobian is ``-I + D W``, the transpose of ``-I + W^T D``; a metric of one is the inverse of a metric of
    the other, at the same rate. (Kozachkov et al., appendix A.1, say that both forms are equivalent.)

    >>> from poprnn.core.contraction.theorems import theorem_5
    >>> W = np.array([[0.0, 0.5], [0.1, 0.0]])
    >>> rate_form(theorem_5(W.T, metric=np.diag([1.0, 4.0]))).metric.tolist()
    [[1.0, 0.0], [0.0, 0.25]]
    """
    if certificate.metric is None:
        return certificate
    inverse = np.linalg.inv(certificate.metric)
    return certificate._replace(metric=(inverse + inverse.T) / 2)
