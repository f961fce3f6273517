"""Cosine annealing that starts anew again and again."""

import jax.numpy as jnp
import numpy as np
import optax

from poprnn.core.arrays import Count, Scalar
from poprnn.core.blueprint import Fraction, Positive, PositiveInt
from poprnn.core.errors import ConfigurationError
from poprnn.training.schedules.contract import Schedule


class CosineRestarts(Schedule):
    """Half a cosine from ``peak`` down to ``peak · end_fraction``, over and over, in periods that may grow.

        value(s) = peak (end_fraction + (1 - end_fraction) (1 + cos(pi s' / T_i)) / 2),   T_i = period · period_factor^i

    where s' are the steps since cycle i = 0, 1, 2, … began, rounded down to a multiple of ``every``. There are as many
    cycles as training lasts. Loshchilov & Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR 2017.
    Equal to ``torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`` with T_0 = period / every, T_mult = period_factor
    and eta_min = peak · end_fraction, stepped once in ``every`` training steps. ``Cosine`` has a warm-up, equally long
    cycles, and an end.

    Huang, Singh, Rajan, Measuring and controlling solution degeneracy across task-trained recurrent neural networks
    (2024), train delayed discrimination with such a schedule from 1e-3; the period is not given.

    Raises ``ConfigurationError`` where a period is no multiple of ``every``.

    >>> f = CosineRestarts(peak=0.1, period=100, period_factor=2).build()
    >>> [round(float(f(step)), 3) for step in (0, 50, 100, 200, 300)]      # cycles begin at 0, 100, 300
    [0.1, 0.05, 0.1, 0.05, 0.1]
    """

    peak: Positive
    """Value at the beginning of a cycle."""
    period: PositiveInt
    """Training steps of the first cycle."""
    period_factor: PositiveInt = 1
    """Length of every cycle over that of the one before it."""
    end_fraction: Fraction = 0.0
    """Lowest value over ``peak``."""
    every: PositiveInt = 1
    """Training steps for which the value stays; as many as an epoch has, for a schedule that moves once an epoch."""

    def __post_init__(self) -> None:
        if self.period % self.every:
            raise ConfigurationError(
                f"CosineRestarts: period = {self.period}: must be a multiple of every = {self.every}"
            )

    def starts(self) -> np.ndarray:
        """Step at which every cycle begins, up to the largest step there is; the first only where all are alike.

        >>> CosineRestarts(peak=0.1, period=10, period_factor=3).starts()[:4].tolist()
        [0, 10, 40, 130]
        """
        starts, length = [0], self.period
        while self.period_factor > 1 and starts[-1] + length < 2**31:
            starts.append(starts[-1] + length)
            length *= self.period_factor
        return np.array(starts, np.int32)

    def build(self) -> optax.Schedule:
        """Function from step count to value."""
        starts = self.starts()
        lengths = self.period * float(self.period_factor) ** np.arange(len(starts))

        def value(step: Count) -> Scalar:
            cycle = jnp.sum(step >= starts) - 1
            since = step - jnp.asarray(starts)[cycle]
            since = since % self.period if self.period_factor == 1 else since
            share = (since - since % self.every) / jnp.asarray(lengths, jnp.float32)[cycle]
            return self.peak * (self.end_fraction + (1 - self.end_fraction) * (1 + jnp.cos(jnp.pi * share)) / 2)

        return value
