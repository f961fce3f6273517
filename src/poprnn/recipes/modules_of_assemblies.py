"""A4, A5, A8, A10: accuracy of stable assemblies on sequential images, by how they are divided into modules."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from poprnn.recipes._assemblies import (
    WORDS,
    accuracy,
    curves,
    difference,
    in_words,
    learned,
    network,
    population,
    trend,
    verdict,
)
from poprnn.recipes._timescales import brackets
from poprnn.recipes.contract import Claim, bootstrap
from poprnn.training.run import Run
from poprnn.training.settings import Setup

Answers = Mapping[str, xr.Dataset]
KINDS = tuple(WORDS)


class Net(NamedTuple):
    """One population of the recipe."""

    part: str
    """``modules`` (A4), ``equal`` units in all (A5), ``best`` (A8), ``couplings`` (A10)."""
    kind: str
    n_modules: int
    n_units: int = 32
    options: tuple[tuple[str, Any], ...] = ()
    task: tuple[tuple[str, Any], ...] = ()
    members: int | None = None

    @property
    def label(self) -> str:
        """Its name."""
        return "-".join([self.part, self.kind, f"{self.n_modules}x{self.n_units}", *(str(v) for _, v in self.task)])


def nets(scale: Mapping[str, Any]) -> list[Net]:
    """All of a scale."""
    out = [Net("modules", kind, n) for kind in KINDS for n in scale["modules"]]
    even = (("density", scale["equal_density"]), ("scaled", True))
    out += [Net("equal", "sparse", n, scale["equal_units"] // n, even) for n in scale["equal_modules"]]
    few = (("coupling_density", scale["coupling_density"]),)
    out += [Net("couplings", "sparse", n, 32, few) for n in scale["sparse_couplings"]]
    for kind, dataset, permuted, members in scale["best"]:
        task = (("dataset", dataset), ("permuted", permuted))
        out.append(Net("best", kind, scale["best_modules"], 32, (), task, members))
    return out


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """One population for each."""
    return {
        net.label: population(
            scale,
            network(scale, net.kind, net.n_modules, net.n_units, **dict(net.options)),
            members=net.members,
            **dict(net.task),
        )
        for net in nets(scale)
    }


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Accuracy of each population."""
    return {
        net.label: learned(
            ask,
            net.label,
            runs[net.label],
            part=net.part,
            kind=net.kind,
            modules=net.n_modules,
            units=net.n_units,
            dataset=dict(net.task).get("dataset", scale["dataset"]),
            permuted=int(dict(net.task).get("permuted", True)),
        )
        for net in nets(scale)
    }


def part(answers: Answers, name: str, kind: str = "sparse") -> dict[int, xr.Dataset]:
    """Answers of one part and kind by their number of modules, rising."""
    mine = [a for a in answers.values() if (a.attrs["part"], a.attrs["kind"]) == (name, kind)]
    return {a.attrs["modules"]: a for a in sorted(mine, key=lambda a: a.attrs["modules"])}


