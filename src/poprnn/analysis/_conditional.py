"""Means over trials, all or those alike in one condition: bins, means, and how sure they are."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from poprnn.core.arrays import Float, Int
from poprnn.core.errors import ConfigurationError, NotApplicableError

MAX_VALUES = 32
"""Most values of a condition that get a bin each; a condition with more is taken as continuous."""
SAME = 1e-5
"""Values closer than this share of the whole range are one: differences of float32 numbers that should be equal."""
N_RESAMPLES = 1000
LEVEL = 0.95
ROWS, BATCH = 20, 100_000
"""Means that are resampled at once, and trials of a resample of each: memory stays below 20 MB."""


class Bins(NamedTuple):
    """Which bin each trial falls into, and what the bins stand for."""

    place: Int[np.ndarray, "member trial"]
    """-1: none."""
    centre: Float[np.ndarray, "bin"]
    """Mean of the condition over all members' trials in the bin; the middle of an empty bin."""


class Means(NamedTuple):
    """Mean over the trials that have a score, its interval, and their number; NaN (and 0) where there is none."""

    mean: Float[np.ndarray, "member head bin"]
    low: Float[np.ndarray, "member head bin"]
    high: Float[np.ndarray, "member head bin"]
    n: Int[np.ndarray, "member head bin"]
    interval: str
    """How it was made."""


def binned(condition: Float[np.ndarray, "member trial"], bins: int | Sequence[float], name: str) -> Bins:
    """Bins of a condition: its values, if they are few and recur; else equally full ones, or those between edges.

    Raises ``NotApplicableError`` if the condition is NaN in all trials, ``ConfigurationError`` for edges that do not
    rise or hold no trial.

    >>> binned(np.array([[0.0, 2.0, 2.0, 0.0, np.nan]]), 8, "delay")
    Bins(place=array([[ 0,  1,  1,  0, -1]]), centre=array([0., 2.]))
    """
    known = np.isfinite(condition)
    values = np.sort(condition[known])
    if not values.size:
        raise NotApplicableError(f"'{name}' is NaN in all trials")
    edges = _edges(values, bins)
    n_bins = len(edges) - 1
    place = np.searchsorted(edges, np.where(known, condition, -np.inf), side="right") - 1
    place = np.where(known & (place < n_bins), place, -1)
    inside = place >= 0
    if not inside.any():
        raise ConfigurationError(f"bins = {bins}: no trial's '{name}' lies there ({values[0]:g} … {values[-1]:g})")
    count = np.bincount(place[inside], minlength=n_bins)
    total = np.bincount(place[inside], condition[inside], minlength=n_bins)
    middle = edges[:-1] + (np.where(np.isinf(edges[1:]), edges[:-1], edges[1:]) - edges[:-1]) / 2
    return Bins(place, np.where(count > 0, total / np.maximum(count, 1), middle))


def _edges(values: Float[np.ndarray, "value"], bins: int | Sequence[float]) -> Float[np.ndarray, "edge"]:
    """Lower ends of all bins, and where the last one ends (that end excluded); ``values`` are sorted."""
    if isinstance(bins, int):
        starts = _distinct(values)
        if starts is None:
            starts = np.unique(np.quantile(values, np.arange(bins) / bins))
        return np.append(starts, np.inf)
    edges = np.asarray(bins, float)
    if (np.diff(edges) <= 0).any():
        raise ConfigurationError(f"bins = {list(bins)}: edges must increase")
    return np.append(edges[:-1], np.nextafter(edges[-1], np.inf))


def _distinct(values: Float[np.ndarray, "value"]) -> Float[np.ndarray, "bin"] | None:
    """The values there are, if they are few and recur; ``None`` for a continuous condition. ``values`` are sorted."""
    room = SAME * (values[-1] - values[0])
    found: list[float] = []
    rest = values
    while rest.size:
        if len(found) == MAX_VALUES or 2 * len(found) > len(values):
            return None
        found.append(rest[0])
        rest = rest[np.searchsorted(rest, rest[0] + room, side="right") :]
    return np.array(found)


