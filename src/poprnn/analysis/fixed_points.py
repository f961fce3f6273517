"""Where a network stands still under a constant input, where nearly, and what it does near there."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax

from poprnn.analysis._constant_input import Inputs, Still, Visited, constant_inputs, displaced, still, visited, widened
from poprnn.analysis._levenberg_marquardt import Criteria, search
from poprnn.analysis._points import Points, different_points, variance_shares
from poprnn.analysis._population import Seed
from poprnn.core import backend, trees
from poprnn.core.arrays import Array, Float, Int, Scalar, Tree
from poprnn.core.blueprint import NonNegative, Positive, PositiveInt
from poprnn.core.keys import member_key
from poprnn.core.mapping import MemberMap
from poprnn.training.program import Program
from poprnn.training.run import Run, to_numpy
from poprnn.training.settings import Setup, shape_of

TOLERANCE = 1e-12
"""Of a fixed point's residual, relative to its norm where that is above 1: float64 rounds at a ten thousandth of it."""
SAME = 1e-9
"""Least radius of one point, relative to the states' norm, for networks whose trials never leave one state."""


def fixed_points(
    run: Run,
    *,
    inputs: Inputs = "zero",
    period: str | None = None,
    n_starts: PositiveInt = 1024,
    n_trials: PositiveInt = 64,
    jitter: NonNegative = 0.0,
    slow: NonNegative = 1e-4,
    gradient_tolerance: Positive = 1e-5,
    unique: NonNegative = 1e-3,
    marginal: NonNegative = 1e-2,
    n_iterations: PositiveInt = 200,
    dt: Positive | None = None,
    seed: Seed = 0,
) -> xr.Dataset:
    """Fixed and slow points of every member under a constant input, and the Jacobian's eigenvalues there.

    With F(h, x) one step of the network without noise, and h its whole state (an LSTM's h and c),

        q(h) = 1/2 |F(h, x) - h|²

    is minimised from states that trials passed through, by Levenberg–Marquardt steps in float64 with the exact
    Jacobian. A search ends in a **fixed point** if ``|F(h) - h| <= 1e-12 max(1, |h|)``. A **slow point** is the first
    state on its way with ``q <= slow`` and ``|dq/dh| <= gradient_tolerance``: a minimum of q above 0, a place on a
    curve along which hardly anything moves, or (about) a fixed point. Points nearer than ``unique`` are one.

    By the eigenvalues lambda of dF/dh (of the map that is run: for a discretised flow, of its Euler step) a fixed
    point is ``"stable"`` if all are within the unit circle, ``"unstable"`` if none is, and else a ``"saddle"``.

    Args:
        run: the population, trained on any task; what a training method adds to the dynamics is left out.
        inputs: what the network is held under. A vector (one number for each channel) or a list of several;
            ``"zero"``; ``"mean"``, over the steps that starts are taken from, of all members; or ``"distinct"``, all
            that differ among them, at most 64 (static inputs that stand for conditions).
        period: take starts (and inputs) from this period of the trials; ``None``: from all steps.
        n_starts: searches for each member and input. A point that none of them leads to is missed.
        n_trials: fresh trials that the starts are taken from, with the cell's own noise.
        jitter: Gaussian displacement of the starts; its root mean square length, relative to the spread of states.
        slow: largest q of a slow point, in squared units of the state. The default is our choice: of 64 tanh units
            each then moves by less than 0.002 a step.
        gradient_tolerance: largest gradient of q at a slow point, in units of the state (our choice: along a
            direction with time constant tau it is about |F(h) - h| / tau, so that places on the way to a point that
            attracts fast are not slow points; those on a line with time constants of a thousand steps are).
        unique: distance within which points are one, relative to the spread of states. The number 1e-3 is that of
            Golub & Sussillo's FixedPointFinder, where it is absolute.
        marginal: a direction counts as marginal if ``||lambda| - 1|`` is at most this (our choice: time constants of
            100 steps and more).
        n_iterations: most steps of a search; isolated fixed points take about ten.
        dt: integration step; default: the cell's, or that of the task's trials (the smallest where a memory task
            draws several).
        seed: changes trials, starts and jitter.

    Returns:
        With axes (member, point, …), the point reached from most starts first, empty rows NaN (counts 0, words ""):
        ``state`` (…, unit; an axis ``dimension`` where the state is more than the activity), ``readout`` (…, output),
        ``residual`` ``|F(h) - h|``, ``n_reached`` starts that led there (the search's basin, not that of the
        dynamics), ``kind``, ``eigenvalue_real`` and ``eigenvalue_imag`` (by falling modulus), ``spectral_radius``,
        ``n_growing`` and ``n_marginal`` directions.
        For slow points, fixed ones among them, with axes (member, slow_point, …): ``slow_state``, ``slow_readout``,
        ``slow_q``, ``slow_n_reached``, ``slow_spectral_radius``, ``slow_n_marginal``.
        For members: ``n_fixed``, ``n_stable``, ``n_slow``; ``unresolved``, the share of starts that led to neither;
        ``slow_variance`` (member, component), the shares of the principal components in the variance of the slow
        points, each counted once (a line has its first near 1, a plane its first two); ``spread``, the root mean
        square distance of the states visited from their mean. And ``held_input``, the input.
        With a list of inputs or ``"distinct"``, an axis ``condition`` follows ``member``.

    Raises:
        ConfigurationError: inputs of another length, or too many different ones. NotApplicableError: no such period,
            or a cell without a state. CapacityError: too many starts and units for the memory there is.

    References: Sussillo & Barak, Opening the black box: low-dimensional dynamics in high-dimensional recurrent neural
    networks, Neural Computation 2013; Golub & Sussillo, FixedPointFinder, Journal of Open Source Software 2018; the
    question as put to populations: Huang et al., Measuring and controlling solution degeneracy across task-trained
    recurrent neural networks, NeurIPS 2025.

    >>> import numpy as np, poprnn as pr
    >>> run = pr.from_arrays("n_parity", pr.cells.VanillaRNN(n_units=2), {            # two units that hold a sign each
    ...     "W": 2 * np.eye(2), "W_in": np.eye(2)[:, :1], "bias": np.zeros(2)})
    >>> found = pr.measure("fixed_points", run, n_starts=200, n_trials=8, jitter=10.0).data
    >>> int(found["n_fixed"][0]), int(found["n_stable"][0])                           # corners, edges and the middle
    (9, 4)
    >>> held = pr.measure("fixed_points", run, inputs=[3.0], n_starts=200, n_trials=8, jitter=10.0).data
    >>> int(held["n_stable"][0]), held["kind"].dims                                   # the input decides the first sign
    (2, ('member', 'point'))
    """
    seen = visited(run, n_starts, n_trials, period, seed, "fixed_points")
    held, several = constant_inputs(run, inputs, seen.inputs, "fixed_points")
    size = run.n_members * n_starts * seen.states.shape[2] * 8 * 10
    backend.require_memory(size, f"fixed points from {n_starts} starts of {run.n_members} member(s)")
    criteria = Criteria(TOLERANCE, slow, gradient_tolerance, n_iterations)
    found = [_found(run, seen, x, dt, seed, criteria, jitter, unique) for x in held]
    data = xr.Dataset(_variables(found, n_starts, marginal), {"member": run.member_index})
    data = data.assign(held_input=(("condition", "input"), held))
    return data if several else data.isel(condition=0)


