"""Marks that several figures share: lines and distributions of a population, dots with errors."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from poprnn.report import style

MAX_BINS = 50


def member_lines(
    axes: Axes,
    x: np.ndarray,
    values: np.ndarray,
    *,
    colour: str = style.BLUE,
    middle: str = style.INK,
    label: str = "median",
    dash: Any = "-",
) -> None:
    """One thin line for each row of ``values`` (member, x) and, above several, a thick one for their median.

    The median (in the colour ``middle``) goes only as far as half of the members have a value; the rest would be a
    median of the best.
    """
    dot = "." if len(x) <= 20 else None
    if len(values) == 1:
        axes.plot(x, values[0], color=colour, marker=dot, linestyle=dash, label=None if label == "median" else label)
        return
    enough = 2 * np.isfinite(values).sum(0) >= len(values)
    thick = {"color": middle, "linewidth": 2.2, "linestyle": dash, "marker": "." if enough.sum() == 1 else None}
    axes.plot(x, np.where(enough, median(values), np.nan), label=label, zorder=3, **thick)
    stroke = style.thin(len(values))
    for row in values:
        axes.plot(x, row, color=colour, marker=dot, markersize=3, rasterized=values.size > style.RASTER, **stroke)
    axes.add_line(style.member_key(colour))


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


def distribution(
    axes: Axes, values: np.ndarray, *, edges: np.ndarray, colour: str = style.BLUE, label: str = "all members"
) -> None:
    """Histogram of all of ``values`` (member, unit), filled, and of each member as a thin outline.

    Above twenty members a pale band from the lowest to the highest outline stands for all of them. Ends at y = 0;
    call :func:`from_zero` when all is drawn.
    """
    rows = np.stack([_shares(row, edges) for row in values])
    if 1 < len(rows) <= 20:
        for row in rows:
            axes.stairs(row, edges, color=colour, **style.thin(len(rows)))
    elif len(rows) > 20:
        axes.stairs(rows.max(0), edges, baseline=rows.min(0), color=colour, fill=True, alpha=0.15, linewidth=0)
    pooled = _shares(values, edges)
    axes.stairs(pooled, edges, color=colour, fill=True, alpha=0.22, linewidth=0)
    axes.stairs(pooled, edges, color=colour, linewidth=1.8, label=label)


def distribution_words(n_members: int) -> str:
    """How to read :func:`distribution`, for a caption."""
    if n_members == 1:
        return ""
    return " Filled: all members together; " + (
        "pale band: from the lowest to the highest of them." if n_members > 20 else "thin outlines: one each."
    )


def from_zero(axes: Axes) -> None:
    """Let y begin at 0."""
    axes.set_ylim(bottom=0)


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    finite = values[np.isfinite(values)]
    return np.histogram(finite, edges)[0] / max(finite.size, 1)


def member_dots(
    axes: Axes,
    members: np.ndarray,
    values: np.ndarray,
    *,
    error: np.ndarray | None = None,
    colour: str = style.BLUE,
    label: str | None = None,
    marker: str = "o",
) -> None:
    """A dot for each member, with its error where there is one."""
    size = 4.5 if len(members) <= 30 else 2.5
    if error is not None:
        error = np.where(np.isfinite(error), np.abs(error), 0.0)
    axes.errorbar(
        members,
        values,
        yerr=error,
        color=colour,
        marker=marker,
        markersize=size,
        linestyle="none",
        elinewidth=1,
        label=label,
        clip_on=False,
        zorder=3,
    )
    style.whole_numbers(axes, "x")
    axes.set_xlim(members.min() - 0.6, members.max() + 0.6)
