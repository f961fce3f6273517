"""Mean squared error."""

from poprnn.core.arrays import Array, Float, Scalar
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Setting, Task, Trial, in_steps, mean_squared_error
from poprnn.training.objectives.contract import Objective


class MeanSquaredError(Objective):
    """``sum_t w_t mean_o (y_to - target_to)² / sum_t w_t``, for targets shaped as the outputs.

    >>> MeanSquaredError().name()
    'mean_squared_error'
    """

    def loss(self, task: Task, outputs: Float[Array, "..."], trial: Trial, setting: Setting) -> Scalar:
        """Weighted mean over the steps that exist."""
        shape = getattr(in_steps(trial.targets, task.capacity), "shape", None)
        if shape != outputs.shape:
            raise ConfigurationError(
                f"objective '{self.name()}' needs targets shaped as the outputs "
                f"{list(outputs.shape)}; this task's are {list(shape or ())}"
            )
        return mean_squared_error(task, outputs, trial, setting)
