"""Linear operators of dynamics: dynamic mode decomposition of delay-embedded trajectories."""

from typing import NamedTuple

import numpy as np
import scipy.linalg

from poprnn.core import backend
from poprnn.core.arrays import Float, Int
from poprnn.core.errors import ConfigurationError

SMALLEST = 1e-12
"""Share of the largest squared singular value below which a component is rounding: states are float32, whose squared
error is 1e-14 of theirs."""
N_BLOCKS = 5
"""Of a Krylov space."""
CYCLES = 20
"""Of the search for leading eigenvectors, before all are computed."""
CONVERGED = 1e-9


class Operators(NamedTuple):
    """What fits the population's trajectories."""

    matrices: Float[np.ndarray, "member rank rank"]
    """Row: where to, column: where from. Zero beyond a member's components, NaN if its states are not finite."""
    n_components: Int[np.ndarray, "member"]
    variance: Float[np.ndarray, "member"]
    """Share of the squared norm of the embedded trajectories that the components hold."""
    r_squared: Float[np.ndarray, "member"]
    """Of the prediction of the components one step ahead."""


def fit_operators(
    states: Float[np.ndarray, "member trial time unit"], n_delays: int, rank: int, *, analysis: str
) -> Operators:
    """Dynamic mode decomposition by principal-component regression.

    Rows of H are the last ``n_delays`` states of one trial at one time; with H = V S U^T, V cut to ``rank`` columns,

        A = argmin sum_t |v(t + 1) - A v(t)|^2,

    sums over all times and trials that have a next step. Nothing is centred.

    Raises:
        ConfigurationError: trials too short for the delays, or too few samples or coordinates for the rank.
        CapacityError: too much for the memory there is.

    >>> turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    >>> path = np.stack([np.linalg.matrix_power(turn, t) @ [1.0, 0.0] for t in range(30)])
    >>> found = fit_operators(path[None, None], n_delays=1, rank=2, analysis="example").matrices[0]
    >>> np.abs(np.linalg.eigvals(found)).round(6).tolist()
    [1.0, 1.0]
    """
    _, n_trials, n_steps, n_units = states.shape
    n_windows, n_coordinates = n_steps - n_delays + 1, n_units * n_delays
    if n_windows < 2:
        raise ConfigurationError(f"{analysis}: n_delays = {n_delays}: must be less than the {n_steps} steps of a trial")
    largest = min(n_trials * (n_windows - 1), n_coordinates)
    if rank > largest:
        raise ConfigurationError(
            f"{analysis}: rank = {rank}: must be at most {largest}, with {n_coordinates} coordinates (units times "
            f"delays) in {n_trials * (n_windows - 1)} samples"
        )
    size = 8 * (2 * n_trials * n_windows * n_coordinates + 2 * min(n_trials * n_windows, n_coordinates) ** 2)
    backend.require_memory(size, f"{analysis}: {n_delays} delays of {n_units} units in {n_trials} trials")
    fitted = [_fit(own, n_delays, rank) for own in states]  # matrices of gigabytes: one member at a time
    return Operators(*(np.stack(values) for values in zip(*fitted, strict=True)))


def _fit(
    states: Float[np.ndarray, "trial time unit"], n_delays: int, rank: int
) -> tuple[np.ndarray, int, float, float]:
    if not np.isfinite(states).all():
        return np.full((rank, rank), np.nan), 0, np.nan, np.nan
    windows = np.lib.stride_tricks.sliding_window_view(states, n_delays, axis=1)
    embedded = np.ascontiguousarray(np.swapaxes(windows, 2, 3), np.float64)
    embedded = embedded.reshape(*embedded.shape[:2], -1)
    v, variance = _leading_directions(embedded.reshape(-1, embedded.shape[2]), rank)
    n = v.shape[1]
    v = v.reshape(*embedded.shape[:2], n)
    now, later = (part.reshape(-1, n) for part in (v[:, :-1], v[:, 1:]))
    solution = np.linalg.lstsq(now, later, rcond=None)[0]
    operator = np.zeros((rank, rank))
    operator[:n, :n] = solution.T
    total = (later**2).sum()
    r_squared = 1 - ((later - now @ solution) ** 2).sum() / total if total > 0 else np.nan
    return operator, n, variance, r_squared


def _leading_directions(h: Float[np.ndarray, "sample coordinate"], rank: int) -> tuple[np.ndarray, float]:
    """Left singular vectors of the largest singular values, and their share of the squared norm.

    From the smaller Gram matrix: squaring costs half the digits, which float32 states do not have.
    """
    tall = h.shape[0] >= h.shape[1]
    gram = h.T @ h if tall else h @ h.T
    total = np.trace(gram)
    values, vectors = _leading_eigenvectors(gram, rank)
    kept = values > SMALLEST * max(values[0], np.finfo(float).tiny)
    values, vectors = values[kept], vectors[:, kept]
    share = values.sum() / total if total > 0 else np.nan
    return (h @ vectors / np.sqrt(values) if tall else vectors), float(share)


def _leading_eigenvectors(matrix: Float[np.ndarray, "n n"], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of a positive semidefinite matrix, largest first; by block Lanczos with restarts where that is less work."""
    n, block = len(matrix), k + max(10, k // 5)
    if n > 2 * N_BLOCKS * block:
        basis = np.linalg.qr(matrix @ np.random.default_rng(0).normal(size=(n, block)))[0]
        for _ in range(CYCLES):
            values, vectors = _rayleigh_ritz(matrix, _krylov(matrix, basis))
            basis = vectors[:, :block]
            error = np.linalg.norm(matrix @ basis[:, :k] - basis[:, :k] * values[:k], axis=0)
            if (error <= CONVERGED * values[:k] + 1e-14 * values[0]).all():
                return values[:k], basis[:, :k]
    values, vectors = scipy.linalg.eigh(matrix, subset_by_index=(n - k, n - 1))
    return values[::-1], vectors[:, ::-1]


def _krylov(matrix: Float[np.ndarray, "n n"], basis: Float[np.ndarray, "n block"]) -> Float[np.ndarray, "n wide"]:
    """Orthonormal basis of ``basis, M basis, M^2 basis, …``, made orthogonal twice."""
    blocks = [basis]
    for _ in range(N_BLOCKS - 1):
        so_far, new = np.concatenate(blocks, axis=1), matrix @ blocks[-1]
        for _ in range(2):
            new = np.linalg.qr(new - so_far @ (so_far.T @ new))[0]
        blocks.append(new)
    return np.concatenate(blocks, axis=1)


def _rayleigh_ritz(
    matrix: Float[np.ndarray, "n n"], basis: Float[np.ndarray, "n wide"]
) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(basis.T @ matrix @ basis)
    return values[::-1], basis @ vectors[:, ::-1]
