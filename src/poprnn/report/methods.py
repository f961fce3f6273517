"""Figures for training methods: how far they lead from the true dynamics, and how many operations training took."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poprnn.analysis.contract import Result
from poprnn.report import generic, marks, style
from poprnn.report.style import Drawing

NAMES = {"coarsened": "coarsened (CD)", "skip": "skip (SCTT)", "aligned_skip": "aligned skip (DASC)"}
LARGEST_MISMATCH = 1e4
"""Above, dynamics have nothing to do with one another, and the rest of the figure would be squeezed flat."""


def dynamics_mismatch(result: Result) -> list[Drawing]:
    """Mismatch and performance lost against the span, a colour for each method."""
    drawn = []
    caption = "Distance of the trajectories under a training method from the true ones, relative to their size."
    with style.look():
        figure, axes = style.panel(generic.label(result.data["span"]), "mismatch ⟨‖r′ − r‖²⟩ / ⟨‖r‖²⟩")
        values = result.data["mismatch"].values
        shown = np.where(values <= LARGEST_MISMATCH, values, np.nan)
        if (values > LARGEST_MISMATCH).any():
            caption += f" Beyond {LARGEST_MISMATCH:,.0f} lines end."
        _by_method(axes, result, "mismatch", shown)
        if (shown > 0).any():
            style.log_scale(axes, shown[shown > 0])
        style.reference(axes, 1.0, "as far as a network at rest")
        drawn.append(_finish("dynamics_mismatch", figure, caption + _words(result)))
        figure, axes = style.panel(generic.label(result.data["span"]), generic.label(result.data["performance_lost"]))
        lost = result.data["performance_lost"].values
        _by_method(axes, result, "performance_lost", lost)
        style.reference(axes, 0.0, "nothing lost")
        caption = "Score on the same trials by the network itself less that under a training method."
        drawn.append(_finish("dynamics_mismatch_performance_lost", figure, caption + _words(result)))
    return drawn


def _by_method(axes: Axes, result: Result, name: str, values: np.ndarray) -> None:
    data = result.data
    x = data["span"].values
    order = np.argsort(x)
    for place, method in enumerate(map(str, data["method"].values)):
        look = {"colour": style.colour(place), "dash": style.dash(place), "label": NAMES.get(method, method)}
        rows = values[:, place][:, order]
        if len(rows) == 1:
            error = np.nan_to_num(data[f"{name}_standard_error"].values[0, place, order])
            axes.errorbar(
                x[order], rows[0], yerr=error, color=look["colour"], linestyle=look["dash"], marker=".",
                elinewidth=1, label=look["label"],
            )  # fmt: skip
        else:
            marks.member_lines(axes, x[order], rows, middle=look["colour"], **look)


def _finish(name: str, figure: Figure, caption: str) -> Drawing:
    """With one entry for all the thin lines."""
    axes = figure.axes[0]
    handles = axes.get_legend_handles_labels()[0]
    kept = [h for h in handles if h.get_label() != "one member"]
    if len(kept) < len(handles):
        kept.append(style.member_key(style.QUIET))
    style.whole_numbers(axes, "x")
    style.legend(figure, handles=kept)
    return style.finish(name, figure, caption)


def _words(result: Result) -> str:
    return " Thick: median over members." if result.data.sizes["member"] > 1 else " Bars: standard error over trials."


def flops(result: Result) -> list[Drawing]:
    """Operations of each member's training, and what one time step of one trial is made of."""
    data, members = result.data, result.data["member"].values
    total = data["operations"].values
    with style.look():
        figure, axes = style.panel("member", "operations of the training")
        marks.member_dots(axes, members, total, label="to its end")
        caption = "Multiplications, additions and other element-wise operations of each member's training."
        drawn = [total]
        if "operations_to_criterion" in data:
            reached = data["operations_to_criterion"].values
            label = f"until the score was {result.options.get('criterion', 'the criterion')}"
            marks.member_dots(axes, members, reached, colour=style.VERMILLION, marker="D", label=label)
            drawn.append(reached)
            caption += f" {np.isfinite(reached).sum()} of {len(reached)} members reached the criterion."
        values = np.concatenate(drawn)
        style.log_scale(axes, values[values > 0])
        if axes.get_yscale() != "log":
            axes.set_ylim(bottom=0)
        style.legend(figure)
        return [style.finish("flops", figure, caption), _time_step(result)]


def _time_step(result: Result) -> Drawing:
    """Products and element-wise work, forwards and backwards. Call it inside ``look``."""
    step = result.data["time_step_operations"]
    figure, axes = style.panel("pass through time", "operations of one step of one trial")
    base = np.zeros(step.sizes["direction"])
    for place, kind in enumerate(map(str, step["kind"].values)):
        values, hatch = step.isel(kind=place).values, ["", "//"][place % 2]
        axes.bar(range(len(base)), values, 0.5, bottom=base, color=style.colour(place), hatch=hatch, label=kind)
        base = base + values
    axes.set_xticks(range(len(base)), [str(d) for d in step["direction"].values])
    axes.set_xlim(-0.6, len(base) - 0.4)
    style.legend(figure)
    return style.finish("flops_time_step", figure, "What one time step of one trial takes, by kind of operation.")
