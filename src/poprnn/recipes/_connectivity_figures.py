"""Figures of ``connectivity_and_dimensionality``."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.recipes._connectivity import borne, inhibition_and_tau
from poprnn.recipes._timescales import CURRICULA, hyphened, rows_of, slope_of
from poprnn.report.panels import over, scatter


def weights(answers: dict[str, xr.Dataset], task: str, parts: tuple[str, ...]) -> Any:
    """Figure 6a: mean incoming weight, or its positive and negative parts, against N."""
    series = {}
    for curriculum in CURRICULA:
        found = answers[f"{task}-{curriculum}/weights"]
        for part in parts:
            if (name := f"{part}_by_stage") in found:
                label = hyphened(curriculum) + (f", {part} part" if len(parts) > 1 else "")
                series[label] = (found["n"].values, found[name].transpose("member", "stage").values)
    if not series:
        return None
    words = " and ".join(parts) + (" parts of the" if len(parts) > 1 else "")
    return over(
        "incoming_" + "_".join(parts),
        series,
        "memory N solved",
        f"{words} incoming weight",
        f"{words.capitalize()} incoming recurrent weight, over possible connections and units, when N was solved.",
        whole_x=True,
        reference=(0.0, "balanced") if parts == ("mean",) else None,
    )


def dimensions(answers: dict[str, xr.Dataset], task: str, split: float) -> Any:
    """Figure 6b, with the two lines of S20."""
    found = {c: answers[f"{task}-{c}/dimensionality"] for c in CURRICULA}
    rows = {c: rows_of(a, "n_components") for c, a in found.items()}
    if not any(len(r) for r in rows.values()):
        return None
    lines = {}
    multi = rows["multi_head"]
    for words, side in ((f"N <= {split}", multi[:, 0] <= split), (f"N > {split}", multi[:, 0] > split)):
        if len(np.unique(multi[side, 0])) >= 2:
            slope, (x, y) = slope_of(multi[side]), multi[side][:, [0, 2]].mean(axis=0)
            ends = np.array([multi[side, 0].min(), multi[:, 0].max()])  # prolonged, to compare the slopes by eye
            lines[f"multi-head, line through {words}"] = (ends, y + slope * (ends - x))
    return over(
        "dimensionality",
        {
            hyphened(c): (a["n"].values, a["n_components"].transpose("member", "n").values)
            for c, a in found.items()
            if len(rows[c])
        },
        "memory N solved",
        "components for 90 % of the variance",
        "Number of principal components for 90 % of the variance of the activity when N was solved.",
        whole_x=True,
        lines=lines,
    )


def releases(answers: dict[str, xr.Dataset], task: str) -> list[Any]:
    """Figure S19a, b: activity as inhibition is released, and where it explodes."""
    out = []
    found = {c: a for c in CURRICULA if (a := answers.get(f"{task}-{c}/release_at_n")) is not None}
    if found:
        n = int(next(iter(found.values()))["n"])
        out.append(
            over(
                "inhibition",
                {
                    hyphened(c): (a["scale"].values, np.log10(np.clip(a["largest"].values, 1e-3, 1e6)))
                    for c, a in found.items()
                },
                "change c of the negative weights, W- (1 + c)",
                "log10 of the largest activity",
                f"Largest absolute activity of any unit at N = {n} (values above 10^6 drawn there) with the negative "
                "recurrent weights made weaker (c < 0) or stronger.",
                reference=(3.0, "counts as explosion"),
            )
        )
    stages = {c: a for c in CURRICULA if "scale" in (a := answers[f"{task}-{c}/release"]).coords}
    if stages:
        out.append(
            over(
                "release",
                {hyphened(c): (a["n"].values, borne(a).transpose("member", "n").values) for c, a in stages.items()},
                "memory N solved",
                "|c| at which activity explodes",
                "How far the negative weights can be weakened before activity explodes; members that bear the whole "
                "range are at its end.",
                whole_x=True,
            )
        )
    return out


def scattered(answers: dict[str, xr.Dataset], task: str) -> Any:
    """Figure S19c, d: inhibition against time constants."""
    rows = {c: inhibition_and_tau(answers, f"{task}-{c}") for c in CURRICULA}
    if not any(len(r) for r in rows.values()):
        return None
    return scatter(
        "inhibition_and_tau",
        {hyphened(c): (r[:, 3], r[:, 2]) for c, r in rows.items() if len(r)},
        "mean tau (steps)",
        "inhibition: minus the negative part of the incoming weight",
        "Inhibition against mean time constant, a mark for each member and N solved.",
    )
