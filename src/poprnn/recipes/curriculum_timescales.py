"""T2 and T4: what a curriculum does to the longest memory and to the time constants."""

from typing import Any

import numpy as np
from scipy.stats import linregress, spearmanr

from poprnn.cells.leaky_rnn import LeakyRNN
from poprnn.core import catalogue
from poprnn.recipes.contract import Claim, bootstrap
from poprnn.training.curricula.multi_head import MultiHead
from poprnn.training.curricula.none import None_
from poprnn.training.curricula.single_head import SingleHead
from poprnn.training.evaluate import evaluate
from poprnn.training.optimizers.sgd import Sgd
from poprnn.training.run import Run
from poprnn.training.settings import Population, Setup, Training

TASKS = ("n_parity", "n_dms")
SGD = Sgd(learning_rate=0.05, momentum=0.1, nesterov=True, clip_norm=2.0)


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """For each task: single-head, multi-head, and from scratch on every N in ``none_n``."""
    out = {}
    for name in scale.get("tasks", TASKS):
        task = catalogue.find("tasks", name)(n_max=scale["n_max"])
        cell = LeakyRNN(n_units=scale["n_units"])

        def training(curriculum: Any, epochs: int) -> Training:
            return Training(
                batch=scale["batch"],
                epochs=epochs,
                steps_per_epoch=scale["steps_per_epoch"],
                evaluation_batches=scale["evaluation_batches"],
                optimizer=SGD,
                curriculum=curriculum,
            )

        members = Population(members=scale["members"])
        for curriculum in (SingleHead(), MultiHead()):
            out[f"{name}-{curriculum.name()}"] = Setup(
                population=members, task=task, cell=cell, training=training(curriculum, scale["epochs"])
            )
        if scale["none_n"]:
            heads = tuple(n - task.n_min for n in scale["none_n"])
            # one population holds every N: member k is trained on the (k mod len)-th
            scratch = Population(members=scale["members"] * len(heads), vary={"training.curriculum.head": heads})
            short = catalogue.find("tasks", name)(n_max=max(scale["none_n"]))
            out[f"{name}-none"] = Setup(
                population=scratch, task=short, cell=cell, training=training(None_(head=heads[0]), scale["none_epochs"])
            )
    return out


def largest_n(run: Run, threshold: float, n_trials: int) -> np.ndarray:
    """``[member]``: the largest N whose stage was passed and whose snapshot scores above ``threshold`` once more.

    The training's own evaluations chose the stage, so the verdict comes from trials they have not seen: the mean over
    the stage's active heads and the newest head's accuracy must both exceed the threshold again. 0 where none does.
    """
    task: Any = run.task
    best = np.zeros(run.n_members, int)
    for name, snapshot in run.snapshots.items():
        stage = int(name.removeprefix("stage_"))
        active, newest = (np.asarray(a) for a in run.setup.training.curriculum.heads(task, stage))
        accuracy = evaluate(run.at(name), heads=active[None, :], n_trials=n_trials)["accuracy"][:, 0]
        good = (np.nanmean(np.where(active, accuracy, np.nan), axis=1) > threshold) & (
            accuracy[:, int(newest)] > threshold
        )
        n = task.n_min + int(newest)
        best = np.where(snapshot.reached & good, np.maximum(best, n), best)
    return best


def tau_by_n(run: Run) -> np.ndarray:
    """``[moment, (N, member, mean tau, SD tau)]`` over the moments at which members solved an N."""
    rows = []
    task: Any = run.task
    cell: Any = run.cell
    scratch = isinstance(run.setup.training.curriculum, None_)
    for name, snapshot in run.snapshots.items():
        stage = int(name.removeprefix("stage_"))
        tau = np.maximum(_tau(snapshot.parameters), cell.dt)
        for k in np.flatnonzero(snapshot.reached):
            if scratch:
                head = int(run.setup.population.values(int(k))["training.curriculum.head"])
            else:
                head = int(run.setup.training.curriculum.heads(run.task, stage)[1])
            rows.append((task.n_min + head, k, tau[k].mean(), tau[k].std()))
    return np.array(rows, float).reshape(-1, 4)


def _tau(parameters: Any) -> np.ndarray:
    return np.asarray({**parameters.fixed, **parameters.trainable}["tau"])


