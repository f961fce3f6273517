"""Figures of Soo, Goudar & Wang (NeurIPS 2023) in the paper's arrangement."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from poprnn.analysis._conditional import mean_and_error
from poprnn.recipes._long_dependencies import BASE_DT, CRITERION, DELAYED, METHODS, TAU, mean_curve
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


def draw_rules(by_method: Mapping[str, xr.DataArray]) -> Drawing:
    """Performance (member, rule) of networks that have learnt all rules together, by training method.

    >>> draw_rules({"DASC40": xr.DataArray([[0.9, 1.0]], {"rule": ["go", "dms"]}, ("member", "rule"))}).name
    'performance_by_rule'
    """
    names = next(iter(by_method.values()))["rule"].values.tolist()
    with style.look():
        figure, axes = style.panel("rule", "performance")
        for place, (name, found) in enumerate(by_method.items()):
            values = found.transpose("member", "rule").dropna("member", how="all").values
            mean, known = mean_and_error(values, axis=0)[0], np.isfinite(values).any(axis=0)
            low, high = (end(values[:, known], axis=0) for end in (np.nanmin, np.nanmax))
            at = np.flatnonzero(known) + 0.6 * ((place + 0.5) / len(by_method) - 0.5)
            ends = np.maximum([mean[known] - low, high - mean[known]], 0)  # never below 0 by rounding
            look: dict[str, Any] = {"color": style.colour(place), "fmt": "o", "markersize": 3, "elinewidth": 1}
            axes.errorbar(at, mean[known], ends, label=f"{name} (n = {len(values)})", **look)
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_ylim(0, 1.02)
        style.reference(axes, CRITERION.threshold, "criterion {:g}")
        style.legend(figure)
        return style.finish(
            "performance_by_rule",
            figure,
            "Networks that have learnt all rules together, each method at the setting that needs the fewest steps: "
            "performance on fresh trials at the end of training. Dot: mean of members; line: from lowest to highest.",
        )


def draw_mismatch(name: str, values: Mapping[str, np.ndarray], spans: np.ndarray) -> Drawing:
    """Figures 3B and 3C: ``[member, span]`` of every method over theta; infinite values end a line.

    >>> draw_mismatch("mismatch", {"CD": np.array([[0.1, np.inf]])}, np.array([20.0, 40.0])).name
    'mismatch'
    """
    words = {"mismatch": "mismatch of the dynamics", "performance_lost": "performance lost"}
    with style.look():
        figure, axes = style.panel("theta (steps of 5 ms)", words[name])
        means = []
        for place, (kind, found) in enumerate(values.items()):
            mean = np.where(np.isfinite(found).all(axis=0), found.mean(axis=0), np.nan)
            spread = np.where(np.isfinite(mean), np.where(np.isfinite(found), found, 0).std(axis=0), np.nan)
            error = spread / np.sqrt(len(found))
            look = {"color": style.colour(place), "linestyle": style.dash(place)}
            axes.fill_between(spans, mean - error, mean + error, color=look["color"], alpha=0.2, linewidth=0)
            axes.plot(spans, mean, marker=".", label=f"{kind} (n = {len(found)})", **look)
            means.append(mean)
        if name == "mismatch":
            style.log_scale(axes, np.concatenate(means))
        beyond = spans > TAU / BASE_DT
        if beyond.any() and len(spans) > 1:
            axes.axvspan(TAU / BASE_DT, spans.max(), color=style.HAIR, alpha=0.4, linewidth=0, zorder=0)
        style.legend(figure)
        caption = (
            "Difference between the dynamics a method unrolls and the true ones, same trials and noise, beta = 0.5. "
            "Line and band: mean and standard error over trained members of all tasks; shaded: theta dt beyond tau; "
            "a line ends where trajectories explode."
        )
        return style.finish(name, figure, caption)


def draw_fractions(shares: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> Drawing:
    """Table 2 as bars: by method and kind, a fraction with the ends of its interval.

    >>> draw_fractions({"control": {"without": (0.67, 0.57, 0.75)}}).name
    'fraction_trained'
    """
    kinds = list(dict.fromkeys(kind for row in shares.values() for kind in row))
    width = 0.8 / len(kinds)
    with style.look():
        figure, axes = style.panel("training method", "fraction of networks trained")
        for place, kind in enumerate(kinds):
            rows = [(i, row[kind]) for i, row in enumerate(shares.values()) if kind in row]
            at = np.array([i for i, _ in rows]) + (place - (len(kinds) - 1) / 2) * width
            value, low, high = np.array([share for _, share in rows]).T
            ends = np.maximum([value - low, high - value], 0)  # never below 0 by rounding
            axes.bar(at, value, 0.9 * width, yerr=ends, color=style.colour(place), ecolor=style.INK, label=kind)
        axes.set_xticks(range(len(shares)), list(shares))
        axes.set_ylim(0, 1)
        style.legend(figure)
        caption = (
            "Networks with an accuracy over 0.99 after training. Bar: their fraction; line: 95 % interval (Wilson)."
        )
        return style.finish("fraction_trained", figure, caption)
