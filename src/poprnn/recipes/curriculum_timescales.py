"""T2 and T4: what a curriculum does to the longest memory and to the time constants."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.recipes._timescales import (
    TASKS,
    answered,
    both_curricula,
    brackets,
    correlation,
    from_scratch,
    hyphened,
    interval_of,
    largest_n,
    left_out,
    spread,
    tau_by_n,
    tau_rows,
)
from poprnn.recipes.contract import Claim
from poprnn.training.run import Run
from poprnn.training.settings import Setup


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """For each task: single-head, multi-head, and from scratch on every N in ``none_n``."""
    out: dict[str, Setup] = {}
    for task in scale.get("tasks", TASKS):
        out |= both_curricula(scale, [task])
        if scale["none_n"]:
            out[f"{task}-none"] = from_scratch(scale, task, scale["none_n"], scale["none_epochs"])
    return out


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """For each population the largest N of every member, on fresh trials, and tau at the moments an N was solved."""
    out = {}
    for label, run in runs.items():
        if not label.endswith("none"):
            found = ask(label, largest_n, run, n_trials=scale["rescore_trials"])
            out[f"{label}/largest_n"] = answered(found, "largest_n")
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
        single, multi = (answers[f"{task}-{c}/largest_n"]["largest_n"].values for c in ("single_head", "multi_head"))
        words.append(f"{task}: single-head {spread(single)}, multi-head {spread(multi)}")
        passed &= bool(len(single) and len(multi) and multi.min() > single.max())
        members += len(single) + len(multi)
    notes = [] if tasks == list(TASKS) else [f"stand-in: {', '.join(tasks)} only"]
    notes += left_out(answers, "/largest_n")
    return Claim("T2", rule["claim"], rule["paper"], "; ".join(words), None, members, passed, "; ".join(notes))


def _judge_t4(answers: dict[str, xr.Dataset], tasks: list[str], rule: dict[str, Any]) -> Claim:
    words: list[str] = []
    notes = left_out(answers, "/tau")
    passed, members = True, 0
    interval: list[float] | None = None
    for task in tasks:
        for curriculum in ("single_head", "none"):
            rows = tau_rows(answers[f"{task}-{curriculum}/tau"], "mean", "sd")
            if len(np.unique(rows[:, 0])) < 3:
                notes.append(f"{task}, {curriculum}: fewer than three N were solved")
                passed = False
                continue
            mean, sd = (correlation(rows[:, [0, 1, i]]) for i in (2, 3))
            words.append(f"{task} {curriculum}: Spearman {mean:.2f} (mean), {sd:.2f} (SD)")
            passed &= mean >= rule["spearman"] and sd >= rule["spearman"]
            members += len(np.unique(rows[:, 1]))
        rows = tau_rows(answers[f"{task}-multi_head/tau"], "mean", "sd")
        if len(np.unique(rows[:, 0])) < 3:
            notes.append(f"{task}, multi_head: fewer than three N were solved")
            passed = False
            continue
        slope, flat = (interval_of(rows[:, [0, 1, i]]) for i in (2, 3))
        words.append(f"{task} multi_head: slope over N of mean {brackets(slope)}, of SD {brackets(flat)}")
        passed &= slope[1] < 0 and flat[0] <= 0 <= flat[1]
        members += len(np.unique(rows[:, 1]))
        interval = interval or slope
    return Claim(
        "T4", rule["claim"], rule["paper"], "; ".join(words), interval, members, bool(passed), "; ".join(notes)
    )


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figures 3b and 4b: largest N against epochs, and tau against N, single-head beside multi-head."""
    from poprnn.report.compare import compare_curricula

    figures = {}
    for task in TASKS:
        mine = {c: f"{task}-{c}" for c in ("single_head", "multi_head", "none") if f"{task}-{c}" in runs}
        if mine:
            figures[task] = compare_curricula(
                {hyphened(c): runs[label] for c, label in mine.items() if c != "none"},
                {hyphened(c): tau_rows(answers[f"{label}/tau"], "mean", "sd") for c, label in mine.items()},
            )
    return figures
