"""Cosine decay, with optional warm-up and warm restarts."""

import optax

from poprnn.core.blueprint import Fraction, NonNegativeInt, Positive, PositiveInt
from poprnn.training.schedules.contract import Schedule


class Cosine(Schedule):
    """Linear warm-up to ``peak`` over ``warmup_steps``, then half a cosine down to ``peak · end_fraction``.

    With ``n_cycles`` > 1 the cycle of ``decay_steps`` starts anew that often (warm restarts; Loshchilov & Hutter,
    SGDR, ICLR 2017).

    >>> f = Cosine(peak=0.1, decay_steps=100).build()
    >>> round(float(f(0)), 3), round(float(f(50)), 3), round(float(f(100)), 3)
    (0.1, 0.05, 0.0)
    """

    peak: Positive
    """Largest value."""
    decay_steps: PositiveInt
    """Training steps of one cycle, warm-up included."""
    warmup_steps: NonNegativeInt = 0
    """Training steps of the warm-up."""
    end_fraction: Fraction = 0.0
    """Last value over ``peak``."""
    n_cycles: PositiveInt = 1
    """Number of cycles."""

    def build(self) -> optax.Schedule:
        """Function from step count to value."""
        start = 0.0 if self.warmup_steps else self.peak
        cycle = optax.warmup_cosine_decay_schedule(
            start, self.peak, self.warmup_steps, self.decay_steps, self.peak * self.end_fraction
        )
        return optax.join_schedules([cycle] * self.n_cycles, [self.decay_steps * i for i in range(1, self.n_cycles)])
