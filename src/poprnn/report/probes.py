"""Figures for the answers of networks that were taken apart, and for the timescales of their activity."""

import numpy as np

from poprnn.analysis.contract import Result
from poprnn.report import marks, style
from poprnn.report.style import Drawing


def autocorrelation_timescales(result: Result) -> list[Drawing]:
    """The distribution of timescales over units, and the autocorrelations they were read from."""
    data = result.data
    tau, lags = data["tau"].values, data["lag"].values
    with style.look():
        figure, axes = style.panel("timescale of the activity (cell's time units)", "share of units")
        marks.distribution(axes, tau, edges=marks.bins(tau))
        marks.from_zero(axes)
        caption = f"Timescales of units within their network, by {result.options.get('criterion', 'aic').upper()}."
        out = [style.finish("tau_net", figure, caption + marks.distribution_words(len(tau)))]
        figure, axes = style.panel("lag (steps)", "autocorrelation, median over units")
        marks.member_lines(axes, lags, np.nanmedian(data["autocorrelation"].values, axis=1))
        marks.member_lines(
            axes,
            lags,
            data["population_autocorrelation"].values,
            colour=style.VERMILLION,
            middle=style.VERMILLION,
            label="summed activity",
            dash=style.dash(1),
        )
        style.legend(figure)
        caption = "Autocorrelation of the activity: median over units, and of the activity summed over units."
        return [*out, style.finish("autocorrelation", figure, caption)]


def ablation(result: Result) -> list[Drawing]:
    """Relative accuracy after taking out each unit, by group."""
    data = result.data
    groups = list(dict.fromkeys(data["group"].values.tolist()))
    values = data["relative_accuracy"].values
    with style.look():
        figure, axes = style.panel("member", "relative accuracy without a unit")
        for place, group in enumerate(groups):
            mine = values[:, data["group"].values == group]
            for k, row in enumerate(mine):
                beside = k + (place - (len(groups) - 1) / 2) * 0.3 + np.linspace(-0.1, 0.1, len(row))
                label = {"longest": "longest τ", "shortest": "shortest τ"}.get(group, group) if k == 0 else None
                axes.plot(beside, row, "o", color=style.colour(place), markersize=3, alpha=0.6, label=label)
        axes.set_xticks(range(len(values)), [f"{m}" for m in data["member"].values])
        style.reference(axes, 1.0, "intact")
        style.legend(figure)
        caption = "Relative accuracy after taking out one unit at a time. Dot: one unit."
        return [style.finish("ablation", figure, caption)]


def perturbation(result: Result) -> list[Drawing]:
    """Relative accuracy against the strength of the noise: mean over draws, member by member."""
    what = {"weight_perturbation": "recurrent weights", "timescale_perturbation": "time constants"}[result.name]
    strengths = result.data["strength"].values
    with style.look():
        figure, axes = style.panel(f"noise on the {what}, relative to their norm", "relative accuracy")
        marks.member_lines(axes, strengths, result.data["relative_accuracy"].mean("draw").values)
        if strengths.min() > 0:
            axes.set_xscale("log")
        style.reference(axes, 0.0, "chance")
        style.legend(figure)
        caption = f"Relative accuracy with noise on the {what}, mean over draws."
        return [style.finish(result.name, figure, caption)]


def inhibition_scaling(result: Result) -> list[Drawing]:
    """Largest activity against how much stronger or weaker inhibition was made."""
    largest = result.data["largest"].values
    bound = float(result.options.get("bound", 1e3))
    with style.look():
        figure, axes = style.panel("change c of the negative weights, W⁻ · (1 + c)", "largest activity")
        shown = np.where(np.isfinite(largest) & (largest < 1e3 * bound), largest, np.nan)
        marks.member_lines(axes, result.data["scale"].values, shown)
        axes.set_yscale("log")
        style.reference(axes, bound, "exploded: {:g}")
        style.legend(figure)
        caption = "Largest absolute activity of any unit. Where lines end, it exceeds a thousand times the bound."
        return [style.finish("inhibition_scaling", figure, caption)]


def retraining(result: Result) -> list[Drawing]:
    """Accuracy at the memories that members were retrained to."""
    with style.look():
        figure, axes = style.panel("memory N retrained to", "accuracy on fresh trials")
        marks.member_lines(axes, result.data["to"].values, result.data["accuracy"].values)
        style.reference(axes, float(result.options.get("threshold", 0.98)), "to be exceeded: {:g}")
        style.whole_numbers(axes, "x")
        style.legend(figure)
        start = result.options.get("n")
        caption = f"Accuracy after retraining from {f'N = {start}' if start else 'the final weights'}."
        return [style.finish("retraining", figure, caption)]
