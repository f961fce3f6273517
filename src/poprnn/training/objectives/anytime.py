"""The errors of all steps, summed."""

import jax.numpy as jnp

from poprnn.core.arrays import Array, Float, Scalar
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Setting, Task, Trial, step_weights
from poprnn.training.objectives._squared_error import squared_error
from poprnn.training.objectives.contract import Objective


class Anytime(Objective):
    """``sum_t w_t mean_o (y_to - target_to)²``, w the task's weights: the answer should be good whenever it is asked
    for.

    The sum over steps, not their mean, so that longer trials weigh more; for a fixed length it is
    ``mean_squared_error`` times the sum of the weights.

    >>> Anytime().name()
    'anytime'
    """

    def loss(self, task: Task, outputs: Float[Array, "..."], trial: Trial, setting: Setting) -> Scalar:
        """Summed over the steps that exist."""
        if task.readout == "last":
            raise ConfigurationError(f"objective 'anytime': task '{task.name()}' is read at the last step only")
        weights = step_weights(task, trial, setting)[:, 0]
        error = squared_error(self, task, outputs, trial)
        return jnp.sum(jnp.where(weights > 0, weights * error, 0.0))
