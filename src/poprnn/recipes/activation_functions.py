"""T14: whether the findings hold for other activation functions, and with the self-interaction outside of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from poprnn.recipes._timescales import (
    CURRICULA,
    TASKS,
    ask_network_timescales,
    brackets,
    correlation,
    hyphened,
    interval_of,
    rows_of,
    spread,
    tau_by_n,
    tau_rows,
)
from poprnn.recipes._variants import (
    Clauses,
    about_training,
    ask_largest_n,
    draw_fixed,
    judge_fixed,
    trained_and_fixed,
    verdict,
)
from poprnn.recipes.contract import Claim
from poprnn.training.run import Run
from poprnn.training.settings import Setup

VARIANTS: dict[str, dict[str, Any]] = {
    "relu": {"activation": "relu"},
    "tanh": {"activation": "tanh"},
    "leaky_relu": {},
    "outside": {"self_interaction": "outside"},
}
"""Options of the leaky RNN by variant; the third is that of all other recipes."""
WORDS = {True: "yes", False: "no", None: "not judged"}


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """``relu-n_parity-single_head`` …: both curricula for each variant and task, with fixed tau too if so wanted."""
    return {
        f"{variant}-{label}": setup
        for variant, cell in VARIANTS.items()
        for task in scale.get("tasks", TASKS)
        for label, setup in trained_and_fixed(scale, task, fixed=scale["fixed_tau"], **cell).items()
    }


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """The largest N of each population, and tau and tau_net at the moments when an N was solved."""
    out = {}
    for label, run in runs.items():
        out[f"{label}/largest_n"] = ask_largest_n(ask, label, run, scale)
        if label.endswith("fixed"):
            continue
        out[f"{label}/tau"] = ask(label, tau_by_n, run)
        out[f"{label}/tau_net"] = ask_network_timescales(ask, label, run, scale)
    return out


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdict on T14: that of T2 to T5 for each variant and task."""
    rule = {c["id"]: c for c in about["claims"]}["T14"]
    largest = _largest(answers)
    words: list[str] = []
    notes = ["T4 without its part on networks without curriculum", "T5 without saturation, AIC and BIC"]
    if not any(label.endswith("fixed") for label in largest):
        notes.append("T3 not judged: it needs populations with fixed tau (paper scale)")
    notes += about_training(largest, rule["epochs"])
    missing = [v for v in VARIANTS if not any(label.startswith(f"{v}-") for label in largest)]
    every: Clauses = [None for _ in missing]
    notes += [f"{variant}: no answers" for variant in missing]
    tasks = [t for t in TASKS if any(f"-{t}-" in label for label in largest)]
    for variant in (v for v in VARIANTS if v not in missing):
        for task in tasks:
            parts, remarks = _judge_one(answers, largest, f"{variant}-{task}", rule)
            every += [verdict(clauses) for clauses, _ in parts.values()]
            told = ", ".join(f"{name} {WORDS[verdict(clauses)]} ({text})" for name, (clauses, text) in parts.items())
            words.append(f"{variant} {task}: {told}")
            notes += remarks
    if tasks != list(TASKS):
        notes.append(f"stand-in: {', '.join(tasks) or 'nothing'} only")
    members = sum(a.sizes["member"] for a in largest.values())
    return [
        Claim("T14", rule["claim"], rule["paper"], "; ".join(words), None, members, verdict(every), "; ".join(notes))
    ]


