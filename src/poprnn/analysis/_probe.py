"""Running a population many times over, each time with something changed in it: weights, time constants, units.

The changed networks are mapped like members (one after another on each core, vmapped on accelerators), so neither
conditions nor members are looped over in Python and nothing is compiled twice.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax
from pydantic import Field

from poprnn.analysis._population import heads_by_stage, random_bits, smallest_dt, stage_snapshots
from poprnn.analysis._statistics import relative_accuracy
from poprnn.cells.contract import Cell, Context, Parameters
from poprnn.core import backend, trees
from poprnn.core.arrays import Array, Bool, Count, Float, Int, PRNGKey, Tree
from poprnn.core.blueprint import Finite
from poprnn.core.errors import ConfigurationError, NotApplicableError
from poprnn.core.keys import member_key
from poprnn.core.mapping import MemberMap
from poprnn.tasks._memory import MemoryTask
from poprnn.tasks.contract import Stage
from poprnn.training import unroll as unrolling
from poprnn.training.dynamics import Carry, Dynamics
from poprnn.training.evaluate import in_common
from poprnn.training.methods.contract import Method
from poprnn.training.program import Program
from poprnn.training.rollout import Perturbed
from poprnn.training.run import Run, to_numpy
from poprnn.training.settings import Setup, shape_of

Chance = Annotated[float, Field(ge=0, lt=1)]
Strengths = Annotated[Sequence[Finite], Field(min_length=1)]
Change = Callable[[Cell, Parameters, Tree, PRNGKey], Parameters]
"""``(cell, parameters, condition, key) -> parameters`` of one network under one condition."""


class Probe(NamedTuple):
    """How a network is driven and what is asked of it."""

    n_trials: int
    n_steps: int
    """Steps that are scored, after the burn-in. Memory tasks only, as the next two; others run trials of their own."""
    burn_in: int
    bit_probability: float | str
    seed: int


class Answers(NamedTuple):
    """What came out, for every member and condition."""

    accuracy: Float[np.ndarray, "member condition"]
    """Share of right answers (for tasks without memories N: their score)."""
    largest: Float[np.ndarray, "member condition"]
    """Largest absolute activity of any unit at any step (NaN for tasks without memories N)."""


def silence(state: Tree, unit: Count) -> Tree:
    """One unit's entry of every array of a state set to zero; none for a negative number."""
    return jax.tree.map(lambda a: jnp.where(jnp.arange(a.shape[-1]) == unit, jnp.zeros_like(a), a), state)


def probe(
    run: Run,
    conditions: Tree,
    change: Change | None,
    how: Probe,
    *,
    heads: Int[np.ndarray, "member"],
    units: Int[np.ndarray, "member condition"] | None = None,
) -> Answers:
    """Accuracy of every member under every condition, at one head each.

    Args:
        run: the population.
        conditions: arrays ``[condition, …]`` that ``change`` is given a row of.
        change: what is done to the parameters; ``None``: nothing.
        how: input and length. All members and conditions see the same bits and the same first states.
        heads: which head is asked, for each member.
        units: unit to be silenced, -1 for none; ``None``: none anywhere.
    """
    n_conditions = len(jax.tree.leaves(conditions)[0])
    n_rows = run.n_members * n_conditions
    place = np.repeat(np.arange(run.n_members, dtype=np.int32), n_conditions)
    each = jax.tree.map(lambda a: np.tile(np.asarray(a), (run.n_members,) + (1,) * (np.ndim(a) - 1)), conditions)
    silenced = np.full(n_rows, -1, np.int32) if units is None else np.asarray(units, np.int32).reshape(-1)
    varied = {name: values[place] for name, values in run.varied.items()}
    mapped = _compiled(shape_of(run.setup), n_rows, change, how._replace(seed=0), units is not None)
    with backend.precision(32):
        shared = in_common(run, how.seed) | {
            "parameters": jax.tree.map(jnp.asarray, run.parameters),
            "heads": jnp.asarray(heads, jnp.int32),
            "members": jnp.asarray(run.member_index, jnp.int32),
            "drive": _drive(run.task, run.seed, how) if isinstance(run.task, MemoryTask) else (),
        }
        states = (place, np.tile(np.arange(n_conditions, dtype=np.int32), run.n_members), varied, each, silenced)
        found = to_numpy(mapped(states, shared)[1])
    return Answers(*(a.reshape(run.n_members, n_conditions) for a in found))


