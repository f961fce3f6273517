"""What the recipes of Huang, Singh & Rajan (2024) share: populations, what is asked of them, trends over conditions."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.stats import rankdata

from poprnn.analysis.embedding import scaled_points
from poprnn.cells.vanilla_rnn import VanillaRNN
from poprnn.recipes.contract import bootstrap
from poprnn.tasks.contract import Task
from poprnn.tasks.delayed_discrimination import DelayedDiscrimination
from poprnn.tasks.flip_flop import FlipFlop
from poprnn.tasks.path_integration import PathIntegration
from poprnn.tasks.sine_wave import SineWave
from poprnn.training.monitors.solved import Solved
from poprnn.training.optimizers.adam import Adam
from poprnn.training.penalties.contract import Penalty
from poprnn.training.run import Run
from poprnn.training.schedules.cosine_restarts import CosineRestarts
from poprnn.training.schedules.reduce_on_plateau import ReduceOnPlateau
from poprnn.training.settings import Population, Setup, Training

# --- populations ---------------------------------------------------------------------------------------------------


class How(NamedTuple):
    """How the paper trains on a task, and looks at its dynamics (appendix A and B)."""

    n_units: int
    learning_rate: float
    epochs: int
    batch: int
    n_delays: int
    rank: int


HOW = {
    "flip_flop": How(64, 1e-3, 300, 256, 30, 1000),
    "delayed_discrimination": How(128, 1e-3, 500, 256, 20, 100),
    "sine_wave": How(128, 5e-4, 500, 32, 30, 100),
    "path_integration": How(64, 1e-3, 1000, 64, 30, 100),
}
RESTARTS = 50
"""Epochs between warm restarts of delayed discrimination's learning rate (our choice: the paper gives none)."""


ARENA: dict[str, Any] = {"side": 5.0, "max_speed": 0.125}
"""Of path integration (our choice): so large that a network which always answers where it began (a loss of 0.99 in 2D,
0.71 in 3D) is far from the losses at which the paper stops; in the task's default arena it would pass."""


CLIP_NORM = 1.0
"""Of path integration's gradient (our choice, the paper names none): without it steps in the first epochs throw most
networks on a plateau at the trivial loss, which none of ten had left after 300 epochs; with it they learn at once."""


class Condition(NamedTuple):
    """A population: what is varied in a family of them, and how much."""

    family: str
    level: str
    """In words."""
    task: Task


def _of(name: str, entry: str, words: str) -> Callable[[Any], tuple[str, dict[str, Any]]]:
    return lambda value: (words.format(value), {entry: value})


FAMILIES: dict[str, tuple[type[Task], Callable[[Any], tuple[str, dict[str, Any]]]]] = {
    "flip_flop": (FlipFlop, _of("flip_flop", "n_channels", "N = {}")),
    "delayed_discrimination": (DelayedDiscrimination, _of("delayed_discrimination", "n_channels", "N = {}")),
    "sine_wave": (SineWave, _of("sine_wave", "n_channels", "N = {}")),
    "sine_wave_frequencies": (SineWave, _of("sine_wave", "n_frequencies", "{} frequencies")),
    "path_integration": (
        PathIntegration,
        lambda value: (f"{value[0]}D, {value[1]} agents", {"n_dimensions": value[0], "n_channels": value[1], **ARENA}),
    ),
}
"""By the entry of a scale that lists levels in order of complexity: the task, and a level in words and as options."""


def conditions(scale: Mapping[str, Any], families: Iterable[str] = tuple(FAMILIES)) -> dict[str, Condition]:
    """All levels of all families of a scale: ``{"flip_flop-1": …}``, the first level being the least complex."""
    out = {}
    for family in families:
        task, options_of = FAMILIES[family]
        for place, value in enumerate(scale[family]):
            words, options = options_of(value)
            out[f"{family}-{place + 1}"] = Condition(family, words, task(**options))
    return out


def stop_loss(task: Task) -> float:
    """The test loss at which the paper stops training."""
    if isinstance(task, PathIntegration):
        return 0.1 if task.n_dimensions == 2 else 0.3
    return 5e-4 if isinstance(task, FlipFlop) else 0.05


def setup(
    scale: Mapping[str, Any], task: Task, *, n_units: int | None = None, penalties: tuple[Penalty, ...] = ()
) -> Setup:
    """One population, trained as the paper trains on this task, ``epochs`` of a scale at most.

    h(t) = tanh(W h(t-1) + W_in x(t) + b), Adam, squared error at every step, until the test loss has stayed under
    :func:`stop_loss` (times a scale's ``loss_factor``) for three evaluations, 128 steps apart in the paper. The rate
    is annealed with warm restarts (delayed discrimination) or halved where the loss has not fallen for 40
    evaluations (path integration).
    """
    how = HOW[task.name()]
    rate: Any = how.learning_rate
    epoch = scale["steps_per_epoch"]
    if isinstance(task, DelayedDiscrimination):
        rate = CosineRestarts(peak=rate, period=RESTARTS * epoch, every=epoch)
    if isinstance(task, PathIntegration):
        rate = ReduceOnPlateau(start=rate, factor=0.5, patience=40)
    return Setup(
        population=Population(members=scale["members"]),
        task=task,
        cell=VanillaRNN(n_units=n_units or how.n_units, activation="tanh"),
        training=Training(
            batch=min(how.batch, scale["batch"]),
            epochs=min(how.epochs, scale["epochs"]),
            steps_per_epoch=epoch,
            evaluation_batches=scale["evaluation_batches"],
            optimizer=Adam(learning_rate=rate, clip_norm=CLIP_NORM if isinstance(task, PathIntegration) else None),
            monitors=(Solved(loss=scale["loss_factor"] * stop_loss(task), patience=3),),
            penalties=penalties,
            snapshots="none",
        ),
    )


