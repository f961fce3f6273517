"""T7, T8 and T19: incoming weights, dimensionality of the activity, and what inhibition holds together."""

from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import mannwhitneyu, rankdata

from poprnn.core import recipe_files
from poprnn.recipes._connectivity import borne, by_stage, inhibition_and_tau
from poprnn.recipes._robustness import largest_common, tasks_in
from poprnn.recipes._timescales import (
    CURRICULA,
    at_stages,
    both_curricula,
    brackets,
    hyphened,
    interval_of,
    left_out,
    rows_of,
    slope_of,
)
from poprnn.recipes._verdict import Verdict
from poprnn.recipes.contract import Claim
from poprnn.training.run import Run
from poprnn.training.settings import Setup


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """Single-head and multi-head on both tasks, as in ``curriculum_timescales``."""
    return both_curricula(scale)


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Weights, time constants, dimensionality and the bearable release of inhibition at the N that were solved."""
    out = {}
    released = {"n_trials": scale["released_trials"], "n_steps": scale["released_steps"]}
    stages: dict[str, dict[str, Any]] = {
        "dimensionality": {
            "analysis": "dimensionality",
            "options": {"n_trials": scale["n_trials"], "n_steps": scale["n_steps"]},
            "keep": ["n_components"],
        },
        "release": {
            "analysis": "inhibition_scaling",
            "options": released,
            "keep": ["critical", "mean_weight"],
            "every": scale["released_every"],
        },
    }
    for label, run in runs.items():
        out[f"{label}/weights"] = ask(label, "connectivity", run)
        out[f"{label}/tau"] = ask(label, "timescales_single", run)
        for name, options in stages.items():
            out[f"{label}/{name}"] = ask(f"{label}/{name}", at_stages, run, **options)
    for task in tasks_in(runs):
        mine = {c: runs[f"{task}-{c}"] for c in CURRICULA}
        if (n := largest_common(mine.values())) is None:
            continue
        for c, run in mine.items():
            found = ask(f"{task}-{c}/n_{n}", "inhibition_scaling", run, n=n, **released)
            out[f"{task}-{c}/release_at_n"] = found.assign_coords(n=n)
    return out


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdicts on T7, T8 and T19."""
    judges = {"T7": _judge_t7, "T8": _judge_t8, "T19": _judge_t19}
    return [judges[rule["id"]](answers, rule) for rule in about["claims"]]


def _enough(rows: np.ndarray, n: int) -> bool:
    """At least two members, and so many N."""
    return len(np.unique(rows[:, 1])) >= 2 and len(np.unique(rows[:, 0])) >= n


def _judge_t7(answers: dict[str, xr.Dataset], rule: dict[str, Any]) -> Claim:
    verdict = Verdict(rule, left_out(answers, "/weights"))
    for task in tasks_in(answers):
        mean, positive = (by_stage(answers, f"{task}-multi_head/weights", part) for part in ("mean", "positive"))
        members = np.unique(mean[:, 1])
        if len(members) < 2:
            verdict.unjudged(f"{task} multi-head: fewer than two members have solved an N")
        else:
            last = [np.flatnonzero(mean[:, 1] == m)[mean[mean[:, 1] == m, 0].argmax()] for m in members]
            share = float(np.mean(np.abs(mean[last, 2]) / positive[last, 2]))
            verdict.clause(
                share <= rule["balance"], f"{task} multi-head: |mean| is {share:.1%} of the positive part at the last N"
            )
            verdict.members += len(members)
        rows = by_stage(answers, f"{task}-single_head/weights", "mean")
        if not _enough(rows, rule["at_least_n"]):
            verdict.unjudged(f"{task} single-head: too few N or members to fit a line")
            continue
        interval = interval_of(rows)
        verdict.clause(interval[1] < 0, f"{task} single-head: slope {slope_of(rows):.3g} {brackets(interval)} per N")
        verdict.members += len(np.unique(rows[:, 1]))
        verdict.interval = verdict.interval or interval
    return verdict.claim()


def _judge_t8(answers: dict[str, xr.Dataset], rule: dict[str, Any]) -> Claim:
    verdict, split = Verdict(rule, left_out(answers, "/weights")), rule["split"]

    def ratio(rows: np.ndarray) -> float:
        below, above = (slope_of(rows[side]) for side in (rows[:, 0] <= split, rows[:, 0] > split))
        return above / below if below else float("nan")

    for task in tasks_in(answers):
        every = rows_of(answers[f"{task}-multi_head/dimensionality"], "n_components")
        rows = on_both_sides(every, split, rule["at_least_n"])
        if len(np.unique(rows[:, 1])) < 2:
            largest = every[:, 0].max(initial=0)
            verdict.unjudged(f"{task}: too few N on one side of N = {split} (largest solved: {largest:g})")
            continue
        if (largest := rows[:, 0].max()) < rule["n"]:
            verdict.note(f"stand-in: {task} up to N = {largest:g} for N = {rule['n']}")
        value, interval = ratio(rows), interval_of(rows, ratio)
        verdict.clause(
            rule["parity"][0] <= value <= rule["parity"][1] if task == "n_parity" else value < rule["dms"],
            f"{task}: slope over N > {split} is {value:.2f} {brackets(interval)} x that over N <= {split}",
        )
        verdict.members += len(np.unique(rows[:, 1]))
        verdict.interval = verdict.interval or interval
    return verdict.claim()


