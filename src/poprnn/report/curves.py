"""How training went: loss, score and curriculum of every member against epochs, and how members ended."""

import dataclasses
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from poprnn.core.errors import NotApplicableError
from poprnn.report import style
from poprnn.report.style import Drawing
from poprnn.tasks._memory import MemoryTask
from poprnn.training.run import Run

EVERYONE = "from the slowest member to the fastest"
_OUTCOMES = {"solved": style.GREEN, "budget_spent": style.BLUE, "diverged": style.VERMILLION,
             "stopped_early": style.PURPLE, "training": style.QUIET, "brought_in": style.SKY}


def draw(run: Run) -> list[Drawing]:
    """Every training figure that makes sense for this run; none for one that was brought in from elsewhere.

    >>> import poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=8), epochs=1, steps_per_epoch=1, batch=4)
    >>> [drawing.name for drawing in draw(run)]
    ['loss', 'score', 'heads']
    """
    out = []
    if len(run.history):
        out = [loss(run), score(run)]
        if run.setup.training.curriculum.n_stages(run.task) > 1:
            out.append(curriculum(run))
        elif run.task.n_heads > 1:
            out.append(heads(run))
    if run.n_members > 1:
        out.append(outcomes(run))
    return out


# --- what is drawn -------------------------------------------------------------------------------------------------


def largest_solved(run: Run) -> np.ndarray:
    """``[epoch, member]``: the largest memory N solved so far, for curricula that add heads one by one.

    For tasks without a memory N: the number of stages passed. Members that have ended keep their last value;
    before the first stage is passed it is the smallest N minus one.

    >>> import poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=8), epochs=1, steps_per_epoch=1, batch=4,
    ...              curriculum="multi_head")
    >>> largest_solved(run).tolist()
    [[1]]
    """
    passed = run.history["passed"]
    asked = memories(run)
    if asked is None:
        return np.cumsum(passed, axis=0)
    return np.maximum.accumulate(np.where(passed, asked[run.history["newest"]], asked.min() - 1), axis=0)


def mean_score(run: Run) -> np.ndarray:
    """``[epoch, member]``: the task's score, averaged over the heads active in that epoch; NaN once a member has ended.

    >>> import poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=8), epochs=1, steps_per_epoch=1, batch=4)
    >>> mean_score(run).shape
    (1, 1)
    """
    scores = run.history[f"scores/{run.task.score}"]
    scores = scores.reshape(*scores.shape[:2], -1)
    there = np.isfinite(scores)
    total = np.where(there, scores, 0.0).sum(-1)
    return np.where(there.any(-1), total / np.maximum(there.sum(-1), 1), np.nan)


def loss(run: Run) -> Drawing:
    """Loss on fresh trials against epochs, one thin line a member, and the median.

    Raises ``NotApplicableError`` for a run without history. The other figures of this module do the same.
    """
    values = _history(run, "loss")
    with style.look():
        figure, axes = style.panel("epoch", "loss on fresh trials")
        style.log_scale(axes, values)
        _lines(axes, run, values, worst=np.inf)
        caption = f"Loss after every epoch of {run.setup.training.steps_per_epoch} steps."
        if run.setup.training.curriculum.n_stages(run.task) > 1:
            caption += " It jumps whenever a stage is passed."
        return style.finish("loss", figure, caption + _explain(run))


def score(run: Run) -> Drawing:
    """Score on fresh trials against epochs, with the curriculum's threshold."""
    _history(run, "loss")
    training, word = run.setup.training, style.words(run.task.score)
    with style.look():
        figure, axes = style.panel("epoch", word + (" over active heads" if run.task.n_heads > 1 else ""))
        _lines(axes, run, mean_score(run), worst=-np.inf, threshold=training.curriculum.threshold)
        caption = f"Mean {word} over the active heads, on fresh trials." if run.task.n_heads > 1 else (
            f"{word.capitalize()} on fresh trials.")
        if training.curriculum.n_stages(run.task) > 1:
            caption += " It drops whenever a stage is passed."
        caption += _explain(run)
        return style.finish("score", figure, caption)


