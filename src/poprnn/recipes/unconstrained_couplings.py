"""A7: what becomes of accuracy without the constraint on the couplings that keeps an assembly stable."""

from typing import Any

import xarray as xr

from poprnn.recipes._assemblies import accuracy, curves, difference, in_words, learned, network, population, verdict
from poprnn.recipes._timescales import brackets
from poprnn.recipes.contract import Claim
from poprnn.training.run import Run
from poprnn.training.settings import Setup

COUPLINGS = ("feedback", "unconstrained")


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """The same modules, coupled by ``L = P^-1/2 (B - B^T) P^1/2`` or by any L = B."""
    return {
        coupling: population(scale, network(scale, "sparse", scale["control_modules"], coupling=coupling))
        for coupling in COUPLINGS
    }


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Accuracy of both."""
    return {name: learned(ask, name, run, modules=scale["control_modules"]) for name, run in runs.items()}


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdict on A7."""
    (rule,) = about["claims"]
    out = verdict(rule, answers.values())
    stable, free = (answers[name] for name in COUPLINGS)
    for name, a in zip(COUPLINGS, (stable, free), strict=True):
        out.say(f"{a.attrs['modules']} × 32, {name}: {in_words(a)}")
    loss, interval = difference(accuracy(stable), accuracy(free))
    out.interval = interval
    enough = loss >= rule["loss"] and interval[0] > 0
    out.clause(enough, f"lost without the constraint: {100 * loss:+.1f} {brackets(interval)}")
    return [out.claim()]


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Accuracy in the course of training, with and without the constraint."""
    return {"accuracy": [curves("control", {f"L: {name}": a for name, a in answers.items()})]}