class Found(NamedTuple):
    """What was found of one member under one input."""

    fixed: Points
    slow: Points
    n_unresolved: Int[Array, ""]
    variance: Float[Array, "component"]
    spread: Scalar


def _found(
    run: Run,
    seen: Visited,
    input: Float[np.ndarray, "input"],
    dt: float | None,
    seed: int,
    criteria: Criteria,
    jitter: float,
    unique: float,
) -> Found:
    """All members under one input, in one program; rows beyond the largest number of points are cut off."""
    with backend.precision(64):
        shared = {
            "seed": np.asarray(run.seed, np.uint32),
            "extra": np.asarray(seed, np.uint32),
            "criteria": Criteria(*(np.asarray(value, np.float64) for value in criteria)),
            "input": np.asarray(input, np.float64),
            "jitter": np.float64(jitter),
            "unique": np.float64(unique),
        }
        mapped = _compiled(shape_of(run.setup), run.n_members)
        found: Found = to_numpy(mapped(widened(run, seen, dt), shared)[1])
    cut = lambda points: Points(points.n, *(a[:, : max(points.n.max(), 1)] for a in points[1:]))
    return found._replace(fixed=cut(found.fixed), slow=cut(found.slow))


@functools.lru_cache(maxsize=8)
def _compiled(setup: Setup, n_members: int) -> MemberMap:
    """All searches of one member; other inputs, thresholds and snapshots need no other program."""
    program = Program(setup)

    def member(state: Tree, shared: Tree) -> tuple[Tree, Found]:
        index, varied, parameters, starts, dt = state
        network = still(program.of(varied).cell, parameters, shared["input"], dt)
        key = jax.random.fold_in(member_key(shared["seed"], index, "analysis"), shared["extra"])
        return state, _of_one(network, starts, shared, key=jax.random.fold_in(key, 1))

    return MemberMap(member, n_members)


