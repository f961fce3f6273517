"""Figures for any result, chosen by the axes of its variables."""

from collections.abc import Hashable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poprnn.analysis.contract import Result
from poprnn.report import marks, style
from poprnn.report.style import Drawing

MAX_DRAWINGS = 12
_ERRORS = ("_standard_error", "_error", "_low", "_high", "_p")
"""Endings of variables that belong to another one and get no figure of their own."""


def draw(result: Result) -> list[Drawing]:
    """One figure for each numeric variable with up to three axes, the first twelve.

    ``(member)``: dots; ``(member, x)``: lines where x has numbers, a distribution where it only counts (units, trials);
    ``(x, y)``, two axes of members and, as a median over members, ``(member, x, y)``: a map. Single numbers and
    variables without any finite value get none.

    >>> import xarray as xr
    >>> data = xr.Dataset({"score": ("member", np.array([1.0, 2.0])), "step": 0.1})
    >>> [drawing.name for drawing in draw(Result("my_analysis", data, {}, {}))]
    ['my_analysis_score']
    """
    out: list[Drawing] = []
    for name, variable in result.data.data_vars.items():
        if len(out) == MAX_DRAWINGS:
            break
        if variable.dtype.kind not in "biuf" or is_error(str(name), result.data):
            continue
        if not np.isfinite(variable.values.astype(float)).any():
            continue
        drawing = _draw_one(result, name)
        if drawing is not None:
            out.append(drawing)
    return out


def is_error(name: str, data: Any) -> bool:
    """Whether a variable is the uncertainty of another one (``accuracy_standard_error``, ``largest_n_low``).

    >>> import xarray as xr
    >>> is_error("a_low", xr.Dataset({"a": 1.0, "a_low": 0.5})), is_error("low", xr.Dataset({"low": 1.0}))
    (True, False)
    """
    return name == "standard_error" or any(name.endswith(e) and name.removesuffix(e) in data for e in _ERRORS)


def _draw_one(result: Result, name: Hashable) -> Drawing | None:
    variable = result.data[name]
    dims = [str(d) for d in variable.dims]
    if "member" in dims:
        variable = variable.transpose("member", *[d for d in dims if d != "member"])
        dims = [str(d) for d in variable.dims]
    values = variable.values.astype(float)
    stem = "".join(c if c.isalnum() or c in "_-" else "_" for c in f"{result.name}_{name}")
    title = f"{style.words(result.name)}: {style.words(str(name))}"
    with style.look():
        if dims == ["member"]:
            if len(values) == 1:
                return None
            figure, axes = style.panel("member", label(variable))
            marks.member_dots(
                axes,
                result.data["member"].values if "member" in result.data.coords else np.arange(len(values)),
                values,
                error=_error(result, str(name)),
            )
        elif len(dims) == 1 or (len(dims) == 2 and dims[0] == "member" and not _are_members(result, dims[1])):
            figure, axes = _along(result, variable, values.reshape(-1, values.shape[-1]), dims[-1])
        elif len(dims) == 2:
            figure, axes = _map(result, variable, values, dims)
        elif len(dims) == 3 and dims[0] == "member":
            middle = marks.median(values.reshape(len(values), -1)).reshape(values.shape[1:])
            figure, axes = _map(result, variable, middle, dims[1:])
            title += " (median over members)" if len(values) > 1 else ""
        else:
            return None
        if axes.get_legend_handles_labels()[0]:
            style.legend(figure)
        return style.finish(stem, figure, title + ".")


def _are_members(result: Result, dim: str) -> bool:
    """Whether an axis counts the members once more (distances between them)."""
    members, others = result.data.coords.get("member"), result.data.coords.get(dim)
    return members is not None and others is not None and np.array_equal(members.values, others.values)


