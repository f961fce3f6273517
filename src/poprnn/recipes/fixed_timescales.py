"""T3: what is lost when time constants are not trained."""

from typing import Any

import xarray as xr

from poprnn.recipes._timescales import CURRICULA, TASKS
from poprnn.recipes._variants import (
    about_training,
    ask_largest_n,
    judge_fixed,
    largest_by_condition,
    trained_and_fixed,
    verdict,
)
from poprnn.recipes.contract import Claim
from poprnn.training.run import Run
from poprnn.training.settings import Setup


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """For each task and curriculum: tau trained, and every tau fixed (at 1, 2 or 3; multi-head 1 or 2)."""
    out: dict[str, Setup] = {}
    for task in scale.get("tasks", TASKS):
        out |= trained_and_fixed(scale, task)
    return out


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """The largest N of every member on fresh trials, and the tau it had."""
    return {label: ask_largest_n(ask, label, run, scale) for label, run in runs.items()}


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdict on T3."""
    rule = {c["id"]: c for c in about["claims"]}["T3"]
    tasks = [t for t in TASKS if f"{t}-multi_head" in answers]
    words: list[str] = []
    notes = about_training(answers, rule["epochs"])
    clauses: list[bool | None] = []
    interval: list[float] | None = None
    for task in tasks:
        found, told, remarks, first = judge_fixed(answers, task, rule)
        clauses, words, notes = clauses + found, words + told, notes + remarks
        interval = interval or first
    if tasks != list(TASKS):
        notes.append(f"stand-in: {', '.join(tasks)} only")
    members = sum(a.sizes["member"] for a in answers.values())
    return [
        Claim(
            "T3", rule["claim"], rule["paper"], "; ".join(words), interval, members, verdict(clauses), "; ".join(notes)
        )
    ]


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figures 4a and S10: largest N with tau fixed and trained, single-head beside multi-head."""
    from poprnn.report.panels import by_group

    figures: dict[str, Any] = {}
    for task in TASKS:
        groups = {}
        for curriculum in CURRICULA:
            found = largest_by_condition(answers, f"{task}-{curriculum}")
            if found:  # in the paper's order, trained last
                groups[curriculum.replace("_", "-")] = {
                    k: found[k] for k in sorted(found, key=lambda k: k == "trained")
                }
        if groups:
            possible = max(a.attrs.get("largest_possible", 0) for k, a in answers.items() if k.startswith(task))
            figures[task] = [
                by_group(
                    "fixed_tau",
                    groups,
                    "largest memory N solved (bits)",
                    "Largest N by the end of training, on fresh trials, with the time constants of all units fixed at "
                    "one value (in steps) and with trained ones; 0: none.",
                    reference=(possible, "largest N possible ({:g})") if possible else None,
                )
            ]
    return figures
