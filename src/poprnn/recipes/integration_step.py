"""T12: what networks make of integration steps they were not trained with."""

import dataclasses
from typing import Annotated, Any

import numpy as np
import xarray as xr
from pydantic import Field
from scipy import stats

from poprnn.analysis._probe import at_memory
from poprnn.cells.leaky_rnn import LeakyRNN
from poprnn.core.blueprint import PositiveInt
from poprnn.recipes._robustness import largest_common
from poprnn.recipes._timescales import (
    CURRICULA,
    TASKS,
    both_curricula,
    brackets,
    correlation,
    hyphened,
    interval_of,
    left_out,
    tau_by_n,
    tau_rows,
)
from poprnn.recipes.contract import Claim
from poprnn.training.evaluate import evaluate
from poprnn.training.run import Run
from poprnn.training.settings import Setup


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """Both curricula with several steps a unit of time, and with one."""
    cell = LeakyRNN(n_units=scale["n_units"], self_interaction="outside")
    out: dict[str, Setup] = {}
    for name, steps in (("several", scale["steps"]), ("alone", [scale["alone"]])):
        options = {"dt": [1 / n for n in steps]}
        made = both_curricula(scale, cell=cell, task_options=options)
        out |= {f"{label}-{name}": setup for label, setup in made.items()}
    return out


def accuracy_at_steps(
    run: Run, *, n: PositiveInt, steps: Annotated[list[PositiveInt], Field(min_length=1)], n_trials: PositiveInt = 12800
) -> xr.Dataset:
    """``accuracy`` (member, steps) at memory N, of the weights from when it was solved, with dt = 1 / steps."""
    at, heads, reached = at_memory(run, n, "accuracy_at_steps")
    head, columns = int(heads[0]), []
    for count in steps:
        other = dataclasses.replace(at, setup=at.setup.replace("task.dt", (1 / count,)))
        columns.append(evaluate(other, heads=[head], n_trials=n_trials)["accuracy"][:, 0, head])
    accuracy = np.where(reached[:, None], np.stack(columns, axis=1), np.nan)
    return xr.Dataset(
        {"accuracy": (("member", "steps"), accuracy)}, {"member": run.member_index, "steps": np.array(steps)}
    )


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Time constants at the N solved, and accuracy at trained and other steps."""
    out = {f"{label}/tau": ask(label, tau_by_n, run) for label, run in runs.items()}
    steps = sorted({*scale["steps"], scale["alone"], *scale["unseen_smaller"], *scale["unseen_larger"]})
    for task in scale.get("tasks", TASKS):
        mine = {label: run for label, run in runs.items() if label.startswith(task)}
        n = largest_common(mine.values())
        for label, run in mine.items() if n else ():
            out[f"{label}/accuracy"] = ask(label, accuracy_at_steps, run, n=n, steps=steps).assign_attrs(n=n)
    several = xr.Dataset({"trained": ("steps", scale["steps"])})
    return out | {"steps": several.assign_attrs(alone=scale["alone"])}


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """The verdict on T12."""
    rule = about["claims"][0]
    tasks = [t for t in TASKS if f"{t}-single_head-several/tau" in answers]
    words: list[str] = []
    notes: list[str] = [] if tasks == list(TASKS) else [f"stand-in: {', '.join(tasks)} only"]
    trained = answers["steps"]["trained"].values
    if trained.max() < 10:
        notes.append(f"stand-in: dt = 1/{trained.min()} to 1/{trained.max()}")
    notes += left_out(answers, "/tau")
    passed = True
    for task in tasks:
        passed &= _trends(answers, task, rule, words)
        if f"{task}-single_head-several/accuracy" not in answers:
            notes.append(f"{task}: no N was solved by two members of every population")
            passed = False
            continue
        passed &= _generalises(answers, task, trained, rule, words)
    members = sum(len(a["member"]) for k, a in answers.items() if k.endswith("accuracy"))
    return [Claim("T12", rule["claim"], rule["paper"], "; ".join(words), None, members, passed, "; ".join(notes))]


def _trends(answers: dict[str, xr.Dataset], task: str, rule: dict[str, Any], words: list[str]) -> bool:
    """T4's trends with several dt."""
    single, multi = ([tau_rows(answers[f"{task}-{c}-several/tau"], name) for name in ("mean", "sd")] for c in CURRICULA)
    mean, sd = (correlation(rows) for rows in single)
    words.append(f"{task} single_head: Spearman {mean:.2f} (mean tau), {sd:.2f} (SD)")
    if any(len(np.unique(rows[:, 0])) < 3 for rows in multi):
        words.append(f"{task} multi_head: fewer than three N were solved")
        return False
    slope, flat = (interval_of(rows) for rows in multi)
    words.append(f"{task} multi_head: slope over N of mean {brackets(slope)}, of SD {brackets(flat)}")
    return bool(min(mean, sd) >= rule["spearman"] and slope[1] < 0 and flat[0] <= 0 <= flat[1])


