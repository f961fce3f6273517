"""T13: how time constants follow the time for which a bit is shown."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from poprnn.recipes._timescales import (
    CURRICULA,
    TASKS,
    both_curricula,
    brackets,
    correlation,
    hyphened,
    tau_by_n,
    tau_rows,
)
from poprnn.recipes._variants import Clauses, about_training, ask_largest_n, verdict
from poprnn.recipes.contract import Claim, bootstrap
from poprnn.training.run import Run
from poprnn.training.settings import Setup

DURATIONS = (1, 2, 3, 5, 10)
"""The paper's, in units of the shortest time for which a bit is shown."""


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """``n_parity-2-single_head`` …: both curricula for each task and duration."""
    return {
        f"{task}-{k}-{label.removeprefix(f'{task}-')}": setup
        for task in scale.get("tasks", TASKS)
        for k in scale["durations"]
        for label, setup in both_curricula(scale, [task], task_options={"bit_duration": k}).items()
    }


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """The largest N of each population, and tau at the moments when an N was solved."""
    out = {}
    for label, run in runs.items():
        out[f"{label}/largest_n"] = ask_largest_n(ask, label, run, scale)
        out[f"{label}/tau"] = ask(label, tau_by_n, run)
    return out


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdict on T13."""
    rule = {c["id"]: c for c in about["claims"]}["T13"]
    largest = {k.removesuffix("/largest_n"): a for k, a in answers.items() if k.endswith("/largest_n")}
    words: list[str] = []
    notes = about_training(largest, rule["epochs"])
    clauses: Clauses = []
    interval: list[float] | None = None
    tasks = [t for t in TASKS if _durations(answers, t)]
    for task in tasks:
        durations = _durations(answers, task)
        if durations != list(DURATIONS):
            notes.append(f"stand-in: {task} with k = {', '.join(map(str, durations))} only")
        near, first = _near(answers, task, durations, rule["within"])
        interval = interval or first
        for found, told, remarks in (
            near,
            _grows(answers, task, durations, rule["spearman"]),
            _shorter(largest, task, durations, rule["spearman"]),
        ):
            clauses += found
            words += told
            notes += remarks
    if tasks != list(TASKS):
        notes.append(f"stand-in: {', '.join(tasks) or 'nothing'} only")
    members = sum(a.sizes["member"] for a in largest.values())
    return [
        Claim(
            "T13",
            rule["claim"],
            rule["paper"],
            "; ".join(words) or "nothing was solved",
            interval,
            members,
            verdict(clauses),
            "; ".join(notes),
        )
    ]


Part = tuple[Clauses, list[str], list[str]]
"""Clauses, words, notes."""


def _durations(answers: Mapping[str, xr.Dataset], task: str) -> list[int]:
    return sorted({int(label.split("-")[1]) for label in answers if label.startswith(f"{task}-")})


def _tau(answers: Mapping[str, xr.Dataset], label: str) -> np.ndarray:
    """Rows (N, member, mean tau over units)."""
    return tau_rows(answers[f"{label}/tau"], "mean") if f"{label}/tau" in answers else np.zeros((0, 3))


def _near(
    answers: Mapping[str, xr.Dataset], task: str, durations: list[int], within: float
) -> tuple[Part, list[float] | None]:
    """Multi-head: mean tau over k at the last N each member solved, mean over members, near 1; first interval."""
    clauses: Clauses = []
    words: list[str] = []
    notes: list[str] = []
    first: list[float] | None = None
    for k in durations:
        rows = _tau(answers, f"{task}-{k}-multi_head")
        if not len(rows):
            clauses.append(None)
            notes.append(f"{task} multi-head, k = {k}: nothing was solved")
            continue
        by_one = [rows[rows[:, 1] == member] for member in np.unique(rows[:, 1])]
        last = np.array([mine[mine[:, 0].argmax(), 2] / k for mine in by_one])
        interval = bootstrap(np.mean, last)
        first = first or interval
        clauses.append(bool(round(abs(last.mean() - 1), 9) <= within))
        words.append(f"k = {k}: {last.mean():.2f} {brackets(interval)}")
    told = [f"{task} multi-head tau / k at the last N, {', '.join(words)}"] if words else []
    return (clauses, told, notes), first


def _grows(answers: Mapping[str, xr.Dataset], task: str, durations: list[int], least: float) -> Part:
    """Single-head: mean tau grows with N."""
    clauses: Clauses = []
    words: list[str] = []
    notes: list[str] = []
    for k in durations:
        rows = _tau(answers, f"{task}-{k}-single_head")
        if len(np.unique(rows[:, 0])) < 3:
            clauses.append(None)
            notes.append(f"{task} single-head, k = {k}: fewer than three N were solved")
            continue
        found = correlation(rows)
        clauses.append(found >= least)
        words.append(f"k = {k}: {found:.2f}")
    told = [f"{task} single-head Spearman of N and tau, {', '.join(words)}"] if words else []
    return clauses, told, notes


def _shorter(largest: Mapping[str, xr.Dataset], task: str, durations: list[int], least: float) -> Part:
    """Both: larger k, smaller N."""
    clauses: Clauses = []
    words: list[str] = []
    notes: list[str] = []
    for curriculum in CURRICULA:
        name = hyphened(curriculum)
        values = {
            k: largest[label]["largest_n"].values
            for k in durations
            if (label := f"{task}-{k}-{curriculum}") in largest and largest[label].sizes["member"]
        }
        means = np.array([v.mean() for v in values.values()])
        if len(means) < 3 or not means.any():
            clauses.append(None)
            why = "fewer than three k have members" if len(means) < 3 else "nothing was solved"
            notes.append(f"{task} {name}, largest N: {why}")
            continue
        found = float(spearmanr(list(values), means).statistic) if np.ptp(means) > 0 else 0.0
        clauses.append(bool(round(found, 9) <= -least))
        told = ", ".join(f"{mean:.3g} (k = {k})" for k, mean in zip(values, means, strict=True))
        words.append(f"{task} {name} mean largest N {told}, Spearman {found:.2f}")
    return clauses, words, notes


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figure S6: tau / k against N, single-head and multi-head; and the largest N against k."""
    from poprnn.report.panels import by_member, over

    figures: dict[str, Any] = {}
    for task in TASKS:
        durations, drawn = _durations(answers, task), []
        for curriculum in CURRICULA:
            name = hyphened(curriculum)
            rows = {k: _tau(answers, f"{task}-{k}-{curriculum}") for k in durations}
            series = {f"k = {k}": by_member(mine / [1, 1, k]) for k, mine in rows.items() if len(mine)}
            if series:
                drawn.append(
                    over(
                        f"tau_by_k_{curriculum}",
                        series,
                        "memory N solved (bits)",
                        "mean tau over units / k (dimensionless)",
                        f"Mean of tau over units, divided by the number k of steps for which a bit is shown, when a "
                        f"memory was solved, {name}.",
                        title=name,
                        whole_x=True,
                        reference=(1.0, "tau = k"),
                    )
                )
        series = {hyphened(c): _largest(answers, task, c, durations) for c in CURRICULA if durations}
        if series:
            drawn.append(
                over(
                    "largest_by_k",
                    series,
                    "duration k of a bit (steps)",
                    "largest memory N solved (bits)",
                    "Largest N by the end of training, on fresh trials, against the duration of a bit; 0: none.",
                    whole_x=True,
                )
            )
        if drawn:
            figures[task] = drawn
    return figures


def _largest(
    answers: Mapping[str, xr.Dataset], task: str, curriculum: str, durations: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """k and ``[member, k]``."""
    from poprnn.report.panels import by_member

    rows = [
        (k, member, n)
        for k in durations
        if f"{task}-{k}-{curriculum}/largest_n" in answers
        for member, n in answers[f"{task}-{k}-{curriculum}/largest_n"]["largest_n"].to_series().items()
    ]
    return by_member(np.array(rows, float).reshape(-1, 3))
