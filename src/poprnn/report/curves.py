"""How training went: loss, score and curriculum of every member against epochs, and how members ended."""

import numpy as np

from poprnn.core.errors import NotApplicableError
from poprnn.report import lines, style
from poprnn.report.style import Drawing
from poprnn.tasks._memory import MemoryTask
from poprnn.training.run import Run

_OUTCOMES = {
    "solved": style.GREEN,
    "budget_spent": style.BLUE,
    "diverged": style.VERMILLION,
    "certificate_broken": style.ORANGE,
    "stopped_early": style.PURPLE,
    "training": style.QUIET,
    "brought_in": style.SKY,
}


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
        lines.lines(axes, run, values, worst=np.inf)
        caption = f"Loss after every epoch of {run.setup.training.steps_per_epoch} steps."
        if run.setup.training.curriculum.n_stages(run.task) > 1:
            caption += " It jumps whenever a stage is passed."
        return style.finish("loss", figure, caption + lines.explain(run))


def score(run: Run) -> Drawing:
    """Score on fresh trials against epochs, with the curriculum's threshold."""
    _history(run, "loss")
    training, word = run.setup.training, style.words(run.task.score)
    with style.look():
        figure, axes = style.panel("epoch", word + (" over active heads" if run.task.n_heads > 1 else ""))
        lines.lines(axes, run, mean_score(run), worst=-np.inf, threshold=training.curriculum.threshold)
        caption = (
            f"Mean {word} over the active heads, on fresh trials."
            if run.task.n_heads > 1
            else (f"{word.capitalize()} on fresh trials.")
        )
        if training.curriculum.n_stages(run.task) > 1:
            caption += " It drops whenever a stage is passed."
        caption += lines.explain(run)
        return style.finish("score", figure, caption)


def curriculum(run: Run) -> Drawing:
    """Largest memory N solved (or stages passed, for tasks without N) against epochs."""
    _history(run, "loss")
    asked = memories(run)
    about = f"Progress in the curriculum {run.setup.training.curriculum.name()}"
    about += "."
    with style.look():
        figure, axes = style.panel("epoch", "stages passed" if asked is None else "largest N solved")
        about += lines.steps(axes, run, largest_solved(run))
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
        about = lines.steps(
            axes, run, lines.held_values(np.where(np.isfinite(run.history["loss"]), count, np.nan), run, 0)
        )
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
        bars = axes.barh(
            [style.wrap(style.words(w), 26) for w in order], [counts[w] for w in order], color=colours, height=0.62
        )
        axes.bar_label(bars, padding=3, color=style.INK)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set_xlim(0, 1.08 * max(counts.values()))
        style.whole_numbers(axes, "x")
        return style.finish("outcomes", figure, f"How the {run.n_members} members ended.")


def memories(run: Run) -> np.ndarray | None:
    """The memory N that each head asks for; ``None`` for tasks that are not about memories."""
    return np.asarray(run.task.memories) if isinstance(run.task, MemoryTask) else None


def _history(run: Run, name: str) -> np.ndarray:
    if not len(run.history):
        raise NotApplicableError("the run has no history: no epoch was finished, or it was brought in from elsewhere")
    return run.history[name]
