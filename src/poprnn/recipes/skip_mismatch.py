"""L3: how far each training method's dynamics are from those of trained networks, and what that costs in the task."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from poprnn.recipes._long_dependencies import (
    BASE_DT,
    CRITERION,
    TAU,
    all_of,
    kind_of,
    learning,
    method,
    setup,
    stand_ins,
    steps_needed,
)
from poprnn.recipes.contract import Claim, bootstrap
from poprnn.tasks._cognitive_rules import find_rules
from poprnn.tasks.cognitive import Cognitive
from poprnn.training.run import Run
from poprnn.training.settings import Setup

KINDS = {"CD": "coarsened", "SCTT": "skip", "DASC": "aligned_skip"}
"""The paper's names of the methods, and ours."""
TRAINED, STILL = "trained-", "still-"
"""Beginnings of labels: networks to be measured, and networks trained with long skips or steps."""


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """Trained networks for each of ``tasks``, and ``training_task`` with each of ``training_methods``.

    The networks to be measured are trained with ``method``; the paper does not say with which. ``exceptions`` are tasks
    that this one does not learn, trained with ``exception_method`` instead. Both are by one step from beta = 0.5 (the
    weight that is then measured with). The others are annealed in ``training_increments`` steps.
    """
    out = {}
    odd = find_rules(tuple(scale["exceptions"])) if scale["exceptions"] else ()
    for task in find_rules(tuple(scale["tasks"])):
        name = scale["exception_method"] if task in odd else scale["method"]
        out[TRAINED + task] = _population(scale, task, name, 1)
    (training_task,) = find_rules((scale["training_task"],))
    for name in scale["training_methods"]:
        out[STILL + name] = _population(scale, training_task, name, scale["training_increments"])
    return out


def _population(scale: Mapping[str, Any], task: str, name: str, n_increments: int) -> Setup:
    made = method(name, scale, n_increments=n_increments, base_weight=0.5)
    return setup(scale, Cognitive(rule=task, dt=scale["dt"], timing="batch"), made)


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """``dynamics_mismatch`` over theta at beta = ``base_weight``, and how far the training of each population got.

    Spans are in the paper's steps of 5 ms; where ``dt`` is another, theta · 5 ms is held. Each answer has ``trained``
    (member): the members from the 10th to the 90th percentile of performance at the end, of populations at the
    criterion.
    """
    out: dict[str, xr.Dataset] = {}
    spans = [max(round(theta * BASE_DT / scale["dt"]), 1) for theta in scale["thetas"]]
    for label, run in runs.items():
        curve = learning(run)
        about = {name: curve.attrs[name] for name in ("members", "diverged", "budget")} | {"steps": steps_needed(curve)}
        about |= {"dt": scale["dt"]}
        if label.startswith(STILL):
            name = label.removeprefix(STILL)
            (task,) = find_rules((scale["training_task"],))
            out[label] = xr.Dataset(attrs=about | {"task": task, "method": name, "until": on_until(run, name)})
            continue
        options = {"spans": spans, "base_weight": scale["base_weight"], "n_trials": scale["n_trials"]}
        found = ask(label, "dynamics_mismatch", run, **options)
        if "mismatch" in found:
            found = found.assign_coords(span=list(scale["thetas"]))
            found = found.assign(trained=_middle(curve).sel(member=found["member"]) & bool(np.isfinite(about["steps"])))
        out[label] = found.assign_attrs(about, base_weight=scale["base_weight"])
    return out


def _middle(curve: xr.Dataset) -> xr.DataArray:
    """Who is between the 10th and the 90th percentile of performance at the end, those that diverged the last of all.

    They are those that the criterion is the mean of.
    """
    last = np.nan_to_num(curve["performance"].values[-1].astype(float))
    chosen = np.zeros(len(last), bool)
    chosen[np.argsort(last, kind="stable")[CRITERION.middle(len(last))]] = True
    return xr.DataArray(chosen, dims="member", coords={"member": curve["member"]})


def on_until(run: Run, name: str) -> float:
    """The training step at which a method has let go: CD's step is no longer than tau, or beta is 1."""
    made: Any = run.setup.training.method
    steps = np.arange(made.annealing_steps + 1)
    values = {k: np.asarray(v) for k, v in made.schedule(steps).items()}
    cell: Any = run.cell
    gone = values["factor"] * cell.dt <= TAU if kind_of(name)[0] == "CD" else values["weight"] >= 1
    return float(steps[gone.argmax()]) if gone.any() else float("inf")


