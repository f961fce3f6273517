"""Piecewise constant values."""

from typing import Annotated

import optax
from pydantic import Field

from poprnn.core.blueprint import Positive, Tuple
from poprnn.core.errors import ConfigurationError
from poprnn.training.schedules.contract import Schedule


class Piecewise(Schedule):
    """``values[0]`` until step ``boundaries[0]``, then ``values[1]``, and so on.

    >>> f = Piecewise(values=(0.1, 0.01), boundaries=(100,)).build()
    >>> round(float(f(99)), 3), round(float(f(101)), 3)
    (0.1, 0.01)
    """

    values: Tuple[Positive]
    """One value more than boundaries."""
    boundaries: Tuple[Annotated[int, Field(gt=0)]]
    """Training steps at which the value changes."""

    def __post_init__(self) -> None:
        if len(self.values) != len(self.boundaries) + 1:
            raise ConfigurationError(
                f"Piecewise: {len(self.values)} values need {len(self.values) - 1} boundaries, "
                f"not {len(self.boundaries)}"
            )

    def build(self) -> optax.Schedule:
        """Function from step count to value."""
        return optax.join_schedules([optax.constant_schedule(v) for v in self.values], list(self.boundaries))
