"""What the recipes about other time constants, cells and inputs share: populations, largest N, verdicts by clauses."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from poprnn.cells.leaky_rnn import LeakyRNN
from poprnn.recipes._timescales import (
    CURRICULA,
    answered,
    both_curricula,
    brackets,
    hyphened,
    largest_n,
    left_out,
    setup,
)
from poprnn.recipes.contract import bootstrap
from poprnn.training.curricula.multi_head import MultiHead
from poprnn.training.curricula.single_head import SingleHead
from poprnn.training.run import Run
from poprnn.training.settings import Setup

FIXED = {"single_head": (1.0, 2.0, 3.0), "multi_head": (1.0, 2.0)}
"""Time constants that all units of a member share and keep, by curriculum."""

Clauses = list[bool | None]
"""Whether each clause of a rule holds, ``None`` where it could not be judged."""


def trained_and_fixed(scale: Mapping[str, Any], task: str, *, fixed: bool = True, **cell: Any) -> dict[str, Setup]:
    """Populations with trained tau under both curricula, and ``….-fixed`` ones whose members cycle through ``FIXED``.

    Args:
        scale: a scale's entries.
        task: a task's name.
        fixed: whether the ones with fixed tau are wanted.
        cell: options of the leaky RNN.
    """
    out = both_curricula(scale, [task], cell=LeakyRNN(n_units=scale["n_units"], **cell))
    for curriculum in (SingleHead(), MultiHead()) if fixed else ():
        taus = FIXED[curriculum.name()]
        out[f"{task}-{curriculum.name()}-fixed"] = setup(
            scale,
            task,
            curriculum,
            cell=LeakyRNN(n_units=scale["n_units"], tau=taus[0], **cell),
            members=scale["members"] * len(taus),
            vary={"cell.tau": taus},
        )
    return out


def ask_largest_n(ask: Any, label: str, run: Run, scale: Mapping[str, Any]) -> xr.Dataset:
    """``largest_n`` on fresh trials and ``tau`` (member), the fixed time constant or NaN where tau was trained.

    Attributes: ``epochs`` of training, ``largest_possible`` N in them, and how many ``members`` were trained: those
    that diverged are not among the answers.
    """
    answer = answered(ask(label, largest_n, run, n_trials=scale["rescore_trials"]), "largest_n")
    population, task, epochs = run.setup.population, run.task, run.setup.training.epochs
    tau = [population.values(int(member)).get("cell.tau", np.nan) for member in answer["member"].values]
    # an epoch passes one stage at most
    possible = task.n_min - 1 + min(task.n_heads, epochs)  # type: ignore[attr-defined]
    return answer.assign(tau=("member", np.asarray(tau, float))).assign_attrs(
        epochs=epochs, largest_possible=possible, members=population.members
    )


def about_training(answers: Mapping[str, xr.Dataset], epochs: int) -> list[str]:
    """Notes on answers of :func:`ask_largest_n`: fewer epochs than the claim's, and who diverged."""
    notes = []
    known = [a.attrs for a in answers.values() if "epochs" in a.attrs]
    if known and max(k["epochs"] for k in known) < epochs:
        most, possible = (max(k[name] for k in known) for name in ("epochs", "largest_possible"))
        notes.append(f"stand-in: {most} epochs instead of {epochs}, N at most {possible}")
    return notes + left_out(answers)


def verdict(clauses: Iterable[bool | None]) -> bool | None:
    """Whether all clauses hold; one that could not be judged does not; ``None`` if none could be.

    >>> verdict([True, True]), verdict([True, None]), verdict([None, None])
    (True, False, None)
    """
    clauses = list(clauses)
    return None if all(c is None for c in clauses) else all(c is True for c in clauses)


def largest_by_condition(answers: Mapping[str, xr.Dataset], label: str) -> dict[str, np.ndarray]:
    """Largest N of members by condition: ``trained``, and ``tau = 1`` … of the population ``label-fixed``."""
    found = {"trained": answers[label]["largest_n"].values} if label in answers else {}
    if f"{label}-fixed" in answers:
        answer = answers[f"{label}-fixed"]
        for tau in np.unique(answer["tau"].values):
            found[f"tau = {tau:g}"] = answer["largest_n"].values[answer["tau"].values == tau]
    return {name: values for name, values in found.items() if len(values)}


