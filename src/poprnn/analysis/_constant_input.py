"""Networks left to themselves under a constant input: the map of one step, where trials take the state, which input."""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from pydantic import Field

from poprnn.analysis._population import smallest_dt, trial_shapes
from poprnn.cells.contract import Cell, Context, Parameters
from poprnn.core import backend, trees
from poprnn.core.arrays import Array, Bool, Float, PRNGKey, Scalar, Tree
from poprnn.core.blueprint import Finite
from poprnn.core.errors import ConfigurationError, NotApplicableError, nearest
from poprnn.core.keys import member_key
from poprnn.core.mapping import MemberMap
from poprnn.tasks.contract import in_steps
from poprnn.training.evaluate import in_common, of_members
from poprnn.training.methods.control import Control
from poprnn.training.program import Program
from poprnn.training.run import Run, to_numpy
from poprnn.training.settings import Setup, shape_of

Vector = Annotated[Sequence[Finite], Field(min_length=1)]
Inputs = Literal["zero", "mean", "distinct"] | Vector | Annotated[Sequence[Vector], Field(min_length=1)]
MAX_DISTINCT = 64
"""More inputs than that are not a few conditions but noise."""


class Still(NamedTuple):
    """One network without noise under an input that does not change: a map of flat states."""

    step: Callable[[Float[Array, "dimension"]], Float[Array, "dimension"]]
    activity: Callable[[Float[Array, "dimension"]], Float[Array, "unit"]]
    output: Callable[[Float[Array, "dimension"]], Float[Array, "output"]]


def still(cell: Cell, parameters: Parameters, input: Float[Array, "input"], dt: Scalar | float | None) -> Still:
    """``h -> F(h, x)`` for the real arrays of the cell's state, one after another in one vector.

    ``noise`` is set to 0 where the cell has such an option; memories of noise and counters stay what they are at the
    start of a trial. What a method adds in training is left out.
    """
    quiet = quietened(cell)
    context, key = Context(dt=dt), jax.random.key(0)
    prepared = quiet.prepare(parameters, context)
    part, rest = trees.split(quiet.initial_state(prepared, key=key))
    # in the precision of the caller, whatever that of the cell's first state
    part = jax.tree.map(lambda a: a.astype(input.dtype), part)
    unravel = ravel_pytree(part)[1]
    whole = lambda h: trees.join(unravel(h), rest)

    def step(h: Float[Array, "dimension"]) -> Float[Array, "dimension"]:
        new = quiet.step(prepared, whole(h), input, key=key, context=context)
        return flat(new).astype(input.dtype)

    return Still(step, lambda h: quiet.activity(whole(h)), lambda h: quiet.readout(prepared, whole(h)))


def quietened(cell: Cell) -> Cell:
    """The cell without noise."""
    return cell.substitute({"noise": 0.0}) if hasattr(cell, "noise") else cell


def flat(state: Tree) -> Float[Array, "dimension"]:
    """The real arrays of a state, one after another."""
    return ravel_pytree(trees.floats(state))[0]


class Visited(NamedTuple):
    """States that a population passed through in trials of its task."""

    states: Float[np.ndarray, "member start dimension"]
    inputs: Float[np.ndarray, "member start input"]
    """The input of the step that led to the state."""
    dt: Float[np.ndarray, "member"] | None
    """The integration step of those trials; ``None``: the cell's own."""


def visited(run: Run, n_starts: int, n_trials: int, period: str | None, seed: int, name: str) -> Visited:
    """States at random steps of fresh trials (of one period of them), none twice while there are others.

    Trials are those of the stage each member has reached, with the cell's own noise.

    Raises:
        NotApplicableError: there is no such period, in any trial, or the cell has no state. CapacityError: too many
            trials for the memory there is.
    """
    if period is not None:
        _check_period(run, period, name)
    size = n_trials * run.task.capacity * run.n_members * 4 * (getattr(run.cell, "n_units", 1000) + run.task.n_inputs)
    backend.require_memory(2 * size, f"the trials that {name} starts from")
    with backend.precision(32):
        mapped = _visits(shape_of(run.setup), run.n_members, n_starts, n_trials, period)
        found, inputs, dt, n_there = to_numpy(mapped(of_members(run), in_common(run, seed))[1])
    if not n_there.all():
        raise NotApplicableError(f"{name}: no step of these {n_trials} trials is in period '{period}'")
    if not found.shape[-1]:
        raise NotApplicableError(f"{name}: cell '{run.cell.name()}' has no state that could stay the same")
    smallest = smallest_dt(run)
    if smallest is not None:  # a memory task draws its dt anew for every batch
        dt = np.full(run.n_members, smallest, np.float32)
    return Visited(found, inputs, dt)


