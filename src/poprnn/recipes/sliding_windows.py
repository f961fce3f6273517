"""T15: curricula between single-head and multi-head, which train a window of heads that moves on."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.recipes._robustness import solved
from poprnn.recipes._timescales import (
    CURRICULA,
    ask_network_timescales,
    both_curricula,
    brackets,
    correlation,
    hyphened,
    interval_of,
    rows_of,
    setup,
    slope_of,
    spread,
    tau_by_n,
    tau_rows,
)
from poprnn.recipes._variants import about_training, ask_largest_n
from poprnn.recipes._verdict import Verdict
from poprnn.recipes.contract import Claim
from poprnn.training.curricula.sliding_window import SlidingWindow
from poprnn.training.run import Run
from poprnn.training.settings import Setup

TASK = "n_parity"
KEEP = ("mean", "std", "population_tau", "aic_bic_agreement")
RETRAINED = 5
"""The window whose networks the paper retrains."""
TAUS = ("tau", "tau_net")


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """Single-head and multi-head on parity, and one population for each window."""
    return {label.removeprefix(f"{TASK}-"): s for label, s in both_curricula(scale, [TASK]).items()} | {
        f"window_{w}": setup(scale, TASK, SlidingWindow(window=w)) for w in scale["windows"]
    }


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Largest N, tau and tau_net at the N that were solved, and retraining of three populations from one or two N."""
    out = {}
    for label, run in runs.items():
        out[f"{label}/largest_n"] = ask_largest_n(ask, label, run, scale)
        out[f"{label}/tau"] = ask(label, tau_by_n, run)
        out[f"{label}/tau_net"] = ask_network_timescales(ask, label, run, scale, KEEP)
    how = {"epochs": scale["retrain_epochs"], "steps_per_epoch": scale["retrain_steps"]}
    for label in (*CURRICULA, f"window_{RETRAINED}"):
        for start, to in (("from_n", "to"), ("far_n", "far_to")):
            n = scale.get(start)
            if n in solved(runs[label]):
                found = ask(f"{label}/{start}", "retraining", runs[label], n=n, to=scale[to], **how)
                out[f"{label}/{start}"] = found.assign_coords(n=n).assign_attrs(how)
            elif n is not None:  # so that the judge can tell nobody from not asked
                out[f"{label}/{start}"] = xr.Dataset(
                    {"relative_accuracy": (("member", "to"), np.zeros((0, len(scale[to]))))},
                    {"member": np.zeros(0, int), "to": scale[to], "n": n},
                    how,
                )
    return out


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdict on T15."""
    (rule,) = about["claims"]
    verdict = Verdict(rule)
    windows = _windows(answers)
    largest = {
        label: answers[f"{label}/largest_n"]["largest_n"].values
        for label in (*CURRICULA, *(f"window_{w}" for w in windows))
    }
    verdict.members = sum(len(values) for values in largest.values())
    _judge_largest(verdict, windows, largest)
    for name in TAUS:
        _judge_growth(verdict, windows, answers, name)
    _judge_retraining(verdict, answers, "from_n")
    if f"{CURRICULA[0]}/far_n" in answers:
        _judge_retraining(verdict, answers, "far_n")
    else:
        verdict.note(f"retraining from N = {rule['far_n']} is not part of this scale")
    for words in about_training({k: a for k, a in answers.items() if k.endswith("largest_n")}, rule["epochs"]):
        verdict.note(words)
    return [verdict.claim()]


def _windows(answers: dict[str, xr.Dataset]) -> list[int]:
    labels = {label.split("/")[0] for label in answers}
    return sorted(int(label.removeprefix("window_")) for label in labels if label.startswith("window_"))


def _judge_largest(verdict: Verdict, windows: list[int], largest: dict[str, np.ndarray]) -> None:
    """Rising with the window, between the two curricula."""
    if not any(values.any() for values in largest.values()):
        verdict.unjudged("largest N: nobody has solved any")
        return
    rows = np.array([(w, k, n) for w in windows for k, n in enumerate(largest[f"window_{w}"])], float).reshape(-1, 3)
    found = correlation(rows)
    words = "; ".join(f"{_words(label)} {spread(values)}" for label, values in largest.items() if len(values))
    if np.isfinite(found):
        # resampled members that all solved the same N show no order
        verdict.interval = interval_of(rows, lambda mine: float(np.nan_to_num(correlation(mine))))
        words += f"; Spearman(window, largest N) {found:.2f} {brackets(verdict.interval)}"
    verdict.clause(found >= verdict.rule["spearman"], words)
    if any(len(values) == 0 for values in largest.values()):
        verdict.unjudged("largest N between the curricula: a population has no members left")
        return
    low, high = (float(largest[c].mean()) for c in CURRICULA)
    means = {w: float(largest[f"window_{w}"].mean()) for w in windows}
    verdict.clause(
        all(low <= mean <= high for mean in means.values()),
        f"mean largest N: single-head {low:.3g}, {', '.join(f'window {w} {m:.3g}' for w, m in means.items())}, "
        f"multi-head {high:.3g}",
    )


def _moments(answers: dict[str, xr.Dataset], label: str, name: str) -> np.ndarray:
    """``[moment, (N, member, mean over units)]``."""
    found = answers[f"{label}/{name}"]
    return tau_rows(found, "mean") if name == "tau" else rows_of(found, "mean")


def _judge_growth(verdict: Verdict, windows: list[int], answers: dict[str, xr.Dataset], name: str) -> None:
    """With N for every window, more slowly for larger ones."""
    slopes = []
    for w in windows:
        rows = _moments(answers, f"window_{w}", name)
        if len(np.unique(rows[:, 0])) < 3:
            verdict.unjudged(f"{name}, window {w}: fewer than three N were solved")
            continue
        slopes.append((w, 0, slope_of(rows)))
        found = correlation(rows)
        verdict.clause(
            found >= verdict.rule["spearman"],
            f"{name}, window {w}: Spearman {found:.2f}, slope {slopes[-1][2]:.3g} a bit",
        )
    if len(slopes) < 3:
        verdict.unjudged(f"slope of {name} against the window: fewer than three windows have one")
        return
    found = correlation(np.array(slopes))
    verdict.clause(found <= -verdict.rule["spearman"], f"Spearman(window, slope of {name}) {found:.2f}")


def _judge_retraining(verdict: Verdict, answers: dict[str, xr.Dataset], start: str) -> None:
    """How well three populations take to larger N: near multi-head from the smaller start, best from the larger one."""
    rule = verdict.rule
    found = {label: answers[f"{label}/{start}"] for label in (*CURRICULA, f"window_{rule['window']}")}
    (n,) = {int(a["n"]) for a in found.values()}
    used = next(iter(found.values())).attrs
    if n != rule[start]:
        verdict.note(f"stand-in: retraining from N = {n} instead of {rule[start]}")
    if (used["epochs"], used["steps_per_epoch"]) != (rule["retrain_epochs"], rule["retrain_steps"]):
        verdict.note(
            f"stand-in: retraining for {used['epochs']} epochs of {used['steps_per_epoch']} steps "
            f"instead of {rule['retrain_epochs']} of {rule['retrain_steps']}"
        )
    values = {label: a["relative_accuracy"].values for label, a in found.items()}
    values = {label: v[np.isfinite(v).all(axis=1)] for label, v in values.items()}
    nobody = [_words(label) for label, v in values.items() if not len(v)]
    if nobody:
        verdict.unjudged(f"retraining from N = {n}: {', '.join(nobody)}: nobody has solved it")
        return
    single, multi, window = (float(v.mean()) for v in values.values())
    holds = (
        abs(window - multi) <= rule["close"] and window > single if start == "from_n" else window > max(single, multi)
    )
    means = ", ".join(f"{_words(label)} {v.mean():.3f} (n = {len(v)})" for label, v in values.items())
    verdict.clause(holds, f"relative accuracy after retraining from N = {n}: {means}")


def _words(label: str) -> str:
    return label.replace("_", " ") if label.startswith("window") else hyphened(label)


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figures S12 and S14c, d: largest N by condition, tau and tau_net against N, accuracy after retraining."""
    from poprnn.report.panels import by_group, by_member, over

    order = (CURRICULA[0], *(f"window_{w}" for w in _windows(answers)), CURRICULA[1])
    figures = [
        by_group(
            "largest_n",
            {_words(label): {"": answers[f"{label}/largest_n"]["largest_n"].values} for label in order},
            "largest memory N solved (bits)",
            "Largest N by the end of training, on fresh trials, by curriculum; 0: none.",
        )
    ]
    for name in TAUS:
        series = {_words(label): by_member(_moments(answers, label, name)) for label in order}
        figures.append(
            over(
                name,
                {label: xy for label, xy in series.items() if len(xy[0])},
                "memory N solved",
                f"mean of {name} over units (steps)",
                f"Mean of {name} over units when a memory was solved.",
                whole_x=True,
            )
        )
    for start in ("from_n", "far_n"):
        found = {label: answers[f"{label}/{start}"] for label in order if f"{label}/{start}" in answers}
        if found:
            n = int(next(iter(found.values()))["n"])
            figures.append(
                over(
                    f"retraining_{start}",
                    {
                        _words(k): (a["to"].values, a["relative_accuracy"].values)
                        for k, a in found.items()
                        if a.sizes["member"]
                    },
                    "new memory N",
                    "relative accuracy",
                    f"Relative accuracy after retraining networks that had solved N = {n} to another N alone.",
                    whole_x=True,
                )
            )
    return {TASK: figures}
