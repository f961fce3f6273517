"""Shannon entropy of series that hold few values, or many that are put into bins."""

from typing import NamedTuple

import numpy as np

from poprnn.core.arrays import Bool, Float, Int

SAME = 1e-6
"""Values closer than this share of the whole range are one symbol: rounding of float32."""


class Symbols(NamedTuple):
    """A channel's series in whole numbers from 0."""

    code: Int[np.ndarray, "trial time"]
    n: int
    """How many symbols there are."""
    binned: bool
    """Whether they are bins, not values."""


def symbols(values: Float[np.ndarray, "trial time"], exists: Bool[np.ndarray, "trial time"], n_bins: int) -> Symbols:
    """Each value a symbol of its own where there are ``n_bins`` different ones at most, else equal bins of the range.

    >>> symbols(np.array([[0.0, 5.0, 0.0]]), np.ones((1, 3), bool), 8)
    Symbols(code=array([[0, 1, 0]]), n=2, binned=False)
    >>> symbols(np.array([[0.0, 0.1, 0.4, 1.0]]), np.ones((1, 4), bool), 2)
    Symbols(code=array([[0, 0, 0, 1]]), n=2, binned=True)
    """
    known = np.unique(values[exists])
    low, high = known[0], known[-1]
    room = SAME * (high - low)
    first = np.concatenate([[True], np.diff(known) > room])  # of every group of values that are one
    starts = known[first]
    last = np.append(known[:-1][first[1:]], high)
    # a group wider than rounding is a continuum: its values only happen to lie close to one another
    if len(starts) <= n_bins and (last - starts <= room).all():
        code = np.searchsorted(starts, np.where(exists, values, low), side="right") - 1
        return Symbols(code, len(starts), False)
    share = (np.where(exists, values, low) - low) / (high - low)
    return Symbols(np.minimum((share * n_bins).astype(int), n_bins - 1), n_bins, True)


def counts(series: Symbols, exists: Bool[np.ndarray, "trial time"]) -> Int[np.ndarray, "trial symbol"]:
    """How often each symbol occurs in each trial."""
    n_trials = len(series.code)
    place = np.arange(n_trials)[:, None] * series.n + series.code
    return np.bincount(place[exists], minlength=n_trials * series.n).reshape(n_trials, series.n)


def entropy_bits(counts: Int[np.ndarray, "... symbol"]) -> Float[np.ndarray, "..."]:
    """``-sum_k p_k log2 p_k`` with p_k the share of symbol k; what does not occur adds nothing.

    >>> entropy_bits(np.array([[1, 1, 0], [5, 0, 0]])).tolist()
    [1.0, 0.0]
    """
    p = counts / counts.sum(axis=-1, keepdims=True)
    return -np.sum(p * np.log2(np.where(p > 0, p, 1)), axis=-1) + 0.0
