"""A9: what a certificate of stability costs on the cognitive tasks of other papers, task by task."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from poprnn.cells.contract import Cell
from poprnn.cells.leaky_rnn import LeakyRNN
from poprnn.cells.sparse_combo_net import SparseComboNet
from poprnn.cells.svd_combo_net import SVDComboNet
from poprnn.recipes._assemblies import WORDS, difference
from poprnn.recipes._timescales import brackets
from poprnn.recipes._verdict import Verdict
from poprnn.recipes.contract import Claim
from poprnn.tasks.cognitive import Cognitive
from poprnn.tasks.contract import Task
from poprnn.tasks.flip_flop import FlipFlop
from poprnn.training.optimizers.adam import Adam
from poprnn.training.run import Run
from poprnn.training.settings import Population, Setup, Training

FREE = "leaky"
KINDS = {FREE: "leaky RNN", **WORDS}
TAU = 100.0
"""ms; of every unit (Soo et al.; Yang et al.)."""
FLIP_FLOP = "flip_flop"
"""Among ``tasks``, beside rules of the cognitive battery: three channels, 100 steps (Huang et al.)."""


def task_of(scale: Mapping[str, Any], name: str) -> Task:
    """A rule of the battery at the scale's step, or the flip-flop."""
    if name == FLIP_FLOP:
        return FlipFlop()
    return Cognitive(rule=name, dt=scale["dt"], timing="batch")


def network(scale: Mapping[str, Any], kind: str) -> Cell:
    """Equally many units, tau, step, ReLU and a linear readout for all three; no noise.

    The leaky RNN is the one without a constraint, ``tau dr/dt = -r + relu(W r + W_in x + b)``.
    """
    steps = {"dt": scale["dt"], "tau": TAU}
    size = {"n_modules": scale["n_modules"], "n_module_units": scale["n_module_units"]}
    if kind == FREE:
        n = scale["n_modules"] * scale["n_module_units"]
        outside: dict[str, Any] = {"self_interaction": "outside", "self_connection": True, "state_start": 0.0}
        return LeakyRNN(n_units=n, activation="relu", **steps, **outside)
    if kind == "svd":
        return SVDComboNet(**size, **steps)
    return SparseComboNet(**size, **steps, density=scale["density"])


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """Each task by each kind of network; Adam with clipped gradients, the same budget for all."""
    training = Training(
        batch=scale["batch"],
        epochs=scale["evaluations"],
        steps_per_epoch=scale["steps"] // scale["evaluations"],
        evaluation_batches=scale["evaluation_batches"],
        optimizer=Adam(learning_rate=scale["learning_rate"], clip_norm=1.0),
        monitors=(),
        snapshots="none",
    )
    return {
        f"{task}-{kind}": Setup(
            population=Population(members=scale["members"]),
            task=task_of(scale, task),
            cell=network(scale, kind),
            training=training,
        )
        for task in scale["tasks"]
        for kind in KINDS
    }


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Scores in the course of training, and on fresh trials at the end.

    ``score`` (member), 0 for those that diverged; ``course`` (evaluation, member) and ``steps`` (evaluation).
    """
    out = {}
    for label, run in runs.items():
        task, _, kind = label.rpartition("-")
        found = ask(label, "performance", run, n_trials=scale["trials"])
        score = np.zeros(run.n_members)
        if run.task.score in found:
            values = found[run.task.score].reindex(member=run.member_index).values
            score = np.nan_to_num(values.reshape(run.n_members, -1)[:, 0])
        course = run.history[f"scores/{run.task.score}"]
        steps = run.setup.training.steps_per_epoch * np.arange(1, len(course) + 1)
        lost = {what: run.outcome.count(what) for what in ("diverged", "certificate_broken")}
        out[label] = xr.Dataset(
            {
                "score": ("member", score),
                "course": (("evaluation", "member"), course.reshape(*course.shape[:2], -1)[..., 0]),
                "steps": ("evaluation", steps),
            },
            {"member": run.member_index},
            {"task": task, "kind": kind, "units": _units(scale), **lost},
        )
    return out


def _units(scale: Mapping[str, Any]) -> str:
    return f"{scale['n_modules']} × {scale['n_module_units']}"


def steps_to(answer: xr.Dataset, criterion: float) -> np.ndarray:
    """``[member]``: training steps to the first evaluation at the criterion, infinite where there is none.

    >>> values = {"course": (("evaluation", "member"), [[0.5, 0.2], [0.9, 0.3]]), "steps": ("evaluation", [10, 20])}
    >>> course = xr.Dataset(values)
    >>> steps_to(course, 0.8).tolist()
    [20.0, inf]
    """
    reached = answer["course"].values >= criterion
    return np.where(reached.any(axis=0), answer["steps"].values[reached.argmax(axis=0)], np.inf)


# --- verdicts ------------------------------------------------------------------------------------------------------


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdict on A9."""
    (rule,) = about["claims"]
    out = Verdict(rule)
    tasks = list(dict.fromkeys(a.attrs["task"] for a in answers.values()))
    out.note("ours: the text names this as future work")
    for what, words in (("diverged", "diverged"), ("certificate_broken", "lost their certificate")):
        lost = sum(a.attrs[what] for a in answers.values())
        if lost:
            out.note(f"{lost} members {words}")
    for task in tasks:
        _judge_task(out, {kind: answers[f"{task}-{kind}"] for kind in KINDS}, rule)
    if len(tasks) < rule["at_least"]:
        out.unjudged(f"fewer than {rule['at_least']} tasks")
    return [out.claim()]


