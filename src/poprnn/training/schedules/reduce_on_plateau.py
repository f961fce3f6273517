"""A learning rate that is lowered whenever the loss no longer falls."""

from typing import Annotated, ClassVar, NamedTuple

import jax.numpy as jnp
import optax
from pydantic import Field

from poprnn.core.arrays import Count, Scalar
from poprnn.core.blueprint import Fraction, NonNegativeInt, Positive
from poprnn.training.schedules.contract import Schedule


class Plateau(NamedTuple):
    """What a member's schedule remembers."""

    scale: Scalar
    """Value over ``start``."""
    best: Scalar
    """Lowest loss so far."""
    since: Count
    """Evaluations since then, or since the value was last lowered."""


class ReduceOnPlateau(Schedule):
    """``start``, times ``factor`` after every ``patience + 1`` evaluations in a row in which the loss was not better.

    Better is a loss on fresh trials below ``best · (1 - min_change)``, best being the lowest there was; after a
    reduction the count begins again, the best stays. Every member has its own. The value never falls below ``start ·
    end_fraction``.

    The rule is that of ``torch.optim.lr_scheduler.ReduceLROnPlateau``, as are the defaults but for two: ``factor`` and
    ``patience`` are those of path integration in Huang, Singh, Rajan, Measuring and controlling solution degeneracy
    across task-trained recurrent neural networks (2024), appendix A.4, where ``start`` is 1e-3. Our choice, where it
    says nothing: the loss is that of the evaluation which ends an epoch, penalties not included. A training method that
    starts the optimiser anew starts this anew, too.

    >>> schedule = ReduceOnPlateau(start=0.1, patience=1)
    >>> state = schedule.init()
    >>> for loss in (3.0, 2.0, 2.0, 2.0, 2.0, 2.0):
    ...     state = schedule.observe(state, jnp.asarray(loss))
    ...     print(round(float(schedule.build()(0) * schedule.scale(state)), 4), end=" ")
    0.1 0.1 0.1 0.05 0.05 0.025
    """

    cites = ("huang2024",)
    traced = frozenset({"patience"})
    follows_loss: ClassVar[bool] = True

    start: Positive
    """Value at first."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Factor by which the value falls."""
    patience: NonNegativeInt = 40
    """Evaluations without a better loss that are put up with."""
    min_change: Annotated[float, Field(ge=0, lt=1)] = 1e-4
    """Share of the best loss by which a better one must lie below it."""
    end_fraction: Fraction = 0.0
    """Lowest value over ``start``."""

    def build(self) -> optax.Schedule:
        """``start``, at every step."""
        return optax.constant_schedule(self.start)

    def init(self) -> Plateau:
        """Nothing seen, nothing reduced."""
        return Plateau(jnp.ones((), jnp.float32), jnp.asarray(jnp.inf, jnp.float32), jnp.asarray(0, jnp.int32))

    def observe(self, state: Plateau, loss: Scalar) -> Plateau:
        """Count evaluations that were not better, and reduce after too many."""
        better = loss < state.best * (1 - self.min_change)
        since = jnp.where(better, 0, state.since + 1)
        too_many = since > self.patience
        lower = jnp.maximum(state.scale * self.factor, self.end_fraction)
        return Plateau(
            jnp.where(too_many, lower, state.scale).astype(jnp.float32),
            jnp.where(better, loss, state.best).astype(jnp.float32),
            jnp.where(too_many, 0, since).astype(jnp.int32),
        )

    def scale(self, state: Plateau) -> Scalar:
        """What is left of ``start``."""
        return state.scale
