"""The gated recurrent unit (GRU)."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jax.nn import sigmoid

from poprnn.cells._gates import by_gate, gate_drives, stacked_start
from poprnn.cells.contract import Cell, Context, Parameters
from poprnn.core.arrays import Array, Float, PRNGKey
from poprnn.core.blueprint import NonNegative, PositiveInt

GATES = ("reset", "update", "candidate")


class GRU(Cell):
    """Gated recurrent units, with the reset gate behind the recurrent product, as in ``torch.nn.GRU``:

        r(t) = sigmoid( W_r h(t-1) + W_in,r x(t) + b_r + noise )
        z(t) = sigmoid( W_z h(t-1) + W_in,z x(t) + b_z + noise )
        n(t) = tanh( W_in,n x(t) + b_n + noise + r(t) * (W_n h(t-1) + b_candidate) )
        h(t) = (1 - z(t)) * n(t) + z(t) * h(t-1),   h(0) = 0
        y(t) = W_out h(t) + b_out

    Arrays: W [3 unit, unit], W_in [3 unit, input] and bias [3 unit] hold r, z and n below one another;
    bias_candidate [unit], W_out [output, unit], b_out [output]. From PyTorch: W = weight_hh_l0, W_in = weight_ih_l0,
    bias = bias_ih_l0 plus the r and z parts of bias_hh_l0, whose n part is bias_candidate. Start: all ~ U(±1/sqrt(n)),
    PyTorch's bound. Default size: the GRUs of Khajehabdollahi et al., ICLR 2024, appendix G.

    Reference: Cho et al., Learning phrase representations using RNN encoder-decoder for statistical machine
    translation, EMNLP 2014 (where the reset gate stands before the product).

    >>> import jax, numpy as np, poprnn as pr
    >>> {name: a.shape for name, a in sorted(GRU(n_units=5).init(2, 1, key=jax.random.key(0)).trainable.items())}
    {'W': (15, 5), 'W_in': (15, 2), 'W_out': (1, 5), 'b_out': (1,), 'bias': (15,), 'bias_candidate': (5,)}
    >>> run = pr.from_arrays("n_parity", GRU(n_units=5), {"W_in": np.zeros((15, 1)), "bias": np.repeat([0, 99, 0], 5)})
    >>> pr.rollout(run, np.ones((1, 3, 1))).states.any()         # z = 1: nothing is let in
    np.False_
    """

    cites = ("cho2014",)
    groups: ClassVar[dict[str, tuple[str, ...]]] = Cell.groups | {"recurrent": ("W", "bias", "bias_candidate")}

    n_units: PositiveInt = 500
    """Number of units."""
    noise: NonNegative = 0.0
    """Standard deviation of white noise added to every gate's and every candidate's input at every step."""
    recurrent_gain: NonNegative = 1.0
    """Scale of W at the start."""

    def init(self, n_inputs: int, n_outputs: int, *, key: PRNGKey) -> Parameters:
        """Random parameters of one member."""
        n = self.n_units
        return Parameters(
            stacked_start(len(GATES), n, n_inputs, n_outputs, self.recurrent_gain, key=key, bias_candidate=n), {}
        )

    def prepare(self, parameters: Parameters, context: Context) -> dict[str, Any]:
        """The arrays, and those of each gate."""
        p = super().prepare(parameters, context)
        return p | {f"{name}_by_gate": by_gate(p[name], GATES) for name in ("W", "W_in", "bias")}

    def initial_state(self, prepared: dict[str, Any], *, key: PRNGKey) -> Float[Array, "unit"]:
        """Zero."""
        return jnp.zeros(self.n_units)

    def input_drive(
        self, prepared: dict[str, Any], input: Float[Array, "input"], *, key: PRNGKey, context: Context
    ) -> dict[str, Float[Array, "unit"]]:
        """W_in x + b + noise of the gates and the candidate, and what the reset gate will multiply."""
        return gate_drives(prepared, GATES, input, self.noise, key=key) | {"recalled": prepared["bias_candidate"]}

    def recurrent_drive(self, prepared: dict[str, Any], state: Float[Array, "unit"]) -> dict[str, Float[Array, "unit"]]:
        """W h; the candidate's stays apart, as the reset gate multiplies it alone."""
        W = prepared["W_by_gate"]
        return {"reset": state @ W["reset"].T, "update": state @ W["update"].T, "recalled": state @ W["candidate"].T}

    def update(
        self,
        prepared: dict[str, Any],
        state: Float[Array, "unit"],
        drive: dict[str, Float[Array, "unit"]],
        *,
        key: PRNGKey,
        context: Context,
    ) -> Float[Array, "unit"]:
        """Gates, candidate, and their mixture with the last state."""
        candidate = jnp.tanh(drive["candidate"] + sigmoid(drive["reset"]) * drive["recalled"])
        return candidate + sigmoid(drive["update"]) * (state - candidate)

    def readout(self, prepared: dict[str, Any], state: Float[Array, "unit"]) -> Float[Array, "output"]:
        """W_out h + b_out."""
        return state @ prepared["W_out"].T + prepared["b_out"]
