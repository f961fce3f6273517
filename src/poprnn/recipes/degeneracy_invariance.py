"""D13: changes of a task that leave what it asks to be said as complex as before leave degeneracy as it was."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.recipes._degeneracy import ARENA, ask_all, change, mean_of, notes_on, of_members, setup, value
from poprnn.recipes._timescales import brackets
from poprnn.recipes._verdict import Verdict
from poprnn.recipes.contract import Claim
from poprnn.tasks.delayed_discrimination import DelayedDiscrimination
from poprnn.tasks.path_integration import PathIntegration
from poprnn.training.run import Run
from poprnn.training.settings import Setup

MEASURES = {"DSA distance": mean_of("dynamics"), "d_PIF": mean_of("independent")}
BESIDE = {"by one renumbering": mean_of("conjugate")}
PLAIN = {"delay": "delay-plain", "arena": "arena-plain"}


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """Plain tasks; delays longer by some factors, in trials longer by as much; arenas of other sides."""
    tasks: dict[str, Any] = {PLAIN["delay"]: DelayedDiscrimination()}
    plain = DelayedDiscrimination()
    for factor in scale["delays"]:
        shortest, longest = round(factor * plain.min_delay), round(factor * plain.max_delay)
        n_steps = plain.n_steps + longest - plain.max_delay
        tasks[f"delay-{factor:g}"] = DelayedDiscrimination(min_delay=shortest, max_delay=longest, n_steps=n_steps)
    tasks[PLAIN["arena"]] = PathIntegration(**ARENA)
    for factor in scale["arenas"]:
        tasks[f"arena-{factor:g}"] = PathIntegration(**ARENA | {"side": factor * ARENA["side"]})
    return {label: setup(scale, task) for label, task in tasks.items()}


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Every measure of each population."""
    return {
        label: ask_all(ask, label, run, scale).assign_attrs(kind=label.partition("-")[0]) for label, run in runs.items()
    }


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """The verdict on D13; ``None`` where a condition has fewer than three members that got there."""
    notes, enough = notes_on(answers)
    verdict = Verdict(about["claims"][0], notes)
    if not enough:
        return [verdict.claim()]
    rule, verdict.interval = verdict.rule, [0.0, 0.0]
    for label, answer in answers.items():
        plain = answers[PLAIN[answer.attrs["kind"]]]
        if label in PLAIN.values():
            continue
        for name, statistic in (MEASURES | BESIDE).items():
            moved, interval = change(plain, answer, statistic, confidence=rule["confidence"])
            words = f"{label.replace('-', ' ')} times: {name} {value(plain, statistic):.3g} to "
            words += f"{value(answer, statistic):.3g}, {moved:+.0%} {brackets(interval)}"
            if name in MEASURES:
                verdict.clause(-rule["within"] <= interval[0] and interval[1] <= rule["within"], words)
                verdict.interval = max(verdict.interval, interval, key=lambda i: float(np.abs(i).max()))
            else:
                verdict.say(words)
    verdict.members = sum(a.sizes["member"] for a in answers.values())
    return [verdict.claim()]


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Distances between dynamics and weights, a dot for each member of each condition."""
    from poprnn.report.panels import by_group

    figures = {}
    for kind in PLAIN:
        there = {k: a for k, a in answers.items() if a.attrs["kind"] == kind and a.data_vars}
        if not there:
            continue
        figures[kind] = [
            by_group(
                name,
                {k.partition("-")[2].replace("plain", "as it is"): {"": of_members(a[name])} for k, a in there.items()},
                words,
                f"Section 4: {words}, a member to the others; by the factor of the {kind}'s length.",
            )
            for name, words in (("dynamics", "mean DSA distance"), ("independent", "mean d_PIF"))
        ]
    return figures
