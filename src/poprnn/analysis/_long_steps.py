"""A coarser discretisation seen on the time axis of the fine one, so that the two can be compared."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import Field

from poprnn.cells.contract import Cell, Context
from poprnn.core import trees
from poprnn.core.arrays import Count, PRNGKey, Tree
from poprnn.training.methods.contract import Method


class _Held(NamedTuple):
    n_since: Count
    """Steps since the long step in progress began."""
    arrival: Tree
    """Where it will end."""


class LongSteps(Method):
    """Every theta steps one Euler step of theta dt; in between the state stays as it is.

        r(t + theta) = r(t) + theta dt dr/dt(t),     r(t + 1) = … = r(t + theta - 1) = r(t)

    dr/dt with the input and the noise of step t: those of the fine trial, sampled. What is not part of the dynamics
    (the state of noise with a memory) goes on step by step, as in the base dynamics.
    """

    traced = frozenset({"span"})

    span: Annotated[int, Field(ge=1, lt=2**31)]
    """theta."""

    def init(self, state: Tree) -> _Held:
        """A long step begins with the trial."""
        return _Held(jnp.asarray(0, jnp.int32), trees.floats(state))

    def update(
        self,
        cell: Cell,
        prepared: dict[str, Any],
        state: Tree,
        memory: _Held,
        drive: Tree,
        *,
        key: PRNGKey,
        context: Context,
    ) -> tuple[Tree, _Held]:
        """The state of before, or the end of the long step; with theta = 1 exactly the base step."""
        base, others = trees.split(cell.update(prepared, state, drive, key=key, context=context))
        now, change = trees.floats(state), trees.floats(cell.derivative(prepared, state, drive))
        begins, arrives = memory.n_since == 0, memory.n_since + 1 == self.span
        arrival = jax.tree.map(
            lambda r, dr, old: jnp.where(begins, r + self.span * dr, old), now, change, memory.arrival
        )
        held = jax.tree.map(lambda end, r: jnp.where(arrives, end, r), arrival, now)
        new = jax.tree.map(lambda r, step: jnp.where(self.span == 1, step, r), held, base)
        return trees.join(new, others), _Held(jnp.where(arrives, 0, memory.n_since + 1), arrival)
