"""The error at the last step."""

import jax.numpy as jnp

from poprnn.core.arrays import Array, Float, Scalar
from poprnn.tasks.contract import Setting, Task, Trial
from poprnn.training.objectives._squared_error import squared_error
from poprnn.training.objectives.contract import Objective


class Final(Objective):
    """``mean_o (y_To - target_To)²`` at the last step T that exists: what comes before it is free.

    >>> Final().name()
    'final'
    """

    def loss(self, task: Task, outputs: Float[Array, "..."], trial: Trial, setting: Setting) -> Scalar:
        """Of the last step, whatever the task's weights of steps."""
        error = squared_error(self, task, outputs, trial)
        if task.readout == "last":
            return error
        return jnp.sum(jnp.where(jnp.arange(task.capacity) == setting.length - 1, error, 0.0))