def displaced(
    states: Float[Array, "start dimension"], jitter: Scalar, *, key: PRNGKey
) -> tuple[Float[Array, "start dimension"], Float[Array, "dimension"], Scalar]:
    """Starts with Gaussian jitter; mean and spread (root mean square distance from the mean) of the states visited.

    The root mean square length of the displacement is ``jitter`` times the spread.
    """
    centre = jnp.mean(states, axis=0)
    spread = jnp.sqrt(jnp.mean(jnp.sum((states - centre) ** 2, axis=1)))
    scale = jitter * spread / jnp.sqrt(states.shape[1])
    return states + scale * jax.random.normal(key, states.shape, states.dtype), centre, spread


def widened(run: Run, seen: Visited, dt: float | None) -> tuple[Any, ...]:
    """Number, varied options, parameters, states visited and integration step of every member, in float64."""
    steps = np.full(run.n_members, dt) if dt is not None else seen.dt

    def wide(a: Any) -> Any:
        return np.asarray(a, np.float64) if np.issubdtype(np.asarray(a).dtype, np.floating) else a

    return (run.member_index.astype(np.int32), *jax.tree.map(wide, (run.varied, run.parameters, seen.states, steps)))


@functools.lru_cache(maxsize=8)
def _visits(setup: Setup, n_members: int, n_starts: int, n_trials: int, period: str | None) -> MemberMap:
    """The program of one member's trials, and its choice of steps."""
    program, task = Program(setup), setup.task

    def member(state: Tree, shared: Tree) -> tuple[Tree, Any]:
        index, varied, parameters, progress = state
        own = program.of(varied)
        key = jax.random.fold_in(member_key(shared["seed"], index, "analysis"), shared["extra"])
        trial_key, choice_key = jax.random.split(key)
        stage = own.training.curriculum.stage(task, progress)._replace(split="evaluate")
        emit = lambda q, c: flat(c.state)
        batch = program.run_batch(
            own, Control(), parameters, stage, shared["arrays"], Context(), key=trial_key, n_trials=n_trials, emit=emit
        )
        inputs = jax.vmap(lambda values: in_steps(values, task.capacity))(batch.trials.inputs)
        counts = jnp.broadcast_to(jnp.arange(task.capacity) < batch.setting.length, (n_trials, task.capacity))
        if period is not None:
            bounds, time = (batch.trials.periods or {})[period], jnp.arange(task.capacity)
            counts &= (bounds[:, :1] <= time) & (time < bounds[:, 1:])
        chosen, n_there = _choose(counts.reshape(-1), n_starts, key=choice_key)
        take = lambda a: a.reshape(-1, a.shape[-1])[chosen]
        dt = None if batch.setting.dt is None else jnp.asarray(batch.setting.dt, jnp.float32)
        return state, (take(batch.emitted), take(inputs), dt, n_there)

    return MemberMap(member, n_members)


def _choose(counts: Bool[Array, "step"], n: int, *, key: PRNGKey) -> tuple[Array, Array]:
    """Places of ``n`` steps that count, in random order, from the first again when all were taken; and their number."""
    n_there = jnp.sum(counts)
    order = jnp.argsort(jnp.where(counts, jax.random.uniform(key, counts.shape), jnp.inf))
    return order[jnp.arange(n) % jnp.maximum(n_there, 1)], n_there


def _check_period(run: Run, period: str, name: str) -> None:
    """Before anything is run: the task's trials have such a period."""
    known = list(trial_shapes(run).periods or {})
    if period not in known:
        raise NotApplicableError(
            f"{name}: the trials of task '{run.task.name()}' have no period '{period}'{nearest(period, known)}; "
            f"there is: {', '.join(known) or 'none'}"
        )


def constant_inputs(
    run: Run, asked: Any, seen: Float[np.ndarray, "member start input"], name: str
) -> tuple[Float[np.ndarray, "condition input"], bool]:
    """The inputs that networks are held under, and whether there may be several of them (an axis of the answer)."""
    n_inputs = run.task.n_inputs
    if isinstance(asked, str):
        together = np.asarray(seen, np.float64).reshape(-1, n_inputs)
        if asked == "zero":
            return np.zeros((1, n_inputs)), False
        if asked == "mean":
            return together.mean(axis=0, keepdims=True), False
        different = np.unique(together, axis=0)
        if len(different) > MAX_DISTINCT:
            raise ConfigurationError(
                f"{name}: inputs = 'distinct': there are {len(different)} different inputs, more than {MAX_DISTINCT}; "
                "choose a period in which there are few, inputs = 'mean', or give them"
            )
        return different, True
    several = isinstance(asked[0], Sequence)
    lengths = {len(vector) for vector in (asked if several else [asked])}
    if lengths != {n_inputs}:
        raise ConfigurationError(
            f"{name}: inputs: must have one number for each of the {n_inputs} input channels of task "
            f"'{run.task.name()}', here {sorted(lengths)}"
        )
    return np.atleast_2d(np.asarray(asked, np.float64)), several
