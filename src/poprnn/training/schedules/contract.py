"""What a schedule is: a number that changes with the training step, or with how training goes."""

from typing import ClassVar

import jax.numpy as jnp
import optax

from poprnn.core.arrays import Scalar, Tree
from poprnn.core.blueprint import Blueprint


class Schedule(Blueprint):
    """Base of learning-rate schedules: the value is ``build()(step) · scale(state)``.

    Most depend on the step alone and define nothing but :meth:`build`. Those that follow the loss keep a state of their
    own for each member, beside the optimiser's (so it is in every checkpoint), and are shown the loss of every
    evaluation.
    """

    family = "schedules"
    follows_loss: ClassVar[bool] = False
    """Whether :meth:`init`, :meth:`observe` and :meth:`scale` are used."""

    def build(self) -> optax.Schedule:
        """Function from step count to value."""
        raise NotImplementedError

    def init(self) -> Tree:
        """State at the start of training."""
        return ()

    def observe(self, state: Tree, loss: Scalar) -> Tree:
        """The state after an evaluation with this mean loss on fresh trials."""
        del loss
        return state

    def scale(self, state: Tree) -> Scalar:
        """What the value of the step is multiplied by."""
        del state
        return jnp.ones(())
