"""A1 and A2: certificates of contraction on constructed weights, and the weights for which there is none."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.core.contraction import inequalities
from poprnn.core.contraction.slopes import slope_corners, symmetric_margin, theorem_6, turning
from poprnn.recipes._certificate_cases import (
    DT,
    INSIDE,
    MISS,
    N_STEPS,
    NONLINEARITIES,
    THEOREMS,
    alone,
    coupled,
    distances,
    excess,
)
from poprnn.recipes._verdict import Verdict
from poprnn.recipes.contract import Claim
from poprnn.training.run import Run
from poprnn.training.settings import Setup


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """Nothing is trained."""
    return {}


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """What the theorems say of constructed weights, and what these do."""
    out = {name: constructed(name, scale) for name in THEOREMS}
    return out | {"6": slow_slopes(scale), "7": no_metric(scale)}


def constructed(name: str, scale: dict[str, Any]) -> xr.Dataset:
    """Theorems 1 to 5.

    Returns ``accepted`` (case), ``refused`` (miss), ``excess`` (system, nonlinearity, case), and ``apart`` (time,
    case), the distance of pairs times exp(rate · time), of modules alone under ReLU.
    """
    rng = np.random.default_rng([scale["seed"], int(name)])
    make, n, n_cases = THEOREMS[name], scale["units"], scale["cases"]
    inside = [make(rng, n, rng.uniform(*INSIDE)) for _ in range(n_cases)]
    beside = [make(rng, n, 1 + rng.uniform(*MISS)) for _ in range(n_cases)]
    good = [case for case in inside if case.certificate.metric is not None]
    systems = {"alone": alone(good)} if good else {}
    systems |= {f"|L| = {s:g}": coupled(rng, good, s) for s in scale["strengths"] if good}
    worst = np.full((len(systems), len(NONLINEARITIES), len(good)), np.nan)
    apart = np.full((N_STEPS + 1, len(good)), np.nan)
    for i, system in enumerate(systems.values()):
        for j, phi in enumerate(NONLINEARITIES):
            found = distances(rng, system, phi)
            worst[i, j] = excess(found, system.rate)
            if i == j == 0:
                apart = found * np.exp(system.rate * DT * np.arange(N_STEPS + 1)[:, None])
    return xr.Dataset(
        {
            "accepted": ("case", [case.certificate.holds for case in inside]),
            "refused": ("miss", [not case.certificate.holds for case in beside]),
            "excess": (("system", "nonlinearity", "held"), worst),
            "apart": (("time", "held"), apart),
        },
        {"system": list(systems), "nonlinearity": list(NONLINEARITIES), "time": DT * np.arange(N_STEPS + 1)},
    )


def slow_slopes(scale: dict[str, Any]) -> xr.Dataset:
    """Theorem 6 on random slopes D and their changes at its limit, dD/dt = (c - beta) D at most.

    Returns ``accepted``, ``refused`` (changes faster than c D) and, of the accepted, whether the distance falls in the
    ``corrected`` metric P^-1 D at the rate beta / 2 and in the ``printed`` one, D, all (case).
    """
    rng = np.random.default_rng([scale["seed"], 6])
    n, found = scale["units"], []
    for _ in range(scale["cases"]):
        A, P, c = rng.normal(size=(n, n)), 10.0 ** rng.uniform(-1, 1, n), rng.uniform(0.1, 1.9)
        W = ((1 - c / 2) * np.diag(P) + 3 * (A - A.T)) / P
        D = rng.uniform(0.05, 1, n)
        change = (c - 0.01) * D * rng.uniform(0, 1, n)
        inside = theorem_6(W, D[None], change[None], metric=np.diag(P))
        beside = theorem_6(W, D[None], ((c + rng.uniform(*MISS)) * D)[None], metric=np.diag(P))
        J, beta = W * D - np.eye(n), inside.margin
        falls = [
            np.linalg.eigvalsh(np.diag(dM) + M[:, None] * J + J.T * M + beta * np.diag(M))[-1] <= 1e-9
            for M, dM in ((D / P, change / P), (D, change))
        ]
        found.append([inside.holds, not beside.holds, *falls])
    names = ("accepted", "refused", "corrected", "printed")
    return xr.Dataset({name: ("case", np.array(found)[:, i]) for i, name in enumerate(names)})


def no_metric(scale: dict[str, Any]) -> xr.Dataset:
    """Theorem 7, for each c: ``margin`` of the condition on the symmetric part, the ``rate`` of a constant metric that
    a search of the matrix inequalities finds (NaN: there is none), and whether the Jacobians at the slopes (1, 0) and
    (0, 1) have a product with a negative eigenvalue, ``excluded`` (then there can be none); all (c)."""
    if not inequalities.is_available():
        return xr.Dataset()
    rows: list[tuple[float, float, bool]] = []
    for c in scale["turning"]:
        W = turning(c)
        J = [W * D - np.eye(2) for D in slope_corners(2)[[1, 2]]]
        values = np.linalg.eigvals(J[0] @ J[1])
        excluded = bool(((np.abs(values.imag) < 1e-6) & (values.real < 0)).any())
        rows.append((symmetric_margin(W), inequalities.constant_metric(W).rate, excluded))
    names = ("margin", "rate", "excluded")
    columns = {name: ("c", list(column)) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    return xr.Dataset(columns, {"c": list(scale["turning"])})


# --- verdicts ------------------------------------------------------------------------------------------------------


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdicts on A1 and A2."""
    rules = {rule["id"]: rule for rule in about["claims"]}
    return [_judge_cases(answers, rules["A1"]), _judge_turning(answers["7"], rules["A2"])]


