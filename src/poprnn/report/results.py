"""Figures for the answer of an analysis: its own where it is known by name, else by the axes of its variables."""

from collections.abc import Callable
from typing import Any

import numpy as np

from poprnn.analysis.contract import Result
from poprnn.report import bottleneck, conditions, generic, marks, methods, probes, standing, style
from poprnn.report.style import Drawing

TAU = "τ (cell's time units)"


def draw(result: Result) -> list[Drawing]:
    """The figures for a result; variables that no figure suits (words, more than three axes) are left out.

    >>> import poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=8), epochs=1, steps_per_epoch=1, batch=4)
    >>> [drawing.name for drawing in draw(pr.measure("connectivity", run, members="all"))]
    ['connectivity']
    """
    own = OWN.get(result.name)
    if own is not None and REQUIRED[result.name] <= set(map(str, result.data.data_vars)):
        return own(result)
    return generic.draw(result)


def accuracy_by_n(result: Result) -> list[Drawing]:
    """Accuracy of every memory N, member by member, with the threshold."""
    data, threshold = result.data, float(result.options.get("threshold", 0.98))
    n, accuracy = data["n"].values, data["accuracy"].values
    trained = data["trained"].values.astype(bool) if "trained" in data else np.ones(accuracy.shape, bool)
    with style.look():
        figure, axes = style.panel("memory N", "accuracy on fresh trials")
        marks.member_lines(axes, n, np.where(trained, accuracy, np.nan))
        if not trained.all():
            beyond = trained & np.roll(trained, -1, axis=1)  # joins on to the last trained N
            beyond[:, -1] = trained[:, -1]
            axes.plot(n, np.where(beyond, np.nan, accuracy).T, color=style.QUIET, **_dotted(len(accuracy)))
            axes.plot([], [], color=style.QUIET, label="N not trained (yet)", **_dotted(1))
        if len(accuracy) == 1 and "standard_error" in data:
            error = data["standard_error"].values[0]
            axes.errorbar(n, accuracy[0], yerr=error, color=style.BLUE, linestyle="none", marker="o", markersize=3)
        style.reference(axes, threshold, "to be exceeded: {:g}")
        style.whole_numbers(axes, "x")
        style.legend(figure)
        caption = "Accuracy for every memory N, each on trials of its own."
        if "largest_n" in data:
            caption += f" Largest N above the threshold: {spread_words(data['largest_n'].values)}."
        return [style.finish("accuracy_by_n", figure, caption)]


def timescales_single(result: Result) -> list[Drawing]:
    """Mean and spread of the time constants against the memory solved, and their final distribution."""
    data, out = result.data, []
    for variable, label, what in (
        ("mean_by_stage", f"mean of {TAU}", "Mean over units"),
        ("std_by_stage", f"SD of {TAU}", "Standard deviation over units"),
    ):
        if variable in data:
            caption = f"{what} of the time constants, whenever a stage of the curriculum was passed."
            out.append(
                _by_stage(
                    result, {variable: (style.BLUE, "median")}, f"timescales_single_{variable[:-9]}", label, caption
                )
            )
    with style.look():
        figure, axes = style.panel(f"time constant {TAU}", "share of units")
        tau = data["tau"].values
        marks.distribution(axes, tau, edges=marks.bins(tau))
        marks.from_zero(axes)
        caption = (
            f"Time constants at the end of training. Mean over units: {spread_words(tau.mean(1))}."
            + marks.distribution_words(len(tau))
        )
        return [*out, style.finish("timescales_single", figure, caption)]


def dimensionality(result: Result) -> list[Drawing]:
    """Variance in the first components, and for several members the two counts of dimensions."""
    data, share = result.data, float(result.options.get("variance", 0.9))
    component, cumulative = data["component"].values, data["cumulative"].values
    count = data["n_components"].values
    enough = np.flatnonzero((np.nan_to_num(cumulative, nan=1.0) > 0.995).all(0))
    last = int(component[enough[0]]) if enough.size else int(component[-1])
    with style.look():
        figure, axes = style.panel("principal components", "share of the variance")
        shown = component <= max(last, 2)
        marks.member_lines(axes, component[shown], cumulative[:, shown])
        style.reference(axes, share, "to be explained: {:g}")
        axes.set_ylim(0, 1.02)
        style.whole_numbers(axes, "x")
        style.legend(figure)
        caption = f"Variance of activity explained. Components for {share:.0%}: {spread_words(count)}."
        out = [style.finish("dimensionality", figure, caption)]
    if len(count) > 1:
        out.append(_dimensions_by_member(result, share))
    return out


def _dimensions_by_member(result: Result, share: float) -> Drawing:
    data = result.data
    error = data.get("participation_ratio_standard_error")
    with style.look():
        figure, axes = style.panel("member", "dimensions")
        members = data["member"].values
        marks.member_dots(
            axes,
            members,
            data["n_components"].values.astype(float),
            label=f"components for {share:.0%} of the variance",
        )
        marks.member_dots(
            axes,
            members,
            data["participation_ratio"].values,
            colour=style.VERMILLION,
            marker="D",
            error=None if error is None else error.values,
            label="participation ratio (± standard error)",
        )
        axes.set_ylim(bottom=0)
        style.legend(figure)
        return style.finish("dimensionality_by_member", figure, "Two counts of dimensions, member by member.")


PARTS = {
    "positive": (style.VERMILLION, "positive weights"),
    "negative": (style.BLUE, "negative weights"),
    "mean": (style.GREEN, "all weights (mean)"),
}


