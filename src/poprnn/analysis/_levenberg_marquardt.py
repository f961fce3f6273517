"""Searching the still points of a map: Levenberg–Marquardt on the squared speed, from one start."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from poprnn.core import loops
from poprnn.core.arrays import Array, Bool, Count, Float, Scalar

DAMPING = 1.0
"""The damping is this times the squared residual at the start, and then as the agreement with the model says."""
DAMPING_MIN, DAMPING_MAX = 1e-8, 1e12
"""Beyond the second no step improves anything: the residual is rounding, or its norm is at a minimum."""
STALLED = 1e-8
"""At a minimum of the squared residual that is no root, the gradient is this small relative to the residual."""


class Criteria(NamedTuple):
    """What counts as still; numbers, of which a program may be given other ones."""

    tolerance: Any
    """A root has ``|r| <= tolerance · max(1, |h|)``."""
    slow: Any
    """A slow point has ``q = |r|² / 2`` of at most this …"""
    gradient: Any
    """… and ``|dq/dh|`` of at most this."""
    n_iterations: Any


class Search(NamedTuple):
    """Where a search led. Further axes (starts) come first."""

    state: Float[Array, "dimension"]
    """Where it ended."""
    residual: Scalar
    """``|r|`` there."""
    is_root: Bool[Array, ""]
    slow_state: Float[Array, "dimension"]
    """The first state on the way that counts as slow; a root counts too."""
    slow_speed: Scalar
    """``|r|`` there."""
    is_slow: Bool[Array, ""]
    n_iterations: Count


class _Loop(NamedTuple):
    found: Search
    r: Float[Array, "dimension"]
    damping: Scalar
    done: Bool[Array, ""]


def search(
    residual: Callable[[Float[Array, "dimension"]], Float[Array, "dimension"]],
    start: Float[Array, "dimension"],
    criteria: Criteria,
) -> Search:
    """Minimise ``q(h) = |r(h)|² / 2`` from one start, with the exact Jacobian J of r:

        h <- h - (J' J + mu I)^-1 J' r,      mu = damping · |r|²,

    a step being taken if q falls. The damping is quartered or made four times as large as q falls by more than 3/4 or
    less than 1/4 of what the linear model says. With mu proportional to ``|r|²`` the last steps are quadratic even
    where roots are not isolated (on a line of fixed points), and go to a root that is near: no start is thrown far
    along a direction in which hardly anything moves.

    References: Marquardt, An algorithm for least-squares estimation of nonlinear parameters, SIAM J. 1963; Yamashita &
    Fukushima, On the rate of convergence of the Levenberg–Marquardt method, Computing Suppl. 2001.

    >>> found = search(lambda h: h**2 - 2, jnp.array([1.0]), Criteria(1e-6, 1e-4, 1e-4, 50))
    >>> bool(found.is_root), round(float(found.state[0]), 4)
    (True, 1.4142)
    """
    size = start.shape[0]
    identity = jnp.eye(size, dtype=start.dtype)
    floor = jnp.finfo(start.dtype).eps / size

    def is_root(h: Array, r: Array) -> Array:
        return jnp.linalg.norm(r) <= criteria.tolerance * jnp.maximum(1.0, jnp.linalg.norm(h))

    def step(loop: _Loop) -> _Loop:
        h, r = loop.found.state, loop.r
        J = jax.jacfwd(residual)(h)
        gradient, normal, square = r @ J, J.T @ J, r @ r
        found = _mark_slow(loop.found, h, gradient, criteria)
        # the floor, a rounding error of the largest eigenvalue, keeps the factorisation possible where J is singular
        mu = loop.damping * square + floor * jnp.trace(normal)
        change = -jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(normal + mu * identity), gradient)
        new = h + change
        r_new = residual(new)
        expected, gained = square - jnp.sum((r + J @ change) ** 2), square - r_new @ r_new
        taken = gained > 0  # false as well where something is not a number
        factor = jnp.where(gained > 0.75 * expected, 0.25, jnp.where(gained > 0.25 * expected, 1.0, 4.0))
        damping = jnp.maximum(loop.damping * jnp.where(taken, factor, 4.0), DAMPING_MIN)
        h, r = jnp.where(taken, new, h), jnp.where(taken, r_new, r)
        found = found._replace(
            state=h, residual=jnp.linalg.norm(r), is_root=is_root(h, r), n_iterations=found.n_iterations + 1
        )
        stalled = jnp.linalg.norm(gradient) <= STALLED * jnp.sqrt(square)
        ended = found.is_root | stalled | (damping > DAMPING_MAX) | (found.n_iterations >= criteria.n_iterations)
        return _Loop(found, r, damping, ended | ~jnp.isfinite(square))

    r = residual(start)
    speed, never = jnp.linalg.norm(r), jnp.zeros((), bool)
    found = Search(start, speed, is_root(start, r), start, speed, never, jnp.zeros((), jnp.int32))
    loop = _Loop(found, r, jnp.asarray(DAMPING, start.dtype), found.is_root)
    found = loops.while_loop(lambda loop: ~loop.done, step, loop).found
    late = found.is_root & ~found.is_slow
    return found._replace(
        slow_state=jnp.where(late, found.state, found.slow_state),
        slow_speed=jnp.where(late, found.residual, found.slow_speed),
        is_slow=found.is_slow | late,
    )


def _mark_slow(found: Search, h: Array, gradient: Array, criteria: Criteria) -> Search:
    """The first state that counts as slow is remembered."""
    slow = (found.residual**2 <= 2 * criteria.slow) & (jnp.linalg.norm(gradient) <= criteria.gradient)
    first = slow & ~found.is_slow
    return found._replace(
        slow_state=jnp.where(first, h, found.slow_state),
        slow_speed=jnp.where(first, found.residual, found.slow_speed),
        is_slow=found.is_slow | slow,
    )
