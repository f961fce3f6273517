"""T20: sums of ever slower waves, one more at every stage."""

from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from poprnn.cells.leaky_rnn import LeakyRNN
from poprnn.core.blueprint import PositiveInt
from poprnn.recipes._timescales import (
    CURRICULA,
    answered,
    brackets,
    correlation,
    hyphened,
    interval_of,
    largest_n,
    left_out,
    setup,
    tau_by_n,
    tau_rows,
)
from poprnn.recipes.contract import Claim
from poprnn.training.curricula.multi_head import MultiHead
from poprnn.training.curricula.single_head import SingleHead
from poprnn.training.optimizers.adam import Adam
from poprnn.training.run import Run
from poprnn.training.settings import Setup

CELLS = ("inside", "outside")


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """Both curricula, for the paper's cell and for leaky integrators with time constants of 1 to 10 steps at first."""
    cells = {
        "inside": LeakyRNN(n_units=scale["n_units"]),
        "outside": LeakyRNN(
            n_units=scale["n_units"], self_interaction="outside", recurrent_gain=1.7, tau_start=(1.0, 10.0)
        ),
    }
    # the error of a whole wave is large at every new stage: unclipped steps ended in plateaus
    optimizer = Adam(learning_rate=3e-3, clip_norm=1.0)
    return {
        f"{name}-{curriculum.name()}": setup(scale, "temporal_pattern", curriculum, cell=cell, optimizer=optimizer)
        for name, cell in cells.items()
        for curriculum in (SingleHead(), MultiHead())
    }


def waves_learned(run: Run, *, n_trials: PositiveInt = 256) -> xr.Dataset:
    """``waves`` (member): heads of the last stage whose snapshot exceeds the threshold again on fresh trials."""
    threshold = run.setup.training.curriculum.threshold
    return largest_n(run, threshold=threshold, n_trials=n_trials).rename(largest_n="waves")


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """Waves learned, and time constants at the moments one was."""
    out = {}
    for label, run in runs.items():
        out[f"{label}/waves"] = answered(ask(label, waves_learned, run, n_trials=scale["rescore_trials"]), "waves")
        out[f"{label}/tau"] = ask(label, tau_by_n, run)
    return out


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """What happened."""
    rule = about["claims"][0]
    words, members = [], 0
    for cell in CELLS:
        waves = {c: answers[f"{cell}-{c}/waves"]["waves"].values for c in CURRICULA}
        members += sum(len(w) for w in waves.values())
        for curriculum, found in waves.items():
            if not len(found):
                continue
            text = f"{cell} {curriculum}: {found.min()} to {found.max()} waves (mean {found.mean():.2f})"
            for name in ("mean", "sd"):
                rows = tau_rows(answers[f"{cell}-{curriculum}/tau"], name)
                if len(np.unique(rows[:, 0])) >= 3:
                    text += f", Spearman of waves and {name} tau {correlation(rows):.2f}"
                    text += f" {brackets(interval_of(rows, correlation))}"
            words.append(text)
        if all(len(found) for found in waves.values()):
            test = stats.mannwhitneyu(waves["multi_head"], waves["single_head"])
            words.append(f"{cell}: multi-head against single-head p = {test.pvalue:.2g}")
    notes = ["nothing is claimed: reported", *left_out(answers, "/waves")]
    return [Claim("T20", rule["claim"], rule["paper"], "; ".join(words), None, members, None, "; ".join(notes))]


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Waves learned against epochs, by the end, and time constants against waves."""
    from poprnn.report.compare import compare_curricula

    figures = {}
    for cell in CELLS:
        mine = {hyphened(c): f"{cell}-{c}" for c in CURRICULA}
        figures[f"self_interaction_{cell}"] = compare_curricula(
            {c: runs[label] for c, label in mine.items()},
            {c: tau_rows(answers[f"{label}/tau"], "mean", "sd") for c, label in mine.items()},
            moment="waves learned",
        )
    return figures
