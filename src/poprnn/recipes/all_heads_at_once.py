"""T18: the curriculum that emerges when all heads are trained from the start."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.recipes._timescales import brackets, correlation, interval_of, setup
from poprnn.recipes._verdict import Verdict
from poprnn.recipes.contract import Claim
from poprnn.training.curricula.all_heads import AllHeads
from poprnn.training.curricula.multi_head import MultiHead
from poprnn.training.run import Run
from poprnn.training.settings import Setup

TASK = "n_parity"
THRESHOLD = 0.98
EXPLICIT = "multi_head"


def experiments(scale: dict[str, Any]) -> dict[str, Setup]:
    """All heads N = 2 … m from the start, for each m in ``most``, and the explicit multi-head curriculum."""
    epochs = scale["all_heads_epochs"]
    return {EXPLICIT: setup(scale, TASK, MultiHead())} | {
        f"all_heads_{m}": setup(scale, TASK, AllHeads(), task_options={"n_max": m}, epochs=epochs)
        for m in sorted(scale["most"])
    }


def answers(runs: dict[str, Run], scale: dict[str, Any], ask: Any) -> dict[str, xr.Dataset]:
    """The epoch at which each N was reached; read from the histories, so that nothing needs to be kept."""
    return {label: epochs_by_n(run) for label, run in runs.items()}


def epochs_by_n(run: Run) -> xr.Dataset:
    """``epoch`` (n, member), NaN where N was not reached; the attribute ``budget`` in epochs.

    With all heads from the start: the first epoch at whose evaluation the head's accuracy exceeds 98 %. With a
    curriculum: that at which the stage of the N was passed.
    """
    task: Any = run.task
    heads = np.arange(task.n_heads)
    if isinstance(run.setup.training.curriculum, AllHeads):
        with np.errstate(invalid="ignore"):  # members that have ended are blank
            reached = run.history["scores/accuracy"] > THRESHOLD
    else:
        reached = run.history["passed"][..., None] & (run.history["newest"][..., None] == heads)
    epoch = np.where(reached.any(axis=0), reached.argmax(axis=0) + 1.0, np.nan)
    return xr.Dataset(
        {"epoch": (("n", "member"), epoch.T)},
        {"n": task.n_min + heads, "member": run.member_index},
        {"budget": run.setup.training.epochs},
    )


def judge(answers: dict[str, xr.Dataset], about: dict[str, Any]) -> list[Claim]:
    """Verdict on T18."""
    (rule,) = about["claims"]
    verdict = Verdict(rule)
    populations = _populations(answers)
    late = 1 + max(a.attrs["budget"] for a in answers.values())
    epochs = {label: a["epoch"].transpose("n", "member").fillna(late) for label, a in answers.items()}
    verdict.members = sum(e.sizes["member"] for e in epochs.values())
    largest = max(populations)
    _judge_order(verdict, epochs[populations[largest]], largest, late)
    _judge_same_n(verdict, {m - 1: epochs[label] for m, label in populations.items()}, epochs[EXPLICIT], late)
    if largest - 1 < rule["heads"]:
        verdict.note(f"stand-in: {largest - 1} heads at most instead of {rule['heads']}")
    return [verdict.claim()]


def _populations(answers: dict[str, xr.Dataset]) -> dict[int, str]:
    """Largest N to label, in order."""
    found = {int(label.removeprefix("all_heads_")): label for label in answers if label != EXPLICIT}
    return dict(sorted(found.items()))


def _judge_order(verdict: Verdict, epochs: xr.DataArray, m: int, late: int) -> None:
    """Smaller N first."""
    n, who = np.meshgrid(epochs["n"].values, epochs["member"].values, indexing="ij")
    rows = np.stack([n, who, epochs.values], axis=-1).reshape(-1, 3).astype(float)
    if (epochs.values == late).all():
        verdict.unjudged(f"order of N: none of the {m - 1} heads got to 98 %")
        return
    found = correlation(rows)
    words = f"{m - 1} heads: Spearman(N, epoch at 98 %) {found:.2f}"
    if np.isfinite(found):
        # resampled members of whom no head got anywhere show no order
        verdict.interval = interval_of(rows, lambda mine: float(np.nan_to_num(correlation(mine))))
        words += f" {brackets(verdict.interval)}"
    reached = (epochs.values < late).mean()
    verdict.clause(found >= verdict.rule["spearman"], f"{words}, {reached:.0%} of heads got there")


def _judge_same_n(verdict: Verdict, by_heads: dict[int, xr.DataArray], explicit: xr.DataArray, late: int) -> None:
    """At one N: sooner with more heads, soonest with the explicit curriculum."""
    common = set.intersection(*(set(e["n"].values.tolist()) for e in (*by_heads.values(), explicit)))
    n = max(common)
    means = {heads: float(e.sel(n=n).mean()) for heads, e in by_heads.items()}
    goal = float(explicit.sel(n=n).mean())
    if all(mean == late for mean in means.values()):
        verdict.unjudged(f"epochs at N = {n}: no member got to 98 % with all heads from the start")
        return
    told = ", ".join(f"{mean:.3g} with {heads} heads" for heads, mean in means.items())
    if len(means) < 3:
        verdict.unjudged("epochs against the number of heads: fewer than three populations")
    else:
        found = correlation(np.array([(heads, 0, mean) for heads, mean in means.items()]))
        words = f"mean epoch at N = {n}: {told}; Spearman(heads, epoch) {found:.2f}"
        verdict.clause(found <= -verdict.rule["sooner"], words)
    verdict.clause(
        all(mean > goal for mean in means.values()), f"explicit curriculum at N = {n}: mean epoch {goal:.3g}"
    )


def draw(runs: dict[str, Run], answers: dict[str, xr.Dataset]) -> dict[str, Any]:
    """Figure S18: accuracy of the heads while all are trained, and when each N is reached."""
    from poprnn.report.panels import over

    populations = _populations(answers)
    largest = max(populations)
    names = {label: f"{m - 1} heads at once" for m, label in populations.items()} | {EXPLICIT: "explicit curriculum"}
    score, memories = runs[populations[largest]].history["scores/accuracy"], answers[populations[largest]]["n"].values
    shown = np.unique(np.linspace(0, score.shape[2] - 1, 6).astype(int))
    epochs = np.arange(1, len(score) + 1)
    return {
        TASK: [
            over(
                "accuracy",
                {f"N = {memories[head]}": (epochs, score[:, :, head].T) for head in shown},
                "epoch",
                "accuracy",
                f"Accuracy of single heads while all {largest - 1} are trained from the start; members whose heads "
                "have all passed have ended.",
                whole_x=True,
                reference=(THRESHOLD, "threshold {:g}"),
            ),
            over(
                "epochs",
                {
                    names[label]: (answers[label]["n"].values, answers[label]["epoch"].transpose("member", "n").values)
                    for label in (*populations.values(), EXPLICIT)
                },
                "memory N of the head",
                "epoch at 98 %",
                "First epoch at which each head exceeds 98 % (explicit multi-head curriculum: at which its stage is "
                "passed), over the members that got there.",
                whole_x=True,
            ),
        ]
    }
