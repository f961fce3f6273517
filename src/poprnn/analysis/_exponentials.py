"""Least-squares fits of one and of two decaying exponentials to many short series at once.

With q = exp(-1 / tau) the model at lag t is a_1 q_1^t + a_2 q_2^t, amplitudes in [0, 1] and q in [0, q_max]. For given
q the amplitudes are a quadratic problem in a box, solved in closed form. What remains is a function of two numbers
with a closed gradient and Hessian: Newton's method, its steps again quadratic problems in a box, takes a few steps from
the best point of a grid. A single exponential is the same with no room for a_2.

This is NumPy, not a least-squares library: nothing waits for a compiler, series that have converged leave the batch,
and bounds are met exactly. Compiled Levenberg-Marquardt (optimistix, parameters through a logistic function) from the
same starts was tried: about as fast once it is compiled, but where a solution lies on a bound, as most without a
second component do, it creeps: half of the fits were not done after 200 steps, one in twelve ended visibly higher.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from poprnn.core.arrays import Bool, Float

N_GRID = 40
"""Time constants on the grid of starts."""
FEW_STEPS = 30
"""Newton steps from every start; nearly all take fewer."""
MAX_STEPS = 300
"""More steps from the best of them before a fit counts as failed."""
NEAR = 1e-4
"""An amplitude this close to a bound is at a kink if a step wants to cross the bound."""
TRUSTED = 1e-9
"""Smallest damping; it is larger after a step that failed."""
BLOCK = 2048
"""Series worked on at once: memory for 780 pairs of the grid each."""

Vector = Float[np.ndarray, "series"]
Pair = Float[np.ndarray, "2 series"]
Curves = Float[np.ndarray, "lag series"]
Symmetric = tuple[Vector, Vector, Vector]
"""Elements 11, 12 and 22 of many matrices."""


class Fit(NamedTuple):
    """Fits of one model to many series; NaN where it failed."""

    amplitude: Float[np.ndarray, "component series"]
    tau: Float[np.ndarray, "component series"]
    """In lags; the slowest component is last."""
    rss: Vector
    """Residual sum of squares."""


class _Point(NamedTuple):
    """The problem at some q, with the best amplitudes."""

    q: Pair
    half_rss: Vector
    amplitude: Pair
    gradient: Pair
    """By q; amplitudes that are the best ones do not add to it."""
    curvature: Float[np.ndarray, "3 series"]
    """Second derivatives by q_1 q_1, q_1 q_2, q_2 q_2 with the amplitudes held."""
    mixed: Float[np.ndarray, "4 series"]
    """By q_1 a_1, q_1 a_2, q_2 a_1, q_2 a_2."""
    gram: Float[np.ndarray, "3 series"]
    """By the amplitudes."""


def fit_exponentials(y: Float[np.ndarray, "series lag"], tau_max: Vector) -> tuple[Fit, Fit]:
    """The best single exponential and the best sum of two for lags 0, 1, …; ``tau_max`` counts lags too."""
    one, two = _nothing(1, len(y)), _nothing(2, len(y))
    usable = np.flatnonzero(np.isfinite(y).all(axis=1))
    for part in (usable[i : i + BLOCK] for i in range(0, len(usable), BLOCK)):
        for whole, fit in zip((one, two), _fit_block(np.ascontiguousarray(y[part].T), tau_max[part]), strict=True):
            for array, values in zip(whole, fit, strict=True):
                array[..., part] = values
    return one, two


def curves(fit: Fit, n_lags: int) -> Float[np.ndarray, "... lag"]:
    """The fitted sums of exponentials; series may have several axes."""
    return np.einsum("c...,tc...->...t", fit.amplitude, _powers(_decay(fit.tau), n_lags))


def _nothing(n_components: int, n_series: int) -> Fit:
    return Fit(*(np.full(shape, np.nan) for shape in 2 * [(n_components, n_series)] + [(n_series,)]))


def _fit_block(y: Curves, tau_max: Vector) -> tuple[Fit, Fit]:
    q_max = _decay(tau_max)
    grid = np.append(0.0, _decay(np.geomspace(0.3, max(tau_max.max(), 0.6), N_GRID - 1)))
    bases = _powers(grid, len(y))
    gram, onto = bases.T @ bases, bases.T @ y
    squared = np.diag(gram)[:, None]
    outside = grid[:, None] > q_max * (1 + 1e-12)  # of series with a smaller bound than others

    def best(cost: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        return np.where(allowed, cost, np.inf).argmin(axis=0)

    costs = np.where(outside, np.inf, _box((onto, 0.0), (squared, 0.0, 1.0), (1.0, 0.0))[2])
    start = grid[costs.argmin(axis=0)]
    bound = _powers(q_max, len(y))  # where the grid has only 0 below a small bound, the search would not leave it
    cost_at_bound = _box((_dot(bound, y), 0.0), (_dot(bound, bound), 0.0, 1.0), (1.0, 0.0))[2]
    start = np.where(cost_at_bound < costs.min(axis=0), q_max, start)
    single = _search(y, [np.stack([start, start])], np.zeros_like(q_max), q_max)

    first, second = np.triu_indices(N_GRID, 1)
    pairs = _box((onto[first], onto[second]), (squared[first], gram[first, second, None], squared[second]), (1.0, 1.0))
    chosen = best(pairs[2], ~outside[second])
    # near one exponential the grid straddles it with two; what is wanted is that one and something faster or slower
    main = _powers(single[0].q[0], len(y))
    added = _box((_dot(main, y), onto), (_dot(main, main), bases.T @ main, squared), (1.0, 1.0))[2]
    slower = grid[:, None] > single[0].q[0]
    starts = [
        np.stack([grid[first[chosen]], grid[second[chosen]]]),
        *(np.stack([single[0].q[0], grid[best(added, side & ~outside)]]) for side in (slower, ~slower)),
    ]
    return _answer(*single, 1), _answer(*_search(y, starts, np.ones_like(q_max), q_max), 2)


def _search(y: Curves, starts: list[Pair], room: Vector, q_max: Vector) -> tuple[_Point, Bool[np.ndarray, "series"]]:
    """The lowest of the minima found from several starts, and whether it is one.

    Of starts that need many steps, most are on their way along a valley to where others are already.
    """
    n = len(starts)
    tile = lambda a: np.tile(a, n)
    found, converged = _newton(tile(y), np.concatenate(starts, axis=1), tile(room), tile(q_max), FEW_STEPS)
    lowest = found.half_rss.reshape(n, -1).argmin(axis=0) * len(room) + np.arange(len(room))
    found, converged = _Point(*(a[..., lowest] for a in found)), converged[lowest]
    if not converged.all():
        left = np.flatnonzero(~converged)
        more, converged[left] = _newton(y[:, left], found.q[:, left], room[left], q_max[left], MAX_STEPS)
        _put(found, left, more, np.ones(len(left), bool))
    return found, converged


def _answer(point: _Point, converged: Bool[np.ndarray, "series"], n_components: int) -> Fit:
    """In terms of tau, sorted."""
    with np.errstate(divide="ignore"):
        tau = -1 / np.log(point.q[:n_components])
    order = np.argsort(tau, axis=0)
    sort = lambda a: np.take_along_axis(a[:n_components], order, axis=0)
    return Fit(*(np.where(converged, a, np.nan) for a in (sort(point.amplitude), sort(tau), 2 * point.half_rss)))


def _newton(y: Curves, q: Pair, room: Vector, q_max: Vector, n_steps: int) -> tuple[_Point, Bool[np.ndarray, "series"]]:
    """Minima near the starts ``q``, and whether they were found; ``room`` bounds the second amplitude."""
    here = _evaluate(y, np.minimum(q, q_max), room)
    answer = _Point(*(a.copy() for a in here))
    converged = np.zeros(len(room), bool)
    live = np.arange(len(room))
    damping = np.full(len(room), 1e-6)
    size = _dot(y, y)
    for _ in range(n_steps):
        target, expected = _step(here, damping, q_max, room)
        there = _evaluate(y, target, room)
        gain = here.half_rss - there.half_rss
        # a step that promises nothing ends the search, whether it is the step or its damping that says so
        done = (expected <= 1e-13 * here.half_rss + 1e-20 * size) & ((damping < 1e-2) | (gain <= 0))
        done |= damping > 1e12
        damping = np.where(gain >= 0.1 * expected, 0.1 * damping, 10 * np.maximum(damping, 1e-5))
        damping = np.maximum(damping, TRUSTED)
        here = _Point(*(np.where(gain > 0, new, old) for new, old in zip(there, here, strict=True)))
        if done.any():
            _put(answer, live[done], here, done)
            converged[live[done]] = True
            keep = ~done
            y, room, q_max, damping, size, live = (a[..., keep] for a in (y, room, q_max, damping, size, live))
            here = _Point(*(a[..., keep] for a in here))
            if not len(live):
                break
    _put(answer, live, here, np.ones(len(live), bool))
    return answer, converged


def _put(answer: _Point, places: np.ndarray, point: _Point, chosen: np.ndarray) -> None:
    for whole, part in zip(answer, point, strict=True):
        whole[..., places] = part[..., chosen]


def _step(here: _Point, damping: Vector, q_max: Vector, room: Vector) -> tuple[Pair, Vector]:
    """The minimum of the quadratic model in the box, and how much lower it promises to be than here.

    The function has a kink where an amplitude meets its bound. After a step that failed, an amplitude that is all but
    there and would be pushed over is put on its bound: this model leads along the kink.
    """
    upper = np.stack([np.ones_like(room), room])
    free = (here.amplitude > 0) & (here.amplitude < upper)
    target, expected, move = _newton_step(here, free, np.zeros_like(here.q), damping, q_max)
    after = here.amplitude + move
    bound = np.where(after < 0, 0, upper)
    stays = free & ((after < 0) | (after > upper)) & (np.abs(bound - here.amplitude) < NEAR) & (damping > TRUSTED)
    if stays.any():
        kink = stays.any(axis=0)
        other = _newton_step(here, free & ~stays, np.where(stays, bound - here.amplitude, 0), damping, q_max)
        target, expected = np.where(kink, other[0], target), np.where(kink, other[1], expected)
    return target, expected


def _newton_step(
    here: _Point, free: np.ndarray, shift: Pair, damping: Vector, q_max: Vector
) -> tuple[Pair, Vector, Pair]:
    """As :func:`_step`, with some amplitudes free and others shifted, and how the free ones would move.

    Curvatures enter by their size, as seen with both variables scaled to unit curvature: along the valleys of
    exponentials that nearly coincide the true one is small, and any cruder measure makes the steps small, too.
    """
    g11, g12, g22 = here.gram
    k11, k22, k12 = np.where(free[0], g11, 1.0), np.where(free[1], g22, 1.0), np.where(free.all(axis=0), g12, 0.0)
    determinant = np.maximum(k11 * k22 - k12**2, 1e-14 * k11 * k22)
    v11, v12, v22 = np.where(free[0], k22 / determinant, 0), -k12 / determinant, np.where(free[1], k11 / determinant, 0)
    x11, x12, x21, x22 = here.mixed
    z11, z12, z21, z22 = v11 * x11 + v12 * x12, v12 * x11 + v22 * x12, v11 * x21 + v12 * x22, v12 * x21 + v22 * x22
    h11, h12, h22 = here.curvature - np.stack([x11 * z11 + x12 * z12, x21 * z11 + x22 * z12, x21 * z21 + x22 * z22])

    m11, m12, m22 = _damped(h11, h12, h22, damping)
    (q1, q2), (d1, d2), (f1, f2) = here.q, here.gradient, shift
    e1, e2 = g11 * f1 + g12 * f2, g12 * f1 + g22 * f2
    d1, d2 = d1 + x11 * f1 + x12 * f2 - z11 * e1 - z12 * e2, d2 + x21 * f1 + x22 * f2 - z21 * e1 - z22 * e2
    target = np.stack(_box((m11 * q1 + m12 * q2 - d1, m12 * q1 + m22 * q2 - d2), (m11, m12, m22), (q_max, q_max))[:2])
    s1, s2 = target - here.q
    expected = -(d1 * s1 + d2 * s2) - (m11 * s1 * s1 / 2 + m12 * s1 * s2 + m22 * s2 * s2 / 2)
    return target, expected, -np.stack([z11 * s1 + z21 * s2, z12 * s1 + z22 * s2])


def _damped(h11: Vector, h12: Vector, h22: Vector, damping: Vector) -> Symmetric:
    """Eigenvalues, scaled to unit curvature, made positive and raised by the damping."""
    w1, w2 = (np.sqrt(np.abs(h) + 1e-30) for h in (h11, h22))
    s11, s12, s22 = h11 / (w1 * w1), h12 / (w1 * w2), h22 / (w2 * w2)
    middle, half = (s11 + s22) / 2, (s11 - s22) / 2
    radius, angle = np.hypot(half, s12), np.arctan2(s12, half) / 2
    c, s = np.cos(angle), np.sin(angle)
    high, low = np.abs(middle + radius) + damping, np.abs(middle - radius) + damping
    m11, m12, m22 = c * c * high + s * s * low, c * s * (high - low), s * s * high + c * c * low
    return m11 * w1 * w1, m12 * w1 * w2, m22 * w2 * w2


def _evaluate(y: Curves, q: Pair, room: Vector) -> _Point:
    """The best amplitudes at q, half the residual sum of squares there, and derivatives of the whole problem."""
    powers = _powers(q, len(y))
    t = np.arange(len(y))[:, None, None]
    slopes, bends = np.zeros_like(powers), np.zeros_like(powers)
    slopes[1:] = t[1:] * powers[:-1]
    bends[2:] = (t * (t - 1))[2:] * powers[:-2]
    (p1, p2), (d1, d2), (e1, e2) = (np.moveaxis(a, 1, 0) for a in (powers, slopes, bends))
    gram = (_dot(p1, p1), _dot(p1, p2), _dot(p2, p2))
    a1, a2, _ = _box((_dot(p1, y), _dot(p2, y)), gram, (1.0, room))
    r = y - a1 * p1 - a2 * p2
    r1, r2 = _dot(r, d1), _dot(r, d2)
    c11, c12, c22 = a1 * _dot(d1, d1) - _dot(r, e1), a1 * a2 * _dot(d1, d2), a2 * _dot(d2, d2) - _dot(r, e2)
    x11, x12, x21, x22 = a1 * _dot(d1, p1) - r1, a1 * _dot(d1, p2), a2 * _dot(d2, p1), a2 * _dot(d2, p2) - r2
    return _Point(
        q,
        half_rss=_dot(r, r) / 2,
        amplitude=np.stack([a1, a2]),
        gradient=np.stack([-a1 * r1, -a2 * r2]),
        curvature=np.stack([a1 * c11, c12, a2 * c22]),
        mixed=np.stack([x11, x12, x21, x22]),
        gram=np.stack(gram),
    )


def _box(b: tuple, matrix: tuple, upper: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``x`` in [0, upper_1] x [0, upper_2] with the least ``x·M x / 2 - b·x``, and that value; element by element.

    The least value inside, if it is inside, or the least on one of the four edges.
    """
    (b1, b2), (m11, m12, m22), (u1, u2) = b, matrix, upper
    cost = lambda x1, x2: (m11 * x1 / 2 + m12 * x2 - b1) * x1 + (m22 * x2 / 2 - b2) * x2
    determinant = m11 * m22 - m12 * m12
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        x1, x2 = (m22 * b1 - m12 * b2) / determinant, (m11 * b2 - m12 * b1) / determinant
        inside = (determinant > 1e-14 * m11 * m22) & (x1 >= 0) & (x1 <= u1) & (x2 >= 0) & (x2 <= u2)
        x1, x2 = np.where(inside, x1, 0.0), np.where(inside, x2, 0.0)
        least = np.where(inside, cost(x1, x2), np.inf)
        for x2_end in (0.0, u2):
            x1, x2, least = _lower((np.clip((b1 - m12 * x2_end) / m11, 0, u1), x2_end), cost, (x1, x2, least))
        for x1_end in (0.0, u1):
            x1, x2, least = _lower((x1_end, np.clip((b2 - m12 * x1_end) / m22, 0, u2)), cost, (x1, x2, least))
    return x1, x2, least


def _lower(point: tuple, cost: Callable[..., np.ndarray], best: tuple) -> tuple:
    value = cost(*point)
    lower = value < best[2]
    return tuple(np.where(lower, new, old) for new, old in zip((*point, value), best, strict=True))


def _powers(q: np.ndarray, n: int) -> np.ndarray:
    """``q ** [0, …, n - 1]`` along a new first axis."""
    powers = np.ones((n, *np.shape(q)))
    powers[1:] = q
    return np.cumprod(powers, axis=0, out=powers)


def _decay(tau: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.exp(-1 / np.asarray(tau, np.float64))


def _dot(a: Curves, b: Curves) -> Vector:
    return np.einsum("ts,ts->s", a, b)
