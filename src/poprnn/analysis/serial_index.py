"""Whether information passes all at once or step by step."""

import numpy as np
import xarray as xr

from poprnn.analysis._codes import passed
from poprnn.analysis._population import Seed
from poprnn.analysis.rate_distortion import Trials
from poprnn.analysis.transmitted_information import gains, information_of, jackknife
from poprnn.core.arrays import Float
from poprnn.core.blueprint import Positive
from poprnn.training.run import Run


def serial_index(run: Run, *, n_trials: Trials = 8192, max_correction: Positive = 0.1, seed: Seed = 0) -> xr.Dataset:
    """Effective number of steps in which the input passes the bottleneck:

        index = (sum_t g_t)² / sum_t g_t²,

    g_t the information gained at step t (``transmitted_information``): 1 where all comes at one step (parallel), T
    where every step brings as much (serial). ``expected`` is the index of a bottleneck used in full until nothing is
    left, ``g_t = min(b, what remains)``: for a continuous one b = k dimensions of d, for a discrete one T, as whatever
    is sent, b bits are sent at every step.

    Args:
        run: the population, cell ``bottleneck_autoencoder`` on task ``static_vectors``.
        n_trials: vectors, the same for all members.
        max_correction: in bits, see ``transmitted_information``; discrete bottlenecks only.
        seed: changes the vectors.

    Returns:
        ``index`` (member), NaN where nothing passes or information is not known; ``index_standard_error`` (member), by
        the jackknife over 10 groups of trials; ``expected`` (a number); ``gain`` (member, time).

    Raises:
        NotApplicableError: other networks. CapacityError: too many trials for the memory there is.

    Reference: the participation ratio of the gains; our measure for the serial and parallel processing of Graetz et
    al., Exploring trade-offs between sequential and parallel computation in recurrent neural networks.

    >>> import numpy as np, poprnn as pr
    >>> cell = pr.cells.BottleneckAutoencoder(n_units=4, width=4, feedback=False, activation="identity")
    >>> run = pr.from_arrays(pr.tasks.StaticVectors(n_steps=3), cell, {"W_bottleneck": np.eye(4)})
    >>> pr.measure("serial_index", run).data["index"].values.round(2).tolist()     # the same 4 dimensions at every step
    [1.0]
    """
    found = passed("serial_index", run, n_trials, seed)

    def gain_of(codes: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        return gains(information_of(run, codes, inputs, max_correction))

    gain = gain_of(found.codes, found.inputs)
    return xr.Dataset(
        {
            "index": ("member", index_of(gain), {"long_name": "effective number of steps"}),
            "index_standard_error": ("member", jackknife(lambda c, x: index_of(gain_of(c, x)), found)),
            "expected": ((), expected_index(run)),
            "gain": (("member", "time"), gain),
        },
        {"member": run.member_index, "time": np.arange(1, gain.shape[1] + 1)},
    )


def index_of(gain: Float[np.ndarray, "... time"]) -> Float[np.ndarray, "..."]:
    """``(sum g)² / sum g²``; NaN for gains that are all 0.

    >>> index_of(np.array([[3.0, 0.0, 0.0], [1.0, 1.0, 1.0]])).tolist()
    [1.0, 3.0]
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return gain.sum(axis=-1) ** 2 / (gain**2).sum(axis=-1)


def expected_index(run: Run) -> float:
    """That of a bottleneck used in full until nothing is left."""
    task, cell = run.task, run.cell
    if cell.bottleneck != "continuous":  # type: ignore[attr-defined]
        return float(task.capacity)
    sent = np.minimum(cell.width * np.arange(task.capacity + 1), task.n_inputs)  # type: ignore[attr-defined]
    return float(index_of(np.diff(sent).astype(float)))
