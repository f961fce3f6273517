"""How far a training method's dynamics are from those of the network itself."""

import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax
from pydantic import Field

from poprnn.analysis._conditional import mean_and_error
from poprnn.analysis._long_steps import LongSteps
from poprnn.analysis._population import Seed
from poprnn.cells.contract import Context, Parameters
from poprnn.core import backend, native
from poprnn.core.arrays import Array, Bool, Count, Float, PRNGKey, Tree
from poprnn.core.blueprint import Fraction, PositiveInt
from poprnn.core.errors import ConfigurationError, NotApplicableError
from poprnn.core.keys import member_key
from poprnn.core.mapping import MemberMap
from poprnn.tasks.contract import Stage
from poprnn.training.dynamics import Dynamics
from poprnn.training.evaluate import in_common, of_members
from poprnn.training.methods.aligned_skip import AlignedSkip
from poprnn.training.methods.coarsened import Coarsened
from poprnn.training.methods.contract import Method
from poprnn.training.methods.control import Control
from poprnn.training.methods.skip import Skip
from poprnn.training.program import Program
from poprnn.training.run import Run, to_numpy
from poprnn.training.settings import Setup, shape_of

Name = Literal["coarsened", "skip", "aligned_skip"]
Names = Annotated[Sequence[Name], Field(min_length=1)]
Span = Annotated[int, Field(ge=1, lt=2**31)]
Spans = Annotated[Sequence[Span], Field(min_length=1)]
METHODS: dict[str, type[Method]] = {"coarsened": Coarsened, "skip": Skip, "aligned_skip": AlignedSkip}


def dynamics_mismatch(
    run: Run,
    *,
    methods: Names = ("coarsened", "skip", "aligned_skip"),
    spans: Spans = (5, 10, 20, 30, 40),
    base_weight: Fraction | None = None,
    n_trials: PositiveInt = 200,
    batch: PositiveInt = 50,
    seed: Seed = 0,
) -> xr.Dataset:
    """Distance of the trajectories that a training method unrolls from the true ones, and what it costs in the task.

    Every network runs the same trials, from the same start and with the same noise, by its own dynamics (r) and by a
    method's (r'):

        mismatch = mean ||r' - r||^2 / mean ||r||^2,      performance_lost = score - score',

    means over trials and time steps, || || over units. A mismatch well below 1 says that gradients are taken along
    trajectories close to the network's own; 1 is that of a network at rest.

    - ``skip``, ``aligned_skip``: regular skips over theta steps with weight beta of the base dynamics, begun anew in
      every period of the task, as in training.
    - ``coarsened``: Euler steps of theta dt, compared at the times that both have, every theta-th step. Input and
      noise are those of the fine trial, sampled where the long step begins: with noise that has a memory this is the
      same noise seen at fewer times, and white noise keeps its standard deviation per step, as when trained with.
      Between these times the state is held for the score. Periods are not rounded to whole long steps, and time
      constants not raised to theta dt, as ``leaky_rnn`` does in training where no ``tau_min`` is given: this is the
      formula as it stands, in which the leak alone overshoots beyond theta dt = tau and explodes beyond 2 tau.

    Closed loops answer to what the network under the method says: inputs may then differ as well.

    Args:
        run: the population, trained.
        methods: any of ``coarsened``, ``skip`` and ``aligned_skip`` (the paper's CD, SCTT and DASC).
        spans: theta in steps (the paper: 5 to 40); for ``coarsened`` the factor.
        base_weight: beta of the skips (the default, 0.5, is the paper's); ``coarsened`` has none.
        n_trials: trials for each member, rounded up to whole batches (the paper's released code evaluates on 200).
        batch: trials that share one length, run at once.
        seed: changes trials, start and noise.

    Returns:
        ``mismatch`` and its ``mismatch_standard_error`` (member, method, span), that of a ratio of means over trials,
        NaN for a single trial; infinite where a trajectory explodes, NaN where no trial is as long as theta.
        ``score`` (member, method, span) by the task's own main score under the method, a mean over its active heads,
        ``base_score`` (member), ``performance_lost`` and ``performance_lost_standard_error`` (member, method, span),
        of the difference trial by trial. (With xarray a method is chosen by ``.sel({"method": "skip"})``.)

    Raises:
        NotApplicableError: the cell or the task does not support a method: ``aligned_skip`` and ``coarsened`` need a
            cell that discretises a differential equation, ``coarsened`` also a task whose time is continuous.
        ConfigurationError: methods or spans named twice, or a ``base_weight`` that nothing asked for has.

    Reference: Soo, Goudar & Wang, Training biologically plausible recurrent neural networks on cognitive tasks with
    long-term dependencies, NeurIPS 2023, figures 3B and 3C.

    >>> import numpy as np, poprnn as pr
    >>> cell = pr.cells.LeakyRNN(n_units=1, self_interaction="outside", tau=4.0, state_start=1.0)
    >>> run = pr.from_arrays(pr.tasks.NParity(n_max=2), cell, {name: np.zeros(shape) for name, shape in [
    ...     ("W", (1, 1, 1)), ("W_in", (1, 1, 1)), ("bias", (1, 1))]})        # decays: r(t + 1) = 0.75 r(t)
    >>> found = pr.measure("dynamics_mismatch", run, methods=["skip"], spans=[1, 2], base_weight=1.0, n_trials=4).data
    >>> found["mismatch"].sel({"method": "skip"}).values.tolist()              # all weight on the base dynamics
    [[0.0, 0.0]]
    """
    if base_weight is not None and not {"skip", "aligned_skip"} & set(methods):
        raise ConfigurationError(f"dynamics_mismatch: base_weight = {base_weight}: methods {list(methods)} have none")
    for name, values in (("methods", methods), ("spans", spans)):
        if len(set(values)) < len(values):
            raise ConfigurationError(f"dynamics_mismatch: {name} = {list(values)}: each must be given once")
    for name in methods:
        _check(run, name)
    weight = 0.5 if base_weight is None else base_weight
    found = _measured(run, tuple(methods), np.asarray(spans, np.int32), weight, n_trials, min(batch, n_trials), seed)
    axes = ("member", "method", "span")
    mismatch, error = _ratio(found.distance, found.size)
    score, base_score = (mean_and_error(a)[0] for a in (found.score, found.base_score))
    lost, lost_error = mean_and_error(found.base_score[:, None, None] - found.score)
    return xr.Dataset(
        {
            "mismatch": (axes, mismatch, {"long_name": "mismatch of the dynamics"}),
            "mismatch_standard_error": (axes, error),
            "score": (axes, score, {"long_name": f"{run.task.score} under the method"}),
            "base_score": ("member", base_score, {"long_name": run.task.score}),
            "performance_lost": (axes, lost, {"long_name": f"{run.task.score} lost"}),
            "performance_lost_standard_error": (axes, lost_error),
        },
        {"member": run.member_index, "method": list(methods), "span": ("span", np.asarray(spans, int), _STEPS)},
    )


