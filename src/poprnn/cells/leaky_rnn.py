"""The leaky RNN with a time constant for every unit."""

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from pydantic import Field

from poprnn.cells._activations import Activation, ActivationName, activation
from poprnn.cells._drives import noisy
from poprnn.cells.contract import Cell, Context, ElementWise, Parameters
from poprnn.core.arrays import Array, Float, PRNGKey
from poprnn.core.blueprint import Finite, Fraction, NonNegative, Positive, PositiveInt, Tuple, is_zero
from poprnn.core.errors import ConfigurationError, NotApplicableError


class LeakyRNN(Cell):
    """Leaky integrators, unit i with its own time constant tau_i, alpha_i = dt / tau_i:

        inside   h(t) = f[ (1 - alpha) h(t-dt) + alpha (W h(t-dt) + W_in x(t) + b + noise) ]      (default)
        outside  h(t) = (1 - alpha) h(t-dt) + alpha f[ W h(t-dt) + W_in x(t) + b + noise ]
        y(t) = g[ W_out h(t) + b_out ]

    "Inside" and "outside" say where the unit's self-interaction stands. tau is held above ``tau_min`` in the
    forward pass. Arrays: W [unit, unit], W_in [unit, input], bias [unit], tau [unit], W_out [output, unit],
    b_out [output]. Start: W, W_out, b_out ~ U(±1/sqrt(n)), W_in, bias ~ U(±1), tau ~ U(1, 2), h(0) ~ 0.1 U(0, 1).
    Defaults: Khajehabdollahi et al., ICLR 2024, and the code released with it.

    >>> import jax
    >>> LeakyRNN(n_units=10).init(1, 4, key=jax.random.key(0)).trainable["W"].shape
    (10, 10)
    """

    cites = ("khajehabdollahi2024",)
    static = frozenset({"excitatory_fraction"})

    n_units: PositiveInt = 500
    """Number of units."""
    activation: ActivationName = "leaky_relu"
    """f."""
    negative_slope: Finite = 0.1
    """Slope of ``leaky_relu`` below zero (the paper's text 0.1, its code 0.01)."""
    self_interaction: Literal["inside", "outside"] = "inside"
    """Whether a unit's own past passes through f."""
    self_connection: bool = False
    """Whether W has a diagonal; without one, W_ii is 0 in the dynamics and gets no gradient."""
    dt: Positive = 1.0
    """Integration step, in the units of tau; a task may draw another one for each batch."""
    tau: Positive | Tuple[Positive] | None = None
    """Time constants held fixed: one for all units, or several, each for an equal share of the units in order (as many
    as units: one for each); ``None``: one for each unit, trained."""
    tau_start: Tuple[Positive] = (1.0, 2.0)
    """Bounds of the uniform distribution that trained time constants start from."""
    tau_min: Positive | None = None
    """Smallest tau in the forward pass; ``None``: the integration step."""
    noise: NonNegative = 0.0
    """Standard deviation of the noise added to every unit's input at every step."""
    noise_tau: Positive | None = None
    """Time constant of Ornstein-Uhlenbeck noise, eta <- (1 - dt/tau) eta + sqrt(2 dt/tau) N(0, 1), eta(0) ~ N(0, 1),
    in the units of dt; ``None``: white noise."""
    input_units: Tuple[Annotated[int, Field(ge=0)]] | None = None
    """First and one past the last unit that receive input; ``None``: all."""
    output_units: Tuple[Annotated[int, Field(ge=0)]] | None = None
    """First and one past the last unit that are read out; ``None``: all."""
    excitatory_fraction: Fraction | None = None
    """Dale's law: this fraction of units only excites, the others only inhibit; ``None``: no such law."""
    output_activation: ActivationName = "identity"
    """g."""
    output_bias: bool = True
    """Whether there is a b_out; without one it stays 0."""
    recurrent_init: Literal["uniform", "normal", "diagonal"] = "uniform"
    """W ~ U(±1/sqrt(n)), N(0, 1/n) or the unit matrix, times ``recurrent_gain``."""
    recurrent_gain: NonNegative = 1.0
    """Scale of W at the start."""
    input_init: Literal["uniform", "normal"] = "uniform"
    """W_in and bias ~ U(±1) or N(0, 1)."""
    readout_init: Literal["uniform", "normal"] = "uniform"
    """W_out and b_out ~ U(±1/sqrt(n)) or N(0, 1)."""
    state_start: NonNegative = 0.1
    """h(0) ~ ``state_start`` · U(0, 1)."""

    def __post_init__(self) -> None:
        for name in ("input_units", "output_units"):
            group = getattr(self, name)
            if group is not None and not (len(group) == 2 and group[0] < group[1] <= self.n_units):
                raise ConfigurationError(
                    f"LeakyRNN: {name} = {list(group)}: must be [first, past last] within the {self.n_units} units"
                )
        if isinstance(self.tau, tuple) and (not self.tau or self.n_units % len(self.tau)):
            raise ConfigurationError(
                f"LeakyRNN: tau has {len(self.tau)} values: the {self.n_units} units must fall in as many equal groups"
            )
        if self.noise_tau is not None and is_zero(self.noise):
            raise ConfigurationError("LeakyRNN: noise_tau is given, but noise = 0 leaves it without effect")
        if self.recurrent_init == "diagonal" and not self.self_connection:
            raise ConfigurationError("LeakyRNN: recurrent_init = 'diagonal' needs self_connection = true")
        if len(self.tau_start) != 2 or self.tau_start[0] > self.tau_start[1]:
            raise ConfigurationError(f"LeakyRNN: tau_start = {list(self.tau_start)}: must be [lowest, highest]")

    @property
    def f(self) -> Activation:
        """The activation function."""
        return activation(self.activation, self.negative_slope)

    def init(self, n_inputs: int, n_outputs: int, *, key: PRNGKey) -> Parameters:
        """Random parameters of one member."""
        n = self.n_units
        keys = jax.random.split(key, 6)

        def draw(key: PRNGKey, shape: tuple[int, ...], how: str, bound: float, deviation: float = 1.0) -> Array:
            if how == "diagonal":
                return jnp.eye(n)
            if how == "normal":
                return deviation * jax.random.normal(key, shape)
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        trainable: dict[str, Any] = {
            "W": self._start_with_dale(
                self.recurrent_gain * draw(keys[0], (n, n), self.recurrent_init, n**-0.5, n**-0.5)
            ),
            "W_in": draw(keys[1], (n, n_inputs), self.input_init, 1.0),
            "bias": draw(keys[2], (n,), self.input_init, 1.0),
            "W_out": draw(keys[3], (n_outputs, n), self.readout_init, n**-0.5),
        }
        fixed: dict[str, Any] = {}
        if self.output_bias:
            trainable["b_out"] = draw(keys[4], (n_outputs,), self.readout_init, n**-0.5)
        else:
            fixed["b_out"] = jnp.zeros(n_outputs)
        if self.tau is None:
            low, high = self.tau_start
            trainable["tau"] = jax.random.uniform(keys[5], (n,), minval=low, maxval=high)
        elif isinstance(self.tau, tuple):
            fixed["tau"] = jnp.repeat(jnp.asarray(self.tau, jnp.float32), n // len(self.tau))
        else:
            fixed["tau"] = jnp.full(n, self.tau, jnp.float32)
        return Parameters(trainable, fixed)

    def signs(self) -> Float[Array, "unit"] | None:
        """+1 for excitatory and -1 for inhibitory units, ``None`` without Dale's law."""
        if self.excitatory_fraction is None:
            return None
        n_excitatory = round(self.excitatory_fraction * self.n_units)
        return jnp.where(jnp.arange(self.n_units) < n_excitatory, 1.0, -1.0)

    def _start_with_dale(self, W: Float[Array, "unit unit"]) -> Float[Array, "unit unit"]:
        """Magnitudes, those of the inhibitory units scaled so that excitation and inhibition balance at the start."""
        signs = self.signs()
        if signs is None:
            return W
        n_excitatory = jnp.sum(signs > 0)
        ratio = n_excitatory / jnp.maximum(self.n_units - n_excitatory, 1)
        return jnp.abs(W) * jnp.where(signs > 0, 1.0, ratio)

    def prepare(self, parameters: Parameters, context: Context) -> dict[str, Any]:
        """Effective weights (no diagonal, signs, groups), alpha = dt / tau, and what a step multiplies by.

        "Inside" is the map h(t) = f[A h(t-dt) + B x(t) + c] with A = 1 - alpha + alpha W, B = alpha W_in, c = alpha b:
        leak and time constants cost nothing in the loop. For "outside", A, B and c are W, W_in and b.
        """
        p = {**parameters.fixed, **parameters.trainable}
        dt = self.dt if context.dt is None else context.dt
        W, W_in, W_out = p["W"], p["W_in"], p["W_out"]
        if (signs := self.signs()) is not None:
            W = jnp.abs(W) * signs[None, :]
        if not self.self_connection:
            W = W * (1 - jnp.eye(self.n_units, dtype=W.dtype))
        if self.input_units is not None:
            W_in = W_in * self._group(self.input_units)[:, None]
        if self.output_units is not None:
            W_out = W_out * self._group(self.output_units)[None, :]
        tau = jnp.maximum(p["tau"], dt if self.tau_min is None else self.tau_min)
        alpha = dt / tau
        weights = {"W": W, "W_in": W_in, "bias": p["bias"], "W_out": W_out, "b_out": p["b_out"], "alpha": alpha}
        if self.noise_tau is not None:
            # Python numbers where dt is one; a step longer than the time constant makes the noise white
            share = jnp.minimum(dt / self.noise_tau, 1.0)
            weights["noise_decay"] = lax.stop_gradient(1 - share)
            weights["noise_scale"] = lax.stop_gradient(jnp.sqrt(jnp.where(share < 1, 2 * share, 1.0)))
        if self.self_interaction == "outside":
            return weights | {"A": W, "B": W_in, "c": p["bias"]}
        column = alpha[:, None]
        return weights | {"A": jnp.diag(1 - alpha) + column * W, "B": column * W_in, "c": alpha * p["bias"]}

    def _group(self, bounds: tuple[int, ...]) -> Float[Array, "unit"]:
        index = jnp.arange(self.n_units)
        return ((index >= bounds[0]) & (index < bounds[1])).astype(jnp.float32)

    def initial_state(self, prepared: dict[str, Any], *, key: PRNGKey) -> Float[Array, "unit"]:
        """``state_start`` · U(0, 1)."""
        return self.state_start * jax.random.uniform(key, (self.n_units,))

    def input_product(self, prepared: dict[str, Any], input: Float[Array, "input"]) -> Float[Array, "unit"]:
        """B x + c."""
        return input @ prepared["B"].T + prepared["c"]

    def input_noise(
        self, prepared: dict[str, Any], product: Float[Array, "unit"], *, key: PRNGKey, context: Context
    ) -> Float[Array, "unit"]:
        """White noise added."""
        if self.noise_tau is not None:
            return product
        scaled = self.self_interaction == "inside" and not is_zero(self.noise)
        return noisy(product, self.noise * prepared["alpha"] if scaled else self.noise, key=key)

    def noise_start(self, prepared: dict[str, Any], *, key: PRNGKey) -> Float[Array, "unit"] | None:
        """N(0, 1), where noise has a memory."""
        return None if self.noise_tau is None else jax.random.normal(key, (self.n_units,))

    def noise_block(
        self, prepared: dict[str, Any], memory: Float[Array, "unit"], white: Float[Array, "time unit"]
    ) -> tuple[Float[Array, "time unit"], Float[Array, "time unit"]]:
        """eta(t) = a eta(t-1) + s xi(t) for all steps at once: a^(t+1) eta(-1) + sum_{u <= t} a^(t-u) s xi(u)."""
        decay, steps = prepared["noise_decay"], jnp.arange(len(white))
        gap = steps[:, None] - steps[None, :]
        weights = jnp.where(gap >= 0, prepared["noise_scale"] * decay ** jnp.maximum(gap, 0), 0.0)
        eta = weights @ white + decay ** (steps + 1)[:, None] * memory
        eta = lax.stop_gradient(eta)
        return eta, (self.noise * prepared["alpha"] if self.self_interaction == "inside" else self.noise) * eta

    @property
    def element_wise(self) -> ElementWise:
        """f of A h and the rest, with a leak of alpha where it stands outside."""
        leak = "alpha" if self.self_interaction == "outside" else None
        return ElementWise("A", self.activation, ("B", "c"), leak, self.negative_slope)

    def recurrent_drive(self, prepared: dict[str, Any], state: Float[Array, "unit"]) -> Float[Array, "unit"]:
        """A h."""
        return state @ prepared["A"].T

    def update(
        self,
        prepared: dict[str, Any],
        state: Float[Array, "unit"],
        drive: Float[Array, "unit"],
        *,
        key: PRNGKey,
        context: Context,
    ) -> Float[Array, "unit"]:
        """The activation function, and the leak where it stands outside."""
        if self.self_interaction == "inside":
            return self.f(drive)
        return state + prepared["alpha"] * (self.f(drive) - state)  # one difference: alpha's gradient is one sum

    def derivative(
        self, prepared: dict[str, Any], state: Float[Array, "unit"], drive: Float[Array, "unit"]
    ) -> Float[Array, "unit"]:
        """``dt · dh/dt = alpha (-h + f(drive))``; only "outside" discretises a differential equation."""
        if not self.is_flow:
            raise NotApplicableError(
                "leaky_rnn with self_interaction = 'inside' is a map, not a flow; use self_interaction = 'outside'"
            )
        return prepared["alpha"] * (self.f(drive) - state)

    @property
    def is_flow(self) -> bool:
        """Only "outside" discretises a differential equation."""
        return self.self_interaction == "outside"

    def readout(self, prepared: dict[str, Any], state: Float[Array, "unit"]) -> Float[Array, "output"]:
        """g[W_out h + b_out]."""
        h = state @ prepared["W_out"].T + prepared["b_out"]
        return activation(self.output_activation, self.negative_slope)(h)
