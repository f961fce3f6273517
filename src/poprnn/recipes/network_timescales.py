"""T5 and T6: how the timescales of units within their network, and of the whole, grow with the memory."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.recipes._timescales import (
    CURRICULA,
    TASKS,
    ask_network_timescales,
    both_curricula,
    brackets,
    correlation,
    hyphened,
    interval_of,
    left_out,
    rows_of,
    slope_of,
)
from poprnn.recipes.contract import Claim
from poprnn.training.run import Run
from poprnn.training.settings import Setup


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """Single-head and multi-head on both tasks, as in ``curriculum_timescales``."""
    return both_curricula(scale)


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Timescales of the activity at the N each population has solved, by the paper's criterion and by prediction.

    AIC takes sampling errors of neighbouring lags for independent and finds slow components where there are none
    (see ``autocorrelation_timescales``); what the claims say is reported by ``criterion = "trials"`` as well.
    """
    out = {}
    for label, run in runs.items():
        for criterion in ("aic", "trials"):
            name = f"{label}/{criterion}"
            out[name] = ask_network_timescales(ask, name, run, scale, criterion=criterion)
    return out


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdicts on T5 and T6."""
    rules = {c["id"]: c for c in about["claims"]}
    by_aic, by_trials = (
        {label.rsplit("/", 1)[0]: a for label, a in answers.items() if label.endswith(f"/{criterion}")}
        for criterion in ("aic", "trials")
    )
    return [_judge_t5(by_aic, by_trials, rules["T5"]), _judge_t6(by_aic, rules["T6"])]


def _judge_t5(answers: dict[str, xr.Dataset], by_trials: dict[str, xr.Dataset], rule: dict[str, Any]) -> Claim:
    words: list[str] = []
    notes = left_out(answers)
    passed, interval = True, None
    for label, answer in answers.items():
        mean, sd = (correlation(rows_of(answer, name)) for name in ("mean", "std"))
        words.append(f"{label}: Spearman {mean:.2f} (mean), {sd:.2f} (SD)")
        passed &= mean >= rule["spearman"] and sd >= rule["spearman"]
        if label in by_trials:
            mean, sd = (correlation(rows_of(by_trials[label], name)) for name in ("mean", "std"))
            words[-1] += f" (chosen by prediction: {mean:.2f}, {sd:.2f})"
        if label.endswith("multi_head"):
            rows = rows_of(answer, "mean")
            largest = rows[:, 0].max(initial=0)
            if largest < rule["saturation_n"]:
                notes.append(f"{label}: saturation not judged, largest N = {largest:g}")
                continue
            ratio, interval = _saturation(rows), interval_of(rows, _saturation)
            words.append(f"{label}: slope in the last third over the first {ratio:.2f} {brackets(interval)}")
            passed &= ratio < rule["saturation"]
    agreement = np.concatenate([rows_of(a, "aic_bic_agreement")[:, 2] for a in answers.values()])
    if len(agreement):
        quality = np.concatenate([a["r_squared"].values.reshape(-1) for a in answers.values() if "r_squared" in a])
        words.append(f"AIC and BIC agree for {agreement.mean():.1%} of units, median R² {np.nanmedian(quality):.4f}")
        passed &= bool(agreement.mean() >= rule["agreement"] and np.nanmedian(quality) >= rule["r_squared"])
    members = sum(len(np.unique(rows_of(a, "mean")[:, 1])) for a in answers.values())
    return Claim(
        "T5", rule["claim"], rule["paper"], "; ".join(words), interval, members, bool(passed), "; ".join(notes)
    )


def _saturation(rows: np.ndarray) -> float:
    """Slope over N in the last third of N over that in the first third."""
    low, high = rows[:, 0].min(), rows[:, 0].max()
    third = (high - low) / 3
    first, last = slope_of(rows[rows[:, 0] <= low + third]), slope_of(rows[rows[:, 0] >= high - third])
    return last / first if first else float("nan")


def _judge_t6(answers: dict[str, xr.Dataset], rule: dict[str, Any]) -> Claim:
    words: list[str] = []
    notes = left_out(answers)
    passed, members = True, 0
    for task in TASKS:
        rows = {c: rows_of(answers[f"{task}-{c}"], "population_tau") for c in CURRICULA if f"{task}-{c}" in answers}
        for curriculum, mine in rows.items():
            found = correlation(mine)
            words.append(f"{task} {curriculum}: Spearman {found:.2f}")
            passed &= found >= rule["spearman"]
            members += len(np.unique(mine[:, 1]))
        common = [
            n for n in np.unique(rows["single_head"][:, 0]) if all((r[:, 0] == n).sum() >= 2 for r in rows.values())
        ]
        if not common:
            notes.append(f"{task}: no N was solved by two members of both curricula")
            passed = False
            continue
        single, multi = (float(np.median(rows[c][rows[c][:, 0] == common[-1], 2])) for c in CURRICULA)
        ratio = max(single, multi) / min(single, multi)
        words.append(
            f"{task} at N = {common[-1]:g}: {single:.3g} single-head, {multi:.3g} multi-head (factor {ratio:.2f})"
        )
        passed &= ratio <= rule["ratio"]
    return Claim("T6", rule["claim"], rule["paper"], "; ".join(words), None, members, bool(passed), "; ".join(notes))


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figures 5 and S4: mean and SD of tau_net, and tau_pop, against N."""
    from poprnn.report.panels import over

    labels = {
        "mean": "mean of tau_net over units (steps)",
        "std": "SD of tau_net over units (steps)",
        "population_tau": "tau_pop (steps)",
    }
    figures: dict[str, Any] = {}
    for task in TASKS:
        mine = {c: answers[f"{task}-{c}/aic"] for c in CURRICULA if f"{task}-{c}/aic" in answers}
        figures[task] = [
            over(
                name,
                {
                    hyphened(c): (a["n"].values, a[name].transpose("member", "n").values)
                    for c, a in mine.items()
                    if name in a
                },
                "memory N solved",
                label,
                f"{label[0].upper()}{label[1:]} when a memory was solved.",
                whole_x=True,
            )
            for name, label in labels.items()
        ]
    return figures