_STEPS = {"long_name": "span θ", "units": "steps"}


def _check(run: Run, name: str) -> None:
    """``NotApplicableError`` where a method cannot be had."""
    try:
        METHODS[name]().check(run.cell, run.task)
    except ConfigurationError as error:
        raise NotApplicableError(f"dynamics_mismatch: {error} (choose with methods)") from None
    if name == "coarsened" and not run.cell.is_flow:
        raise NotApplicableError(
            f"dynamics_mismatch: 'coarsened' needs a time derivative, which cell '{run.cell.name()}' as it is set up "
            "does not have (choose with methods)"
        )


# --- on the device -------------------------------------------------------------------------------------------------


class _Found(NamedTuple):
    """Sums over the time steps that are compared, trial by trial."""

    distance: Float[np.ndarray, "member method span trial"]
    """Of ||r' - r||^2."""
    size: Float[np.ndarray, "member method span trial"]
    """Of ||r||^2 at the same times."""
    score: Float[np.ndarray, "member method span trial"]
    base_score: Float[np.ndarray, "member trial"]


def _measured(
    run: Run, methods: tuple[str, ...], spans: np.ndarray, weight: float, n_trials: int, batch: int, seed: int
) -> _Found:
    """Every member under every method and span."""
    n_batches = -(-n_trials // batch)
    n_units = getattr(run.cell, "n_units", 1000)  # only a guess, by its usual name
    each = 4 * batch * run.task.capacity * (3 * n_units + run.task.n_inputs + 3 * run.task.n_outputs)
    backend.require_memory(each * min(len(backend.devices()), run.n_members), "trials of this batch size")
    with backend.precision(32):
        how = {"spans": jnp.asarray(spans), "weight": jnp.asarray(weight, jnp.float32)}
        mapped = _compiled(shape_of(run.setup), run.n_members, n_batches, batch, methods)
        with native.without():  # a method and the network itself by the same arithmetic: no difference must be 0
            (distance, size, score), base = to_numpy(mapped(of_members(run), in_common(run, seed) | how)[1])
    # [member, batch, method, span, trial]: the trials of all batches belong together
    joined = lambda a: np.concatenate(np.moveaxis(np.asarray(a, np.float64), 1, 0), axis=-1)
    return _Found(joined(distance), joined(size), joined(score), joined(base))


@functools.lru_cache(maxsize=16)
def _compiled(setup: Setup, n_members: int, n_batches: int, batch: int, methods: tuple[str, ...]) -> MemberMap:
    """One program for all spans and weights."""
    program = Program(setup)

    def member(state: Tree, shared: Tree) -> tuple[Tree, Any]:
        index, varied, parameters, progress = state
        own = program.of(varied)
        key = jax.random.fold_in(member_key(shared["seed"], index, "score"), shared["extra"])
        stage = own.training.curriculum.stage(own.task, progress)._replace(split="evaluate")

        def one(i: Array) -> Any:
            go = functools.partial(
                _trajectories, program, own, parameters, stage, shared, batch, key=jax.random.fold_in(key, i)
            )
            base = go(Control())

            def under(name: str, span: Count) -> tuple[Array, Array, Array]:
                coarse = name == "coarsened"
                method = (LongSteps(span=1) if coarse else METHODS[name]()).substitute({"span": span})
                return _compared(base, go(method), span if coarse else 1)

            found = [lax.map(functools.partial(under, name), shared["spans"]) for name in methods]
            return jax.tree.map(lambda *a: jnp.stack(a), *found), base.score

        return state, lax.map(one, jnp.arange(n_batches))

    return MemberMap(member, n_members)


class _Trajectories(NamedTuple):
    activity: Float[Array, "trial time unit"]
    exists: Bool[Array, "time"]
    score: Float[Array, "trial"]


def _trajectories(
    program: Program,
    setup: Setup,
    parameters: Parameters,
    stage: Stage,
    shared: Tree,
    n_trials: int,
    method: Method,
    *,
    key: PRNGKey,
) -> _Trajectories:
    """A batch of trials under a method; trials, start and noise follow from the key."""
    task, cell = setup.task, setup.cell
    dynamics = Dynamics(cell, method, task if task.closed_loop else None)
    context = Context(schedule={"weight": shared["weight"]})
    batch = program.run_batch(
        setup,
        method,
        parameters,
        stage,
        shared["arrays"],
        context,
        key=key,
        n_trials=n_trials,
        emit=lambda q, c: (cell.activity(c.state), dynamics.output(q, c)),
    )
    activity, outputs = batch.emitted
    outputs = outputs if task.readout == "all" else batch.outputs
    scores = jax.vmap(lambda o, t: task.scores(o, t, batch.setting)[task.score])(outputs, batch.trials)
    activity = activity.reshape(*activity.shape[:2], -1)
    exists = jnp.arange(activity.shape[1]) < batch.setting.length
    return _Trajectories(activity, exists, jnp.nanmean(scores.reshape(n_trials, -1), axis=1))


def _compared(base: _Trajectories, other: _Trajectories, every: Count | int) -> tuple[Array, Array, Array]:
    """Squared distance and squared size summed over every so many-th step, for each trial, and the score."""
    counts = base.exists & ((jnp.arange(base.exists.shape[0]) + 1) % every == 0)
    total = lambda a: jnp.sum(jnp.where(counts[:, None], a, 0.0) ** 2, axis=(1, 2))
    return total(other.activity - base.activity), total(base.activity), other.score


# --- means and their uncertainty -----------------------------------------------------------------------------------


def _ratio(a: Float[np.ndarray, "... trial"], b: Float[np.ndarray, "... trial"]) -> tuple[np.ndarray, np.ndarray]:
    """``mean a / mean b`` over trials and its standard error, by the residuals ``a - ratio b``."""
    a = np.where(np.isnan(a), np.inf, a)  # inf - inf: exploded all the same
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = a.mean(axis=-1) / b.mean(axis=-1)
        return ratio, mean_and_error(a - ratio[..., None] * b)[1] / b.mean(axis=-1)
