"""How well a task is done: by what a trial is like, and by the periods of a trial."""

import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from pydantic import Field

from poprnn.analysis._conditional import Bins, binned, mean_and_error, means
from poprnn.analysis._population import Seed, trial_shapes
from poprnn.cells.contract import Context
from poprnn.core import backend
from poprnn.core.arrays import Array, Float, Int, Tree
from poprnn.core.blueprint import Finite, PositiveInt
from poprnn.core.errors import ConfigurationError, NotApplicableError, nearest
from poprnn.core.keys import member_key
from poprnn.core.mapping import MemberMap
from poprnn.tasks.contract import Setting, Task, Trial, in_steps, step_weights
from poprnn.training.evaluate import in_common, of_members
from poprnn.training.methods.control import Control
from poprnn.training.program import Program
from poprnn.training.run import Run, to_numpy
from poprnn.training.settings import Setup, shape_of

Edges = Annotated[Sequence[Finite], Field(min_length=2)]
OWN_AXES = ("member", "head", "period")


def performance(
    run: Run,
    *,
    by: str | None = None,
    n_trials: PositiveInt = 1000,
    bins: PositiveInt | Edges = 8,
    split: Literal["evaluate", "train"] = "evaluate",
    batch: PositiveInt = 100,
    seed: Seed = 0,
) -> xr.Dataset:
    """Mean scores on fresh trials, as a function of one entry of the trials' condition; and error in every period.

    With s_j the task's own score of trial j and B_b the trials whose condition falls into bin b,

        score_b = sum_{j in B_b} s_j / n_b,      n_b = number of trials in B_b that have this score (it is not NaN).

    Over signed coherence this is a psychometric curve, over a delay the decay of a memory. Its interval, at 95 %, is
    Wilson's for scores that are only 0 or 1 and else a percentile bootstrap over trials (1000 resamples). Both take
    trials as independent; those of a batch share its length, so smaller batches give the more honest interval.

    In each period P of the trial, with w the weights of steps in the loss, o the outputs and t the steps of P,

        squared_error_P = sum_t w_t mean_o (y_to - target_to)^2 / sum_t w_t,

    averaged over trials; for integer targets, classes, accuracy_P is the same with [argmax_o y_to = target_t]. Steps
    without weight do not count; a period without any is NaN.

    Args:
        run: the population, trained on any task.
        by: entry of ``Trial.condition`` that is one number a trial (``"coherence"``, ``"delay_ms"``, ``"match"``);
            entries of nested conditions are written ``"outer.inner"``, a condition that is a single number
            ``"condition"``. ``None``: all trials together.
        n_trials: trials for each member, rounded up to whole batches.
        bins: a condition of at most 32 values, which recur, has a bin for each; any other this number of bins (our
            choice: 8) that hold equally many of all members' trials, or those between these edges (upper ends belong
            to the next bin, but the last). Edges hold for a condition of few values too.
        split: trials as the task draws them to evaluate, or to train (durations may be jittered only there, say).
        batch: trials that share one length (and dt), run at once.
        seed: changes trials, start and noise. With the same ``seed`` and ``batch``, the trials of ``evaluate``.

    Returns:
        Every score of the task under its name, with ``…_low`` and ``…_high``: (member, bin), with a ``head`` axis
        between where the task scores every head; ``n_trials``, of the same shape, counts for the task's main score.
        The axis of bins has the condition's name (and ``_of_trial`` if that is an axis' name already); its coordinate
        is the mean of the condition in the bin, over all members. Trials whose condition is NaN are left out. Without
        ``by`` there is no such axis.
        Where the task has periods and reads every step: ``squared_error_by_period`` or ``accuracy_by_period`` (member,
        period), the mean over trials, and ``…_standard_error``; periods in the order in which they begin.

    Raises:
        NotApplicableError: the task's trials have no such condition, it is not one number a trial, or it is NaN in
            all of them. ConfigurationError: ``bins`` without ``by``, edges that do not rise or hold no trial.

    References: Wilson, Probable inference, the law of succession, and statistical inference, JASA 1927; Efron,
    Bootstrap methods: another look at the jackknife, Annals of Statistics 1979.

    >>> import numpy as np, poprnn as pr
    >>> run = pr.from_arrays(pr.tasks.RuleReversal(n_trials=1, dt=50.0), pr.cells.VanillaRNN(n_units=2), {
    ...     "W": np.zeros((2, 2)), "W_out": np.zeros((2, 2)), "b_out": np.array([1.0, 0.0])})    # always response 0
    >>> answer = pr.measure("performance", run, by="sequence", n_trials=100).data
    >>> answer["accuracy"].dims, answer["sequence"].values.tolist(), int(answer["n_trials"].sum())
    (('member', 'sequence'), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 100)
    >>> answer["accuracy_by_period"].sel(period="stimulus_1").values.tolist()    # nothing is asked for there
    [nan]
    """
    if by is None and bins != 8:
        raise ConfigurationError(f"performance: bins = {bins!r}: has no effect without 'by'")
    if by is not None:
        _check_condition(run, by)
    found = _measured(run, by, n_trials, split, min(batch, n_trials), seed)
    coordinates: dict[str, Any] = {"member": run.member_index}
    axis, together = None, Bins(np.zeros(found.condition.shape, int), np.zeros(1))
    if by is not None:
        try:
            together = binned(found.condition, bins, by)
        except (ConfigurationError, NotApplicableError) as error:
            raise type(error)(f"performance: {error}") from None
        axis = f"{by}_of_trial" if by in OWN_AXES else by
        coordinates[axis] = (axis, together.centre, _label(by))
    data = xr.Dataset(_by_bin(found, run.task, axis, together, seed), coordinates)
    if "head" in data.dims:
        data = data.assign_coords(head=[run.task.head_name(h) for h in range(run.task.n_heads)])
    return data.assign(_by_period(found)).assign_coords(period=found.periods) if found.periods else data


