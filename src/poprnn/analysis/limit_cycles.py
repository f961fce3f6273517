"""What a network does in the long run under a constant input: stand still, go in circles, or neither."""

import functools
from typing import Any

import jax
import numpy as np
import xarray as xr
from jax import lax

from poprnn.analysis._constant_input import Inputs, Visited, constant_inputs, displaced, still, visited, widened
from poprnn.analysis._orbits import Orbit, follow
from poprnn.analysis._population import Seed
from poprnn.core import backend
from poprnn.core.arrays import Float, Scalar, Tree
from poprnn.core.blueprint import NonNegative, NonNegativeInt, Positive, PositiveInt
from poprnn.core.errors import ConfigurationError
from poprnn.core.keys import member_key
from poprnn.core.mapping import MemberMap
from poprnn.training.program import Program
from poprnn.training.run import Run, to_numpy
from poprnn.training.settings import Setup, shape_of

FEWEST_STEPS = 16
"""A shorter orbit shows no period."""


def limit_cycles(
    run: Run,
    *,
    inputs: Inputs = "zero",
    period: str | None = None,
    n_starts: PositiveInt = 8,
    n_trials: PositiveInt = 8,
    jitter: NonNegative = 1e-3,
    burn_in: NonNegativeInt = 1000,
    n_steps: PositiveInt = 1000,
    tolerance: Positive = 0.1,
    standing: NonNegative = 1e-3,
    n_directions: PositiveInt = 2,
    dt: Positive | None = None,
    seed: Seed = 0,
) -> xr.Dataset:
    """Limit cycles of every member under a constant input: period, size, and how strongly they attract.

    The network runs without noise, ``h(t+1) = F(h(t), x)``, in float64, from states that trials passed through. After
    a transient, with m the mean of the orbit,

        size² = mean_t |h(t) - m|²,      D(k)² = mean_t |h(t+k) - h(t)|² / size².

    A start whose size is at most ``standing`` ends at a **fixed point**; else it ends on a **cycle** if D has a
    minimum of at most ``tolerance``, the first of which is at the period (refined by the later ones; periods need not
    be whole numbers of steps); else the orbit is **irregular**: it returns later than after ``n_steps / 2`` steps,
    runs on several frequencies, or is chaotic. With e_i the Lyapunov exponents, from tangent vectors that are made
    orthonormal at every step, the moduli of the Floquet multipliers are

        multiplier_i = exp(period · e_i).

    On a cycle that attracts, the first is 1 (along the cycle) and the others are below; where the period is a whole
    number of steps, all may be below 1.

    Args:
        run: the population, trained on any task; what a training method adds to the dynamics is left out.
        inputs: what the network is held under. A vector (one number for each channel) or a list of several;
            ``"zero"``; ``"mean"``, over the steps that starts are taken from, of all members; or ``"distinct"``, all
            that differ among them, at most 64 (static inputs that stand for frequencies).
        period: take starts (and inputs) from this period of the trials; ``None``: from all steps.
        n_starts: orbits for each member and input.
        n_trials: fresh trials that the starts are taken from, with the cell's own noise.
        jitter: Gaussian displacement of the starts; its root mean square length, relative to the spread of states. The
            default only lets starts leave a point that does not attract (a trial may begin on one).
        burn_in: steps of the transient that are left out (our choice, as ``n_steps``: ten trials of the paper's).
        n_steps: steps that count.
        tolerance: largest distance of a return, relative to the size of the orbit (our choice).
        standing: largest size of an orbit that stands still, relative to the spread of the states visited (our
            choice, as of different fixed points).
        n_directions: exponents and multipliers, from the largest down; at most as many as the state has numbers.
        dt: integration step; default: the cell's, or that of the task's trials (the smallest where a memory task
            draws several).
        seed: changes trials, starts and jitter.

    Returns:
        With axes (member, start): ``period`` in steps (NaN but for cycles), ``size``, ``kind`` (``"fixed_point"``,
        ``"cycle"``, ``"irregular"``; ``"diverged"`` where the orbit is not finite), ``return_distance``;
        ``amplitude`` (member, start, output), half of what the readout covers; ``exponent``, a step, and
        ``multiplier`` (member, start, direction); ``mean_state`` (member, start, dimension). For members: ``cycling``,
        the share of starts that end on a cycle, and ``spread`` of the states visited. And ``held_input``, the input.
        With a list of inputs or ``"distinct"``, an axis ``condition`` follows ``member``.

    Raises:
        ConfigurationError: too few steps, too many directions, inputs of another length or too many different ones.
        NotApplicableError: no such period, or a cell without a state. CapacityError: too many trials for the memory.

    References: Benettin et al., Lyapunov characteristic exponents for smooth dynamical systems, Meccanica 1980; the
    question as put to populations: Huang et al., Measuring and controlling solution degeneracy across task-trained
    recurrent neural networks, NeurIPS 2025.

    >>> import numpy as np, poprnn as pr
    >>> turn = 1.5 * np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    >>> run = pr.from_arrays("n_parity", pr.cells.VanillaRNN(n_units=2), {"W": turn, "bias": np.zeros(2)})
    >>> found = pr.measure("limit_cycles", run, n_starts=2, burn_in=100, n_steps=200).data
    >>> found["kind"].values.tolist(), found["period"].values.round(1).tolist()
    ([['cycle', 'cycle']], [[13.1, 13.1]])
    """
    if n_steps < FEWEST_STEPS:
        raise ConfigurationError(f"limit_cycles: n_steps = {n_steps}: must be at least {FEWEST_STEPS}")
    seen = visited(run, n_starts, n_trials, period, seed, "limit_cycles")
    if n_directions > seen.states.shape[2]:
        raise ConfigurationError(
            f"limit_cycles: n_directions = {n_directions}: must be at most the {seen.states.shape[2]} of the state"
        )
    held, several = constant_inputs(run, inputs, seen.inputs, "limit_cycles")
    numbers = jitter, tolerance, burn_in
    found = [_orbits(run, seen, x, dt, seed, numbers, n_steps, n_directions) for x in held]
    stacked = jax.tree.map(lambda *arrays: np.stack(arrays, axis=1), *(orbit for orbit, _ in found))
    spread = np.stack([spread for _, spread in found], axis=1)
    data = xr.Dataset(_variables(stacked, spread, standing), {"member": run.member_index})
    data = data.assign(held_input=(("condition", "input"), held))
    return data if several else data.isel(condition=0)


