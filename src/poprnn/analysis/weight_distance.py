"""How far apart the weights of different members lie, whatever the numbering of their units."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import numpy as np
import xarray as xr
from pydantic import Field

from poprnn.analysis._matching import Weights, distance, match_conjugate, match_independent
from poprnn.analysis._pairs import bootstrap_mean, pairs_of
from poprnn.analysis._population import Seed, prepared
from poprnn.cells.contract import Cell
from poprnn.core.blueprint import NonNegativeInt, PositiveInt
from poprnn.core.errors import ConfigurationError, NotApplicableError
from poprnn.training.run import Run

Name = Literal["identity", "independent", "conjugate"]
Names = Annotated[Sequence[Name], Field(min_length=1)]


def weight_distance(
    run: Run,
    *,
    relabelling: Names = ("identity", "independent", "conjugate"),
    include: Literal["recurrent", "all"] = "recurrent",
    n_restarts: NonNegativeInt = 10,
    n_pairs: PositiveInt | None = None,
    seed: Seed = 0,
) -> xr.Dataset:
    """Frobenius distance between the recurrent weights of every pair of members, up to relabellings of their units.

    With ``|| ||`` the Frobenius norm and P permutation matrices,

        identity      || W_1 - W_2 ||
        independent   min over P1, P2 of || W_1 - P1 W_2 P2 ||
        conjugate     min over P of || W_1 - P W_2 P^T ||

    "Independent" is the paper's d_PIF, found by its alternating linear assignment, begun from the units as they are
    and from random permutations. Incoming and outgoing sides of a unit may then be given to different units, which is
    no renumbering of a recurrent network. "Conjugate" is one: Frank-Wolfe (the FAQ algorithm) from the barycentre and
    from random points, refined by exchanges of two units while any gains. All minima are the best that were *found*,
    upper bounds of the true ones: alternating assignment seldom finds even an exact renumbering (of 64 Gaussian
    units, with 10 restarts, it mostly leaves four fifths of the identity's distance, as between strangers), Frank-Wolfe
    did in 100 of 100 tries.

    Weights are those that the dynamics see (our choice: masks and Dale's signs applied, tau and leak apart). All units
    may change places, of whichever sign or time constant. In GRU and LSTM the rows of all gates are permuted alike.

    Args:
        run: the population, two members or more.
        relabelling: which of the three (default: all).
        include: the recurrent weights only (the paper), or also the input weights and biases, whose rows move with P
            (P1), and the readout weights, whose columns do with P^T (P2).
        n_restarts: random starts of either search, beside the fixed ones (the paper: several; 10 is our choice).
        n_pairs: so many pairs drawn at random; default: all. Each pair's value depends on ``seed`` and its two
            members alone.
        seed: changes random starts, the pairs drawn and the resamples.

    Returns:
        ``distance`` (relabelling, pair) and ``distance_per_parameter``, which is divided by the number of weights
        compared, n² for a recurrent matrix of n units, zeros included (the paper's; note that it falls with n even
        for random weights, as n^-1.5 where their variance is 1/n). ``mean``, ``mean_per_parameter`` (relabelling) over
        pairs, each with ``…_low`` and ``…_high``, the 95 % percentile bootstrap over members (1000 resamples; NaN for
        two members). Coordinates ``member_1`` and ``member_2`` (pair). NaN where weights are not finite.

    Raises:
        NotApplicableError: fewer than two members, or a cell without recurrent weights W [unit, unit] (or
            [gates · unit, unit]); with ``include="all"`` also one without W_in and W_out of fitting shapes.
        ConfigurationError: a relabelling named twice, or ``n_restarts`` where nothing is searched for.

    References: Huang, Singh & Rajan, Measuring and controlling solution degeneracy across task-trained recurrent neural
    networks, 2024, section 3.2.2 and appendix D; Ainsworth et al., Git Re-Basin: merging models modulo permutation
    symmetries, ICLR 2023; Vogelstein et al., Fast approximate quadratic programming for graph matching, PLoS ONE 2015.

    >>> import numpy as np, poprnn as pr
    >>> W = np.random.default_rng(0).normal(size=(6, 6))
    >>> order = np.array([3, 1, 5, 0, 4, 2])
    >>> run = pr.from_arrays("n_parity", pr.cells.VanillaRNN(n_units=6), {"W": np.stack([W, W[order][:, order]])})
    >>> found = pr.measure("weight_distance", run).data["distance"]
    >>> found.sel(relabelling="identity").item() > 1, found.sel(relabelling="conjugate").item() < 1e-6
    (True, True)
    """
    if len(set(relabelling)) < len(relabelling):
        raise ConfigurationError(f"weight_distance: relabelling = {list(relabelling)}: each must be given once")
    if n_restarts != 10 and set(relabelling) == {"identity"}:
        raise ConfigurationError(f"weight_distance: n_restarts = {n_restarts}: 'identity' has nothing to search for")
    if run.n_members < 2:
        raise NotApplicableError("weight_distance: a distance needs two members")
    weights = _weights(run, include)
    pairs = pairs_of(run.n_members, n_pairs, np.random.default_rng([seed, 0]))
    found = _distances(weights, run.member_index, pairs, relabelling, n_restarts, seed)
    members = run.member_index[pairs[0]], run.member_index[pairs[1]]
    n_parameters = weights[0].n_parameters
    axes = ("relabelling", "pair")
    data = xr.Dataset(
        {
            "distance": (axes, found, {"long_name": "distance of weights"}),
            "distance_per_parameter": (axes, found / n_parameters, {"long_name": "distance per parameter"}),
        },
        {"relabelling": list(relabelling), "member_1": ("pair", members[0]), "member_2": ("pair", members[1])},
        {"n_parameters": n_parameters},
    )
    known = np.isfinite(found)
    with np.errstate(invalid="ignore"):
        mean = np.where(known, found, 0).sum(axis=1) / known.sum(axis=1)
    ends = np.array([bootstrap_mean(row, pairs, np.random.default_rng([seed, 1])) for row in found])
    for name, divisor in (("mean", 1), ("mean_per_parameter", n_parameters)):
        for ending, values in (("", mean), ("_low", ends[:, 0]), ("_high", ends[:, 1])):
            data[name + ending] = ("relabelling", values / divisor)
    return data


def _distances(
    weights: list[Weights],
    member_index: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray],
    relabelling: Sequence[str],
    n_restarts: int,
    seed: int,
) -> np.ndarray:
    """Pair by pair: assignments are solved one at a time and cannot be stacked."""
    finite = [all(np.isfinite(part).all() for part in one) for one in weights]
    found = np.full((len(relabelling), len(pairs[0])), np.nan)
    for place, (i, j) in enumerate(zip(*pairs, strict=True)):
        if finite[i] and finite[j]:
            for row, name in enumerate(relabelling):
                random = np.random.default_rng([seed, int(member_index[i]), int(member_index[j])])
                found[row, place] = MATCHES[name](weights[i], weights[j], n_restarts, random)
    return found


def _as_they_are(a: Weights, b: Weights, n_restarts: int, random: np.random.Generator) -> float:
    """Without any relabelling."""
    del n_restarts, random
    order = np.arange(a.n_units)
    return distance(a, b, order, order)


MATCHES: dict[str, Callable[[Weights, Weights, int, np.random.Generator], float]] = {
    "identity": _as_they_are,
    "independent": match_independent,
    "conjugate": match_conjugate,
}


# --- weights by what a relabelling does to them -----------------------------------------------------------------------


def _weights(run: Run, include: str) -> list[Weights]:
    """Every member's weights as the dynamics see them."""

    def read(cell: Cell, arrays: dict[str, Any]) -> dict[str, Any]:
        n_units, n_gates = _sizes(cell, arrays)
        recurrent = arrays["W"].reshape(n_gates, n_units, n_units)
        if include == "recurrent":
            nothing = jnp.zeros((n_units, 0))
            return {"recurrent": recurrent, "incoming": nothing, "outgoing": nothing}
        W_in, W_out = _fitting(cell, arrays, n_gates * n_units, n_units)
        biases = [a for name, a in sorted(arrays.items()) if name.startswith("bias") and hasattr(a, "shape")]
        incoming = [W_in, *(b[:, None] for b in biases if b.ndim == 1 and b.shape[0] % n_units == 0)]
        # rows of gates stand below one another: here a unit has one row, with the numbers of all its gates
        one_row = [a.reshape(-1, n_units, a.shape[1]).swapaxes(0, 1).reshape(n_units, -1) for a in incoming]
        return {"recurrent": recurrent, "incoming": jnp.concatenate(one_row, axis=1), "outgoing": W_out.T}

    found = prepared(run, run.parameters, read)
    return [Weights(*(found[name][k] for name in Weights._fields)) for k in range(run.n_members)]


def _sizes(cell: Cell, arrays: dict[str, Any]) -> tuple[int, int]:
    """Units and gates, from the shape of W."""
    shape = getattr(arrays.get("W"), "shape", ())
    if len(shape) != 2 or shape[0] % shape[1] or getattr(cell, "n_units", shape[1]) != shape[1]:
        raise NotApplicableError(
            f"weight_distance: cell '{cell.name()}' has no matrix W of recurrent weights, [unit, unit] for each gate"
        )
    return shape[1], shape[0] // shape[1]


def _fitting(cell: Cell, arrays: dict[str, Any], n_rows: int, n_units: int) -> tuple[Any, Any]:
    """Input and readout weights."""
    W_in, W_out = arrays.get("W_in"), arrays.get("W_out")
    rows, columns = getattr(W_in, "shape", ())[:1], getattr(W_out, "shape", ())[1:]
    if rows != (n_rows,) or columns != (n_units,):
        raise NotApplicableError(
            f"weight_distance: cell '{cell.name()}' has no W_in [{n_rows}, input] and W_out [output, {n_units}]; "
            "choose include = 'recurrent'"
        )
    return W_in, W_out