def curriculum(run: Run) -> Drawing:
    """Largest memory N solved (or stages passed, for tasks without N) against epochs."""
    _history(run, "loss")
    asked = memories(run)
    about = f"Progress in the curriculum {run.setup.training.curriculum.name()}"
    about += "."
    with style.look():
        figure, axes = style.panel("epoch", "stages passed" if asked is None else "largest N solved")
        about += _steps(axes, run, largest_solved(run))
        if asked is not None:
            style.name_tick(axes, "y", asked.min() - 1, "none")
        return style.finish("curriculum", figure, about)


def heads(run: Run) -> Drawing:
    """Number of heads whose score exceeds the curriculum's threshold, against epochs (all heads from the start)."""
    _history(run, "loss")
    scores = run.history[f"scores/{run.task.score}"]
    threshold = run.setup.training.curriculum.threshold
    count = (np.nan_to_num(scores.reshape(*scores.shape[:2], -1)) > threshold).sum(-1)
    with style.look():
        figure, axes = style.panel("epoch", f"heads above {threshold:g}")
        about = _steps(axes, run, _held(np.where(np.isfinite(run.history["loss"]), count, np.nan), run, 0))
        axes.set_ylim(-0.5, max(count.max(), 1) + 0.5)
        about = f"Heads (of {run.task.n_heads}) with {style.words(run.task.score)} above {threshold:g}.{about}"
        return style.finish("heads", figure, about)


def outcomes(run: Run) -> Drawing:
    """How many members ended in which way."""
    counts = {word: run.outcome.count(word) for word in dict.fromkeys(run.outcome)}
    order = sorted(counts, key=lambda word: (word != "solved", word == "diverged", word))
    with style.look():
        figure, axes = style.panel("members", "outcome", height=0.95 + 0.32 * len(order))
        colours = [_OUTCOMES.get(word, style.ORANGE) for word in order]
        bars = axes.barh([style.wrap(style.words(w), 26) for w in order], [counts[w] for w in order], color=colours,
                         height=0.62)
        axes.bar_label(bars, padding=3, color=style.INK)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set_xlim(0, 1.08 * max(counts.values()))
        style.whole_numbers(axes, "x")
        return style.finish("outcomes", figure, f"How the {run.n_members} members ended.")


# --- how it is drawn -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Group:
    """Members drawn in one colour."""

    label: str
    colour: str
    dash: Any
    members: np.ndarray


def _groups(run: Run) -> list[_Group]:
    """All members together; or by value, where a single hyperparameter takes two to six values."""
    everyone = np.arange(run.n_members)
    varied = {name: values for name, values in run.varied.items() if len(np.unique(values)) > 1}
    if len(varied) == 1:
        (name, values), = varied.items()
        distinct = np.unique(values)
        if len(distinct) <= len(style.SERIES):
            return [_Group(f"{style.words(name.rsplit('.', 1)[-1])} {value:g}", style.colour(i), style.dash(i),
                           np.flatnonzero(values == value)) for i, value in enumerate(distinct)]
    return [_Group("median", style.BLUE, "-", everyone)]


def _lines(axes: Axes, run: Run, values: np.ndarray, *, worst: float, threshold: float | None = None) -> None:
    """Thin lines for members, a thick one for the median, marks where members ended, the legend below.

    A member that has ended counts in the median with its last value; one that diverged with ``worst``.
    """
    epochs, groups, held = np.arange(1, len(values) + 1), _groups(run), _held(values, run, worst)
    dot = "." if len(epochs) == 1 else None
    look = {"marker": dot, "rasterized": values.size > style.RASTER, **style.thin(run.n_members)}
    for group in groups:
        for k in group.members:
            axes.plot(epochs, values[:, k], color=group.colour, **look)
        if len(group.members) > 1:
            middle = np.median(held[:, group.members], axis=1)
            axes.plot(epochs, np.where(np.isfinite(middle), middle, np.nan), color=group.colour, linewidth=2.2,
                      linestyle=group.dash, label=group.label, marker=dot)
        elif len(groups) > 1:
            axes.plot([], [], color=group.colour, label=group.label)
    _ends(axes, run, values, edge=1 if worst > 0 else 0)
    if threshold is not None:
        style.reference(axes, threshold, "to be exceeded: {:g}")
    _frame(axes, run, "one member")


