"""What a penalty is: something added to the loss, on the weights or on the units' activity."""

from typing import Any

import jax.numpy as jnp

from poprnn.core.arrays import Array, Float, Scalar
from poprnn.core.blueprint import Blueprint, NonNegative


class Penalty(Blueprint):
    """Base of penalties. Give :meth:`on_weights`, :meth:`on_activity` or both; ``strength`` multiplies their sum."""

    family = "penalties"

    strength: NonNegative = 1e-4
    """Factor in the loss."""

    def check(self, prepared: dict[str, Any]) -> None:
        """Raise ``ConfigurationError`` if the penalty names arrays that the cell does not have."""
        del prepared

    def on_weights(self, prepared: dict[str, Any]) -> Scalar:
        """Penalty on the effective weights (after masks and signs, as the dynamics see them)."""
        del prepared
        return jnp.zeros(())

    def on_activity(self, activity: Float[Array, "unit"]) -> Scalar:
        """Penalty on one step of one trial; its mean over steps and trials enters the loss."""
        del activity
        return jnp.zeros(())
