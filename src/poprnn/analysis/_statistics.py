"""Comparing the answers of several populations."""

import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from poprnn.core.errors import ConfigurationError

LEVELS = (5e-2, 1e-2, 1e-3, 1e-4, 1e-5)
"""p-values below which a difference gets one more star (Khajehabdollahi et al., ICLR 2024)."""


def group_tests(
    groups: Mapping[str, Any],
    *,
    samples: Sequence[str] = ("member",),
    equal_variance: bool = True,
    levels: Sequence[float] = LEVELS,
) -> xr.Dataset:
    """Two-sided unpaired t-tests between groups, at every value of the axes that are not samples.

        t = (mean_1 - mean_2) / (s sqrt(1/n_1 + 1/n_2)),     d = (mean_1 - mean_2) / s,

    with s the pooled standard deviation (Cohen's d is the effect size). Holm's correction is over all tests made
    here, pairs and other axes together.

    Args:
        groups: two or more named arrays: NumPy arrays of samples, or xarray arrays with the axes in ``samples`` and
            others alike (``strength``, say). NaN are left out.
        samples: axes that hold samples (xarray only). Members are independent; draws of one member are not.
        equal_variance: Student's test; else Welch's (then d still uses the pooled standard deviation).
        levels: p-values below which there is one star more.

    Returns:
        ``difference`` (of means), its 95 % interval ``low`` and ``high``, ``effect_size``, ``t``, ``p``, ``p_holm``,
        ``stars``, ``stars_holm`` (counts), ``n_1`` and ``n_2``, over (pair, other axes). NaN where a group has fewer
        than two samples.

    Raises:
        ConfigurationError: fewer than two groups, or other axes that differ.

    References: Student, The probable error of a mean, Biometrika 1908; Holm, A simple sequentially rejective multiple
    test procedure, Scandinavian Journal of Statistics 1979; Cohen, Statistical power analysis, 1988.

    >>> import numpy as np
    >>> test = group_tests({"a": np.array([1.0, 2.0, 3.0]), "b": np.array([4.0, 5.0, 6.0])})
    >>> test["pair"].values.tolist(), test["difference"].values.tolist(), test["effect_size"].values.tolist()
    (['a - b'], [-3.0], [-3.0])
    """
    if len(groups) < 2:
        raise ConfigurationError("group_tests: give at least two groups")
    named = {name: _as_samples(values, samples) for name, values in groups.items()}
    first = next(iter(named.values()))
    for name, values in named.items():
        if values.dims[:-1] != first.dims[:-1] or values.shape[:-1] != first.shape[:-1]:
            raise ConfigurationError(f"group_tests: '{name}' has other axes {values.dims[:-1]} than {first.dims[:-1]}")
    pairs = list(itertools.combinations(named, 2))
    rows = [_compare(named[a].values, named[b].values, equal_variance) for a, b in pairs]
    out = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    out["p_holm"] = holm(out["p"])
    for key in ("p", "p_holm"):
        out["stars" + key[1:]] = np.sum([out[key] < level for level in levels], axis=0)
    axes = ("pair", *first.dims[:-1])
    coordinates = {d: first[d] for d in first.dims[:-1] if d in first.coords}
    return xr.Dataset(
        {key: (axes, values) for key, values in out.items()}, {"pair": [f"{a} - {b}" for a, b in pairs], **coordinates}
    )


def _as_samples(values: Any, samples: Sequence[str]) -> xr.DataArray:
    """Samples on one axis, which comes last."""
    if not isinstance(values, xr.DataArray):
        return xr.DataArray(np.asarray(values, float).reshape(-1), dims="sample")
    missing = [axis for axis in samples if axis not in values.dims]
    if missing:
        raise ConfigurationError(f"group_tests: no axis '{missing[0]}' among {list(values.dims)}")
    others = [d for d in values.dims if d not in samples]
    plain = values.transpose(*others, *samples)
    shape = (*plain.shape[: len(others)], -1)
    coordinates = {d: values[d].values for d in others if d in values.coords}
    return xr.DataArray(plain.values.reshape(shape).astype(float), coordinates, [*others, "sample"])


def _compare(a: np.ndarray, b: np.ndarray, equal_variance: bool) -> dict[str, np.ndarray]:
    n_1, n_2 = (np.isfinite(x).sum(axis=-1) for x in (a, b))
    a, b = (np.where(np.isfinite(x), x, np.nan) for x in (a, b))
    enough = (n_1 >= 2) & (n_2 >= 2)
    blank = np.full(n_1.shape, np.nan)
    out = {key: blank.copy() for key in ("difference", "low", "high", "effect_size", "t", "p")}
    if enough.any():
        mine, other = a[enough], b[enough]
        with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
            # samples that are equal but for rounding: their t is as large as it looks
            warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
            result = stats.ttest_ind(mine, other, axis=-1, equal_var=equal_variance, nan_policy="omit")
            interval = result.confidence_interval(0.95)
            difference = np.nanmean(mine, axis=-1) - np.nanmean(other, axis=-1)
            freedom = n_1[enough] + n_2[enough] - 2
            pooled = np.sqrt(
                ((n_1[enough] - 1) * np.nanvar(mine, -1, ddof=1) + (n_2[enough] - 1) * np.nanvar(other, -1, ddof=1))
                / freedom
            )
            found = (difference, interval.low, interval.high, difference / pooled, result.statistic, result.pvalue)
        for key, values in zip(out, found, strict=True):
            out[key][enough] = np.ma.filled(values, np.nan)
    return out | {"n_1": n_1, "n_2": n_2}


def holm(p: np.ndarray) -> np.ndarray:
    """p-values corrected for as many tests as there are (NaN are no tests), by Holm's step-down procedure.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    flat = np.asarray(p, float).reshape(-1)
    out = flat.copy()
    tests = np.flatnonzero(np.isfinite(flat))
    order = tests[np.argsort(flat[tests], kind="stable")]
    out[order] = np.minimum(np.maximum.accumulate(flat[order] * np.arange(len(order), 0, -1)), 1)
    return out.reshape(np.shape(p))


def relative_accuracy(accuracy: Any, base: Any, chance: float = 0.5) -> Any:
    """``(accuracy - chance) / (base - chance)``: 1 where nothing was lost, 0 where only guessing is left.

    NaN where the base itself does not exceed chance. Khajehabdollahi et al., ICLR 2024.

    >>> relative_accuracy(np.array([0.75, 1.0]), 1.0).tolist()
    [0.5, 1.0]
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        base = base if isinstance(base, xr.DataArray) else np.asarray(base, float)
        found = (accuracy - chance) / (base - chance)
        return found.where(base > chance) if isinstance(found, xr.DataArray) else np.where(base > chance, found, np.nan)
