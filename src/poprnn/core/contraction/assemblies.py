"""From modules to assemblies: metrics and rates are carried up, whatever couples the modules."""

import math
from typing import Any

import numpy as np

from poprnn.core.arrays import Array, Float
from poprnn.core.contraction.certificate import (
    ROUNDING,
    Certificate,
    Matrix,
    decide,
    in_metric,
    largest_symmetric,
    square,
)


def feedback(B: Float[Array, "*pair to from"], metric_to: Any, inverse_from: Any) -> Any:
    """The negative feedback ``L_ji = -M_j^-1 B^T M_i`` that answers a coupling ``L_ij = B`` from module j to module i.

    Equation 3 of Kozachkov et al. with B_ji = 0, which loses nothing: any L with ``M_i L_ij = -L_ji^T M_j`` is of this
    form. Works on stacks of pairs, NumPy or JAX.

    >>> feedback(np.array([[3.0]]), np.array([[2.0]]), np.array([[0.25]])).tolist()
    [[-1.5]]
    """
    xp = B.__array_namespace__()
    return -inverse_from @ xp.swapaxes(B, -1, -2) @ metric_to


def hierarchy_scale(relative_norm: Any, n_levels: int) -> Any:
    """Factor e between the metrics of successive levels of a hierarchy: level k has the metric e^(2k) M.

    ``relative_norm`` is the Frobenius norm of all one-way couplings, each in its modules' metrics and divided by
    ``sqrt((l_i - l)(l_j - l))``, l the rate that is to remain. The symmetric part of what couples the levels is then
    at most e / sqrt(2) times that (e / 2 for two levels: eigenvalues come in pairs of both signs), which must not
    exceed 1. For two modules this is eps = e² = 4 (l1 - l)(l2 - l) / s². Works on NumPy and JAX numbers.

    >>> float(hierarchy_scale(np.float64(4.0), 2))
    0.5
    """
    xp = relative_norm.__array_namespace__() if hasattr(relative_norm, "__array_namespace__") else np
    share = 2.0 if n_levels == 2 else math.sqrt(2.0)
    return xp.minimum(
        xp.ones_like(relative_norm), share / xp.maximum(relative_norm, 1e-30 * xp.ones_like(relative_norm))
    )


def assembly_certificate(
    rates: Float[np.ndarray, "unit"], metric: Matrix, couplings: Matrix, *assumptions: str
) -> Certificate:
    """Modules of known rates in a block-diagonal metric, under any linear couplings L between them.

    In the coordinates in which the metric is the identity, the Jacobian's symmetric part is at most
    ``diag(-rates) + sym(R L R^-1)``, with equality in the worst case for modules of one unit. Feedback couplings have
    no symmetric part there; those of a hierarchy have a small one.

    Args:
        rates: the rate of each unit's module, in units of 1/tau.
        metric: M of the whole, block-diagonal over modules.
        couplings: L, [to, from].
        assumptions: to be added.

    Returns:
        The certificate; its margin is what the couplings leave of the smallest rate, as a share of it.

    >>> L = np.array([[0.0, 5.0], [-5.0, 0.0]])
    >>> assembly_certificate(np.array([0.2, 1.0]), np.eye(2), L).rate
    0.2
    >>> assembly_certificate(np.array([0.2, 1.0]), np.eye(2), abs(L)).holds
    False
    """
    couplings = square(couplings, 1.0)
    normal = in_metric(couplings, metric)
    rate = -largest_symmetric(normal - np.diag(rates))
    smallest = float(np.min(rates))
    return decide("assembly", metric, rate, rate / smallest if smallest > 0 else smallest, *assumptions)


def euler_factor(normal: Matrix, module_norm: float, step: float) -> float:
    """Bound on what an Euler step does to distances, ``||(1 - a) I + a N|| + a rho``, N the couplings in the metric.

    >>> round(euler_factor(np.array([[0.0, 1.0], [-1.0, 0.0]]), 0.5, 0.1), 4)        # sqrt(0.9² + 0.1²) + 0.05
    0.9555
    """
    n = len(normal)
    return float(np.linalg.norm((1 - step) * np.eye(n) + step * normal, 2)) + step * module_norm


def largest_step(normal: Matrix, module_norm: float, rate: float, jacobian_norm: float) -> float:
    """The largest certified Euler step, in units of tau: below it every step brings trajectories nearer.

    For modules with ``g ||P^½ W P^-½|| = rho < 1`` under feedback, s = ||N||, it is 2 (1 - rho) / (1 + s² - rho²);
    under other couplings the end of the interval in which :func:`euler_factor` (convex, 1 at 0) is below 1. For other
    modules, ``||I + a J||² <= 1 - 2 a l + a² ||J||²`` gives 2 l / (sqrt bound of ||J||)².

    Args:
        normal: the couplings in the coordinates of the metric, ``R L R^-1``.
        module_norm: rho, the largest of all modules; 1 or more where theorem 5 does not hold.
        rate: l of the assembly.
        jacobian_norm: the largest ``||R W D R^-1||`` of all modules.

    >>> N = np.array([[0.0, 2.0], [-2.0, 0.0]])
    >>> round(largest_step(N, 0.5, 0.5, 0.5), 4), round(2 * 0.5 / (1 + 4 - 0.25), 4)
    (0.2105, 0.2105)
    """
    if not rate > 0:
        return 0.0
    n, norm = len(normal), float(np.linalg.norm(normal, 2))
    whole = float(np.linalg.norm(normal - np.eye(n), 2)) + jacobian_norm
    general = 2 * rate / whole**2
    if module_norm >= 1 - ROUNDING:
        return general
    skew = np.abs(normal + normal.T).max(initial=0.0) <= ROUNDING * max(norm, 1.0)
    if skew:
        return max(general, 2 * (1 - module_norm) / (1 + norm**2 - module_norm**2))
    low, high = 0.0, 2.0
    for _ in range(50):
        middle = (low + high) / 2
        inside = euler_factor(normal, module_norm, middle) < 1
        low, high = (middle, high) if inside else (low, middle)
    return max(general, low)
