"""What N-parity and N-DMS share: bits in, one two-class head per memory N, an answer at the last step."""

from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
from pydantic import Field

from poprnn.core.arrays import Array, Bool, Float, Int, PRNGKey, Scalar
from poprnn.core.blueprint import Finite, Fraction, NonNegativeInt, Positive, PositiveInt, Tuple
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Setting, Stage, Task, Trial


class MemoryTask(Task):
    """Base of tasks whose head ``h`` asks about the last ``N = n_min + h`` bits."""

    cites = ("khajehabdollahi2024",)
    readout: ClassVar[Literal["last", "all"]] = "last"
    score: ClassVar[str] = "accuracy"

    n_min: Annotated[int, Field(ge=1)] = 2
    """Smallest memory."""
    n_max: PositiveInt = 20
    """Largest memory; heads exist for every N from ``n_min`` to ``n_max``."""
    bit_probability: Fraction | Literal["uniform"] = 0.5
    """Probability of a 1; ``"uniform"`` draws one for each trial from U(0, 1)."""
    bit_values: Tuple[Finite] = (0.0, 1.0)
    """Inputs that stand for a 0 and for a 1 (the paper: 0 and 1, for its GRU and LSTM -1 and 1)."""
    bit_duration: PositiveInt = 1
    """How long a bit is shown, in the cell's units of time: with ``dt`` = 1 the number k of steps."""
    dt: Tuple[Positive] | None = None
    """Integration steps, one drawn for each batch; a bit then lasts ``round(bit_duration / dt)`` steps."""
    extra_bits: NonNegativeInt = 2
    """A sequence has at least N + ``extra_bits`` bits, N the largest active memory."""
    length_factor: PositiveInt = 4
    """A sequence has at most ``length_factor`` · N bits."""

    n_inputs = 1

    def __post_init__(self) -> None:
        if self.n_max < self.n_min:
            raise ConfigurationError(
                f"{type(self).__name__}: n_max = {self.n_max} must be at least n_min = {self.n_min}"
            )
        if len(self.bit_values) != 2 or self.bit_values[0] == self.bit_values[1]:
            raise ConfigurationError(
                f"{type(self).__name__}: bit_values = {list(self.bit_values)}: must be two different numbers, "
                "the inputs for a 0 and for a 1"
            )

    @property
    def n_heads(self) -> int:  # type: ignore[override]
        """One head for each N."""
        return self.n_max - self.n_min + 1

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        """Two classes a head."""
        return 2 * self.n_heads

    @property
    def memories(self) -> Int[Array, "head"]:
        """N of every head."""
        return self.n_min + jnp.arange(self.n_heads)

    @property
    def max_bits(self) -> int:
        """Most bits in a sequence."""
        return max(self.length_factor * self.n_max, self.n_max + self.extra_bits)

    def steps_per_bit(self, dt: float = 1.0) -> int:
        """Steps for which a bit is shown."""
        return max(round(self.bit_duration / dt), 1)

    @property
    def capacity(self) -> int:  # type: ignore[override]
        """Steps of the longest sequence."""
        return self.max_bits * self.steps_per_bit(min(self.dt or (1.0,)))

    def head_name(self, head: int) -> str:
        """``N = 7``."""
        return f"N = {self.n_min + head}"

    def draw(self, stage: Stage, *, key: PRNGKey) -> Setting:
        """One length for the batch, uniform on {N + extra_bits … length_factor · N}, N the largest active memory."""
        length_key, dt_key = jax.random.split(key)
        largest = jnp.max(jnp.where(stage.active, self.memories, 0))
        low = largest + self.extra_bits
        n_bits = jax.random.randint(length_key, (), low, jnp.maximum(self.length_factor * largest, low) + 1)
        if self.dt is None:
            dt, steps = None, jnp.asarray(self.steps_per_bit())
        else:
            choice = jax.random.randint(dt_key, (), 0, len(self.dt))
            dt = jnp.asarray(self.dt, jnp.float32)[choice]
            steps = jnp.asarray([self.steps_per_bit(d) for d in self.dt])[choice]
        return Setting(
            n_bits * steps, dt, {"n_bits": n_bits, "steps": steps, "active": stage.active, "shared": stage.shared}
        )

    def bits(self, *, key: PRNGKey, n_bits: int | None = None) -> Int[Array, "bit"]:
        """A sequence of random bits."""
        probability_key, bit_key = jax.random.split(key)
        probability = jax.random.uniform(probability_key) if self.bit_probability == "uniform" else self.bit_probability
        return (jax.random.uniform(bit_key, (n_bits or self.max_bits,)) < probability).astype(jnp.int32)

    def encode(self, bits: Array) -> Float[Array, "..."]:
        """The inputs that stand for bits, in float32: ``low + bits (high - low)``, (low, high) = ``bit_values``.

        >>> from poprnn.tasks import NDMS
        >>> NDMS(bit_values=(-1.0, 1.0)).encode(jnp.array([0, 1, 1])).tolist()
        [-1.0, 1.0, 1.0]
        """
        low, high = self.bit_values
        return low + jnp.asarray(bits, jnp.float32) * (high - low)

    def sample(self, setting: Setting, arrays: tuple[()], *, key: PRNGKey) -> Trial:
        """Bits, each shown for ``steps`` steps, and the answer of every head at the last step."""
        bits = self.bits(key=key)
        if self.dt is None:
            inputs = jnp.repeat(bits, self.steps_per_bit())
        else:
            inputs = bits[jnp.arange(self.capacity) // setting.extra["steps"]]
        return Trial(
            self.encode(inputs[:, None]),
            self.answers(bits, setting.extra["n_bits"]),
            setting.extra["active"].astype(jnp.float32),
        )

    def answers(self, bits: Int[Array, "bit"], n_bits: Int[Array, ""]) -> Int[Array, "head"]:
        """Class of every head after the first ``n_bits`` bits."""
        raise NotImplementedError

    def labels(self, bits: Int[Array, "bit"]) -> tuple[Int[Array, "bit head"], Bool[Array, "bit head"]]:
        """Class of every head after every bit, and whether enough bits have been seen for it (for analyses)."""
        counts = jnp.arange(1, bits.shape[0] + 1)
        return jax.vmap(lambda n: self.answers(bits, n))(counts), counts[:, None] >= self.memories[None, :]

    def logits(self, outputs: Float[Array, "output"], shared: bool) -> Float[Array, "head class"]:
        """The two classes of every head; with a shared readout head 0 speaks for all."""
        by_head = outputs.reshape(self.n_heads, 2)
        return jnp.broadcast_to(by_head[:1], by_head.shape) if shared else by_head

    def loss(self, outputs: Float[Array, "output"], trial: Trial, setting: Setting) -> Scalar:
        """Cross-entropy, summed over the active heads."""
        log_p = jax.nn.log_softmax(self.logits(outputs, setting.extra["shared"]))
        chosen = jnp.take_along_axis(log_p, trial.targets[:, None], axis=1)[:, 0]
        return -jnp.sum(jnp.where(trial.weights > 0, trial.weights * chosen, 0.0))

    def scores(self, outputs: Float[Array, "output"], trial: Trial, setting: Setting) -> dict[str, Array]:
        """``accuracy`` of every head, NaN where it is not active."""
        correct = jnp.argmax(self.logits(outputs, setting.extra["shared"]), axis=1) == trial.targets
        return {"accuracy": jnp.where(setting.extra["active"], correct.astype(jnp.float32), jnp.nan)}