class Found(NamedTuple):
    """What was measured in every trial."""

    scores: dict[str, Float[np.ndarray, "member trial ..."]]
    """By name; with a last axis for heads or without."""
    condition: Float[np.ndarray, "member trial"]
    kind: str
    """What ``by_period`` is."""
    by_period: Float[np.ndarray, "member trial period"]
    periods: list[str]


# --- on the device -------------------------------------------------------------------------------------------------


def _measured(run: Run, by: str | None, n_trials: int, split: str, batch: int, seed: int) -> Found:
    """Fresh trials of every member at the stage it has reached."""
    task, n_batches = run.task, -(-n_trials // batch)
    each = batch * task.capacity * (task.n_inputs + 3 * task.n_outputs) * 4
    backend.require_memory(each * min(len(backend.devices()), run.n_members), "trials of this batch size")
    with backend.precision(32):
        mapped = _compiled(shape_of(run.setup), run.n_members, n_batches, batch, by, split)
        found = to_numpy(mapped(of_members(run), in_common(run, seed))[1])
    joined = lambda a: np.asarray(a, np.float64).reshape(run.n_members, n_batches * batch, *a.shape[3:])
    scores, condition, periods = jax.tree.map(joined, found)
    kind, by_name, starts = "", {}, {}
    if periods:
        (kind, (by_name, starts)), *_ = periods.items()
    names = sorted(by_name, key=lambda name: starts[name].mean())
    stacked = np.stack([by_name[name] for name in names], axis=-1) if names else np.zeros((0, 0, 0))
    return Found(scores, condition, kind, stacked, names)


@functools.lru_cache(maxsize=16)
def _compiled(setup: Setup, n_members: int, n_batches: int, batch: int, by: str | None, split: Any) -> MemberMap:
    """Scores, condition and periods of every trial; the next snapshot of the population needs no other program."""
    program = Program(setup)

    def member(state: Tree, shared: Tree) -> tuple[Tree, Any]:
        index, varied, parameters, progress = state
        own = program.of(varied)
        key = jax.random.fold_in(member_key(shared["seed"], index, "score"), shared["extra"])
        stage = own.training.curriculum.stage(own.task, progress)._replace(split=split)

        def one(i: Array) -> Any:
            found = program.run_batch(
                own,
                Control(),
                parameters,
                stage,
                shared["arrays"],
                Context(),
                key=jax.random.fold_in(key, i),
                n_trials=batch,
            )

            def trial(outputs: Array, trial: Trial) -> Any:
                condition = jnp.zeros(()) if by is None else _entries(trial.condition)[by].astype(jnp.float32)
                periods = _periods(own.task, outputs, trial, found.setting)
                return own.task.scores(outputs, trial, found.setting), condition, periods

            return jax.vmap(trial)(found.outputs, found.trials)

        return state, jax.lax.map(one, jnp.arange(n_batches))

    return MemberMap(member, n_members)


def _entries(condition: Tree) -> dict[str, Any]:
    """All arrays of a condition by name."""
    flat = jax.tree_util.tree_flatten_with_path(condition)[0]
    return {jax.tree_util.keystr(path, simple=True, separator=".") or "condition": leaf for path, leaf in flat}


def _periods(task: Task, outputs: Array, trial: Trial, setting: Setting) -> dict[str, tuple[dict[str, Any], Any]]:
    """Error (or accuracy, named so) of one trial in each period, and where the periods start; empty without any."""
    targets = in_steps(trial.targets, task.capacity)
    if trial.periods is None or task.readout != "all" or not hasattr(targets, "shape"):
        return {}
    if targets.shape == outputs.shape:
        kind, each = "squared_error", jnp.mean((outputs - targets) ** 2, axis=-1)
    elif jnp.issubdtype(targets.dtype, jnp.integer) and targets.shape == outputs.shape[:1]:
        kind, each = "accuracy", (jnp.argmax(outputs, axis=-1) == targets).astype(outputs.dtype)
    else:
        return {}
    weights = step_weights(task, trial, setting)[:, 0]
    time = jnp.arange(outputs.shape[0])

    def mean(bounds: Int[Array, "2"]) -> Array:
        counts = jnp.where((bounds[0] <= time) & (time < bounds[1]), weights, 0.0)
        total = jnp.sum(counts)
        return jnp.where(total > 0, jnp.sum(jnp.where(counts > 0, counts * each, 0.0)) / total, jnp.nan)

    return {kind: ({n: mean(b) for n, b in trial.periods.items()}, {n: b[0] for n, b in trial.periods.items()})}


# --- which condition --------------------------------------------------------------------------------------------------


def _check_condition(run: Run, by: str) -> None:
    """Before anything is run: the condition exists and is one number a trial."""
    task, entries = run.task, _entries(trial_shapes(run).condition)
    single = [name for name, a in entries.items() if a.shape == ()]
    if by in single:
        return
    if by in entries:
        why = f"condition '{by}' of task '{task.name()}' is not one number a trial but {list(entries[by].shape)}"
    else:
        why = f"the trials of task '{task.name()}' have no condition '{by}'{nearest(by, single)}"
    raise NotApplicableError(f"performance: {why}; there is: {', '.join(single) or 'none'}")


def _label(by: str) -> dict[str, str]:
    """Name and unit for figures."""
    if by.endswith("_ms"):
        return {"long_name": by.removesuffix("_ms").replace("_", " "), "units": "ms"}
    return {"long_name": by.replace("_", " ")}


# --- means and their uncertainty -----------------------------------------------------------------------------------


def _by_bin(found: Found, task: Task, axis: str | None, bins: Bins, seed: int) -> dict[str, Any]:
    """Every score's mean in every bin, with interval and number of trials; a single bin without an axis for it."""
    out: dict[str, Any] = {}
    for score in sorted(found.scores, key=lambda name: (name != task.score, name)):  # the main one first
        values = found.scores[score]
        per_head = values.ndim == 3
        got = means(values if per_head else values[..., None], bins, seed)
        axes = ("member", *(["head"] if per_head else []), *([axis] if axis else []))
        keep = (slice(None), slice(None) if per_head else 0, slice(None) if axis else 0)
        out[score] = (axes, got.mean[keep], {"interval": got.interval})
        out[f"{score}_low"], out[f"{score}_high"] = (axes, got.low[keep]), (axes, got.high[keep])
        if score == task.score or len(found.scores) == 1:
            out["n_trials"] = (axes, got.n[keep])
    return out


def _by_period(found: Found) -> dict[str, Any]:
    """Mean over trials and its standard error."""
    mean, error = mean_and_error(found.by_period, axis=1)
    name, axes = f"{found.kind}_by_period", ("member", "period")
    return {name: (axes, mean), f"{name}_standard_error": (axes, error)}
