"""Theorems 1 to 5 of Kozachkov, Ennis & Slotine, NeurIPS 2022: when one module contracts, and in which metric."""

from typing import Any, NamedTuple

import numpy as np

from poprnn.core.arrays import Float
from poprnn.core.contraction.certificate import (
    ROUNDING,
    Certificate,
    Matrix,
    decide,
    in_metric,
    largest_symmetric,
    root,
    square,
)
from poprnn.core.errors import ConfigurationError
from poprnn.core.linear import over_stack


def restricted(weights: Any) -> Any:
    """``|W|`` with negative self-connections set to 0, which only help; works on NumPy and JAX arrays, stacked or not.

    >>> restricted(np.array([[-2.0, -1.0], [0.5, 0.25]])).tolist()
    [[0.0, 1.0], [0.5, 0.25]]
    """
    xp = weights.__array_namespace__()
    eye = xp.eye(weights.shape[-1], dtype=weights.dtype)
    return xp.where((eye > 0) & (weights < 0), xp.zeros_like(weights), xp.abs(weights))


class DiagonalMetric(NamedTuple):
    """A diagonal metric and what it certifies."""

    P: Any
    """Its diagonal, scaled to a mean logarithm of 0; ones where there is none."""
    rate: Any
    """A lower bound on theorem 1's rate; -1 where there is none."""
    norm: Any
    """An upper bound, below 1, on theorem 5's g ||P^½ |W| P^-½||; infinite where there is none."""


def diagonal_metric(weights: Any, slope: Any = 1.0) -> DiagonalMetric:
    """Theorem 1's metric in closed form, ``diag(y / x)`` with ``J = g|W| - I``, ``x = -J^-1 1``, ``y = -J^-T 1``.

    Where J is Hurwitz, x and y are positive and y/x certifies: J has no negative entries off its diagonal, and with
    ``Q = P J + J^T P``, ``Q x = -P 1 - 1 < 0`` for an x > 0, which makes a symmetric Q of that kind negative definite.
    The same vectors bound the rate, ``l >= min_i (1 / x_i + 1 / y_i) / 2``, and the norm (Schur's test),
    ``|| · ||² <= max_i (1 - 1 / x_i) max_i (1 - 1 / y_i)``. Where J is not Hurwitz, some of x is not positive. Works on
    NumPy and JAX arrays, ``[..., to, from]``.

    >>> found = diagonal_metric(np.array([[0.0, 0.5], [0.0, 0.0]]))
    >>> found.P.round(3).tolist(), float(found.rate.round(3)), float(found.norm.round(3))
    ([0.667, 1.5], 0.833, 0.333)
    """
    xp = weights.__array_namespace__()
    n = weights.shape[-1]
    minus_J = xp.eye(n, dtype=weights.dtype) - slope * restricted(weights)
    ones = xp.ones((*weights.shape[:-1], 1), dtype=weights.dtype)
    x = over_stack(xp.linalg.solve, minus_J, ones)[..., 0]
    y = over_stack(xp.linalg.solve, xp.swapaxes(minus_J, -1, -2), ones)[..., 0]
    good = xp.all((x > 0) & (y > 0) & xp.isfinite(x) & xp.isfinite(y), axis=-1)
    x, y = xp.where(good[..., None], x, 1.0), xp.where(good[..., None], y, 1.0)
    scale = xp.exp(xp.mean(xp.log(y / x), axis=-1, keepdims=True))
    norm = xp.sqrt(xp.maximum(xp.max(1 - 1 / x, axis=-1) * xp.max(1 - 1 / y, axis=-1), 0.0))
    rate = xp.min(1 / x + 1 / y, axis=-1) / 2
    return DiagonalMetric(y / x / scale, xp.where(good, rate, -1.0), xp.where(good, norm, xp.inf))


def absolute_rate(weights: Matrix, metric: Matrix, slope: float = 1.0) -> float:
    """Rate that theorem 1 gives in a diagonal metric, ``-lambda_max`` of the symmetric part of P^½ (g|W| - I) P^-½.

    >>> absolute_rate(np.array([[0.0, 0.5], [-0.5, 0.0]]), np.eye(2))
    0.5
    """
    return 1.0 - largest_symmetric(in_metric(slope * restricted(np.asarray(weights, np.float64)), _diagonal(metric)))


