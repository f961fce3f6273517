"""Activation functions by name."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from poprnn.core.arrays import Array, Float

ActivationName = Literal["relu", "leaky_relu", "tanh", "softplus", "sigmoid", "identity"]
Activation = Callable[[Float[Array, "..."]], Float[Array, "..."]]

_ACTIVATIONS: dict[str, Activation] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "sigmoid": jax.nn.sigmoid,
    "identity": lambda x: x,
}


def activation(name: ActivationName, negative_slope: float = 0.1) -> Activation:
    """The function behind a name; ``negative_slope`` belongs to ``leaky_relu``.

    >>> activation("leaky_relu", 0.1)(jnp.array([-1.0, 2.0])).round(3).tolist()
    [-0.10000000149011612, 2.0]
    """
    if name == "leaky_relu":
        return lambda x: jnp.where(x > 0, x, negative_slope * x)
    return _ACTIVATIONS[name]