def connectivity(result: Result) -> list[Drawing]:
    """Distribution over units of the incoming weights, and how their means moved over the curriculum."""
    data = result.data
    edges = marks.bins(np.concatenate([data[part].values.ravel() for part in PARTS]))
    with style.look():
        figure, axes = style.panel("mean incoming recurrent weight of a unit", "share of units")
        for part, (colour, label) in PARTS.items():
            marks.distribution(axes, data[part].values, edges=edges, colour=colour, label=label)
        axes.axvline(0, color=style.QUIET, linewidth=0.8, zorder=1)
        marks.from_zero(axes)
        style.legend(figure)
        caption = (
            "Incoming weights, averaged over all possible connections of a unit, at the end of training."
            + marks.distribution_words(data.sizes["member"])
        )
        out = [style.finish("connectivity", figure, caption)]
    if all(f"{part}_by_stage" in data for part in PARTS):
        lines = {f"{part}_by_stage": look for part, look in PARTS.items()}
        out.append(
            _by_stage(
                result,
                lines,
                "connectivity_by_stage",
                "mean incoming recurrent weight",
                "Mean over units of the incoming weights whenever a stage was passed.",
            )
        )
    return out


# --- shared ----------------------------------------------------------------------------------------------------------


def by_memory(data: Any, variable: str) -> tuple[np.ndarray, np.ndarray, str]:
    """``x``, ``values[member, x]`` and the label of x, for a variable with the axes (stage, member).

    x is the memory N where the stages have one, else the stage counted from 1.
    """
    values = data[variable].transpose("stage", "member").values
    if "n" not in data.coords:
        return data["stage"].values + 1, values.T, "stage passed"
    n = data["n"].values
    n = np.broadcast_to(n[:, None] if n.ndim == 1 else n, values.shape)
    x = np.unique(n)
    out = np.full((values.shape[1], len(x)), np.nan)
    for (_, member), memory, value in zip(np.ndindex(values.shape), n.ravel(), values.ravel(), strict=True):
        if np.isfinite(value):
            out[member, np.searchsorted(x, memory)] = value
    return x, out, "memory N solved"


def _by_stage(result: Result, lines: dict[str, tuple[str, str]], name: str, label: str, caption: str) -> Drawing:
    stages = {variable: by_memory(result.data, variable) for variable in lines}
    missing = any(np.isnan(values).any() for _, values, _ in stages.values())
    with style.look():
        figure, axes = style.panel(next(iter(stages.values()))[2], label)
        for place, (variable, (x, values, _)) in enumerate(stages.items()):
            colour, word = lines[variable]
            marks.member_lines(
                axes,
                x,
                values,
                colour=colour,
                middle=colour if len(stages) > 1 else style.INK,
                label=word,
                dash=style.dash(place),
            )
        style.whole_numbers(axes, "x")
        handles = [h for h in axes.get_legend_handles_labels()[0] if h.get_label() != "one member"]
        n_members = result.data.sizes["member"]
        if n_members > 1:
            colour = next(iter(lines.values()))[0] if len(lines) == 1 else style.QUIET
            handles.append(style.member_key(colour))
            caption += " Thick: median" + (", as far as half of the members have got." if missing else " over members.")
        style.legend(figure, handles=handles if n_members > 1 or len(lines) > 1 else [])
        return style.finish(name, figure, caption)


def spread_words(values: np.ndarray) -> str:
    """``median 7 (5 to 9)`` over members; one number if there is just one.

    >>> spread_words(np.array([5.0, 7.0, 9.0]))
    'median 7 (5 to 9)'
    """
    finite = np.asarray(values, float)[np.isfinite(np.asarray(values, float))]
    if not finite.size:
        return "no number"
    if len(values) == 1:
        return f"{finite[0]:.4g}"
    return f"median {np.median(finite):.4g} ({finite.min():.4g} to {finite.max():.4g})"


def _dotted(n_lines: int) -> dict[str, Any]:
    return {"linestyle": (0, (1, 1.5)), "linewidth": 1.0, "alpha": 1.0 if n_lines <= 4 else 0.4}


OWN: dict[str, Callable[[Result], list[Drawing]]] = {
    "accuracy_by_n": accuracy_by_n,
    "timescales_single": timescales_single,
    "dimensionality": dimensionality,
    "connectivity": connectivity,
    "autocorrelation_timescales": probes.autocorrelation_timescales,
    "ablation": probes.ablation,
    "weight_perturbation": probes.perturbation,
    "timescale_perturbation": probes.perturbation,
    "inhibition_scaling": probes.inhibition_scaling,
    "retraining": probes.retraining,
    "performance": conditions.performance,
    "dynamics_mismatch": methods.dynamics_mismatch,
    "flops": methods.flops,
    "fixed_points": standing.fixed_points,
    "rate_distortion": bottleneck.rate_distortion,
    "transmitted_information": bottleneck.transmitted_information,
    "code_book": bottleneck.code_book,
}
REQUIRED = {
    "accuracy_by_n": {"accuracy"},
    "timescales_single": {"tau"},
    "dimensionality": {"n_components", "cumulative", "participation_ratio"},
    "connectivity": {"mean", "positive", "negative"},
    "autocorrelation_timescales": {"tau", "autocorrelation", "population_autocorrelation"},
    "ablation": {"relative_accuracy"},
    "weight_perturbation": {"relative_accuracy"},
    "timescale_perturbation": {"relative_accuracy"},
    "inhibition_scaling": {"largest"},
    "retraining": {"accuracy"},
    "performance": {"n_trials"},
    "dynamics_mismatch": {"mismatch", "performance_lost"},
    "flops": {"operations", "time_step_operations"},
    "fixed_points": {"state", "slow_state", "kind", "eigenvalue_real", "eigenvalue_imag"},
    "rate_distortion": {"error"},
    "transmitted_information": {"information"},
    "code_book": {"symbol", "n_prefixes"},
}
"""What a result of that name must hold to be drawn in its own way."""
