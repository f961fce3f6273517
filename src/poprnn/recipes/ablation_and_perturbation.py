"""T9 and T10: which units a network needs, and how much noise on weights and time constants it bears."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.analysis._statistics import LEVELS
from poprnn.recipes._robustness import compared, solved, tasks_in, there_are
from poprnn.recipes._timescales import CURRICULA, both_curricula, hyphened, left_out
from poprnn.recipes._verdict import Verdict
from poprnn.recipes.contract import Claim
from poprnn.training.run import Run
from poprnn.training.settings import Setup

NOISES = {"weight": "recurrent weights (eps_W)", "timescale": "time constants (eps_tau)"}
LESS_WITHOUT = {"single_head": "longest", "multi_head": "shortest"}
"""The units that a curriculum's networks should miss more."""


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """Single-head and multi-head, as in ``curriculum_timescales``."""
    return both_curricula(scale, scale["probed_tasks"])


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Ablation at a large and a small N, both kinds of noise at the large one; nothing at an N that nobody solved."""
    out = {}
    small = {"n_trials": scale["n_trials"], "n_steps": scale["n_steps"]}
    ends = {"n_longest": scale["n_ablated"], "n_shortest": scale["n_ablated"]}
    for label, run in runs.items():
        out[f"{label}/tau"] = ask(label, "timescales_single", run)
        for kind in ("n", "n_small"):
            n = scale[kind]
            if n not in solved(run):
                continue
            place = f"{label}/n_{n}"
            found = {"ablation": ask(place, "ablation", run, n=n, **ends, **small)}
            if kind == "n":
                for noise in NOISES:
                    analysis = f"{noise}_perturbation"
                    found[analysis] = ask(place, analysis, run, n=n, n_draws=scale["n_draws"], **small)
            # the N belongs to the answer: verdicts and figures name it
            out |= {f"{label}/{kind}/{name}": answer.assign_coords(n=n) for name, answer in found.items()}
    return out


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdicts on T9 and T10."""
    judges = {"T9": _judge_t9, "T10": _judge_t10}
    return [judges[rule["id"]](answers, rule) for rule in about["claims"]]


def _judge_t9(answers: dict[str, xr.Dataset], rule: dict[str, Any]) -> Claim:
    verdict = Verdict(rule, left_out(answers, "/tau"))
    for task in tasks_in(answers):
        for curriculum in CURRICULA:
            name = f"{task}-{curriculum}"
            words = f"{task} {hyphened(curriculum)}"
            _judge_order(verdict, answers.get(f"{name}/n/ablation"), curriculum, words)
            _judge_drops(verdict, answers.get(f"{name}/n_small/ablation"), words)
        _say_ratios(verdict, answers, task)
    return verdict.claim()


def _judge_order(verdict: Verdict, found: xr.Dataset | None, curriculum: str, words: str) -> None:
    """Which units are missed more at the large N."""
    if found is None or there_are(found) < 2:
        verdict.unjudged(f"{words}: fewer than two members have solved the large N")
        return
    _stand_in(verdict, "n", found)
    groups = {group: _without(found, group) for group in ("longest", "shortest")}
    test = compared(groups, ("member", "ablated"))
    longest, shortest = (float(values.mean()) for values in groups.values())
    sign = -1 if LESS_WITHOUT[curriculum] == "longest" else 1
    holds = sign * float(test["difference"]) > 0 and float(test["p"]) < verdict.rule["p"]
    verdict.clause(
        holds,
        f"{words} at N = {int(found['n'])}: {shortest:.3f} without short-tau units, {longest:.3f} without long-tau "
        f"units (p = {float(test['p']):.2g})",
    )
    verdict.members += there_are(found)
    if curriculum == "single_head":
        verdict.interval = [float(test["low"]), float(test["high"])]


def _judge_drops(verdict: Verdict, found: xr.Dataset | None, words: str) -> None:
    """That no unit matters at the small N."""
    if found is None or there_are(found) < 2:
        verdict.unjudged(f"{words}: fewer than two members have solved the small N")
        return
    _stand_in(verdict, "n_small", found)
    drops = {group: 1 - float(_without(found, group).mean()) for group in ("shortest", "longest")}
    largest = max(drops.values())
    verdict.clause(largest < verdict.rule["drop"], f"{words} at N = {int(found['n'])}: largest mean drop {largest:.1%}")


def _without(found: xr.Dataset, group: str) -> xr.DataArray:
    """Relative accuracy (member, ablated) after taking out one group's units."""
    return found["relative_accuracy"].isel(ablated=np.flatnonzero(found["group"].values == group))


