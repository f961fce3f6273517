"""How differently members generalise: the spread of their errors where they were not trained."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax

from poprnn.analysis._pairs import LEVEL, MIN_MEMBERS, N_RESAMPLES
from poprnn.analysis._population import Seed
from poprnn.cells.contract import Context
from poprnn.core import backend
from poprnn.core.arrays import Array, Float, Tree
from poprnn.core.blueprint import PositiveInt, build
from poprnn.core.errors import ConfigurationError, NotApplicableError
from poprnn.core.keys import member_key
from poprnn.core.mapping import MemberMap
from poprnn.tasks.contract import Setting, Task, Trial, in_steps, mean_squared_error
from poprnn.training.evaluate import in_common, of_members
from poprnn.training.methods.control import Control
from poprnn.training.program import Program
from poprnn.training.run import Run, to_numpy
from poprnn.training.settings import Setup, shape_of

Error = Literal["squared_error", "loss"]


def generalisation_spread(
    run: Run,
    *,
    task: Task | dict[str, Any] | str | None = None,
    error: Error = "squared_error",
    n_trials: PositiveInt = 1000,
    batch: PositiveInt = 100,
    seed: Seed = 0,
) -> xr.Dataset:
    """Behavioural degeneracy: coefficient of variation, over members, of the error outside the training distribution.

        CV = sigma / mu,      sigma² = (1/K) sum_k (e_k - mu)²,   mu = (1/K) sum_k e_k,

    with e_k the mean error of member k over trials of another task of the same shapes. All members answer the same
    trials (start and noise stay their own), so that no spread comes from the trials drawn. Which trials these are is
    the task's to say: the paper doubles the delay of delayed discrimination and the length of all other trials.

    Args:
        run: the population, two members or more.
        task: where to test: a task, its catalogue name or ``{"kind": …, option: …}``. Default: what the run's own task
            calls ``out_of_distribution()``.
        error: ``squared_error`` (the paper): mean over outputs and steps, weighted by the task's own weights of steps;
            ``loss``: by the run's objective (cross-entropy, say).
        n_trials: trials in each of the two distributions, rounded up to whole batches (our choice).
        batch: trials that share one length, run at once.
        seed: changes trials, start, noise and resamples.

    Returns:
        Over an axis ``distribution`` of "in" (fresh trials of the run's task, at the stage each member has reached) and
        "out": ``error`` and its ``error_standard_error`` over trials (member, distribution);
        ``coefficient_of_variation`` (distribution) and its 95 % interval ``…_low``, ``…_high``, by percentile bootstrap
        over members (1000 resamples; NaN for two). ``ratio`` (member) = error out / error in. sigma is that of the
        members as they are (divided by K, NumPy's default; the paper does not say), which a sample of K
        underestimates: compare populations of equal size. NaN if an error is not finite.

    Raises:
        NotApplicableError: fewer than two members; the task has no ``out_of_distribution()`` and none is given; members
            trained on different tasks; ``squared_error`` of classes. ConfigurationError: a task whose numbers of
            inputs, outputs or heads, or whose readout are not those of the run's.

    Reference: Huang, Singh & Rajan, Measuring and controlling solution degeneracy across task-trained recurrent neural
    networks, 2024, section 3.2.3 and figure 5.

    >>> import numpy as np, poprnn as pr
    >>> x = np.ones((1, 4, 1))
    >>> one, three = (pr.tasks.Arrays.of(x, size * x) for size in (1, 3))
    >>> run = pr.from_arrays(one, pr.cells.VanillaRNN(n_units=1), {"W": np.zeros((2, 1, 1)),
    ...     "W_out": np.zeros((2, 1, 1)), "b_out": np.array([[2.0], [0.0]])})     # they always say 2, or 0
    >>> found = pr.measure("generalisation_spread", run, task=three, n_trials=10).data
    >>> found["error"].values.tolist(), found["coefficient_of_variation"].values.tolist()     # 4/5 = sd of 1, 9 / mean
    ([[1.0, 1.0], [1.0, 9.0]], [0.0, 0.8])
    """
    other = _other(run, task)
    found = {"in": _errors(run, error, n_trials, batch, seed)}
    found["out"] = _errors(run.on(other), error, n_trials, batch, seed)
    trials = np.stack(list(found.values()), axis=1)  # [member, distribution, trial]
    mean = trials.mean(axis=2)
    spread = np.full(mean.shape, np.nan) if trials.shape[2] < 2 else trials.std(axis=2, ddof=1)
    random = np.random.default_rng([seed, 2])
    resamples = random.integers(0, run.n_members, (N_RESAMPLES, run.n_members))
    variation = _variation(mean.T)
    ends = np.stack([_interval(e, v, resamples) for e, v in zip(mean.T, variation, strict=True)])
    name = "coefficient_of_variation"
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = mean[:, 1] / mean[:, 0]
    return xr.Dataset(
        {
            name: ("distribution", variation, {"long_name": "coefficient of variation of the error"}),
            f"{name}_low": ("distribution", ends[:, 0]),
            f"{name}_high": ("distribution", ends[:, 1]),
            "error": (("member", "distribution"), mean, {"long_name": error.replace("_", " ")}),
            "error_standard_error": (("member", "distribution"), spread / np.sqrt(trials.shape[2])),
            "ratio": ("member", ratio, {"long_name": "error out of distribution / in distribution"}),
        },
        {"member": run.member_index, "distribution": list(found)},
    )


def _variation(errors: Float[np.ndarray, "... member"]) -> Float[np.ndarray, "..."]:
    """Standard deviation over mean, of members as they are."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return errors.std(axis=-1) / errors.mean(axis=-1)


def _interval(errors: Float[np.ndarray, "member"], variation: float, resamples: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap over members."""
    if len(errors) < MIN_MEMBERS or not np.isfinite(variation):
        return np.nan, np.nan
    low, high = np.quantile(_variation(errors[resamples]), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


# --- the other task -----------------------------------------------------------------------------------------------


def _other(run: Run, task: Task | dict[str, Any] | str | None) -> Task:
    """The task to be tested on."""
    if run.n_members < 2:
        raise NotApplicableError("generalisation_spread: a spread needs two members")
    if any(name.startswith("task.") for name in run.varied):
        raise NotApplicableError("generalisation_spread: the members were trained on different tasks (vary 'task.…')")
    if task is not None:
        other = task if isinstance(task, Task) else build(Task, task, "generalisation_spread: task")
    else:
        try:
            other = run.task.out_of_distribution()
        except NotApplicableError as error:
            raise NotApplicableError(f"generalisation_spread: {error}; choose another task with task") from None
    for name in ("n_inputs", "n_outputs", "n_heads", "readout"):
        mine, its = getattr(run.task, name), getattr(other, name)
        if mine != its:
            raise ConfigurationError(
                f"generalisation_spread: task '{other.name()}': {name} = {its!r}: must be {mine!r}, as in the run's"
            )
    return other


# --- on the device ------------------------------------------------------------------------------------------------


def _errors(run: Run, error: Error, n_trials: int, batch: int, seed: int) -> Float[np.ndarray, "member trial"]:
    """Error of every member in every trial; trials are common to all."""
    task, batch = run.task, min(batch, n_trials)
    n_batches = -(-n_trials // batch)
    each = batch * task.capacity * (task.n_inputs + 3 * task.n_outputs) * 4
    backend.require_memory(each * min(len(backend.devices()), run.n_members), "trials of this batch size")
    with backend.precision(32):
        mapped = _compiled(shape_of(run.setup), run.n_members, n_batches, batch, error)
        found = to_numpy(mapped(of_members(run), in_common(run, seed))[1])
    return np.asarray(found, np.float64).reshape(run.n_members, -1)


@functools.lru_cache(maxsize=16)
def _compiled(setup: Setup, n_members: int, n_batches: int, batch: int, error: Error) -> MemberMap:
    """The program; the next snapshot of the population needs no other."""
    program = Program(setup)

    def member(state: Tree, shared: Tree) -> tuple[Tree, Any]:
        index, varied, parameters, progress = state
        own = program.of(varied)
        key, common = (jax.random.fold_in(member_key(shared["seed"], k, "score"), shared["extra"]) for k in (index, 0))
        stage = own.training.curriculum.stage(own.task, progress)._replace(split="evaluate")

        def one(i: Array) -> Array:
            found = program.run_batch(
                own,
                Control(),
                parameters,
                stage,
                shared["arrays"],
                Context(),
                key=jax.random.fold_in(key, i),
                trial_key=jax.random.fold_in(common, i),
                n_trials=batch,
            )
            return jax.vmap(lambda o, t: _error(own, error, o, t, found.setting))(found.outputs, found.trials)

        return state, lax.map(one, jnp.arange(n_batches))

    return MemberMap(member, n_members)


def _error(setup: Setup, error: Error, outputs: Array, trial: Trial, setting: Setting) -> Array:
    """Of one trial."""
    if error == "loss":
        return setup.training.objective.loss(setup.task, outputs, trial, setting)
    targets = in_steps(trial.targets, setup.task.capacity)
    if getattr(targets, "shape", None) != outputs.shape:
        raise NotApplicableError(
            f"generalisation_spread: the targets of task '{setup.task.name()}' are classes, not values; "
            "choose error = 'loss'"
        )
    return mean_squared_error(setup.task, outputs, trial, setting)
