"""Metrics that no formula gives, found as solutions of matrix inequalities by cvxpy (the extra ``certificates``).

What a solver says is not taken at its word: every metric found is put to the theorem again, which decides.
"""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from poprnn.core.arrays import Float
from poprnn.core.contraction.certificate import Certificate, Matrix, decide, root, square
from poprnn.core.contraction.slopes import corner_rate, slope_corners
from poprnn.core.contraction.theorems import restricted, sector_rate, theorem_5
from poprnn.core.errors import ConfigurationError, NotApplicableError

MOST_CORNERS = 8
"""Units up to which a metric for all 2^n corners of the slopes is searched for."""


def _cvxpy() -> Any:
    try:
        import cvxpy
    except ModuleNotFoundError:
        raise NotApplicableError("searching for a metric needs cvxpy: pip install 'poprnn[certificates]'") from None
    return cvxpy


def is_available() -> bool:
    """Whether cvxpy is installed.

    >>> is_available() in (True, False)
    True
    """
    try:
        _cvxpy()
    except NotApplicableError:
        return False
    return True


def _feasible(unknown: Any, constraints: list[Any]) -> Matrix | None:
    """A solution, or ``None``; a solver that fails has found none."""
    cp = _cvxpy()
    problem = cp.Problem(cp.Minimize(0), constraints)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it may be inaccurate: what is found is checked
        try:
            problem.solve(solver=cp.CLARABEL)
        except cp.SolverError:
            return None
    return unknown.value if problem.status in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) else None


def diagonally_stable(matrix: Matrix) -> Float[np.ndarray, "unit"] | None:
    """A positive diagonal P with ``P A + A^T P < 0``, or ``None`` if there is none.

    >>> diagonally_stable(np.array([[-1.0, 9.0], [-9.0, -1.0]])) is not None
    True
    """
    cp = _cvxpy()
    p = cp.Variable(len(matrix))
    product = cp.diag(p) @ matrix
    # any scale of P will do, so that strict inequalities can be closed ones
    return _feasible(p, [p >= 1e-6, cp.sum(p) == len(matrix), product + product.T << -1e-9 * np.eye(len(matrix))])


def absolute_metric(weights: Matrix, slope: float = 1.0) -> Float[np.ndarray, "unit"] | None:
    """Theorem 1's inequality put to the solver: an independent answer to its closed form."""
    weights = square(weights, slope)
    return diagonally_stable(slope * restricted(weights) - np.eye(len(weights)))


def smallest_norm(weights: Matrix, slope: float = 1.0, *, accuracy: float = 1e-3) -> Certificate:
    """Theorem 5 with the diagonal P that makes ``||P^½ W P^-½||`` smallest (to a relative ``accuracy``), by bisection.

    >>> smallest_norm(np.array([[0.0, 9.0], [0.01, 0.0]])).rate.__round__(2)
    0.7
    """
    cp = _cvxpy()
    weights = square(weights, slope)
    best = theorem_5(weights, slope)
    p, bound = cp.Variable(len(weights)), cp.Parameter(nonneg=True)
    # W^T P W <= s² P
    inequality = weights.T @ cp.diag(p) @ weights << bound * cp.diag(p)
    constraints = [p >= 1e-6, cp.sum(p) == len(weights), inequality]

    def holds(norm: float) -> Certificate | None:
        bound.value = norm**2
        found = _feasible(p, constraints)
        return None if found is None else theorem_5(weights, slope, metric=np.diag(np.maximum(found, 1e-9)))

    low, high = float(np.abs(np.linalg.eigvals(weights)).max()), (1.0 - best.rate) / slope
    for found in _bisected(holds, low, high, accuracy):
        best = max(best, found, key=lambda c: c.rate)
    return best


def sector_metric(weights: Matrix, slope: float = 1.0, *, accuracy: float = 1e-3) -> Certificate:
    """The best rate of any constant metric with a diagonal multiplier (:func:`sector_rate`), by bisection.

    M and Lambda > 0 diagonal with, in blocks, ``[[-2 (1 - l) M, M W + Lambda], [·, -4 Lambda / g]] <= 0`` after the
    slopes are written as g/2 (1 + E): it contains theorems 2, 3 and 5.
    """
    cp = _cvxpy()
    weights = square(weights, slope)
    n = len(weights)
    M, multiplier = cp.Variable((n, n), symmetric=True), cp.Variable(n)
    bound = cp.Parameter(nonneg=True)
    corner = weights.T @ M + cp.diag(multiplier)
    block = cp.bmat([[bound * M, corner.T], [corner, cp.diag(multiplier) * (4 / slope)]])
    constraints = [block >> 0, multiplier >= 1e-7, cp.trace(M) == n, M >> 1e-7 * np.eye(n)]

    def holds(one_minus_rate: float) -> Certificate | None:
        bound.value = one_minus_rate
        metric = _feasible(M, constraints)
        if metric is None:
            return None
        try:
            root(metric)
        except ConfigurationError:
            return None
        rate = sector_rate(weights, metric, 1 / np.maximum(multiplier.value, 1e-9), slope)
        return decide("sector", (metric + metric.T) / 2, rate, rate)

    best = decide("sector", None, np.nan, -np.inf)
    for found in _bisected(holds, 0.0, 1.0, accuracy):
        best = found if found.holds and not best.rate >= found.rate else best
    return best


def constant_metric(weights: Matrix, slope: float = 1.0) -> Certificate:
    """Whether any constant metric certifies: one inequality for each of the 2^n corners of the slopes, n <= 8.

    Raises:
        ConfigurationError: more than 8 units. NotApplicableError: cvxpy is not installed.
    """
    cp = _cvxpy()
    weights = square(weights, slope)
    n = len(weights)
    if n > MOST_CORNERS:
        raise ConfigurationError(f"{n} units have {2**n} corners of slopes: at most {MOST_CORNERS} units are searched")
    M = cp.Variable((n, n), symmetric=True)
    jacobians = [weights * d - np.eye(n) for d in slope_corners(n, slope)]
    constraints = [M @ J + J.T @ M << -1e-7 * np.eye(n) for J in jacobians]
    metric = _feasible(M, [*constraints, M >> 1e-7 * np.eye(n), cp.trace(M) == n])
    if metric is None:
        return decide("constant metric", None, np.nan, -np.inf)
    rate = corner_rate(weights, metric, slope)
    return decide("constant metric", (metric + metric.T) / 2, rate, rate)


def _bisected(
    holds: Callable[[float], Certificate | None], low: float, high: float, accuracy: float
) -> list[Certificate]:
    """What was found on the way to the smallest value that holds, between one that may not and one that may."""
    found = []
    for _ in range(max(math.ceil(math.log2(max((high - low) / (accuracy * max(high, 1e-9)), 1.0))), 1)):
        middle = (low + high) / 2
        certificate = holds(middle)
        if certificate is None:
            low = middle
        else:
            high = middle
            found.append(certificate)
    return found


@functools.cache
def searched(weights: bytes, n_units: int, slope: float) -> tuple[Certificate, ...]:
    """The searches that are worth their time for a network of that size, kept by the weights' bytes."""
    matrix = np.frombuffer(weights).reshape(n_units, n_units)
    found = [smallest_norm(matrix, slope), sector_metric(matrix, slope)]
    return (*found, constant_metric(matrix, slope)) if n_units <= MOST_CORNERS // 2 else tuple(found)
