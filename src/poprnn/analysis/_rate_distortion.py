"""How small the error of a reconstruction can be after so many bits, or so many numbers, have been sent.

All errors are mean squared errors over the inputs' variance. Three kinds of lines must not be taken for one another:
a *limit* nobody can pass; a *reachable* line is what some code attains and a better one may beat; a *benchmark* is
no limit, and reached only under conditions that its docstring says.
"""

import functools
import itertools
from collections.abc import Callable

import numpy as np
from scipy import optimize, special, stats

from poprnn.core.arrays import Float

Numbers = Float[np.ndarray, "..."]


# --- limits -------------------------------------------------------------------------------------------------------


def gaussian_limit(bits: Numbers | float, n_dimensions: int) -> Numbers:
    """``2^(-2 R / d)``: distortion-rate function of a white Gaussian vector at R bits a vector.

    Reference: Cover & Thomas, Elements of Information Theory, 2006, theorem 10.3.2.

    >>> float(gaussian_limit(4.0, 4))
    0.25
    """
    return 2.0 ** (-2 * np.asarray(bits, float) / n_dimensions)


def water_filling_limit(bits: Numbers | float, spectrum: Float[np.ndarray, "input"]) -> Numbers:
    """Distortion-rate function of a Gaussian vector whose covariance has these eigenvalues, by reverse water-filling:

        D = sum_i min(theta, lambda_i) / sum_i lambda_i,     R = sum_i max(0, log2(lambda_i / theta) / 2).

    With the n largest eigenvalues above the water level, theta_n = (lambda_1 … lambda_n)^(1/n) 2^(-2 R / n); the right
    n is the one that gives the highest level.

    Reference: Cover & Thomas, Elements of Information Theory, 2006, theorem 10.3.3.

    >>> water_filling_limit([0.0, 1.0], np.array([4.0, 1.0])).tolist()     # one bit: all to the first channel
    [1.0, 0.4]
    """
    eigenvalues = np.sort(np.asarray(spectrum, float))[::-1]
    positive = eigenvalues[eigenvalues > 0]
    n = np.arange(1, len(positive) + 1)
    log_levels = np.cumsum(np.log2(positive)) / n - 2 * np.asarray(bits, float)[..., None] / n
    # the rate at a given level, read as one channel more or less, is least at the n that belongs to it
    level = 2.0 ** log_levels.max(axis=-1)
    return np.minimum(level[..., None], eigenvalues).sum(axis=-1) / eigenvalues.sum()


def uniform_scalar_limit(bits: Numbers | float) -> Numbers:
    """``4^-R``: no quantiser of one uniform number into 2^R values does better; halving step by step attains it.

    Reference: Gersho & Gray, Vector Quantization and Signal Compression, 1992, section 5.2.

    >>> float(uniform_scalar_limit(2))
    0.0625
    """
    return 4.0 ** -np.asarray(bits, float)


def signs_limit(bits: Numbers | float, n_dimensions: int) -> Numbers:
    """``4 p (1 - p)`` with ``h(p) = 1 - R / d``: distortion-rate function of independent signs under squared error.

    h is the binary entropy; p the probability with which a sign is still the other one, so that its best guess is
    ± (1 - 2p). After R = d bits there is nothing left.

    Reference: Cover & Thomas, Elements of Information Theory, 2006, theorem 10.3.1 (for the binary source).

    >>> signs_limit([0.0, 2.0, 4.0], 4).round(3).tolist()
    [1.0, 0.392, 0.0]
    """
    rest = np.clip(1 - np.asarray(bits, float) / n_dimensions, 0, 1)
    # bisection on all at once: h rises from 0 to 1 over p in [0, 1/2]
    low, high = np.zeros_like(rest), np.full_like(rest, 0.5)
    for _ in range(60):
        middle = (low + high) / 2
        below = stats.bernoulli.entropy(middle) / np.log(2) < rest
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return 4 * high * (1 - high) * (rest > 0)


def noisy_limit(signal_to_noise: Numbers | float, n_numbers: Numbers | int, n_dimensions: int) -> Numbers:
    """``(1 + S)^(-k t / d)``: a white Gaussian vector through k t uses of a Gaussian channel, S its signal over its
    noise.

    From the channel's capacity of ``log2(1 + S) / 2`` bits a use and :func:`gaussian_limit`; S is the power per use,
    the mean over uses, which bounds them whatever their shares are (the logarithm is concave), and with feedback too.

    Reference: Goblick, Theoretical limitations on the transmission of data from analog sources, IEEE Transactions on
    Information Theory 1965.

    >>> float(noisy_limit(3.0, 2, 4))
    0.5
    """
    return (1 + np.asarray(signal_to_noise, float)) ** (-np.asarray(n_numbers, float) / n_dimensions)


# --- reachable lines ----------------------------------------------------------------------------------------------


