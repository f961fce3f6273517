"""Exponential decay."""

import optax

from poprnn.core.blueprint import Fraction, Positive, PositiveInt
from poprnn.training.schedules.contract import Schedule


class Exponential(Schedule):
    """``start · factor ** (step / every)``, in a staircase if asked for.

    >>> round(float(Exponential(start=0.1, factor=0.5, every=10).build()(20)), 4)
    0.025
    """

    start: Positive
    """Value at step 0."""
    factor: Fraction
    """Factor by which the value falls every ``every`` steps."""
    every: PositiveInt
    """Training steps for one factor."""
    staircase: bool = False
    """Whether the value changes only every ``every`` steps."""

    def build(self) -> optax.Schedule:
        """Function from step count to value."""
        return optax.exponential_decay(self.start, self.every, self.factor, staircase=self.staircase)
