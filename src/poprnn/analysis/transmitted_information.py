"""How much of the input has passed the bottleneck by each step."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from poprnn.analysis._codes import Entropy, Passed, effective_dimensions, passed, symbols_of, word_entropy, words
from poprnn.analysis._population import Seed
from poprnn.analysis.rate_distortion import Trials
from poprnn.core.arrays import Float
from poprnn.core.blueprint import Positive
from poprnn.training.run import Run

N_GROUPS = 10
"""Groups of trials for the jackknife."""


def transmitted_information(
    run: Run, *, n_trials: Trials = 8192, max_correction: Positive = 0.1, seed: Seed = 0
) -> xr.Dataset:
    """Information about the input in all that has passed the bottleneck by step t.

    Discrete bottlenecks: codes follow from the input without chance, so that ``I(x; z_1 … z_t) = H(z_1 … z_t)``, in
    bits, estimated from the words that occur, with Miller's correction ``(n_words - 1) / (2 n ln 2)``. Where the
    correction exceeds ``max_correction`` there are too few trials for so many words, and the answer is NaN.

    Continuous bottlenecks: a noiseless real number has no finite information; instead the effective dimensions
    ``d (1 - e(t))``, e(t) the error over variance of a linear decoder refitted by least squares on z_1 … z_t.

    Args:
        run: the population, cell ``bottleneck_autoencoder`` on task ``static_vectors``.
        n_trials: vectors, the same for all members (our choice).
        max_correction: in bits (our choice); discrete bottlenecks only.
        seed: changes the vectors.

    Returns:
        ``information`` and ``information_standard_error`` (member, time); ``gain`` (member, time), that of each step,
        not below 0; ``rate`` (member), information per step at the last one; for discrete bottlenecks also ``n_words``
        and ``correction`` (member, time), ``capacity`` (bits a step, k log2 c) and ``efficiency`` (member), rate over
        capacity. Standard errors by the jackknife over 10 groups of trials. The attribute ``unit`` is "bits" or
        "dimensions". Time counts from 1.

    Raises:
        NotApplicableError: other networks. CapacityError: too many trials for the memory there is.

    References: Miller, Note on the bias of information estimates, 1955; Graetz et al., Exploring trade-offs between
    sequential and parallel computation in recurrent neural networks.

    >>> import numpy as np, poprnn as pr
    >>> cell = pr.cells.BottleneckAutoencoder(n_units=4, width=1, bottleneck="binary", feedback=False)
    >>> zero = {"b_encoder": np.zeros(4), "b_bottleneck": np.zeros(1)}
    >>> run = pr.from_arrays(pr.tasks.StaticVectors(n_steps=2), cell, zero)
    >>> found = pr.measure("transmitted_information", run).data      # a sign, and once more the same sign
    >>> found["information"].values.round(2).tolist(), found["gain"].values.round(2).tolist()
    ([[1.0, 1.0]], [[1.0, 0.0]])
    """
    cell: Any = run.cell
    found = passed("transmitted_information", run, n_trials, seed)
    information = information_of(run, found.codes, found.inputs, max_correction)
    n_steps = information.shape[1]
    error = jackknife(lambda codes, inputs: information_of(run, codes, inputs, max_correction), found)
    unit = "dimensions" if cell.bottleneck == "continuous" else "bits"
    variables: dict[str, Any] = {
        "information": (("member", "time"), information, {"units": unit}),
        "information_standard_error": (("member", "time"), error),
        "gain": (("member", "time"), gains(information), {"units": unit}),
        "rate": ("member", information[:, -1] / n_steps, {"units": f"{unit} a step"}),
    }
    if cell.bottleneck != "continuous":
        entropies = _entropies(run, found.codes)
        variables |= {
            "n_words": (("member", "time"), entropies.n_words),
            "correction": (("member", "time"), entropies.correction),
            "capacity": ((), cell.capacity_bits),
            "efficiency": ("member", information[:, -1] / n_steps / cell.capacity_bits),
        }
    return xr.Dataset(variables, {"member": run.member_index, "time": np.arange(1, n_steps + 1)}, {"unit": unit})


def information_of(
    run: Run,
    codes: Float[np.ndarray, "member trial time code"],
    inputs: Float[np.ndarray, "trial input"],
    max_correction: float,
) -> Float[np.ndarray, "member time"]:
    """In bits or effective dimensions, by the kind of the run's bottleneck."""
    cell: Any = run.cell
    if cell.bottleneck == "continuous":
        return effective_dimensions(codes, inputs)
    entropy = _entropies(run, codes)
    return np.where(entropy.correction <= max_correction, entropy.bits, np.nan)


def _entropies(run: Run, codes: Float[np.ndarray, "member trial time code"]) -> Entropy:
    """Of the words at every step, ``[member, time]``."""
    number = words(symbols_of(run, codes))
    each = [word_entropy(number[:, :, step]) for step in range(number.shape[2])]
    return Entropy(*(np.stack(part, axis=1) for part in zip(*each, strict=True)))


def gains(information: Float[np.ndarray, "member time"]) -> Float[np.ndarray, "member time"]:
    """What every step adds, not below 0: what was sent stays sent, less is an error of the estimate."""
    return np.maximum(np.diff(information, axis=1, prepend=0.0), 0)


def jackknife(estimate: Callable[[np.ndarray, np.ndarray], np.ndarray], found: Passed) -> np.ndarray:
    """Standard error of an estimate from codes and inputs: its spread when each group of trials is left out in turn."""
    n = min(N_GROUPS, len(found.inputs) // 2)
    group = np.arange(len(found.inputs)) % n
    left = np.stack([estimate(found.codes[:, group != g], found.inputs[group != g]) for g in range(n)])
    if n < 2:
        return np.full(left.shape[1:], np.nan)
    return np.sqrt((n - 1) / n * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
