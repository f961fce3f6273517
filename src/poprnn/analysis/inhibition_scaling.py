"""Whether a network is held together by its inhibition."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

from poprnn.analysis._population import BitProbability, Seed
from poprnn.analysis._probe import Probe, Strengths, at_memory, probe
from poprnn.analysis.connectivity import weights_of
from poprnn.cells.contract import Cell, Context, Parameters
from poprnn.core.arrays import PRNGKey
from poprnn.core.blueprint import Positive, PositiveInt
from poprnn.core.errors import NotApplicableError
from poprnn.tasks._memory import MemoryTask
from poprnn.training.run import Run

SCALES = tuple(float(x) for x in np.round(np.linspace(-0.1, 0.1, 41), 6))


def inhibition_scaling(
    run: Run,
    *,
    n: PositiveInt | None = None,
    scales: Strengths = SCALES,
    bound: Positive = 1e3,
    n_trials: PositiveInt = 10,
    n_steps: PositiveInt = 1000,
    bit_probability: BitProbability = 0.5,
    seed: Seed = 0,
) -> xr.Dataset:
    """Largest activity, and whether it explodes, with the negative recurrent weights made stronger or weaker.

        W_ij' = (1 + c) W_ij where W_ij < 0,     explodes:  max |h_i(t)| > bound  within n_steps.

    Args:
        run: the population, on a task that is driven by bits.
        n: memory N that is asked about, with the weights from when it was solved (stage snapshots); members that did
            not solve it get NaN. Default: the final weights and the newest N of each member.
        scales: values of c, below 0 for less inhibition (the paper: from -0.1 to 0.1).
        bound: of the absolute activity of any unit.
        n_trials, n_steps: sequences of random bits for each network, and their steps (the paper: 1000 steps).
        bit_probability: probability of a 1, or ``"uniform"``: one for each sequence from U(0, 1).
        seed: changes bits and first states.

    Returns:
        ``largest`` (member, scale) absolute activity, ``explodes`` (member, scale), ``mean_weight`` (member, scale)
        over possible connections, and for each member ``critical``: the c closest to 0 from below at which activity
        explodes while it is released step by step (0 if it explodes as it is, NaN if at none of the scales).

    Raises:
        NotApplicableError: the cell has no matrix of recurrent weights, the task is not driven by bits, or nobody
            solved N.

    Reference: Khajehabdollahi et al., Emergent mechanisms for long timescales depends on training curriculum and
    affects performance in memory tasks, ICLR 2024, appendix (figure S19).

    >>> import numpy as np, poprnn as pr
    >>> W = np.array([[0, 1.1, -0.2], [1.1, 0, -0.2], [1, 1, 0]])                          # held by the third unit
    >>> run = pr.from_arrays("n_parity", pr.cells.LeakyRNN(n_units=3, activation="relu", dt=1.0), {
    ...     "W": W, "tau": np.ones(3), "bias": np.zeros(3), "W_in": np.ones((3, 1))})
    >>> pr.measure("inhibition_scaling", run, scales=[-1.0, 0.0], bound=1e3).data["explodes"].values.tolist()
    [[True, False]]
    """
    if not isinstance(run.task, MemoryTask):
        raise NotApplicableError(f"inhibition_scaling: task '{run.task.name()}' is not driven by bits")
    run_, heads, reached = at_memory(run, n, "inhibition_scaling")
    W, possible = weights_of(run_)
    c = np.asarray(scales, float)
    how = Probe(n_trials, n_steps, 0, bit_probability, seed)
    largest = probe(run_, c.astype(np.float32), _change, how, heads=heads).largest
    largest = np.where(reached[:, None], largest, np.nan)
    explodes = largest > bound
    W = W / (W.shape[1] * possible)
    mean = np.maximum(W, 0).sum((1, 2))[:, None] + (1 + c) * np.minimum(W, 0).sum((1, 2))[:, None]
    return xr.Dataset(
        {
            "largest": (("member", "scale"), largest),
            "explodes": (("member", "scale"), explodes),
            "mean_weight": (("member", "scale"), np.where(reached[:, None], mean, np.nan)),
            "critical": ("member", np.where(reached, _critical(c, explodes), np.nan)),
        },
        {"member": run_.member_index, "scale": c},
    )


def _change(cell: Cell, parameters: Parameters, scale: Any, key: PRNGKey) -> Parameters:
    W = cell.prepare(parameters, Context())["W"]
    return parameters.replaced(W=jnp.where(W < 0, (1 + scale) * W, W))


def _critical(c: np.ndarray, explodes: np.ndarray) -> np.ndarray:
    """The largest c, among those not above 0, at which activity explodes."""
    released = explodes & (c <= 0)
    return np.where(released.any(axis=1), np.where(released, c, -np.inf).max(axis=1), np.nan)
