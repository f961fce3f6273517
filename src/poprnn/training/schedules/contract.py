"""What a schedule is: a number that changes with the training step."""

import optax

from poprnn.core.blueprint import Blueprint


class Schedule(Blueprint):
    """Base of learning-rate schedules; each wraps one of Optax's."""

    family = "schedules"

    def build(self) -> optax.Schedule:
        """Function from step count to value."""
        raise NotImplementedError
