"""In how many dimensions the activity of a network lives."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, NamedTuple

import numpy as np
import xarray as xr
from pydantic import Field

from poprnn.analysis._population import BitProbability, Piece, Seed, driven, refuse_bits
from poprnn.core import backend
from poprnn.core.arrays import Float
from poprnn.core.blueprint import NonNegativeInt, PositiveInt
from poprnn.core.errors import ConfigurationError, NotApplicableError
from poprnn.tasks._memory import MemoryTask
from poprnn.training.rollout import rollout
from poprnn.training.run import Run

PIECE_BYTES = 2**28
"""Aim for the size of the activity held at once."""
N_GROUPS = 10
"""Groups of trials for the jackknife; every one costs a covariance matrix of memory."""
TOLERANCE = 1e-12
"""Share of the variance below which a component is rounding: states are float32, whose squared error is 1e-14."""

Share = Annotated[float, Field(gt=0, le=1)]


def dimensionality(
    run: Run,
    *,
    variance: Share = 0.9,
    n_trials: PositiveInt = 50,
    n_steps: PositiveInt | None = None,
    burn_in: NonNegativeInt | None = None,
    bit_probability: BitProbability | None = None,
    seed: Seed = 0,
) -> xr.Dataset:
    """Number of principal components for a share of the variance of the units' activity, and participation ratio.

    With lambda_1 >= lambda_2 >= … the eigenvalues of the covariance of activity over trials and time,

        n_components = min { k : sum_{i <= k} lambda_i / sum_i lambda_i >= variance },
        participation_ratio = (sum_i lambda_i)^2 / sum_i lambda_i^2.

    (The released code counts one too few.) Networks of a memory task are driven by random bits, the same for all
    members; others run fresh trials of their task. The covariance is accumulated in float64, piece by piece.

    Args:
        run: the population.
        variance: share of the variance to be explained (the paper: 0.9).
        n_trials: trials (sequences of bits) for each member.
        n_steps: steps of every sequence after the burn-in; default 500. Memory tasks only.
        burn_in: steps left out at the start of every trial; default 100 for memory tasks, else 0.
        bit_probability: probability of a 1; default ``"uniform"``, one drawn for each sequence from U(0, 1), as in
            the paper's code, whatever the task trains with. Memory tasks only. A bit lasts as long as in the task,
            at the smallest dt that the task draws.
        seed: changes bits or trials, the start and the noise.

    Returns:
        ``n_components`` and ``participation_ratio`` (member); ``participation_ratio_standard_error`` (member), by the
        jackknife over up to 10 groups of trials, NaN for a single trial; ``cumulative`` (member, component), the
        share of the variance in the first components, counted from 1. Activity without variance has 0 components and
        NaN elsewhere; activity that is not finite has NaN everywhere.

    Raises:
        ConfigurationError: ``n_steps`` or ``bit_probability`` for a task that is not driven by bits, or a burn-in as
            long as the trials. NotApplicableError: a cell whose activity is not a vector. CapacityError: too many units
            and members for the memory there is.

    Reference: Khajehabdollahi et al., Emergent mechanisms for long timescales depends on training curriculum and
    affects performance in memory tasks, ICLR 2024, figure 6b; participation ratio: Gao et al., A theory of
    multineuronal dimensionality, dynamics and measurement, bioRxiv 2017.

    >>> import numpy as np, poprnn as pr
    >>> shift = np.eye(8, k=-1)[None] * (np.arange(8)[None, :, None] < [[[3]], [[6]]])    # remember 3 bits, or 6
    >>> run = pr.from_arrays("n_parity", pr.cells.VanillaRNN(n_units=8, activation="identity"), {
    ...     "W": shift, "W_in": np.tile(np.eye(8, 1), (2, 1, 1)), "bias": np.zeros((2, 8))})
    >>> pr.measure("dimensionality", run, n_trials=10, n_steps=100, bit_probability=0.5).data["n_components"].values
    array([3., 6.])
    """
    pieces = _pieces(run, n_trials, n_steps, burn_in, bit_probability, seed)
    moments = _accumulate(pieces, min(N_GROUPS, n_trials))
    whole = _covariance(Moments(*(part.sum(axis=1) for part in moments)))
    eigenvalues = _eigenvalues(whole)
    with np.errstate(invalid="ignore"):  # 0 / 0 where there is no variance
        cumulative = np.cumsum(eigenvalues, axis=1) / eigenvalues.sum(axis=1, keepdims=True)
    return xr.Dataset(
        {
            "n_components": ("member", _n_components(eigenvalues, cumulative, variance)),
            "cumulative": (("member", "component"), cumulative),
            "participation_ratio": ("member", _participation_ratio(whole)),
            "participation_ratio_standard_error": ("member", _jackknife(moments)),
        },
        {"member": run.member_index, "component": np.arange(1, eigenvalues.shape[1] + 1)},
    )


def _pieces(
    run: Run, n_trials: int, n_steps: int | None, burn_in: int | None, bit_probability: float | str | None, seed: int
) -> Any:
    """Activity in pieces: driven by bits for memory tasks, on trials of its own for any other."""
    if isinstance(run.task, MemoryTask):
        steps, left_out = 500 if n_steps is None else n_steps, 100 if burn_in is None else burn_in
        probability = "uniform" if bit_probability is None else bit_probability
        return driven(run, n_trials, steps, left_out, probability, seed=seed, piece_bytes=PIECE_BYTES)
    refuse_bits("dimensionality", run, n_steps=n_steps, bit_probability=bit_probability)
    return _trials(run, n_trials, burn_in or 0, seed)


def _trials(run: Run, n_trials: int, burn_in: int, seed: int) -> Iterator[Piece]:
    """Activity in fresh trials of the task, one piece."""
    found = rollout(run, n_trials=n_trials, seed=seed)
    length = np.asarray(found.length)
    if burn_in >= length.min():
        raise ConfigurationError(
            f"dimensionality: burn_in = {burn_in}: must be less than the {length.min()} steps of "
            f"a trial of '{run.task.name()}'"
        )
    time = np.arange(found.states.shape[2])
    yield found.states, (time >= burn_in) & (time < length[:, None])


class Moments(NamedTuple):
    """Sums over samples, for each group of trials."""

    n_samples: Float[np.ndarray, "member group"]
    total: Float[np.ndarray, "member group unit"]
    product: Float[np.ndarray, "member group unit unit"]


def _accumulate(pieces: Iterable[Piece], n_groups: int) -> Moments:
    """Counts, sums and sums of products of activity in float64; trial t belongs to group ``t % n_groups``."""
    moments = None
    for states, counts in pieces:
        if states.ndim != 4:
            raise NotApplicableError("dimensionality: the activity of this cell is not one number for each unit")
        n_members, _, _, n_units = states.shape
        if moments is None:
            size = n_members * n_groups * n_units**2 * 8
            backend.require_memory(2 * size, f"the covariance of {n_units} units in {n_members} member(s)")
            moments = Moments(
                np.zeros((n_members, n_groups)),
                np.zeros((n_members, n_groups, n_units)),
                np.zeros((n_members, n_groups, n_units, n_units)),
            )
        for group in range(n_groups):
            mine = states[:, group::n_groups]
            samples = np.where(counts[:, None, :, None], mine, 0).astype(np.float64).reshape(n_members, -1, n_units)
            moments.n_samples[:, group] += counts.sum(axis=1) * mine.shape[1]
            with np.errstate(invalid="ignore", over="ignore"):  # activity may have exploded; its member gets NaN
                moments.total[:, group] += samples.sum(axis=1)
                moments.product[:, group] += np.swapaxes(samples, 1, 2) @ samples
    if moments is None:
        raise ConfigurationError("dimensionality: the rollout has no steps")
    return moments


def _covariance(moments: Moments) -> Float[np.ndarray, "member unit unit"]:
    """Covariance from sums without a group axis."""
    with np.errstate(invalid="ignore", over="ignore"):
        mean = moments.total / moments.n_samples[:, None]
        return moments.product / moments.n_samples[:, None, None] - mean[:, :, None] * mean[:, None, :]


def _eigenvalues(covariance: Float[np.ndarray, "member unit unit"]) -> Float[np.ndarray, "member unit"]:
    """From the largest to the smallest; NaN where the covariance is not finite."""
    finite = np.isfinite(covariance).all(axis=(1, 2))
    eigenvalues = np.full(covariance.shape[:2], np.nan)
    if finite.any():  # LAPACK refuses a stack for one bad member
        eigenvalues[finite] = np.maximum(np.linalg.eigvalsh(covariance[finite])[:, ::-1], 0)
    return eigenvalues


def _n_components(
    eigenvalues: Float[np.ndarray, "member unit"], cumulative: Float[np.ndarray, "member unit"], variance: float
) -> Float[np.ndarray, "member"]:
    """The smallest k whose components explain enough; a float, so that NaN can say there is no answer."""
    with np.errstate(invalid="ignore"):
        n_components = 1.0 + (cumulative < variance - TOLERANCE).sum(axis=1)
    total = eigenvalues.sum(axis=1)
    return np.where(np.isnan(total), np.nan, np.where(total == 0, 0.0, n_components))


def _participation_ratio(covariance: Float[np.ndarray, "member unit unit"]) -> Float[np.ndarray, "member"]:
    """Squared trace over squared Frobenius norm, which needs no eigenvalues."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        return np.trace(covariance, axis1=1, axis2=2) ** 2 / (covariance**2).sum(axis=(1, 2))


def _jackknife(moments: Moments) -> Float[np.ndarray, "member"]:
    """Standard error of the participation ratio: its spread when each group of trials is left out in turn."""
    n_groups = moments.n_samples.shape[1]
    if n_groups < 2:
        return np.full(len(moments.n_samples), np.nan)
    whole = [part.sum(axis=1) for part in moments]
    with np.errstate(invalid="ignore", over="ignore"):
        left = [
            Moments(*(total - part[:, group] for total, part in zip(whole, moments, strict=True)))
            for group in range(n_groups)
        ]
        without = np.stack([_participation_ratio(_covariance(one)) for one in left])
        return np.sqrt((n_groups - 1) * without.var(axis=0))
