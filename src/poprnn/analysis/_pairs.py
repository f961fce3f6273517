"""Pairs of members, and what can be said of a mean over them."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.core.arrays import Float, Int

N_RESAMPLES = 1000
LEVEL = 0.95
MIN_MEMBERS = 3
"""Two members make one pair, whose mean cannot be seen to vary."""

Pairs = tuple[Int[np.ndarray, "pair"], Int[np.ndarray, "pair"]]
"""Places of the two members of each pair, the smaller first."""


def pairs_of(n_members: int, n_pairs: int | None, random: np.random.Generator) -> Pairs:
    """All pairs of different members, or so many of them drawn without replacement (all where there are fewer).

    >>> [places.tolist() for places in pairs_of(3, None, np.random.default_rng(0))]
    [[0, 0, 1], [1, 2, 2]]
    """
    first, second = np.triu_indices(n_members, 1)
    if n_pairs is not None and n_pairs < len(first):
        chosen = np.sort(random.choice(len(first), n_pairs, replace=False))
        first, second = first[chosen], second[chosen]
    return first, second


def bootstrap_mean(values: Float[np.ndarray, "pair"], pairs: Pairs, random: np.random.Generator) -> tuple[float, float]:
    """95 % percentile interval of the mean over pairs when members, not pairs, are drawn anew.

    Pairs that share a member are not independent, so members are resampled: with c_i the times that member i is drawn,
    the mean is ``sum c_i c_j d_ij / sum c_i c_j`` over the pairs at hand (a member is no pair with itself). Pairs
    without a value are left out; (NaN, NaN) for fewer than three members.

    >>> random = np.random.default_rng(0)
    >>> bootstrap_mean(np.array([2.0, 2.0, 2.0]), pairs_of(3, None, random), random)
    (2.0, 2.0)
    """
    known = np.isfinite(values)
    first, second, values = pairs[0][known], pairs[1][known], values[known]
    members, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    if len(members) < MIN_MEMBERS:
        return np.nan, np.nan
    first, second = places[: len(first)], places[len(first) :]
    counts = random.multinomial(len(members), np.full(len(members), 1 / len(members)), N_RESAMPLES)
    rows = max(2_000_000 // len(values), 1)  # at once, so that memory stays small
    means = np.empty(N_RESAMPLES)
    for begin in range(0, N_RESAMPLES, rows):
        mine = counts[begin : begin + rows]
        weights = (mine[:, first] * mine[:, second]).astype(float)
        with np.errstate(invalid="ignore"):  # a resample may hold none of the pairs
            means[begin : begin + rows] = weights @ values / weights.sum(axis=1)
    low, high = np.nanquantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mean_over_pairs(distance: Float[np.ndarray, "member other"], seed: int) -> tuple[float, float, float]:
    """Mean of a matrix of distances over pairs of different members, and the interval of :func:`bootstrap_mean`.

    NaN (members that could not be compared) are left out.

    >>> mean_over_pairs(np.array([[0.0, 1.0], [1.0, 0.0]]), 0)
    (1.0, nan, nan)
    """
    random = np.random.default_rng(seed)
    pairs = pairs_of(len(distance), None, random)
    values = distance[pairs]
    mean = float(np.nanmean(values)) if np.isfinite(values).any() else np.nan
    return mean, *bootstrap_mean(values, pairs, random)


def with_degeneracy(
    variables: dict[str, Any], of: str, member_index: np.ndarray, seed: int, attributes: dict[str, str]
) -> xr.Dataset:
    """A dataset with ``degeneracy``, the mean of the variable ``of`` (member, other) over pairs, and its interval."""
    mean, low, high = mean_over_pairs(variables[of][1], seed)
    summary = {"degeneracy": mean, "degeneracy_low": low, "degeneracy_high": high}
    coordinates = {"member": member_index, "other": ("other", np.asarray(member_index))}
    return xr.Dataset({**variables, **summary}, coordinates, attributes)