def _of_one(network: Still, visited: Float[Array, "start dimension"], shared: Tree, *, key: Array) -> Found:
    """Search from every start, and sort out where the searches ended."""
    starts, centre, spread = displaced(visited, shared["jitter"], key=key)
    one = lambda start: search(lambda h: network.step(h) - h, start, shared["criteria"])
    # one after another on a processor: a search that has ended then costs nothing
    ends = lax.map(one, starts, batch_size=None if backend.is_cpu() else 256)
    radius = jnp.maximum(shared["unique"] * spread, SAME * (1 + jnp.linalg.norm(centre)))
    both = (
        jnp.stack([ends.state, ends.slow_state]),
        jnp.stack([ends.residual, ends.slow_speed]),
        jnp.stack([ends.is_root, ends.is_slow]),
        jnp.array([True, False]),
    )
    points = lax.map(lambda ends: different_points(network, ends[0], ends[1], ends[2], ends[3], radius), both)
    fixed, slow = trees.row(points, 0), trees.row(points, 1)
    n_unresolved = jnp.sum(~ends.is_root & ~ends.is_slow)
    return Found(fixed, slow, n_unresolved, variance_shares(slow), spread)


# --- the answer ----------------------------------------------------------------------------------------------------


def _variables(found: list[Found], n_starts: int, marginal: float) -> dict[str, Any]:
    """Everything with axes (member, condition, …), numbers for members first."""
    each = ("member", "condition")
    by_member = lambda name: np.stack([getattr(f, name) for f in found], axis=1)
    fixed, slow = _table([f.fixed for f in found], marginal), _table([f.slow for f in found], marginal)
    point = {name: ((*each, "point", *axes), values) for name, (axes, values) in fixed.items()}
    slow_point = {f"slow_{name}": ((*each, "slow_point", *axes), values) for name, (axes, values) in slow.items()}
    for name in ("eigenvalue_real", "eigenvalue_imag", "kind", "n_growing", "activity"):
        slow_point.pop(f"slow_{name}", None)
    slow_point["slow_q"] = (slow_point["slow_residual"][0], slow_point.pop("slow_residual")[1] ** 2 / 2)
    return {
        "n_fixed": (each, np.stack([f.fixed.n for f in found], axis=1)),
        "n_stable": (each, (point["kind"][1] == "stable").sum(axis=-1)),
        "n_slow": (each, np.stack([f.slow.n for f in found], axis=1)),
        "unresolved": (each, by_member("n_unresolved") / n_starts),
        "slow_variance": ((*each, "component"), by_member("variance")),
        "spread": (each, by_member("spread")),
        **point,
        **slow_point,
    }


def _table(found: list[Points], marginal: float) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Points of all inputs, with as many rows for each as the one with most; by name with axes after the point's."""
    n_rows = max(points.state.shape[1] for points in found)

    def joined(name: str) -> np.ndarray:
        empty = 0 if name == "n_starts" else np.nan
        pad = lambda a: np.pad(a, [(0, 0), (0, n_rows - a.shape[1])] + [(0, 0)] * (a.ndim - 2), constant_values=empty)
        return np.stack([pad(getattr(points, name)) for points in found], axis=1)

    state, activity = joined("state"), joined("activity")
    real, imag = joined("eigenvalue_real"), joined("eigenvalue_imag")
    modulus = np.hypot(real, imag)
    is_activity = state.shape == activity.shape
    return {
        "n_reached": ((), joined("n_starts")),
        "spectral_radius": ((), modulus[..., 0]),
        "n_growing": ((), (modulus > 1).sum(axis=-1)),
        "n_marginal": ((), (np.abs(modulus - 1) <= marginal).sum(axis=-1)),
        "residual": ((), joined("speed")),
        "kind": ((), _kinds(modulus)),
        "state": (("unit" if is_activity else "dimension",), state),
        **({} if is_activity else {"activity": (("unit",), activity)}),
        "readout": (("output",), joined("readout")),
        "eigenvalue_real": (("eigenvalue",), real),
        "eigenvalue_imag": (("eigenvalue",), imag),
    }


def _kinds(modulus: Float[np.ndarray, "... eigenvalue"]) -> np.ndarray:
    """A word for every point; none for rows that are empty."""
    inside = modulus < 1
    some, every = inside.any(axis=-1), inside.all(axis=-1)
    word = np.where(every, "stable", np.where(some, "saddle", "unstable"))
    return np.where(np.isnan(modulus).any(axis=-1), "", word)
