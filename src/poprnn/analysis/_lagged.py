"""Autocovariances of many long series that arrive in pieces."""

import numpy as np
import scipy.fft

from poprnn.core.arrays import Float

DIRECT = 60
"""Largest lag up to which products of blocks as matrices (2 lag multiplications a sample) beat Fourier transforms."""


class Autocovariance:
    """Lagged products of the units of one member, and of their sum, the last series; memory holds one piece.

    A provisional mean, that of the first piece, is taken off everything before it is multiplied. What the true mean
    d differs by enters at the end, exactly: with z the series, T its sum and H_k, E_k the sums of its first and last
    k values,

        sum_t (z_t - d)(z_{t-k} - d) = sum_t z_t z_{t-k} - d (T - H_k) - d (T - E_k) + (n - k) d².
    """

    def __init__(self, max_lag: int) -> None:
        self.max_lag = max_lag
        self.n_steps = 0
        self.block = max(max_lag, 16)

    def add(self, states: Float[np.ndarray, "trial time unit"]) -> None:
        """The next piece."""
        n_trials, n_new, n_units = states.shape
        if self.n_steps == 0:
            self._start(states)
        pad = -n_new % self.block
        with np.errstate(invalid="ignore", over="ignore"):  # activity may have exploded; its units get NaN
            for trial in range(n_trials):
                z = np.zeros((n_units + 1, self.block + n_new + pad))
                z[:, : self.block] = self.last[trial]
                new = z[:, self.block : self.block + n_new]
                new[:-1] = states[trial].T
                new[-1] = states[trial].sum(axis=1, dtype=np.float64)
                new -= self.provisional[trial][:, None]
                self.products[trial] += _products(z, self.block, self.max_lag)
                self.total[trial] += new.sum(axis=1)
                room = self.max_lag - self.n_steps
                if room > 0:
                    self.first[trial, :, self.n_steps : self.n_steps + n_new] = new[:, :room]
                self.last[trial] = z[:, n_new : n_new + self.block]
        self.n_steps += n_new

    def _start(self, states: Float[np.ndarray, "trial time unit"]) -> None:
        n_trials, _, n_units = states.shape
        shape = (n_trials, n_units + 1)
        with np.errstate(invalid="ignore", over="ignore"):
            mean = states.mean(axis=1, dtype=np.float64)
            self.provisional = np.concatenate([mean, mean.sum(axis=1, keepdims=True)], axis=1)
        self.products = np.zeros((*shape, self.max_lag + 1))
        self.total = np.zeros(shape)
        self.first = np.zeros((*shape, self.max_lag))
        self.last = np.zeros((*shape, self.block))

    def covariance(self) -> Float[np.ndarray, "trial series lag"]:
        """Autocovariance, lag k divided by n - k; zero throughout for a series that is constant but for rounding."""
        n, lags = self.n_steps, np.arange(self.max_lag + 1)
        count = n - lags
        with np.errstate(invalid="ignore", over="ignore"):
            total, mean = self.total[..., None], self.total[..., None] / n
            sums = [
                np.concatenate([np.zeros_like(total), np.cumsum(a, axis=-1)], axis=-1)
                for a in (self.first, self.last[..., ::-1][..., : self.max_lag])
            ]
            lagged = self.products - mean * (2 * total - sums[0] - sums[1]) + count * mean**2
            covariance = lagged / count
            level = self.provisional[..., None] + mean
            # states are float32: their rounding has a variance of 1e-15 of the squared mean
            constant = covariance[..., :1] <= 1e-14 * level**2
        return np.where(constant, 0.0, covariance)


def _products(z: Float[np.ndarray, "series time"], block: int, max_lag: int) -> Float[np.ndarray, "series lag"]:
    """``sum_t z_t z_{t-k}`` over t from ``block`` on, for lags k up to ``block``."""
    if max_lag > DIRECT:
        return _fourier_products(z, block, max_lag)
    blocks = z.reshape(len(z), -1, block)
    now = blocks[:, 1:]
    turned = np.swapaxes(now, 1, 2)
    # places i and j of the same block are i - j apart; j of the block before is i - j + block steps earlier than i
    same, before = turned @ now, turned @ blocks[:, :-1]
    products = np.empty((len(z), max_lag + 1))
    for lag in range(max_lag + 1):
        products[:, lag] = np.trace(same, offset=-lag, axis1=1, axis2=2)
        products[:, lag] += np.trace(before, offset=block - lag, axis1=1, axis2=2)
    return products


def _fourier_products(z: Float[np.ndarray, "series time"], block: int, max_lag: int) -> Float[np.ndarray, "series lag"]:
    """The same by overlapping stretches; their spectra add up, so that one inverse transform is enough."""
    size = scipy.fft.next_fast_len(min(max(8 * block, 2048), z.shape[1]), real=True)
    spectrum = np.zeros((len(z), size // 2 + 1), complex)
    for start in range(block, z.shape[1], size - block):
        stretch = z[:, start - block : start - block + size]
        later = stretch.copy()
        later[:, :block] = 0
        spectrum += scipy.fft.rfft(later, size) * scipy.fft.rfft(stretch, size).conj()
    return scipy.fft.irfft(spectrum, size)[:, : max_lag + 1]
