"""How fast activity changes: slowly in networks that sit in attractors."""

import numpy as np
import xarray as xr

from poprnn.analysis._population import Seed
from poprnn.core.arrays import Bool, Float, Int
from poprnn.core.blueprint import PositiveInt
from poprnn.training.rollout import rollout
from poprnn.training.run import Run


def attractorness(run: Run, *, n_trials: PositiveInt = 64, seed: Seed = 0) -> xr.Dataset:
    """Normalised speed of change of the units' activity; the lower, the more attractor-like the dynamics.

        speed(t) = || h(t+1) - h(t) || / ( (1/T) sum_{t=1}^{T} || h(t) || ),

    with h(1) … h(T) the activity after each of the T steps of a trial and ``|| ||`` over units; averaged over the T - 1
    changes of a trial (the paper leaves t open; our choice), then over trials. 0 for a state that stays; 2 sin(a/2) for
    one that turns by the angle a a step; about sqrt(2) for independent states around zero.

    Args:
        run: the population; every member runs fresh trials of its task, at the stage it has reached.
        n_trials: trials for each member (the paper: its training set; 64 is our choice).
        seed: changes trials, start and noise.

    Returns:
        ``attractorness`` (member), the mean speed, a pure number; ``attractorness_standard_error`` (member), over
        trials, NaN for one; ``by_trial`` (member, trial). A trial without any activity, of one step only, or whose
        activity is not finite is NaN, and left out of the mean.

    Raises:
        CapacityError: too many units, steps and trials for the memory there is.

    Reference: Huang, Singh & Rajan, Measuring and controlling solution degeneracy across task-trained recurrent neural
    networks, 2024, appendix B and figure A1.

    >>> import numpy as np, poprnn as pr
    >>> a = 2 * np.pi / 6
    >>> turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    >>> cell = pr.cells.LeakyRNN(n_units=2, activation="identity", self_connection=True, state_start=1.0)
    >>> run = pr.from_arrays(pr.tasks.NParity(n_max=2), cell, {
    ...     "W": turn[None], "W_in": np.zeros((1, 2, 1)), "bias": np.zeros((1, 2)), "tau": np.ones((1, 2))})
    >>> pr.measure("attractorness", run).data["attractorness"].values.round(5).tolist()      # 2 sin(30°)
    [1.0]
    """
    found = rollout(run, n_trials=n_trials, seed=seed)
    length = np.asarray(found.length)
    states = found.states.reshape(*found.states.shape[:3], -1)
    exists = np.arange(states.shape[2]) < length[:, None]
    speed = _speed(states, exists, length)
    known = np.isfinite(speed)
    n = known.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 where no trial has a speed
        mean = np.where(known, speed, 0).sum(axis=1) / n
        variance = (np.where(known, speed - mean[:, None], 0) ** 2).sum(axis=1) / (n - 1)
        error = np.where(n > 1, np.sqrt(variance / n), np.nan)
    return xr.Dataset(
        {
            "attractorness": ("member", mean, {"long_name": "normalised speed of change"}),
            "attractorness_standard_error": ("member", error),
            "by_trial": (("member", "trial"), speed, {"long_name": "normalised speed of change"}),
        },
        {"member": run.member_index},
    )


def _speed(
    states: Float[np.ndarray, "member trial time unit"],
    exists: Bool[np.ndarray, "member time"],
    length: Int[np.ndarray, "member"],
) -> Float[np.ndarray, "member trial"]:
    """Mean size of the change over mean size of the state, over the steps that exist."""
    counts = exists[:, None, :]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # no activity, or exploded
        change = np.where(counts[..., 1:], _size(np.diff(states, axis=2)), 0).sum(axis=2) / (length[:, None] - 1)
        size = np.where(counts, _size(states), 0).sum(axis=2) / length[:, None]
        speed = change / size
    return np.where(np.isfinite(speed), speed, np.nan)


def _size(vectors: Float[np.ndarray, "... unit"]) -> Float[np.ndarray, "..."]:
    """Euclidean norm, summed in float64."""
    return np.sqrt(np.einsum("...u,...u->...", vectors, vectors, dtype=np.float64))