@functools.lru_cache(maxsize=16)
def _compiled(setup: Setup, n_rows: int, change: Change | None, how: Probe, silences: bool) -> MemberMap:
    """The program for one network under one condition; the next snapshot of the population needs no other."""
    program, task = Program(setup), setup.task

    def one(state: Tree, shared: Tree) -> tuple[Tree, Any]:
        place, number, varied, condition, unit = state
        own = program.of(varied)
        parameters = trees.row(shared["parameters"], place)
        key = jax.random.fold_in(member_key(shared["seed"], shared["members"][place], "probe"), shared["extra"])
        start_key, change_key = jax.random.split(key)
        if change is not None:
            parameters = change(own.cell, parameters, condition, jax.random.fold_in(change_key, number))
        method = Perturbed(perturb=lambda state, time: silence(state, unit)) if silences else Method()
        head = shared["heads"][place]
        if isinstance(task, MemoryTask):
            return state, _driven(own, method, parameters, head, unit, shared["drive"], how, key=start_key)
        score = _scored(program, own, method, parameters, head, shared["arrays"], how.n_trials, key=start_key)
        return state, (score, jnp.full((), jnp.nan))

    return MemberMap(one, n_rows)


class _Drive(NamedTuple):
    inputs: Float[Array, "time trial input"]
    labels: Bool[Array, "time trial head"]
    asked: Bool[Array, "time"]
    """Whether the step is past the burn-in and the last of its bit, when the answer is due."""


@functools.lru_cache(maxsize=4)
def _drive(task: MemoryTask, seed: int, how: Probe) -> _Drive:
    """Random bits, the same for all members and snapshots, and the right answer of every head at every step."""
    n_steps = how.burn_in + how.n_steps
    bits, per_bit = random_bits(task, seed, how.n_trials, n_steps, how.bit_probability, how.seed)
    # one trial at a time: labels are made from all pairs of bits
    labels = lax.map(lambda b: task.labels(b)[0] == 1, bits)
    over_steps = lambda a: jnp.swapaxes(jnp.repeat(a, per_bit, axis=1)[:, :n_steps], 0, 1)
    time = jnp.arange(n_steps)
    asked = (time >= how.burn_in) & (time % per_bit == per_bit - 1)
    return _Drive(over_steps(task.encode(bits))[..., None], over_steps(labels), asked)


def _driven(
    setup: Setup,
    method: Method,
    parameters: Parameters,
    head: Count,
    unit: Count,
    drive: _Drive,
    how: Probe,
    *,
    key: PRNGKey,
) -> tuple[Array, Array]:
    """Share of right answers over trials and steps, and the largest activity."""
    task: Any = setup.task
    cell, context = setup.cell, Context(dt=smallest_dt(setup))
    prepared = cell.prepare(parameters, context)
    dynamics = Dynamics(cell, method)
    start_key, step_key = jax.random.split(key)
    carry = jax.vmap(lambda k: dynamics.start(prepared, None, task.n_outputs, key=k))(
        jax.random.split(start_key, how.n_trials)
    )
    carry = carry._replace(state=silence(carry.state, unit))
    sequence = unrolling.Sequence(
        drive.inputs, jax.random.split(step_key, how.n_trials), drive.inputs.shape[0], context, None
    )
    shared = setup.training.curriculum.shared_readout

    def emit(q: dict[str, Any], c: Carry) -> tuple[Array, Array]:
        logits = task.logits(cell.readout(q, c.state), shared)[head]
        return logits[1] > logits[0], jnp.max(jnp.abs(cell.activity(c.state)))

    emitted = unrolling.unroll(dynamics, prepared, carry, sequence, gradient=False, emit=emit)[1].outputs
    right = emitted[0] == trees.row(jnp.moveaxis(drive.labels, -1, 0), head)
    accuracy = jnp.sum(jnp.where(drive.asked[:, None], right, False)) / (jnp.sum(drive.asked) * how.n_trials)
    largest = jnp.where(jnp.all(jnp.isfinite(emitted[1])), jnp.max(emitted[1]), jnp.inf)
    return accuracy, largest


