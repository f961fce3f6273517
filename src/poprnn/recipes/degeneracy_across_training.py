"""X1 and X2: does the way in which networks are trained decide how alike they become? Curricula, and skip methods."""

from collections.abc import Mapping
from typing import Any

import xarray as xr

from poprnn.recipes import _long_dependencies as cognitive
from poprnn.recipes import _timescales as memory
from poprnn.recipes._degeneracy import between_members, change, mean_of, notes_on, of_members, solved_members, value
from poprnn.recipes._timescales import brackets
from poprnn.recipes.contract import Claim
from poprnn.tasks.cognitive import Cognitive
from poprnn.training.curricula.all_heads import AllHeads
from poprnn.training.curricula.multi_head import MultiHead
from poprnn.training.curricula.none import None_
from poprnn.training.curricula.single_head import SingleHead
from poprnn.training.monitors.solved import Solved
from poprnn.training.run import Run
from poprnn.training.settings import Setup

MEASURES = {
    "DSA distance": mean_of("dynamics"),
    "d_PIF": mean_of("independent"),
    "by one renumbering": mean_of("conjugate"),
    "distance from start": mean_of("start"),
    "dimensions": mean_of("dimensions"),
}
PLAIN = {"curriculum": "single_head", "method": "control"}
"""What each of the two questions compares with."""


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """``n_parity`` up to ``n_max`` under each curriculum, and a cognitive task with each method, until solved."""
    threshold = scale["threshold"]
    curricula = {
        "single_head": SingleHead(threshold=threshold),
        "multi_head": MultiHead(threshold=threshold),
        "none": None_(head=scale["n_max"] - 2, threshold=threshold),
    }
    parity = scale | {"n_units": scale["parity_units"], "batch": scale["parity_batch"]}
    parity |= {name: scale[f"parity_{name}"] for name in ("epochs", "steps_per_epoch", "evaluation_batches")}
    out = {
        f"curriculum-{name}": memory.setup(parity, "n_parity", curricula[name], snapshots="none")
        for name in scale["curricula"]
    }
    task = Cognitive(rule=scale["rule"], dt=scale["dt"], timing="batch")
    for name in scale["methods"]:
        method = cognitive.method(name, scale)
        stops: dict[str, Any] = {"monitors": (Solved(),), "curriculum": AllHeads(threshold=scale["criterion"])}
        out[f"method-{name}"] = cognitive.setup(scale, task, method, **stops)
    return out


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """How far members that solved the task are from one another."""
    out = {}
    for label, run in runs.items():
        kind, _, name = label.partition("-")
        solved = solved_members(run)
        counts: dict[str, Any] = {"members": run.n_members, "solved": len(solved), "kind": kind, "name": name}
        found = xr.Dataset()
        if len(solved) >= 3:
            look = {"n_delays": scale[f"{kind}_delays"], "rank": scale["rank"], "n_trials": scale["n_trials"]}
            found = between_members(ask, label, run.select(solved), look, scale["n_restarts"])
        out[label] = found.assign_attrs(counts)
    return out


# --- verdicts ------------------------------------------------------------------------------------------------------


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdicts on X1 and X2; ``None`` where fewer than three members solved what is compared."""
    rules = {c["id"]: c for c in about["claims"]}
    return [_compared(answers, kind, rules[name]) for name, kind in (("X1", "curriculum"), ("X2", "method"))]


def _compared(answers: Mapping[str, xr.Dataset], kind: str, rule: Mapping[str, Any]) -> Claim:
    """Whether the dynamics of any condition are more or less alike than those of the plain one."""
    mine = {a.attrs["name"]: a for a in answers.values() if a.attrs["kind"] == kind}
    notes, _ = notes_on({f"{kind} {name}": a for name, a in mine.items()})
    plain = mine.get(PLAIN[kind], xr.Dataset())
    others = {name: a for name, a in mine.items() if name != PLAIN[kind] and a.data_vars}
    if not plain.data_vars or not others:
        return Claim(rule["id"], rule["claim"], rule["paper"], "", None, 0, None, "; ".join(notes))
    confidence = 1 - (1 - rule["confidence"]) / len(others)  # Bonferroni's
    differs, words, decisive = False, [_said(plain, PLAIN[kind])], None
    for name, answer in others.items():
        moved, interval = change(plain, answer, MEASURES["DSA distance"], confidence=confidence)
        apart = interval[0] > 0 or interval[1] < 0
        differs |= apart
        words.append(f"{_said(answer, name)}; DSA distance {moved:+.0%} {brackets(interval)}")
        decisive = interval if decisive is None or (apart and not decisive[0] > 0 and not decisive[1] < 0) else decisive
    members = sum(a.sizes["member"] for a in (plain, *others.values()))
    return Claim(
        rule["id"], rule["claim"], rule["paper"], "; ".join(words), decisive, members, differs, "; ".join(notes)
    )


def _said(answer: xr.Dataset, name: str) -> str:
    return f"{name}: " + ", ".join(f"{words} {value(answer, statistic):.3g}" for words, statistic in MEASURES.items())


# --- figures -------------------------------------------------------------------------------------------------------


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Distances between dynamics and weights, a dot for each member."""
    from poprnn.report.panels import by_group, scatter

    figures = {}
    for kind in PLAIN:
        there = {a.attrs["name"]: a for a in answers.values() if a.attrs["kind"] == kind and a.data_vars}
        if not there:
            continue
        title = {"curriculum": "N-parity", "method": "a cognitive task"}[kind]
        drawn = [
            by_group(
                name,
                {label.replace("_", " "): {"": of_members(a[name])} for label, a in there.items()},
                words,
                f"{title[0].upper()}{title[1:]}: {words}, a member to the others.",
            )
            for name, words in (
                ("dynamics", "mean DSA distance"),
                ("independent", "mean d_PIF"),
                ("conjugate", "mean weight distance, one renumbering"),
                ("start", "distance from the start"),
            )
        ]
        marks = {label.replace("_", " "): tuple(a["embedding"].values.T[:2]) for label, a in there.items()}
        figures[kind] = [
            *drawn,
            scatter(
                "embedding",
                marks,
                "first coordinate",
                "second coordinate",
                "Multidimensional scaling of DSA distances, each population by itself: spread counts, place does not.",
                title=title,
            ),
        ]
    return figures
