"""B3: the binary code of a uniform scalar through one binary unit, and what frees members that miss it."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.recipes._bottleneck import gains, population
from poprnn.recipes._verdict import Verdict
from poprnn.recipes.contract import Claim, bootstrap
from poprnn.tasks.distributions.uniform import Uniform
from poprnn.tasks.static_vectors import StaticVectors
from poprnn.training.run import Run
from poprnn.training.settings import Setup

WAYS = {"relaxed": "soft codes, annealed", "straight_through": "straight through, annealed"}


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """The same networks trained in two ways: hard codes with the soft ones' gradient, or the soft codes themselves."""
    task = StaticVectors(inputs=Uniform(n_dimensions=1), n_steps=scale["n_steps"])
    cell = gains(scale) | {
        "width": 1,
        "bottleneck": "binary",
        "gumbel": scale["gumbel"],
        "final_temperature": scale["final_temperature"],
        "annealing_steps": scale["steps"] * 3 // 4,
    }
    relaxed = {"relaxed": scale["steps"], "straight_through": 0}
    return {name: population(scale, task, cell | {"relaxed_steps": relaxed[name]}) for name in WAYS}


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Errors, information and code books; ``choice`` is about other inputs, and by it the best member is chosen."""
    trials, out = {"n_trials": scale["trials"]}, {}
    for name, run in runs.items():
        out[f"{name}/choice"] = ask(f"{name}/choice", "code_book", run, seed=1, **trials)
        out[f"{name}/code"] = ask(name, "code_book", run, **trials)
        out[f"{name}/errors"] = ask(name, "rate_distortion", run, **trials)
        out[f"{name}/information"] = ask(name, "transmitted_information", run, **trials)
    return out


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdict on B3."""
    (rule,) = about["claims"]
    verdict = Verdict(rule)
    for name, way in WAYS.items():
        if "expansion" not in answers[f"{name}/code"] or "expansion" not in answers[f"{name}/choice"]:
            verdict.unjudged(f"{name}: all members diverged")
            continue
        best = int(answers[f"{name}/choice"]["expansion"].values[:, -1].argmax())
        rate = answers[f"{name}/information"]["rate"].values
        share = answers[f"{name}/code"]["expansion"].values[:, -1]
        error = answers[f"{name}/errors"]["error"].values[:, -1]
        bound = float(answers[f"{name}/errors"]["reference"].values[0, -1])
        near = int((error <= rule["near"] * bound).sum())
        words = (
            f"{way}: best member {rate[best]:.3f} bits a step, {share[best]:.3f} as in the expansion, error "
            f"{error[best]:.4f} (limit {bound:.4f}); median {np.median(rate):.2f}, {np.median(share):.2f}, "
            f"{np.median(error):.4f}; {near} of {len(error)} within {rule['near']:g} x the limit"
        )
        if name == "relaxed":
            verdict.clause(rate[best] >= rule["rate"] and share[best] >= rule["expansion"], words)
            verdict.interval = bootstrap(np.median, share)
            if len(rate) > rule["members"]:
                verdict.note(f"the best of {len(rate)}, not of {rule['members']}")
            verdict.members = len(rate)
        else:
            verdict.say(words)
    return [verdict.claim()]


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Errors beside the limit, shares of the expansion, and the best member's map from inputs to bits."""
    from poprnn.report.panels import matrix, over

    there = [name for name in WAYS if "expansion" in answers[f"{name}/code"]]
    if not there:
        return {}
    errors = {name: answers[f"{name}/errors"] for name in there}
    series = {WAYS[n]: (a["time"].values, np.log10(a["error"].values)) for n, a in errors.items()}
    any_of = errors[there[0]]
    limit = (any_of["time"].values, np.log10(any_of["reference"].values[0]))
    agreed = {WAYS[n]: (answers[f"{n}/code"]["time"].values, answers[f"{n}/code"]["expansion"].values) for n in there}
    figures: dict[str, Any] = {
        "errors": over(
            "errors", series, "step", "log10 of squared error / variance",
            "Error of a uniform scalar after each bit. Thin line: the limit 4^-t, which no quantiser passes.",
            whole_x=True, lines={"limit: halving": limit},
        ),
        "expansion": over(
            "expansion", agreed, "step", "share of inputs",
            "Share of inputs whose bits so far are those of the binary expansion, up to a flip for each prefix.",
            whole_x=True, reference=(0.95, "asked of the best member: {:g}"),
        ),
    }  # fmt: skip
    maps = []
    for name in there:
        book, best = answers[f"{name}/code"], int(answers[f"{name}/choice"]["expansion"].values[:, -1].argmax())
        places = np.linspace(0, book.sizes["trial"] - 1, 160).astype(int)
        bits = book["symbol"].values[best, book["word"].values[best, places]].astype(float)
        x = book["input"].values[places]
        maps.append(
            matrix(
                f"code_{name}", bits.T, np.array([]), np.arange(1, bits.shape[1] + 1),
                f"inputs in order, from {x[0]:.2f} to {x[-1]:.2f}", "step", "bit",
                f"Bits by which the best member sends an input ({WAYS[name]}).", title=WAYS[name], limits=(0, 1),
            )
        )  # fmt: skip
    return figures | {"codes": maps}
