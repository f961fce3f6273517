"""Activation functions by name."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from poprnn.core.arrays import Array, Float
from poprnn.core.errors import ConfigurationError

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


def largest_slope(name: ActivationName, negative_slope: float = 0.1) -> float:
    """g, the largest slope of an activation function that never falls.

    Raises:
        ConfigurationError: ``leaky_relu`` with a negative slope below 0, which falls.

    >>> largest_slope("tanh"), largest_slope("sigmoid"), largest_slope("leaky_relu", 2.0)
    (1.0, 0.25, 2.0)
    """
    if name != "leaky_relu":
        return 0.25 if name == "sigmoid" else 1.0
    if negative_slope < 0:
        raise ConfigurationError(f"negative_slope = {negative_slope}: must not be below 0, or the function falls")
    return max(1.0, float(negative_slope))
