"""L5: how many networks learn a rule that reverses without a cue, with and without skips from trial to trial."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import chi2_contingency

from poprnn.analysis._conditional import wilson
from poprnn.core.blueprint import PositiveInt
from poprnn.core.errors import ConfigurationError, nearest
from poprnn.recipes._long_dependencies import all_of, method, network, setup, stand_ins
from poprnn.recipes.contract import Claim
from poprnn.tasks.rule_reversal import RuleReversal
from poprnn.training.evaluate import evaluate
from poprnn.training.run import Run
from poprnn.training.settings import Setup

STRATEGIC = "+skips"
"""End of the labels of populations with strategic skips."""


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """A population for each of ``methods``, and one with strategic skips for each of ``strategic`` among them.

    Five trials in a row, as released; all units receive input and are read out, and the outputs are logits. Networks
    are trained for all of ``steps`` and not until they reach the criterion, so that no moment is chosen. Control with
    strategic skips has these alone. CD cannot have them. The hyperparameters, ``n_increments`` and ``base_weight``, are
    those of the paper's example: what was best is not in the paper.

    Raises ``ConfigurationError`` for an entry of ``strategic`` that is not among ``methods``.
    """
    for name in scale["strategic"]:
        if name not in scale["methods"]:
            raise ConfigurationError(f"strategic: '{name}' is not among the methods{nearest(name, scale['methods'])}")
    cell = network(scale, input_units=None, output_units=None, output_activation="identity")
    task = RuleReversal(dt=scale["dt"])
    options = {"n_increments": scale["n_increments"], "base_weight": scale["base_weight"]}
    out = {}
    for name in scale["methods"]:
        for strategic in (False, True) if name in scale["strategic"] else (False,):
            made = method(name, scale, strategic=strategic, **options)
            out[name + STRATEGIC * strategic] = setup(scale, task, made, cell=cell, monitors=())
    return out


def final_accuracy(run: Run, *, n_trials: PositiveInt = 1000) -> xr.Dataset:
    """``accuracy`` (member) at the end, on the base dynamics and on sequences that training has not seen."""
    found = evaluate(run, n_trials=n_trials)["accuracy"].astype(float)
    return xr.Dataset({"accuracy": ("member", found.reshape(run.n_members, -1)[:, 0])}, {"member": run.member_index})


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """The accuracy of every member; members that diverged have accuracy 0 and count as not trained."""
    out = {}
    for label, run in runs.items():
        found = ask(label, final_accuracy, run, n_trials=scale["rescore_trials"])
        if "accuracy" not in found:
            found = xr.Dataset({"accuracy": ("member", np.zeros(0))}, {"member": np.zeros(0, int)})
        about = {"dt": scale["dt"], "steps": scale["steps"], "diverged": run.outcome.count("diverged")}
        out[label] = found.reindex(member=run.member_index, fill_value=0.0).assign_attrs(about)
    return out


# --- two proportions -----------------------------------------------------------------------------------------------


def two_proportions(k: int, n: int, k0: int, n0: int) -> tuple[float, list[float], float]:
    """Difference of two proportions, its 95 % interval, and p of the test that there is none.

        d = k/n - k0/n0,    z = d / sqrt(p (1 - p) (1/n + 1/n0)),    p = (k + k0) / (n + n0), two-sided

    The interval is put together from Wilson's intervals [l, u] of both proportions (Newcombe's method 10):

        [d - sqrt((k/n - l)² + (u0 - k0/n0)²),  d + sqrt((u - k/n)² + (k0/n0 - l0)²)].

    Where all or none are counted in both, p = 1.

    References: Newcombe, Interval estimation for the difference between independent proportions, Statistics in Medicine
    1998; Wilson, Probable inference, the law of succession, and statistical inference, JASA 1927.

    >>> difference, interval, p = two_proportions(76, 100, 67, 100)        # the paper's, for control
    >>> round(difference, 2), [round(end, 2) for end in interval], round(p, 2)
    (0.09, [-0.04, 0.21], 0.16)
    """
    difference = k / n - k0 / n0
    (low, high), (low0, high0) = wilson(k, n), wilson(k0, n0)
    interval = [
        difference - float(np.hypot(k / n - low, high0 - k0 / n0)),
        difference + float(np.hypot(high - k / n, k0 / n0 - low0)),
    ]
    if k + k0 in (0, n + n0):
        return difference, interval, 1.0
    # the square of z is the statistic of the fourfold table without correction
    p = chi2_contingency([[k, n - k], [k0, n0 - k0]], correction=False).pvalue
    return difference, interval, float(p)


def trained(answer: xr.Dataset, accuracy: float) -> tuple[int, int]:
    """How many members are above an accuracy, and of how many."""
    return int((answer["accuracy"].values > accuracy).sum()), answer.sizes["member"]


# --- verdict -------------------------------------------------------------------------------------------------------


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdict on L5."""
    (rule,) = about["claims"]
    clauses: list[bool | None] = []
    words = [f"{name}: {_share(a, rule)}" for name, a in answers.items()]
    notes: list[str] = []
    interval = None
    for name in rule["methods"]:
        pair = [answers.get(label) for label in (name + STRATEGIC, name)]
        if pair[0] is None or pair[1] is None or not all(a.sizes["member"] for a in pair if a is not None):
            clauses.append(None)
            notes.append(f"not filled: {name} with and without strategic skips")
            continue
        (k, n), (k0, n0) = (trained(a, rule["accuracy"]) for a in pair if a is not None)
        difference, ends, p = two_proportions(k, n, k0, n0)
        interval = interval or ends
        words.append(f"{name}, skips: {difference:+.2f} [{ends[0]:.2f}, {ends[1]:.2f}], p = {p:.2g}")
        clauses.append(difference > 0 if p < rule["p"] else False)
        if p >= rule["p"] and min(n, n0) < rule["members"]:
            clauses[-1] = None
            notes.append(f"{name}: {min(n, n0)} members do not tell; the test asks for {rule['members']}")
    notes.append("stand-in: CD10 with strategic skips is not judged (coarser steps and skips cannot be had together)")
    notes += stand_ins(answers.values(), rule, {"dt": " ms", "steps": ""}, "and count as not trained")
    members = sum(a.sizes["member"] for a in answers.values())
    found = all_of(clauses)
    return [Claim("L5", rule["claim"], rule["paper"], "; ".join(words), interval, members, found, "; ".join(notes))]


def _share(answer: xr.Dataset, rule: Mapping[str, Any]) -> str:
    k, n = trained(answer, rule["accuracy"])
    if not n:
        return "nobody"
    low, high = wilson(k, n)
    return f"{k} of {n} trained, {k / n:.2f} [{low:.2f}, {high:.2f}]"


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Table 2 as bars: the fraction trained by method, without and with strategic skips."""
    from poprnn.recipes._long_dependencies_figures import draw_fractions

    shares: dict[str, dict[str, tuple[float, float, float]]] = {}
    for label, answer in answers.items():
        k, n = trained(answer, 0.99)
        if n:
            name = label.removesuffix(STRATEGIC)
            kind = "with strategic skips" if label.endswith(STRATEGIC) else "without"
            shares.setdefault(name, {})[kind] = (k / n, *wilson(k, n))
    return {"table_2": draw_fractions(shares)} if shares else {}
