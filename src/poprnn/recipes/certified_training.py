"""A3: assemblies stay certified for any B, before, during and after training, however they are put together."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr

from poprnn.cells._assembly import AssemblyCell
from poprnn.cells.assembly import Assembly
from poprnn.cells.contract import Parameters
from poprnn.cells.modules.absolute_value import AbsoluteValue
from poprnn.cells.modules.diagonal_product import DiagonalProduct
from poprnn.cells.modules.group import Group
from poprnn.cells.modules.singular_value import SingularValue
from poprnn.cells.modules.symmetric import Symmetric
from poprnn.cells.modules.triangular import Triangular
from poprnn.core.blueprint import Positive, PositiveInt
from poprnn.core.errors import ConfigurationError, nearest
from poprnn.recipes._timescales import brackets
from poprnn.recipes._verdict import Verdict
from poprnn.recipes.contract import Claim
from poprnn.tasks.sequential_images import SequentialImages
from poprnn.training.optimizers.adam import Adam
from poprnn.training.run import Run
from poprnn.training.settings import Population, Setup, Training

CONTROL = "unconstrained"


def networks(scale: Mapping[str, Any]) -> dict[str, AssemblyCell]:
    """Ways to couple and to nest, and kinds of modules, those named in ``assemblies``; and the control, L = B.

    ``euler`` enforces certified Euler steps as well, ``nested`` is a chain of a hierarchy, of feedback and of a module.
    """
    n, count = scale["n_module_units"], scale["n_modules"]
    fixed, bounded = (
        AbsoluteValue(n_units=n, count=count, density=scale["density"]),
        SingularValue(n_units=n, count=count),
    )
    pair: dict[str, Any] = {"n_units": n, "count": 2}
    nested = (
        Group(modules=(Symmetric(**pair),), coupling="hierarchical"),
        Group(modules=(DiagonalProduct(**pair),), coupling="feedback"),
        Triangular(n_units=n),
    )
    step: dict[str, Any] = {"dt": scale["dt"]}
    all_of_them: dict[str, AssemblyCell] = {
        "feedback": Assembly(modules=(fixed,), **step),
        "hub": Assembly(modules=(bounded,), topology="hub", **step),
        "hierarchical": Assembly(modules=(bounded,), coupling="hierarchical", **step),
        "nested": Assembly(modules=nested, topology="chain", **step),
        "euler": Assembly(modules=(bounded,), certify="euler", **step),
        CONTROL: Assembly(modules=(fixed,), coupling="unconstrained", **step),
    }
    for name in scale["assemblies"]:
        if name not in all_of_them:
            raise ConfigurationError(f"assemblies: '{name}'{nearest(name, all_of_them)}")
    return {name: all_of_them[name] for name in (*scale["assemblies"], CONTROL)}


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """One population for each; members start from couplings of the sizes in ``gains``."""
    task = SequentialImages(pool=scale["pool"])
    training = Training(
        batch=scale["batch"],
        epochs=scale["epochs"],
        steps_per_epoch=scale["steps_per_epoch"],
        evaluation_batches=4,
        optimizer=Adam(learning_rate=scale["learning_rate"], clip_norm=1.0),
        monitors=(),
        snapshots="none",
    )
    gains = tuple(scale["gains"])
    population = Population(members=len(gains), vary={"cell.gain": gains})
    return {
        name: Setup(population=population, task=task, cell=cell, training=training)
        for name, cell in networks(scale).items()
    }


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Certificates of what was stored before, at every evaluation and after training and under random couplings; what
    pairs of trajectories do at the end.

    Of each population: what :func:`certified` returns (not of the control), ``kept`` and ``rates`` (epoch, member), and
    of analysis ``contraction`` ``certified``, ``step_certified``, ``worst_factor`` and ``pair_rate``.
    """
    out = {}
    for name, run in runs.items():
        found = xr.Dataset()
        if name != CONTROL:
            asked = {"n_draws": scale["draws"], "sizes": list(scale["sizes"])}
            found = ask(name, certified, run, **asked)
        measured = ask(name, "contraction", run, n_pairs=scale["pairs"], n_steps=scale["pair_steps"])
        kept = [k for k in ("certified", "step_certified", "worst_factor", "pair_rate", "step") if k in measured]
        found = xr.merge([found, measured[kept].drop_vars("theorem", errors="ignore")], compat="override", join="outer")
        if "certificate/holds" in run.history.names():
            columns = {"kept": "certificate/holds", "rates": "certificate/rate"}
            values = {k: (("epoch", "member"), run.history[v][:, found["member"].values]) for k, v in columns.items()}
            found = found.assign(values) if len(run.history) else found
        lost = {w: run.outcome.count(w) for w in ("diverged", "certificate_broken")}
        out[name] = found.assign_attrs(name=name, members=run.n_members, gains=list(scale["gains"]), **lost)
    return out