def means(values: Float[np.ndarray, "member trial head"], bins: Bins, seed: int) -> Means:
    """Mean score of every member and head in every bin, over the trials where it is not NaN.

    Wilson's interval where all scores are 0 or 1, else a percentile bootstrap over trials. What a member gets does not
    depend on the others, but for the choice between the two.
    """
    shape = (len(values), values.shape[2], len(bins.centre))
    cells = [values[member, bins.place[member] == place, head] for member, head, place in np.ndindex(shape)]
    cells = [scores[~np.isnan(scores)] for scores in cells]
    n = np.array([len(scores) for scores in cells])
    mean = np.array([scores.mean() if len(scores) else np.nan for scores in cells])
    binary = bool(np.isin(values[~np.isnan(values)], (0, 1)).all())
    ends = np.full((len(cells), 2), np.nan)
    if binary:
        ends[:] = [wilson(int(scores.sum()), len(scores)) for scores in cells]
    else:
        for size in np.unique(n[n > 1]):  # cells with equally many trials are resampled at once
            alike = np.flatnonzero(n == size)
            ends[alike] = bootstrap(np.stack([cells[i] for i in alike]), seed)
    mean, low, high, n = (a.reshape(shape) for a in (mean, ends[:, 0], ends[:, 1], n))
    return Means(mean, low, high, n, f"{LEVEL:.0%}, " + ("Wilson" if binary else "bootstrap over trials"))


@functools.lru_cache(maxsize=4096)  # the same counts recur from bin to bin
def wilson(n_right: int, n: int) -> tuple[float, float]:
    """Wilson's interval of a proportion, (NaN, NaN) without trials.

        (p + z²/2n ± z sqrt(p (1-p)/n + z²/4n²)) / (1 + z²/n),      z the 97.5 % quantile of N(0, 1)

    >>> [round(p, 3) for p in wilson(9, 10)]
    [0.596, 0.982]
    """
    if n == 0:
        return float("nan"), float("nan")
    ends = stats.binomtest(n_right, n).proportion_ci(LEVEL, method="wilson")
    return float(ends.low), float(ends.high)


def bootstrap(values: Float[np.ndarray, "row trial"], seed: int) -> Float[np.ndarray, "row 2"]:
    """Percentile interval of the mean of every row of two trials or more; no row's depends on the other rows.

    >>> bootstrap(np.array([[0.5, 0.5, 0.5]]), 0)
    array([[0.5, 0.5]])
    """
    n = values.shape[1]
    out = np.empty((len(values), 2))
    for first in range(0, len(values), ROWS):
        found = stats.bootstrap(
            (values[first : first + ROWS],),
            np.mean,
            axis=-1,
            n_resamples=N_RESAMPLES,
            confidence_level=LEVEL,
            method="percentile",
            batch=max(BATCH // n, 1),
            rng=np.random.default_rng([seed, n]),
        ).confidence_interval
        out[first : first + ROWS] = np.stack([found.low, found.high], axis=1)
    return out


def mean_and_error(values: Float[np.ndarray, "..."], axis: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the trials that have a (finite) value, and its standard error; both without the axis of trials.

    The mean is NaN without such trials, the standard error ``s / sqrt(n)``, with ``s`` over ``n - 1``, for fewer than
    two.

    >>> mean_and_error(np.array([[1.0, 3.0, np.nan], [5.0, np.inf, np.nan]]))
    (array([2., 5.]), array([ 1., nan]))
    """
    known = np.isfinite(values)
    n = known.sum(axis=axis)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 where no trial has a value
        mean = np.where(known, values, 0).sum(axis=axis) / n
        squares = np.where(known, values - np.expand_dims(mean, axis), 0) ** 2
        return mean, np.where(n > 1, np.sqrt(squares.sum(axis=axis) / (n - 1) / n), np.nan)
