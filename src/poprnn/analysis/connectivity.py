"""How strongly the units of a network excite and inhibit one another."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.analysis._population import by_stage, prepared
from poprnn.cells.contract import Cell, Parameters
from poprnn.core.arrays import Float
from poprnn.core.errors import NotApplicableError
from poprnn.training.run import Run

Weights = Float[np.ndarray, "member unit unit"]


def connectivity(run: Run) -> xr.Dataset:
    """Mean incoming recurrent weight of every unit, its positive and negative parts, and the spectral radius of W.

    Of the weights as the dynamics see them (no diagonal where units do not connect to themselves, Dale's signs),

        mean_i = (1/m) sum_j W_ij,   positive_i = (1/m) sum_j max(W_ij, 0),   negative_i = (1/m) sum_j min(W_ij, 0),

    with m the number of possible incoming connections: the n units, less one (n - 1) in cells without
    self-connections, so ``mean = positive + negative``. W_ij leads from unit j to unit i.

    Args:
        run: the population.

    Returns:
        ``mean``, ``positive``, ``negative`` (member, unit), in the units of W. For each member ``population_mean``,
        ``population_positive``, ``population_negative`` (means over units), ``standard_error`` of the first over
        units (NaN for a single unit), ``positive_fraction`` (of the possible connections), ``spectral_radius``
        (largest absolute eigenvalue of W, computed in float64; NaN where W is not finite). With stage snapshots the
        three population means also at every stage, ``mean_by_stage``, ``positive_by_stage``, ``negative_by_stage``
        (stage, member), NaN for members that did not pass the stage; coordinates as in ``timescales_single``.

    Raises:
        NotApplicableError: the cell has no one matrix of recurrent weights (a GRU, say).

    Reference: Khajehabdollahi et al., Emergent mechanisms for long timescales depends on training curriculum and
    affects performance in memory tasks, ICLR 2024, figure 6a.

    >>> import numpy as np, poprnn as pr
    >>> run = pr.from_arrays("n_parity", pr.cells.LeakyRNN(n_units=3), {
    ...     "W": np.array([[9, 1, -3], [0, 9, 2], [4, 2, 9]])})
    >>> weights = pr.measure("connectivity", run).data                             # W_ii is 0 in the dynamics
    >>> weights["mean"].values.tolist(), weights["negative"].values.tolist()
    ([[-1.0, 1.0, 3.0]], [[-1.5, 0.0, 0.0]])
    """
    W, possible = weights_of(run)
    n_units = W.shape[1]
    with np.errstate(invalid="ignore"):  # weights brought in may be infinite; their member gets NaN
        unit = _parts(W, possible)
        population = {name: values.mean(axis=1) for name, values in unit.items()}
        error = unit["mean"].std(axis=1) / np.sqrt(n_units - 1) if n_units > 1 else np.full(run.n_members, np.nan)
    stages, coordinates = by_stage(
        run,
        lambda parameters: {
            name: values.mean(axis=1) for name, values in _parts(_weights(run, parameters), possible).items()
        },
    )
    return xr.Dataset(
        {
            **{name: (("member", "unit"), values) for name, values in unit.items()},
            **{f"population_{name}": ("member", values) for name, values in population.items()},
            "standard_error": ("member", error),
            "positive_fraction": ("member", (W > 0).sum(axis=(1, 2)) / (n_units * possible)),
            "spectral_radius": ("member", _spectral_radius(W)),
            **stages,
        },
        {"member": run.member_index, "unit": np.arange(n_units), **coordinates},
    )


def weights_of(run: Run) -> tuple[Weights, int]:
    """Recurrent weights as the dynamics see them, and the number of possible connections into a unit."""
    W = _weights(run, run.parameters)
    return W, _possible(run.cell, W.shape[1])


def _possible(cell: Cell, n_units: int) -> int:
    """Connections that can enter a unit; a cell that does not speak of self-connections has them."""
    return n_units if getattr(cell, "self_connection", True) else max(n_units - 1, 1)


def _weights(run: Run, parameters: Parameters) -> Weights:
    def read(cell: Cell, arrays: dict[str, Any]) -> dict[str, Any]:
        shape = getattr(arrays.get("W"), "shape", ())
        if len(shape) != 2 or shape[0] != shape[1]:
            raise NotApplicableError(f"connectivity: cell '{cell.name()}' has no square matrix W of recurrent weights")
        return {"W": arrays["W"]}

    return prepared(run, parameters, read)["W"]


def _parts(W: Weights, possible: int) -> dict[str, Float[np.ndarray, "member unit"]]:
    """Mean over the possible incoming connections, of all weights, the positive and the negative ones."""
    return {
        "mean": W.sum(axis=2) / possible,
        "positive": np.maximum(W, 0).sum(axis=2) / possible,
        "negative": np.minimum(W, 0).sum(axis=2) / possible,
    }


def _spectral_radius(W: Weights) -> Float[np.ndarray, "member"]:
    finite = np.isfinite(W).all(axis=(1, 2))
    radius = np.full(len(W), np.nan)
    if finite.any():  # LAPACK refuses a stack for one bad member
        radius[finite] = np.abs(np.linalg.eigvals(W[finite])).max(axis=1)
    return radius
