"""T1: which memories can be learned from scratch."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.recipes._timescales import TASKS, ask_after_scratch, brackets, by_trained_n, from_scratch
from poprnn.recipes.contract import Claim, bootstrap
from poprnn.training.run import Run
from poprnn.training.settings import Setup

WORDS = {"n_parity": "N-parity", "n_dms": "N-DMS"}


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """Both tasks from scratch, on every N in ``parity_n`` and ``dms_n``."""
    memories = {"n_parity": scale["parity_n"], "n_dms": scale["dms_n"]}
    return {task: from_scratch(scale, task, memories[task], scale["none_epochs"]) for task in TASKS}


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Accuracy on fresh trials at the end and epochs needed; both blank for members that diverged."""
    return {task: ask_after_scratch(ask, task, run, scale) for task, run in runs.items()}


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdict on T1."""
    (rule,) = about["claims"]
    parity, fast, never = (
        _judge_parity(answers["n_parity"], rule),
        _judge_fast(answers["n_dms"], rule),
        _judge_never(answers["n_dms"], rule),
    )
    parts = {
        f"parity, N > {rule['parity_n']}": parity[:2],
        f"DMS, N <= {rule['fast_n']}": fast,
        f"DMS, N > {rule['never_n']}": never,
    }
    notes = [f"{name}: no such N at this scale" for name, (verdict, _) in parts.items() if verdict is None]
    notes += _stand_in(answers["n_parity"].attrs, rule)
    verdicts = [verdict for verdict, _ in parts.values()]
    passed = None if all(v is None for v in verdicts) else all(verdicts)
    words = "; ".join(word for _, word in parts.values() if word)
    members = sum(a.sizes["member"] for a in answers.values())
    return [Claim("T1", rule["claim"], rule["paper"], words, parity[2], members, passed, "; ".join(notes))]


def _judge_parity(found: xr.Dataset, rule: dict[str, Any]) -> tuple[bool | None, str, list[float] | None]:
    accuracy = {n: a for n, a in by_trained_n(found, "accuracy", blank=0.5).items() if n > rule["parity_n"]}
    if not accuracy:
        return None, "", None
    best = max(accuracy, key=lambda n: np.median(accuracy[n]))
    interval = bootstrap(np.median, accuracy[best])
    # those that passed in training may be under the threshold on fresh trials
    passed = sum(int(np.isfinite(e).sum()) for n, e in by_trained_n(found, "epochs").items() if n in accuracy)
    words = (
        f"parity, N > {rule['parity_n']}: largest median accuracy {np.median(accuracy[best]):.3f} {brackets(interval)} "
        f"(N = {best}), {passed} of {sum(len(a) for a in accuracy.values())} members passed in training"
    )
    return all(np.median(a) < rule["accuracy"] for a in accuracy.values()), words, interval


def _judge_fast(found: xr.Dataset, rule: dict[str, Any]) -> tuple[bool | None, str]:
    epochs = {n: e for n, e in by_trained_n(found, "epochs").items() if n <= rule["fast_n"]}
    if not epochs:
        return None, ""
    words = [f"N = {n}: {(e <= rule['fast']).sum()} of {len(e)}" for n, e in epochs.items()]
    fast = all(bool((e <= rule["fast"]).all()) for e in epochs.values())
    return fast, f"DMS solved within {rule['fast']} epochs: {', '.join(words)}"


def _judge_never(found: xr.Dataset, rule: dict[str, Any]) -> tuple[bool | None, str]:
    epochs = {n: e for n, e in by_trained_n(found, "epochs").items() if n > rule["never_n"]}
    if not epochs:
        return None, ""
    words = [f"N = {n}: {np.isfinite(e).sum()} of {len(e)}" for n, e in epochs.items()]
    return all(bool(np.isnan(e).all()) for e in epochs.values()), f"DMS solved at all: {', '.join(words)}"


def _stand_in(used: dict[str, Any], rule: dict[str, Any]) -> list[str]:
    """What the budget was, where it was not the paper's."""
    budget = ("epochs", "steps_per_epoch", "batch")
    if all(used[name] == rule[name] for name in budget):
        return []
    epochs, steps, batch = ((used[name], rule[name]) for name in budget)
    return [
        f"stand-in: {epochs[0]} epochs instead of {epochs[1]}, "
        f"of {steps[0]} steps of {batch[0]} trials instead of {steps[1]} of {batch[1]}"
    ]


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figures 3a and S13: accuracy while training on each N; accuracy at the end and epochs needed against N."""
    from poprnn.report.panels import over

    figures: dict[str, Any] = {
        task: over(
            "training",
            _training(runs[task]),
            "epoch",
            f"accuracy, {WORDS[task]}",
            f"Accuracy of {WORDS[task]} while networks are trained on one N from scratch; those that have passed keep "
            "their last value.",
            whole_x=True,
            reference=(0.98, "threshold {:g}"),
        )
        for task in runs
    }
    figures["both"] = [
        over(
            "accuracy",
            {WORDS[task]: _matrix(a, "accuracy") for task, a in answers.items()},
            "memory N trained",
            "accuracy",
            "Accuracy on fresh trials at the end of training on one N from scratch.",
            whole_x=True,
            reference=(0.98, "threshold {:g}"),
        ),
        over(
            "epochs_needed",
            {WORDS[task]: _matrix(a, "epochs") for task, a in answers.items()},
            "memory N trained",
            "epochs needed to pass 98 %",
            "Epochs that were needed to pass the threshold, over the members that did.",
            whole_x=True,
        ),
    ]
    return figures


def _training(run: Run) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each N the score of its members after every epoch, ``[member, epoch]``."""
    head = run.varied["training.curriculum.head"]
    score = run.history["scores/accuracy"][:, np.arange(run.n_members), head]
    for epoch in range(1, len(score)):
        score[epoch] = np.where(np.isnan(score[epoch]), score[epoch - 1], score[epoch])
    epochs = np.arange(1, len(score) + 1)
    return {run.task.head_name(int(h)): (epochs, score[:, head == h].T) for h in np.unique(head)}  # type: ignore[attr-defined]


def _matrix(found: xr.Dataset, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Every N, and ``[member, n]``."""
    groups = by_trained_n(found, name)
    return np.array(list(groups)), np.stack(list(groups.values()), axis=1)
