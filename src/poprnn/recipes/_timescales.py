"""What the recipes of Khajehabdollahi et al. (ICLR 2024) share: their populations, and questions put at every N."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from poprnn.analysis._population import smallest_dt, stage_snapshots
from poprnn.analysis.contract import check_options
from poprnn.cells.contract import Cell
from poprnn.cells.leaky_rnn import LeakyRNN
from poprnn.core import catalogue
from poprnn.core.blueprint import Fraction, PositiveInt
from poprnn.recipes.contract import bootstrap
from poprnn.training.curricula.contract import Curriculum
from poprnn.training.curricula.multi_head import MultiHead
from poprnn.training.curricula.none import None_
from poprnn.training.curricula.single_head import SingleHead
from poprnn.training.evaluate import evaluate
from poprnn.training.optimizers.sgd import Sgd
from poprnn.training.run import Run
from poprnn.training.settings import Population, Setup, Training

TASKS = ("n_parity", "n_dms")
CURRICULA = ("single_head", "multi_head")
NETWORK = ("mean", "std", "population_tau", "aic_bic_agreement", "r_squared")
"""What is kept of the timescales that units have within their network."""
SGD = Sgd(learning_rate=0.05, momentum=0.1, nesterov=True, clip_norm=2.0)


# --- populations ---------------------------------------------------------------------------------------------------


def setup(
    scale: Mapping[str, Any],
    task: str,
    curriculum: Curriculum,
    *,
    cell: Cell | None = None,
    task_options: Mapping[str, Any] | None = None,
    members: int | None = None,
    vary: Mapping[str, Any] | None = None,
    **training: Any,
) -> Setup:
    """One population by a scale's entries (members, n_units, n_max, batch, epochs, …); keywords take their place."""
    n_members = scale["members"] if members is None else members
    return Setup(
        population=Population(members=n_members, vary=dict(vary or {})),
        task=catalogue.find("tasks", task)(**{"n_max": scale["n_max"], **(task_options or {})}),
        cell=cell or LeakyRNN(n_units=scale["n_units"]),
        training=Training(
            **{
                "batch": scale["batch"],
                "epochs": scale["epochs"],
                "steps_per_epoch": scale["steps_per_epoch"],
                "evaluation_batches": scale["evaluation_batches"],
                "optimizer": SGD,
                "curriculum": curriculum,
            }
            | training
        ),
    )


def both_curricula(scale: Mapping[str, Any], tasks: Iterable[str] | None = None, **options: Any) -> dict[str, Setup]:
    """Single-head and multi-head for each task: ``{"n_parity-single_head": …}``."""
    return {
        f"{task}-{curriculum.name()}": setup(scale, task, curriculum, **options)
        for task in (tasks or scale.get("tasks", TASKS))
        for curriculum in (SingleHead(), MultiHead())
    }


