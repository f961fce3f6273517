"""Figures of Soo, Goudar & Wang (NeurIPS 2023) in the paper's arrangement."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from poprnn.recipes._long_dependencies import CRITERION, DELAYED, METHODS, mean_curve
from poprnn.report import style
from poprnn.report.style import Drawing

COSTS = {
    "n_steps": (1e4, "steps (10,000)"),
    "seconds": (1e4, "time on the clock (10,000 s)"),
    "operations": (1e13, "operations of training, all members (1e13)"),
}
"""By cost: its unit in the table, and its words."""
POINTS = 400
"""Of a curve; more cannot be told apart."""
ORDER = ("dmc", "dnmc", "dnms", "dms", "ctxdlydm1", "dlydm1", "multsendlydm", "dlyanti", "dlygo")
"""Rows of the paper's table."""


def _rank(known: tuple[str, ...]) -> Any:
    return lambda name: (known.index(name) if name in known else len(known), name)


def draw_table(cells: Mapping[tuple[str, str], float], cost: str) -> Drawing:
    """Table 1: a number for each task and method, coloured by its ratio to the row's smallest; blank where not filled.

    >>> draw_table({("dms", "control"): 13_240.0, ("dlygo", "control"): float("inf")}, "n_steps").name
    'table_n_steps'
    """
    unit, words = COSTS[cost]
    tasks = sorted({t for t, _ in cells}, key=_rank(ORDER))
    methods = sorted({m for _, m in cells}, key=_rank(METHODS))
    values = np.array([[cells.get((t, m), np.nan) for m in methods] for t in tasks]) / unit
    finite = np.where(np.isfinite(values), values, np.nan)
    best = np.array([row[np.isfinite(row)].min() if np.isfinite(row).any() else np.nan for row in finite])
    with style.look():
        figure, axes = style.panel("training method", "task", title=words, height=1.2 + 0.3 * len(tasks))
        shade = np.log10(finite / best[:, None])
        axes.imshow(shade, aspect="auto", cmap="Blues", vmin=0, vmax=2, interpolation="nearest")
        axes.grid(visible=False)
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value):
                text = f"{value:.3g}" if np.isfinite(value) else "failed"
                weight = "bold" if value == best[row] else "normal"
                axes.text(column, row, text, ha="center", va="center", fontsize=8, fontweight=weight, color=style.INK)
        axes.set_xticks(range(len(methods)), methods)
        axes.set_yticks(range(len(tasks)), tasks)
        caption = (
            "To the criterion, each method at the setting that needs the fewest steps. Bold: smallest of the row; "
            "darker: a larger multiple of it, up to 100; failed: not within the budget; blank: not trained."
        )
        return style.finish(f"table_{cost}", figure, caption)


def draw_curves(table: Mapping[tuple[str, str], list[xr.Dataset]]) -> list[Drawing]:
    """Figure 1B for every task: performance against training steps, a line for each method (its first setting)."""
    return [_curves(task, table) for task in sorted({t for t, _ in table}, key=_rank(ORDER))]


def _curves(task: str, table: Mapping[tuple[str, str], list[xr.Dataset]]) -> Drawing:
    with style.look():
        figure, axes = style.panel("training step", "performance", title=task)
        for name in sorted({m for t, m in table if t == task}, key=_rank(METHODS)):
            answer = table[task, name][0]
            curve = mean_curve(answer)
            low, high = (np.nanpercentile(np.nan_to_num(answer["performance"].values), q, axis=1) for q in (10, 90))
            shown = np.unique(np.linspace(0, len(curve) - 1, POINTS).astype(int))
            steps, place = answer["n_steps"].values[shown], METHODS.index(name) if name in METHODS else len(METHODS)
            look = {"color": style.colour(place), "linestyle": style.dash(place)}
            axes.fill_between(steps, low[shown], high[shown], color=look["color"], alpha=0.15, linewidth=0)
            label = f"{name} (n = {answer.sizes['member']})"
            axes.plot(steps, curve[shown], label=label, **look)
            axes.plot(steps[-1:], curve[-1:], "o", color=look["color"], markersize=3)
        style.reference(axes, CRITERION.threshold, "criterion {:g}")
        style.legend(figure)
        caption = (
            "Performance on fresh trials, without the method's skips, against training steps. Line: mean of the "
            "members from the 10th to the 90th percentile; band: between these percentiles; dot: end of training."
        )
        return style.finish(f"curves_{task}", figure, caption)


def draw_bars(steps: Mapping[str, float]) -> Drawing:
    """Figure 1C: steps to the criterion by task, the fewest first; arrows for tasks that failed.

    >>> draw_bars({"go": 500.0, "dlygo": float("inf")}).name
    'steps_by_task'
    """
    names = sorted(steps, key=lambda task: (steps[task], task))
    values = np.array([steps[n] for n in names])
    most = values[np.isfinite(values)].max(initial=1.0)
    delayed = np.array([n in DELAYED or n.startswith(("dly", "ctxdly")) for n in names])
    with style.look():
        figure, axes = style.panel("task", "training steps to the criterion")
        for which, colour, label in ((~delayed, style.SKY, "no delay"), (delayed, style.BLUE, "with a delay")):
            at = np.flatnonzero(which & np.isfinite(values))
            if len(at):
                axes.bar(at, values[at], color=colour, label=label, width=0.7)
        failed = np.flatnonzero(~np.isfinite(values))
        if len(failed):
            top = np.full(len(failed), 1.6 * most)
            axes.plot(failed, top, "^", color=style.VERMILLION, markersize=6, label="failed: not within the budget")
        axes.set_yscale("log")
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
        style.legend(figure)
        return style.finish(
            "steps_by_task",
            figure,
            "Training steps until the mean performance of the members from the 10th to the 90th percentile is at 0.99.",
        )
