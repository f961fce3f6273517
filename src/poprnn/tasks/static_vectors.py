"""Static vectors, to be reconstructed."""

import dataclasses
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jax import lax

from poprnn.core.arrays import Array, Float, PRNGKey, Tree
from poprnn.core.blueprint import PositiveInt
from poprnn.core.errors import ConfigurationError, NotApplicableError
from poprnn.tasks._fixed_length import FixedLength
from poprnn.tasks.contract import Piecewise, Setting, Stage, Trial, in_steps, step_weights
from poprnn.tasks.distributions.contract import Distribution
from poprnn.tasks.distributions.gaussian import Gaussian


class StaticVectors(FixedLength):
    """A vector x, drawn afresh for each trial and shown at all of its T steps; the target at every step is x.

    Loss: squared error, mean over channels and steps. To be judged by the last step alone, or by the sum over steps,
    train with objective ``final`` or ``anytime``. Score: ``explained``, the share of the inputs' variance explained at
    the last step.

    Graetz, Haimerl, McNamee & Renart, Exploring trade-offs between sequential and parallel computation in recurrent
    neural networks. Our choices: white noise in 8 channels and 4 steps.

    :meth:`out_of_distribution` draws what the distribution holds out (combinations, say); where it holds nothing out,
    trials last twice as long.

    >>> import jax, poprnn as pr
    >>> from poprnn.tasks.contract import Setting, in_steps
    >>> task = StaticVectors(inputs=pr.distributions.Signs(n_dimensions=2), n_steps=3)
    >>> trial = task.sample(Setting(3, extra={"stage": 0, "held_out": False}), task.arrays(), key=jax.random.key(1))
    >>> in_steps(trial.inputs, 3).shape
    (3, 2)
    """

    cites = ("graetz",)
    score = "explained"

    n_steps: PositiveInt = 4
    """Number T of steps."""
    inputs: Distribution = Gaussian()
    """Where vectors come from."""
    shifts: tuple[Distribution, ...] = ()
    """Where they come from in later stages of a curriculum (``shifts``), one after another; as many channels each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for later in self.shifts:
            if later.n_dimensions != self.inputs.n_dimensions:
                raise ConfigurationError(
                    f"StaticVectors: shifts: '{later.name()}' has n_dimensions = {later.n_dimensions}: must be "
                    f"{self.inputs.n_dimensions}, as in inputs"
                )

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """One for each channel."""
        return self.inputs.n_dimensions

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        """One for each channel."""
        return self.inputs.n_dimensions

    @property
    def distributions(self) -> tuple[Distribution, ...]:
        """Of all stages."""
        return (self.inputs, *self.shifts)

    def arrays(self) -> Tree:
        """Data of the distributions, and the variance of an input under each (mean over channels)."""
        variances = [d.spectrum().mean() for d in self.distributions]
        return tuple(d.arrays() for d in self.distributions), np.array(variances, np.float32)

    def draw(self, stage: Stage, *, key: PRNGKey) -> Setting:
        """The stage's distribution; the last one for stages beyond."""
        return Setting(self.length, extra={"stage": stage.index, "held_out": stage.split == "evaluate"})

    def sample(self, setting: Setting, arrays: Tree, *, key: PRNGKey) -> Trial:
        """A vector. ``condition``: ``kind``, ``stage`` and ``variance``, that of the distribution."""
        data, variances = arrays
        held_out = jnp.asarray(setting.extra["held_out"])
        stage = jnp.clip(jnp.asarray(setting.extra["stage"]), 0, len(self.shifts))
        draws = [
            lambda key, d=d, a=a: d.sample(a, held_out, key=key) for d, a in zip(self.distributions, data, strict=True)
        ]
        x, kind = lax.switch(stage, draws, key) if self.shifts else draws[0](key)
        shown = Piecewise(x[None], jnp.zeros(1, jnp.int32))
        condition = {"kind": kind, "stage": stage, "variance": jnp.asarray(variances)[stage]}
        return Trial(shown, shown, jnp.ones(self.capacity), condition=condition)

    def scores(self, outputs: Float[Array, "time output"], trial: Trial, setting: Setting) -> dict[str, Array]:
        """``explained``: 1 - squared error / variance at the last step, mean over channels, not below 0.

        Not below 0 in any trial, so that the mean of poor networks is above what analysis ``rate_distortion`` finds.
        """
        last = jnp.arange(self.capacity) == setting.length - 1
        error = jnp.mean((outputs - in_steps(trial.targets, self.capacity)) ** 2, axis=1)
        error = jnp.sum(jnp.where(last, error, 0.0) * step_weights(self, trial, setting)[:, 0])
        return {"explained": jnp.clip(1 - error / trial.condition["variance"], 0, 1)}

    def out_of_distribution(self) -> Self:
        """What the distribution holds out; else trials of twice the length."""
        try:
            other: dict[str, Any] = {"inputs": self.inputs.out_of_distribution()}
        except NotApplicableError:
            return super().out_of_distribution()
        return dataclasses.replace(self, **other)  # type: ignore[type-var]
