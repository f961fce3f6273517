"""Figures for performance by what a trial is like: psychometric curves, delay curves, errors by period."""

import dataclasses
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from poprnn.analysis.contract import Result
from poprnn.report import generic, marks, style
from poprnn.report.style import Drawing

MAX_LINES = 6
"""Most heads that get a line each; more are drawn as a map."""
MAX_TICKS = 8


def performance(result: Result) -> list[Drawing]:
    """A curve for every score over the condition, a line for each of a few heads; the rest by its axes.

    Members are thin lines with their median; a lone member has its 95 % intervals. Periods without a number are left
    out.

    >>> import xarray as xr
    >>> variables = {k: (("member", "delay"), np.ones((1, 3))) for k in ("accuracy", "accuracy_low", "accuracy_high")}
    >>> data = xr.Dataset(variables, {"member": [0], "delay": [1.0, 2.0, 3.0]})
    >>> [drawing.name for drawing in performance(Result("performance", data, {"by": "delay"}, {}))]
    ['performance_accuracy']
    """
    data, out = result.data, []
    if data.sizes.get("head") == 1:
        data = data.isel(head=0, drop=True)
    for name in map(str, data.data_vars):
        if f"{name}_low" not in data:
            continue
        drawn = _curve(data, name) if _is_curve(data[name]) else None
        out += [drawn] if drawn else generic.draw(_only(result, data, name, f"{name}_low", f"{name}_high"))
    for name in [str(n) for n in data.data_vars if "period" in data[n].dims]:
        if not generic.is_error(name, data):
            out += generic.draw(_only(result, data[[name]].dropna("period", how="all"), name))
    return out


def _only(result: Result, data: Any, *names: str) -> Result:
    return dataclasses.replace(result, data=data[list(names)])


def _is_curve(variable: Any) -> bool:
    dims = variable.dims
    if dims[0] != "member" or len(dims) < 2 or variable[dims[-1]].dtype.kind not in "biuf":
        return False
    return len(dims) == 2 or (dims[1] == "head" and variable.sizes["head"] <= MAX_LINES)


def _curve(data: Any, name: str) -> Drawing | None:
    variable = data[name]
    x = data[variable.dims[-1]]
    rows = [("", ())] if variable.ndim == 2 else [(str(h), (slice(None), k)) for k, h in enumerate(data["head"].values)]
    if not np.isfinite(variable.values).any():
        return None
    n_members = data.sizes["member"]
    with style.look():
        figure, axes = style.panel(generic.label(x), generic.label(variable))
        for place, (word, at) in enumerate(rows):
            values = variable.values[at]
            colour = style.colour(place)
            if n_members == 1:
                _with_interval(
                    axes,
                    x.values,
                    [data[n].values[at][0] for n in (name, f"{name}_low", f"{name}_high")],
                    colour=colour,
                    label=word or None,
                )
            elif len(rows) == 1:
                marks.member_lines(axes, x.values, values)
            else:
                axes.plot(
                    x.values, marks.median(values), color=colour, linestyle=style.dash(place), marker=".", label=word
                )
        ticks = np.array([f"{v:.3g}" for v in x.values])
        if len(x) <= MAX_TICKS and np.allclose(ticks.astype(float), x.values, rtol=1e-4):  # values, not means of bins
            axes.set_xticks(x.values, ticks)
        if axes.get_legend_handles_labels()[0]:
            style.legend(figure)
        caption = f"{style.words(name).capitalize()} by {x.attrs.get('long_name', style.words(str(x.name)))}."
        caption += (
            f" Bars: {variable.attrs.get('interval', '95%')}."
            if n_members == 1
            else (" Median over members." if len(rows) > 1 else "")
        )
        return style.finish(f"performance_{name}", figure, caption)


def _with_interval(axes: Axes, x: np.ndarray, values: list[np.ndarray], *, colour: str, label: str | None) -> None:
    middle, low, high = values
    error = np.nan_to_num(np.maximum([middle - low, high - middle], 0))
    axes.errorbar(x, middle, yerr=error, color=colour, marker="o", markersize=3, elinewidth=1, label=label)
