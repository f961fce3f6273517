"""What the recipes of Khajehabdollahi et al. (ICLR 2024) share: questions put at every stage of a curriculum."""

from typing import Any

import numpy as np
import xarray as xr

from poprnn.core.blueprint import Fraction, PositiveInt
from poprnn.training.curricula.none import None_
from poprnn.training.evaluate import evaluate
from poprnn.training.run import Run


def largest_n(run: Run, *, threshold: Fraction = 0.98, n_trials: PositiveInt = 12800) -> xr.Dataset:
    """``largest_n`` (member): the largest N whose stage was passed and whose snapshot scores above threshold once more.

    The training's own evaluations chose the stage, so the verdict comes from trials they have not seen: the mean over
    the stage's active heads and the newest head's accuracy must both exceed the threshold again. 0 where none does.
    """
    task: Any = run.task
    best = np.zeros(run.n_members, int)
    for name, snapshot in run.snapshots.items():
        stage = int(name.removeprefix("stage_"))
        active, newest = (np.asarray(a) for a in run.setup.training.curriculum.heads(task, stage))
        accuracy = evaluate(run.at(name), heads=active[None, :], n_trials=n_trials)["accuracy"][:, 0]
        good = (np.nanmean(np.where(active, accuracy, np.nan), axis=1) > threshold) & (
            accuracy[:, int(newest)] > threshold
        )
        n = task.n_min + int(newest)
        best = np.where(snapshot.reached & good, np.maximum(best, n), best)
    return xr.Dataset({"largest_n": ("member", best)}, {"member": run.member_index})


def tau_by_n(run: Run) -> xr.Dataset:
    """``n``, ``who`` (the member), ``mean`` and ``sd`` of tau over units (moment): whenever a member solved an N."""
    rows = []
    task: Any = run.task
    cell: Any = run.cell
    scratch = isinstance(run.setup.training.curriculum, None_)
    for name, snapshot in run.snapshots.items():
        stage = int(name.removeprefix("stage_"))
        tau = np.maximum(_tau(snapshot.parameters), cell.dt)
        for k in np.flatnonzero(snapshot.reached):
            if scratch:
                head = int(run.setup.population.values(int(run.member_index[k]))["training.curriculum.head"])
            else:
                head = int(run.setup.training.curriculum.heads(run.task, stage)[1])
            rows.append((task.n_min + head, run.member_index[k], tau[k].mean(), tau[k].std()))
    columns = np.array(rows, float).reshape(-1, 4).T
    return xr.Dataset(
        {name: ("moment", column) for name, column in zip(("n", "who", "mean", "sd"), columns, strict=True)}
    )


def _tau(parameters: Any) -> np.ndarray:
    return np.asarray({**parameters.fixed, **parameters.trainable}["tau"])
