"""Matching the units of two networks: the relabelling that brings their weights closest together.

Exact answers exist for one permutation at a time (linear assignment) and for none that stands on both sides of a matrix
(quadratic assignment is NP-hard), so everything found here is an upper bound of the distance that it is named after.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from poprnn.core.arrays import Float, Int

MAX_STEPS = 30
"""Most Frank-Wolfe steps from one start (SciPy's default)."""
STILL = 0.03
"""Root mean square change of a row at which Frank-Wolfe has arrived (SciPy's default)."""
GAIN = 1e-12
"""Smallest gain that counts, as a share of the product of the norms: less is rounding."""

Order = Int[np.ndarray, "unit"]
"""``order[i]`` is the unit of the second network that takes the place of unit i of the first."""


class Weights(NamedTuple):
    """One network's weights, by how they move when its units are renumbered."""

    recurrent: Float[np.ndarray, "gate unit unit"]
    """Rows and columns; one matrix for each gate."""
    incoming: Float[np.ndarray, "unit input"]
    """With the rows: inputs and biases, of all gates side by side."""
    outgoing: Float[np.ndarray, "unit output"]
    """With the columns: readouts."""

    @property
    def n_units(self) -> int:
        """Units."""
        return self.recurrent.shape[1]

    @property
    def n_parameters(self) -> int:
        """Numbers compared."""
        return sum(part.size for part in self)


def distance(a: Weights, b: Weights, rows: Order, columns: Order) -> float:
    """Frobenius norm of the difference, with the rows and columns of ``b`` in the order given.

    >>> W = Weights(np.array([[[0.0, 1.0], [0.0, 0.0]]]), np.zeros((2, 0)), np.zeros((2, 0)))
    >>> distance(W, W, np.array([0, 1]), np.array([0, 1])), round(distance(W, W, np.array([1, 0]), np.array([1, 0])), 3)
    (0.0, 1.414)
    """
    moved = b.recurrent[:, rows[:, None], columns], b.incoming[rows], b.outgoing[columns]
    return float(np.sqrt(sum(np.sum((mine - other) ** 2) for mine, other in zip(a, moved, strict=True))))


def match_independent(a: Weights, b: Weights, n_restarts: int, random: np.random.Generator) -> float:
    """The smallest ``||A - P1 B P2||_F`` that alternating linear assignment finds, from the identity and random starts.

    With the columns given, the best rows maximise ``<A, P1 B P2>``, which is linear in P1; and the other way round.
    Each of the two only improves the match, so it ends.
    """
    n, wide, tall = a.n_units, _side_by_side, lambda W: W.reshape(-1, W.shape[2])
    by_row, by_column = a.incoming @ b.incoming.T, a.outgoing @ b.outgoing.T
    a_wide, a_tall = wide(a.recurrent), tall(a.recurrent).T
    tolerance, best = GAIN * _size(a) * _size(b), np.inf
    for start in range(n_restarts + 1):
        columns = random.permutation(n) if start else np.arange(n)
        value = -np.inf
        while True:
            rows = _assign(a_wide @ wide(b.recurrent[:, :, columns]).T + by_row)
            gain = a_tall @ tall(b.recurrent[:, rows]) + by_column
            columns = _assign(gain)
            before, value = value, gain[np.arange(n), columns].sum() + by_row[np.arange(n), rows].sum()
            if value <= before + tolerance:
                break
        best = min(best, distance(a, b, rows, columns))
    return best


def match_conjugate(a: Weights, b: Weights, n_restarts: int, random: np.random.Generator) -> float:
    """The smallest ``||A - P B P^T||_F`` that is found: Frank-Wolfe (FAQ) from several starts, refined by 2-opt.

    Starts: the barycentre of all doubly stochastic matrices, the identity (by 2-opt alone), and ``n_restarts`` random
    points halfway between the barycentre and a permutation. It stops at a match that leaves nothing over.
    """
    n, linear = a.n_units, a.incoming @ b.incoming.T + a.outgoing @ b.outgoing.T
    flat, best = np.full((n, n), 1 / n), np.inf
    nothing = 1e-9 * (_size(a) + _size(b))
    for start in range(n_restarts + 2):
        order = np.arange(n)
        if start != 1:
            middle = (flat + np.eye(n)[random.permutation(n)]) / 2 if start else flat
            order = frank_wolfe(a.recurrent, b.recurrent, linear, middle)
        order = two_opt(a.recurrent, b.recurrent, linear, order, GAIN * _size(a) * _size(b))
        best = min(best, distance(a, b, order, order))
        if best <= nothing:
            break
    return best


def frank_wolfe(
    A: Float[np.ndarray, "gate unit unit"],
    B: Float[np.ndarray, "gate unit unit"],
    linear: Float[np.ndarray, "unit unit"],
    start: Float[np.ndarray, "unit unit"],
) -> Order:
    """Frank-Wolfe ascent of ``f(P) = sum_g <A_g, P B_g P^T> + <linear, P>`` over doubly stochastic P, then assigned.

    Vogelstein et al., Fast approximate quadratic programming for graph matching, PLoS ONE 2015; the linear term and the
    sum over gates are ours (``scipy.optimize.quadratic_assignment`` has neither, and agrees where there are none).
    """
    P, A_t, B_t = start, A.transpose(0, 2, 1), B.transpose(0, 2, 1)
    AP, PB, n = A @ P, P @ B, len(P)
    for _ in range(MAX_STEPS):
        gradient = (AP @ B_t + A_t @ PB).sum(axis=0) + linear
        corner = _assign(gradient)
        # towards a corner, a permutation: products with it are exchanges of rows and columns
        D, AD, DB = np.eye(n)[corner] - P, A[:, :, np.argsort(corner)] - AP, B[:, corner] - PB
        # f along the way is t² · curvature + t · slope
        curvature, slope = np.sum(AD * DB), np.sum(gradient * D)
        if curvature < 0:
            t = min(max(-slope / (2 * curvature), 0.0), 1.0)
        else:
            t = float(curvature + slope > 0)
        P, AP, PB = P + t * D, AP + t * AD, PB + t * DB
        if t * np.sqrt(np.sum(D * D) / n) < STILL:
            break
    return _assign(P)


def two_opt(
    A: Float[np.ndarray, "gate unit unit"],
    B: Float[np.ndarray, "gate unit unit"],
    linear: Float[np.ndarray, "unit unit"],
    order: Order,
    tolerance: float = 0.0,
) -> Order:
    """Exchange the two units whose exchange gains most, until no exchange gains anything."""
    while True:
        gains = exchange_gains(A, B[:, order[:, None], order], linear[:, order])
        r, s = np.unravel_index(np.argmax(gains), gains.shape)
        if gains[r, s] <= tolerance:
            return order
        order = order.copy()
        order[[r, s]] = order[[s, r]]


def exchange_gains(
    A: Float[np.ndarray, "gate unit unit"],
    M: Float[np.ndarray, "gate unit unit"],
    linear: Float[np.ndarray, "unit unit"],
) -> Float[np.ndarray, "unit unit"]:
    """What ``sum_g <A_g, M_g> + trace(linear)`` gains when units r and s of M change places, for all r and s at once.

    Rows r and s exchanged gain ``sum_k (A_rk - A_sk)(M_sk - M_rk)``, columns alike: products of matrices. The four
    entries where these rows and columns cross are counted twice and wrongly by that; they are put right here.

    >>> exchange_gains(np.array([[[0.0, 1.0], [0.0, 0.0]]]), np.array([[[0.0, 0.0], [1.0, 0.0]]]), np.zeros((2, 2)))
    array([[0., 1.],
           [1., 0.]])
    """
    A_t, M_t = A.transpose(0, 2, 1), M.transpose(0, 2, 1)
    crossed = (A @ M_t + A_t @ M).sum(axis=0) + linear
    own = np.diagonal(crossed)
    gains = crossed + crossed.T - own[:, None] - own[None, :]
    a, m = np.diagonal(A, axis1=1, axis2=2), np.diagonal(M, axis1=1, axis2=2)
    a_r, a_s, m_r, m_s = a[:, :, None], a[:, None, :], m[:, :, None], m[:, None, :]
    # k = r and k = s in the sums over rows, then over columns: [r, s] is rs, its transpose sr
    counted = (a_r - A_t) * (M_t - m_r) + (A - a_s) * (m_s - M) + (a_r - A) * (M - m_r) + (A_t - a_s) * (m_s - M_t)
    right = (a_r - a_s) * (m_s - m_r) + (A - A_t) * (M_t - M)
    return gains + (right - counted).sum(axis=0)


def _assign(gain: Float[np.ndarray, "unit unit"]) -> Order:
    return linear_sum_assignment(gain, maximize=True)[1]


def _side_by_side(W: Float[np.ndarray, "gate unit unit"]) -> Float[np.ndarray, "unit gate_unit"]:
    """Gates beside one another, ``[unit, gate · unit]``."""
    return W[0] if len(W) == 1 else W.transpose(1, 0, 2).reshape(W.shape[1], -1)


def _size(weights: Weights) -> float:
    return float(np.sqrt(sum(np.sum(part**2) for part in weights)))
