"""What the unroll runs: a cell under a method, open or closed loop, seen as one state-space system."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from poprnn.cells.contract import Cell, Context, add_drives, add_product
from poprnn.core.arrays import Count, PRNGKey, Tree
from poprnn.core.errors import NotApplicableError
from poprnn.tasks.contract import Task
from poprnn.training.methods.contract import Method

Prepared = dict[str, Any]


class Carry(NamedTuple):
    """State of one trial between two steps."""

    state: Tree
    """The cell's state."""
    method: Tree
    """What the method remembers (anchors of skips)."""
    task: Tree
    """Closed loop: the task's state and the last output; else empty."""
    noise: Tree = None
    """Noise with a memory, at a block's beginning; steps do not see it."""


class Dynamics(NamedTuple):
    """One trial of one member, step by step. All methods are for a single trial; the unroll vectorises them."""

    cell: Cell
    method: Method
    task: Task | None = None
    """Given only for a closed loop."""

    def start(self, prepared: Prepared, trial: Tree, n_outputs: int, *, key: PRNGKey) -> Carry:
        """Carry before the first step."""
        cell_key, task_key = jax.random.split(key)
        state = self.cell.initial_state(prepared, key=cell_key)
        loop = () if self.task is None else (self.task.begin(trial, key=task_key), jnp.zeros(n_outputs))
        noise = self.cell.noise_start(prepared, key=jax.random.fold_in(cell_key, 1))
        if noise is not None and self.task is not None and not self.cell.splits_input:
            raise NotApplicableError(
                f"cell '{self.cell.name()}' has noise with a memory: in a closed loop it must define input_product"
            )
        return Carry(state, self.method.init(state), loop, noise)

    def external(self, prepared: Prepared, input: Tree, *, key: PRNGKey, context: Context) -> Tree:
        """Drive that does not depend on the state. In a closed loop that is the noise, if the cell tells it apart."""
        if self.task is None:
            return self.cell.input_drive(prepared, input, key=key, context=context)
        if not self.cell.splits_input:
            return input
        nothing = jnp.zeros_like(self.cell.input_product(prepared, jnp.zeros(self.task.n_inputs)))
        return self.cell.input_noise(prepared, nothing, key=key, context=context)

    def recurrent(self, prepared: Prepared, carry: Carry) -> Tree | None:
        """Drive from the state, by matrix products only."""
        if self.task is not None and not self.cell.splits_input:
            return None
        return self.cell.recurrent_drive(prepared, carry.state)

    def update(self, prepared: Prepared, carry: Carry, drive: Tree, *, key: PRNGKey, context: Context) -> Carry:
        """Next carry."""
        if self.task is not None:
            return self._closed_loop(prepared, carry, drive, key=key, context=context)
        state, method = self.method.update(
            self.cell, prepared, carry.state, carry.method, drive, key=key, context=context
        )
        return Carry(state, method, ())

    def _closed_loop(self, prepared: Prepared, carry: Carry, drive: Tree, *, key: PRNGKey, context: Context) -> Carry:
        respond_key, drive_key, update_key = jax.random.split(key, 3)
        task_state, output = carry.task
        task_state, input = self.task.respond(  # type: ignore[union-attr]
            task_state, context.trial, context.time, output, key=respond_key
        )
        if not self.cell.splits_input:
            drive = add_drives(
                self.cell.input_drive(prepared, input, key=drive_key, context=context),
                self.cell.recurrent_drive(prepared, carry.state),
            )
        else:
            drive = add_product(drive, self.cell.input_product(prepared, input))
        state, method = self.method.update(
            self.cell, prepared, carry.state, carry.method, drive, key=update_key, context=context
        )
        return Carry(state, method, (task_state, self.cell.readout(prepared, state)))

    def output(self, prepared: Prepared, carry: Carry) -> Tree:
        """Output after a step."""
        return carry.task[1] if self.task is not None else self.cell.readout(prepared, carry.state)


def context_at(time: Count, base: Context, trial: Tree) -> Context:
    """The context of one step of one trial."""
    return base._replace(time=time, trial=trial)
