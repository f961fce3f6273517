"""T3: what is lost when time constants are not trained."""

from typing import Any

import xarray as xr

from poprnn.recipes._timescales import TASKS
from poprnn.recipes._variants import about_training, ask_largest_n, draw_fixed, judge_fixed, trained_and_fixed, verdict
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
    return {task: [drawing] for task in TASKS if (drawing := draw_fixed(answers, task)) is not None}
