"""The task's own loss."""

from poprnn.core.arrays import Array, Float, Scalar
from poprnn.tasks.contract import Setting, Task, Trial
from poprnn.training.objectives.contract import Objective


class TaskLoss(Objective):
    """Whatever the task says its loss is (cross-entropy for N-parity, mean squared error where it says nothing).

    >>> TaskLoss().name()
    'task_loss'
    """

    def loss(self, task: Task, outputs: Float[Array, "..."], trial: Trial, setting: Setting) -> Scalar:
        """``task.loss``."""
        return task.loss(outputs, trial, setting)
