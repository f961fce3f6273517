"""The vanilla (Elman) RNN."""

from typing import Any

import jax
import jax.numpy as jnp

from poprnn.cells._activations import ActivationName, activation
from poprnn.cells._drives import noisy
from poprnn.cells.contract import Cell, Context, ElementWise, Parameters
from poprnn.core.arrays import Array, Float, PRNGKey
from poprnn.core.blueprint import Finite, NonNegative, PositiveInt


class VanillaRNN(Cell):
    """``h_t = f(W h_{t-1} + W_in x_t + b + noise)``, ``y_t = W_out h_t + b_out``, h_0 = 0.

    Arrays: W [unit, unit], W_in [unit, input], bias [unit], W_out [output, unit], b_out [output], all starting from
    U(±1/sqrt(n)), as in ``torch.nn.RNN`` (whose ``bias_ih + bias_hh`` is ``bias`` here). Elman, Finding structure in
    time, Cognitive Science 1990.

    >>> import jax
    >>> sorted(VanillaRNN(n_units=5).init(2, 1, key=jax.random.key(0)).trainable)
    ['W', 'W_in', 'W_out', 'b_out', 'bias']
    """

    n_units: PositiveInt = 64
    """Number of units."""
    activation: ActivationName = "tanh"
    """f."""
    negative_slope: Finite = 0.1
    """Slope of ``leaky_relu`` below zero."""
    noise: NonNegative = 0.0
    """Standard deviation of white noise added to every unit's input at every step."""
    recurrent_gain: NonNegative = 1.0
    """Scale of W at the start."""

    def init(self, n_inputs: int, n_outputs: int, *, key: PRNGKey) -> Parameters:
        """Random parameters of one member."""
        n = self.n_units
        shapes = {"W": (n, n), "W_in": (n, n_inputs), "bias": (n,), "W_out": (n_outputs, n), "b_out": (n_outputs,)}
        keys = jax.random.split(key, len(shapes))
        bound = n**-0.5
        trainable = {
            name: jax.random.uniform(k, shape, minval=-bound, maxval=bound)
            for k, (name, shape) in zip(keys, shapes.items(), strict=True)
        }
        trainable["W"] = self.recurrent_gain * trainable["W"]
        return Parameters(trainable, {})

    def initial_state(self, prepared: dict[str, Any], *, key: PRNGKey) -> Float[Array, "unit"]:
        """Zero."""
        return jnp.zeros(self.n_units)

    def input_product(self, prepared: dict[str, Any], input: Float[Array, "input"]) -> Float[Array, "unit"]:
        """W_in x + b."""
        return input @ prepared["W_in"].T + prepared["bias"]

    def input_noise(
        self, prepared: dict[str, Any], product: Float[Array, "unit"], *, key: PRNGKey, context: Context
    ) -> Float[Array, "unit"]:
        """White noise added."""
        return noisy(product, self.noise, key=key)

    @property
    def element_wise(self) -> ElementWise:
        """f of W h and the rest."""
        return ElementWise("W", self.activation, ("W_in", "bias"), negative_slope=self.negative_slope)

    def recurrent_drive(self, prepared: dict[str, Any], state: Float[Array, "unit"]) -> Float[Array, "unit"]:
        """W h."""
        return state @ prepared["W"].T

    def update(
        self,
        prepared: dict[str, Any],
        state: Float[Array, "unit"],
        drive: Float[Array, "unit"],
        *,
        key: PRNGKey,
        context: Context,
    ) -> Float[Array, "unit"]:
        """f(drive)."""
        return activation(self.activation, self.negative_slope)(drive)

    def readout(self, prepared: dict[str, Any], state: Float[Array, "unit"]) -> Float[Array, "output"]:
        """W_out h + b_out."""
        return state @ prepared["W_out"].T + prepared["b_out"]
