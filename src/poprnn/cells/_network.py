"""An assembly's weights: modules in their metrics, and couplings that keep them contracting, as functions of arrays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from poprnn.cells._couplings import Couplings
from poprnn.cells._layout import Coupled, Layout, couplings_of, layout_of, leaves_of
from poprnn.cells.contract import Parameters
from poprnn.cells.modules.contract import Built
from poprnn.core.arrays import Array, Float, PRNGKey, Scalar
from poprnn.core.contraction.assemblies import feedback, hierarchy_scale

ROUNDING_SHARE = 0.25
"""Share of a group's smallest rate that rounding of its feedback may take (our choice)."""
SQUARINGS = 5
"""||S||_2 is at most the Schatten norm of order 2^6, which exceeds it by a factor n^(1/64) at most."""


class Network(NamedTuple):
    """What the dynamics multiply by, ``tau dx/dt = -x + W phi(x) + L x + u``, and the metric that certifies them."""

    modules: tuple[Built, ...]
    """Stacks, in the order of the layout."""
    scale: Float[Array, "module"]
    """Factor of each module's metric, its square root: the metric is scale² M."""
    couplings: Float[Array, "entry"]
    """All entries of L that exist, in the order of the layout."""


def init_network(root: Couplings, slope: float, *, key: PRNGKey) -> Parameters:
    """Random arrays: each module's under its names and its stack's number, each group's B under its own.

    The whole assembly's couplings are ``B``, those of its groups ``B_0``, ``B_1``, … in the order of the layout. Where
    not all entries exist, ``B_at`` says where those that do belong.
    """
    trainable: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    places = layout_of(root)
    leaf_key, group_key = jax.random.split(key)
    for k, module in enumerate(leaves_of(root)):
        arrays = module.init(slope, key=jax.random.fold_in(leaf_key, k))
        trainable |= {f"{name}_{k}": a for name, a in arrays.trainable.items()}
        fixed |= {f"{name}_{k}": a for name, a in arrays.fixed.items()}
    for g, (group, blueprint) in enumerate(zip(places.groups, couplings_of(root), strict=True)):
        if not group.n_entries:
            continue
        values, places_key = jax.random.split(jax.random.fold_in(group_key, g))
        n = sum(int(places.sizes[part].sum()) for part in group.parts)
        name = coupling_name(g, len(places.groups))
        trainable[name] = blueprint.gain * jax.random.normal(values, (group.n_kept,)) / n**0.5
        if group.n_kept < group.n_entries:
            drawn = jax.random.choice(places_key, group.n_entries, (group.n_kept,), replace=False)
            fixed[name + "_at"] = jnp.sort(drawn).astype(jnp.int32)
    return Parameters(trainable, fixed)


def coupling_name(group: int, n_groups: int) -> str:
    """The name of a group's couplings.

    >>> coupling_name(0, 1), coupling_name(0, 2)
    ('B', 'B_0')
    """
    return "B" if group == n_groups - 1 else f"B_{group}"


def build_network(
    root: Couplings, arrays: dict[str, Any], slope: float, *, rate_form: bool = False, identity: bool = False
) -> Network:
    """Weights and metrics from arrays.

    Args:
        root: the assembly.
        arrays: by name, as :func:`init_network` makes them.
        slope: g.
        rate_form: W stands inside phi: the weights are the transposed ones, their metrics the inverse.
        identity: take every module's metric for the identity in the couplings (an ablation: nothing is certified).
    """
    places = layout_of(root)
    built = []
    for k, module in enumerate(leaves_of(root)):
        suffix = f"_{k}"
        mine = {name.removesuffix(suffix): a for name, a in arrays.items() if name.endswith(suffix)}
        one = module.build(mine, slope)
        built.append(one._replace(W=one.W.mT, metric=one.inverse, inverse=one.metric) if rate_form else one)
    metrics = _by_size(places, [b.metric for b in built])
    inverses = _by_size(places, [b.inverse for b in built])
    if identity:
        metrics, inverses = (
            {n: jnp.broadcast_to(jnp.eye(n, dtype=m.dtype), m.shape) for n, m in metrics.items()} for _ in range(2)
        )
    rates = [rate for b in built for rate in b.rate]
    values = []
    scale = jnp.ones(len(places.sizes), built[0].W.dtype)
    for g, (group, blueprint) in enumerate(zip(places.groups, couplings_of(root), strict=True)):
        name = coupling_name(g, len(places.groups))
        if group.n_entries:
            B = _all_entries(group, arrays[name], arrays.get(name + "_at"))
            if group.node.coupling == "feedback":
                B = _skew_share(places, group, B, rates, metrics, inverses) * B
            blocks = _blocks(places, group, B, scale, metrics, inverses)
            values += [block.ravel() for block in blocks]
        if group.node.coupling == "hierarchical" and group.n_entries:
            scale, rates = _with_levels(places, group, blueprint, B, scale, rates, metrics, inverses)
    return Network(tuple(built), scale, jnp.concatenate(values) if values else jnp.zeros(0))


