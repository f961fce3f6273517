"""From the ends of many searches to different points, and what a network does near them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from poprnn.analysis._constant_input import Still
from poprnn.core.arrays import Array, Bool, Float, Int, Scalar


class Points(NamedTuple):
    """Different points of one network, the most often reached first; rows from ``n`` on are empty."""

    n: Int[Array, ""]
    state: Float[Array, "point dimension"]
    speed: Float[Array, "point"]
    """``|F(h) - h|``."""
    n_starts: Int[Array, "point"]
    activity: Float[Array, "point unit"]
    readout: Float[Array, "point output"]
    eigenvalue_real: Float[Array, "point dimension"]
    eigenvalue_imag: Float[Array, "point dimension"]
    """Of the Jacobian of F, by falling modulus."""


def different_points(
    still: Still,
    states: Float[Array, "start dimension"],
    speeds: Float[Array, "start"],
    valid: Bool[Array, "start"],
    polish: Bool[Array, ""],
    radius: Scalar,
) -> Points:
    """Points no two of which are within ``radius``, and what the network does there.

    The slowest state left becomes a point and takes all states within the radius with it, until none is left: unlike
    single linkage this does not join a line of neighbours into one. ``polish``: a Newton step is tried at the end.
    """
    n_starts = states.shape[0]
    order = jnp.argsort(jnp.where(valid, speeds, jnp.inf)).astype(jnp.int32)

    def look(i: Array, carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        def take(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
            n, chosen, counts, free = carry
            near = free & (jnp.linalg.norm(states - states[order[i]], axis=1) <= radius)
            near = near.at[order[i]].set(True)
            n_near = jnp.sum(near, dtype=jnp.int32)
            return n + 1, chosen.at[n].set(order[i]), counts.at[n].set(n_near), free & ~near

        return lax.cond(carry[3][order[i]], take, lambda carry: carry, carry)

    zeros = jnp.zeros(n_starts, jnp.int32)
    n, chosen, counts, _ = lax.fori_loop(0, n_starts, look, (jnp.int32(0), zeros, zeros, valid))
    by_count = jnp.argsort(-counts, stable=True)
    return _described(still, n, states[chosen[by_count]], counts[by_count], polish)


def _described(
    still: Still,
    n: Array,
    states: Float[Array, "point dimension"],
    counts: Int[Array, "point"],
    polish: Bool[Array, ""],
) -> Points:
    """Jacobians are taken at real points only, one after another."""
    n_rows, size = states.shape
    identity = jnp.eye(size, dtype=states.dtype)

    def one(h: Array) -> tuple[Array, ...]:
        r = still.step(h) - h
        better = h - jnp.linalg.solve(jax.jacfwd(still.step)(h) - identity, r)
        r_better = still.step(better) - better
        improves = polish & (jnp.linalg.norm(r_better) < jnp.linalg.norm(r))
        h, r = jnp.where(improves, better, h), jnp.where(improves, r_better, r)
        eigenvalues = jnp.linalg.eigvals(jax.jacfwd(still.step)(h))
        eigenvalues = eigenvalues[jnp.argsort(-jnp.abs(eigenvalues))]
        return h, jnp.linalg.norm(r), still.activity(h), still.output(h), eigenvalues.real, eigenvalues.imag

    empty = jax.tree.map(lambda s: jnp.full((n_rows, *s.shape), jnp.nan, s.dtype), jax.eval_shape(one, states[0]))

    def put(i: Array, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        return jax.tree.map(lambda a, value: a.at[i].set(value), rows, one(states[i]))

    state, speed, *rest = lax.fori_loop(0, n, put, empty)
    return Points(n, state, speed, counts, *rest)


def variance_shares(points: Points) -> Float[Array, "component"]:
    """Share of each principal component in the variance of the points, each counted once; NaN below two points."""
    real = (jnp.arange(points.state.shape[0]) < points.n)[:, None]
    mean = jnp.sum(jnp.where(real, points.state, 0), axis=0) / points.n
    values = jnp.linalg.svd(jnp.where(real, points.state - mean, 0), full_matrices=False, compute_uv=False) ** 2
    shares = jnp.zeros(points.state.shape[1]).at[: values.shape[0]].set(values) / jnp.sum(values)
    return jnp.where(points.n > 1, shares, jnp.nan)