def _judge_task(out: Verdict, mine: Mapping[str, xr.Dataset], rule: dict[str, Any]) -> None:
    """A clause: one of the certified kinds keeps both bounds."""
    free = mine[FREE]
    task, within = free.attrs["task"], []
    needed = {kind: float(np.median(steps_to(a, rule["criterion"]))) for kind, a in mine.items()}
    words = [f"{KINDS[FREE]} {free['score'].values.mean():.3f}{_steps(needed[FREE])}"]
    for kind in WORDS:
        cost, interval = difference(free["score"].values, mine[kind]["score"].values)
        words.append(
            f"{KINDS[kind]} {mine[kind]['score'].values.mean():.3f}{_steps(needed[kind])}, "
            f"cost {cost:+.3f} {brackets(interval)}"
        )
        in_time = np.isinf(needed[FREE]) or needed[kind] <= rule["times"] * needed[FREE]
        within.append(cost <= rule["cost"] and in_time)
    out.members += sum(a.sizes["member"] for a in mine.values())
    if free["score"].values.mean() < rule["learned"]:
        out.say(f"{task}: {'; '.join(words)}")
        out.unjudged(f"{task}: not learned without a constraint either (score under {rule['learned']:g})")
        return
    out.clause(any(within), f"{task}: {'; '.join(words)}")


def _steps(n: float) -> str:
    return " (not at the criterion)" if np.isinf(n) else f" (criterion after {n:.0f} steps)"


# --- figures -------------------------------------------------------------------------------------------------------


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Scores in the course of training, task by task, and at the end."""
    from poprnn.report.panels import by_group, over

    tasks = list(dict.fromkeys(a.attrs["task"] for a in answers.values()))
    if not tasks:
        return {}
    of = lambda task: {KINDS[kind]: answers[f"{task}-{kind}"] for kind in KINDS}
    courses = [
        over(
            f"course_{task}",
            {
                words: (a["steps"].values, a["course"].values.T)
                for words, a in of(task).items()
                if np.isfinite(a["course"]).any()
            },
            "training steps",
            "score",
            f"Scores on fresh trials while '{task}' is learned.",
            title=task,
        )
        for task in tasks
    ]
    groups = {task: {words: a["score"].values for words, a in of(task).items()} for task in tasks}
    final = by_group("final", groups, "score", "Score on fresh trials at the end of training.")
    return {"at the end": [final], "in the course of training": courses}