def uniform_reachable(bits: Numbers | float, n_dimensions: int) -> Numbers:
    """``[(d - r) 4^-m + r 4^-(m+1)] / d``, m = floor(R / d), r = R mod d: channels of a uniform vector halved in turn.

    A code for whole vectors may do better.

    >>> uniform_reachable([1, 2, 3], 2).tolist()
    [0.625, 0.25, 0.15625]
    """
    m, r = np.divmod(np.floor(np.asarray(bits, float)), n_dimensions)
    return ((n_dimensions - r) * 4.0**-m + r * 4.0 ** -(m + 1)) / n_dimensions


def sign_bits_reachable(bits: Numbers | float, n_dimensions: int) -> Numbers:
    """``1 - (2 / pi) R / d``: signs of R channels of a white Gaussian vector; NaN beyond R = d.

    >>> sign_bits_reachable([1, 2, 3], 2).round(3).tolist()
    [0.682, 0.363, nan]
    """
    share = np.asarray(bits, float) / n_dimensions
    return np.where(share <= 1, 1 - 2 / np.pi * share, np.nan)


def signs_reachable(bits: Numbers | float, n_dimensions: int) -> Numbers:
    """``1 - R / d``: R of d signs sent as they are.

    >>> signs_reachable([1, 4, 5], 4).tolist()
    [0.75, 0.0, 0.0]
    """
    return np.maximum(1 - np.asarray(bits, float) / n_dimensions, 0)


MAX_SCALAR_BITS = 8
"""Above, the thresholds of a Gaussian quantiser lie closer than its tables are worth."""


@functools.cache
def lloyd_max(bits: int) -> float:
    """Least error of a quantiser of a Gaussian number into 2^bits values, for a number that is sent whole (``final``).

    Thresholds lie half-way between values, values at the means of their cells (Lloyd's and Max's conditions, which have
    one solution for a Gaussian), found by Newton's method on the values.

    Reference: Max, Quantizing for minimum distortion, IRE Transactions on Information Theory 1960, table I.

    >>> [round(lloyd_max(b), 5) for b in (1, 2, 3)]
    [0.36338, 0.11748, 0.03455]
    """

    def off(values: np.ndarray) -> np.ndarray:
        return values - _means(np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]]))

    start = stats.norm.ppf((np.arange(2**bits) + 0.5) / 2**bits)
    values = optimize.root(off, start, tol=1e-12).x
    edges = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])
    return _error(edges)


@functools.cache
def greedy_embedded(bits: int) -> float:
    """Error after each cell of the quantiser of a bit less has been cut in two as well as that can be (``anytime``).

    What is sent early is not regretted later: the first bits are those of the best quantiser with so few.

    >>> [round(greedy_embedded(b), 5) for b in (1, 2, 3)]
    [0.36338, 0.11748, 0.03484]
    """
    return _error(_greedy_edges(bits))


@functools.cache
def _greedy_edges(bits: int) -> np.ndarray:
    if bits == 0:
        return np.array([-np.inf, np.inf])
    edges = _greedy_edges(bits - 1)
    cuts = [_best_cut(low, high) for low, high in itertools.pairwise(edges)]
    return np.sort(np.concatenate([edges, cuts]))


def _best_cut(low: float, high: float) -> float:
    """Where to cut a cell of a Gaussian number, so that the squared error of its two parts is least."""
    share = special.ndtr([low, high])
    bounds = tuple(special.ndtri(share[0] + np.array([0.001, 0.999]) * (share[1] - share[0])))
    cost: Callable[[float], float] = lambda cut: _error(np.array([low, cut, high]))
    return float(optimize.minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-10}).x)


def _means(edges: np.ndarray) -> np.ndarray:
    """Means of a Gaussian number within cells."""
    return -np.diff(stats.norm.pdf(edges)) / np.diff(special.ndtr(edges))


def _error(edges: np.ndarray) -> float:
    """``sum over cells of E[x²; cell] - P(cell) mean²``."""
    density = stats.norm.pdf(edges)
    moment = np.where(np.isfinite(edges), edges, 0) * density
    share = np.diff(special.ndtr(edges))
    return float(np.sum(share - np.diff(moment) - np.diff(density) ** 2 / share))


# --- benchmark ----------------------------------------------------------------------------------------------------


def linear_benchmark(n_numbers: Numbers | int, spectrum: Float[np.ndarray, "input"]) -> Numbers:
    """The sum of all but the k t largest eigenvalues over their total: k t noiseless numbers, linear code and decoder.

    White: ``1 - min(k t, d) / d``. Not a limit (a noiseless nonlinear bottleneck has none), and reached only with
    gating that changes over time: a fixed linear encoder gains nothing after its first step.

    >>> linear_benchmark([1, 2, 3], np.array([3.0, 1.0])).tolist()
    [0.25, 0.0, 0.0]
    """
    eigenvalues = np.sort(np.asarray(spectrum, float))[::-1]
    left = np.append(eigenvalues.sum() - np.cumsum(eigenvalues), 0.0)
    numbers = np.asarray(n_numbers, int)
    out = np.where(numbers > 0, left[np.clip(numbers, 1, len(eigenvalues)) - 1], eigenvalues.sum())
    return np.maximum(out / eigenvalues.sum(), 0.0)
