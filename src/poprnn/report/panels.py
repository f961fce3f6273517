"""Figures that recipes are put together from: values over an axis, and values of members by group."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from poprnn.report import style
from poprnn.report.style import Drawing

Series = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Name to x and ``[member, x]``, NaN where a member has no value."""


def by_member(rows: np.ndarray, column: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Rows of single moments as the matrix that lines are drawn from.

    Args:
        rows: ``[moment, (x, member, value, …)]``: for instance a memory N, who solved it, and a mean over units then;
            at most one row for each x and member.
        column: of the value.

    Returns:
        x, without repetitions and in order, and the values ``[member, x]``, NaN where a member has no row.

    >>> x, values = by_member(np.array([[2, 0, 1.5], [3, 0, 1.6], [2, 4, 1.7]]))
    >>> x.tolist(), values.tolist()
    ([2.0, 3.0], [[1.5, 1.6], [1.7, nan]])
    """
    (x, at), (members, who) = (np.unique(rows[:, i], return_inverse=True) for i in (0, 1))
    values = np.full((len(members), len(x)), np.nan)
    values[who, at] = rows[:, column]
    return x, values


def over(
    name: str,
    series: Series,
    x: str,
    y: str,
    caption: str,
    *,
    title: str | None = None,
    log_x: bool = False,
    whole_x: bool = False,
    reference: tuple[float, str] | None = None,
    marks: Mapping[float, str] | None = None,
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> Drawing:
    """Mean (line) and SD over members (band) against a common axis, one line for each name.

    Args:
        name: of the file.
        series: what is drawn.
        x, y: labels.
        caption: the sentence below; how to read lines and bands is added.
        title: of the panel.
        log_x: logarithmic x.
        whole_x: ticks at integers only.
        reference: a value to compare with, and its label (formatted with it).
        marks: stars or words above some x.
        lines: thin lines besides, by their names (fits, say).

    >>> drawing = over("tau", {"a": (np.arange(3), np.ones((2, 3)))}, "N", "tau", "Means.")
    >>> drawing.name, drawing.caption
    ('tau', 'Means. Line and band: mean and SD over members.')
    """
    with style.look():
        figure, axes = style.panel(x, y, title=title)
        for place, (label, (at, values)) in enumerate(series.items()):
            _line(axes, np.asarray(at, float), np.asarray(values, float), place, label)
        if log_x:
            axes.set_xscale("log")
        if whole_x:
            style.whole_numbers(axes, "x")
        if reference is not None:
            style.reference(axes, *reference)
        for place, (label, (at, values)) in enumerate((lines or {}).items()):
            axes.plot(at, values, color=style.INK, linestyle=style.dash(place + 1), linewidth=0.9, label=label)
        for above, mark in (marks or {}).items():
            top = axes.get_xaxis_transform()
            axes.text(above, 1.01, mark, transform=top, ha="center", va="bottom", fontsize=7, color=style.QUIET)
        style.legend(figure)
        return style.finish(name, figure, f"{caption} Line and band: mean and SD over members.")


def _line(axes: Axes, x: np.ndarray, values: np.ndarray, place: int, label: str) -> None:
    there = np.isfinite(values)
    count = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there.any(axis=0), np.where(there, values, 0).sum(axis=0) / count, np.nan)
    spread = np.sqrt(np.where(there, (values - mean) ** 2, 0).sum(axis=0) / count)
    colour = style.colour(place)
    axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
    n = int(there.any(axis=1).sum())
    axes.plot(x, mean, color=colour, linestyle=style.dash(place), linewidth=2, marker=".", label=f"{label} (n = {n})")


def by_group(
    name: str,
    groups: Mapping[str, Mapping[str, Any]],
    y: str,
    caption: str,
    *,
    title: str | None = None,
    reference: tuple[float, str] | None = None,
) -> Drawing:
    """A dot for each value and a bar at their mean: conditions side by side, groups beside one another in each.

    >>> by_group("n", {"single": {"short": [1, 2], "long": [3]}, "multi": {"short": [2]}}, "N", "Largest.").caption
    'Largest. Dot: one value; bar: their mean.'
    """
    kinds = list(dict.fromkeys(kind for row in groups.values() for kind in row))
    step = 0.8 / len(kinds)
    with style.look():
        figure, axes = style.panel("condition", y, title=title)
        for i, row in enumerate(groups.values()):
            for j, kind in enumerate(kinds):
                values = np.asarray(row.get(kind, []), float).reshape(-1)
                values = values[np.isfinite(values)]
                at = i + (j - (len(kinds) - 1) / 2) * step
                beside = at + 0.5 * step * (np.linspace(-0.5, 0.5, len(values)) if len(values) > 1 else 0)
                dots: dict[str, Any] = {
                    "color": style.colour(j),
                    "markersize": 4 if len(values) < 30 else 2,
                    "alpha": 0.7,
                }
                axes.plot(beside * np.ones(len(values)), values, "o", label=kind if i == 0 else None, zorder=3, **dots)
                if len(values):
                    ends = [at - 0.35 * step, at + 0.35 * step]
                    axes.plot(ends, [values.mean()] * 2, color=style.INK, linewidth=1.6, zorder=4)
        axes.set_xticks(range(len(groups)), [style.wrap(label, 16) for label in groups])
        axes.set_xlim(-0.5, len(groups) - 0.5)
        if reference is not None:
            style.reference(axes, *reference)
        if len(kinds) > 1 or reference is not None:
            style.legend(figure)
        return style.finish(name, figure, f"{caption} Dot: one value; bar: their mean.")


def scatter(
    name: str,
    series: Mapping[str, tuple[np.ndarray, np.ndarray]],
    x: str,
    y: str,
    caption: str,
    *,
    title: str | None = None,
) -> Drawing:
    """One value against another, a kind of mark for each name.

    >>> scatter("weights", {"a": (np.arange(3), np.arange(3))}, "tau", "weight", "Weights.").caption
    'Weights.'
    """
    with style.look():
        figure, axes = style.panel(x, y, title=title)
        for place, (label, (at, values)) in enumerate(series.items()):
            marker = "os^D"[place % 4]
            axes.plot(at, values, marker, color=style.colour(place), markersize=4, alpha=0.7, label=label)
        style.legend(figure)
        return style.finish(name, figure, caption)


def matrix(
    name: str,
    values: np.ndarray,
    columns: np.ndarray,
    rows: np.ndarray,
    x: str,
    y: str,
    value: str,
    caption: str,
    *,
    title: str | None = None,
    limits: tuple[float, float] | None = None,
) -> Drawing:
    """A colour for each pair of numbers, ``values[row, column]``, the first row at the bottom; NaN stay blank.

    Args:
        name: of the file.
        values: what is drawn.
        columns, rows: the numbers that belong to them.
        x, y, value: labels of columns, rows and colours.
        caption: the sentence below.
        title: of the panel.
        limits: of the colours, so that several drawings can be compared.

    >>> matrix("m", np.eye(2), np.arange(2), np.arange(2), "to", "from", "accuracy", "Accuracy.").name
    'm'
    """
    low, high = limits or (None, None)
    with style.look():
        figure, axes = style.panel(x, y, title=title, height=3.6)
        picture = axes.imshow(
            np.asarray(values, float),
            aspect="auto",
            interpolation="nearest",
            origin="lower",
            cmap="viridis",
            vmin=low,
            vmax=high,
        )
        axes.grid(visible=False)
        axes.set_xticks(range(len(columns)), [f"{n:g}" for n in columns])
        axes.set_yticks(range(len(rows)), [f"{n:g}" for n in rows])
        figure.colorbar(picture, ax=axes, label=style.wrap(value, 34))
        return style.finish(name, figure, caption)
