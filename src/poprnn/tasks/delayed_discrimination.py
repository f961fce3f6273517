"""Delayed discrimination: two pulses, a delay between them, and which of them was larger."""

from typing import Annotated, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
from pydantic import Field

from poprnn.core.arrays import Array, Bool, Count, Float, PRNGKey, Scalar
from poprnn.core.blueprint import Finite, NonNegativeInt, Positive, PositiveInt
from poprnn.core.errors import ConfigurationError
from poprnn.tasks._fixed_length import FixedLength
from poprnn.tasks.contract import Setting, Trial, step_weights

CLOSE = 0.1
"""Error of an auxiliary answer that passes for right, as a share of the amplitudes' range."""


class DelayedDiscrimination(FixedLength):
    """Two pulses of amplitudes f1 and f2, a delay d apart; from the second one's end on, which was the larger?

        target = sign(f2 - f1),        with ``auxiliary`` also        target' = f1 - f2

    Each of ``n_channels`` channels compares amplitudes of its own, independent and uniform between
    ``lowest_amplitude`` and ``highest_amplitude``. Steps of a trial, the same in all channels:

        onset                  U{0 … latest_onset}
        first pulse            [onset, onset + pulse_steps)
        delay                  d = delay_factor · U{min_delay … max_delay} steps
        second pulse           pulse_steps
        response               until step n_steps + d - d / delay_factor

    Loss: squared error, mean over the steps that count and the channels, and ``auxiliary_weight`` times the same of
    the auxiliary outputs. Amplitudes, delays and length are those of Huang, Singh, Rajan, Measuring and controlling
    solution degeneracy across task-trained recurrent neural networks (2024), section 2.2 and appendix A.2, which
    varies N from 1 on and has the auxiliary outputs in section 3.3. Our choices, where it says nothing: pulses of 5
    steps, the first one's onset within the first 10, one timing for all channels, the response as what counts
    (``counted``), how the two losses are weighed, and amplitudes that are continuous (``n_amplitudes``).

    :meth:`out_of_distribution` has delays twice as long, as there, and everything else as it was: a trial grows by what
    its delay has grown, so that the response lasts as long as in training.

    Raises ``ConfigurationError`` where a trial would end without a response, for amplitudes or delays that do not rise,
    and for an ``auxiliary_weight`` without ``auxiliary``.

    >>> import jax
    >>> task = DelayedDiscrimination()
    >>> trial = task.sample(task.draw(None, key=None), (), key=jax.random.key(0))
    >>> {name: steps.tolist() for name, steps in trial.periods.items()}
    {'fixation': [0, 2], 'stimulus_1': [2, 7], 'delay': [7, 15], 'stimulus_2': [15, 20], 'response': [20, 60]}
    >>> task.capacity, task.out_of_distribution().capacity        # the longest delay grows from 20 to 40
    (60, 80)
    """

    cites = ("huang2024",)
    traced = FixedLength.traced | {"delay_factor"}
    score: ClassVar[str] = "accuracy"

    n_steps: PositiveInt = 60
    """Steps of a trial, before delays are stretched."""
    n_channels: PositiveInt = 1
    """Number N of channels, each with two pulses to compare (our choice; swept: 1, 2, 3)."""
    auxiliary: bool = False
    """Whether f1 - f2 is asked for as well, in ``n_channels`` outputs after the others."""
    auxiliary_weight: Positive = 1.0
    """Weight of the auxiliary outputs' mean squared error beside that of the others (our choice)."""
    lowest_amplitude: Finite = 2.0
    """Lowest amplitude of a pulse."""
    highest_amplitude: Finite = 10.0
    """Highest amplitude of a pulse."""
    n_amplitudes: Annotated[int, Field(ge=2, lt=2**31)] | None = None
    """Number of amplitudes, equally spaced and both ends included, with f1 and f2 never equal; ``None``: continuous."""
    pulse_steps: PositiveInt = 5
    """Steps of a pulse (our choice)."""
    latest_onset: NonNegativeInt = 9
    """Last step at which the first pulse may begin (our choice)."""
    min_delay: NonNegativeInt = 5
    """Fewest steps between the pulses."""
    max_delay: PositiveInt = 20
    """Most steps between the pulses."""
    delay_factor: PositiveInt = 1
    """By how much the delays drawn are stretched."""
    counted: Literal["response", "all"] = "response"
    """Which steps the loss counts: from the second pulse's end on, or all of them, with 0 to be said before."""

    def __post_init__(self) -> None:
        super().__post_init__()
        who = type(self).__name__
        for low, high in (("lowest_amplitude", "highest_amplitude"), ("min_delay", "max_delay")):
            if getattr(self, low) > getattr(self, high) or self.lowest_amplitude == self.highest_amplitude:
                raise ConfigurationError(f"{who}: {high} = {getattr(self, high)}: must be above {low}")
        before = self.latest_onset + 2 * self.pulse_steps + self.max_delay
        if self.n_steps <= before:
            raise ConfigurationError(
                f"{who}: n_steps = {self.n_steps}: must be more than {before}, when the latest second pulse ends"
            )
        if self.auxiliary_weight != 1 and not self.auxiliary:
            raise ConfigurationError(
                f"{who}: auxiliary_weight = {self.auxiliary_weight:g}: has no effect without auxiliary"
            )

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """One for each channel."""
        return self.n_channels

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        """One for each channel, or two."""
        return self.n_channels * (1 + self.auxiliary)

    @property
    def length(self) -> int:
        """Steps of the trial with the longest delay; what a batch is told."""
        return self.n_steps + (self.delay_factor - 1) * self.max_delay

    def out_of_distribution(self) -> Self:
        """Delays of twice the length."""
        return self.stretched(delay_factor=2 * self.delay_factor)

    def amplitudes(self, *, key: PRNGKey) -> Float[Array, "pulse channel"]:
        """f1 and f2 of every channel.

        >>> f = DelayedDiscrimination(n_channels=2, n_amplitudes=2).amplitudes(key=jax.random.key(0))
        >>> sorted(f[:, 0].tolist())
        [2.0, 10.0]
        """
        low, high = self.lowest_amplitude, self.highest_amplitude
        if self.n_amplitudes is None:
            return low + (high - low) * jax.random.uniform(key, (2, self.n_channels))
        first_key, step_key = jax.random.split(key)
        first = jax.random.randint(first_key, (self.n_channels,), 0, self.n_amplitudes)
        step = jax.random.randint(step_key, (self.n_channels,), 1, self.n_amplitudes)  # to any of the others
        place = jnp.stack([first, (first + step) % self.n_amplitudes])
        return low + (high - low) * place / (self.n_amplitudes - 1)

    def sample(self, setting: Setting, arrays: tuple[()], *, key: PRNGKey) -> Trial:
        """The pulses ``[time, channel]``, and the answers ``[time, output]``: 0 before the response.

        ``periods``: fixation, stimulus_1, delay, stimulus_2, response. ``condition``: f1 and f2 [channel], onset and
        delay in steps.
        """
        amplitude_key, onset_key, delay_key = jax.random.split(key, 3)
        f1, f2 = self.amplitudes(key=amplitude_key)
        onset = jax.random.randint(onset_key, (), 0, self.latest_onset + 1)
        drawn = jax.random.randint(delay_key, (), self.min_delay, self.max_delay + 1)
        delay = self.delay_factor * drawn
        second = onset + self.pulse_steps + delay
        edges = [0 * onset, onset, onset + self.pulse_steps, second, second + self.pulse_steps]
        edges.append(self.n_steps + delay - drawn)
        names = ("fixation", "stimulus_1", "delay", "stimulus_2", "response")
        periods = {name: jnp.stack(edges[i : i + 2]) for i, name in enumerate(names)}
        time = jnp.arange(self.capacity)
        during = {name: _inside(time, steps) for name, steps in periods.items()}
        inputs = during["stimulus_1"][:, None] * f1 + during["stimulus_2"][:, None] * f2
        answer = jnp.concatenate([jnp.sign(f2 - f1), f1 - f2]) if self.auxiliary else jnp.sign(f2 - f1)
        counts = during["response"] if self.counted == "response" else time < edges[-1]
        return Trial(
            inputs,
            during["response"][:, None] * answer,
            counts.astype(jnp.float32),
            periods,
            {"f1": f1, "f2": f2, "onset": onset, "delay": delay},
        )

    def loss(self, outputs: Float[Array, "time output"], trial: Trial, setting: Setting) -> Scalar:
        """``MSE(first outputs) + auxiliary_weight · MSE(auxiliary outputs)``, means over the steps that count."""
        weights = step_weights(self, trial, setting)
        # selected before squaring: an infinite output that does not count must not make the gradient NaN
        error = jnp.where(weights > 0, outputs - trial.targets, 0.0)
        each = jnp.sum(error**2, axis=0) / jnp.sum(weights)
        main = jnp.mean(each[: self.n_channels])
        return main + self.auxiliary_weight * jnp.mean(each[self.n_channels :]) if self.auxiliary else main

    def scores(self, outputs: Float[Array, "time output"], trial: Trial, setting: Setting) -> dict[str, Array]:
        """``accuracy``: the fraction of channels in which the mean output of the response has the target's sign.

        With auxiliary outputs also ``auxiliary_accuracy``: the fraction of channels in which their mean lies within a
        tenth of the amplitudes' range of f1 - f2.
        """
        responds = _inside(jnp.arange(self.capacity), trial.periods["response"])[:, None]  # type: ignore[index]
        n = jnp.sum(responds)
        answer = jnp.sum(jnp.where(responds, outputs, 0.0), axis=0) / n
        target = jnp.sum(jnp.where(responds, trial.targets, 0.0), axis=0) / n
        main, rest = slice(0, self.n_channels), slice(self.n_channels, None)
        found = {"accuracy": jnp.mean(jnp.sign(answer[main]) == jnp.sign(target[main]))}
        if self.auxiliary:
            close = CLOSE * (self.highest_amplitude - self.lowest_amplitude)
            found["auxiliary_accuracy"] = jnp.mean(jnp.abs(answer[rest] - target[rest]) <= close)
        return found


def _inside(time: Array, steps: Array | tuple[Count, Count]) -> Bool[Array, "time"]:
    return (steps[0] <= time) & (time < steps[1])
