"""T16: what the curriculum does for GRU and LSTM."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from poprnn.cells.contract import Cell
from poprnn.cells.gru import GRU
from poprnn.cells.lstm import LSTM
from poprnn.recipes._timescales import (
    CURRICULA,
    TASKS,
    ask_after_scratch,
    both_curricula,
    brackets,
    by_trained_n,
    from_scratch,
    hyphened,
)
from poprnn.recipes._variants import about_training, ask_largest_n
from poprnn.recipes._verdict import Verdict
from poprnn.recipes.contract import Claim, bootstrap
from poprnn.training.optimizers.adam import Adam
from poprnn.training.run import Run
from poprnn.training.settings import Setup

CELLS: dict[str, Callable[..., Cell]] = {"gru": GRU, "lstm": LSTM}
OPTIMIZER = Adam(learning_rate=1e-3)
BITS = {"bit_values": (-1.0, 1.0), "bit_probability": 0.5}
"""Inputs without a mean."""


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """For each task and cell: single-head, multi-head, and from scratch on every N in ``none_n``, for equal epochs."""
    out: dict[str, Setup] = {}
    for task in scale.get("tasks", TASKS):
        for name, cell in CELLS.items():
            how = {
                "cell": cell(n_units=scale["n_units"]),
                "task_options": BITS,
                "optimizer": OPTIMIZER,
                "batch": scale["lstm_batch"] if name == "lstm" else scale["batch"],
            }
            for label, made in both_curricula(scale, [task], **how).items():
                out[f"{task}-{name}-{label.removeprefix(f'{task}-')}"] = made
            out[f"{task}-{name}-none"] = from_scratch(scale, task, scale["none_n"], scale["epochs"], **how)
    return out


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """The largest N of every member on fresh trials; from scratch, the accuracy of every member at its N."""
    return {
        label: (ask_after_scratch if label.endswith("-none") else ask_largest_n)(ask, label, run, scale)
        for label, run in runs.items()
    }


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdict on T16."""
    (rule,) = about["claims"]
    verdict = Verdict(rule)
    tasks = [task for task in TASKS if any(label.startswith(task) for label in answers)]
    for task in tasks:
        for cell in CELLS:
            single, multi = (answers[f"{task}-{cell}-{c}"]["largest_n"].values for c in CURRICULA)
            verdict.members += len(single) + len(multi) + answers[f"{task}-{cell}-none"].sizes["member"]
            name = f"{task} {cell.upper()}"
            _judge_none(verdict, name, multi, by_trained_n(answers[f"{task}-{cell}-none"], "accuracy", blank=0.5))
            if cell == "lstm":
                _judge_single(verdict, name, multi, single)
    for words in about_training({k: a for k, a in answers.items() if not k.endswith("none")}, rule["epochs"]):
        verdict.note(words)
    if tasks != list(TASKS):
        verdict.note(f"stand-in: {', '.join(tasks)} only")
    return [verdict.claim()]


def _largest_from_scratch(accuracy: dict[int, np.ndarray], threshold: float) -> int:
    """The largest N that the median member trained on it solves, 0 if there is none."""
    return max((n for n, values in accuracy.items() if np.median(values) > threshold), default=0)


def _judge_none(verdict: Verdict, name: str, multi: np.ndarray, none: dict[int, np.ndarray]) -> None:
    """Multi-head against training from scratch."""
    threshold = verdict.rule["accuracy"]
    largest = _largest_from_scratch(none, threshold)
    if not multi.any() and not largest:
        verdict.unjudged(f"{name}: neither multi-head nor training from scratch has solved any N")
        return
    if multi.any() and largest == max(none) <= multi.mean():
        verdict.unjudged(f"{name}: from scratch N = {largest} was solved, the largest that was asked")
        return
    memories = list(none)

    def difference(multi: np.ndarray, *by_n: np.ndarray) -> float:
        return _mean(multi) - _largest_from_scratch(dict(zip(memories, by_n, strict=True)), threshold)

    _clause(
        verdict, f"{name}: multi-head {_mean(multi):.3g}, from scratch {largest}", difference, (multi, *none.values())
    )


def _judge_single(verdict: Verdict, name: str, multi: np.ndarray, single: np.ndarray) -> None:
    """Multi-head against single-head."""
    if not multi.any() and not single.any():
        verdict.unjudged(f"{name}: neither curriculum has solved any N")
        return
    _clause(
        verdict,
        f"{name}: multi-head {_mean(multi):.3g}, single-head {_mean(single):.3g}",
        lambda a, b: _mean(a) - _mean(b),
        (multi, single),
    )


def _clause(verdict: Verdict, words: str, difference: Callable[..., float], samples: tuple[np.ndarray, ...]) -> None:
    """Whether a difference and its interval, resampling members within each population, lie above 0."""
    value = difference(*samples)
    if min(len(sample) for sample in samples) < 2:
        verdict.unjudged(f"{words}: fewer than two members, so no interval")
        return
    interval = bootstrap(difference, *samples)
    verdict.interval = verdict.interval or interval
    verdict.clause(value > 0 and interval[0] > 0, f"{words}, difference {value:.3g} {brackets(interval)}")


def _mean(largest: np.ndarray) -> float:
    """0 where nobody is left."""
    return float(largest.mean()) if len(largest) else 0.0


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figures S15 and S16: largest N by cell and curriculum, accuracy from scratch, progress under both curricula."""
    from poprnn.report.compare import progress
    from poprnn.report.panels import by_group, over

    figures: dict[str, Any] = {}
    for task in TASKS:
        cells = [cell for cell in CELLS if f"{task}-{cell}-none" in answers]
        if not cells:
            continue
        none = {cell: by_trained_n(answers[f"{task}-{cell}-none"], "accuracy", blank=0.5) for cell in cells}
        largest = {
            cell.upper(): {"from scratch": [_largest_from_scratch(none[cell], 0.98)]}
            | {hyphened(c): answers[f"{task}-{cell}-{c}"]["largest_n"].values for c in CURRICULA}
            for cell in cells
        }
        figures[task] = [
            by_group(
                "largest_n",
                largest,
                "largest memory N solved (bits)",
                "Largest N after equal epochs, on fresh trials; from scratch: the largest N that the median member "
                "trained on it solves; 0: none.",
            ),
            over(
                "from_scratch",
                {c.upper(): (np.array(list(a)), np.stack(list(a.values()), axis=1)) for c, a in none.items()},
                "memory N trained",
                "accuracy",
                "Accuracy on fresh trials after training on one N from scratch.",
                whole_x=True,
                reference=(0.98, "threshold {:g}"),
            ),
            progress({f"{c.upper()}, {hyphened(k)}": runs[f"{task}-{c}-{k}"] for c in cells for k in CURRICULA}),
        ]
    return figures
