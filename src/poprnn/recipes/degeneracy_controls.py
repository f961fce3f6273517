"""D7 to D10: what makes networks that compare two pulses more or less alike."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from poprnn.recipes._degeneracy import (
    Statistic,
    ask_all,
    beyond,
    change,
    correlation,
    mean_of,
    notes_on,
    of_members,
    principal_coordinates,
    setup,
    solved_members,
    value,
)
from poprnn.recipes._timescales import brackets
from poprnn.recipes.contract import Claim
from poprnn.tasks.delayed_discrimination import DelayedDiscrimination
from poprnn.training.penalties.l1 import L1
from poprnn.training.penalties.nuclear_norm import NuclearNorm
from poprnn.training.run import Run
from poprnn.training.settings import Setup

DYNAMICS, WEIGHTS, BETTER, START = (mean_of(name) for name in ("dynamics", "independent", "conjugate", "start"))


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """Plain networks; with the auxiliary loss; of several sizes; with penalties of several strengths."""
    task, units = DelayedDiscrimination(), scale["plain_units"]
    out = {
        "plain": setup(scale, task, n_units=units),
        "auxiliary": setup(scale, DelayedDiscrimination(auxiliary=True), n_units=units),
    }
    out |= {f"size-{n}": setup(scale, task, n_units=n) for n in scale["sizes"]}
    for kind, penalty in (("nuclear_norm", NuclearNorm), ("l1", L1)):
        for strength in scale[kind]:
            penalties = (penalty(strength=strength),)
            out[f"{kind}-{strength:g}"] = setup(scale, task, n_units=units, penalties=penalties)
    return out


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Every measure of each population; and where the networks with the auxiliary loss hardly move."""
    out = {}
    for label, run in runs.items():
        kind, _, amount = label.partition("-")
        cell: Any = run.cell
        how = {"kind": kind, "amount": float(amount or 0), "n_units": cell.n_units}
        out[label] = ask_all(ask, label, run, scale).assign_attrs(how)
    if out["auxiliary"].data_vars:
        out["auxiliary"] = xr.merge([out["auxiliary"], _line(ask, runs["auxiliary"], scale)], combine_attrs="override")
    return out


def _line(ask: Any, run: Run, scale: Mapping[str, Any]) -> xr.Dataset:
    """Of the slow points in the response, without input: share of their first component, and its correlation."""
    run = run.select(solved_members(run))
    found = ask("auxiliary", "fixed_points", run, period="response", n_starts=scale["n_starts"])
    shares, correlations = np.full(run.n_members, np.nan), np.full(run.n_members, np.nan)
    for k in range(run.n_members):
        there = np.isfinite(found["slow_q"].values[k])
        points, read = found["slow_state"].values[k][there], found["slow_readout"].values[k][there, -1]
        if len(points) < 3:
            continue
        coordinates, shares[k] = principal_coordinates(points, 1)
        correlations[k] = np.corrcoef(coordinates[:, 0], read)[0, 1]
    return xr.Dataset(
        {"slow_line": ("member", shares), "slow_correlation": ("member", np.abs(correlations))},
        {"member": run.member_index},
    )


# --- verdicts ------------------------------------------------------------------------------------------------------

