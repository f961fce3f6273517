"""What gated cells share: gates stacked in one matrix, as PyTorch has them, and taken apart for the steps."""

from typing import Any

import jax
import jax.numpy as jnp

from poprnn.cells._drives import noisy_affine
from poprnn.core.arrays import Array, Float, PRNGKey
from poprnn.core.blueprint import is_zero


def stacked_start(
    n_gates: int, n_units: int, n_inputs: int, n_outputs: int, recurrent_gain: Any, *, key: PRNGKey, **more: int
) -> dict[str, Array]:
    """W, W_in and bias of all gates, one below the other, and the readout: U(±1/sqrt(n)), W times the gain.

    ``more`` names further vectors and their lengths.

    >>> stacked_start(3, 5, 2, 1, 1.0, key=jax.random.key(0))["W"].shape
    (15, 5)
    """
    n = n_gates * n_units
    shapes: dict[str, tuple[int, ...]] = {"W": (n, n_units), "W_in": (n, n_inputs), "bias": (n,)}
    shapes |= {"W_out": (n_outputs, n_units), "b_out": (n_outputs,)} | {name: (size,) for name, size in more.items()}
    bound = n_units**-0.5
    start = {
        name: jax.random.uniform(k, shape, minval=-bound, maxval=bound)
        for k, (name, shape) in zip(jax.random.split(key, len(shapes)), shapes.items(), strict=True)
    }
    return start | {"W": recurrent_gain * start["W"]}


def by_gate(stacked: Float[Array, "gates *rest"], gates: tuple[str, ...]) -> dict[str, Float[Array, "unit *rest"]]:
    """The part of each gate.

    Taken apart before the steps rather than in them: the gradient of a split drive would join its parts again at
    every step, which takes the XLA CPU backend longer than the product that follows.

    >>> by_gate(jnp.arange(4), ("a", "b"))["b"].tolist()
    [2, 3]
    """
    return dict(zip(gates, jnp.split(stacked, len(gates)), strict=True))


def gate_drives(
    prepared: dict[str, Any], gates: tuple[str, ...], input: Float[Array, "input"], noise: Any, *, key: PRNGKey
) -> dict[str, Float[Array, "unit"]]:
    """W_in x + b + noise of every gate, from ``prepared["W_in_by_gate"]`` and ``prepared["bias_by_gate"]``."""
    weights, biases = prepared["W_in_by_gate"], prepared["bias_by_gate"]
    # by the given order and not the dictionary's, which JAX sorts on the way: noise must not depend on that
    keys = [key] * len(gates) if is_zero(noise) else list(jax.random.split(key, len(gates)))
    return {
        gate: noisy_affine(weights[gate], biases[gate], input, noise, key=k)
        for gate, k in zip(gates, keys, strict=True)
    }
