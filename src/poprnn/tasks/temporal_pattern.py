"""Temporal pattern generation: after a cue, produce a sum of sine waves."""

import math
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from poprnn.core.arrays import Array, Float, PRNGKey, Scalar
from poprnn.core.blueprint import Finite, NonNegative, Positive, PositiveInt, Tuple, is_zero
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Setting, Stage, Task, Trial, step_weights

FIRST_PERIOD = 10.0
PERIOD_RATIO = 1.5
LONGEST_PERIOD = 2**24
"""Steps; beyond it float32, in which networks run, could not even count them."""


class TemporalPattern(Task):
    """Head m - 1 asks, at every step t = 0, 1, 2, …, for the sum of the m fastest of ``n_max`` sine waves:

        y_m(t) = sum_{i <= m} sin(2 pi f_i t),      f_1 > f_2 > …

    so that every next head needs a longer timescale than those before. The input is a pulse at the first step, which
    says when t = 0 is, and noise. Unless given, f_i = 1 / (first_period · period_ratio^(i - 1)): with the defaults the
    periods are 10, 15, 22.5, … steps, and y_m repeats only every 10, 30, 90, … steps (our choice).

    Proposed, without numbers, in appendix D of Khajehabdollahi et al., Emergent mechanisms for long timescales depends
    on training curriculum and affects performance in memory tasks, ICLR 2024: the single-head curriculum asks for y_1,
    then y_2, … from the same readout, the multi-head curriculum for y_1 … y_m from a readout each.

    >>> task = TemporalPattern(n_max=2, frequencies=(0.25, 0.125))
    >>> task.capacity, task.targets().round(2)[:4].tolist()      # y_1 and y_2 at the first steps
    (16, [[0.0, 0.0], [1.0, 1.71], [0.0, 1.0], [-1.0, -0.29]])
    """

    cites = ("khajehabdollahi2024",)
    static = frozenset({"first_period", "period_ratio"})
    readout: ClassVar[Literal["last", "all"]] = "all"
    score: ClassVar[str] = "variance_explained"

    n_max: PositiveInt = 6
    """Number of sine waves, and of heads (our choice)."""
    first_period: Positive = FIRST_PERIOD
    """Period of the fastest wave, in steps (our choice)."""
    period_ratio: Annotated[float, Field(gt=1, allow_inf_nan=False)] = PERIOD_RATIO
    """Every wave's period over that of the wave before it (our choice)."""
    frequencies: Tuple[Positive] | None = None
    """f_1 > f_2 > … per step, ``n_max`` of them; ``None``: from ``first_period`` and ``period_ratio``."""
    n_steps: PositiveInt | None = None
    """Steps of a trial; ``None``: two periods of the slowest wave."""
    cue: Finite = 1.0
    """Input at the first step; 0: none, so that only the network's initial state can tell when the trial began."""
    input_noise: NonNegative = 0.0
    """Standard deviation of white noise added to the input at every step."""

    n_inputs = 1

    def __post_init__(self) -> None:
        who = type(self).__name__
        if self.frequencies is None:
            n_octaves = math.log2(self.first_period) + (self.n_max - 1) * math.log2(self.period_ratio)
            if n_octaves > math.log2(LONGEST_PERIOD):
                raise ConfigurationError(
                    f"{who}: n_max = {self.n_max}: the slowest wave's period would be 2^{n_octaves:.0f} steps; "
                    "take fewer waves or a smaller period_ratio"
                )
        else:
            if (self.first_period, self.period_ratio) != (FIRST_PERIOD, PERIOD_RATIO):
                raise ConfigurationError(f"{who}: frequencies are given: first_period and period_ratio have no effect")
            if len(self.frequencies) != self.n_max:
                raise ConfigurationError(
                    f"{who}: frequencies = {list(self.frequencies)}: there must be n_max = {self.n_max} of them"
                )
        found = self._frequencies()
        if not (np.diff(found) < 0).all():
            raise ConfigurationError(f"{who}: frequencies = {found.tolist()}: must decrease")
        if found[0] >= 0.5:
            raise ConfigurationError(
                f"{who}: the fastest wave has a period of {1 / found[0]:g} steps: must be longer than two"
            )
        if self.n_steps is not None and self.n_steps < 1 / found[-1]:
            raise ConfigurationError(
                f"{who}: n_steps = {self.n_steps}: must hold the slowest wave's period of {1 / found[-1]:g} steps"
            )

    def _frequencies(self) -> np.ndarray:
        if self.frequencies is not None:
            return np.array(self.frequencies)
        return 1 / (self.first_period * self.period_ratio ** np.arange(self.n_max))

    @property
    def periods(self) -> Float[np.ndarray, "head"]:
        """Period of every wave in steps."""
        return 1 / self._frequencies()

    @property
    def n_heads(self) -> int:  # type: ignore[override]
        """One head for each m."""
        return self.n_max

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        """One number a head."""
        return self.n_max

    @property
    def capacity(self) -> int:  # type: ignore[override]
        """Steps of a trial."""
        # rounded first: 2 / f may lie a rounding error above a whole number
        return math.ceil(round(2 * float(self.periods[-1]), 6)) if self.n_steps is None else self.n_steps

    def head_name(self, head: int) -> str:
        """``1 wave``, ``2 waves``, …"""
        return f"{head + 1} wave{'s' if head else ''}"

    def targets(self) -> Float[np.ndarray, "time head"]:
        """y_1 … y_n_max, computed in float64."""
        phase = 2 * np.pi * np.arange(self.capacity)[:, None] * self._frequencies()
        return np.cumsum(np.sin(phase), axis=1)

    def arrays(self) -> dict[str, Float[np.ndarray, "time head"]]:
        """The targets: the same in every trial."""
        return {"targets": self.targets().astype(np.float32)}

    def draw(self, stage: Stage, *, key: PRNGKey) -> Setting:
        """All trials are equally long; the heads that are active."""
        del key
        return Setting(self.capacity, extra={"active": stage.active, "shared": stage.shared})

    def sample(self, setting: Setting, arrays: dict[str, Array], *, key: PRNGKey) -> Trial:
        """The cue, the noise, and the targets of all heads."""
        inputs = jnp.zeros((self.capacity, 1)).at[0].set(self.cue)
        if not is_zero(self.input_noise):
            inputs = inputs + self.input_noise * jax.random.normal(key, inputs.shape)
        return Trial(inputs, arrays["targets"], jnp.ones(self.capacity))

    def answers(self, outputs: Float[Array, "time output"], shared: bool) -> Float[Array, "time head"]:
        """What every head says; with a shared readout head 0 speaks for all."""
        return jnp.broadcast_to(outputs[:, :1], outputs.shape) if shared else outputs

    def loss(self, outputs: Float[Array, "time output"], trial: Trial, setting: Setting) -> Scalar:
        """Mean squared error over the steps that exist, summed over the active heads.

        A sum and not a mean, as for the memory tasks: the weight of a head then does not fall as others are added.
        """
        weights = step_weights(self, trial, setting)
        counts = setting.extra["active"] & (weights > 0)
        # selected before squaring: an infinite output that does not count must not make the gradient NaN
        error = jnp.where(counts, self.answers(outputs, setting.extra["shared"]) - trial.targets, 0.0)
        return jnp.sum(weights * error**2) / jnp.sum(weights)

    def scores(self, outputs: Float[Array, "time output"], trial: Trial, setting: Setting) -> dict[str, Array]:
        """``variance_explained`` of every head, not below 0, NaN where it is not active.

        ``1 - sum_t (output - y_m)^2 / sum_t (y_m - mean y_m)^2``. Without one of its m waves a head loses about 1/m of
        its variance, so a threshold of 0.98 tells that a wave is missing as long as m is well below 50.
        """
        weights = step_weights(self, trial, setting)
        answers = self.answers(outputs, setting.extra["shared"])
        mean = jnp.sum(weights * trial.targets, axis=0) / jnp.sum(weights)
        total = jnp.sum(weights * (trial.targets - mean) ** 2, axis=0)
        error = jnp.sum(jnp.where(weights > 0, weights * (answers - trial.targets) ** 2, 0.0), axis=0)
        explained = jnp.clip(1 - error / total, 0, 1)
        return {"variance_explained": jnp.where(setting.extra["active"], explained, jnp.nan)}