def _scored(
    program: Program,
    setup: Setup,
    method: Method,
    parameters: Parameters,
    head: Count,
    arrays: Tree,
    n_trials: int,
    *,
    key: PRNGKey,
) -> Array:
    """The task's own score on fresh trials, with all heads active, at one head."""
    task = setup.task
    stage = Stage(
        jnp.ones(task.n_heads, bool), head, jnp.int32(0), setup.training.curriculum.shared_readout, "evaluate"
    )
    batch = program.run_batch(setup, method, parameters, stage, arrays, Context(), key=key, n_trials=n_trials)
    scores = jax.vmap(lambda o, t: task.scores(o, t, batch.setting))(batch.outputs, batch.trials)[task.score]
    by_head = jnp.broadcast_to(jnp.nanmean(scores, axis=0).reshape(-1), (task.n_heads,))
    return by_head[head]


# --- which weights, which head -------------------------------------------------------------------------------------


def at_memory(run: Run, n: int | None, name: str) -> tuple[Run, Int[np.ndarray, "member"], Bool[np.ndarray, "member"]]:
    """The weights from when a memory N was solved, the head that asks for it, and which members got there.

    ``n = None``: the final weights, and the newest head of each member's stage. Networks without stage snapshots
    (brought in, or trained without) are taken as they are.
    """
    task = run.task
    everyone = np.ones(run.n_members, bool)
    if n is None:
        stages = np.asarray(run.places().index) if run.progress is not None else None
        if stages is None:
            return run, np.full(run.n_members, task.n_heads - 1), everyone
        newest = heads_by_stage(run, np.arange(run.setup.training.curriculum.n_stages(task)))[1]
        return run, newest[np.arange(run.n_members), np.minimum(stages, newest.shape[1] - 1)], everyone
    if not isinstance(task, MemoryTask):
        raise NotApplicableError(f"{name}: task '{task.name()}' has no memories N; leave n out")
    if not task.n_min <= n <= task.n_max:
        raise ConfigurationError(f"{name}: n = {n}: must be in {task.n_min} … {task.n_max}, the memories of the task")
    head = np.full(run.n_members, n - task.n_min)
    kept = stage_snapshots(run)
    if not kept:
        return run, head, everyone
    for stage in kept:
        if (stage.n == n).all():
            return run.at(stage.name), head, stage.reached
    raise NotApplicableError(f"{name}: no member of this run has solved N = {n}")


def chance_of(run: Run, chance: float | None) -> float:
    """Accuracy of guessing: one half for memory tasks, 0 for scores of other tasks."""
    return chance if chance is not None else 0.5 * isinstance(run.task, MemoryTask)


def perturbed(
    run: Run,
    change: Change,
    name: str,
    *,
    n: int | None,
    strengths: Float[np.ndarray, "strength"],
    n_draws: int,
    how: tuple[Any, ...],
    chance: float | None,
) -> xr.Dataset:
    """Accuracy under several strengths and draws of a random change, absolute and relative to the unchanged network."""
    run, heads, reached = at_memory(run, n, name)
    # the first condition is the network as it is
    conditions = np.concatenate([[0.0], np.repeat(strengths, n_draws)]).astype(np.float32)
    found = probe(run, conditions, change, Probe(*how), heads=heads).accuracy
    found = np.where(reached[:, None], found, np.nan)
    base, accuracy = found[:, 0], found[:, 1:].reshape(run.n_members, len(strengths), n_draws)
    axes = ("member", "strength", "draw")
    return xr.Dataset(
        {
            "accuracy": (axes, accuracy),
            "relative_accuracy": (axes, relative_accuracy(accuracy, base[:, None, None], chance_of(run, chance))),
            "base_accuracy": ("member", base),
        },
        {"member": run.member_index, "strength": strengths, "draw": np.arange(n_draws)},
    )
