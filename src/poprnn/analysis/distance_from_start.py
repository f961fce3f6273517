"""How far training has moved the weights."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.analysis._population import prepared
from poprnn.cells.contract import Cell, Parameters
from poprnn.core.errors import NotApplicableError, nearest
from poprnn.training.run import Run


def distance_from_start(run: Run, *, array: str = "W") -> xr.Dataset:
    """Frobenius distance of every member's weights from those it started from.

        distance = || W_T - W_0 ||,      per parameter: || W_T - W_0 || / number of entries of W

    with W_0 the weights before training and W_T the present ones: the final ones, or those of a snapshot
    (``run.at("stage_003")``). ``array`` is taken as the dynamics see it (our choice: masks and Dale's signs applied);
    the trained arrays one by one as they are stored.

    Args:
        run: the population, trained here.
        array: which of the cell's (prepared) arrays (the paper: the recurrent weights).

    Returns:
        ``distance`` and ``distance_per_parameter`` (member) of ``array``; the latter divides by all its entries, zeros
        included, as the paper does: it falls with the number of units even where each weight moves equally far.
        ``distance_by_array`` and ``distance_by_array_per_parameter`` (member, array) of every trained array. All in
        the units of the array; NaN where weights are not finite.

    Raises:
        NotApplicableError: no such array, or networks that were brought in, whose start is not known.

    Reference: Huang, Singh & Rajan, Measuring and controlling solution degeneracy across task-trained recurrent neural
    networks, 2024, section 3.2.2 and figure 4B.

    >>> import poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.VanillaRNN(n_units=8), members=2, epochs=1, steps_per_epoch=1, batch=4,
    ...              optimizer=pr.optimizers.Adam(learning_rate=0.5))
    >>> found = pr.measure("distance_from_start", run, members="all").data
    >>> found["distance_by_array"].sel(array="b_out").round(2).values.tolist()      # Adam's first step: 0.5 each, of 38
    [3.08, 3.08]
    """
    if "brought_in" in run.outcome:
        raise NotApplicableError("distance_from_start: networks that were brought in have no start that is known")
    trained = {name: a for name, a in run.parameters.trainable.items() if isinstance(a, np.ndarray)}
    before = {**run.initial.fixed, **run.initial.trainable}
    moved = {name: _norm(a.astype(float) - before[name]) for name, a in trained.items()}
    n_entries = {name: a[0].size for name, a in trained.items()}
    now, start = (_prepared(run, parameters, array) for parameters in (run.parameters, run.initial))
    distance = _norm(now - start)
    by_array = np.stack(list(moved.values()), axis=1) if moved else np.zeros((run.n_members, 0))
    per_parameter = by_array / np.array(list(n_entries.values()), float)
    axes = ("member", "array")
    return xr.Dataset(
        {
            "distance": ("member", distance, {"long_name": f"distance of {array} from its start"}),
            "distance_per_parameter": ("member", distance / now[0].size),
            "distance_by_array": (axes, by_array, {"long_name": "distance from the start"}),
            "distance_by_array_per_parameter": (axes, per_parameter),
        },
        {"member": run.member_index, "array": list(moved)},
    )


def _norm(change: np.ndarray) -> np.ndarray:
    """Frobenius norm for each member, NaN where it is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):  # a member's weights may have exploded
        size = np.sqrt(np.sum(change.reshape(len(change), -1) ** 2, axis=1))
    return np.where(np.isfinite(size), size, np.nan)


def _prepared(run: Run, parameters: Parameters, array: str) -> np.ndarray:
    def read(cell: Cell, arrays: dict[str, Any]) -> dict[str, Any]:
        known = [name for name, a in arrays.items() if hasattr(a, "shape")]
        if array not in known:
            raise NotApplicableError(
                f"distance_from_start: cell '{cell.name()}' has no array '{array}'{nearest(array, known)}; "
                "choose with array"
            )
        return {"array": arrays[array]}

    return prepared(run, parameters, read)["array"]