def _largest(answers: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The answers about the largest N, by population."""
    return {k.removesuffix("/largest_n"): a for k, a in answers.items() if k.endswith("/largest_n")}


def _judge_one(
    answers: Mapping[str, xr.Dataset], largest: Mapping[str, xr.Dataset], label: str, rule: Mapping[str, Any]
) -> tuple[dict[str, tuple[Clauses, str]], list[str]]:
    """Clauses and words of each claim for one variant and task, and notes."""
    parts = {"T2": _t2(largest, label)}
    notes: list[str] = []
    if any(f"{label}-{c}-fixed" in largest for c in CURRICULA):
        clauses, words, notes, _ = judge_fixed(largest, label, rule)
        parts["T3"] = clauses, ", ".join(w.removeprefix(f"{label} ") for w in words)
    parts["T4"] = _t4(answers, label, rule["spearman"])
    parts["T5"] = _t5(answers, label, rule["spearman"])
    return parts, notes


def _t2(largest: Mapping[str, xr.Dataset], label: str) -> tuple[Clauses, str]:
    """Whether the worst multi-head member is better than the best single-head member."""
    single, multi = (largest[f"{label}-{c}"]["largest_n"].values for c in CURRICULA)
    if not (len(single) and len(multi)):
        return [None], "a curriculum has no members"
    solved = bool(single.any() or multi.any())
    return [bool(multi.min() > single.max()) if solved else None], f"{spread(single)} and {spread(multi)}"


def _t4(answers: Mapping[str, xr.Dataset], label: str, least: float) -> tuple[Clauses, str]:
    """Whether mean and SD of tau grow under single-head; under multi-head the mean falls and the SD does not change."""
    clauses: Clauses = []
    words: list[str] = []
    mean, sd = (_tau(answers, f"{label}-single_head", name) for name in ("mean", "sd"))
    if _too_few(mean):
        clauses.append(None)
        words.append("single-head: fewer than three N")
    else:
        found = [correlation(rows) for rows in (mean, sd)]
        clauses.append(all(r >= least for r in found))
        words.append("single-head {:.2f}, {:.2f}".format(*found))
    mean, sd = (_tau(answers, f"{label}-multi_head", name) for name in ("mean", "sd"))
    if _too_few(mean):
        clauses.append(None)
        words.append("multi-head: fewer than three N")
    else:
        slope, flat = interval_of(mean), interval_of(sd)
        clauses.append(bool(slope[1] < 0 and flat[0] <= 0 <= flat[1]))
        words.append(f"multi-head {brackets(slope)}, {brackets(flat)}")
    return clauses, ", ".join(words)


def _t5(answers: Mapping[str, xr.Dataset], label: str, least: float) -> tuple[Clauses, str]:
    """Whether mean and SD of tau_net grow under both curricula."""
    clauses: Clauses = []
    words: list[str] = []
    for curriculum in CURRICULA:
        name = hyphened(curriculum)
        answer = answers.get(f"{label}-{curriculum}/tau_net")
        rows = [np.zeros((0, 3)) if answer is None else rows_of(answer, variable) for variable in ("mean", "std")]
        if _too_few(rows[0]):
            clauses.append(None)
            words.append(f"{name}: fewer than three N")
            continue
        found = [correlation(r) for r in rows]
        clauses.append(all(r >= least for r in found))
        words.append("{} {:.2f}, {:.2f}".format(name, *found))
    return clauses, ", ".join(words)


def _tau(answers: Mapping[str, xr.Dataset], label: str, name: str) -> np.ndarray:
    return tau_rows(answers[f"{label}/tau"], name) if f"{label}/tau" in answers else np.zeros((0, 3))


def _too_few(rows: np.ndarray) -> bool:
    return len(np.unique(rows[:, 0])) < 3


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figures S7 and S8: tau_net (top) and tau (bottom) against N by variant; S11: largest N, and with tau fixed."""
    from poprnn.report.panels import by_group

    figures: dict[str, Any] = {}
    for task in TASKS:
        drawn = _draw_timescales(answers, task)
        groups = {
            _title(variant): {
                hyphened(c): answers[f"{variant}-{task}-{c}/largest_n"]["largest_n"].values for c in CURRICULA
            }
            for variant in VARIANTS
            if all(f"{variant}-{task}-{c}/largest_n" in answers for c in CURRICULA)
        }
        if groups:
            drawn.append(
                by_group(
                    "largest",
                    groups,
                    "largest memory N solved (bits)",
                    "Largest N by the end of training, on fresh trials, with trained time constants; 0: none.",
                )
            )
        largest = _largest(answers)
        drawn += [
            draw_fixed(largest, f"{variant}-{task}", f"fixed_tau_{variant}", _title(variant))
            for variant in VARIANTS
            if any(f"{variant}-{task}-{c}-fixed" in largest for c in CURRICULA)
        ]
        if drawn:
            figures[task] = drawn
    return figures


def _draw_timescales(answers: dict[str, xr.Dataset], task: str) -> list[Any]:
    from poprnn.report.panels import by_member, over

    drawn: list[Any] = []
    for quantity, variables in (("tau_net", ("mean", "std")), ("tau", ("mean", "sd"))):
        for curriculum, variable in ((c, v) for c in CURRICULA for v in variables):
            series = {}
            for variant in VARIANTS:
                answer = answers.get(f"{variant}-{task}-{curriculum}/{quantity}")
                if answer is not None:
                    rows = tau_rows(answer, variable) if quantity == "tau" else rows_of(answer, variable)
                    series[_title(variant)] = by_member(rows)
            if series:
                word = "mean" if variable == "mean" else "SD"
                name = hyphened(curriculum)
                drawn.append(
                    over(
                        f"{quantity}_{word}_{curriculum}".lower(),
                        series,
                        "memory N solved (bits)",
                        f"{word} of {quantity} over units (steps)",
                        f"{word[0].upper()}{word[1:]} of {quantity} over units when a memory was solved, {name}.",
                        title=name,
                        whole_x=True,
                    )
                )
    return drawn


def _title(variant: str) -> str:
    return {"relu": "ReLU", "leaky_relu": "leaky ReLU", "outside": "leaky ReLU, self-interaction outside"}.get(
        variant, variant
    )
