"""Figures that set several populations side by side: progress, largest memory solved, time constants."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from matplotlib.axes import Axes

from poprnn.analysis.contract import Result, measure
from poprnn.core.errors import ConfigurationError, NotApplicableError
from poprnn.report import curves, style
from poprnn.report.panels import by_member
from poprnn.report.results import TAU, by_memory
from poprnn.report.style import Drawing
from poprnn.training.run import Run

Runs = Mapping[str, Run]
MOST = 0.75
"""Share of the members (of the most there are at any N) without whom a mean would be one of the fastest only."""


def draw(runs: Runs) -> list[Drawing]:
    """Every comparison that makes sense for these populations; the keys of ``runs`` are the names of conditions.

    >>> import poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=8), epochs=1, steps_per_epoch=1, batch=4,
    ...              curriculum="multi_head")
    >>> [drawing.name for drawing in draw({"one": run, "other": run})]
    ['compare_progress', 'compare_largest']
    """
    out = [progress(runs), largest(runs)]
    if all("stage_000" in run.snapshots and "tau" in run.parameters.trainable for run in runs.values()):
        out += [timescales(runs, statistic="mean"), timescales(runs, statistic="std")]
    return out


def progress(runs: Runs) -> Drawing:
    """Largest memory N solved against epochs: what half of the members have reached, and the range of all.

    Args:
        runs: name of the condition to its run; all need a history.

    Raises:
        ConfigurationError: no runs. NotApplicableError: a run without history.
    """
    label = _measure(runs)
    with style.look():
        figure, axes = style.panel("epoch", label)
        for place, (name, run) in enumerate(runs.items()):
            solved, colour = curves.largest_solved(run), style.colour(place)
            epochs = np.arange(1, len(solved) + 1)
            axes.fill_between(epochs, solved.min(1), solved.max(1), step="mid", color=colour, alpha=0.2, linewidth=0)
            axes.plot(
                epochs,
                np.percentile(solved, 50, axis=1, method="higher"),
                color=colour,
                drawstyle="steps-mid",
                linestyle=style.dash(place),
                linewidth=2,
                label=f"{name} ({_members(run)})",
            )
        style.whole_numbers(axes, "x")
        style.whole_numbers(axes, "y")
        _none(axes, "y", runs)
        style.legend(figure)
        return style.finish(
            "compare_progress",
            figure,
            f"{label[0].upper()}{label[1:]} against epochs. Line: "
            "reached by half of the members; band: from the slowest member to the fastest.",
        )


def largest(runs: Runs) -> Drawing:
    """Largest memory N solved by the end, a dot for each member and a bar at their mean."""
    label = _measure(runs)
    names = list(runs)
    with style.look():
        figure, axes = style.panel(label, "condition", height=1.1 + 0.45 * len(names))
        for place, run in enumerate(runs.values()):
            solved = curves.largest_solved(run)[-1].astype(float)
            axes.plot(
                solved,
                place + _apart(solved),
                "o",
                color=style.colour(place),
                markersize=4,
                alpha=0.75,
                clip_on=False,
                zorder=3,
            )
            axes.plot([solved.mean()] * 2, [place - 0.34, place + 0.34], color=style.INK, linewidth=1.6)
        axes.set_yticks(range(len(names)), [style.wrap(name, 22) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
        style.whole_numbers(axes, "x")
        _none(axes, "x", runs)
        return style.finish(
            "compare_largest",
            figure,
            f"{label[0].upper()}{label[1:]} at the end of training. Dot: one member; bar: mean over members.",
        )


def timescales(runs: Mapping[str, Run | Result], *, statistic: Literal["mean", "std"] = "mean") -> Drawing:
    """Mean (or standard deviation) over units of the time constants against the memory N solved.

    Args:
        runs: name of the condition to its run, or to its result of ``timescales_single`` if that is at hand.
        statistic: over the units of a member.

    Raises:
        NotApplicableError: a run has kept no weights at its stages, or its cell has no time constants.
        ConfigurationError: no runs, or another statistic.
    """
    if statistic not in ("mean", "std"):
        raise ConfigurationError(f"statistic = '{statistic}': must be 'mean' or 'std'")
    _require(runs)
    lines = {name: by_memory(_single(name, run, statistic).data, f"{statistic}_by_stage") for name, run in runs.items()}
    if len({x_label for *_, x_label in lines.values()}) > 1:
        raise ConfigurationError("conditions cannot share an axis: some have memories N, others only stages")
    return _taus(lines, statistic)


def _taus(lines: Mapping[str, tuple[np.ndarray, np.ndarray, str]], statistic: str) -> Drawing:
    words = {"mean": "mean", "std": "SD"}[statistic]
    with style.look():
        figure, axes = style.panel(next(iter(lines.values()))[2], f"{words} of {TAU}")
        for place, (name, (x, values, _)) in enumerate(lines.items()):
            _band(axes, x, values, place, name)
        style.whole_numbers(axes, "x")
        style.legend(figure)
        return style.finish(
            f"compare_tau_{statistic}",
            figure,
            f"{words[0].upper()}{words[1:]} over units of their "
            "time constants when a stage was passed. Line and band: mean and SD over members, for "
            "stages that most members have passed; dotted: mean over the fewer who passed others.",
        )


def compare_curricula(runs: Runs, moments: Mapping[str, np.ndarray], moment: str = "memory N solved") -> list[Drawing]:
    """The paper's figures 3b and 4b: progress, largest memory, and time constants at given moments.

    Args:
        runs: curriculum to run, for progress and the largest memory.
        moments: curriculum to rows ``(N, member, mean tau, SD tau)``, one for each time a member solved an N. Curricula
            without rows are left out.
        moment: what N counts.

    Raises:
        ConfigurationError: rows of another shape.

    >>> import poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=8), epochs=1, steps_per_epoch=1, batch=4)
    >>> rows = np.array([[2, 0, 1.5, 0.3], [3, 0, 1.6, 0.3]])
    >>> [drawing.name for drawing in compare_curricula({"all heads": run}, {"all heads": rows})]
    ['compare_progress', 'compare_largest', 'compare_tau_mean', 'compare_tau_std']
    """
    return [progress(runs), largest(runs), *compare_taus(moments, moment)]


def compare_taus(moments: Mapping[str, np.ndarray], moment: str = "memory N solved") -> list[Drawing]:
    """Mean and SD of tau over units at the moments an N was solved, as for :func:`compare_curricula`.

    >>> [drawing.name for drawing in compare_taus({"all heads": np.array([[2, 0, 1.5, 0.3], [3, 0, 1.6, 0.3]])})]
    ['compare_tau_mean', 'compare_tau_std']
    """
    for name, rows in moments.items():
        if np.ndim(rows) != 2 or np.shape(rows)[1] != 4:
            raise ConfigurationError(f"moments of '{name}': must be rows of (N, member, mean tau, SD tau)")
    moments = {name: np.asarray(rows, float) for name, rows in moments.items() if len(rows)}
    return [
        _taus({name: (*by_member(rows, column), moment) for name, rows in moments.items()}, statistic)
        for column, statistic in ((2, "mean"), (3, "std"))
        if moments
    ]


def _single(name: str, run: Run | Result, statistic: str) -> Result:
    result = run if isinstance(run, Result) else measure("timescales_single", run, members="all")
    if f"{statistic}_by_stage" not in result.data:
        raise NotApplicableError(f"'{name}' has kept no weights at its stages (snapshots = \"stages\")")
    return result


def _band(axes: Axes, x: np.ndarray, values: np.ndarray, place: int, name: str) -> None:
    """Mean and SD over members where about as many are there as anywhere, a dotted mean elsewhere."""
    colour, there = style.colour(place), np.isfinite(values)
    count = there.sum(0)
    middle = np.where(count > 0, np.where(there, values, 0.0).sum(0) / np.maximum(count, 1), np.nan)
    spread = np.sqrt(np.where(there, (values - middle) ** 2, 0.0).sum(0) / np.maximum(count, 1))
    complete = count >= MOST * count.max()
    full = np.where(complete, middle, np.nan)
    axes.fill_between(x, full - spread, full + spread, color=colour, alpha=0.2, linewidth=0)
    axes.plot(
        x, full, color=colour, linestyle=style.dash(place), linewidth=2, marker=".", label=f"{name} (n = {count.max()})"
    )
    if not complete.all():
        axes.plot(x, middle, color=colour, linestyle=(0, (1, 1.5)), linewidth=1.2, marker=".", markersize=3, zorder=1)


def _apart(values: np.ndarray) -> np.ndarray:
    """Small offsets for values that are equal, so that each dot can be seen."""
    offset = np.zeros(len(values))
    for value in np.unique(values):
        same = np.flatnonzero(values == value)
        offset[same] = (np.arange(len(same)) - (len(same) - 1) / 2) * min(0.12, 0.6 / len(same))
    return offset


def _measure(runs: Runs) -> str:
    """What is compared: memories where all tasks have them, else stages. All runs must have a history."""
    _require(runs)
    for name, run in runs.items():
        if not len(run.history):
            raise NotApplicableError(f"'{name}' has no history: no epoch was finished, or it was brought in")
    memories = {curves.memories(run) is not None for run in runs.values()}
    if len(memories) > 1:
        raise ConfigurationError("conditions cannot share an axis: some have memories N, others only stages")
    return "largest N solved" if memories == {True} else "stages passed"


def _none(axes: Axes, which: str, runs: Runs) -> None:
    """The number before the smallest memory means that none was solved, if it means so for all conditions."""
    before = {None if (asked := curves.memories(run)) is None else int(asked.min()) - 1 for run in runs.values()}
    value = before.pop()
    if value is not None and not before:
        style.name_tick(axes, which, value, "none")


def _require(runs: Mapping[str, Run | Result]) -> None:
    if not runs:
        raise ConfigurationError("nothing to compare: give at least one run")


def _members(run: Run) -> str:
    return f"{run.n_members} member{'s' if run.n_members > 1 else ''}"
