"""What several analyses need of a population: weights as the dynamics see them, stages, activity under bits."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from poprnn.cells.contract import Cell, Context, Parameters
from poprnn.core import backend
from poprnn.core.arrays import Array, Bool, Float, Int
from poprnn.core.blueprint import Fraction
from poprnn.core.errors import ConfigurationError
from poprnn.core.keys import member_key
from poprnn.tasks._memory import MemoryTask
from poprnn.tasks.contract import Trial
from poprnn.training.rollout import rollout_iter
from poprnn.training.run import Run
from poprnn.training.settings import Setup

Seed = Annotated[int, Field(ge=0, lt=2**32)]
BitProbability = Fraction | Literal["uniform"]
Piece = tuple[Float[np.ndarray, "member trial time unit"], Bool[np.ndarray, "member time"]]
"""Activity, and which steps of it count."""


def prepared(
    run: Run, parameters: Parameters, read: Callable[[Cell, dict[str, Any]], dict[str, Any]], *, dt: float | None = None
) -> dict[str, np.ndarray]:
    """What ``read(cell, prepared)`` takes from every member's prepared arrays, in float64 and stacked ``[member, …]``.

    ``Cell.prepare`` is where masks, signs and clamps are applied, so nothing of them is repeated here. Each member
    is prepared by its own cell, with the hyperparameters in which it differs from others.
    """

    def one(varied: dict[str, Any], parameters: Parameters, _: Any) -> dict[str, Any]:
        cell = run.setup.substitute(varied).cell
        return read(cell, cell.prepare(parameters, Context(dt=dt)))

    with backend.precision(64):
        wide = jax.tree.map(lambda a: a.astype(np.float64) if np.issubdtype(a.dtype, np.floating) else a, parameters)
        found = jax.vmap(one)(run.varied, wide, run.member_index)
        return {name: np.asarray(values) for name, values in found.items()}


def trial_shapes(run: Run) -> Trial:
    """A trial of the run's task as shapes, before anything is run: which periods, conditions, inputs there are."""
    task, curriculum = run.task, run.setup.training.curriculum

    def trial() -> Trial:
        key = jax.random.key(0)
        stage = curriculum.stage(task, curriculum.init(task))
        return task.sample(task.draw(stage, key=key), jax.tree.map(jnp.asarray, run.arrays), key=key)

    with backend.precision(32):
        return jax.eval_shape(trial)


def smallest_dt(run: Run | Setup) -> float | None:
    """The smallest integration step that a memory task draws; ``None`` where the cell's own is used."""
    return min(run.task.dt) if isinstance(run.task, MemoryTask) and run.task.dt else None


