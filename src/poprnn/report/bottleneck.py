"""Figures for what passes a bottleneck: errors beside the lines they are compared with, and the words of a code."""

import numpy as np

from poprnn.analysis.contract import Result
from poprnn.report import marks, style
from poprnn.report.style import Drawing

KINDS = {"limit": "a limit", "reachable": "reachable, no limit", "benchmark": "benchmark, no limit"}
"""What is said of a line; they must not be taken for one another."""


def rate_distortion(result: Result) -> list[Drawing]:
    """Error of every member at each step, with the lines that are known and what each of them is."""
    data = result.data
    time, error = data["time"].values, data["error"].values
    with style.look():
        figure, axes = style.panel("step", "squared error / variance")
        marks.member_lines(axes, time, error)
        drawn = [error[error > 0]]
        lines = (
            zip(data["line"].values, data["kind"].values, data["reference"].values, strict=True)
            if "kind" in data
            else ()
        )
        for place, (name, kind, values) in enumerate(lines):
            look = {"color": style.INK, "linestyle": style.dash(place + 1), "linewidth": 1.1}
            axes.plot(time, np.where(values > 0, values, np.nan), label=f"{name}: {KINDS[str(kind)]}", **look)
            drawn.append(values[values > 0])
        style.log_scale(axes, np.concatenate(drawn))
        style.whole_numbers(axes, "x")
        style.legend(figure)
        caption = "Error of the reconstruction after each step, over the variance of the inputs."
        return [style.finish("rate_distortion", figure, caption)]


def transmitted_information(result: Result) -> list[Drawing]:
    """What has passed by each step, with the capacity of discrete bottlenecks."""
    data, unit = result.data, str(result.data.attrs.get("unit", "bits"))
    time = data["time"].values
    with style.look():
        figure, axes = style.panel("step", f"information sent so far ({unit})")
        marks.member_lines(axes, time, data["information"].values)
        if "capacity" in data:
            most = float(data["capacity"]) * time
            axes.plot(time, most, color=style.INK, linestyle=style.dash(1), linewidth=1.1, label="capacity: a limit")
        style.whole_numbers(axes, "x")
        marks.from_zero(axes)
        style.legend(figure)
        caption = "Information about the input in all that has passed the bottleneck by each step."
        return [style.finish("transmitted_information", figure, caption)]


def code_book(result: Result) -> list[Drawing]:
    """Share of inputs coded as by the expansion; for scalars, the symbols by which the inputs are sent in order."""
    data, out = result.data, []
    with style.look():
        if "expansion" in data:
            figure, axes = style.panel("step", "share of inputs")
            marks.member_lines(axes, data["time"].values, data["expansion"].values)
            style.whole_numbers(axes, "x")
            style.legend(figure)
            caption = "Share of inputs whose symbols so far are those of their expansion, whatever their names."
            out.append(style.finish("code_book_expansion", figure, caption))
        if "word" in data:
            symbols = data["symbol"].values[0][data["word"].values[0]]
            x = data["input"].values
            figure, axes = style.panel(f"inputs in order, from {x[0]:.2f} to {x[-1]:.2f}", "step")
            picture = axes.imshow(symbols.T, aspect="auto", interpolation="nearest", origin="lower", cmap="viridis")
            axes.grid(visible=False)
            axes.set_yticks(range(symbols.shape[1]), [f"{t:g}" for t in data["time"].values])
            axes.set_xticks([])
            figure.colorbar(picture, ax=axes, label="symbol", ticks=range(int(symbols.max()) + 1))
            caption = f"Symbols by which member {data['member'].values[0]} sends each input."
            out.append(style.finish("code_book_words", figure, caption))
        if not out:
            figure, axes = style.panel("step", "words in use so far")
            marks.member_lines(axes, data["time"].values, data["n_prefixes"].values.astype(float))
            style.whole_numbers(axes, "x")
            style.legend(figure)
            out.append(style.finish("code_book_words", figure, "Different words sent by each step, as sampled."))
    return out
