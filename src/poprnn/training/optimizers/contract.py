"""What an optimiser is: one of Optax's, with a learning rate or schedule and clipping."""

from typing import Annotated, Any

import optax
from pydantic import Field

from poprnn.core.blueprint import Blueprint, Positive
from poprnn.training.schedules.contract import Schedule


class Optimizer(Blueprint):
    """Base of optimisers. Clipping comes first, then the optimiser's own rule."""

    family = "optimizers"

    learning_rate: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Schedule = 1e-3
    """Step size, or a schedule of it."""
    clip_norm: Positive | None = None
    """Largest global norm of a member's gradient; ``None``: no limit."""
    clip_value: Positive | None = None
    """Largest absolute value of any gradient entry; ``None``: no limit."""

    def rule(self, learning_rate: Any) -> optax.GradientTransformation:
        """Optax's transformation."""
        raise NotImplementedError

    def build(self) -> optax.GradientTransformation:
        """Clipping and the rule, chained."""
        rate = self.learning_rate.build() if isinstance(self.learning_rate, Schedule) else self.learning_rate
        parts = []
        if self.clip_value is not None:
            parts.append(optax.clip(self.clip_value))
        if self.clip_norm is not None:
            parts.append(optax.clip_by_global_norm(self.clip_norm))
        return optax.chain(*parts, self.rule(rate))
