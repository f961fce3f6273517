"""How much there is to know in the inputs and the targets of a task."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from poprnn.analysis._entropy import counts, entropy_bits, symbols
from poprnn.analysis._population import Seed
from poprnn.core import backend
from poprnn.core.arrays import Array, Bool, Float, Tree
from poprnn.core.blueprint import PositiveInt
from poprnn.core.errors import NotApplicableError
from poprnn.core.keys import member_key
from poprnn.tasks.contract import Stage, Task, in_steps
from poprnn.training.run import Run

Series = tuple[Float[np.ndarray, "trial time channel"], Bool[np.ndarray, "trial time"]]
"""Values, and which steps exist."""


def task_complexity(
    run: Run | Task,
    *,
    histogram: Literal["trial", "pooled"] = "trial",
    n_bins: PositiveInt = 32,
    n_trials: PositiveInt = 256,
    seed: Seed = 0,
) -> xr.Dataset:
    """Shannon entropy, in bits, of a task's input and target series, summed over channels.

    For channel c of trial i, with p_k the share of the trial's steps at which the channel has its k-th value,

        H_ic = - sum_k p_k log2 p_k,      H = sum_c (1/M) sum_i H_ic.

    This is the paper's definition: a histogram over the time steps of each trial, the mean over M trials, and N times
    one channel's entropy, which equals the sum over N channels that are alike; the sum also serves tasks whose channels
    differ (direction and speed). A trial of T steps has at most log2 T bits a channel, and less than the source that it
    is a sample of; a channel that stays the same within its trial has none, however many values it takes over trials.
    With ``histogram="pooled"`` the steps of all trials make one histogram (ours): the entropy of a value drawn from any
    trial and step.

    Args:
        run: a population, of whose task the last stage of the curriculum is measured; or, called directly, a task
            with all its heads.
        histogram: ``trial`` or ``pooled``.
        n_bins: a channel with at most this many different values in all trials has a symbol for each; others are put
            into this number of equal bins from their smallest to their largest value in all trials. The paper does not
            give its number; 32 is our choice.
        n_trials: training trials (the paper: its training set; 256 is our choice), each of its own length, at its true
            steps, whatever their weight in the loss.
        seed: changes the trials.

    Returns:
        ``input_entropy`` and ``target_entropy`` and their ``…_standard_error`` over trials (NaN for one trial or
        pooled); ``…_by_channel`` (input or target) and ``…_n_symbols`` (input or target), the different values or bins.
        Targets that are classes are one channel of whole numbers, a vector of them one for each head. Where the answer
        is read at the last step, the series of targets has that one step: no bits by trial, those of the answer pooled.
        Inputs of closed loops follow from the network: NaN. So is a channel that is not finite.

    Raises:
        NotApplicableError: members trained on different tasks. CapacityError: more trials than memory holds.

    References: Huang, Singh & Rajan, Measuring and controlling solution degeneracy across task-trained recurrent neural
    networks, 2024, section 3.1 and figures 2A-2C; Shannon, A mathematical theory of communication, 1948.

    >>> import poprnn as pr
    >>> parity = pr.tasks.NParity(n_max=3, bit_probability=0.5)              # two heads
    >>> found = task_complexity(parity, histogram="pooled", n_trials=2000)
    >>> found["input_entropy"].values.round(2).tolist(), found["target_entropy"].values.round(2).tolist()
    (1.0, 2.0)
    """
    task, stage, seeds = _asked(run, seed)
    out: dict[str, Any] = {}
    for name, series in zip(("input", "target"), _series(run, task, stage, n_trials, *seeds), strict=True):
        by_trial, pooled, n_symbols = _by_channel(*series, n_bins)
        by_channel = pooled if histogram == "pooled" else by_trial.mean(axis=0)
        error = np.nan
        if histogram == "trial" and n_trials > 1:
            error = by_trial.sum(axis=1).std(ddof=1) / np.sqrt(n_trials)
        out[f"{name}_entropy"] = ((), by_channel.sum(), {"long_name": f"entropy of {name}s", "units": "bits"})
        out[f"{name}_entropy_standard_error"] = ((), error)
        out[f"{name}_entropy_by_channel"] = (name, by_channel, {"units": "bits"})
        out[f"{name}_n_symbols"] = (name, n_symbols)
    return xr.Dataset(out)


def _by_channel(
    series: Float[np.ndarray, "trial time channel"], exists: Bool[np.ndarray, "trial time"], n_bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entropy of every trial and channel, of every channel with all trials together, and the numbers of symbols."""
    shape = (len(series), series.shape[2])
    by_trial, pooled, n_symbols = np.full(shape, np.nan), np.full(shape[1], np.nan), np.zeros(shape[1], int)
    for c in range(shape[1]):
        values = series[:, :, c]
        if np.isfinite(values[exists]).all():
            found = symbols(values, exists, n_bins)
            n = counts(found, exists)
            by_trial[:, c], pooled[c], n_symbols[c] = entropy_bits(n), entropy_bits(n.sum(axis=0)), found.n
    return by_trial, pooled, n_symbols