def _by_size(places: Layout, stacked: list[Array]) -> dict[int, Array]:
    """Arrays ``[module, unit, unit]`` of all stacks of one size, one after another; see :func:`_place`."""
    sizes = {stack.n_units for stack in places.stacks}
    return {
        n: jnp.concatenate([a for a, stack in zip(stacked, places.stacks, strict=True) if stack.n_units == n])
        for n in sizes
    }


def _place(places: Layout, modules: np.ndarray) -> np.ndarray:
    """Places of modules of one size among all of that size."""
    same = places.sizes == places.sizes[modules[0]]
    return (np.cumsum(same) - 1)[modules].astype(np.int32)


def _all_entries(group: Coupled, B: Float[Array, "kept"], at: Array | None) -> Float[Array, "entry"]:
    return B if at is None else jnp.zeros(group.n_entries, B.dtype).at[at].set(B)


def _blocks(
    places: Layout,
    group: Coupled,
    B: Float[Array, "entry"],
    scale: Float[Array, "module"],
    metrics: dict[int, Array],
    inverses: dict[int, Array],
) -> list[Array]:
    """The group's blocks of L, in the order of the layout."""
    out = []
    for pairs in group.pairs:
        n_to, n_from = pairs.shape
        n_entries = len(pairs.to) * n_to * n_from
        block = B[pairs.first : pairs.first + n_entries].reshape(-1, n_to, n_from)
        share = (scale[pairs.from_] / scale[pairs.to])[:, None, None]
        out.append(share * block)
        if group.node.coupling == "feedback":
            metric, inverse = metrics[n_to][_place(places, pairs.to)], inverses[n_from][_place(places, pairs.from_)]
            out.append(feedback(block, metric, inverse) / share)
    return out


def _skew_share(
    places: Layout,
    group: Coupled,
    B: Float[Array, "entry"],
    rates: list[Scalar],
    metrics: dict[int, Array],
    inverses: dict[int, Array],
) -> Scalar:
    """What B is multiplied by so that L, rounded to float32, is skew enough in the metric: 1 unless B is enormous.

    Whatever B, ``S = M_i^½ B M_j^-½`` and its answer cancel. What rounding leaves of them grows with ||S||, and takes
    from the rate. It is estimated by ``4 u ||S|| (k_i k_j)^¼``, u the unit roundoff and k a metric's condition, more
    than twice the most that was seen on random assemblies; nothing smaller than about 1e4 rate / k^½ is scaled.
    """
    total = jnp.zeros((), B.dtype)
    for pairs in group.pairs:
        n_to, n_from = pairs.shape
        n_entries = len(pairs.to) * n_to * n_from
        block = B[pairs.first : pairs.first + n_entries].reshape(-1, n_to, n_from)
        to, from_ = _place(places, pairs.to), _place(places, pairs.from_)
        squared = jnp.sum((metrics[n_to][to] @ block @ inverses[n_from][from_]) * block, axis=(1, 2))
        roots = [_root_of_condition(metrics[n][at], inverses[n][at]) for n, at in ((n_to, to), (n_from, from_))]
        total += jnp.sum(squared * roots[0] * roots[1])
    mine = range(group.parts[0].start, group.parts[-1].stop)
    rate = jnp.min(jnp.stack([rates[m] for m in mine]))
    largest = ROUNDING_SHARE * rate / (4 * jnp.finfo(jnp.float32).eps / 2)
    # not where nothing is certified in the first place; the division has no slope where nothing is scaled
    scaled = (rate > 0) & (total > largest**2)
    return jnp.where(scaled, largest / jnp.sqrt(jnp.where(scaled, total, 1.0)), 1.0)


