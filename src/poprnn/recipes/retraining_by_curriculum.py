"""T11 and T17: what networks can be retrained to, and what their states hold about other memories."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.recipes._robustness import compared, solved, tasks_in, there_are
from poprnn.recipes._timescales import CURRICULA, both_curricula, hyphened
from poprnn.recipes._verdict import Verdict
from poprnn.recipes.contract import Claim
from poprnn.training.run import Run
from poprnn.training.settings import Setup


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """Single-head and multi-head, as in ``curriculum_timescales``."""
    return both_curricula(scale, scale["probed_tasks"])


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Accuracy after retraining from one N, and with readouts alone from several; nothing from an N nobody solved."""
    out = {}
    n_trials = scale["rescore_trials"]
    for label, run in runs.items():
        there = solved(run)
        if (n := scale["from_n"]) in there:
            found = ask(
                f"{label}/from_{n}",
                "retraining",
                run,
                n=n,
                to=scale["to"],
                epochs=scale["retraining_epochs"],
                steps_per_epoch=scale["retraining_steps"],
                n_trials=n_trials,
            )
            out[f"{label}/retraining"] = found.assign_coords(n=n)
        for n in scale["readout_from"]:
            if n in there:
                found = ask(
                    f"{label}/readout/from_{n}",
                    "retraining",
                    run,
                    n=n,
                    to=[target for target in scale["readout_to"] if target != n],
                    trainable=["readout"],
                    epochs=scale["readout_epochs"],
                    steps_per_epoch=scale["readout_steps"],
                    n_trials=n_trials,
                )
                out[f"{label}/readout/from_{n}"] = found.assign_coords(n=n)
        # so that a population that solved nothing is still one that was asked
        out[f"{label}/solved"] = xr.Dataset({"solved": ("n", np.array(list(there), int))})
    return out


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdicts on T11 and T17."""
    judges = {"T11": _judge_t11, "T17": _judge_t17}
    return [judges[rule["id"]](answers, rule) for rule in about["claims"]]


def _judge_t11(answers: dict[str, xr.Dataset], rule: dict[str, Any]) -> Claim:
    verdict = Verdict(rule)
    for task in tasks_in(answers):
        found: dict[str, Any] = {c: answers.get(f"{task}-{c}/retraining") for c in ("multi_head", "single_head")}
        if min(there_are(a) for a in found.values()) < 2:
            verdict.unjudged(f"{task}: fewer than two members of a curriculum have solved the N to start from")
            continue
        n = int(found["multi_head"]["n"])
        if n != rule["n"]:
            verdict.note(f"stand-in: from N = {n} for N = {rule['n']}")
        test = compared({c: a["relative_accuracy"] for c, a in found.items()})
        verdict.members += sum(there_are(a) for a in found.values())
        near, far = test["to"] <= rule["near"] * n, test["to"] >= rule["far"] * n
        better = (test["difference"] > 0) & (test["p"] < rule["p"])
        if near.any():
            verdict.clause(bool(better[near].all()), f"{task} near: {_listed(test.sel(to=near.values))}")
            least = test.isel(to=int(np.nanargmin(test["difference"].where(near).values)))
            verdict.interval = verdict.interval or [float(least["low"]), float(least["high"])]
        else:
            verdict.unjudged(f"{task}: no target is near")
        if far.any():
            verdict.clause(not (test["p"][far] < rule["p"]).any(), f"far: {_listed(test.sel(to=far.values))}")
        else:
            verdict.unjudged(f"{task}: no target is far")
    return verdict.claim()


def _listed(test: xr.Dataset) -> str:
    """Multi-head minus single-head at every target."""
    return ", ".join(
        f"N = {int(to)} {float(difference):+.3f} (p = {float(p):.2g})"
        for to, difference, p in zip(test["to"], test["difference"], test["p"], strict=True)
    )


def pairs(answers: dict[str, xr.Dataset], label: str) -> xr.Dataset:
    """Accuracy after training the readout alone (from, to, member); NaN where nothing was asked."""
    found = [answers[name] for name in answers if name.startswith(f"{label}/readout/")]
    if not found:
        return xr.Dataset({"accuracy": (("from", "to", "member"), np.zeros((0, 0, 0)))}, {"from": [], "to": []})
    rows = [a[["accuracy", "epochs"]].drop_vars("n").assign_coords({"from": int(a["n"])}) for a in found]
    return xr.concat(rows, "from", join="outer").sortby(["from", "to"]).transpose("from", "to", "member")


def _judge_t17(answers: dict[str, xr.Dataset], rule: dict[str, Any]) -> Claim:
    verdict = Verdict(rule)
    for task in tasks_in(answers):
        found = {c: pairs(answers, f"{task}-{c}") for c in CURRICULA}
        backward, forward = ({c: _side(a, larger) for c, a in found.items()} for larger in (False, True))
        values = backward["multi_head"].values
        values = values[np.isfinite(values)]
        if len(values):
            share = float((values >= rule["accuracy"]).mean())
            words = f"{task} multi-head backward: {share:.1%} of {len(values)} at {rule['accuracy']:.0%} or more"
            ended = float(np.isfinite(_side(found["multi_head"], False, "epochs").values).sum() / len(values))
            verdict.clause(share >= rule["share"], f"{words} ({ended:.1%} by the evaluations that end retraining)")
        else:
            verdict.unjudged(f"{task} multi-head: nothing was retrained backwards")
        for words, side in (("backward", backward), ("forward", forward)):
            _judge_means(verdict, side, f"{task} {words}")
        largest = max((int(a["from"].max()) for a in found.values() if a.sizes["from"]), default=0)
        if largest and largest != rule["largest_from"]:
            verdict.note(f"stand-in: from N up to {largest} for N up to {rule['largest_from']}")
        verdict.members += sum(int(a["accuracy"].notnull().any(("from", "to")).sum()) for a in found.values())
    return verdict.claim()


def _side(found: xr.Dataset, larger: bool, name: str = "accuracy") -> xr.DataArray:
    """Pairs with a larger, or with a smaller target alone."""
    if name not in found:
        return found["accuracy"]
    return found[name].where(found["to"] > found["from"] if larger else found["to"] < found["from"])


def _judge_means(verdict: Verdict, side: dict[str, xr.DataArray], words: str) -> None:
    """Members' mean accuracies, from the N that both curricula have."""
    starts = [
        {float(n) for n in a["from"].values if a.sel({"from": n}).notnull().any("to").sum() >= 2} for a in side.values()
    ]
    if not (common := sorted(set.intersection(*starts))):
        verdict.unjudged(f"{words}: no N to start from was solved by two members of both curricula")
        return
    means = {c: side[c].sel({"from": common}).mean(("from", "to")) for c in ("multi_head", "single_head")}
    test = compared(means)
    single, multi = (float(means[c].mean()) for c in CURRICULA)
    verdict.clause(
        float(test["difference"]) > 0 and float(test["p"]) < verdict.rule["p"],
        f"{words}: mean accuracy {single:.3f} single-head, {multi:.3f} multi-head (p = {float(test['p']):.2g})",
    )
    verdict.interval = verdict.interval or [float(test["low"]), float(test["high"])]


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figures 7e and S17."""
    from poprnn.report.panels import matrix, over

    figures: dict[str, Any] = {}
    for task in tasks_in(answers):
        mine = []
        found = {c: a for c in CURRICULA if (a := answers.get(f"{task}-{c}/retraining")) is not None}
        if found:
            n = int(next(iter(found.values()))["n"])
            mine.append(
                over(
                    "retraining",
                    {hyphened(c): (a["to"].values, a["relative_accuracy"].values) for c, a in found.items()},
                    "memory N retrained to",
                    "relative accuracy",
                    f"Relative accuracy after retraining to larger N without a curriculum, from networks that have "
                    f"solved N = {n}. Stars: p below .05, .01, .001, 1e-4, 1e-5.",
                    whole_x=True,
                    marks=_stars(found),
                )
            )
        for curriculum in CURRICULA:
            every = pairs(answers, f"{task}-{curriculum}")
            if every.sizes["from"]:
                mine.append(
                    matrix(
                        f"readout_{curriculum}",
                        every["accuracy"].mean("member").values,
                        every["to"].values,
                        every["from"].values,
                        "memory N the readout is retrained to",
                        "memory N solved",
                        "accuracy (mean over members)",
                        f"{hyphened(curriculum).capitalize()}: accuracy after retraining the readout alone, from "
                        "networks that have solved one N to another.",
                        title=hyphened(curriculum),
                        limits=(0.5, 1.0),
                    )
                )
        if mine:
            figures[task] = mine
    return figures


def _stars(found: dict[str, xr.Dataset]) -> dict[float, str]:
    if len(found) < 2:
        return {}
    stars = compared({c: a["relative_accuracy"] for c, a in found.items()})["stars"]
    return {float(to): "*" * int(count) for to, count in zip(stars["to"], stars, strict=True)}
