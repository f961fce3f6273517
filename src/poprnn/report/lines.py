"""How the values of a population are drawn against epochs."""

import dataclasses
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from poprnn.report import style
from poprnn.training.run import Run

EVERYONE = "from the slowest member to the fastest"


@dataclasses.dataclass(frozen=True)
class Group:
    """Members drawn in one colour."""

    label: str
    colour: str
    middle: str
    """Colour of their median."""
    dash: Any
    members: np.ndarray


def groups_of(run: Run) -> list[Group]:
    """All members together; or by value, where a single hyperparameter takes two to six values."""
    everyone = np.arange(run.n_members)
    varied = {name: values for name, values in run.varied.items() if len(np.unique(values)) > 1}
    if len(varied) == 1:
        ((name, values),) = varied.items()
        distinct = np.unique(values)
        if len(distinct) <= len(style.SERIES):
            return [
                Group(
                    f"{style.words(name.rsplit('.', 1)[-1])} {value:g}",
                    style.colour(i),
                    style.colour(i),
                    style.dash(i),
                    np.flatnonzero(values == value),
                )
                for i, value in enumerate(distinct)
            ]
    return [Group("median", style.BLUE, style.INK, "-", everyone)]


def lines(axes: Axes, run: Run, values: np.ndarray, *, worst: float, threshold: float | None = None) -> None:
    """Thin lines for members, a thick one for the median, marks where members ended, the legend below.

    A member that has ended counts in the median with its last value; one that diverged with ``worst``.
    """
    epochs, groups, held = np.arange(1, len(values) + 1), groups_of(run), held_values(values, run, worst)
    dot = "." if len(epochs) == 1 else None
    look = {"marker": dot, "rasterized": values.size > style.RASTER, **style.thin(run.n_members)}
    for group in groups:
        for k in group.members:
            axes.plot(epochs, values[:, k], color=group.colour, **look)
        if len(group.members) > 1:
            middle = np.median(held[:, group.members], axis=1)
            axes.plot(
                epochs,
                np.where(np.isfinite(middle), middle, np.nan),
                color=group.middle,
                linewidth=2.2,
                linestyle=group.dash,
                label=group.label,
                marker=dot,
            )
        elif len(groups) > 1:
            axes.plot([], [], color=group.colour, label=group.label)
    _ends(axes, run, values, edge=1 if worst > 0 else 0)
    if threshold is not None:
        style.reference(axes, threshold, "to be exceeded: {:g}")
    _frame(axes, run, "one member")


def steps(axes: Axes, run: Run, held: np.ndarray) -> str:
    """The same for whole numbers: lines a little apart, or for many members a band. Returns how to read them."""
    epochs, groups = np.arange(1, len(held) + 1), groups_of(run)
    many = run.n_members > 20
    shift = np.linspace(-0.18, 0.18, run.n_members) if run.n_members > 1 and not many else np.zeros(run.n_members)
    there = np.where(np.isfinite(run.history["loss"]), held, np.nan) + shift
    dot = "." if len(epochs) == 1 else None
    look: dict[str, Any] = {"marker": dot, "drawstyle": "steps-mid"}
    for group in groups:
        mine = held[:, group.members]
        for k in [] if many else group.members:
            axes.plot(epochs, there[:, k], color=group.colour, **look, **style.thin(run.n_members))
        if many:
            axes.fill_between(epochs, mine.min(1), mine.max(1), step="mid", color=group.colour, alpha=0.18, linewidth=0)
        if len(group.members) > 1:
            middle = np.percentile(mine, 50, axis=1, method="higher")
            axes.plot(
                epochs, middle, color=group.middle, linewidth=2.2, linestyle=group.dash, label=group.label, **look
            )
        elif len(groups) > 1:
            axes.plot([], [], color=group.colour, label=group.label)
    if not many:
        _ends(axes, run, there, edge=0)
    style.whole_numbers(axes, "y")
    _frame(axes, run, EVERYONE if many else "one member")
    if run.n_members == 1:
        return ""
    return (
        " Thick: reached by half of the members"
        + (" alike" if len(groups) > 1 else "")
        + "; "
        + ("band: all members." if many else "thin: one member each, drawn a little apart.")
    )


def _frame(axes: Axes, run: Run, members: str) -> None:
    """Limits, ticks and legend that all training curves share."""
    n_epochs, groups = len(run.history), groups_of(run)
    style.whole_numbers(axes, "x")
    axes.set_xlim(0.5, n_epochs + 0.5)
    handles = axes.get_legend_handles_labels()[0]
    if run.n_members > 1:
        colour = style.BLUE if len(groups) == 1 else style.QUIET
        key = (
            Patch(color=colour, alpha=0.18, linewidth=0, label=members)
            if members == EVERYONE
            else style.member_key(colour, members)
        )
        handles.insert(len(groups), key)
    style.legend(axes.figure, handles=handles)


def _ends(axes: Axes, run: Run, values: np.ndarray, *, edge: int) -> None:
    """A dot where a member solved the task, a cross where it diverged (at the lower or upper edge without a value)."""
    marks = {"solved": ("o", style.GREEN, 4), "diverged": ("x", style.INK, 6)}
    border = axes.get_ylim()[edge]
    for word, (marker, colour, size) in marks.items():
        members = [k for k in range(run.n_members) if run.outcome[k] == word]
        if not members:
            continue
        last = [_last(values[:, k]) for k in members]
        heights = [border if at is None else values[at, k] for at, k in zip(last, members, strict=True)]
        axes.plot(
            [1 if at is None else at + 1 for at in last],
            heights,
            marker,
            color=colour,
            markersize=size,
            markeredgewidth=1.4,
            linestyle="none",
            label=word,
            clip_on=False,
            zorder=4,
        )


def _last(line: np.ndarray) -> int | None:
    """Place of the last finite value."""
    finite = np.flatnonzero(np.isfinite(line))
    return int(finite[-1]) if finite.size else None


def held_values(values: np.ndarray, run: Run, worst: float | None) -> np.ndarray:
    """Values with gaps at the end filled by the last one before, or by ``worst`` for members that diverged."""
    held = values.astype(float)
    for k, word in enumerate(run.outcome):
        at = _last(values[:, k])
        if word == "diverged" or at is None:
            held[0 if at is None else at + 1 :, k] = worst
        else:
            held[at + 1 :, k] = held[at, k]
    return held


def explain(run: Run) -> str:
    """The part of a caption that says how to read the lines."""
    if run.n_members == 1:
        return ""
    groups = groups_of(run)
    text = " Thin: one member each; thick: median" + (" of those alike." if len(groups) > 1 else " over members.")
    ended = np.isnan(run.history["loss"][-1]).any()
    return text + (" A member that has ended counts with its last value, one that diverged as worst." if ended else "")