def _generalises(
    answers: dict[str, xr.Dataset], task: str, trained: np.ndarray, rule: dict[str, Any], words: list[str]
) -> bool:
    """Accuracy at unseen dt: kept below, lost above, worse with one dt alone."""
    passed = True
    for curriculum in CURRICULA:
        several, alone = (answers[f"{task}-{curriculum}-{kind}/accuracy"] for kind in ("several", "alone"))
        known = several["accuracy"].sel(steps=trained).mean("steps")
        relative = (several["accuracy"] - 0.5) / (known - 0.5)
        steps = several["steps"].values
        below, above = steps[steps > trained.max()], steps[steps < trained.min()]
        near = {
            name: float(relative.sel(steps=n).mean()) for name, n in (("below", below.min()), ("above", above.max()))
        }
        lower, upper = (relative.sel(steps=s).mean("steps").dropna("member").values for s in (below, above))
        test = stats.ttest_rel(lower, upper) if len(lower) > 1 else None
        p = float(test.pvalue) if test is not None else float("nan")
        unseen = np.concatenate([below, above])
        # seen by neither
        unseen = unseen[unseen != answers["steps"].attrs["alone"]]
        here, there = (float(a["accuracy"].sel(steps=unseen).mean()) for a in (several, alone))
        words.append(
            f"{task} {curriculum} at N = {several.attrs['n']}: relative accuracy {near['below']:.2f} at dt = "
            f"1/{below.min()}, {near['above']:.2f} at 1/{above.max()}; all unseen {lower.mean():.2f} below, "
            f"{upper.mean():.2f} above (p = {p:.2g}); accuracy {here:.3f} with several dt, {there:.3f} with one"
        )
        passed &= near["below"] >= rule["kept"] > near["above"]
        passed &= bool(p < rule["p"] and lower.mean() > upper.mean()) and there < here
    return passed


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figure S5: time constants against N, and accuracy against the integration step."""
    from poprnn.report.compare import compare_taus
    from poprnn.report.panels import over

    figures: dict[str, Any] = {}
    for task in TASKS:
        if f"{task}-single_head-several/tau" not in answers:
            continue
        figures[task] = compare_taus(
            {hyphened(c): tau_rows(answers[f"{task}-{c}-several/tau"], "mean", "sd") for c in CURRICULA}
        )
        series = {
            f"{hyphened(c)}, {words}": (1 / a["steps"].values, a["accuracy"].values)
            for c in CURRICULA
            for kind, words in (("several", "several dt"), ("alone", "one dt"))
            if (a := answers.get(f"{task}-{c}-{kind}/accuracy")) is not None
        }
        if series:
            trained = answers["steps"]["trained"].values
            caption = (
                f"Accuracy at other integration steps than those of training (1/{trained.max()} to 1/{trained.min()})."
            )
            figures[task].append(
                over(
                    "accuracy_dt",
                    series,
                    "integration step dt",
                    "accuracy",
                    caption,
                    log_x=True,
                    reference=(0.5, "chance"),
                )
            )
    return figures
