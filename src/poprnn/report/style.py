"""One look for every figure: a colour-blind safe palette, quiet axes, legends outside the data.

Figures are made with matplotlib's object interface inside :func:`look`, which restores every setting when it ends::

    with look():
        figure, axes = panel("epoch", "loss")
        axes.plot([1, 2, 3])
    drawing = finish("loss", figure, "Loss of one member.")
"""

import base64
import contextlib
import dataclasses
import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from poprnn.core.errors import ConfigurationError
from poprnn.core.storage import atomic_file

INK, QUIET, HAIR = "#1b1f24", "#57606a", "#d8dee4"
"""Text; secondary text and reference lines; grid."""
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#b8578f", "#e69f00", "#56b4e9"
"""After Okabe and Ito (2008); the purple is darker, so that thin lines show on white."""
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
"""The second channel, for those who see no colours and for more series than colours."""

RASTER = 40_000
"""Points above which thin lines go into a vector file as one picture, so that a page stays small."""
WIDTH, HEIGHT = 4.6, 3.1
"""Inches; text stays readable when a panel is shrunk to the width of a phone."""

_THEME = {
    INK: "--ink",
    QUIET: "--quiet",
    HAIR: "--hair",
    BLUE: "--blue",
    VERMILLION: "--vermillion",
    GREEN: "--green",
    PURPLE: "--purple",
    ORANGE: "--orange",
    SKY: "--sky",
}
"""Colours that a page may exchange in dark mode, and the names of its CSS variables for them."""

_SETTINGS = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": QUIET,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": HAIR,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "axes.facecolor": "none",
    "savefig.facecolor": "auto",
    "axes.formatter.useoffset": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "poprnn",
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "path.simplify": True,
}


@contextlib.contextmanager
def look() -> Iterator[None]:
    """The style, for as long as the block lasts; whatever the user has set is back afterwards.

    >>> import matplotlib
    >>> before = dict(matplotlib.rcParams)
    >>> with look():
    ...     matplotlib.rcParams["font.size"]
    9.0
    >>> dict(matplotlib.rcParams) == before
    True
    """
    with matplotlib.style.context(_SETTINGS, after_reset=True):
        yield


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A finished figure with the name of its file and the sentence that stands below it."""

    name: str
    """Stem of the file name."""
    figure: Figure
    caption: str
    themed: bool = True
    """Whether it was made in :func:`look`, so that a page may exchange its colours in dark mode."""

    def svg(self) -> str:
        """The ``<svg>`` element alone, for use inside a page: no outside references, ids of its own."""
        out = io.StringIO()
        with look():
            self.figure.savefig(
                out,
                format="svg",
                transparent=self.themed,
                metadata={"Date": None, "Creator": None},
                bbox_inches=self._bounds(),
            )
        text = out.getvalue()
        text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
        text = re.sub(r'\bid="', f'id="{self.name}.', text)
        text = re.sub(r'href="#', f'href="#{self.name}.', text)
        text = re.sub(r"url\(#", f"url(#{self.name}.", text)
        if self.themed:
            for colour, variable in _THEME.items():
                text = text.replace(colour, f"var({variable})")
        return re.sub(r"<svg\b", '<svg role="img"', text, count=1)

    def save(self, folder: str | Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
        """``NAME.png`` and ``NAME.svg`` on white ground; ``StorageError`` if the folder cannot be written to."""
        paths = []
        for kind in formats:
            path = Path(folder) / f"{self.name}.{kind}"
            metadata = {"Date": None} if kind == "svg" else {}
            with look(), atomic_file(path) as aside:
                self.figure.savefig(aside, format=kind, metadata=metadata, bbox_inches=self._bounds())
            paths.append(path)
        return paths

    def _bounds(self) -> str | None:
        """Figures made elsewhere may not have been laid out: nothing of them may be cut off."""
        return None if self.themed else "tight"

    def _repr_html_(self) -> str:
        """In notebooks."""
        out = io.BytesIO()
        with look():
            self.figure.savefig(out, format="png", bbox_inches=self._bounds())
        return f'<img src="data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}" width="460">'


def panel(x: str, y: str, *, title: str | None = None, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """A figure with one pair of labelled axes. Call it inside :func:`look`.

    >>> with look():
    ...     figure, axes = panel("epoch", "loss")
    >>> axes.get_xlabel(), axes.get_ylabel()
    ('epoch', 'loss')
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(wrap(x, 56))
    axes.set_ylabel(wrap(y, 34))
    if title:
        axes.set_title(wrap(title, 52))
    return figure, axes


def finish(name: str, figure: Figure, caption: str) -> Drawing:
    """A :class:`Drawing`, laid out once so that later settings cannot change it. Call it inside :func:`look`.

    Raises ``ConfigurationError`` for a name that is no plain file name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ConfigurationError(f"figure name '{name}': must consist of letters, digits, '_', '-' and '.'")
    figure.draw_without_rendering()
    return Drawing(name, figure, caption)


def legend(figure: Any, *, handles: Sequence[Any] | None = None) -> None:
    """A legend below the axes, where it covers nothing, with height added for it; none if there is nothing to say."""
    if handles is None:
        handles = figure.axes[0].get_legend_handles_labels()[0]
    labels = [wrap(str(h.get_label()), 52) for h in handles]
    for columns in range(len(labels), 0, -1):
        made = figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=2.2)
        bounds = made.get_window_extent()
        if bounds.width <= 0.97 * figure.bbox.width or columns == 1:
            figure.set_figheight(figure.get_figheight() + bounds.height / figure.dpi)
            return
        made.remove()


def whole_numbers(axes: Axes, which: str = "x") -> None:
    """Ticks on integers only (epochs, N, members)."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def name_tick(axes: Axes, which: str, value: float, word: str) -> None:
    """A word in place of one number on an axis of whole numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda at, _: word if at == value else f"{at:g}"))


def reference(axes: Axes, value: float, label: str) -> None:
    """A horizontal dashed line at a value to compare with; ``label`` is formatted with it."""
    axes.axhline(value, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)), label=label.format(value), zorder=1)


def colour(place: int) -> str:
    """The colour of the ``place``-th series."""
    return SERIES[place % len(SERIES)]


def dash(place: int) -> Any:
    """Its dashes."""
    return DASHES[(place + place // len(SERIES)) % len(DASHES)]


def thin(n_lines: int) -> dict[str, Any]:
    """Width and opacity of one line among many.

    >>> thin(1)["alpha"], thin(100)["alpha"]
    (1.0, 0.3)
    """
    if n_lines == 1:
        return {"linewidth": 1.6, "alpha": 1.0}
    return {"linewidth": 0.9 if n_lines <= 20 else 0.6, "alpha": max(0.3, 0.65 - 0.02 * n_lines)}


def member_key(colour: str, label: str = "one member") -> Line2D:
    """The entry of thin lines in a legend, strong enough to be seen there."""
    return Line2D([], [], color=colour, label=label, linewidth=0.9, alpha=0.7)


def wrap(text: str, width: int) -> str:
    """Lines of at most ``width`` letters, dollar signs kept from being read as formulas.

    >>> wrap("loss of every member", 10)
    'loss of\\nevery\\nmember'
    """
    return "\n".join(textwrap.wrap(text, width)).replace("$", r"\$") or text


def words(name: str) -> str:
    """A variable's name as a label: ``participation_ratio`` to ``participation ratio``."""
    return name.replace("_", " ")


def log_scale(axes: Axes, values: np.ndarray) -> None:
    """Logarithmic y where the values are positive and span more than a factor of ten; ticks as plain numbers."""
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")
        wide = np.log10(values.max() / values.min()) > 3
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