def _root_of_condition(metric: Array, inverse: Array) -> Float[Array, "pair"]:
    """``(||M|| ||M^-1||)^½`` in Frobenius' norm, at least that in the spectral one."""
    return jnp.sqrt(jnp.linalg.norm(metric, axis=(1, 2)) * jnp.linalg.norm(inverse, axis=(1, 2)))


def _with_levels(
    places: Layout,
    group: Coupled,
    blueprint: Couplings,
    B: Float[Array, "entry"],
    scale: Float[Array, "module"],
    rates: list[Scalar],
    metrics: dict[int, Array],
    inverses: dict[int, Array],
) -> tuple[Array, list[Scalar]]:
    """Scales of the group's modules, those of each level smaller, and their rate as parts of the whole."""
    of_part = [jnp.min(jnp.stack(rates[part])) for part in group.parts]
    part_of = np.zeros(len(places.sizes), np.int32)
    for k, part in enumerate(group.parts):
        part_of[part] = k
    lowest = blueprint.kept_rate * jnp.min(jnp.stack(of_part))
    # rates below rounding may come of weights that are not certified at all: nothing is divided by 0
    spare = jnp.maximum(jnp.stack(of_part) - lowest, 1e-12)
    total = jnp.zeros((), B.dtype)
    for pairs in group.pairs:
        n_to, n_from = pairs.shape
        n_entries = len(pairs.to) * n_to * n_from
        block = B[pairs.first : pairs.first + n_entries].reshape(-1, n_to, n_from)
        metric, inverse = metrics[n_to][_place(places, pairs.to)], inverses[n_from][_place(places, pairs.from_)]
        squared = jnp.sum((metric @ block @ inverse) * block, axis=(1, 2))  # ||M_to^½ B M_from^-½||² in Frobenius' norm
        total += jnp.sum(squared / (spare[part_of[pairs.to]] * spare[part_of[pairs.from_]]))
    levels = np.array(group.node.levels, np.int32)
    # the square root's slope at 0 is infinite, where no coupling is
    norm = jnp.where(total > 0, jnp.sqrt(jnp.where(total > 0, total, 1.0)), 0.0)
    e = hierarchy_scale(norm, int(levels.max()) + 1)
    mine = range(group.parts[0].start, group.parts[-1].stop)  # a group's modules stand next to one another
    inside = (np.arange(len(rates)) >= mine.start) & (np.arange(len(rates)) < mine.stop)
    scale = scale * e ** np.where(inside, levels[part_of], 0).astype(np.float32)
    return scale, [lowest if m in mine else rate for m, rate in enumerate(rates)]


def dense_couplings(places: Layout, couplings: Float[Array, "entry"]) -> Float[Array, "to from"]:
    """L as one matrix."""
    n = places.n_units
    where = np.full((n, n), len(places.to), np.int32)
    where[places.to, places.from_] = np.arange(len(places.to))
    return jnp.concatenate([couplings, jnp.zeros(1, couplings.dtype)])[where]


def norm_bound(S: Float[Array, "unit unit"]) -> Scalar:
    """An upper bound on ``||S||_2`` with a gradient: the Schatten norm of order 64, ``(tr (S^T S)^32)^(1/64)``.

    >>> bool(3.0 <= norm_bound(jnp.diag(jnp.array([3.0, -2.0]))) < 3.01)
    True
    """
    size = jnp.sqrt(jnp.sum(S**2) + 1e-30)
    S = S / size
    power = S.T @ S
    logarithm = jnp.zeros((), S.dtype)
    for i in range(SQUARINGS):
        norm = jnp.sqrt(jnp.sum(power**2) + 1e-30)
        power = power / norm
        logarithm += jnp.log(norm) / 2**i
        power = power @ power
    # tr of a product of two symmetric matrices is the sum of their entries' products
    logarithm += jnp.log(jnp.trace(power) + 1e-30) / 2**SQUARINGS
    return size * jnp.exp(logarithm / 2)
