"""T2 and T4: what a curriculum does to the longest memory and to the time constants."""

from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import linregress, spearmanr

from poprnn.cells.leaky_rnn import LeakyRNN
from poprnn.core import catalogue
from poprnn.recipes._timescales import largest_n, tau_by_n
from poprnn.recipes.contract import Claim, bootstrap
from poprnn.training.curricula.multi_head import MultiHead
from poprnn.training.curricula.none import None_
from poprnn.training.curricula.single_head import SingleHead
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


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """For each population the largest N of every member, on fresh trials, and tau at the moments an N was solved."""
    out = {}
    for label, run in runs.items():
        if not label.endswith("none"):
            out[f"{label}/largest_n"] = ask(label, largest_n, run, n_trials=scale["rescore_trials"])
        out[f"{label}/tau"] = ask(label, tau_by_n, run)
    return out


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdicts on T2 and T4."""
    rules = {c["id"]: c for c in about["claims"]}
    tasks = [t for t in TASKS if f"{t}-multi_head/tau" in answers]
    claims = [_judge_t2(answers, tasks, rules["T2"])]
    if any(f"{t}-none/tau" in answers for t in tasks):
        claims.append(_judge_t4(answers, tasks, rules["T4"]))
    return claims


def _judge_t2(answers: dict[str, xr.Dataset], tasks: list[str], rule: dict[str, Any]) -> Claim:
    words, passed, members = [], True, 0
    for task in tasks:
        single, multi = (
            answers[f"{task}-{c}/largest_n"]["largest_n"].values for c in ("single_head", "multi_head")
        )
        words.append(f"{task}: single-head {_range(single)}, multi-head {_range(multi)}")
        passed &= bool(multi.min() > single.max())
        members += len(single) + len(multi)
    note = "" if tasks == list(TASKS) else f"stand-in: {', '.join(tasks)} only"
    return Claim("T2", rule["claim"], rule["paper"], "; ".join(words), None, members, passed, note)


def _range(values: np.ndarray) -> str:
    return f"N = {values.min()}" if values.min() == values.max() else f"N = {values.min()} to {values.max()}"


def _rows(answers: dict[str, xr.Dataset], label: str) -> np.ndarray:
    """``[moment, (N, member, mean tau, SD tau)]``."""
    found = answers[f"{label}/tau"]
    return np.stack([found[name].values for name in ("n", "who", "mean", "sd")], axis=1).astype(float)


def _judge_t4(answers: dict[str, xr.Dataset], tasks: list[str], rule: dict[str, Any]) -> Claim:
    words: list[str] = []
    notes: list[str] = []
    passed, members = True, 0
    interval: list[float] | None = None
    for task in tasks:
        for curriculum in ("single_head", "none"):
            rows = _rows(answers, f"{task}-{curriculum}")
            if len(np.unique(rows[:, 0])) < 3:
                notes.append(f"{task}, {curriculum}: fewer than three N were solved")
                passed = False
                continue
            mean, sd = (float(spearmanr(rows[:, 0], rows[:, i]).statistic) for i in (2, 3))
            words.append(f"{task} {curriculum}: Spearman {mean:.2f} (mean), {sd:.2f} (SD)")
            passed &= mean >= rule["spearman"] and sd >= rule["spearman"]
            members += len(np.unique(rows[:, 1]))
        rows = _rows(answers, f"{task}-multi_head")
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


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figures 3b and 4b: largest N against epochs, and tau against N, single-head beside multi-head."""
    from poprnn.report.compare import compare_curricula

    figures = {}
    for task in TASKS:
        mine = {c: f"{task}-{c}" for c in ("single_head", "multi_head", "none") if f"{task}-{c}" in runs}
        if mine:
            figures[task] = compare_curricula(
                {c.replace("_", "-"): runs[label] for c, label in mine.items() if c != "none"},
                {c.replace("_", "-"): _rows(answers, label) for c, label in mine.items()},
            )
    return figures