def _along(result: Result, variable: Any, values: np.ndarray, dim: str) -> tuple[Figure, Axes]:
    """Lines along an axis that has numbers or names; a distribution over one that only counts."""
    coordinate = result.data.coords.get(dim)
    if coordinate is None or (dim in ("unit", "trial", "sample", "pair") and coordinate.dtype.kind in "iu"):
        figure, axes = style.panel(label(variable), f"share of {style.words(dim)}s")
        marks.distribution(axes, values, edges=marks.bins(values))
        marks.from_zero(axes)
        return figure, axes
    figure, axes = style.panel(label(coordinate), label(variable))
    if coordinate.dtype.kind in "biuf":
        marks.member_lines(axes, coordinate.values, values)
        if coordinate.dtype.kind in "iu":
            style.whole_numbers(axes, "x")
        return figure, axes
    place = np.arange(len(coordinate))
    shift = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(1)
    for k, row in enumerate(values):
        axes.plot(
            place + shift[k],
            row,
            "o",
            color=style.BLUE,
            markersize=3,
            label="one member" if k == 0 and len(values) > 1 else None,
        )
    if len(values) > 1:
        axes.plot(place, marks.median(values), "_", color=style.INK, markersize=18, markeredgewidth=2, label="median")
    _names(axes, "x", coordinate.values)
    return figure, axes


def _map(result: Result, variable: Any, values: np.ndarray, dims: list[str]) -> tuple[Figure, Axes]:
    """A picture of a matrix with a colour bar; rows from the top."""
    down, across = (result.data.coords.get(d) for d in dims)
    figure, axes = style.panel(
        *(style.words(d) if c is None else label(c) for d, c in zip(reversed(dims), (across, down), strict=True)),
        height=3.6,
    )
    finite = values[np.isfinite(values)]
    both = finite.size and finite.min() < 0 < finite.max()
    bound = float(np.abs(finite).max()) if both else None
    picture = axes.imshow(
        values,
        aspect="auto",
        interpolation="nearest",
        cmap="PuOr_r" if both else "viridis",
        vmin=None if bound is None else -bound,
        vmax=bound,
    )
    axes.grid(visible=False)
    figure.colorbar(picture, ax=axes, label=style.wrap(label(variable), 34))
    for which, coordinate in (("x", across), ("y", down)):
        if coordinate is not None and coordinate.dtype.kind in "OUS":
            _names(axes, which, coordinate.values)
        elif coordinate is not None:
            _numbers(axes, which, coordinate.values)
        else:
            style.whole_numbers(axes, which)
    return figure, axes


def _names(axes: Axes, which: str, names: np.ndarray) -> None:
    """Ticks that are words, at most thirty of them; across, long ones are turned."""
    step = -(-len(names) // 30)
    texts = [style.wrap(str(n), 24) for n in names[::step]]
    turned = which == "x" and max(map(len, texts)) * len(texts) > 40
    options = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if turned else {}
    getattr(axes, f"set_{which}ticks")(np.arange(len(names))[::step], texts, **options)


def _numbers(axes: Axes, which: str, numbers: np.ndarray) -> None:
    """Ticks of a map's axis: about six of its numbers."""
    step = max(1, -(-len(numbers) // 6))
    getattr(axes, f"set_{which}ticks")(np.arange(len(numbers))[::step], [f"{v:.3g}" for v in numbers[::step]])


def _error(result: Result, name: str) -> np.ndarray | None:
    """Standard error, or distances to a lower and an upper bound, where the result holds them under its names."""
    data = result.data
    if f"{name}_standard_error" in data:
        return data[f"{name}_standard_error"].values
    if f"{name}_low" in data and f"{name}_high" in data:
        middle = data[name].values
        return np.stack([middle - data[f"{name}_low"].values, data[f"{name}_high"].values - middle])
    return None


def label(variable: Any) -> str:
    """A variable's long name, or its name, with its unit if it states one.

    >>> import xarray as xr
    >>> label(xr.DataArray([1.0], name="peak_rate", attrs={"units": "Hz"}))
    'peak rate (Hz)'
    """
    text = str(variable.attrs.get("long_name", style.words(str(variable.name))))
    unit = variable.attrs.get("units")
    return f"{text} ({unit})" if unit else text
