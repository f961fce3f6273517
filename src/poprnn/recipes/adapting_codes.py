"""B5, B6, B7: what codes do when inputs shift, when some are frequent, when combinations are new."""

from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from poprnn.recipes._bottleneck import population
from poprnn.recipes._verdict import Verdict
from poprnn.recipes.contract import Claim, bootstrap
from poprnn.tasks.distributions.compositional import Compositional
from poprnn.tasks.distributions.dictionary import Dictionary
from poprnn.tasks.distributions.uniform import Uniform
from poprnn.tasks.static_vectors import StaticVectors
from poprnn.training.curricula.shifts import Shifts
from poprnn.training.optimizers.adam import Adam
from poprnn.training.run import Run
from poprnn.training.settings import Setup

EVERY = 50
"""Training steps between two looks at a code that adapts: the first hundred after a shift hold three."""
EARLY = "epoch_00001"
"""Snapshot of dictionaries before much practice."""
EDGE = 3**0.5
"""Of the uniform scalar with variance 1."""


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """A shift to the upper half of an interval, and that half from scratch; dictionaries; combinations."""
    whole, half = (Uniform(n_dimensions=1, low=low) for low in (-EDGE, 0.0))
    before = scale["steps"] // EVERY * EVERY
    after = scale["steps_after"] // EVERY * EVERY
    continual: dict[str, Any] = {"optimizer": Adam(learning_rate=scale["continual_rate"]), "steps_per_epoch": EVERY}
    n_steps = scale["n_steps"]
    shift = StaticVectors(inputs=whole, shifts=(half,), n_steps=n_steps)
    alone = StaticVectors(inputs=half, n_steps=n_steps)
    curriculum = Shifts(epochs=(before // EVERY,))
    late: dict[str, Any] = {"epochs": (before + after) // EVERY, "curriculum": curriculum, "snapshots": 1}
    out = {
        "shift": population(scale, shift, _binary(before, before + after), **late, **continual),
        "scratch": population(scale, alone, _binary(after, after), epochs=after // EVERY, **continual),
    }
    for name, exponent in (("zipf", scale["exponent"]), ("even", 0.0)):
        task = StaticVectors(
            inputs=Dictionary(n_patterns=scale["patterns"], exponent=exponent), n_steps=scale["pattern_steps"]
        )
        out[name] = population(scale, task, _binary(scale["steps"], scale["steps"]), snapshots=1)
    task = StaticVectors(inputs=Compositional(), n_steps=scale["factor_steps"])
    out["continuous"] = population(scale, task, {"width": 2})
    out["binary"] = population(scale, task, _binary(scale["steps"], scale["steps"]) | {"width": 2})
    return out


def _binary(annealing: int, steps: int) -> dict[str, Any]:
    """One binary unit, relaxed as long as it is trained."""
    about = {"width": 1, "bottleneck": "binary", "final_temperature": 0.2}
    return about | {"annealing_steps": annealing * 3 // 4, "relaxed_steps": steps}


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Rates since the shift, errors by pattern early and late, errors on combinations."""
    trials = {"n_trials": scale["trials"]}
    out = {
        "shift": ask("shift", "adaptation", runs["shift"], **trials),
        "scratch": ask("scratch", "transmitted_information", runs["scratch"], **trials),
    }
    for name in ("zipf", "even"):
        out[name] = ask(name, "rate_distortion", runs[name], **trials)
        if EARLY in runs[name].snapshots:
            out[f"{name}-early"] = ask(f"{name}-early", "rate_distortion", runs[name].at(EARLY), **trials)
    for name in ("continuous", "binary"):
        out[name] = ask(name, "compositional_error", runs[name], **trials)
    return out


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdicts on B5, B6 and B7."""
    rules = {rule["id"]: rule for rule in about["claims"]}
    return [_judge_b5(answers, rules["B5"]), _judge_b6(answers, rules["B6"]), _judge_b7(answers, rules["B7"])]


def _judge_b5(answers: dict[str, xr.Dataset], rule: dict[str, Any]) -> Claim:
    verdict, found = Verdict(rule), answers["shift"]
    if "rate_new" not in found or "rate" not in answers["scratch"]:
        verdict.unjudged("all members of a population diverged")
        return verdict.claim()
    if not np.median(answers["scratch"]["rate"].values) > 0:
        verdict.unjudged("networks trained on the new inputs from scratch send nothing")
        return verdict.claim()
    step = found["step"].values
    first = (step >= 0) & (step <= rule["first_steps"])
    before = found["rate_before"].values
    with np.errstate(invalid="ignore", divide="ignore"):  # codes that say nothing
        dropped = found["rate_new"].values[:, first].mean(axis=1) / before
        late = found["rate_new"].values[:, -1] / np.median(answers["scratch"]["rate"].values)
        shared = found["mutual_information"].values[:, -1] / found["word_entropy"].values[:, -1]
    verdict.clause(
        np.median(dropped) <= rule["drop"],
        f"rate in the first {rule['first_steps']} steps {np.median(dropped):.2f} of the old one "
        f"({np.median(before):.2f} bits)",
    )
    verdict.clause(np.median(late) >= rule["recover"], f"at the end {np.median(late):.2f} of that from scratch")
    again = found["steps_to_recover"].values
    when = f"in the median after {np.median(again[np.isfinite(again)]):g} steps" if np.isfinite(again).any() else ""
    verdict.say(f"{np.isfinite(again).sum()} of {len(again)} members get back to 95 % of the old rate {when}".strip())
    verdict.clause(
        np.median(shared) < rule["shared"],
        f"mutual information of old and new words {np.median(shared):.2f} of the new ones' entropy",
    )
    verdict.interval = bootstrap(np.median, dropped)
    verdict.members = len(dropped)
    return verdict.claim()


def steps_needed(found: xr.Dataset, error: float) -> np.ndarray:
    """First step from which on a pattern's error is small enough, ``[member, pattern]``; one past the last if none."""
    large = found["error_by_kind"].values > error
    return 1 + large.shape[2] - np.logical_and.accumulate(~large[:, :, ::-1], axis=2).sum(axis=2)


def practice(found: xr.Dataset, error: float) -> np.ndarray:
    """Spearman's correlation of a pattern's place in the order of frequency with the steps it needs, for each member.

    0 where all patterns need equally many.
    """
    steps = steps_needed(found, error)
    return np.array([spearmanr(np.arange(len(s)), s).statistic if np.ptp(s) else 0.0 for s in steps])


def _judge_b6(answers: dict[str, xr.Dataset], rule: dict[str, Any]) -> Claim:
    verdict = Verdict(rule)
    if any("error_by_kind" not in answers[name] for name in ("zipf", "even")):
        verdict.unjudged("all members of a population diverged")
        return verdict.claim()
    rank = {name: practice(answers[name], rule["error"]) for name in ("zipf", "even")}
    interval = bootstrap(np.mean, rank["zipf"])
    beyond = bootstrap(lambda a, b: a.mean() - b.mean(), rank["zipf"], rank["even"])
    verdict.clause(
        interval[0] > 0 and beyond[0] > 0,
        f"Spearman(place, steps needed) {rank['zipf'].mean():.2f} [{interval[0]:.2f}, {interval[1]:.2f}], "
        f"{rank['even'].mean():.2f} where all are as frequent (difference at least {beyond[0]:.2f})",
    )
    half = answers["zipf"].sizes["pattern"] // 2
    for words, name in (("early in training", "zipf-early"), ("after it", "zipf")):
        if "error_by_kind" in answers.get(name, ()):
            steps = steps_needed(answers[name], rule["error"])
            verdict.say(
                f"{words} {steps[:, :half].mean():.1f} steps for frequent, {steps[:, half:].mean():.1f} for rare"
            )
    verdict.interval, verdict.members = interval, sum(len(r) for r in rank.values())
    return verdict.claim()


def _judge_b7(answers: dict[str, xr.Dataset], rule: dict[str, Any]) -> Claim:
    verdict = Verdict(rule)
    for name in ("continuous", "binary"):
        found = answers[name]
        if "mean_ratio" not in found:
            verdict.unjudged(f"{name}: all members diverged")
            continue
        low, high = float(found["mean_ratio_low"]), float(found["mean_ratio_high"])
        trained, held = np.median(found["error"].values[:, :, -1], axis=0)
        verdict.clause(
            high <= rule["ratio"],
            f"{name}: error {trained:.3f} trained, {held:.3f} held out; ratio {float(found['mean_ratio']):.2f} "
            f"[{low:.2f}, {high:.2f}]",
        )
        verdict.interval = verdict.interval or [low, high]
        verdict.members += found.sizes["member"]
    return verdict.claim()


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Rates and shared bits since the shift; steps needed by place; errors on combinations."""
    from poprnn.report.panels import by_group, over

    found = answers["shift"]
    figures: dict[str, Any] = {}
    if "rate_new" in found:
        step = found["step"].values
        figures["shift"] = [
            over(
                "rate",
                {"old inputs": (step, found["rate_old"].values), "new inputs": (step, found["rate_new"].values)},
                "training steps since the shift",
                "bits a step",
                "Information sent per step about inputs of the distribution before the shift and of that after it.",
                reference=(float(np.median(answers["scratch"]["rate"].values)), "from scratch, new inputs: {:.2f}"),
            ),
            over(
                "words",
                {
                    "shared with the words before the shift": (step, found["mutual_information"].values),
                    "entropy of the words": (step, found["word_entropy"].values),
                },
                "training steps since the shift",
                "bits",
                "Words for the new inputs, and how much those before the shift tell of them.",
            ),
        ]
    rule = 0.1
    named = {"zipf": "Zipf's frequencies", "even": "equal frequencies", "zipf-early": "Zipf's, early in training"}
    place = {
        words: (answers[name]["pattern"].values + 1.0, steps_needed(answers[name], rule).astype(float))
        for name, words in named.items()
        if "error_by_kind" in answers.get(name, ())
    }
    if place:
        figures["practice"] = over(
            "steps_needed", place, "place in the order of frequency", "steps needed",
            f"First step from which on the error of a pattern stays below {rule} of the variance.", whole_x=True,
        )  # fmt: skip
    groups = {
        name: {kind: answers[name]["error"].sel(combinations=kind).values[:, -1] for kind in ("trained", "held out")}
        for name in ("continuous", "binary")
        if "error" in answers[name]
    }
    if groups:
        caption = "Error at the last step on combinations of factors that were trained, and on those held out."
        figures["combinations"] = by_group("combinations", groups, "error / variance", caption)
    return figures
