"""Scoring a population on fresh trials."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from poprnn.core import backend
from poprnn.core.arrays import Tree
from poprnn.core.errors import ConfigurationError
from poprnn.core.keys import member_key
from poprnn.core.mapping import MemberMap
from poprnn.tasks.contract import Stage
from poprnn.training.program import Program
from poprnn.training.run import Run, to_numpy
from poprnn.training.settings import Setup, shape_of


def evaluate(
    run: Run, *, heads: np.ndarray | list[int] | None = None, n_trials: int = 1024, batch: int = 256, seed: int = 0
) -> dict[str, np.ndarray]:
    """Loss and scores of the base dynamics on fresh trials, which no training or monitor has seen.

    Args:
        run: the population.
        heads: ``[condition, head]`` of booleans, each row a set of active heads to be drawn and scored together, or a
            list of heads to be scored one by one; ``None``: the stage each member is at.
        n_trials: trials for each member and condition, rounded up to whole batches.
        batch: trials run at once (they share what a batch shares: one length, one dt).
        seed: changes the trials.

    Returns:
        ``loss`` and every score, ``[member, condition, …]``.

    >>> import poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=8), epochs=1, steps_per_epoch=1, batch=4)
    >>> evaluate(run, heads=[0, 1], n_trials=8, batch=8)["accuracy"].shape     # head 0 alone, then head 1 alone
    (1, 2, 19)
    """
    conditions = _conditions(heads, run.task.n_heads)
    n_batches = max(-(-n_trials // batch), 1)
    score = _compiled(shape_of(run.setup), run.n_members, n_batches, batch, conditions is None)
    with backend.precision(32):
        active = jnp.zeros((1, run.task.n_heads), bool) if conditions is None else jnp.asarray(conditions)
        return to_numpy(score(of_members(run), in_common(run, seed) | {"conditions": active})[1])


def of_members(run: Run) -> tuple[Tree, Tree, Tree, Tree]:
    """What a program that asks every member reads of each: number, varied options, parameters, place."""
    return run.member_index.astype(np.int32), run.varied, run.parameters, run.places()


def in_common(run: Run, seed: int) -> dict[str, Tree]:
    """What it reads for all of them: ``seed`` of the run, ``extra`` of the question, ``arrays`` of the task."""
    return {
        "seed": jnp.asarray(run.seed, jnp.uint32),
        "extra": jnp.asarray(seed, jnp.uint32),
        "arrays": jax.tree.map(jnp.asarray, run.arrays),
    }


@functools.lru_cache(maxsize=16)
def _compiled(setup: Setup, n_members: int, n_batches: int, batch: int, at_own_stage: bool) -> MemberMap:
    """The program that scores; the next snapshot of the same population needs no other."""
    task, curriculum, program = setup.task, setup.training.curriculum, Program(setup)

    def member(state: Tree, shared: Tree) -> tuple[Tree, Any]:
        index, varied, parameters, progress = state
        own = program.of(varied)
        key = jax.random.fold_in(member_key(shared["seed"], index, "score"), shared["extra"])

        def one(active: Any) -> Any:
            if active is None:
                stage = own.training.curriculum.stage(task, progress)
            else:
                newest = jnp.max(jnp.where(active, jnp.arange(task.n_heads), 0))
                stage = Stage(active, newest, newest, curriculum.shared_readout)
            stage = stage._replace(split="evaluate")
            return program.score(own, parameters, stage, shared["arrays"], n_batches, key=key, n_trials=batch)

        if at_own_stage:
            loss, scores = jax.tree.map(lambda a: a[None], one(None))
        else:
            loss, scores = jax.lax.map(one, shared["conditions"])
        return state, {"loss": loss, **scores}

    return MemberMap(member, n_members, n_parts=n_batches)


def _conditions(heads: Any, n_heads: int) -> np.ndarray | None:
    if heads is None:
        return None
    heads = np.asarray(heads)
    if heads.dtype == bool and heads.ndim == 2 and heads.shape[1] == n_heads:
        return heads
    if heads.ndim == 1 and np.issubdtype(heads.dtype, np.integer) and (heads >= 0).all() and (heads < n_heads).all():
        return np.eye(n_heads, dtype=bool)[heads]
    raise ConfigurationError(f"heads must be integers in 0 … {n_heads - 1} or booleans [condition, {n_heads}]")