def from_scratch(
    scale: Mapping[str, Any],
    task: str,
    memories: Iterable[int],
    epochs: int,
    *,
    task_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Setup:
    """Without curriculum on every N in ``memories``, as one population: member k is trained on the (k mod len)-th."""
    memories = list(memories)
    heads = tuple(n - 2 for n in memories)
    return setup(
        scale,
        task,
        None_(head=heads[0]),
        members=scale["members"] * len(heads),
        vary={"training.curriculum.head": heads},
        task_options={**(task_options or {}), "n_max": max(memories)},
        epochs=epochs,
        **options,
    )


# --- questions -----------------------------------------------------------------------------------------------------


def largest_n(run: Run, *, threshold: Fraction = 0.98, n_trials: PositiveInt = 12800) -> xr.Dataset:
    """``largest_n`` (member): the largest N whose stage was passed and whose snapshot scores above threshold once more.

    The training's own evaluations chose the stage, so the verdict comes from trials they have not seen: the mean over
    the stage's active heads and the newest head's score must both exceed the threshold again. 0 where none does. For
    tasks without memories N it is the number of heads.
    """
    best = np.zeros(run.n_members, int)
    for stage in stage_snapshots(run):
        active, newest = stage.active[0], stage.newest[0]
        scores = evaluate(run.at(stage.name), heads=active[None, :], n_trials=n_trials)[run.task.score][:, 0]
        mean = np.nanmean(np.where(active, scores, np.nan), axis=1)
        good = (mean > threshold) & (scores[:, newest] > threshold)
        best = np.where(stage.reached & good, np.maximum(best, stage.n), best)
    return xr.Dataset({"largest_n": ("member", best)}, {"member": run.member_index})


def tau_by_n(run: Run) -> xr.Dataset:
    """``n``, ``who`` (the member), ``mean`` and ``sd`` of tau over units (moment): whenever a member solved an N.

    For tasks without memories N, n counts heads.
    """
    rows = []
    cell: Any = run.cell
    for stage in stage_snapshots(run):
        tau = np.maximum(_tau(stage.parameters), smallest_dt(run) or cell.dt)
        rows += [(stage.n[k], run.member_index[k], tau[k].mean(), tau[k].std()) for k in np.flatnonzero(stage.reached)]
    columns = np.array(rows, float).reshape(-1, 4).T
    return xr.Dataset(
        {name: ("moment", column) for name, column in zip(("n", "who", "mean", "sd"), columns, strict=True)}
    )


def _tau(parameters: Any) -> np.ndarray:
    return np.asarray({**parameters.fixed, **parameters.trainable}["tau"])


def at_stages(
    run: Run, *, analysis: str, options: dict[str, Any], keep: list[str], every: PositiveInt = 1
) -> xr.Dataset:
    """An analysis put to the weights from when each N was solved: its variables ``keep`` over (n, …).

    Members that did not solve an N have NaN there. ``every`` takes only every so many stages (and the last).
    """
    function = catalogue.find("analyses", analysis)
    options = check_options(function, options)
    stages = stage_snapshots(run)
    chosen = [stage for i, stage in enumerate(stages) if i % every == 0 or stage is stages[-1]]
    rows = []
    for stage in chosen:
        # everybody is measured, also those who are not there, so that all stages share one compiled program
        answer = function(run.at(stage.name), **options)[keep]
        there = xr.DataArray(stage.reached, dims="member")
        rows.append(answer.reset_coords(drop=True).drop_vars("member", errors="ignore").astype(float).where(there))
    if not rows:
        return xr.Dataset({name: (("n", "member"), np.zeros((0, run.n_members))) for name in keep})
    memory = xr.DataArray([stage.n[0] for stage in chosen], dims="n", name="n")
    return xr.concat(rows, memory).assign_coords(member=run.member_index)


def ask_network_timescales(
    ask: Any, label: str, run: Run, scale: Mapping[str, Any], keep: Iterable[str] = NETWORK, **options: Any
) -> xr.Dataset:
    """Timescales of the activity (``autocorrelation_timescales``) over (n, …) at the N that were solved.

    Sequences, their length and which stages are a scale's; ``options`` are further ones of the analysis.
    """
    return ask(
        label,
        at_stages,
        run,
        analysis="autocorrelation_timescales",
        options={"n_steps": scale["n_steps"], "n_trials": scale["n_trials"], **options},
        keep=list(keep),
        every=scale["every"],
    )


def tau_rows(answer: xr.Dataset, *names: str) -> np.ndarray:
    """``[moment, (N, member, value, …)]`` of what :func:`tau_by_n` gave; no rows where nobody was left to be asked."""
    columns = ("n", "who", *names)
    if not answer.data_vars:
        return np.zeros((0, len(columns)))
    return np.stack([answer[column].values for column in columns], axis=1).astype(float)


def answered(answer: xr.Dataset, *names: str) -> xr.Dataset:
    """An answer about members, with ``names`` (member) of nobody where nobody was left to be asked."""
    return answer.assign({name: ("member", np.zeros(0, int)) for name in names if name not in answer})


def left_out(answers: Mapping[str, xr.Dataset], suffix: str = "") -> list[str]:
    """Notes on members that diverged, from the attribute ``members`` of the answers whose names end with ``suffix``."""
    notes = []
    for label, answer in answers.items():
        if not label.endswith(suffix) or "members" not in answer.attrs:
            continue
        trained = answer.attrs["members"]
        if gone := trained - answer.sizes["member"]:
            notes.append(f"{label.removesuffix(suffix)}: {gone} of {trained} members diverged and are left out")
    return notes


# --- statistics of values over N -----------------------------------------------------------------------------------


def rows_of(answer: xr.Dataset, name: str, low: float = 0, high: float = np.inf) -> np.ndarray:
    """``[moment, (N, member, value)]`` of a variable over (n, member), without blanks, for low <= N <= high.

    No rows where nobody was left to be asked.
    """
    if name not in answer:
        return np.zeros((0, 3))
    values = answer[name].transpose("n", "member").values
    n, who = np.meshgrid(answer["n"].values, answer["member"].values, indexing="ij")
    there = np.isfinite(values) & (n >= low) & (n <= high)
    return np.stack([n[there], who[there], values[there]], axis=1).astype(float)


def correlation(rows: np.ndarray) -> float:
    """Spearman's, of N and value; NaN for fewer than three N."""
    if len(np.unique(rows[:, 0])) < 3 or np.ptp(rows[:, -1]) == 0:
        return float("nan")
    return float(spearmanr(rows[:, 0], rows[:, -1]).statistic)


def slope_of(rows: np.ndarray) -> float:
    """Of the line through all moments; 0 where there is but one N."""
    n = rows[:, 0] - rows[:, 0].mean()  # plain sums: intervals ask thousands of times
    return float(n @ rows[:, -1] / (n @ n)) if n.any() else 0.0


def interval_of(rows: np.ndarray, statistic: Any = slope_of) -> list[float]:
    """95 % interval of a statistic of rows (N, member, …), resampling members with all their moments."""
    by_member = [rows[rows[:, 1] == m] for m in np.unique(rows[:, 1])]
    chosen = lambda places: np.concatenate([by_member[int(p)] for p in places])
    return bootstrap(lambda places: statistic(chosen(places)), np.arange(len(by_member)))


def brackets(interval: Iterable[float]) -> str:
    """For people."""
    low, high = interval
    return f"[{low:.3g}, {high:.3g}]"


def hyphened(curriculum: str) -> str:
    """``single-head`` for ``single_head``, for people."""
    return curriculum.replace("_", "-")


def spread(values: np.ndarray) -> str:
    """``N = 7`` or ``N = 6 to 8``."""
    values = np.asarray(values, int)
    if not len(values):
        return "nobody left"
    return f"N = {values.min()}" if values.min() == values.max() else f"N = {values.min()} to {values.max()}"


# --- after training without a curriculum ----------------------------------------------------------------------------


def ask_after_scratch(ask: Any, label: str, run: Run, scale: Mapping[str, Any]) -> xr.Dataset:
    """What became of a population of :func:`from_scratch`, blank for members that diverged.

    ``n``: the one N of every member; ``accuracy``: at the end, on fresh trials; ``epochs``: until the threshold was
    exceeded in training, NaN where it was not (member). Attributes: ``epochs``, ``steps_per_epoch`` and ``batch``.
    """
    task: Any = run.task
    training = run.setup.training
    found = answered(ask(label, after_scratch, run, n_trials=scale["rescore_trials"]), "accuracy", "epochs")
    return (
        found.reindex(member=run.member_index)
        .assign(n=("member", task.n_min + run.varied["training.curriculum.head"]))
        .assign_attrs(epochs=training.epochs, steps_per_epoch=training.steps_per_epoch, batch=training.batch)
    )


def after_scratch(run: Run, *, n_trials: PositiveInt = 12800) -> xr.Dataset:
    """``accuracy`` at the end and ``epochs`` needed of every member (member), see :func:`ask_after_scratch`."""
    head, rows = run.varied["training.curriculum.head"], np.arange(run.n_members)
    accuracy = evaluate(run, n_trials=n_trials)["accuracy"][rows, 0, head].astype(float)
    passed = run.history["passed"]
    epochs = np.where(passed.any(axis=0), passed.argmax(axis=0) + 1.0, np.nan)
    return xr.Dataset({"accuracy": ("member", accuracy), "epochs": ("member", epochs)}, {"member": run.member_index})


def by_trained_n(found: xr.Dataset, name: str, blank: float = np.nan) -> dict[int, np.ndarray]:
    """A variable of :func:`ask_after_scratch` by the N that members were trained on; ``blank`` takes NaN's place.

    Members that diverged answer by chance: ``blank = 0.5`` for their accuracy.

    >>> found = xr.Dataset({"n": ("member", [2, 5, 2]), "accuracy": ("member", [0.9, np.nan, 0.7])})
    >>> {n: values.tolist() for n, values in by_trained_n(found, "accuracy", blank=0.5).items()}
    {2: [0.9, 0.7], 5: [0.5]}
    """
    n, values = found["n"].values, found[name].fillna(blank).values
    return {int(k): values[n == k] for k in np.unique(n)}
