"""Whether networks forget where they began: certificates of contraction, and what pairs of trajectories do."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax
from jax.flatten_util import ravel_pytree

from poprnn.analysis._certificates import Judged, judge, stacked_metrics
from poprnn.analysis._constant_input import flat, quietened
from poprnn.analysis._population import Seed, smallest_dt
from poprnn.cells.contract import Context
from poprnn.core import backend, trees
from poprnn.core.arrays import Tree
from poprnn.core.blueprint import NonNegative, Positive, PositiveInt
from poprnn.core.contraction.best import THEOREMS
from poprnn.core.errors import ConfigurationError
from poprnn.core.keys import member_key
from poprnn.core.mapping import MemberMap
from poprnn.training.program import Program
from poprnn.training.run import Run, to_numpy
from poprnn.training.settings import Setup, shape_of

NEAREST = 1e-9
"""Distances below this share of the first one are rounding."""


def contraction(
    run: Run,
    *,
    search: bool = False,
    n_pairs: PositiveInt = 8,
    n_steps: PositiveInt = 500,
    input_scale: NonNegative = 1.0,
    spread: Positive = 1.0,
    n_directions: PositiveInt = 1,
    dt: Positive | None = None,
    seed: Seed = 0,
) -> xr.Dataset:
    """Certified and measured contraction of every member.

    **Certificates**, for assemblies and for leaky RNNs whose self-interaction stands outside: with Jacobian J and
    metric M, ``M J + J^T M <= -2 l M`` for all slopes of the activation function between 0 and its largest, g. Each
    module's weights are asked about theorems 1 to 5 of Kozachkov et al. An assembly's own certificate is carried up
    through its couplings; a network that claims none takes every module in its best metric, and what its couplings
    leave of the rates. Euler steps of length a = dt / tau bring any two trajectories nearer up to ``largest_step``
    (see :mod:`poprnn.core.contraction.assemblies`). All in float64, from the stored arrays.

    **Measured**, for every cell: pairs of trajectories from different states under the same Gaussian inputs, without
    noise, and the Lyapunov exponents along one of them. Distances are those of the metric (the Euclidean one where
    there is none).

    Args:
        run: the population.
        search: also search by matrix inequalities (cvxpy, the extra ``certificates``) for metrics of single modules
            that no formula gives; for networks that claim no certificate of their own.
        n_pairs: pairs of trajectories of each member.
        n_steps: steps they are followed for.
        input_scale: standard deviation of the inputs (our choice, as of all measured quantities).
        spread: standard deviation of the first states around the cell's own.
        n_directions: Lyapunov exponents, from the largest down; at most as many as the state has numbers.
        dt: integration step; default: the cell's, or the smallest that a memory task draws.
        seed: changes inputs and first states.

    Returns:
        For members: ``certified``; ``certificate``, what gave it (a theorem's number, ``"sector"``,
        ``"constant metric"``, or ``"assembly"``), its ``rate`` in units of 1/tau (NaN without a metric) and ``margin``,
        0 at the boundary; ``rate_as_run``, an assembly's rate with the float32 matrices that it multiplies by;
        ``coupling_norm`` and ``module_norm``, the norms of L and of a module's W D in the metric; ``largest_step`` and
        ``step``, in units of tau; ``step_certified``. With (member, module, theorem): ``holds``, ``theorem_rate``,
        ``theorem_margin``; with (member, module): ``symmetric_margin``, the largest c of theorem 6 with P = 1 (alone it
        certifies nothing: theorem 7). ``metric`` (member, unit, other).
        Measured, a step: ``pair_rate`` (member, pair), minus the mean change of the logarithm of the distance;
        ``worst_factor`` (member), the largest factor by which a step changed a distance; ``exponent`` (member,
        direction). Cells of other forms have measured quantities only. Assumptions are an attribute.

    Raises:
        ConfigurationError: more directions than the state has numbers. NotApplicableError: a search without cvxpy.

    References: Kozachkov, Ennis & Slotine, RNNs of RNNs: recursive construction of stable assemblies of recurrent
    neural networks, NeurIPS 2022; Lohmiller & Slotine, On contraction analysis for non-linear systems, Automatica 1998.

    >>> import numpy as np, poprnn as pr
    >>> cell = pr.cells.LeakyRNN(n_units=2, self_interaction="outside", tau=10.0, activation="tanh")
    >>> run = pr.from_arrays("n_parity", cell, {"W": np.array([[0.0, 0.5], [-0.5, 0.0]])})
    >>> found = pr.measure("contraction", run, n_steps=20).data
    >>> bool(found["certified"][0]), float(found["rate"][0]), float(found["step"][0])
    (True, 0.5, 0.1)
    """
    dt = smallest_dt(run) if dt is None else dt
    judged = [_of_member(run, k, dt, search) for k in range(run.n_members)]
    n_state = _state_size(run)
    if n_directions > n_state:
        raise ConfigurationError(
            f"contraction: n_directions = {n_directions}: must be at most the {n_state} of the state"
        )
    roots = stacked_metrics(judged, n_state)
    with backend.precision(64):
        wide = lambda a: np.asarray(a, np.float64) if np.issubdtype(np.asarray(a).dtype, np.floating) else a
        states = (run.member_index.astype(np.int32), *jax.tree.map(wide, (run.varied, run.parameters, roots)))
        shared = {
            "seed": np.asarray(run.seed, np.uint32),
            "extra": np.asarray(seed, np.uint32),
            "input_scale": np.float64(input_scale),
            "spread": np.float64(spread),
            "dt": None if dt is None else np.float64(dt),
        }
        mapped = _compiled(shape_of(run.setup), run.n_members, n_pairs, n_steps, n_directions)
        distances, growth = to_numpy(mapped(states, shared)[1])
    data = xr.Dataset(_measured(distances, growth), {"member": run.member_index})
    return data if judged[0] is None else data.assign(_certified([j for j in judged if j is not None], roots))


def _of_member(run: Run, k: int, dt: float | None, search: bool) -> Judged | None:
    varied = {name: values[k].item() for name, values in run.varied.items()}
    return judge(run.setup.substitute(varied).cell, jax.tree.map(lambda a: a[k], run.parameters), dt, search)


def _state_size(run: Run) -> int:
    """Real numbers in a state."""

    def state() -> Any:
        key = jax.random.key(0)
        parameters = run.cell.init(run.task.n_inputs, run.task.n_outputs, key=key)
        return flat(run.cell.initial_state(run.cell.prepare(parameters, Context()), key=key))

    return int(jax.eval_shape(state).size)


@functools.lru_cache(maxsize=8)
def _compiled(setup: Setup, n_members: int, n_pairs: int, n_steps: int, n_directions: int) -> MemberMap:
    """All trajectories of one member."""
    program = Program(setup)

    def member(state: Tree, shared: Tree) -> tuple[Tree, Any]:
        index, varied, parameters, root = state
        cell = quietened(program.of(varied).cell)
        key = jax.random.fold_in(member_key(shared["seed"], index, "analysis"), shared["extra"])
        input_key, start_key = jax.random.split(key)
        context = Context(dt=shared["dt"])
        prepared = cell.prepare(parameters, context)
        part, rest = trees.split(cell.initial_state(prepared, key=key))
        first, unravel = ravel_pytree(jax.tree.map(lambda a: a.astype(jnp.float64), part))
        starts = first + shared["spread"] * jax.random.normal(start_key, (n_pairs, 2, first.size), jnp.float64)
        size = (n_steps, setup.task.n_inputs)
        inputs = shared["input_scale"] * jax.random.normal(input_key, size, jnp.float64)

        def step(h: Any, input: Any) -> Any:
            new = cell.step(prepared, trees.join(unravel(h), rest), input, key=key, context=context)
            return flat(new).astype(jnp.float64)

        def advance(carry: Tree, input: Any) -> tuple[Tree, Any]:
            pairs, tangents = carry
            push = jax.linearize(lambda h: step(h, input), pairs[0, 0])[1]
            tangents, R = jnp.linalg.qr(jax.vmap(push, in_axes=1, out_axes=1)(tangents))
            pairs = jax.vmap(jax.vmap(lambda h: step(h, input)))(pairs)
            return (pairs, tangents), (apart(pairs), jnp.log(jnp.abs(jnp.diagonal(R))))

        apart = lambda pairs: jnp.linalg.norm((pairs[:, 0] - pairs[:, 1]) @ root.T, axis=1)
        tangents = jnp.eye(first.size, n_directions, dtype=jnp.float64)
        _, (distances, growth) = lax.scan(advance, (starts, tangents), inputs)
        return state, (jnp.concatenate([apart(starts)[None], distances]), growth)

    return MemberMap(member, n_members)


def _measured(distances: np.ndarray, growth: np.ndarray) -> dict[str, Any]:
    """From distances (member, time, pair) and growth of tangents (member, time, direction)."""
    start = distances[:, :1]
    counts = np.cumprod(distances > NEAREST * start, axis=1).astype(bool)  # until a pair is one, but for rounding
    last = np.maximum(counts.sum(axis=1) - 1, 0)
    final = np.take_along_axis(distances, last[:, None], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        pair_rate = np.where(last > 0, -np.log(final / start)[:, 0] / last, np.nan)
        factors = np.where(counts[:, 1:], distances[:, 1:] / distances[:, :-1], np.nan)
    worst = np.where(np.isnan(factors), -np.inf, factors).max(axis=(1, 2))
    half = growth.shape[1] // 2  # tangents have turned to where they grow most
    return {
        "pair_rate": (("member", "pair"), pair_rate),
        "worst_factor": ("member", np.where(np.isfinite(worst), worst, np.nan)),
        "exponent": (("member", "direction"), growth[:, half:].mean(axis=1)),
    }


def _certified(judged: list[Judged], roots: np.ndarray) -> dict[str, Any]:
    """What members are certified for."""
    of = lambda read: ("member", np.array([read(j) for j in judged]))
    by_theorem = lambda read: (
        ("member", "module", "theorem"),
        np.array([[[read(c) for c in module] for module in j.by_theorem] for j in judged]),
    )
    assumed = sorted({a for j in judged for a in j.certificate.assumptions})
    metric = np.swapaxes(roots, 1, 2) @ roots
    known = np.array([j.certificate.metric is not None for j in judged])
    return {
        "certified": of(lambda j: j.certificate.holds),
        "certificate": of(lambda j: j.certificate.theorem),
        "rate": ("member", np.array([j.certificate.rate for j in judged]), {"units": "1/tau"}),
        "margin": of(lambda j: j.certificate.margin),
        "rate_as_run": of(lambda j: j.rate_as_run),
        "coupling_norm": of(lambda j: j.coupling_norm),
        "module_norm": of(lambda j: j.module_norm),
        "largest_step": ("member", np.array([j.largest_step for j in judged]), {"units": "tau"}),
        "step": ("member", np.array([j.step for j in judged]), {"units": "tau"}),
        "step_certified": of(lambda j: bool(j.certificate.holds and j.step <= j.largest_step)),
        "holds": by_theorem(lambda c: c.holds),
        "theorem_rate": by_theorem(lambda c: c.rate),
        "theorem_margin": by_theorem(lambda c: c.margin),
        "theorem": ("theorem", np.array(THEOREMS)),
        "symmetric_margin": (("member", "module"), np.array([j.symmetric_margins for j in judged])),
        "metric": (
            ("member", "unit", "other"),
            np.where(known[:, None, None], metric, np.nan),
            {"assumptions": "; ".join(assumed)},
        ),
    }