def _steps(axes: Axes, run: Run, held: np.ndarray) -> str:
    """The same for whole numbers: lines a little apart, or for many members a band. Returns how to read them."""
    epochs, groups = np.arange(1, len(held) + 1), _groups(run)
    many = run.n_members > 20
    shift = np.linspace(-0.18, 0.18, run.n_members) if run.n_members > 1 and not many else np.zeros(run.n_members)
    there = np.where(np.isfinite(run.history["loss"]), held, np.nan) + shift
    dot = "." if len(epochs) == 1 else None
    look: dict[str, Any] = {"marker": dot, "drawstyle": "steps-mid"}
    for group in groups:
        mine = held[:, group.members]
        for k in [] if many else group.members:
            axes.plot(epochs, there[:, k], color=group.colour, **look, **style.thin(run.n_members))
        if many:
            axes.fill_between(epochs, mine.min(1), mine.max(1), step="mid", color=group.colour, alpha=0.18, linewidth=0)
        if len(group.members) > 1:
            middle = np.percentile(mine, 50, axis=1, method="higher")
            axes.plot(epochs, middle, color=group.colour, linewidth=2.2, linestyle=group.dash, label=group.label,
                      **look)
        elif len(groups) > 1:
            axes.plot([], [], color=group.colour, label=group.label)
    if not many:
        _ends(axes, run, there, edge=0)
    style.whole_numbers(axes, "y")
    _frame(axes, run, EVERYONE if many else "one member")
    if run.n_members == 1:
        return ""
    return (" Thick: reached by half of the members" + (" alike" if len(groups) > 1 else "") + "; " + (
        "band: all members." if many else "thin: one member each, drawn a little apart."))


def _frame(axes: Axes, run: Run, members: str) -> None:
    """Limits, ticks and legend that all training curves share."""
    n_epochs, groups = len(run.history), _groups(run)
    style.whole_numbers(axes, "x")
    axes.set_xlim(0.5, n_epochs + 0.5)
    handles = axes.get_legend_handles_labels()[0]
    if run.n_members > 1:
        colour = style.BLUE if len(groups) == 1 else style.QUIET
        key = (Patch(color=colour, alpha=0.18, linewidth=0, label=members) if members == EVERYONE
               else style.member_key(colour, members))
        handles.insert(len(groups), key)
    style.legend(axes.figure, handles=handles)


def _ends(axes: Axes, run: Run, values: np.ndarray, *, edge: int) -> None:
    """A dot where a member solved the task, a cross where it diverged (at the lower or upper edge without a value)."""
    marks = {"solved": ("o", style.GREEN, 4), "diverged": ("x", style.INK, 6)}
    border = axes.get_ylim()[edge]
    for word, (marker, colour, size) in marks.items():
        members = [k for k in range(run.n_members) if run.outcome[k] == word]
        if not members:
            continue
        last = [_last(values[:, k]) for k in members]
        heights = [border if at is None else values[at, k] for at, k in zip(last, members, strict=True)]
        axes.plot([1 if at is None else at + 1 for at in last], heights, marker, color=colour, markersize=size,
                  markeredgewidth=1.4, linestyle="none", label=word, clip_on=False, zorder=4)


def _last(line: np.ndarray) -> int | None:
    """Place of the last finite value."""
    finite = np.flatnonzero(np.isfinite(line))
    return int(finite[-1]) if finite.size else None


def _held(values: np.ndarray, run: Run, worst: float | None) -> np.ndarray:
    """Values with gaps at the end filled by the last one before, or by ``worst`` for members that diverged."""
    held = values.astype(float)
    for k, word in enumerate(run.outcome):
        at = _last(values[:, k])
        if word == "diverged" or at is None:
            held[0 if at is None else at + 1:, k] = worst
        else:
            held[at + 1:, k] = held[at, k]
    return held


def _explain(run: Run) -> str:
    """The part of a caption that says how to read the lines."""
    if run.n_members == 1:
        return ""
    groups = _groups(run)
    text = " Thin: one member each; thick: median" + (" of those alike." if len(groups) > 1 else " over members.")
    ended = np.isnan(run.history["loss"][-1]).any()
    return text + (" A member that has ended counts with its last value, one that diverged as worst." if ended else "")


def memories(run: Run) -> np.ndarray | None:
    """The memory N that each head asks for; ``None`` for tasks that are not about memories."""
    return np.asarray(run.task.memories) if isinstance(run.task, MemoryTask) else None


def _history(run: Run, name: str) -> np.ndarray:
    if not len(run.history):
        raise NotApplicableError("the run has no history: no epoch was finished, or it was brought in from elsewhere")
    return run.history[name]
