"""Figures of fixed and slow points: where they lie, and the eigenvalues there."""

import numpy as np
from matplotlib.lines import Line2D

from poprnn.analysis.contract import Result
from poprnn.report import style
from poprnn.report.style import Drawing

LOOKS = {"stable": (style.BLUE, "o"), "saddle": (style.VERMILLION, "X"), "unstable": (style.PURPLE, "s")}
"""Colour and mark of every kind of fixed point."""


def fixed_points(result: Result) -> list[Drawing]:
    """Points of the first member that has two in the plane of its first two principal components; all eigenvalues."""
    data = result.data
    kind = _rows(data["kind"].values, 0)
    slow = _rows(data["slow_state"].values, 1)
    drawings = []
    two = [member for member in range(len(kind)) if np.isfinite(slow[member, :, 0]).sum() > 1]
    with style.look():
        if two:
            drawings.append(_plane(result, two[0], slow[two[0]], _rows(data["state"].values, 1)[two[0]], kind[two[0]]))
        if (kind != "").any():
            real, imag = (_rows(data[f"eigenvalue_{part}"].values, 1) for part in ("real", "imag"))
            drawings.append(_spectra(real, imag, kind))
    return drawings


def _rows(values: np.ndarray, n_after: int) -> np.ndarray:
    """Points of all inputs below one another: one axis between the members' and those of a point."""
    return values.reshape(len(values), -1, *values.shape[values.ndim - n_after :])


def _plane(result: Result, member: int, slow: np.ndarray, fixed: np.ndarray, kind: np.ndarray) -> Drawing:
    """Slow points, and fixed points by kind."""
    slow = slow[np.isfinite(slow[:, 0])]
    centre = slow.mean(axis=0)
    axes_of_variance = np.linalg.svd(slow - centre, full_matrices=False)[2][:2]
    project = lambda states: np.pad((states - centre) @ axes_of_variance.T, ((0, 0), (0, 2 - len(axes_of_variance))))
    figure, axes = style.panel("first principal component", "second principal component", height=3.4)
    axes.plot(*project(slow).T, ".", color=style.QUIET, markersize=4, label="slow")
    for word, (colour, mark) in LOOKS.items():
        if (kind == word).any():
            axes.plot(*project(fixed[kind == word]).T, mark, color=colour, markersize=6, linestyle="none", label=word)
    style.legend(figure)
    number = result.data["member"].values[member] if "member" in result.data.coords else member
    caption = (
        f"Fixed and slow points of member {number} under a constant input, in the plane of the slow points' largest "
        "variance."
    )
    return style.finish("fixed_points", figure, caption)


def _spectra(real: np.ndarray, imag: np.ndarray, kind: np.ndarray) -> Drawing:
    """Eigenvalues of all members' fixed points around the unit circle."""
    figure, axes = style.panel("real part", "imaginary part", height=3.6)
    angle = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(angle), np.sin(angle), color=style.INK, linewidth=0.8)
    handles = []
    for word, (colour, _) in LOOKS.items():
        chosen = kind == word
        if chosen.any():
            axes.plot(
                real[chosen].ravel(), imag[chosen].ravel(), "o", color=colour, markersize=2, alpha=0.5, rasterized=True
            )
            handles.append(Line2D([], [], color=colour, marker="o", linestyle="none", label=word))
    axes.set_aspect("equal", adjustable="datalim")
    style.legend(figure, handles=handles)
    caption = "Eigenvalues of the Jacobian at the fixed points of all members; circle: neither growth nor decay."
    return style.finish("fixed_points_eigenvalues", figure, caption)