def ratio_of_means(above: Sequence[np.ndarray], below: np.ndarray) -> tuple[float, list[float]]:
    """The largest of the means ``above`` over the mean ``below``, and its 95 % interval.

    Members are resampled within each condition; the largest is chosen anew in every resample.
    """

    def ratio(*samples: np.ndarray) -> float:
        *tops, bottom = (float(np.mean(s)) for s in samples)
        return max(tops) / bottom if bottom > 0 else float("nan")

    value = ratio(*above, below)
    return value, bootstrap(ratio, *above, below) if np.isfinite(value) else [float("nan")] * 2


def judge_fixed(
    answers: Mapping[str, xr.Dataset], task: str, rule: Mapping[str, Any]
) -> tuple[Clauses, list[str], list[str], list[float] | None]:
    """T3 for the populations of one task: clauses, words, notes, and the interval of the first ratio.

    Single-head: the best fixed tau's mean largest N is at most ``rule["rely"]`` of the trained one's. Multi-head: that
    of tau = 1 is within ``rule["within"]`` of the trained one's, that of tau = 2 at most ``rule["rely"]`` of it.
    """
    clauses: Clauses = []
    words: list[str] = []
    notes: list[str] = []
    first: list[float] | None = None
    rely, within = rule["rely"], rule["within"]
    tests = (
        ("single_head", "best fixed", lambda r: r <= rely, ("tau = 1", "tau = 2", "tau = 3")),
        ("multi_head", "tau = 1", lambda r: round(abs(r - 1), 9) <= within, ("tau = 1",)),
        ("multi_head", "tau = 2", lambda r: r <= rely, ("tau = 2",)),
    )
    found = {c: largest_by_condition(answers, f"{task}-{c}") for c in CURRICULA}
    for curriculum, name, holds, wanted in tests:
        mine = found[curriculum]
        trained, fixed = mine.get("trained", np.zeros(0)), [mine[w] for w in wanted if w in mine]
        means = ", ".join(f"{mine[key].mean():.3g} ({key})" for key in ("trained", *wanted) if key in mine)
        if not trained.any() or len(fixed) < len(wanted):
            clauses.append(None)
            why = "nothing was solved with trained tau" if len(fixed) == len(wanted) else "a condition has no members"
            notes.append(f"{task} {curriculum}, {name}: {why}")
            words.append(f"{task} {curriculum}: mean N {means}")
            continue
        value, interval = ratio_of_means(fixed, trained)
        first = first or interval
        clauses.append(bool(holds(round(value, 9))))
        words.append(f"{task} {curriculum}, {name} over trained: {value:.2f} {brackets(interval)}, mean N {means}")
        possible = answers[f"{task}-{curriculum}"].attrs.get("largest_possible")
        if all((s == possible).all() for s in (trained, *fixed)):
            notes.append(f"{task} {curriculum}, {name}: all members are at the largest N possible, {possible}")
    return clauses, words, notes, first


def draw_fixed(answers: Mapping[str, xr.Dataset], task: str, name: str = "fixed_tau", title: str | None = None) -> Any:
    """Figure 4a for the populations of one task: largest N with tau fixed and trained, ``None`` without any."""
    from poprnn.report.panels import by_group

    groups = {}
    for curriculum in CURRICULA:
        found = largest_by_condition(answers, f"{task}-{curriculum}")
        if found:  # in the paper's order, trained last
            groups[hyphened(curriculum)] = {k: found[k] for k in sorted(found, key=lambda k: k == "trained")}
    if not groups:
        return None
    possible = max(a.attrs.get("largest_possible", 0) for k, a in answers.items() if k.startswith(task))
    return by_group(
        name,
        groups,
        "largest memory N solved (bits)",
        "Largest N by the end of training, on fresh trials, with the time constants of all units fixed at one value "
        "(in steps) and with trained ones; 0: none.",
        title=title,
        reference=(possible, "largest N possible ({:g})") if possible else None,
    )
