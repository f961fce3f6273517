"""Theorems 6 and 7: weights whose symmetric part is small, with slopes that change slowly, and with any slopes."""

import numpy as np

from poprnn.core.arrays import Bool, Float
from poprnn.core.contraction.certificate import Certificate, Matrix, decide, in_metric, largest_symmetric, square


def symmetric_margin(weights: Matrix, metric: Matrix | None = None, slope: float = 1.0) -> float:
    """The largest c, at most 2, with ``(g W - I) P + P (g W^T - I) <= -c P`` for a positive diagonal P (default: I).

    >>> symmetric_margin(np.array([[0.0, -9.0], [9.0, 0.0]]))
    2.0
    """
    weights = square(weights, slope)
    P = np.eye(len(weights)) if metric is None else np.asarray(metric, np.float64)
    # P^-½ (g W - I) P^½: the metric of the transposed problem is P^-1
    return min(
        2.0, -2.0 * largest_symmetric(in_metric(slope * weights - np.eye(len(weights)), np.diag(1 / np.diag(P))))
    )


def theorem_6(
    weights: Matrix,
    slopes: Float[np.ndarray, "time unit"],
    slope_derivatives: Float[np.ndarray, "time unit"],
    slope: float = 1.0,
    *,
    metric: Matrix | None = None,
) -> Certificate:
    """Along a trajectory whose slopes change slowly: contraction in the metric ``P^-1 D``, D = diag(slopes).

    With c of :func:`symmetric_margin` the squared distance falls at the rate beta, the distance at beta / 2, if

        dD/dt - c D <= -beta D        (the text has c / g in place of c: stricter for g >= 1, too lax for g < 1).

    The metric is our correction: in the text's, D alone, the distance may grow unless P is the identity (kept as a
    test). Slopes must be positive, so that ReLU is excluded.

    Args:
        weights: W, [to, from].
        slopes: phi'(x(t)), positive.
        slope_derivatives: their derivatives by time, in units of 1/tau.
        slope: g.
        metric: P, diagonal; default: the identity.

    Returns:
        A certificate whose ``metric`` is P^-1 (multiply by D(t)), its ``rate`` beta / 2, its ``margin`` beta.

    >>> slopes, still = np.array([[0.5, 1.0]]), np.zeros((1, 2))
    >>> theorem_6(np.array([[0.0, -9.0], [9.0, 0.0]]), slopes, still).rate
    1.0
    >>> theorem_6(np.zeros((2, 2)), slopes, 3 * slopes).holds
    False
    """
    c = symmetric_margin(weights, metric, slope)
    if not (slopes > 0).all():
        return decide("6", None, np.nan, -np.inf, "phi' > 0")
    beta = c - float((slope_derivatives / slopes).max())
    inverse = np.eye(len(weights)) if metric is None else np.diag(1 / np.diag(metric))
    return decide("6", inverse, beta / 2, beta, "phi' > 0", "the trajectories stay where the slopes were taken")


def turning(c: float) -> Matrix:
    """Theorem 7's weights, ``[[0, -c], [c, 0]]``.

    Their symmetric part is 0, so that ``g W_sym - I < 0``; yet for c >= 2 (g = 1) no constant metric certifies:
    at the slopes (1, 0) and (0, 1) the Jacobians are [[-1, 0], [c, -1]] and [[-1, -c], [0, -1]]. Their product has
    determinant 1 and trace 2 - c², so from c = 2 on negative eigenvalues, and two matrices with a common metric never
    have such a product (Shorten & Narendra, International Journal of Adaptive Control and Signal Processing, 2002).

    >>> turning(2.0).tolist()
    [[0.0, -2.0], [2.0, 0.0]]
    """
    return np.array([[0.0, -c], [c, 0.0]])


def slope_corners(n_units: int, slope: float = 1.0) -> Float[np.ndarray, "corner unit"]:
    """All slopes that are 0 or g: a constant metric certifies all slopes between if it certifies these.

    >>> slope_corners(2).tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    bits: Bool[np.ndarray, "corner unit"] = (np.arange(2**n_units)[:, None] >> np.arange(n_units)) % 2 == 1
    return slope * bits.astype(float)


def corner_rate(weights: Matrix, metric: Matrix, slope: float = 1.0) -> float:
    """The exact rate of a constant metric: the least over all corners of the slopes (few units only: 2^n of them).

    >>> corner_rate(np.array([[0.0, 0.5], [-0.5, 0.0]]), np.eye(2))
    0.75
    """
    weights = square(weights, slope)
    corners = slope_corners(len(weights), slope)
    normal = np.stack([in_metric(weights * d, metric) for d in corners])
    return 1.0 - float(np.linalg.eigvalsh((normal + normal.swapaxes(1, 2)) / 2)[:, -1].max())
