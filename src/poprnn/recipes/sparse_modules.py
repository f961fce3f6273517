"""A6: how sparse the modules of a Sparse Combo Net should be, and how large their entries."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from poprnn.recipes._assemblies import accuracy, curves, difference, in_words, learned, network, population, verdict
from poprnn.recipes._timescales import brackets
from poprnn.recipes.contract import Claim
from poprnn.training.run import Run
from poprnn.training.settings import Setup


class Net(NamedTuple):
    """One population."""

    part: str
    """``dense`` (figure 5), ``sparse`` (S2A) or ``entries`` (S2B)."""
    n_modules: int
    density: float
    bound: float

    @property
    def label(self) -> str:
        """Its name."""
        return f"{self.part}-{self.n_modules}x32-{100 * self.density:g}%-{self.bound:g}"


def nets(scale: dict[str, Any]) -> list[Net]:
    """All of a scale: two densities at one size, several at another, and one of these with smaller entries."""
    dense = [Net("dense", scale["dense_modules"], density, bound) for density, bound in scale["dense"]]
    sparse = [Net("sparse", scale["sparse_modules"], density, 1.0) for density in scale["sparse"]]
    small = [Net("entries", scale["sparse_modules"], scale["density"], bound) for bound in scale["bounds"]]
    return dense + sparse + small


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """One population for each; equal ones in two parts are one population."""
    return {
        net.label: population(scale, network(scale, "sparse", net.n_modules, density=net.density, bound=net.bound))
        for net in nets(scale)
    }


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Accuracy of each population, and the share of its modules that had to be scaled (no draw was stable)."""
    out = {}
    for net in nets(scale):
        run = runs[net.label]
        draws = np.array([a for name, a in run.parameters.fixed.items() if name.startswith("n_draws")])
        scaled = float(np.mean(draws == 0)) if draws.size else float("nan")
        out[net.label] = learned(ask, net.label, run, scaled=scaled, **net._asdict())
    return out


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdict on A6."""
    (rule,) = about["claims"]
    out = verdict(rule, answers.values())
    part = lambda name: [a for a in answers.values() if a.attrs["part"] == name]
    for a in answers.values():
        words = f", {100 * a.attrs['scaled']:.0f} % of modules scaled" if a.attrs["scaled"] > 0 else ""
        out.say(f"{a.attrs['n_modules']} × 32, {100 * a.attrs['density']:g} %, entries to {a.attrs['bound']:g}: "
                f"{in_words(a)}{words}")  # fmt: skip
    dense = sorted(part("dense"), key=lambda a: -a.attrs["density"])
    if len(dense) == 2:
        gain, interval = difference(accuracy(dense[1]), accuracy(dense[0]))
        out.interval = interval
        words = " to ".join(f"{100 * a.attrs['density']:g} %" for a in dense)
        out.clause(gain > rule["gain"] and interval[0] > 0, f"{words}: {100 * gain:+.1f} {brackets(interval)}")
    else:
        out.unjudged("no two densities to compare with figure 5")
    sparse = {a.attrs["density"]: a for a in part("sparse")}
    if rule["best"] in sparse and len(sparse) > 1:
        means = {density: float(accuracy(a).mean()) for density, a in sparse.items()}
        top = max(means, key=lambda d: means[d])
        out.clause(top == rule["best"], f"best of {', '.join(f'{100 * d:g}' for d in means)} %: {100 * top:g} %")
    else:
        out.unjudged(f"{100 * rule['best']:g} % and others are not among the densities")
    small = part("entries")
    for a in small if rule["best"] in sparse else []:
        loss, interval = difference(accuracy(sparse[rule["best"]]), accuracy(a))
        words = f"entries to 1 against {a.attrs['bound']:g}: {100 * loss:+.1f} {brackets(interval)}"
        out.clause(interval[0] > 0, words)
    if not small:
        out.unjudged("no smaller entries at equal density")
    return [out.claim()]


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figures 5 and S2: accuracy in the course of training, by density and by the size of entries."""
    words = {
        "dense": ("figure_5", "Two densities", lambda a: f"{100 * a.attrs['density']:g} %"),
        "sparse": ("figure_s2a", "Sparser modules", lambda a: f"{100 * a.attrs['density']:g} %"),
        "entries": ("figure_s2b", "Smaller entries, equal density", lambda a: f"entries to {a.attrs['bound']:g}"),
    }
    figures: dict[str, Any] = {}
    for name, (file, title, of) in words.items():
        mine = [a for a in answers.values() if a.attrs["part"] == name]
        if name == "entries" and mine:
            same = [a for a in answers.values() if a.attrs["part"] == "sparse"]
            mine += [a for a in same if a.attrs["density"] == mine[0].attrs["density"]]
        if mine:
            figures.setdefault("accuracy", []).append(curves(file, {of(a): a for a in mine}, title=title))
    return figures