def certified(run: Run, *, n_draws: PositiveInt = 3, sizes: Sequence[Positive] = (0.1, 1.0, 10.0)) -> xr.Dataset:
    """Certificates of the stored arrays, in float64, before and after training, and with other couplings put in.

    Returns ``before`` and ``after`` (member), ``rate`` (member, moment) in units of 1/tau, and ``drawn`` (member, size,
    draw): whether the trained modules stay certified with entries of B from N(0, size²).
    """
    cell: Any = run.cell
    shape = (run.n_members, len(sizes), n_draws)
    before, after = np.zeros(run.n_members, bool), np.zeros(run.n_members, bool)
    rate, drawn = np.zeros((run.n_members, 2)), np.zeros(shape, bool)
    for k, member in enumerate(run.member_index):
        own = run.setup.substitute(run.setup.population.values(int(member))).cell
        first, last = (jax.tree.map(lambda a, k=k: a[k], p) for p in (run.initial, run.parameters))
        moments = [own.certificate(p) for p in (first, last)]  # type: ignore[attr-defined]
        before[k], after[k] = (m.holds for m in moments)
        rate[k] = [m.certificate.rate for m in moments]
        rng = np.random.default_rng([run.seed, int(member)])
        for i, j in np.ndindex(shape[1:]):
            other = {name: sizes[i] * rng.normal(size=last.trainable[name].shape) for name in cell.groups["couplings"]}
            drawn[k, i, j] = own.certificate(Parameters(last.trainable | other, last.fixed)).holds  # type: ignore[attr-defined]
    return xr.Dataset(
        {
            "before": ("member", before),
            "after": ("member", after),
            "rate": (("member", "moment"), rate),
            "drawn": (("member", "size", "draw"), drawn),
        },
        {"member": run.member_index, "moment": ["before", "after"], "size": list(sizes)},
    )


# --- verdicts ------------------------------------------------------------------------------------------------------


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdict on A3."""
    (rule,) = about["claims"]
    out = Verdict(rule)
    for found in answers.values():
        name, left = found.attrs["name"], found.sizes.get("member", 0)
        out.members += found.attrs["members"]
        lost = found.attrs["diverged"]
        if lost:
            out.note(f"{name}: {lost} of {found.attrs['members']} members diverged in training (their Euler steps were "
                     "not certified) and are left out")  # fmt: skip
        if not left or "certified" not in found:
            out.unjudged(f"{name}: nobody is left")
            continue
        if name == CONTROL:
            held = found["certified"].values
            out.clause(not held[-1], f"{name}: {held.sum()} of {left} certified by any theorem")
            out.note(f"{name}: judged by its largest couplings alone; small ones may be certified rightly")
            continue
        _judge_network(out, name, found, rule)
    return [out.claim()]


def _judge_network(out: Verdict, name: str, found: xr.Dataset, rule: dict[str, Any]) -> None:
    always = {
        "before": found["before"].values,
        "in training": found["kept"].values.astype(bool) if "kept" in found else np.zeros(1, bool),
        "after": found["after"].values & found["certified"].values.astype(bool),
        "with random B": found["drawn"].values.astype(bool),
    }
    rates = found["rate"].values
    words = ", ".join(f"{when} {held.sum()} of {held.size}" for when, held in always.items())
    stepped = found["step_certified"].values.astype(bool)
    factors = found["worst_factor"].values[stepped]
    nearer = bool((factors <= 1 + rule["rounding"]).all())
    words += f"; steps certified in {stepped.sum()} of {len(stepped)}"
    if len(factors):
        words += f", distances times {factors.max():.6g} at most"
    fine = all(held.all() for held in always.values()) and found.attrs["certificate_broken"] == 0
    out.clause(
        bool(fine and nearer and (rates > 0).all()), f"{name}: {words}; rates {brackets((rates.min(), rates.max()))}"
    )


# --- figures -------------------------------------------------------------------------------------------------------


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Certified rates in the course of training, and how quickly pairs of trajectories come together after it."""
    from poprnn.report.panels import by_group, over

    rates = {name: a for name, a in answers.items() if "rates" in a and a.sizes.get("epoch", 0)}
    drawn = []
    if rates:
        series = {name: (np.arange(1, a.sizes["epoch"] + 1), a["rates"].values.T) for name, a in rates.items()}
        caption = "Certified rate of contraction, from the arrays stored at every evaluation."
        drawn.append(over("rates", series, "epoch", "certified rate (1/tau)", caption, whole_x=True))
    pairs = {
        name: {"measured": (a["pair_rate"].mean("pair") / a["step"]).values, "certified": a["rate"].values[:, 1]}
        if "rate" in a
        else {"measured": (a["pair_rate"].mean("pair") / a["step"]).values}
        for name, a in answers.items()
        if "pair_rate" in a and "step" in a
    }
    if pairs:
        caption = "Rate at which pairs of trajectories come together under random inputs, beside the certified one."
        drawn.append(by_group("pairs", pairs, "rate (1/tau)", caption))
    return {"assemblies": drawn} if drawn else {}
