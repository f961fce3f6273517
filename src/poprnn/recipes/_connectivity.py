"""What is read off the answers of ``connectivity_and_dimensionality``, for its verdicts and for its figures."""

import numpy as np
import xarray as xr

from poprnn.recipes._timescales import rows_of


def by_stage(answers: dict[str, xr.Dataset], name: str, variable: str) -> np.ndarray:
    """Rows (N, member, value) of a variable over stages; none where no stage was passed."""
    found, variable = answers[name], f"{variable}_by_stage"
    return rows_of(found[[variable]].swap_dims(stage="n"), variable) if variable in found else np.zeros((0, 3))


def borne(found: xr.Dataset) -> xr.DataArray:
    """|c| at which activity explodes; the range's end where it does not, NaN for members that did not get there."""
    end = -float(found["scale"].min())
    there = found["mean_weight"].notnull().any("scale")
    critical: xr.DataArray = found["critical"]
    return abs(critical).fillna(end).where(there)


def inhibition_and_tau(answers: dict[str, xr.Dataset], label: str) -> np.ndarray:
    """Rows (N, member, inhibition, mean tau)."""
    negative, tau = by_stage(answers, f"{label}/weights", "negative"), by_stage(answers, f"{label}/tau", "mean")
    if len(negative) != len(tau):
        return np.zeros((0, 4))
    return np.column_stack([negative[:, :2], -negative[:, 2], tau[:, 2]])
