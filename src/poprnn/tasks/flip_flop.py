"""N-bit flip-flop: remember the last pulse of every channel."""

from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from pydantic import Field

from poprnn.core.arrays import Array, Float, PRNGKey
from poprnn.core.blueprint import PositiveInt
from poprnn.tasks._fixed_length import FixedLength
from poprnn.tasks.contract import Setting, Trial, step_weights


class FlipFlop(FixedLength):
    """Every input channel is -1, 0 or +1; its output is the last value of that channel that was not 0.

        P(x_tc = +1) = P(x_tc = -1) = probability / 2,        target_tc = x_sc, s = max {s <= t: x_sc != 0}

    independently for every step t and channel c. Loss: squared error, mean over all steps and channels.

    Probability and length are those of Huang, Singh, Rajan, Measuring and controlling solution degeneracy
    across task-trained recurrent neural networks (2024), appendix A.1, which varies N.
    Our choices, where it says nothing: both signs are equally likely, a pulse shows in the target of its own step, the
    target is 0 before the first pulse, and that step counts like any other. :meth:`out_of_distribution` lasts twice as
    long, as there.

    >>> import jax
    >>> task = FlipFlop(n_channels=1, n_steps=8)
    >>> trial = task.sample(task.draw(None, key=None), (), key=jax.random.key(4))
    >>> trial.inputs[:, 0].tolist()
    [0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    >>> trial.targets[:, 0].tolist()
    [0.0, 0.0, -1.0, -1.0, -1.0, -1.0, 1.0, 1.0]
    """

    cites = ("huang2024",)
    score: ClassVar[str] = "accuracy"

    n_channels: PositiveInt = 3
    """Number N of channels, each an input and an output (our choice; swept: 2, 3, 4)."""
    probability: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Probability of a pulse in one channel at one step."""

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """One for each channel."""
        return self.n_channels

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        """One for each channel."""
        return self.n_channels

    def sample(self, setting: Setting, arrays: tuple[()], *, key: PRNGKey) -> Trial:
        """Pulses and what is to be remembered of them, ``[time, channel]`` both.

        ``periods``: trial. ``condition``: n_pulses [channel], the pulses in the trial.
        """
        drawn = jax.random.uniform(key, (self.capacity, self.n_channels))
        half = self.probability / 2
        inputs = jnp.where(drawn < half, -1.0, jnp.where(drawn < 2 * half, 1.0, 0.0))
        exists = jnp.arange(self.capacity)[:, None] < setting.length
        return Trial(
            inputs,
            _held(inputs),
            periods={"trial": jnp.stack([jnp.asarray(0), jnp.asarray(setting.length)])},
            condition={"n_pulses": jnp.sum((inputs != 0) & exists, axis=0)},
        )

    def scores(self, outputs: Float[Array, "time output"], trial: Trial, setting: Setting) -> dict[str, Array]:
        """``accuracy``: the fraction of steps and channels in which of -1, 0 and 1 the target is nearest.

        That is where the output lies within 1/2 of the target, or beyond it for a target of -1 or 1.
        """
        right = jnp.clip(jnp.round(outputs), -1, 1) == trial.targets
        weights = step_weights(self, trial, setting)
        return {"accuracy": jnp.sum(weights * jnp.mean(right, axis=1, keepdims=True)) / jnp.sum(weights)}


def _held(values: Float[Array, "time channel"]) -> Float[Array, "time channel"]:
    """The last value that was not 0, in every channel.

    In as many passes as doublings of one step make the whole; the library's running maximum takes as many as steps.
    """
    reach = 1
    while reach < len(values):
        before = jnp.pad(values[:-reach], ((reach, 0), (0, 0)))
        values = jnp.where(values != 0, values, before)
        reach *= 2
    return values
