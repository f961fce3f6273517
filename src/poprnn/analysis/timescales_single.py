"""The time constants that training gave to single units."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.analysis._population import by_stage, prepared, smallest_dt
from poprnn.cells.contract import Cell, Parameters
from poprnn.core.arrays import Float
from poprnn.core.blueprint import Positive
from poprnn.core.errors import NotApplicableError
from poprnn.training.run import Run


def timescales_single(run: Run, *, dt: Positive | None = None) -> xr.Dataset:
    """Time constant of every unit as the dynamics see it, and its statistics over the units of a member.

    The forward pass holds tau above a minimum (``tau_min`` of the cell, or the integration step), so what acts is

        tau_i = max(tau_i trained, minimum) = dt / alpha_i,

    with ``alpha`` as the cell itself prepares it. These are the timescales of units alone, without their network;
    those of the activity are another analysis (``autocorrelation_timescales``).

    Args:
        run: the population.
        dt: integration step at which the minimum is taken, in the units of tau. Default: the smallest that the task
            draws (Khajehabdollahi et al., appendix B), or the cell's own. It matters only where tau falls below it.

    Returns:
        ``tau`` (member, unit), in the units of the cell's dt; over units ``mean``, ``std`` (divided by the number of
        units), ``median``, ``max`` and ``standard_error`` of the mean (member), which is NaN for a single unit.
        With stage snapshots also ``mean_by_stage`` and ``std_by_stage`` (stage, member), taken when the stage was
        passed and NaN for members that did not pass it, with coordinates ``stage`` (counted from 0) and, for memory
        tasks, ``n``: the memory N that was solved, (stage) or, where members differ in their curriculum, (stage,
        member).

    Raises:
        NotApplicableError: the cell has no time constant for each unit.

    Reference: Khajehabdollahi et al., Emergent mechanisms for long timescales depends on training curriculum and
    affects performance in memory tasks, ICLR 2024, figure 4.

    >>> import numpy as np, poprnn as pr
    >>> run = pr.from_arrays("n_parity", pr.cells.LeakyRNN(n_units=4), {"tau": np.array([0.5, 1, 2, 4])})
    >>> answer = pr.measure("timescales_single", run).data
    >>> answer["tau"].values.tolist(), answer["mean"].values.tolist()               # held at dt = 1 from below
    ([[1.0, 1.0, 2.0, 4.0]], [2.0])
    """
    arrays = {**run.parameters.fixed, **run.parameters.trainable}
    if "tau" not in arrays or np.ndim(arrays["tau"]) != 2 or not hasattr(run.cell, "dt"):
        raise NotApplicableError(f"timescales_single: the units of cell '{run.cell.name()}' have no time constants")
    dt = dt if dt is not None else smallest_dt(run)
    tau = _tau(run, run.parameters, dt)
    n_units = tau.shape[1]
    spread = tau.std(axis=1)
    # std / sqrt(n - 1) with the std that divides by n is the usual error with the one that divides by n - 1
    error = spread / np.sqrt(n_units - 1) if n_units > 1 else np.full_like(spread, np.nan)
    stages, coordinates = by_stage(run, lambda parameters: _statistics(_tau(run, parameters, dt)))
    return xr.Dataset(
        {
            "tau": (("member", "unit"), tau),
            "mean": ("member", tau.mean(axis=1)),
            "std": ("member", spread),
            "median": ("member", np.median(tau, axis=1)),
            "max": ("member", tau.max(axis=1)),
            "standard_error": ("member", error),
            **stages,
        },
        {"member": run.member_index, "unit": np.arange(n_units), **coordinates},
    )


def _tau(run: Run, parameters: Parameters, dt: float | None) -> Float[np.ndarray, "member unit"]:
    def read(cell: Cell, arrays: dict[str, Any]) -> dict[str, Any]:
        if "alpha" not in arrays:
            raise NotApplicableError(f"timescales_single: cell '{cell.name()}' prepares no alpha = dt / tau")
        step = cell.dt if dt is None else dt  # type: ignore[attr-defined]
        return {"tau": step / arrays["alpha"]}

    return prepared(run, parameters, read, dt=dt)["tau"]


def _statistics(tau: Float[np.ndarray, "member unit"]) -> dict[str, Float[np.ndarray, "member"]]:
    return {"mean": tau.mean(axis=1), "std": tau.std(axis=1)}