def singular_rate(weights: Matrix, metric: Matrix, slope: float = 1.0) -> float:
    """Rate that theorem 5 gives in a diagonal metric, ``1 - g ||P^½ W P^-½||``.

    >>> singular_rate(np.array([[0.0, 0.5], [-0.5, 0.0]]), np.eye(2))
    0.5
    """
    return 1.0 - slope * float(np.linalg.norm(in_metric(np.asarray(weights, np.float64), _diagonal(metric)), 2))


def sector_rate(
    weights: Matrix, metric: Matrix, multiplier: Float[np.ndarray, "unit"] | float = 1.0, slope: float = 1.0
) -> float:
    """A rate in any constant metric, with a positive diagonal multiplier T:

        l = 1 - g/4 · || (T^½ W^T M + T^-½) M^-½ ||².

    With N = M W and slopes D = g/2 (I + E), |E_ii| <= 1, what must be bounded is
    N D + D N^T = g/2 (N + N^T + N E + E N^T), and N E + E N^T <= N T N^T + T^-1. Theorem 2 is T = 1, theorem 3
    T = P1 / P2 (rate 1).

    >>> round(sector_rate(np.array([[-3.0]]), np.array([[1 / 3]]), 1.0), 6)
    1.0
    """
    weights, T = np.asarray(weights, np.float64), np.broadcast_to(np.asarray(multiplier, float), (len(weights),))
    inner = np.sqrt(T)[:, None] * (weights.T @ metric) + np.diag(1 / np.sqrt(T))
    if not np.isfinite(inner).all():
        return -np.inf
    return 1.0 - slope / 4 * float(np.linalg.norm(np.linalg.solve(root(metric).T, inner.T), 2)) ** 2


def theorem_1(weights: Matrix, slope: float = 1.0) -> Certificate:
    """Absolute values: ``g|W| - I`` is Hurwitz, in the closed-form metric of :func:`diagonal_metric`.

    Margin: 1 - g times the spectral radius of |W| (with negative W_ii as 0).

    >>> theorem_1(np.array([[0.0, 3.0], [0.1, 0.0]])).holds, theorem_1(np.array([[0.0, 3.0], [0.4, 0.0]])).holds
    (True, False)
    """
    weights = square(weights, slope)
    margin = 1.0 - slope * float(np.abs(np.linalg.eigvals(restricted(weights))).max())
    metric = _closed_form(weights, slope) if margin > ROUNDING else None
    return decide("1", metric, np.nan if metric is None else absolute_rate(weights, metric, slope), margin)


def theorem_2(weights: Matrix, slope: float = 1.0, *, smallest: float = 1e-3) -> Certificate:
    """Symmetric weights with ``g W < I``, in the metric ``(sqrt(a) I + (a I - W)^½)^-2``, at the rate ``1 - g a``.

    a is the largest eigenvalue of W, at least ``smallest`` (our choice: only a must be positive). Margin:
    1 - g lambda_max(W). The text asks for phi' > 0 and names no metric; this one holds for phi' >= 0.

    >>> theorem_2(np.array([[-9.0, 0.5], [0.5, 0.5]])).rate.__round__(2)
    0.47
    >>> theorem_2(np.array([[0.0, 0.5], [0.4, 0.0]])).margin
    -inf
    """
    weights = square(weights, slope)
    if not np.allclose(weights, weights.T, rtol=1e-12, atol=1e-12):
        return decide("2", None, np.nan, -np.inf, "W = W^T")
    values, vectors = np.linalg.eigh((weights + weights.T) / 2)
    a = max(values[-1], smallest)
    metric = (vectors * (np.sqrt(a) + np.sqrt(np.maximum(a - values, 0))) ** -2.0) @ vectors.T
    return decide("2", metric, sector_rate(weights, metric, 1.0, slope), 1.0 - slope * values[-1], "W = W^T")


