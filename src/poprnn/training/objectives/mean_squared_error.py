"""Mean squared error."""

from poprnn.core.arrays import Array, Float, Scalar
from poprnn.tasks.contract import Setting, Task, Trial, mean_squared_error
from poprnn.training.objectives._squared_error import targets_like
from poprnn.training.objectives.contract import Objective


class MeanSquaredError(Objective):
    """``sum_t w_t mean_o (y_to - target_to)² / sum_t w_t``, for targets shaped as the outputs.

    >>> MeanSquaredError().name()
    'mean_squared_error'
    """

    def loss(self, task: Task, outputs: Float[Array, "..."], trial: Trial, setting: Setting) -> Scalar:
        """Weighted mean over the steps that exist."""
        targets_like(outputs, self, task, trial)
        return mean_squared_error(task, outputs, trial, setting)