# --- questions -----------------------------------------------------------------------------------------------------


def solved_members(run: Run) -> np.ndarray:
    """Places of the members that reached the loss at which training stops."""
    return np.flatnonzero([word == "solved" for word in run.outcome])


RELABELLINGS = ("identity", "independent", "conjugate")


def ask_all(ask: Any, label: str, run: Run, scale: Mapping[str, Any]) -> xr.Dataset:
    """Every measure of the paper, of the members that reached the loss at which training stops.

    Returns:
        What :func:`between_members` does; of members also ``error_out``; of the task ``input_entropy`` and
        ``output_entropy`` in bits. Attributes: ``members`` and ``solved``. Without variables where fewer than three
        members got there.
    """
    solved = solved_members(run)
    counts = {"members": run.n_members, "solved": len(solved)}
    if len(solved) < 3:
        return xr.Dataset(attrs=counts)
    run, how = run.select(solved), HOW[run.task.name()]
    look = {
        "n_delays": min(how.n_delays, scale["n_delays"]),
        "rank": min(how.rank, scale["rank"]),
        "n_trials": scale["n_trials"],
    }
    found = between_members(ask, label, run, look, scale["n_restarts"])
    error = ask(label, "generalisation_spread", run)["error"].sel(distribution="out")
    entropy = ask(label, "task_complexity", run)
    return found.assign(
        error_out=("member", error.values),
        input_entropy=float(entropy["input_entropy"]),
        output_entropy=float(entropy["target_entropy"]),
    ).assign_attrs(counts)


def between_members(ask: Any, label: str, run: Run, look: Mapping[str, Any], n_restarts: int) -> xr.Dataset:
    """How far apart the members of a population are, and how far each has come.

    Args:
        ask: puts a question and keeps the answer.
        label: of the population.
        run: its members that count.
        look: options of DSA.
        n_restarts: of the search for relabellings.

    Returns:
        Between members (member, other): ``dynamics`` (DSA) and the weights' ``identity``, ``independent`` (the paper's)
        and ``conjugate`` distances. Of members: ``start``, ``dimensions``, ``attractorness``, and ``embedding``
        (member, dimension) of the dynamics, with its ``spread``.
    """
    dynamics = ask(label, "dynamical_similarity", run, **look)
    weights = ask(label, "weight_distance", run, n_restarts=n_restarts)
    first, second = (np.searchsorted(run.member_index, weights[name].values) for name in ("member_1", "member_2"))
    by_pair = {name: _square(weights["distance"].sel(relabelling=name).values, first, second) for name in RELABELLINGS}
    points = scaled_points(dynamics["distance"].values)
    between = {name: (("member", "other"), values) for name, values in by_pair.items()}
    found = {
        "dynamics": (("member", "other"), dynamics["distance"].values),
        **between,
        "start": ("member", ask(label, "distance_from_start", run)["distance"].values),
        "dimensions": ("member", ask(label, "dimensionality", run, variance=0.95)["n_components"].values),
        "attractorness": ("member", ask(label, "attractorness", run)["attractorness"].values),
        "embedding": (("member", "dimension"), points["point"].values),
        "spread": float(points["spread"]),
    }
    return xr.Dataset(found, {"member": run.member_index})


