"""What every distance between members is reported with: its mean over pairs, and how sure that is."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.core.arrays import Float

N_RESAMPLES = 1000


def mean_over_pairs(distance: Float[np.ndarray, "member other"], seed: int) -> tuple[float, float, float]:
    """Mean over pairs of different members, with a 95 % percentile bootstrap over members.

    A resample draws members with replacement; pairs of a member with itself do not count. NaN (members that could not
    be compared) are left out; the interval of fewer than three members is NaN.

    >>> mean_over_pairs(np.array([[0.0, 1.0], [1.0, 0.0]]), 0)
    (1.0, nan, nan)
    """
    n = len(distance)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES).astype(float)
    there = np.isfinite(distance) & ~np.eye(n, dtype=bool)
    values = np.where(there, distance, 0)
    if not there.any():
        return np.nan, np.nan, np.nan
    weighted = lambda matrix: ((counts @ matrix) * counts).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # resamples of a single member
        means = weighted(values) / weighted(there.astype(float))
    n_there = int(there.any(axis=1).sum())
    low, high = np.nanquantile(means, (0.025, 0.975)) if n_there > 2 else (np.nan, np.nan)
    return float(values.sum() / there.sum()), float(low), float(high)


def with_degeneracy(
    variables: dict[str, Any], of: str, member_index: np.ndarray, seed: int, attributes: dict[str, str]
) -> xr.Dataset:
    """A dataset with ``degeneracy``, the mean of the variable ``of`` (member, other) over pairs, and its interval."""
    mean, low, high = mean_over_pairs(variables[of][1], seed)
    summary = {"degeneracy": mean, "degeneracy_low": low, "degeneracy_high": high}
    coordinates = {"member": member_index, "other": ("other", np.asarray(member_index))}
    return xr.Dataset({**variables, **summary}, coordinates, attributes)