def judge(runs: dict[str, Run], about: dict[str, Any], n_trials: int = 12800) -> list[Claim]:
    """Verdicts on T2 and T4."""
    rules = {c["id"]: c for c in about["claims"]}
    tasks = [t for t in TASKS if f"{t}-multi_head" in runs]
    claims = [_judge_t2(runs, tasks, rules["T2"], n_trials)]
    if any(f"{t}-none" in runs for t in tasks):
        claims.append(_judge_t4(runs, tasks, rules["T4"]))
    return claims


def _judge_t2(runs: dict[str, Run], tasks: list[str], rule: dict[str, Any], n_trials: int) -> Claim:
    words, passed, members = [], True, 0
    for task in tasks:
        single, multi = (
            largest_n(runs[f"{task}-{c}"], rule["threshold"], n_trials) for c in ("single_head", "multi_head")
        )
        words.append(f"{task}: single-head {_range(single)}, multi-head {_range(multi)}")
        passed &= bool(multi.min() > single.max())
        members += len(single) + len(multi)
    note = "" if tasks == list(TASKS) else f"stand-in: {', '.join(tasks)} only"
    return Claim("T2", rule["claim"], rule["paper"], "; ".join(words), None, members, passed, note)


def _range(values: np.ndarray) -> str:
    return f"N = {values.min()}" if values.min() == values.max() else f"N = {values.min()} to {values.max()}"


def _judge_t4(runs: dict[str, Run], tasks: list[str], rule: dict[str, Any]) -> Claim:
    words: list[str] = []
    notes: list[str] = []
    passed, members = True, 0
    interval: list[float] | None = None
    for task in tasks:
        for curriculum in ("single_head", "none"):
            rows = tau_by_n(runs[f"{task}-{curriculum}"])
            if len(np.unique(rows[:, 0])) < 3:
                notes.append(f"{task}, {curriculum}: fewer than three N were solved")
                passed = False
                continue
            mean, sd = (float(spearmanr(rows[:, 0], rows[:, i]).statistic) for i in (2, 3))
            words.append(f"{task} {curriculum}: Spearman {mean:.2f} (mean), {sd:.2f} (SD)")
            passed &= mean >= rule["spearman"] and sd >= rule["spearman"]
            members += len(np.unique(rows[:, 1]))
        rows = tau_by_n(runs[f"{task}-multi_head"])
        if len(np.unique(rows[:, 0])) < 3:
            notes.append(f"{task}, multi_head: fewer than three N were solved")
            passed = False
            continue
        slope, spread = _slope_interval(rows, 2), _slope_interval(rows, 3)
        words.append(f"{task} multi_head: slope over N of mean {_brackets(slope)}, of SD {_brackets(spread)}")
        passed &= slope[1] < 0 and spread[0] <= 0 <= spread[1]
        members += len(np.unique(rows[:, 1]))
        interval = interval or slope
    return Claim(
        "T4", rule["claim"], rule["paper"], "; ".join(words), interval, members, bool(passed), "; ".join(notes)
    )


def _brackets(interval: list[float]) -> str:
    return f"[{interval[0]:.4f}, {interval[1]:.4f}]"


def _slope_interval(rows: np.ndarray, column: int) -> list[float]:
    """Interval of the slope over N, resampling members with all their moments."""
    members = np.unique(rows[:, 1])
    by_member = [rows[rows[:, 1] == m] for m in members]

    def slope(places: np.ndarray) -> float:
        chosen = np.concatenate([by_member[p] for p in places])
        return float(linregress(chosen[:, 0], chosen[:, column]).slope) if np.ptp(chosen[:, 0]) > 0 else 0.0

    return bootstrap(slope, len(members))


def draw(runs: dict[str, Run]) -> dict[str, Any]:
    """Figures 3b and 4b: largest N against epochs, and tau against N, single-head beside multi-head."""
    from poprnn.report.compare import compare_curricula

    figures = {}
    for task in TASKS:
        mine = {
            c.replace("_", "-"): runs[f"{task}-{c}"] for c in ("single_head", "multi_head") if f"{task}-{c}" in runs
        }
        if mine:
            scratch = runs.get(f"{task}-none")
            figures[task] = compare_curricula(
                mine, {label: tau_by_n(run) for label, run in (mine | ({"none": scratch} if scratch else {})).items()}
            )
    return figures
