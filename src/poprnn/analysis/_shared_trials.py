"""A whole population on one set of trials, which comparing representations, dynamics or codes needs."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from poprnn.cells.contract import Cell, Context
from poprnn.core import backend
from poprnn.core.arrays import Float, Int, Tree
from poprnn.core.errors import NotApplicableError
from poprnn.core.keys import member_key
from poprnn.core.mapping import MemberMap
from poprnn.tasks.contract import Trial
from poprnn.training.batches import state_of
from poprnn.training.evaluate import in_common, of_members
from poprnn.training.methods.contract import Method
from poprnn.training.program import Program
from poprnn.training.run import Run, to_numpy
from poprnn.training.settings import Setup, shape_of

Read = Callable[[Cell, dict[str, Any], Tree], Tree]
"""What is taken of a step: of the cell, its prepared arrays and the state after the step."""


class Shared(NamedTuple):
    """A population on one set of trials."""

    values: Tree
    """What was read, ``[member, trial, time, …]``, cut to the steps that the trials have."""
    trials: Trial
    """``[trial, …]``; those of the first member, which are the others' too in an open loop."""
    length: Int[np.ndarray, "member"]


def on_shared_trials(run: Run, n_trials: int, seed: int, read: Read) -> Shared:
    """What every member does on the same fresh trials.

    Trials are those of the stage that the first member has reached. Starts and noise are the members' own. In a
    closed loop the trials are the same and what follows from a member's answers is not. ``read`` is a function of some
    module, so that the program is found again.
    """
    with backend.precision(32):
        *states, places = of_members(run)
        shared = in_common(run, seed) | {"progress": jax.tree.map(lambda a: jnp.asarray(a[0]), places)}
        mapped = _compiled(shape_of(run.setup), run.n_members, n_trials, read)
        values, trials, length = to_numpy(mapped(tuple(states), shared)[1])
    n_steps = int(np.min(length))
    return Shared(
        jax.tree.map(lambda a: a[:, :, :n_steps], values), jax.tree.map(lambda a: a[0], trials), np.asarray(length)
    )


def activity_on_shared_trials(
    analysis: str, run: Run, n_trials: int, seed: int
) -> Float[np.ndarray, "member trial time unit"]:
    """Every member's activity on the same fresh trials, cut to the steps that the trials have.

    Raises:
        NotApplicableError: a cell whose activity is not a vector. CapacityError: too much for the memory there is.
    """
    with backend.precision(32):
        shape = jax.eval_shape(run.cell.activity, state_of(run.setup)).shape
    if len(shape) != 1:
        raise NotApplicableError(f"{analysis}: the activity of this cell is not one number for each unit")
    size = run.n_members * n_trials * run.task.capacity * shape[0] * 8
    backend.require_memory(size, f"{analysis}: activity on {n_trials} trials")
    return on_shared_trials(run, n_trials, seed, _activity).values


def _activity(cell: Cell, prepared: dict[str, Any], state: Tree) -> Tree:
    return cell.activity(state)


@functools.lru_cache(maxsize=8)
def _compiled(setup: Setup, n_members: int, n_trials: int, read: Read) -> MemberMap:
    """One member on the trials; the next snapshot of the population needs no other program."""
    program, task = Program(setup), setup.task

    def member(state: Tree, shared: Tree) -> tuple[Tree, Any]:
        index, varied, parameters = state
        own = program.of(varied)
        stage = own.training.curriculum.stage(task, shared["progress"])._replace(split="evaluate")
        of = lambda number, name: jax.random.fold_in(member_key(shared["seed"], number, name), shared["extra"])
        batch = program.run_batch(
            own,
            Method(),
            parameters,
            stage,
            shared["arrays"],
            Context(),
            key=of(index, "rollout"),
            trial_key=of(0, "analysis"),
            n_trials=n_trials,
            emit=lambda prepared, carry: read(own.cell, prepared, carry.state),
        )
        return state, (batch.emitted, batch.trials, jnp.asarray(batch.setting.length, jnp.int32))

    return MemberMap(member, n_members)
