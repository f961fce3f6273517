"""How many operations a training took."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from poprnn.core import backend
from poprnn.core.arrays import Float
from poprnn.core.blueprint import Fraction
from poprnn.training.flops import Costs, Operations, costs
from poprnn.training.run import Run

N_DRAWS = 64
"""Batches drawn for the mean length of a trial."""


def flops(run: Run, *, criterion: Fraction | None = None) -> xr.Dataset:
    """Operations (multiplications, additions and other element-wise ones) of every member's training and of one trial.

    A training of K optimiser steps, whose batches had T_k time steps of which G_k carry no gradient, took

        sum_k [ F T_k + B (T_k - G_k) + F_0 + B_0 + U ],

    F and B the operations of one time step of the batch forwards and backwards, F_0 and B_0 those that a batch has
    once (preparing weights, drawing trials, the loss), U the optimiser's. They are counted from the traced program:
    2 · rows · columns · contracted for a matrix product, one for each element that an element-wise operation gives or
    a sum takes, nothing for integers, comparisons and copies. T_k and G_k are those that were trained with, so steps
    of coarsened trials are as few as they were. Methods cost as much after their schedule has ended as before.

    Not counted: evaluations, and what is worked out twice because that is faster than to keep it. Operations are
    those up to the last evaluation. (``flops`` in a run's manifest are its matrix products alone, at three times the
    forward pass, of all members together.)

    Args:
        run: the population, trained in any way; networks brought in from elsewhere have taken no operations.
        criterion: a score in [0, 1]: operations are also given up to the first evaluation at which the task's main
            score, a mean over the heads then active, was at least this. ``None``: not asked for.

    Returns:
        ``operations`` (member) of the training and ``operations_in_products`` (member), the part of them in matrix
        products; ``n_steps`` (member), optimiser steps; with ``criterion`` also ``operations_to_criterion`` and
        ``n_steps_to_criterion`` (member), NaN where it was not reached. ``trial_operations`` (member, direction): of
        one trial in training at the member's present stage, with its share of what the batch has once, undistorted by
        the method's coarser steps; ``trial_steps`` (member), its mean number of time steps.
        ``time_step_operations`` (direction, kind): of one time step of one trial. ``seconds``: time of the whole
        population's training, with compilation and evaluations; NaN where it is not known.

    Raises:
        ConfigurationError: a criterion that is no score.

    Reference: steps, time and operations to criterion are compared so in Soo, Goudar & Wang, Training biologically
    plausible recurrent neural networks on cognitive tasks with long-term dependencies, NeurIPS 2023, table 1.

    >>> import poprnn as pr
    >>> run = pr.fit(pr.tasks.TemporalPattern(n_max=1), pr.cells.VanillaRNN(n_units=100), epochs=2, steps_per_epoch=2,
    ...              batch=4, evaluation_batches=1)
    >>> found = pr.measure("flops", run, members="all").data
    >>> found["time_step_operations"].sel(kind="products", direction="forward").item()   # 2 (100 · 100 + 100 + 100)
    20400.0
    >>> per_trial = found["trial_operations"].sum("direction").item()
    >>> bool(found["operations"].item() > 4 * 4 * per_trial)       # 4 steps of 4 trials, and the optimiser
    True
    """
    spent = _spent(run)
    each = _costs(run)
    lengths = _lengths(run)
    members = np.arange(run.n_members)
    taken = _operations(each, spent)
    last = spent.last[members]
    variables: dict[str, Any] = {
        "operations": ("member", taken.elementwise[last, members] + taken.products[last, members]),
        "operations_in_products": ("member", taken.products[last, members]),
        "n_steps": ("member", spent.n_steps[last, members].astype(int)),
    }
    if criterion is not None:
        at, reached = _first_reached(run, criterion)
        steps = np.where(reached, spent.n_steps[at, members], np.nan)
        total = np.where(reached, (taken.elementwise + taken.products)[at, members], np.nan)
        variables |= {"operations_to_criterion": ("member", total), "n_steps_to_criterion": ("member", steps)}
    return xr.Dataset(
        variables | _of_a_trial(each, lengths, run.setup.training.batch) | {"seconds": _seconds(run)},
        {"member": run.member_index, "direction": ["forward", "backward"], "kind": ["products", "element-wise"]},
    )


class _Spent(NamedTuple):
    """What the history says, with a row of zeros before the first evaluation."""

    n_steps: Float[np.ndarray, "evaluation member"]
    n_time_steps: Float[np.ndarray, "evaluation member"]
    n_gradient_steps: Float[np.ndarray, "evaluation member"]
    last: np.ndarray
    """``[member]``: row of its last evaluation."""


def _spent(run: Run) -> _Spent:
    nothing = np.zeros((1, run.n_members))
    if not len(run.history):
        return _Spent(nothing, nothing, nothing, np.zeros(run.n_members, int))
    # rows of members that had ended are -1
    names = ("n_steps", "n_time_steps", "n_gradient_steps")
    steps, forward, backward = (np.concatenate([nothing, run.history[name]]) for name in names)
    return _Spent(steps, forward, backward, np.array([np.flatnonzero(row >= 0)[-1] for row in steps.T]))


def _costs(run: Run) -> Costs:
    """Of one optimiser step; hyperparameters in which members differ change no operation."""
    with backend.precision(32):
        return costs(run.setup, arrays=jax.tree.map(jnp.asarray, run.arrays))


class _Lengths(NamedTuple):
    """Means over batches, at the stage that each member has reached."""

    n_steps: Float[np.ndarray, "member"]
    no_gradient: Float[np.ndarray, "member"]


def _lengths(run: Run) -> _Lengths:
    """From settings the task draws to train with."""

    def one(varied: dict[str, Any], progress: Any, _: Any) -> Any:
        setup = run.setup.substitute(varied)
        stage = setup.training.curriculum.stage(setup.task, progress)._replace(split="train")

        def draw(key: Any) -> Any:
            setting = setup.task.draw(stage, key=key)
            return jnp.asarray(setting.length, jnp.float32), jnp.asarray(setting.no_gradient, jnp.float32)

        keys = jax.random.split(jax.random.key(run.seed), N_DRAWS)
        return jax.tree.map(jnp.mean, jax.vmap(draw)(keys))

    with backend.precision(32):
        found = jax.vmap(one)(run.varied, jax.tree.map(jnp.asarray, run.places()), run.member_index)
    return _Lengths(*(np.asarray(a, np.float64) for a in found))


class _Taken(NamedTuple):
    products: Float[np.ndarray, "evaluation member"]
    elementwise: Float[np.ndarray, "evaluation member"]


def _operations(each: Costs, spent: _Spent) -> _Taken:
    """Operations up to every evaluation."""
    once = each.forward_batch + each.backward_batch + each.update

    def of(kind: str) -> np.ndarray:
        cost = lambda operations: getattr(operations, kind)
        in_time = cost(each.forward_step) * spent.n_time_steps + cost(each.backward_step) * spent.n_gradient_steps
        return in_time + cost(once) * spent.n_steps

    return _Taken(of("products"), of("elementwise"))


def _of_a_trial(each: Costs, lengths: _Lengths, n_trials: int) -> dict[str, Any]:
    """Operations of one trial, and of one of its time steps."""
    forward = each.forward_step.total * lengths.n_steps + each.forward_batch.total
    backward = each.backward_step.total * (lengths.n_steps - lengths.no_gradient) + each.backward_batch.total
    pair: list[Operations] = [each.forward_step, each.backward_step]
    step = np.array([[o.products, o.elementwise] for o in pair]) / n_trials
    return {
        "trial_operations": (("member", "direction"), np.stack([forward, backward], axis=1) / n_trials),
        "trial_steps": ("member", lengths.n_steps),
        "time_step_operations": (("direction", "kind"), step),
    }


def _first_reached(run: Run, criterion: float) -> tuple[np.ndarray, np.ndarray]:
    """Row of the first evaluation with such a score, the one before any counted, and whether there is one."""
    if not len(run.history):
        return np.zeros(run.n_members, int), np.zeros(run.n_members, bool)
    scores = run.history[f"scores/{run.task.score}"]
    known = np.isfinite(scores).reshape(*scores.shape[:2], -1)
    sums = np.where(known, scores.reshape(known.shape), 0).sum(axis=2)
    enough = known.any(axis=2) & (sums >= criterion * known.sum(axis=2))
    return 1 + np.argmax(enough, axis=0), enough.any(axis=0)


def _seconds(run: Run) -> float:
    seconds = run.manifest.get("seconds")
    return float("nan") if seconds is None else float(seconds)
