"""How well combinations are reconstructed that were never trained."""

import numpy as np
import xarray as xr

from poprnn.analysis._codes import passed, require_autoencoder
from poprnn.analysis._pairs import LEVEL, MIN_MEMBERS, N_RESAMPLES
from poprnn.analysis._population import Seed
from poprnn.analysis.rate_distortion import Trials
from poprnn.core.errors import NotApplicableError
from poprnn.training.run import Run


def compositional_error(run: Run, *, n_trials: Trials = 4096, seed: Seed = 0) -> xr.Dataset:
    """Error of the reconstruction on combinations held out of training, against that on trained ones.

    Errors are mean squared errors over the variance of the trained inputs, for both, so that they can be compared.

    Args:
        run: the population, cell ``bottleneck_autoencoder`` on ``static_vectors`` whose inputs hold something out.
        n_trials: vectors of each of the two sets, the same for all members (our choice).
        seed: changes them, and the resamples.

    Returns:
        ``error`` and ``error_standard_error`` over trials (member, combinations, time), combinations "trained" and
        "held out"; ``ratio`` (member), held out over trained at the last step; ``mean_ratio`` with its 95 % interval
        ``mean_ratio_low``, ``mean_ratio_high``, the geometric mean over members and its percentile bootstrap (NaN for
        two members or fewer). Time counts from 1.

    Raises:
        NotApplicableError: other networks, or a distribution that holds nothing out.

    Reference: future work named in Graetz et al., Exploring trade-offs between sequential and parallel computation in
    recurrent neural networks; the measure is ours.

    >>> import numpy as np, poprnn as pr
    >>> task = pr.tasks.StaticVectors(inputs=pr.distributions.Compositional(), n_steps=2)
    >>> cell = pr.cells.BottleneckAutoencoder(n_units=4)
    >>> run = pr.from_arrays(task, cell, {"W_out": np.zeros((8, 4)), "b_out": np.zeros(8)})       # always says 0
    >>> pr.measure("compositional_error", run).data["error"].values.round().tolist()
    [[[1.0, 1.0], [1.0, 1.0]]]
    """
    require_autoencoder("compositional_error", run)
    inputs = run.task.inputs  # type: ignore[attr-defined]
    try:
        other = inputs.out_of_distribution()
    except NotApplicableError as error:
        raise NotApplicableError(f"compositional_error: {error}") from None
    total = inputs.spectrum().sum()
    each = []
    for asked in (inputs, other):
        task = run.task.substitute({"inputs": asked, "shifts": ()})
        found = passed("compositional_error", run.on(task), n_trials, seed)
        each.append(((found.outputs - found.inputs[:, None]) ** 2).sum(axis=3) / total)
    errors = np.stack(each, axis=1)  # [member, combinations, trial, time]
    mean = errors.mean(axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = mean[:, 1, -1] / mean[:, 0, -1]
        log = np.log(ratio)
    low = high = np.nan
    if len(log) >= MIN_MEMBERS:
        resamples = np.random.default_rng([seed, 3]).integers(0, len(log), (N_RESAMPLES, len(log)))
        low, high = np.exp(np.quantile(log[resamples].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    axes = ("member", "combinations", "time")
    return xr.Dataset(
        {
            "error": (axes, mean, {"long_name": "error / variance"}),
            "error_standard_error": (axes, errors.std(axis=2, ddof=1) / n_trials**0.5),
            "ratio": ("member", ratio, {"long_name": "error held out / error trained"}),
            "mean_ratio": ((), float(np.exp(log.mean()))),
            "mean_ratio_low": ((), float(low)),
            "mean_ratio_high": ((), float(high)),
        },
        {"member": run.member_index, "combinations": ["trained", "held out"], "time": np.arange(1, mean.shape[2] + 1)},
    )