# --- verdict -------------------------------------------------------------------------------------------------------


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdict on L3."""
    (rule,) = about["claims"]
    tasks = {task: a for task, a in measured_tasks(answers).items() if task in rule["tasks"]}
    clauses: list[bool | None] = []
    words, notes = [], []
    interval = None
    if not tasks:
        clauses += [None] * 4
        notes.append("not judged: no population was trained to the criterion")
    elif _spans(tasks).tolist() != rule["thetas"] or _weights(tasks) != {rule["base_weight"]}:
        clauses += [None] * 4
        notes.append("not judged: other theta or beta than the rule's were measured")
    else:
        far, lost = (means(tasks, name) for name in ("mismatch", "performance_lost"))
        clauses += [_aligned(far), _breaks(far, rule), _steady(far, rule), _aligned(lost)]
        for name, of in (("mismatch", far), ("performance lost", lost)):
            rows = (f"{k} " + ", ".join(f"{v:.3g}" for v in values) for k, values in of.items())
            words.append(f"{name} at theta = {', '.join(map(str, rule['thetas']))}: " + "; ".join(rows))
        interval = _interval(tasks)
    clauses.append(_still_trains(answers, rule, words, notes))
    if left := [task for task in rule["tasks"] if task not in tasks]:
        notes.append(f"stand-in: without {', '.join(left)} (not trained, or not to the criterion)")
    notes += stand_ins(answers.values(), rule, {"members": "", "dt": " ms"}, "in training")
    n = sum(int(a["trained"].sum()) for a in tasks.values())
    return [Claim("L3", rule["claim"], rule["paper"], "; ".join(words), interval, n, all_of(clauses), "; ".join(notes))]


def measured_tasks(answers: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The answers about networks that were trained to the criterion, by task."""
    found = {k.removeprefix(TRAINED): a for k, a in answers.items() if k.startswith(TRAINED) and "trained" in a}
    return {task: a for task, a in found.items() if bool(a["trained"].any())}


def of_members(answer: xr.Dataset, name: str, kind: str) -> np.ndarray:
    """``[member, span]`` of a variable, of trained members; NaN (exploded) as infinite."""
    values = answer[name].sel({"method": KINDS[kind]}).transpose("member", "span").values[answer["trained"].values]
    return np.where(np.isnan(values), np.inf, values)


def means(tasks: Mapping[str, xr.Dataset], name: str) -> dict[str, np.ndarray]:
    """``[span]`` by method: the mean over tasks of the mean over trained members."""
    return {k: np.mean([of_members(a, name, k).mean(axis=0) for a in tasks.values()], axis=0) for k in KINDS}


def _aligned(values: Mapping[str, np.ndarray]) -> bool:
    """Whether DASC lies below both others at every theta."""
    return bool(np.all(values["DASC"] < values["CD"]) and np.all(values["DASC"] < values["SCTT"]))


def _breaks(far: Mapping[str, np.ndarray], rule: Mapping[str, Any]) -> bool:
    """Whether CD's mismatch grows with theta, and by ``breaks`` at least from theta dt = tau to the largest theta."""
    values = far["CD"]
    with np.errstate(invalid="ignore"):
        grows = bool(np.all((np.diff(values) > 0) | np.isinf(values[1:])))
        return grows and bool(values[-1] >= rule["breaks"] * values[rule["thetas"].index(int(TAU / BASE_DT))])


def _steady(far: Mapping[str, np.ndarray], rule: Mapping[str, Any]) -> bool:
    """Whether SCTT's mismatch varies by less than a factor ``varies``."""
    values = far["SCTT"]
    return bool(np.isfinite(values).all() and values.max() < rule["varies"] * values.min())


def _interval(tasks: Mapping[str, xr.Dataset]) -> list[float] | None:
    """Of the smallest over theta of SCTT's and CD's mismatch minus DASC's; members are resampled within their tasks."""
    far = [{k: of_members(a, "mismatch", k) for k in KINDS} for a in tasks.values()]
    if min(len(f["CD"]) for f in far) < 2 or not all(np.isfinite(v).all() for f in far for v in f.values()):
        return None

    def margin(*places: np.ndarray) -> float:
        mean = {
            k: np.mean([f[k][p.astype(int)].mean(axis=0) for f, p in zip(far, places, strict=True)], axis=0)
            for k in KINDS
        }
        return float((np.minimum(mean["CD"], mean["SCTT"]) - mean["DASC"]).min())

    return bootstrap(margin, *(np.arange(len(f["CD"])) for f in far))


def _still_trains(
    answers: Mapping[str, xr.Dataset], rule: Mapping[str, Any], words: list[str], notes: list[str]
) -> bool | None:
    """Whether SCTT and DASC reach the criterion at theta dt = 2 tau before they let go, and CD does not."""
    clauses: list[bool | None] = []
    for name in rule["train"]:
        answer = answers.get(STILL + name)
        if answer is None or answer.attrs["task"] != rule["training_task"]:
            clauses.append(None)
            notes.append(f"not filled: training with {name} on {rule['training_task']}")
            continue
        steps, until = answer.attrs["steps"], answer.attrs["until"]
        reached = f"{steps:.0f} steps" if np.isfinite(steps) else "failed"
        words.append(f"{name} on {rule['training_task']}: {reached}, method on until step {until:.0f}")
        in_time = steps < until
        if not in_time and np.isinf(steps) and answer.attrs["budget"] < until:
            clauses.append(None)
            notes.append(f"not judged: training with {name} ended before the method did")
        else:
            clauses.append(in_time != (kind_of(name)[0] == "CD"))
    return all_of(clauses)


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figures 3B and 3C: mismatch and performance lost against theta, a line for each method."""
    from poprnn.recipes._long_dependencies_figures import draw_mismatch

    tasks = measured_tasks(answers)
    if not tasks:
        return {}
    return {
        "figure_3": [
            draw_mismatch(
                name,
                {k: np.concatenate([of_members(a, name, k) for a in tasks.values()]) for k in KINDS},
                _spans(tasks),
            )
            for name in ("mismatch", "performance_lost")
        ]
    }


def _spans(tasks: Mapping[str, xr.Dataset]) -> np.ndarray:
    return np.asarray(next(iter(tasks.values()))["span"].values, float)


def _weights(tasks: Mapping[str, xr.Dataset]) -> set[float]:
    return {float(a.attrs["base_weight"]) for a in tasks.values()}
