"""What a training method is: how the unroll departs from the base dynamics while a network is being trained."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from poprnn.cells.contract import Cell, Context
from poprnn.core.arrays import Array, Bool, Count, PRNGKey, Tree
from poprnn.core.blueprint import Blueprint
from poprnn.tasks.contract import Setting, Task


class Method(Blueprint):
    """Base of all methods; by itself the base dynamics, unchanged.

    A method may keep something beside the cell's state (``init``), mix it in after each update (``update``) and
    change how a batch is discretised (``adapt``), all by values that change over training (``schedule``). Once its
    schedule has ended a method must be exactly the base dynamics. Evaluations and rollouts never use it.
    """

    family = "methods"
    reads_trial: ClassVar[bool] = False
    """Whether :meth:`update` looks at ``context.trial``, its periods and skips."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if {"init", "update", "departure"} & vars(cls).keys() and "reach" not in vars(cls):
            cls.reach = Method.reach  # type: ignore[method-assign]  # says something about the methods it stands beside

    @property
    def reach(self) -> Count | None:
        """For compiled kernels, of a method that makes skips through time: how many Euler steps from the state at
        its beginning a skip brings to its end (0: that state itself). ``None``: it runs by the methods below."""
        return None

    def check(self, cell: Cell, task: Task) -> None:
        """Raise ``ConfigurationError`` if the method cannot work with this cell or task."""
        del cell, task

    def schedule(self, n_step: Count) -> dict[str, Any]:
        """Values for training step ``n_step``; they stand in ``context.schedule``."""
        del n_step
        return {}

    def restarts(self, n_step: Count) -> Bool[Array, ""] | bool:
        """Whether the optimiser forgets what it has gathered (means, momentum) before training step ``n_step``."""
        del n_step
        return False

    def adapt(self, setting: Setting, schedule: dict[str, Any], task: Task) -> Setting:
        """The batch's setting as the method wants it (a coarser dt, for instance)."""
        del schedule, task
        return setting

    def init(self, state: Tree) -> Tree:
        """What the method remembers at the start of a trial."""
        del state
        return ()

    def update(
        self,
        cell: Cell,
        prepared: dict[str, Any],
        state: Tree,
        memory: Tree,
        drive: Tree,
        *,
        key: PRNGKey,
        context: Context,
    ) -> tuple[Tree, Tree]:
        """Next state and memory. Element-wise only: products belong to the cell's drives."""
        return cell.update(prepared, state, drive, key=key, context=context), memory


def mix(a: Tree, b: Tree, weight: jax.Array | float) -> Tree:
    """``weight · a + (1 - weight) · b``, exactly ``a`` where the weight is 1 and for arrays that are not real."""

    def one(x: Array, y: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        return jnp.where(weight == 1, x, weight * x + (1 - weight) * y)

    return jax.tree.map(one, a, b)