def theorem_3(weights: Matrix, slope: float = 1.0) -> Certificate:
    """``W = -P1 Q P2`` with P1, P2 positive diagonal and Q positive definite, in the metric (P1 Q P1)^-1, at rate 1.

    For a given W the factors are found: W_ij / W_ji = t_i / t_j with t = P1 / P2 decides t, one free scale for each
    connected part of W, and -W diag(t) = P1 Q P1 must be symmetric and positive definite. Margin: its smallest
    eigenvalue, relative to its largest.

    >>> certificate = theorem_3(-np.diag([1.0, 5.0]) @ np.array([[2.0, 1.0], [1.0, 1.0]]) @ np.diag([3.0, 0.1]))
    >>> certificate.holds, round(certificate.rate, 6)
    (True, 1.0)
    """
    weights = square(weights, slope)
    t = _symmetriser(weights)
    product = -weights * t
    if not np.allclose(product, product.T, rtol=1e-8, atol=1e-8 * np.abs(product).max(initial=0.0)):
        return decide("3", None, np.nan, -np.inf, "W = -P1 Q P2")
    values = np.linalg.eigvalsh((product + product.T) / 2)
    margin = values[0] / max(values[-1], np.finfo(float).tiny)
    if margin <= 0:
        return decide("3", None, np.nan, margin, "W = -P1 Q P2")
    inverse = np.linalg.inv(product)
    metric = (inverse + inverse.T) / 2
    return decide("3", metric, sector_rate(weights, metric, t, slope), margin, "W = -P1 Q P2")


def _symmetriser(weights: Matrix) -> Float[np.ndarray, "unit"]:
    """t > 0 with W_ij / W_ji = t_i / t_j as nearly as logarithms allow."""
    i, j = np.nonzero((weights != 0) & (weights.T != 0))
    keep = i < j
    i, j = i[keep], j[keep]
    rows = np.zeros((len(i), len(weights)))
    rows[np.arange(len(i)), i], rows[np.arange(len(i)), j] = 1.0, -1.0
    ratio = np.log(np.abs(weights[i, j] / weights[j, i]))
    return np.exp(np.linalg.lstsq(rows, ratio, rcond=None)[0]) if len(i) else np.ones(len(weights))


def theorem_4(weights: Matrix, slope: float = 1.0) -> Certificate:
    """Triangular weights with ``g W_ii < 1``, in theorem 1's closed-form metric.

    Margin: 1 - g max W_ii.

    >>> theorem_4(np.array([[0.5, 0.0], [40.0, -7.0]])).holds
    True
    """
    weights = square(weights, slope)
    if np.triu(weights, 1).any() and np.tril(weights, -1).any():
        return decide("4", None, np.nan, -np.inf, "W is triangular")
    found = theorem_1(weights, slope)
    margin = 1.0 - slope * float(np.diagonal(weights).max())
    return decide("4", found.metric, found.rate, margin, "W is triangular")


def theorem_5(weights: Matrix, slope: float = 1.0, *, metric: Matrix | None = None) -> Certificate:
    """Singular values: ``g² W^T P W < P`` for a positive diagonal P. Margin and rate: 1 - g ||P^½ W P^-½||.

    Args:
        weights: W, [to, from].
        slope: g.
        metric: P; ``None``: the better of the identity and theorem 1's metric. A P found by a matrix inequality
            (:func:`~poprnn.core.contraction.inequalities.smallest_norm`) is better still.

    >>> theorem_5(np.array([[0.0, 0.9], [-0.9, 0.0]])).rate.__round__(3)
    0.1
    >>> theorem_5(np.array([[0.0, 3.0], [0.01, 0.0]])).holds
    True
    """
    weights = square(weights, slope)
    candidates = [np.eye(len(weights))] if metric is None else [np.asarray(metric, np.float64)]
    if metric is None:
        closed = _closed_form(weights, slope)
        candidates += [] if closed is None else [closed]
    rate, best = max(((singular_rate(weights, P, slope), i) for i, P in enumerate(candidates)))
    return decide("5", candidates[best], rate, rate)


def _closed_form(weights: Matrix, slope: float) -> Matrix | None:
    try:
        found = diagonal_metric(weights, slope)
    except np.linalg.LinAlgError:  # exactly on the boundary
        return None
    return np.diag(found.P) if found.rate > 0 else None


def _diagonal(metric: Matrix) -> Matrix:
    metric = np.asarray(metric, np.float64)
    if (metric != np.diag(np.diagonal(metric))).any():
        raise ConfigurationError("theorems 1, 4 and 5 certify in diagonal metrics only")
    return metric