# --- verdicts ------------------------------------------------------------------------------------------------------


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdicts on A4, A5, A8 and A10."""
    judges = {"A4": _judge_modules, "A5": _judge_equal, "A8": _judge_best, "A10": _judge_couplings}
    return [judges[rule["id"]](answers, rule) for rule in about["claims"]]


def _judge_modules(answers: Answers, rule: dict[str, Any]) -> Claim:
    by_kind = {kind: part(answers, "modules", kind) for kind in KINDS}
    out = verdict(rule, [a for mine in by_kind.values() for a in mine.values()])
    for kind, mine in by_kind.items():
        if len(mine) < rule["at_least"]:
            out.unjudged(f"{WORDS[kind]}: fewer than {rule['at_least']} numbers of modules")
            continue
        r, interval = trend({n: accuracy(a) for n, a in mine.items()})
        words = ", ".join(f"{n} × 32: {in_words(a)}" for n, a in mine.items())
        out.clause(interval[0] > 0, f"{WORDS[kind]} {words}; Spearman {r:.2f} {brackets(interval)}")
        out.interval = out.interval or interval
        few, many = rule["saturated"]
        if few in mine and many in mine:
            gain = accuracy(mine[many]).mean() - accuracy(mine[few]).mean()
            out.clause(abs(gain) <= rule["within"], f"{WORDS[kind]}, {many} against {few} modules {100 * gain:+.1f}")
        else:
            out.note(f"{WORDS[kind]}: saturation not judged (no {few} and {many} modules at this scale)")
    both = [n for n in by_kind["sparse"] if n in by_kind["svd"]]
    ahead = {n: accuracy(by_kind["sparse"][n]).mean() - accuracy(by_kind["svd"][n]).mean() for n in both}
    if both:
        out.say("sparse minus SVD: " + ", ".join(f"{n}: {100 * d:+.1f}" for n, d in ahead.items()))
    late = [d for n, d in ahead.items() if n >= rule["overtakes"]]
    if late and 1 in ahead:
        out.clause(ahead[1] < 0 and min(late) > 0, f"sparse overtakes by {rule['overtakes']} modules")
    else:
        out.note(f"who is ahead not judged (no 1 and {rule['overtakes']} modules at this scale)")
    return out.claim()


def _judge_equal(answers: Answers, rule: dict[str, Any]) -> Claim:
    mine = part(answers, "equal")
    out = verdict(rule, mine.values())
    if len(mine) < 3:
        out.unjudged("fewer than three ways to divide the units")
        return out.claim()
    ends = (min(mine), max(mine))
    # chosen by validation images, judged by others
    middle = max((n for n in mine if n not in ends), key=lambda n: float(mine[n]["validation"].max("epoch").mean()))
    out.say(", ".join(f"{n} × {a.attrs['units']}: {in_words(a)}" for n, a in mine.items()))
    for end in ends:
        gain, interval = difference(accuracy(mine[middle]), accuracy(mine[end]))
        out.clause(interval[0] > 0, f"{middle} modules against {end}: {100 * gain:+.1f} {brackets(interval)}")
        out.interval = out.interval or interval
    return out.claim()


def _judge_best(answers: Answers, rule: dict[str, Any]) -> Claim:
    mine = [a for a in answers.values() if a.attrs["part"] == "best"]
    out = verdict(rule, mine)
    key = lambda a: (a.attrs["dataset"], a.attrs["permuted"], a.attrs["kind"])
    whole = {key(a): a for a in mine if a.attrs["images"] >= rule["images"]}
    for dataset, permuted, paper in rule["best"]:
        words, found = f"{dataset}{', permuted' * permuted}", whole.get((dataset, permuted, "sparse"))
        if found is None:
            out.unjudged(f"{words}: not trained on the whole set at this scale")
            continue
        best, mean = float(accuracy(found).max()), float(accuracy(found).mean())
        words += f": best {100 * best:.2f}, mean {100 * mean:.2f} of {found.sizes['member']}"
        out.clause(abs(best - paper) <= rule["within"], words)
    bounded = whole.get(("cifar10", 0, "svd"))
    if bounded is not None:
        best = float(accuracy(bounded).max())
        out.clause(best < rule["svd_under"], f"SVD Combo Net on cifar10: best {100 * best:.2f}")
    return out.claim()


def _judge_couplings(answers: Answers, rule: dict[str, Any]) -> Claim:
    few, full = part(answers, "couplings"), part(answers, "modules")
    numbers = [n for n in few if n in full]
    out = verdict(rule, [a[n] for a in (few, full) for n in numbers])
    if len(numbers) < 2:
        out.unjudged("fewer than two numbers of modules with both kinds of couplings")
        return out.claim()
    low, high = numbers[0], numbers[-1]
    samples = [accuracy(a[n]) for a in (few, full) for n in (high, low)]

    def gained(*means: np.ndarray) -> float:
        few_high, few_low, full_high, full_low = (float(np.mean(m)) for m in means)
        return (few_high - few_low) - (full_high - full_low)

    for words, a in (("sparse L", few), ("full L", full)):
        out.say(f"{words}: " + ", ".join(f"{n} × 32: {in_words(a[n])}" for n in numbers))
    out.interval = bootstrap(gained, *samples)
    out.clause(
        out.interval[0] > 0,
        f"gain from {low} to {high} modules, sparse minus full: {100 * gained(*samples):+.1f} {brackets(out.interval)}",
    )
    return out.claim()


# --- figures -------------------------------------------------------------------------------------------------------


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figure 4 (accuracy by the number of modules), S1B (at equal units), and the course of training."""
    from poprnn.report.panels import over

    def by_number(mine: Mapping[int, xr.Dataset]) -> tuple[np.ndarray, np.ndarray]:
        n = max(a.sizes["member"] for a in mine.values())
        columns = [np.pad(accuracy(a), (0, n - a.sizes["member"]), constant_values=np.nan) for a in mine.values()]
        return np.array(list(mine)), np.stack(columns, axis=1)

    figures: dict[str, Any] = {}
    by_kind = {kind: part(answers, "modules", kind) for kind in KINDS}
    series = {WORDS[kind]: by_number(mine) for kind, mine in by_kind.items() if mine}
    few = part(answers, "couplings")
    if few:
        series["Sparse Combo Net, sparse L"] = by_number(few)
    said = "Accuracy on the test set at the epoch that was best on validation images"
    if series:
        figures["modules"] = [
            over("by_modules", series, "modules of 32 units", "accuracy on the test set", f"Figure 4: {said}.",
                 whole_x=True)
        ]  # fmt: skip
        for kind, mine in by_kind.items():
            if mine:
                named = {f"{n} × 32": a for n, a in mine.items()}
                figures["modules"].append(curves(f"training_{kind}", named, title=WORDS[kind]))
    equal = part(answers, "equal")
    if equal:
        units = next(n * a.attrs["units"] for n, a in equal.items())
        figures["equal units"] = [
            over("equal_units", {f"{units} units": by_number(equal)}, "modules", "accuracy on the test set",
                 f"Figure S1B: the same number of units divided into more and more modules. {said}.", log_x=True)
        ]  # fmt: skip
    return figures