def _square(values: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distances of pairs as a matrix."""
    n = int(second.max()) + 1
    out = np.zeros((n, n))
    out[first, second] = out[second, first] = values
    return out


def principal_coordinates(points: np.ndarray, n: int) -> tuple[np.ndarray, float]:
    """Coordinates of points, ``[point, n]``, along their first n principal components, and the variance these hold."""
    centred = points - points.mean(axis=0)
    _, size, directions = np.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:n].T, float(np.sum(size[:n] ** 2) / np.sum(size**2))


# --- statistics over members ---------------------------------------------------------------------------------------

Statistic = Callable[[xr.Dataset, np.ndarray], Any]
"""Of a condition's members at some places, ``[..., place]``, which may repeat (resamples): a number for each row."""


def mean_of(name: str) -> Statistic:
    """Mean over members, or over pairs of different members."""

    def mean(answer: xr.Dataset, places: np.ndarray) -> np.ndarray:
        values = answer[name].values
        if values.ndim == 1:
            return values[places].mean(axis=-1)
        different = places[..., :, None] != places[..., None, :]
        pairs = values[places[..., :, None], places[..., None, :]]
        n_pairs = different.sum(axis=(-2, -1))
        # a resample of one member only: its distance to all others stands for it
        alone = values[places[..., 0]].sum(axis=-1) / (len(values) - 1)
        sums = np.where(different, pairs, 0).sum(axis=(-2, -1))
        return np.where(n_pairs > 0, sums / np.maximum(n_pairs, 1), alone)

    return mean


def variation_of(name: str) -> Statistic:
    """Standard deviation over mean, over members."""

    def variation(answer: xr.Dataset, places: np.ndarray) -> np.ndarray:
        values = answer[name].values[places]
        return values.std(axis=-1) / values.mean(axis=-1)

    return variation


def value(answer: xr.Dataset, statistic: Statistic) -> float:
    """Of all members."""
    return float(statistic(answer, np.arange(answer.sizes["member"])))


def correlation(
    answers: list[xr.Dataset], x: Statistic | Iterable[float], y: Statistic, given: Statistic | None = None
) -> tuple[float, list[float]]:
    """Spearman's correlation over conditions, and its 95 % interval by bootstrap over the members of each.

    Args:
        answers: a condition each.
        x, y: what is compared: statistics of members, or for x fixed numbers (levels).
        given: what is taken out of both before (partial correlation of ranks).
    """
    fixed = np.zeros(0) if callable(x) else np.asarray(list(x), float)

    def of(*places: np.ndarray, axis: int = -1) -> np.ndarray:
        chosen = [np.moveaxis(np.asarray(p, int), axis, -1) for p in places]
        rows = np.broadcast_shapes(*(p.shape[:-1] for p in chosen))

        def read(s: Statistic) -> np.ndarray:
            return np.stack([np.broadcast_to(s(a, p), rows) for a, p in zip(answers, chosen, strict=True)], axis=-1)

        first = read(x) if callable(x) else np.broadcast_to(fixed, (*rows, len(fixed)))
        return spearman(first, read(y)) if given is None else _partial(first, read(y), read(given))

    samples = [np.arange(a.sizes["member"]) for a in answers]
    return float(of(*samples)), bootstrap(of, *samples, vectorized=True)


def spearman(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> np.ndarray:
    """Spearman's correlation along the last axis; 0 where either does not vary, or of fewer than three."""
    # scipy's spearmanr of many rows is a loop over them
    first, second = (rankdata(v, axis=-1) - (np.shape(v)[-1] + 1) / 2 for v in (x, y))
    size = np.sqrt(np.sum(first**2, axis=-1) * np.sum(second**2, axis=-1))
    found = np.sum(first * second, axis=-1) / np.where(size > 0, size, 1)
    return np.where((size > 0) & (np.shape(x)[-1] > 2), found, 0.0)


def _partial(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Spearman's partial correlation: of the residuals of ranks."""
    r_xy, r_xz, r_yz = spearman(x, y), spearman(x, given), spearman(y, given)
    rest = np.sqrt((1 - r_xz**2) * (1 - r_yz**2))
    return np.where(rest > 0, (r_xy - r_xz * r_yz) / np.where(rest > 0, rest, 1), 0.0)


def of_members(values: xr.DataArray) -> np.ndarray:
    """A value of each member: its own, or its mean distance to the others."""
    return values.values if values.ndim == 1 else values.values.sum(axis=1) / (len(values) - 1)


def families_of(answers: Mapping[str, xr.Dataset]) -> dict[str, list[xr.Dataset]]:
    """The conditions of each family in order of complexity."""
    out: dict[str, list[xr.Dataset]] = {}
    for answer in answers.values():
        out.setdefault(answer.attrs["family"], []).append(answer)
    return out


def trend(answers: list[xr.Dataset], statistic: Statistic) -> tuple[float, list[float]]:
    """Spearman's correlation with the level of complexity over a family's conditions, and its interval."""
    return correlation(answers, range(len(answers)), statistic)


def change(
    before: xr.Dataset, after: xr.Dataset, statistic: Statistic, *, confidence: float = 0.95
) -> tuple[float, list[float]]:
    """Of a statistic from one condition to another, as a share of the first, and its interval."""

    def of(*places: np.ndarray, axis: int = -1) -> np.ndarray:
        at = [np.moveaxis(np.asarray(p, int), axis, -1) for p in places]
        start, end = np.asarray(statistic(before, at[0]), float), statistic(after, at[1])
        return np.where(start != 0, end / np.where(start != 0, start, 1) - 1, np.nan)

    samples = [np.arange(a.sizes["member"]) for a in (before, after)]
    return float(of(*samples)), bootstrap(of, *samples, confidence=confidence, vectorized=True)


def beyond(interval: list[float], sign: int) -> bool:
    """Whether an interval lies on one side of 0."""
    return bool(interval[0] > 0 if sign > 0 else interval[1] < 0)


def notes_on(answers: Mapping[str, xr.Dataset]) -> tuple[list[str], bool]:
    """Who did not reach the loss, and whether every condition has the three members that measures need."""
    notes = [
        f"{label}: {a.attrs['solved']} of {a.attrs['members']} members reached the loss"
        for label, a in answers.items()
        if a.attrs["solved"] < a.attrs["members"]
    ]
    return notes, all(a.data_vars for a in answers.values())
