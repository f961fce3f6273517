"""What an objective is: a loss that takes the place of the task's own."""

from poprnn.core.arrays import Array, Float, Scalar
from poprnn.core.blueprint import Blueprint
from poprnn.tasks.contract import Setting, Task, Trial


class Objective(Blueprint):
    """Base of losses: from a whole trial's outputs to one number."""

    family = "objectives"

    def loss(self, task: Task, outputs: Float[Array, "..."], trial: Trial, setting: Setting) -> Scalar:
        """Loss of one trial; ``outputs`` is ``[time, output]``, or ``[output]`` where the task reads the last step."""
        raise NotImplementedError