def _orbits(
    run: Run,
    seen: Visited,
    input: Float[np.ndarray, "input"],
    dt: float | None,
    seed: int,
    numbers: tuple[float, float, int],
    n_steps: int,
    n_directions: int,
) -> tuple[Orbit, Float[np.ndarray, "member"]]:
    """Orbits of all members and starts under one input, in one program; and the spread of the states visited."""
    with backend.precision(64):
        shared = {
            "seed": np.asarray(run.seed, np.uint32),
            "extra": np.asarray(seed, np.uint32),
            "input": np.asarray(input, np.float64),
            "jitter": np.float64(numbers[0]),
            "tolerance": np.float64(numbers[1]),
            "burn_in": np.int32(numbers[2]),
        }
        mapped = _compiled(shape_of(run.setup), run.n_members, n_steps, n_directions)
        found: tuple[Orbit, np.ndarray] = to_numpy(mapped(widened(run, seen, dt), shared)[1])
    return found


@functools.lru_cache(maxsize=8)
def _compiled(setup: Setup, n_members: int, n_steps: int, n_directions: int) -> MemberMap:
    """All orbits of one member; other inputs and snapshots need no other program."""
    program = Program(setup)

    def member(state: Tree, shared: Tree) -> tuple[Tree, tuple[Orbit, Scalar]]:
        index, varied, parameters, visited, dt = state
        network = still(program.of(varied).cell, parameters, shared["input"], dt)
        key = jax.random.fold_in(member_key(shared["seed"], index, "analysis"), shared["extra"])
        starts, _, spread = displaced(visited, shared["jitter"], key=jax.random.fold_in(key, 1))
        one = lambda start: follow(network, start, shared["burn_in"], n_steps, n_directions, shared["tolerance"])
        return state, (lax.map(one, starts) if backend.is_cpu() else jax.vmap(one)(starts), spread)

    return MemberMap(member, n_members)


def _variables(orbits: Orbit, spread: Float[np.ndarray, "member condition"], standing: float) -> dict[str, Any]:
    """Everything with axes (member, condition, start, …)."""
    axes = ("member", "condition", "start")
    still = orbits.size <= standing * spread[:, :, None]
    cycles = orbits.returns & ~still
    kind = np.where(still, "fixed_point", np.where(cycles, "cycle", "irregular"))
    kind = np.where(np.isfinite(orbits.size), kind, "diverged")
    period = np.where(cycles, orbits.period, np.nan)
    return {
        "period": (axes, period, {"units": "steps"}),
        "size": (axes, orbits.size),
        "kind": (axes, kind),
        "cycling": (axes[:2], cycles.mean(axis=2)),
        "spread": (axes[:2], spread),
        "return_distance": (axes, np.where(cycles, orbits.distance, np.nan)),
        "amplitude": ((*axes, "output"), (orbits.high - orbits.low) / 2),
        "exponent": ((*axes, "direction"), orbits.exponents),
        "multiplier": ((*axes, "direction"), np.exp(period[..., None] * orbits.exponents)),
        "mean_state": ((*axes, "dimension"), orbits.mean),
    }
