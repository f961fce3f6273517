"""What an orbit of a map settles to: its size, its period, and how fast neighbours come near."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from poprnn.analysis._constant_input import Still
from poprnn.core.arrays import Array, Bool, Float, Scalar

UPSAMPLING = 16
"""Lags between two steps at which an autocorrelation is looked at: periods are not whole numbers of steps."""
SAME = 1e-6
"""Relative distance that is rounding: that of the autocorrelation, 1e-13 for some thousand steps, is that of D²."""


class Orbit(NamedTuple):
    """The long run of one start."""

    mean: Float[Array, "dimension"]
    size: Scalar
    """Root mean square distance from the mean."""
    returns: Bool[Array, ""]
    period: Scalar
    """Steps; NaN where it does not return."""
    distance: Scalar
    """Of the states one period apart, relative to the size."""
    low: Float[Array, "output"]
    high: Float[Array, "output"]
    exponents: Float[Array, "direction"]


def follow(
    network: Still, start: Float[Array, "dimension"], burn_in: Array, n_steps: int, n_directions: int, tolerance: Scalar
) -> Orbit:
    """Run for ``burn_in`` steps and then ``n_steps`` that count, with tangent vectors, and look for a period."""
    tangents = jnp.eye(start.shape[0], n_directions, dtype=start.dtype)

    def step(carry: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        h, directions = carry
        new, push = jax.linearize(network.step, h)
        directions, R = jnp.linalg.qr(jax.vmap(push, in_axes=1, out_axes=1)(directions))
        return (new, directions), jnp.log(jnp.abs(jnp.diagonal(R)))

    def record(i: Array, loop: tuple[tuple[Array, Array], Array, Array]) -> tuple[tuple[Array, Array], Array, Array]:
        carry, growth = step(loop[0])
        # what the transient writes is written over by the first step that counts
        row = jnp.maximum(i - burn_in, 0)
        return carry, loop[1].at[row].set(carry[0]), loop[2].at[row].set(growth)

    empty = jnp.zeros((n_steps, start.shape[0]), start.dtype), jnp.zeros((n_steps, n_directions), start.dtype)
    states, growth = lax.fori_loop(0, burn_in + n_steps, record, ((start, tangents), *empty))[1:]
    outputs = jax.vmap(network.output)(states)
    mean = jnp.mean(states, axis=0)
    size = jnp.sqrt(jnp.mean(jnp.sum((states - mean) ** 2, axis=1)))
    returns, period, distance = period_of(states, tolerance)
    exponents = _mean_growth(growth, jnp.where(returns, period, 1.0))
    return Orbit(mean, size, returns, period, distance, outputs.min(axis=0), outputs.max(axis=0), exponents)


def period_of(
    states: Float[Array, "time dimension"], tolerance: Scalar | float
) -> tuple[Bool[Array, ""], Scalar, Scalar]:
    """Whether an orbit returns, its period in steps, and the distance of the return relative to the orbit's size.

    With D(k) the root mean square distance of states k steps apart, relative to the orbit's size, the period is near
    the first minimum with ``D <= tolerance`` after D was larger, up to half the orbit. D² is 2 - 2 C, C the
    autocorrelation summed over units, which is known between whole steps too as long as the orbit is smooth enough for
    its sampling (the sampling theorem); returns after 2, 4, 8 … periods then give the period to a small fraction of a
    step. Where states a whole number of steps apart are the same, it is that number.

    >>> angle = 2 * jnp.pi * jnp.arange(400) / 7.3
    >>> returns, period, _ = period_of(jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1), 0.1)
    >>> bool(returns), round(float(period), 2)
    (True, 7.3)
    """
    n_steps = states.shape[0]
    correlation = _autocorrelation(states - jnp.mean(states, axis=0))
    distance = jnp.sqrt(jnp.maximum(2 - 2 * correlation, 0))
    middle = correlation[1:-1]
    left = jnp.cumsum(distance[:-2] > tolerance) > 0
    peak = left & (middle >= correlation[:-2]) & (middle > correlation[2:]) & (distance[1:-1] <= tolerance)
    returns = jnp.any(peak)
    lag = jnp.arange(correlation.shape[0]) / UPSAMPLING
    first = _between(correlation, jnp.argmax(peak) + 1)

    def refine(i: Array, period: Array) -> Array:
        """From the return after 2^i periods, if there is one."""
        far = period * 2.0**i
        near = jnp.abs(lag - far) <= period / 4
        place = jnp.clip(jnp.argmax(jnp.where(near, correlation, -jnp.inf)), 1, correlation.shape[0] - 2)
        known = (far + period / 4 <= lag[-1]) & (distance[place] <= tolerance)
        return jnp.where(known, _between(correlation, place) / 2.0**i, period)

    period = lax.fori_loop(1, max(n_steps.bit_length() - 1, 2), refine, first)
    place = jnp.clip(jnp.round(period * UPSAMPLING).astype(jnp.int32), 0, correlation.shape[0] - 1)
    whole = jnp.clip(jnp.round(period).astype(jnp.int32), 1, n_steps // 2)
    same = distance[whole * UPSAMPLING] <= SAME
    period, place = jnp.where(same, whole, period), jnp.where(same, whole * UPSAMPLING, place)
    return returns, jnp.where(returns, period, jnp.nan), jnp.where(returns, distance[place], jnp.nan)


def _autocorrelation(x: Float[Array, "time dimension"]) -> Float[Array, "lag"]:
    """Correlation of an orbit with itself, for lags up to half its length, in fractions of a step.

    Divided by the mean power of the two stretches that are compared, so that it is 1 at the period of an orbit
    whatever part of a further period is cut off at the end.
    """
    n_steps = x.shape[0]
    power = jnp.sum(jnp.abs(jnp.fft.rfft(x, 2 * n_steps, axis=0)) ** 2, axis=1)
    power = power.at[-1].multiply(0.5)  # the highest frequency stands for two once there are higher ones
    products = UPSAMPLING * jnp.fft.irfft(power, 2 * n_steps * UPSAMPLING)
    energy = jnp.concatenate([jnp.zeros(1, x.dtype), jnp.cumsum(jnp.sum(x**2, axis=1))])
    lag = jnp.arange(n_steps // 2 * UPSAMPLING + 1)
    whole = jnp.arange(n_steps + 1)
    stretches = (energy[n_steps - whole] + energy[n_steps] - energy[whole]) / 2
    return products[lag] / jnp.interp(lag / UPSAMPLING, whole, stretches)


def _between(correlation: Float[Array, "lag"], place: Array) -> Array:
    """Lag in steps of a maximum, by the parabola through it and its neighbours."""
    before, here, after = (correlation[place + k] for k in (-1, 0, 1))
    curvature = before - 2 * here + after
    shift = jnp.where(curvature < 0, (before - after) / (2 * jnp.where(curvature < 0, curvature, 1.0)), 0.0)
    return (place + jnp.clip(shift, -0.5, 0.5)) / UPSAMPLING


def _mean_growth(growth: Float[Array, "time direction"], period: Array) -> Float[Array, "direction"]:
    """Mean logarithmic growth a step over as many whole periods as there are."""
    n_steps = growth.shape[0]
    total = jnp.concatenate([jnp.zeros((1, growth.shape[1]), growth.dtype), jnp.cumsum(growth, axis=0)])
    span = jnp.floor(n_steps / period) * period
    at_end = jax.vmap(lambda sums: jnp.interp(span, jnp.arange(n_steps + 1), sums), in_axes=1)(total)
    return at_end / span
