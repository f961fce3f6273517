"""What an optimiser is: one of Optax's, with a learning rate or schedule and clipping."""

from typing import Annotated, Any

import jax
import optax
from pydantic import Field

from poprnn.core.arrays import Scalar, Tree
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
        """Clipping and the rule, chained; then the scale of a schedule that follows the loss."""
        schedule = self.learning_rate if isinstance(self.learning_rate, Schedule) else None
        parts = []
        if self.clip_value is not None:
            parts.append(optax.clip(self.clip_value))
        if self.clip_norm is not None:
            parts.append(optax.clip_by_global_norm(self.clip_norm))
        parts.append(self.rule(self.learning_rate if schedule is None else schedule.build()))
        if schedule is not None and schedule.follows_loss:
            # after the rule, which ends by multiplying with the learning rate: the same as a smaller one. (But for
            # RMSProp's momentum, which comes later still and so shrinks at once.)
            parts.append(_scaled(schedule))
        return optax.chain(*parts)

    def observe(self, memory: Tree, loss: Scalar) -> Tree:
        """The memory (as made by ``build().init``) after an evaluation, for a schedule that follows the loss."""
        schedule = self.learning_rate
        if not isinstance(schedule, Schedule) or not schedule.follows_loss:
            return memory
        return (*memory[:-1], schedule.observe(memory[-1], loss))


def _scaled(schedule: Schedule) -> optax.GradientTransformation:
    """Updates times the schedule's scale; its state only changes between training steps, in ``observe``."""

    def update(updates: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
        del params
        scale = schedule.scale(state)
        return jax.tree.map(lambda a: a * scale.astype(a.dtype), updates), state

    return optax.GradientTransformation(lambda params: schedule.init(), update)