Found = tuple[bool, str, list[float] | None]


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdicts on D7 to D10; ``None`` where a condition has fewer than three members that got there."""
    rules = {c["id"]: c for c in about["claims"]}
    chosen = {
        "D7": ("plain", "auxiliary"),
        "D8": tuple(k for k in answers if k.startswith("size-")),
        "D9": ("plain", *(k for k in answers if k.startswith("nuclear_norm-"))),
        "D10": ("plain", *(k for k in answers if k.startswith("l1-"))),
    }
    judges = {"D7": _auxiliary, "D8": _size, "D9": _nuclear_norm, "D10": _l1}
    out = []
    for name, labels in chosen.items():
        rule, mine = rules[name], {k: answers[k] for k in labels}
        notes, enough = notes_on(mine)
        members = sum(a.sizes.get("member", 0) for a in mine.values())
        passed, words, interval = judges[name](list(mine.values()), rule) if enough else (None, "", None)
        out.append(Claim(name, rule["claim"], rule["paper"], words, interval, members, passed, "; ".join(notes)))
    return out


def _auxiliary(answers: list[xr.Dataset], rule: Mapping[str, Any]) -> Found:
    """D7."""
    plain, auxiliary = answers
    dynamics, down = change(plain, auxiliary, DYNAMICS)
    weights, up = change(plain, auxiliary, WEIGHTS)
    line, r = auxiliary["slow_line"].values, auxiliary["slow_correlation"].values
    good = float(np.mean((line >= rule["line"]) & (r >= rule["r"])))  # NaN: too few slow points, no line
    words = (
        f"DSA distance {dynamics:+.0%} {brackets(down)}, d_PIF {weights:+.0%} {brackets(up)}; slow points on a line "
    )
    words += f"in {good:.0%} of members"
    if np.isfinite(line).any():
        words += f" (medians: first component {np.nanmedian(line):.3f}, |r| {np.nanmedian(r):.3f})"
    return beyond(down, -1) and beyond(up, 1) and good >= rule["share"], words, down


def _size(answers: list[xr.Dataset], rule: Mapping[str, Any]) -> Found:
    """D8."""
    del rule
    sizes = [a.attrs["n_units"] for a in answers]
    per_parameter: Statistic = lambda a, places: WEIGHTS(a, places) / a.attrs["n_units"] ** 2
    named = {"DSA distance": DYNAMICS, "d_PIF per parameter": per_parameter}
    beside = {"d_PIF": WEIGHTS, "by one renumbering": BETTER}
    trends = {name: correlation(answers, sizes, s) for name, s in (named | beside).items()}
    words = [
        f"{name} {', '.join(f'{value(a, s):.3g}' for a in answers)}: {trends[name][0]:.2f} {brackets(trends[name][1])}"
        for name, s in (named | beside).items()
    ]
    return all(beyond(trends[name][1], 1) for name in named), "; ".join(words), trends["DSA distance"][1]


def _falls(answers: list[xr.Dataset], named: Mapping[str, Statistic], judged: int) -> Found:
    """Whether the first so many statistics fall with the strength of a penalty."""
    strengths = [a.attrs["amount"] for a in answers]
    trends = {name: correlation(answers, strengths, s) for name, s in named.items()}
    words = [
        f"{name} {', '.join(f'{value(a, s):.3g}' for a in answers)}: {trends[name][0]:.2f} {brackets(trends[name][1])}"
        for name, s in named.items()
    ]
    passed = all(beyond(interval, -1) for _, interval in list(trends.values())[:judged])
    return passed, "; ".join(words), next(iter(trends.values()))[1]


def _nuclear_norm(answers: list[xr.Dataset], rule: Mapping[str, Any]) -> Found:
    """D9."""
    del rule
    named = {"DSA distance": DYNAMICS, "d_PIF": WEIGHTS, "from the start": START, "by one renumbering": BETTER}
    return _falls(answers, named, 3)


def _l1(answers: list[xr.Dataset], rule: Mapping[str, Any]) -> Found:
    """D10."""
    del rule
    return _falls(answers, {"DSA distance": DYNAMICS, "d_PIF": WEIGHTS, "by one renumbering": BETTER}, 2)


# --- figures -------------------------------------------------------------------------------------------------------


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figure 6: distances between dynamics, weights and from the start, a dot for each member of each condition."""
    from poprnn.report.panels import by_group

    figures = {}
    for kind in ("auxiliary", "size", "nuclear_norm", "l1"):
        labels = [k for k in answers if answers[k].attrs["kind"] == kind]
        labels = labels if kind == "size" else ["plain", *labels]
        there = {k: answers[k] for k in labels if answers[k].data_vars}
        drawn = []
        for name, words in (
            ("dynamics", "mean DSA distance"),
            ("independent", "mean d_PIF"),
            ("start", "from the start"),
        ):
            groups = {_said(a): {"": of_members(a[name])} for a in there.values()}
            if groups:
                drawn.append(by_group(name, groups, words, f"As figure 6: {words}, a member to the others."))
        if drawn:
            figures[kind] = drawn
    return figures


def _said(answer: xr.Dataset) -> str:
    kind, amount = answer.attrs["kind"].replace("_", " "), answer.attrs["amount"]
    return f"{amount:g} units" if kind == "size" else f"{kind} {amount:g}" if amount else kind
