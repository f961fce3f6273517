"""Drives that several cells share."""

from typing import Any

import jax

from poprnn.core.arrays import Array, Float, PRNGKey
from poprnn.core.blueprint import is_zero


def noisy(drive: Float[Array, "unit"], noise: Any, *, key: PRNGKey) -> Float[Array, "unit"]:
    """``drive + noise · N(0, 1)`` for every unit; a plain 0 draws nothing."""
    return drive if is_zero(noise) else drive + noise * jax.random.normal(key, drive.shape)


def noisy_affine(
    weights: Float[Array, "unit input"],
    bias: Float[Array, "unit"],
    input: Float[Array, "input"],
    noise: Any,
    *,
    key: PRNGKey,
) -> Float[Array, "unit"]:
    """``weights x + bias + noise · N(0, 1)`` for every unit; a plain 0 draws nothing."""
    return noisy(input @ weights.T + bias, noise, key=key)