def _judge_cases(answers: dict[str, xr.Dataset], rule: dict[str, Any]) -> Claim:
    out = Verdict(rule, ["n counts constructed networks, not trained ones"])
    for name in (*THEOREMS, "6"):
        found = answers[name]
        yes, no = (found[k].values for k in ("accepted", "refused"))
        words = f"theorem {name}: {yes.sum()} of {len(yes)} accepted, {no.sum()} of {len(no)} near misses refused"
        if name == "6":
            right, printed = (found[k].values for k in ("corrected", "printed"))
            falls = bool(right.all() and not printed.all())
            words += f", distance falls in {right.sum()} (in the metric as printed: {printed.sum()})"
        else:
            worst = float(found["excess"].max()) if found["excess"].size else np.nan
            falls = worst <= rule["excess"]
            words += f", distance falls at the rate within {max(worst, 0):.1g}"
        out.clause(bool(yes.all() and no.all()) and falls, words)
        out.members += len(yes) + len(no)
    return out.claim()


def _judge_turning(found: xr.Dataset, rule: dict[str, Any]) -> Claim:
    out = Verdict(rule, ["n counts networks of two units, none of them trained"])
    if "c" not in found.dims:
        out.unjudged("cvxpy is not installed (the extra 'certificates')")
        return out.claim()
    c, rate = found["c"].values, found["rate"].values
    beyond = c >= 2
    if not (beyond.any() and (~beyond).any()):
        out.unjudged("values of c on both sides of 2 are wanted")
        return out.claim()
    out.clause(bool((found["margin"].values > 0).all()), f"symmetric part below I at all {len(c)} values of c")
    none = np.isnan(rate) & found["excluded"].values
    out.clause(bool(none[beyond].all()), f"no constant metric at c = {', '.join(f'{x:g}' for x in c[beyond])}")
    known = (rate > 0) & ~found["excluded"].values
    rates = ", ".join(f"{x:g} (rate {r:.2g})" for x, r in zip(c[~beyond], rate[~beyond], strict=True))
    out.clause(bool(known[~beyond].all()), f"one at c = {rates}")
    out.members = len(c)
    return out.claim()


# --- figures -------------------------------------------------------------------------------------------------------


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Distances of pairs beside what is certified; rates of constant metrics for theorem 7's weights."""
    from poprnn.report.panels import over

    shown = {k: answers[k].isel(time=slice(None, None, 10)) for k in THEOREMS}
    apart = {f"theorem {k}": (a["time"].values, a["apart"].values.T) for k, a in shown.items()}
    drawn = [
        over(
            "distances", apart, "time (tau)", "distance × exp(rate · time) / first",
            "Distance of two trajectories under the same random inputs, in the certified metric (ReLU). Above 1 the "
            "certificate would be wrong. Members are networks here.",
            reference=(1.0, "certified"),
        )
    ]  # fmt: skip
    if "c" in answers["7"].dims:
        seven = answers["7"]
        rate = np.nan_to_num(seven["rate"].values, nan=0.0)[None]
        drawn.append(
            over(
                "turning", {"W = [[0, -c], [c, 0]]": (seven["c"].values, rate)}, "c",
                "rate of a constant metric (1/tau)",
                "Theorem 7: the best rate found for any constant metric; 0 where there is none, from c = 2 on.",
            )
        )  # fmt: skip
    return {"certificates": drawn}
