"""Directions on a ring of units: the bump of activity that stands for one, and back."""

import jax.numpy as jnp
import numpy as np

from poprnn.core.arrays import Array, Float

N_RING = 32
"""Units of a ring (Yang et al. 2019)."""
PEAK, WIDTH = 0.8, np.pi / 8
"""Height of a bump and its standard deviation in radians (Yang et al. 2019)."""


def preferred_directions() -> Float[np.ndarray, "unit"]:
    """Unit i prefers ``2 pi i / 32``."""
    return 2 * np.pi * np.arange(N_RING) / N_RING


def distance(a: Float[Array, "..."] | float, b: Float[Array, "..."] | float) -> Float[Array, "..."]:
    """Between two directions, the shorter way round: 0 to pi.

    >>> round(float(distance(0.1, 2 * np.pi - 0.2)), 4)
    0.3
    """
    return jnp.abs(jnp.mod(jnp.asarray(a) - b + np.pi, 2 * np.pi) - np.pi)


def bump(direction: Float[Array, "..."]) -> Float[Array, "... unit"]:
    """``0.8 exp(-(8 d / pi)² / 2)``, d each unit's distance from the direction.

    >>> np.asarray(bump(jnp.asarray(np.pi)))[15:18].round(3)     # unit 16 prefers pi
    array([0.706, 0.8  , 0.706], dtype=float32)
    """
    away = distance(jnp.asarray(direction)[..., None], jnp.asarray(preferred_directions()))
    return PEAK * jnp.exp(-0.5 * (away / WIDTH) ** 2)


def population_direction(activity: Float[Array, "... unit"]) -> Float[Array, "..."]:
    """Direction of the population vector ``sum_i a_i (cos, sin)(2 pi i / 32)``, in -pi to pi.

    >>> round(float(population_direction(bump(jnp.asarray(1.0)) + 0.05)), 3)
    1.0
    """
    preferred = preferred_directions()
    return jnp.arctan2(activity @ np.sin(preferred), activity @ np.cos(preferred))