def _say_ratios(verdict: Verdict, answers: dict[str, xr.Dataset], task: str) -> None:
    """Tau of the long units over that of all; and over multi-head's, which is what the paper's sentence speaks of."""
    longest = {}
    for curriculum in CURRICULA:
        found = answers.get(f"{task}-{curriculum}/n/ablation")
        if found is not None and "tau" in found.coords:
            there = np.isfinite(found["base_accuracy"].values)
            longest[curriculum] = found["tau"].values[there][:, found["group"].values == "longest"].mean()
    all_units = answers.get(f"{task}-single_head/tau")
    if "single_head" in longest and all_units is not None and "mean_by_stage" in all_units:
        n = int(answers[f"{task}-single_head/n/ablation"]["n"])
        mean = all_units["mean_by_stage"].values[all_units["n"].values == n]
        verdict.say(f"{task} single-head: tau of the long units {longest['single_head'] / np.nanmean(mean):.2f} x mean")
    if len(longest) == 2:
        verdict.say(f"{longest['single_head'] / longest['multi_head']:.2f} x that of the long units in multi-head")


def _judge_t10(answers: dict[str, xr.Dataset], rule: dict[str, Any]) -> Claim:
    verdict = Verdict(rule, left_out(answers, "/tau"))
    weakest = np.inf
    for task in tasks_in(answers):
        for noise, of_what in NOISES.items():
            found = {c: answers.get(f"{task}-{c}/n/{noise}_perturbation") for c in ("multi_head", "single_head")}
            if min(there_are(a) for a in found.values()) < 2:
                verdict.unjudged(f"{task}, {of_what}: fewer than two members of a curriculum have solved N")
                continue
            there: dict[str, Any] = found
            _stand_in(verdict, "n", there["single_head"])
            pooled, of_members = multi_against_single(there)
            for strength in rule[f"{noise}_strengths"]:
                mine, means = (t.sel(strength=strength, method="nearest") for t in (pooled, of_members))
                difference, p = float(mine["difference"]), float(mine["p"])
                verdict.clause(
                    difference > rule["difference"] and p < rule["p"],
                    f"{task} {noise} {strength:g}: {difference:+.3f} (p = {p:.2g}; of member means "
                    f"{float(means['p']):.2g})",
                )
                if difference < weakest:
                    weakest, verdict.interval = difference, [float(means["low"]), float(means["high"])]
            verdict.members = max(verdict.members, sum(there_are(a) for a in found.values()))
    return verdict.claim()


def multi_against_single(found: dict[str, xr.Dataset]) -> tuple[xr.Dataset, xr.Dataset]:
    """Multi-head against single-head at every strength: draws of all members pooled, and the means of members."""
    values = {c: found[c]["relative_accuracy"] for c in ("multi_head", "single_head")}
    return compared(values, ("member", "draw")), compared({c: a.mean("draw") for c, a in values.items()})


def _stand_in(verdict: Verdict, name: str, found: xr.Dataset) -> None:
    if (n := int(found["n"])) != verdict.rule[name]:
        verdict.note(f"stand-in: N = {n} for N = {verdict.rule[name]}")


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figures 7a, 7b (and S9's small N beside them), 7c and 7d."""
    figures = {}
    for task in tasks_in(answers):
        mine = [_draw_ablation(answers, task, kind) for kind in ("n", "n_small")]
        mine += [_draw_noise(answers, task, noise) for noise in NOISES]
        if there := [drawing for drawing in mine if drawing is not None]:
            figures[task] = there
    return figures


def _draw_ablation(answers: dict[str, xr.Dataset], task: str, kind: str) -> Any:
    from poprnn.report.panels import by_group

    found = {c: a for c in CURRICULA if (a := answers.get(f"{task}-{c}/{kind}/ablation")) is not None}
    if not found:
        return None
    n = int(next(iter(found.values()))["n"])
    return by_group(
        f"ablation_{kind}",
        {
            hyphened(c): {
                f"without a {words}-tau unit": _without(a, group).mean("ablated").values
                for words, group in (("short", "shortest"), ("long", "longest"))
            }
            for c, a in found.items()
        },
        "relative accuracy",
        f"Relative accuracy at N = {n} after taking out one unit, mean over the units of a member with the shortest "
        "and with the longest time constants.",
        reference=(1.0, "intact"),
    )


def _draw_noise(answers: dict[str, xr.Dataset], task: str, noise: str) -> Any:
    from poprnn.report.panels import over

    found: dict[str, Any] = {
        c: a for c in CURRICULA if (a := answers.get(f"{task}-{c}/n/{noise}_perturbation")) is not None
    }
    if not found:
        return None
    first = next(iter(found.values()))
    stars = {}
    if len(found) == 2:
        counts = multi_against_single(found)[0]["stars"]
        stars = {float(x): "*" * int(k) for x, k in zip(counts["strength"], counts, strict=True)}
    return over(
        f"{noise}_perturbation",
        {hyphened(c): (a["strength"].values, a["relative_accuracy"].mean("draw").values) for c, a in found.items()},
        f"strength of the noise on {NOISES[noise]}",
        "relative accuracy",
        f"Relative accuracy at N = {int(first['n'])} against the strength of noise, relative to the norm of what it is "
        f"added to; mean over {first.sizes['draw']} draws. Stars: p (samples: members and draws) below "
        f"{', '.join(f'{level:g}' for level in LEVELS)}.",
        log_x=True,
        marks=stars,
    )