def on_both_sides(rows: np.ndarray, split: float, at_least: int) -> np.ndarray:
    """Rows of the members with so many N on either side of the split: only they have two slopes to compare."""
    there = [
        m
        for m in np.unique(rows[:, 1])
        if min(np.sum(rows[rows[:, 1] == m, 0] <= split), np.sum(rows[rows[:, 1] == m, 0] > split)) >= at_least
    ]
    return rows[np.isin(rows[:, 1], there)]


def _judge_t19(answers: dict[str, xr.Dataset], rule: dict[str, Any]) -> Claim:
    verdict = Verdict(rule, left_out(answers, "/weights"))
    for task in tasks_in(answers):
        _judge_release(verdict, answers, task)
        for curriculum in CURRICULA:
            _judge_correlation(verdict, answers, task, curriculum)
    return verdict.claim()


def _judge_release(verdict: Verdict, answers: dict[str, xr.Dataset], task: str) -> None:
    """Who explodes sooner, and with which weights."""
    found = {c: answers.get(f"{task}-{c}/release_at_n") for c in CURRICULA}
    values = {c: b[np.isfinite(b)] for c, a in found.items() if a is not None and len(b := borne(a).values)}
    if min(len(values.get(c, ())) for c in CURRICULA) < 2:
        verdict.unjudged(f"{task}: no N was solved by two members of both curricula")
        return
    p = float(mannwhitneyu(values["single_head"], values["multi_head"]).pvalue)
    single, multi = (float(values[c].mean()) for c in CURRICULA)
    there: Any = found["single_head"]
    verdict.clause(
        single < multi and p < verdict.rule["p"],
        f"{task} at N = {int(there['n'])}: explodes at |c| = {single:.3f} single-head, {multi:.3f} multi-head "
        f"(p = {p:.2g})",
    )
    exploding = np.flatnonzero(np.isfinite(there["critical"].values))
    weights = [
        float(there["mean_weight"].isel(member=m).sel(scale=there["critical"].values[m], method="nearest"))
        for m in exploding
    ]
    verdict.clause(
        bool(weights) and max(weights) < 0,
        f"{len(weights)} of {len(values['single_head'])} single-head members explode"
        + (f", at a mean weight of at most {max(weights):.2g}" if weights else ""),
    )
    verdict.members += sum(len(v) for v in values.values())


def _judge_correlation(verdict: Verdict, answers: dict[str, xr.Dataset], task: str, curriculum: str) -> None:
    """Whether inhibition goes with long time constants."""
    words = f"{task} {hyphened(curriculum)}"
    rows = inhibition_and_tau(answers, f"{task}-{curriculum}")
    if not _enough(rows, verdict.rule["at_least_n"]):
        verdict.unjudged(f"{words}: too few N or members to correlate inhibition with tau")
        return
    interval = interval_of(rows, _rank_correlation)
    single = curriculum == "single_head"
    verdict.clause(
        interval[0] > 0 if single else interval[0] <= 0 <= interval[1],
        f"{words}: Spearman(inhibition, tau) {_rank_correlation(rows):.2f} {brackets(interval)}",
    )
    if single:
        verdict.interval = verdict.interval or interval


def _rank_correlation(rows: np.ndarray) -> float:
    """Spearman's, of inhibition and tau; 0 where one of them never changes."""
    ranks = rankdata(rows[:, 2:], axis=0)
    return float(np.corrcoef(ranks.T)[0, 1]) if (np.ptp(ranks, axis=0) > 0).all() else 0.0


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figures 6a, 6b with S20's lines, and S19."""
    from poprnn.recipes._connectivity_figures import dimensions, releases, scattered, weights

    rules = recipe_files.read("connectivity_and_dimensionality")["claims"]
    split = next(c["split"] for c in rules if c["id"] == "T8")
    figures: dict[str, Any] = {}
    for task in tasks_in(answers):
        mine = [weights(answers, task, parts) for parts in (("mean",), ("positive", "negative"))]
        mine += [dimensions(answers, task, split), *releases(answers, task), scattered(answers, task)]
        if there := [drawing for drawing in mine if drawing is not None]:
            figures[task] = there
    return figures
