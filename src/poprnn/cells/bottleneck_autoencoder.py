"""A recurrent autoencoder with a bottleneck."""

import math
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from poprnn.cells._activations import ActivationName, activation
from poprnn.cells.contract import Cell, Context, Parameters
from poprnn.core.arrays import Array, Count, Float, PRNGKey
from poprnn.core.blueprint import NonNegative, NonNegativeInt, Positive, PositiveInt, is_zero
from poprnn.core.errors import ConfigurationError

Bottleneck = Literal["continuous", "binary", "categorical"]


class AutoencoderState(NamedTuple):
    """State of one trial."""

    h: Float[Array, "unit"]
    """Activity of the decoder."""
    z: Float[Array, "channel"]
    """What has just passed the bottleneck."""


class BottleneckAutoencoder(Cell):
    """An encoder and a recurrent decoder with a narrow channel between them, and feedback from decoder to encoder:

        e(t) = f( W_in x(t) + W_feedback h(t-1) + b_encoder )
        z(t) = B( W_bottleneck e(t) + b_bottleneck )
        h(t) = f( W h(t-1) + W_decoder z(t) + bias ),   h(0) = 0
        y(t) = W_out h(t) + b_out

    With logits a = W_bottleneck e + b_bottleneck, B is one of

    * ``continuous``: a (or tanh a), plus noise of standard deviation ``noise``, in training and in use;
    * ``binary``: k units of -1 or +1, the sign of a;
    * ``categorical``: k units of c classes each, one-hot, the class with the largest of its c logits.

    Discrete units are random in training only: to each logit is added a number from the (standard) Gumbel distribution
    (for a binary unit, the difference of two: a logistic one), the hard code is sent on, and the gradient is that of
    ``tanh((a + g) / (2 tau))`` or ``softmax((a + g) / tau)`` (straight through). The temperature tau falls from
    ``temperature`` to ``final_temperature`` in a geometric line over ``annealing_steps`` training steps. ``gumbel = 0``
    leaves the random numbers out. In the first ``relaxed_steps`` training steps the soft code itself is sent on, whose
    gradient is exact: straight-through gradients are those of no loss, and members trained by them alone settle on
    thresholds that are off (docs/decisions.md has the comparison). In use, codes are hard and free of chance. With one
    step and ``feedback = False`` this is a plain autoencoder, the feed-forward baseline.

    Arrays, n = n_units: W [n, n], W_feedback [n, n], W_in [n, input], W_bottleneck [code, n], W_decoder [n, code] with
    k (or k c) code numbers, W_out [output, n], and the b's and bias. Start: every matrix ~ U(±1/sqrt(columns)), its
    bias too; then W times ``recurrent_gain``, W_feedback ``feedback_gain``, bias and b_encoder ``bias_gain``.
    ``W_feedback`` only with feedback. The activity of the cell is h.

    What a linear network sends spans k dimensions, however long it sends. Sending what has not been sent yet (gating)
    needs encoder units whose slopes differ between steps. With small weights hardly anything depends on the step at the
    start, and many members never begin to gate. With all three gains large, the decoder goes through states of its own,
    whatever is sent; they shift encoder units along their activation function, which stand at different slopes; and
    gating is there from the start (docs/decisions.md has the comparison).

    After Graetz, Haimerl, McNamee & Renart, Exploring trade-offs between sequential and parallel computation in
    recurrent neural networks, whose text gives no equations: form, sizes and defaults are our choices. Gumbel-softmax:
    Jang, Gu & Poole, ICLR 2017; Maddison, Mnih & Teh, ICLR 2017.

    >>> import jax
    >>> cell = BottleneckAutoencoder(n_units=5, width=2, bottleneck="categorical", n_classes=3)
    >>> cell.n_codes, round(cell.capacity_bits, 3)
    (6, 3.17)
    >>> cell.init(4, 4, key=jax.random.key(0)).trainable["W_decoder"].shape
    (5, 6)
    """

    cites = ("graetz", "jang2017")
    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "recurrent": ("W", "bias"),
        "feedback": ("W_feedback",),
        "input": ("W_in", "b_encoder"),
        "bottleneck": ("W_bottleneck", "b_bottleneck", "W_decoder"),
        "readout": ("W_out", "b_out"),
    }

    n_units: PositiveInt = 64
    """Units of the encoder, and of the decoder."""
    width: PositiveInt = 2
    """Number k of units of the bottleneck."""
    bottleneck: Bottleneck = "continuous"
    """B."""
    n_classes: PositiveInt | None = None
    """Number c of classes of a categorical unit; 2 or more."""
    activation: ActivationName = "tanh"
    """f."""
    negative_slope: NonNegative = 0.1
    """Slope of ``leaky_relu`` below zero."""
    feedback: bool = True
    """Whether the encoder sees the decoder."""
    recurrent_gain: NonNegative = 1.0
    """Scale of W at the start (our choice: 1, as all other arrays have)."""
    feedback_gain: NonNegative = 1.0
    """Scale of W_feedback at the start (our choice: 1)."""
    bias_gain: NonNegative = 1.0
    """Scale of bias and b_encoder at the start (our choice: 1)."""
    squash: bool = False
    """Continuous: whether a is passed through tanh."""
    noise: NonNegative = 0.0
    """Continuous: standard deviation of white noise on every unit of the bottleneck."""
    gumbel: NonNegative = 1.0
    """Discrete: scale of the random numbers added to the logits in training; 1 is the Gumbel-softmax proper."""
    temperature: Positive = 1.0
    """Discrete: tau at the start of training."""
    final_temperature: Positive = 0.3
    """Discrete: tau from ``annealing_steps`` on."""
    annealing_steps: NonNegativeInt = 3000
    """Discrete: training steps over which tau falls."""
    relaxed_steps: NonNegativeInt = 0
    """Discrete: training steps in which the soft code is sent on, not the hard one; 0: straight through always."""

    def __post_init__(self) -> None:
        if (self.bottleneck == "categorical") != (self.n_classes is not None) or self.n_classes == 1:
            raise ConfigurationError(
                f"BottleneckAutoencoder: n_classes = {self.n_classes} with bottleneck = '{self.bottleneck}': "
                "categorical units have 2 classes or more, others none"
            )
        if self.bottleneck != "continuous" and (self.squash or self.noise):
            raise ConfigurationError(
                f"BottleneckAutoencoder: noise and squash are a continuous bottleneck's, this one is {self.bottleneck}"
            )

    @property
    def n_codes(self) -> int:
        """Numbers that pass the bottleneck in a step."""
        return self.width * (self.n_classes or 1)

    @property
    def capacity_bits(self) -> float:
        """The most that a discrete bottleneck can send in a step, ``k log2 c`` bits; infinite for a continuous one."""
        if self.bottleneck == "continuous":
            return float("inf")
        return self.width * math.log2(self.n_classes or 2)

    def init(self, n_inputs: int, n_outputs: int, *, key: PRNGKey) -> Parameters:
        """Random parameters of one member."""
        n, n_codes = self.n_units, self.n_codes
        matrices = {
            "W_in": (n, n_inputs),
            "W_bottleneck": (n_codes, n),
            "W": (n, n),
            "W_decoder": (n, n_codes),
            "W_out": (n_outputs, n),
        }
        biases = {"b_encoder": "W_in", "b_bottleneck": "W_bottleneck", "bias": "W", "b_out": "W_out"}
        if self.feedback:
            matrices["W_feedback"] = (n, n)
        gains = {"W": self.recurrent_gain, "W_feedback": self.feedback_gain}
        gains |= dict.fromkeys(("bias", "b_encoder"), self.bias_gain)
        shapes: dict[str, tuple[tuple[int, ...], int]] = {name: (shape, shape[1]) for name, shape in matrices.items()}
        shapes |= {name: (matrices[matrix][:1], matrices[matrix][1]) for name, matrix in biases.items()}
        keys = jax.random.split(key, len(shapes))
        trainable = {
            name: gains.get(name, 1.0) * jax.random.uniform(k, shape, minval=-(columns**-0.5), maxval=columns**-0.5)
            for k, (name, (shape, columns)) in zip(keys, shapes.items(), strict=True)
        }
        return Parameters(trainable, {})

    def schedule(self, n_step: Count) -> dict[str, Any]:
        """The temperature of discrete units."""
        if self.bottleneck == "continuous":
            return {}
        share = jnp.minimum(jnp.asarray(n_step) / max(self.annealing_steps, 1), 1) if self.annealing_steps else 1.0
        temperature = self.temperature * (self.final_temperature / self.temperature) ** share
        return {"temperature": temperature, "relaxed": jnp.asarray(n_step) < self.relaxed_steps}

    def initial_state(self, prepared: dict[str, Any], *, key: PRNGKey) -> AutoencoderState:
        """Zero."""
        return AutoencoderState(jnp.zeros(self.n_units), jnp.zeros(self.n_codes))

    def input_product(self, prepared: dict[str, Any], input: Float[Array, "input"]) -> Float[Array, "unit"]:
        """What the input adds to the encoder's units."""
        return input @ prepared["W_in"].T + prepared["b_encoder"]

    def input_noise(
        self, prepared: dict[str, Any], product: Float[Array, "unit"], *, key: PRNGKey, context: Context
    ) -> dict[str, Float[Array, "..."]]:
        """The encoder's drive ("h"), the decoder's, and what chance adds at the bottleneck."""
        drive = {"h": product, "decoder": prepared["bias"]}
        shape = (self.n_codes,)
        if self.bottleneck == "continuous" and not is_zero(self.noise):
            drive["chance"] = self.noise * jax.random.normal(key, shape)
        # there is a temperature in training only; context.training says the same, but as a traced value
        if "temperature" in context.schedule and not is_zero(self.gumbel):
            draw = jax.random.logistic if self.bottleneck == "binary" else jax.random.gumbel
            drive["chance"] = self.gumbel * draw(key, shape)
        return drive

    def recurrent_drive(self, prepared: dict[str, Any], state: AutoencoderState) -> dict[str, Float[Array, "unit"]]:
        """Feedback to the encoder, and the decoder's recurrence."""
        drive = {"decoder": state.h @ prepared["W"].T}
        return drive | ({"h": state.h @ prepared["W_feedback"].T} if self.feedback else {})

    def update(
        self,
        prepared: dict[str, Any],
        state: AutoencoderState,
        drive: dict[str, Float[Array, "..."]],
        *,
        key: PRNGKey,
        context: Context,
    ) -> AutoencoderState:
        """Encode, pass the bottleneck, decode. Its products are narrow: no part of the drives would be cheaper."""
        f = activation(self.activation, self.negative_slope)
        logits = f(drive["h"]) @ prepared["W_bottleneck"].T + prepared["b_bottleneck"]
        z = self._pass(logits, drive.get("chance", 0.0), context)
        return AutoencoderState(f(drive["decoder"] + z @ prepared["W_decoder"].T), z)

    def _pass(
        self, logits: Float[Array, "code"], chance: Float[Array, "code"] | float, context: Context
    ) -> Float[Array, "code"]:
        """B."""
        if self.bottleneck == "continuous":
            return (jnp.tanh(logits) if self.squash else logits) + chance
        a, tau = logits + chance, context.schedule.get("temperature")
        if self.bottleneck == "binary":
            hard = jnp.where(a > 0, 1.0, -1.0)
        else:
            units = a.reshape(self.width, self.n_classes)
            hard = jax.nn.one_hot(jnp.argmax(units, axis=1), units.shape[1], dtype=a.dtype).reshape(-1)
        if tau is None:
            return hard
        soft = jnp.tanh(a / (2 * tau)) if self.bottleneck == "binary" else jax.nn.softmax(units / tau).reshape(-1)
        return jnp.where(context.schedule["relaxed"], soft, soft + jax.lax.stop_gradient(hard - soft))

    def code(self, state: AutoencoderState) -> Float[Array, "width"]:
        """What passed the bottleneck last: numbers, or for discrete units symbols 0, 1, … (as floats)."""
        if self.bottleneck == "binary":
            return (state.z > 0).astype(state.z.dtype)
        if self.bottleneck == "categorical":
            return jnp.argmax(state.z.reshape(self.width, -1), axis=1).astype(state.z.dtype)
        return state.z

    def activity(self, state: AutoencoderState) -> Float[Array, "unit"]:
        """h."""
        return state.h

    def readout(self, prepared: dict[str, Any], state: AutoencoderState) -> Float[Array, "output"]:
        """W_out h + b_out."""
        return state.h @ prepared["W_out"].T + prepared["b_out"]