def random_bits(
    task: MemoryTask, population_seed: int, n_trials: int, n_steps: int, bit_probability: float | str, seed: int
) -> tuple[Int[Array, "trial bit"], int]:
    """Bits for at least so many steps, and the steps of a bit at the smallest dt that the task draws."""
    steps = task.steps_per_bit(min(task.dt)) if task.dt else task.steps_per_bit()
    drawn = task.substitute({"bit_probability": bit_probability})
    key = jax.random.fold_in(member_key(population_seed, 0, "analysis"), seed)
    bits = jax.vmap(lambda k: drawn.bits(key=k, n_bits=-(-n_steps // steps)))(jax.random.split(key, n_trials))
    return bits, steps


def driven(
    run: Run, n_trials: int, n_steps: int, burn_in: int, bit_probability: float | str, *, seed: int, piece_bytes: int
) -> Iterator[Piece]:
    """Activity under random bits, the same for all members, in pieces and without the burn-in.

    Bits last as long as in the task, at the smallest dt it draws. Pieces aim at ``piece_bytes``.
    """
    task: Any = run.task
    dt = smallest_dt(run)
    with backend.precision(32):
        bits, steps = random_bits(task, run.seed, n_trials, burn_in + n_steps, bit_probability, seed)
        inputs = np.repeat(np.asarray(task.encode(bits), np.float32), steps, axis=1)[:, : burn_in + n_steps, None]
    # only a guess at the size of a step: three copies of states and outputs at most, n_units by its usual name
    step_bytes = 12 * run.n_members * n_trials * (getattr(run.cell, "n_units", 1000) + task.n_outputs)
    first = 0
    for piece in rollout_iter(run, inputs, dt=dt, seed=seed, chunk=max(piece_bytes // step_bytes, 1)):
        states = piece.states[:, :, max(burn_in - first, 0) :]
        first += piece.states.shape[2]
        if states.shape[2]:
            yield states, np.ones((run.n_members, states.shape[2]), bool)


def refuse_bits(analysis: str, run: Run, **options: Any) -> None:
    """``ConfigurationError`` if an option that concerns bits was given for a task without them."""
    for name, value in options.items():
        if value is not None:
            raise ConfigurationError(
                f"{analysis}: {name} = {value!r}: task '{run.task.name()}' is not "
                "driven by bits but run on trials of its own"
            )


def heads_by_stage(
    run: Run, stages: np.ndarray
) -> tuple[Bool[np.ndarray, "member stage head"], Int[np.ndarray, "member stage"]]:
    """Active heads of some stages of every member's curriculum, and the newest among them."""

    def one(varied: dict[str, Any], _: Any) -> Any:
        curriculum = run.setup.substitute(varied).training.curriculum
        return jax.vmap(lambda stage: curriculum.heads(run.task, stage))(jnp.asarray(stages, jnp.int32))

    with backend.precision(32):
        active, newest = jax.vmap(one)(run.varied, run.member_index)
        return np.asarray(active), np.asarray(newest)


class StageSnapshot(NamedTuple):
    """The weights with which members passed a stage, and what passing it says of them."""

    name: str
    """Of the snapshot."""
    number: int
    """Of the stage, from 0."""
    reached: Bool[np.ndarray, "member"]
    """Who has passed it."""
    parameters: Parameters
    active: Bool[np.ndarray, "member head"]
    """The heads that had to be right."""
    newest: Int[np.ndarray, "member"]
    """The newest among them."""
    n: Int[np.ndarray, "member"]
    """The memory N that the newest head asks for; for tasks without memories heads are counted, from 1."""


def stage_snapshots(run: Run) -> list[StageSnapshot]:
    """The snapshots that a run has kept of stages, in the order of the curriculum; none where it kept others, or none.

    Members may differ in their curriculum and so in the heads of a stage. Without a curriculum the one stage is that
    of the head that the member was trained on.
    """
    order = sorted((int(name.removeprefix("stage_")), name) for name in run.snapshots if name.startswith("stage_"))
    if not order:
        return []
    active, newest = heads_by_stage(run, np.array([number for number, _ in order]))
    n = newest + (run.task.n_min if isinstance(run.task, MemoryTask) else 1)
    out = []
    for i, (number, name) in enumerate(order):
        kept = run.snapshots[name]
        heads = active[:, i], newest[:, i], n[:, i]
        out.append(StageSnapshot(name, number, np.asarray(kept.reached), kept.parameters, *heads))
    return out


def by_stage(
    run: Run, measure: Callable[[Parameters], dict[str, Float[np.ndarray, "member"]]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Numbers per member at every stage snapshot, NaN for members that did not get there; variables and coordinates.

    Both are empty where the run has kept no stages. The coordinate ``n`` is the memory solved by passing the stage.
    """
    stages = stage_snapshots(run)
    if not stages:
        return {}, {}
    rows = [
        {name: np.where(stage.reached, values, np.nan) for name, values in measure(stage.parameters).items()}
        for stage in stages
    ]
    variables = {f"{name}_by_stage": (("stage", "member"), np.stack([row[name] for row in rows])) for name in rows[0]}
    coordinates: dict[str, Any] = {"stage": np.array([stage.number for stage in stages])}
    if isinstance(run.task, MemoryTask):
        memory = np.stack([stage.n for stage in stages])
        varies = any(name.startswith("training.curriculum.") for name in run.varied)
        coordinates["n"] = (("stage", "member"), memory) if varies else ("stage", memory[:, 0])
    return variables, coordinates
