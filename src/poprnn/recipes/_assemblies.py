"""What the recipes about stable assemblies share: populations on images, what is asked of them, and words for it."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import rankdata

from poprnn.cells.contract import Cell
from poprnn.cells.sparse_combo_net import SparseComboNet
from poprnn.cells.svd_combo_net import SVDComboNet
from poprnn.recipes._verdict import Verdict
from poprnn.recipes.contract import bootstrap
from poprnn.tasks.sequential_images import SequentialImages
from poprnn.training.optimizers.adam import Adam
from poprnn.training.run import Run
from poprnn.training.schedules.piecewise import Piecewise
from poprnn.training.settings import Population, Setup, Training

CHANCE = 0.1
"""Accuracy of guessing one of ten classes; members that diverged count so."""
WORDS = {"sparse": "Sparse Combo Net", "svd": "SVD Combo Net"}
FULL = 45_000
"""Images that a set has at least, not to be a stand-in for the paper's (CIFAR-10's, without those to validate)."""
N_VALIDATED = 1000
"""Images of an evaluation, at least (our choice)."""


# --- populations ---------------------------------------------------------------------------------------------------


def network(scale: Mapping[str, Any], kind: str, n_modules: int, n_units: int = 32, **options: Any) -> Cell:
    """A Sparse Combo Net (of the scale's ``density``) or an SVD Combo Net, with the scale's Euler step."""
    size: dict[str, Any] = {"n_modules": n_modules, "n_module_units": n_units, "dt": scale["dt"]}
    if kind == "svd":
        return SVDComboNet(**size, **options)
    return SparseComboNet(**size, **{"density": scale["density"]} | options)


def population(scale: Mapping[str, Any], cell: Cell, *, members: int | None = None, **task: Any) -> Setup:
    """One population on the scale's images, permuted unless ``task`` says otherwise.

    Adam, whose rate falls to a tenth for the last tenth of the steps (the paper: near the end); cross-entropy at the
    last step; no weight decay (1e-5 in the paper's code, as far as is known; our choice). No monitor ends a member but
    divergence and a broken certificate: all have the same budget. Weights are kept of the epoch that was best on
    validation images.
    """
    steps = scale["epochs"] * scale["steps_per_epoch"]
    rate = Piecewise(
        values=(scale["learning_rate"], scale["learning_rate"] / 10), boundaries=(max(round(0.9 * steps), 1),)
    )
    options: dict[str, Any] = {"dataset": scale["dataset"], "pool": scale["pool"], "permuted": True}
    return Setup(
        population=Population(members=members or scale["members"]),
        task=SequentialImages(**options | task),
        cell=cell,
        training=Training(
            batch=scale["batch"],
            epochs=scale["epochs"],
            steps_per_epoch=scale["steps_per_epoch"],
            evaluation_batches=-(-N_VALIDATED // scale["batch"]),
            optimizer=Adam(learning_rate=rate),
            monitors=(),
            snapshots="best",
        ),
    )


# --- what is measured ----------------------------------------------------------------------------------------------


def learned(ask: Any, label: str, run: Run, **attributes: Any) -> xr.Dataset:
    """Accuracy on the whole test set, and how it came about.

    Returns:
        ``accuracy`` (member) at the epoch that was best on validation images, ``last`` (member) at the end, NaN for
        members that diverged; ``validation`` (epoch, member). Attributes: those given, what was trained on, and how
        many members diverged or lost their certificate.
    """
    best = ask(f"{label}/best", "image_accuracy", run.at("best") if "best" in run.snapshots else run)
    last = ask(f"{label}/last", "image_accuracy", run)
    members = run.member_index

    def of_all(found: xr.Dataset) -> np.ndarray:
        if "accuracy" not in found:
            return np.full(len(members), np.nan)
        return found["accuracy"].reindex(member=members).values

    curve = run.history["scores/accuracy"]
    task: Any = run.task
    side = round(task.capacity**0.5)
    return xr.Dataset(
        {
            "accuracy": ("member", of_all(best)),
            "last": ("member", of_all(last)),
            "validation": (("epoch", "member"), curve.reshape(*curve.shape[:2], -1)[..., 0]),
        },
        {"member": members, "epoch": np.arange(1, len(curve) + 1)},
        {
            "images": int(last["n_trained_on"]) if "n_trained_on" in last else 0,
            "tested": int(last["n_images"]) if "n_images" in last else 0,
            "data": f"{task.dataset}{', permuted' * task.permuted}, {side} × {side} pixels",
            "diverged": run.outcome.count("diverged"),
            "broken": run.outcome.count("certificate_broken"),
            **attributes,
        },
    )


def accuracy(answer: xr.Dataset, name: str = "accuracy") -> np.ndarray:
    """Of every member; chance for those that diverged."""
    values = answer[name].values
    return np.where(np.isfinite(values), values, CHANCE)


# --- verdicts ------------------------------------------------------------------------------------------------------


def verdict(rule: dict[str, Any], answers: Iterable[xr.Dataset]) -> Verdict:
    """One to be filled, which says what was trained on, and who was lost."""
    answers = list(answers)
    out = Verdict(rule)
    for data in dict.fromkeys((a.attrs["images"], a.attrs["tested"], a.attrs["data"]) for a in answers):
        words = f"trained on {data[0]} images ({data[2]}), tested on {data[1]}"
        out.note(("stand-in: " if data[0] < FULL else "") + words)
    for what, words in (("diverged", "diverged and count as chance"), ("broken", "lost their certificate")):
        lost = sum(a.attrs[what] for a in answers)
        if lost:
            out.note(f"{lost} of {sum(a.sizes['member'] for a in answers)} members {words}")
    if not answers:
        out.note("no such population at this scale")
    out.members = sum(a.sizes["member"] for a in answers)
    return out


def in_words(answer: xr.Dataset) -> str:
    """Mean accuracy, its range over members, and the mean at the end, in percent.

    >>> answer = xr.Dataset({"accuracy": ("member", [0.91, 0.93]), "last": ("member", [0.9, 0.92])})
    >>> in_words(answer)
    '92.0 (91.0 to 93.0; at the end 91.0)'
    """
    values, last = 100 * accuracy(answer), 100 * accuracy(answer, "last")
    return f"{values.mean():.1f} ({values.min():.1f} to {values.max():.1f}; at the end {last.mean():.1f})"


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation, ties sharing their ranks; 0 where one of both is constant.

    >>> round(spearman(np.array([1, 2, 3]), np.array([1.0, 5.0, 4.0])), 6)
    0.5
    """
    ranks = rankdata(x), rankdata(y)
    return float(np.corrcoef(*ranks)[0, 1]) if all(np.ptp(r) for r in ranks) else 0.0


def trend(by_number: Mapping[int, np.ndarray]) -> tuple[float, list[float]]:
    """Spearman's correlation of a number (of modules) with its members' values, and its interval: members are
    resampled within each number."""
    numbers, samples = np.array(list(by_number)), list(by_number.values())

    def statistic(*values: np.ndarray) -> float:
        return spearman(np.repeat(numbers, [len(v) for v in values]), np.concatenate(values))

    return statistic(*samples), bootstrap(statistic, *samples)


def difference(a: np.ndarray, b: np.ndarray) -> tuple[float, list[float]]:
    """Mean of one population minus that of another, and its interval."""
    return float(a.mean() - b.mean()), bootstrap(lambda a, b: a.mean() - b.mean(), a, b)


# --- figures -------------------------------------------------------------------------------------------------------


def curves(name: str, answers: Mapping[str, xr.Dataset], title: str | None = None) -> Any:
    """Accuracy on validation images after every epoch."""
    from poprnn.report.panels import over

    series = {
        words: (answer["epoch"].values, answer["validation"].values.T)
        for words, answer in answers.items()
        if answer.sizes["epoch"] and np.isfinite(answer["validation"]).any()
    }
    caption = "Accuracy on images kept for validation, after every epoch of training."
    return over(name, series, "epoch", "accuracy on validation images", caption, title=title, whole_x=True)
