"""Which figures a run gets, and writing them to its folder."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from poprnn.analysis.contract import Result
from poprnn.report import curves, results
from poprnn.report.style import Drawing
from poprnn.training.run import Run

Given = Mapping[str, Figure | Drawing | Iterable[Drawing]] | Iterable[Drawing] | None
"""Figures of the user's own: matplotlib figures by caption, drawings, or drawings by what they are about."""


def save_figures(run: Run, folder: str | Path, results_: Iterable[Result] = (), figures: Given = None) -> list[Path]:
    """Write the training figures of a run and those of its results as ``NAME.png`` and ``NAME.svg``.

    Args:
        run: the population.
        folder: where to write; made if missing. Files of the same name are replaced.
        results_: answers of analyses.
        figures: figures of your own.

    Returns:
        The files written.

    Raises:
        StorageError: the folder cannot be written to.

    >>> import tempfile, poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=8), epochs=1, steps_per_epoch=1, batch=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in save_figures(run, folder)][:2]
    ['loss.png', 'loss.svg']
    """
    drawings = [*curves.draw(run), *(d for result in results_ for d in results.draw(result)), *given(figures)]
    return [path for drawing in unique(drawings) for path in drawing.save(folder)]


def given(figures: Given) -> list[Drawing]:
    """The user's figures as drawings; plain matplotlib figures keep their own colours on white.

    Where drawings come by name, the name stands before each one's own.

    >>> from matplotlib.figure import Figure
    >>> [(d.name, d.caption) for d in given({"My figure.": Figure(), "n_parity": [Drawing("tau", Figure(), "Means.")]})]
    [('figure_1', 'My figure.'), ('n_parity_tau', 'n_parity: Means.')]
    """
    if figures is None:
        return []
    if not isinstance(figures, Mapping):
        return list(figures)
    out = []
    for i, (word, figure) in enumerate(figures.items()):
        if isinstance(figure, Figure):
            out.append(Drawing(f"figure_{i + 1}", figure, word, themed=False))
        else:
            drawings = [figure] if isinstance(figure, Drawing) else figure
            stem = re.sub(r"[^\w.-]", "_", word)
            out += [dataclasses.replace(d, name=f"{stem}_{d.name}", caption=f"{word}: {d.caption}") for d in drawings]
    return out


def unique(drawings: Iterable[Drawing]) -> list[Drawing]:
    """The same drawings, later ones renamed where two share a name.

    >>> from matplotlib.figure import Figure
    >>> [d.name for d in unique([Drawing("a", Figure(), ""), Drawing("a", Figure(), "")])]
    ['a', 'a_2']
    """
    seen: dict[str, int] = {}
    out = []
    for drawing in drawings:
        seen[drawing.name] = seen.get(drawing.name, 0) + 1
        n = seen[drawing.name]
        out.append(drawing if n == 1 else dataclasses.replace(drawing, name=f"{drawing.name}_{n}"))
    return out