# --- trials -------------------------------------------------------------------------------------------------------


def _asked(run: Run | Task, seed: int) -> tuple[Task, Stage, tuple[int, int]]:
    """Task, its stage, and what its trials follow from."""
    if isinstance(run, Task):
        with backend.precision(32):
            heads = jnp.ones(run.n_heads, bool), jnp.asarray(run.n_heads - 1)
            return run, Stage(*heads, jnp.asarray(0)), (0, seed)
    if any(name.startswith("task.") for name in run.varied):
        raise NotApplicableError("task_complexity: the members were trained on different tasks; ask for one at a time")
    task, curriculum = run.task, run.setup.training.curriculum
    with backend.precision(32):
        end = curriculum.init(task)._replace(index=jnp.asarray(curriculum.n_stages(task) - 1))
        return task, curriculum.stage(task, end), (run.seed, seed)


def _series(
    run: Run | Task, task: Task, stage: Stage, n_trials: int, population_seed: int, seed: int
) -> tuple[Series, Series]:
    """Inputs and targets of fresh trials, each of which draws its own setting."""
    channels = task.n_inputs + 2 * task.n_outputs
    backend.require_memory(12 * n_trials * task.capacity * channels, f"{n_trials} trials of '{task.name()}'")

    with backend.precision(32):
        arrays = jax.tree.map(jnp.asarray, task.arrays() if isinstance(run, Task) else run.arrays)
        key = jax.random.fold_in(member_key(population_seed, 0, "analysis"), seed)
        trials = _sampler(task, stage.shared)
        inputs, targets, length = trials(tuple(stage[:3]), arrays, jax.random.split(key, n_trials))
    exists = np.arange(task.capacity) < np.asarray(length)[:, None]
    answered = exists if task.readout == "all" else np.ones((n_trials, 1), bool)
    asked, answers = _channels(inputs, task.capacity), _channels(targets, answered.shape[1])
    return (np.full_like(asked, np.nan) if task.closed_loop else asked, exists), (answers, answered)


@functools.lru_cache(maxsize=16)
def _sampler(task: Task, shared_readout: bool) -> Callable[..., Any]:
    """The program that makes trials, ready for other keys and stages."""

    @jax.jit
    def trials(stage: tuple[Array, Array, Array], arrays: Tree, keys: Array) -> Any:
        def one(key: Array) -> Any:
            draw_key, sample_key = jax.random.split(key)
            setting = task.draw(Stage(*stage, shared_readout, "train"), key=draw_key)
            trial = task.sample(setting, arrays, key=sample_key)
            inputs, targets = (in_steps(values, task.capacity) for values in (trial.inputs, trial.targets))
            return inputs, targets, jnp.asarray(setting.length, jnp.int32)

        return jax.vmap(one)(keys)

    return trials


def _channels(values: Tree, n_steps: int) -> Float[np.ndarray, "trial time channel"]:
    """Whatever form the values have, with all that is not a trial or a step as channels."""
    flat = [np.asarray(leaf, np.float64).reshape(len(leaf), n_steps, -1) for leaf in jax.tree.leaves(values)]
    return np.concatenate(flat, axis=2)
