"""Squared errors, step by step."""

import jax.numpy as jnp

from poprnn.core.arrays import Array, Float
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Task, Trial, in_steps
from poprnn.training.objectives.contract import Objective


def squared_error(
    objective: Objective, task: Task, outputs: Float[Array, "..."], trial: Trial
) -> Float[Array, "time"] | Float[Array, ""]:
    """Mean over outputs."""
    return jnp.mean((outputs - targets_like(outputs, objective, task, trial)) ** 2, axis=-1)


def targets_like(outputs: Float[Array, "..."], objective: Objective, task: Task, trial: Trial) -> Float[Array, "..."]:
    """The targets step by step; ``ConfigurationError`` where they are not shaped as outputs."""
    targets = in_steps(trial.targets, task.capacity)
    if getattr(targets, "shape", None) != outputs.shape:
        raise ConfigurationError(
            f"objective '{objective.name()}' needs targets shaped as the outputs {list(outputs.shape)}; this task's "
            f"are {list(getattr(targets, 'shape', ()))}"
        )
    return targets
