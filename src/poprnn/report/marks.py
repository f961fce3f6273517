"""Marks that several figures share: lines and distributions of a population, dots with errors."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from poprnn.report import style

MAX_BINS = 50


def member_lines(axes: Axes, x: np.ndarray, values: np.ndarray, *, colour: str = style.BLUE, label: str = "median",
                 dash: Any = "-", middle: bool = True) -> None:
    """One thin line for each row of ``values`` (member, x) and, above several, a thick one for their median.

    Points that no member has are gaps in the median.
    """
    stroke = style.thin(len(values))
    dot = "." if len(x) == 1 else None
    for k, row in enumerate(values):
        alone = {"label": "one member"} if len(values) > 1 and k == 0 and middle else {}
        if len(values) == 1 and label != "median":
            alone = {"label": label}
        axes.plot(x, row, color=colour, marker=dot, rasterized=values.size > style.RASTER, **stroke, **alone)
    if len(values) > 1 and middle:
        axes.plot(x, median(values), color=colour, linewidth=2.2, linestyle=dash, label=label, marker=dot)


def median(values: np.ndarray) -> np.ndarray:
    """Median over members of the finite values in each column, NaN where there is none.

    >>> median(np.array([[1.0, np.nan], [3.0, np.nan]])).tolist()
    [2.0, nan]
    """
    out = np.full(values.shape[1], np.nan)
    for column in range(values.shape[1]):
        finite = values[np.isfinite(values[:, column]), column]
        if finite.size:
            out[column] = np.median(finite)
    return out


def bins(values: np.ndarray) -> np.ndarray:
    """Edges of equal bins for all finite values, at most fifty of them."""
    finite = values[np.isfinite(values)].astype(float)
    if not finite.size:
        return np.array([0.0, 1.0])
    low, high = float(finite.min()), float(finite.max())
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-12):
        room = 0.5 * max(abs(low), 1e-3)
        return np.linspace(low - room, low + room, 12)
    n = int(np.clip(2 * finite.size ** (1 / 3), 8, MAX_BINS))
    return np.linspace(low, high, n + 1)


def distribution(axes: Axes, values: np.ndarray, *, edges: np.ndarray, colour: str = style.BLUE,
                 label: str = "all members") -> None:
    """Histogram of the rows of ``values`` (member, unit) as thin outlines, and of all together as a filled one."""
    pooled = values[np.isfinite(values)]
    if len(values) > 1:
        stroke = style.thin(len(values))
        for row in values:
            finite = row[np.isfinite(row)]
            axes.stairs(_shares(finite, edges), edges, color=colour, **stroke)
    axes.stairs(_shares(pooled, edges), edges, color=colour, fill=True, alpha=0.22, linewidth=0)
    axes.stairs(_shares(pooled, edges), edges, color=colour, linewidth=1.8, label=label)
    axes.set_ylim(bottom=0)


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.histogram(values, edges)[0] / max(values.size, 1)


def member_dots(axes: Axes, members: np.ndarray, values: np.ndarray, *, error: np.ndarray | None = None,
                colour: str = style.BLUE, label: str | None = None, marker: str = "o") -> None:
    """A dot for each member, with its error where there is one."""
    size = 4.5 if len(members) <= 30 else 2.5
    if error is not None:
        error = np.where(np.isfinite(error), np.abs(error), 0.0)
    axes.errorbar(members, values, yerr=error, color=colour, marker=marker, markersize=size, linestyle="none",
                  elinewidth=1, label=label, clip_on=False, zorder=3)
    style.whole_numbers(axes, "x")
    axes.set_xlim(members.min() - 0.6, members.max() + 0.6)
