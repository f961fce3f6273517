"""Sine wave generation: a static input says with which frequency to oscillate."""

from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from pydantic import Field

from poprnn.core.arrays import Array, Float, PRNGKey
from poprnn.core.blueprint import Positive, PositiveInt
from poprnn.core.errors import ConfigurationError
from poprnn.tasks._fixed_length import FixedLength
from poprnn.tasks.contract import Setting, Trial, step_weights


class SineWave(FixedLength):
    """Every channel is told one of ``n_frequencies`` frequencies by a constant input, and outputs that sine wave.

        x_tc = input_per_hz · f_c,        target_tc = sin(2 pi f_c t / rate_hz),        t = 0, 1, 2, … steps

    with f_c drawn for every trial and channel from ``n_frequencies`` equally spaced and equally likely values between
    ``lowest_hz`` and ``highest_hz``, both included. Loss: squared error, mean over all steps and channels.

    Frequencies, length and duration (100 steps are 1 s) are those of Huang, Singh, Rajan, Measuring and
    controlling solution degeneracy across task-trained recurrent neural networks (2024), section 2.2 and appendix A.3,
    which varies the number of frequencies and of channels. Our choices, where it says nothing: the input is the
    frequency in Hz itself, and the channels' frequencies are independent. :meth:`out_of_distribution` lasts twice as
    long, as there: t goes on beyond 1 s.

    Raises ``ConfigurationError`` where the frequencies do not rise, or the fastest wave would have two steps a period.

    >>> import jax, numpy as np
    >>> task = SineWave(n_frequencies=3, lowest_hz=5.0, highest_hz=25.0, n_steps=4)
    >>> trial = task.sample(task.draw(None, key=None), (), key=jax.random.key(0))
    >>> task.frequencies().tolist(), trial.condition["frequency"].tolist()
    ([5.0, 15.0, 25.0], [15.0])
    >>> trial.inputs[:, 0].tolist(), np.asarray(trial.targets)[:, 0].astype(float).round(3).tolist()
    ([15.0, 15.0, 15.0, 15.0], [0.0, 0.809, 0.951, 0.309])
    """

    cites = ("huang2024",)
    score: ClassVar[str] = "variance_explained"

    n_channels: PositiveInt = 1
    """Number N of channels, each an input and an output (our choice; swept: 1, 2, 3)."""
    n_frequencies: Annotated[int, Field(ge=2, lt=2**31)] = 10
    """Number of frequencies (our choice; swept: 3, 10, 30)."""
    lowest_hz: Positive = 1.0
    """Lowest frequency."""
    highest_hz: Positive = 30.0
    """Highest frequency."""
    rate_hz: Positive = 100.0
    """Steps in a second."""
    input_per_hz: Positive = 1.0
    """Input for a frequency of 1 Hz."""

    def __post_init__(self) -> None:
        super().__post_init__()
        who = type(self).__name__
        if self.highest_hz <= self.lowest_hz:
            raise ConfigurationError(
                f"{who}: highest_hz = {self.highest_hz:g}: must be above lowest_hz = {self.lowest_hz:g}"
            )
        if self.highest_hz >= self.rate_hz / 2:
            raise ConfigurationError(
                f"{who}: highest_hz = {self.highest_hz:g}: must be below half of rate_hz = {self.rate_hz:g}, "
                "so that a period has more than two steps"
            )

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """One for each channel."""
        return self.n_channels

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        """One for each channel."""
        return self.n_channels

    def frequencies(self) -> Float[Array, "frequency"]:
        """The frequencies in Hz."""
        share = jnp.arange(self.n_frequencies) / (self.n_frequencies - 1)
        return self.lowest_hz + share * (self.highest_hz - self.lowest_hz)

    def sample(self, setting: Setting, arrays: tuple[()], *, key: PRNGKey) -> Trial:
        """Constant inputs and sine waves, ``[time, channel]`` both.

        ``periods``: trial. ``condition``: frequency [channel], in Hz.
        """
        index = jax.random.randint(key, (self.n_channels,), 0, self.n_frequencies)
        frequency = self.frequencies()[index]
        cycles = jnp.arange(self.capacity)[:, None] * frequency / self.rate_hz
        return Trial(
            jnp.broadcast_to(self.input_per_hz * frequency, cycles.shape),
            jnp.sin(2 * jnp.pi * (cycles - jnp.floor(cycles))),  # whole cycles off: they would cost digits
            periods={"trial": jnp.stack([jnp.asarray(0), jnp.asarray(setting.length)])},
            condition={"frequency": frequency},
        )

    def scores(self, outputs: Float[Array, "time output"], trial: Trial, setting: Setting) -> dict[str, Array]:
        """``variance_explained``: ``1 - sum_t (y_t - target_t)^2 / sum_t (target_t - mean)^2``, at least 0.

        Mean over channels.
        """
        weights = step_weights(self, trial, setting)
        mean = jnp.sum(weights * trial.targets, axis=0) / jnp.sum(weights)
        total = jnp.sum(weights * (trial.targets - mean) ** 2, axis=0)
        error = jnp.sum(jnp.where(weights > 0, outputs - trial.targets, 0.0) ** 2, axis=0)
        return {"variance_explained": jnp.mean(jnp.clip(1 - error / jnp.maximum(total, 1e-9), 0, 1))}
