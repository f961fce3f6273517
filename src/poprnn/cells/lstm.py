"""Long short-term memory (LSTM)."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.nn import sigmoid

from poprnn.cells._gates import by_gate, gate_drives, stacked_start
from poprnn.cells.contract import Cell, Context, Parameters
from poprnn.core.arrays import Array, Float, PRNGKey
from poprnn.core.blueprint import Finite, NonNegative, PositiveInt

GATES = ("input", "forget", "candidate", "output")


class LSTMState(NamedTuple):
    """State of one trial."""

    h: Float[Array, "unit"]
    """What the units send: their activity."""
    c: Float[Array, "unit"]
    """What the units hold."""


class LSTM(Cell):
    """Long short-term memory with a forget gate and without peepholes, as in ``torch.nn.LSTM``:

        i(t) = sigmoid( W_i h(t-1) + W_in,i x(t) + b_i + noise ),   f(t) and o(t) alike
        g(t) = tanh( W_g h(t-1) + W_in,g x(t) + b_g + noise )
        c(t) = f(t) * c(t-1) + i(t) * g(t),   c(0) = 0
        h(t) = o(t) * tanh( c(t) ),           h(0) = 0
        y(t) = W_out h(t) + b_out

    The activity of a unit is h. Arrays: W [4 unit, unit], W_in [4 unit, input] and bias [4 unit] hold i, f, g and o
    below one another; W_out [output, unit], b_out [output]. From PyTorch: W = weight_hh_l0, W_in = weight_ih_l0,
    bias = bias_ih_l0 + bias_hh_l0. Start: all ~ U(±1/sqrt(n)), PyTorch's bound. Default size: the LSTMs of
    Khajehabdollahi et al., ICLR 2024, appendix G.

    Reference: Hochreiter & Schmidhuber, Long short-term memory, Neural Computation 1997; forget gate: Gers et al.,
    Neural Computation 2000.

    >>> import jax, numpy as np, poprnn as pr
    >>> {name: a.shape for name, a in sorted(LSTM(n_units=5).init(2, 1, key=jax.random.key(0)).trainable.items())}
    {'W': (20, 5), 'W_in': (20, 2), 'W_out': (1, 5), 'b_out': (1,), 'bias': (20,)}
    >>> run = pr.from_arrays("n_parity", LSTM(n_units=5), {"bias": np.repeat([-99, 0, 0, 0], 5)})
    >>> pr.rollout(run, np.ones((1, 3, 1))).states.any()         # i = 0: nothing is let in
    np.False_
    """

    cites = ("hochreiter1997",)

    n_units: PositiveInt = 500
    """Number of units."""
    noise: NonNegative = 0.0
    """Standard deviation of white noise added to every gate's and every candidate's input at every step."""
    recurrent_gain: NonNegative = 1.0
    """Scale of W at the start."""
    forget_bias: Finite = 0.0
    """Added to the forget gates' biases at the start; 1 lets memory last from the first (Jozefowicz et al. 2015)."""

    def init(self, n_inputs: int, n_outputs: int, *, key: PRNGKey) -> Parameters:
        """Random parameters of one member."""
        n = self.n_units
        start = stacked_start(len(GATES), n, n_inputs, n_outputs, self.recurrent_gain, key=key)
        place = GATES.index("forget") * n
        return Parameters(start | {"bias": start["bias"].at[place : place + n].add(self.forget_bias)}, {})

    def prepare(self, parameters: Parameters, context: Context) -> dict[str, Any]:
        """The arrays, and those of each gate."""
        p = super().prepare(parameters, context)
        return p | {f"{name}_by_gate": by_gate(p[name], GATES) for name in ("W", "W_in", "bias")}

    def initial_state(self, prepared: dict[str, Any], *, key: PRNGKey) -> LSTMState:
        """Zero."""
        return LSTMState(jnp.zeros(self.n_units), jnp.zeros(self.n_units))

    def input_drive(
        self, prepared: dict[str, Any], input: Float[Array, "input"], *, key: PRNGKey, context: Context
    ) -> dict[str, Float[Array, "unit"]]:
        """W_in x + b + noise of every gate."""
        return gate_drives(prepared, GATES, input, self.noise, key=key)

    def recurrent_drive(self, prepared: dict[str, Any], state: LSTMState) -> dict[str, Float[Array, "unit"]]:
        """W h of every gate."""
        return {gate: state.h @ W.T for gate, W in prepared["W_by_gate"].items()}

    def update(
        self,
        prepared: dict[str, Any],
        state: LSTMState,
        drive: dict[str, Float[Array, "unit"]],
        *,
        key: PRNGKey,
        context: Context,
    ) -> LSTMState:
        """Forget, let in, send out."""
        c = sigmoid(drive["forget"]) * state.c + sigmoid(drive["input"]) * jnp.tanh(drive["candidate"])
        return LSTMState(sigmoid(drive["output"]) * jnp.tanh(c), c)

    def activity(self, state: LSTMState) -> Float[Array, "unit"]:
        """h."""
        return state.h

    def readout(self, prepared: dict[str, Any], state: LSTMState) -> Float[Array, "output"]:
        """W_out h + b_out."""
        return state.h @ prepared["W_out"].T + prepared["b_out"]
