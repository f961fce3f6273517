"""Fits of exponentials against scipy's curve_fit in a loop: `python benchmarks/fits.py`. Takes about two minutes.

Autocorrelations of 4 x 500 units as the analysis sees them: AR(1) series and sums of two with the sampling errors of
10 trials of 1e5 steps, drawn with the covariance that Bartlett's formula gives them. Both sides fit one and two
exponentials within the same bounds, in turn and in one process, so that a busy machine slows both alike.
"""

import time

import numpy as np
from scipy.optimize import curve_fit

from poprnn.analysis._exponentials import fit_exponentials

LAGS = np.arange(31)
N_UNITS, N_ROUNDS, N_STEPS = 2000, 4, 1_000_000
MODELS = [
    (lambda t, a, tau: a * np.exp(-t / np.maximum(tau, 1e-12)), (0.9, 5), ([0, 0], [1, 100])),
    (
        lambda t, a, tau, b, sigma: a * np.exp(-t / np.maximum(tau, 1e-12)) + b * np.exp(-t / np.maximum(sigma, 1e-12)),
        (0.5, 2, 0.5, 20),
        ([0] * 4, [1, 100] * 2),
    ),
]


def autocorrelations(n: int, random: np.random.Generator) -> np.ndarray:
    slow, share = random.uniform(1, 50, n), np.where(np.arange(n) % 2, random.uniform(0.3, 0.7, n), 1)
    fast = slow / random.uniform(5, 15, n)
    true = lambda t, i: share[i] * np.exp(-np.abs(t) / slow[i]) + (1 - share[i]) * np.exp(-np.abs(t) / fast[i])
    return np.array([true(LAGS, i) + sampling_error(lambda t, i=i: true(t, i), random) for i in range(n)])


def sampling_error(correlation, random: np.random.Generator) -> np.ndarray:
    """A linear process' sample autocorrelation r_k errs as sum_j (r_{j+k} + r_{j-k} - 2 r_j r_k) e_j / sqrt(n)."""
    j = np.arange(1, 400)
    mixing = (
        correlation(j + LAGS[:, None])
        + correlation(j - LAGS[:, None])
        - 2 * correlation(LAGS)[:, None] * correlation(j)
    )
    return mixing @ random.normal(size=len(j)) / np.sqrt(N_STEPS)


def loop(y: np.ndarray) -> np.ndarray:
    """Residual sums of squares ``[model, unit]``; infinite where curve_fit gives up."""
    rss = np.full((2, len(y)), np.inf)
    for i, curve in enumerate(y):
        for model, (function, start, bounds) in enumerate(MODELS):
            try:
                found = curve_fit(function, LAGS, curve, p0=start, bounds=bounds)[0]
                rss[model, i] = ((function(LAGS, *found) - curve) ** 2).sum()
            except RuntimeError:
                pass
    return rss


def main() -> None:
    y = autocorrelations(N_UNITS, np.random.default_rng(0))
    bounds = np.full(N_UNITS, 100.0)
    seconds, ours, theirs = [], [], []
    for part in np.array_split(np.arange(N_UNITS), N_ROUNDS):
        marks = [time.perf_counter()]
        fits = fit_exponentials(y, bounds)  # all units, as an analysis asks; a quarter of that counts
        marks.append(time.perf_counter())
        theirs.append(loop(y[part]))
        marks.append(time.perf_counter())
        ours.append(np.stack([fit.rss[part] for fit in fits]))
        seconds.append(np.diff(marks) / [N_ROUNDS, 1])
        print(f"{len(part)} units: ours {seconds[-1][0]:.3f} s, curve_fit {seconds[-1][1]:.2f} s")
    mine, his = np.sum(seconds, axis=0)
    worse = (np.concatenate(ours, 1) - np.concatenate(theirs, 1)) / (y**2).sum(axis=1)
    print(f"ratio {his / mine:.0f}; residuals higher by more than 1e-9 of the total: {(worse > 1e-9).sum()}", end="; ")
    print(f"lower: {(worse < -1e-9).sum()} of {worse.size}, where curve_fit gave up {np.isinf(worse).sum()} of them")


if __name__ == "__main__":
    main()
