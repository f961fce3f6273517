"""Carrying out a recipe: train (or find) its populations, measure them, judge its claims, draw its figures.

A recipe module defines four functions:

* ``experiments(scale) -> {label: Setup}``: the populations to train, from one scale's entries in the TOML;
* ``answers(runs, scale, ask) -> {name: Dataset}``: what is measured; ``ask`` puts a question and keeps the answer;
* ``judge(answers, about) -> [Claim]``: verdicts by the rules in the TOML, from the answers alone;
* ``draw(runs, answers) -> {name: figures}``: figures in the paper's arrangement (made by ``poprnn.report``).

A second call goes on where the first one stopped: trained populations are found by what was asked for
(:mod:`poprnn.recipes._populations`), answers in the recipe's own folder.
"""

import dataclasses
import json
import shlex
import subprocess
import time
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from poprnn.analysis.contract import check_options, load_result, measure
from poprnn.core import backend, catalogue, recipe_files, storage
from poprnn.core.errors import ConfigurationError, StorageError, nearest
from poprnn.experiment import override
from poprnn.recipes._populations import Populations
from poprnn.training.flops import step_flops
from poprnn.training.run import Run

if typing.TYPE_CHECKING:
    import xarray as xr


@dataclasses.dataclass(frozen=True)
class Claim:
    """A verdict."""

    id: str
    claim: str
    paper: Any
    """The paper's value."""
    measured: Any
    interval: list[float] | None
    """Of what decides, where there is one."""
    n: int
    """Number of members that decided."""
    passed: bool | None
    """``None``: could not be judged; the note says why."""
    note: str = ""


def name_of(module: Any) -> str:
    """A recipe's name."""
    return module.__name__.rsplit(".", 1)[-1]


def verdicts(folders: Iterable[str | Path]) -> list[dict[str, Any]]:
    """The claims of some recipe folders in one list, each with its recipe, scale and minutes of training and measuring.

    Minutes count shared populations in every recipe that uses them. Raises ``StorageError`` for a folder without.
    """
    rows = []
    for folder in map(Path, folders):
        about = storage.load_json(folder / "recipe.json")
        minutes = {kind: sum(s for s in about[f"{kind}_seconds"].values() if s) / 60 for kind in ("training", "answer")}
        what = {"recipe": about["recipe"], "scale": about["scale"], "folder": str(folder)}
        what |= {"training_minutes": minutes["training"], "measuring_minutes": minutes["answer"]}
        rows += [{**claim, **what} for claim in storage.load_json(folder / "claims.json")]
    return rows


def scale_of(name: str, scale: str, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """One scale's entries, those named in ``overrides`` (``"members=4"``, ``'tasks=["n_dms"]'``) changed.

    Raises ``ConfigurationError`` for an unknown scale, and for an override that is no entry of it or of another kind.

    >>> scale_of("curriculum_timescales", "smoke", ["none_n=[2, 4]"])["none_n"]
    [2, 4]
    """
    scales = recipe_files.read(name)["scales"]
    if scale not in scales:
        raise ConfigurationError(f"recipe '{name}' has no scale '{scale}'{nearest(scale, scales)}")
    entries = scales[scale]
    for text in overrides:
        changed: dict[str, Any] = {}
        override(changed, text)
        ((entry, value),) = changed.items()
        if entry not in entries or entry in _ABOUT_SCALES:
            known = [known for known in entries if known not in _ABOUT_SCALES]
            raise ConfigurationError(f"--set {entry}: no entry of scale '{scale}' of '{name}'{nearest(entry, known)}")
        if _kind(value) is not _kind(entries[entry]):
            raise ConfigurationError(f"--set {text}: must be like {entry} = {json.dumps(entries[entry])}")
        entries[entry] = value
    return entries


_ABOUT_SCALES = ("minutes", "minutes_from", "like")


def _kind(value: Any) -> type:
    """What an override must share with what it takes the place of: a whole number may stand for any number."""
    return float if type(value) in (int, float) else type(value)


def reproduce(
    module: Any,
    scale: str,
    out: str | Path,
    *,
    overrides: Iterable[str] = (),
    populations: str | Path | None = None,
    watch: Any = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Carry out a recipe in folder ``out``, with some of its scale's entries changed (:func:`scale_of`).

    Trained networks are kept in the folder ``populations`` (default: of that name, beside ``out``), where every recipe
    that needs the same ones finds them. Returns the claims and the path of the report; both are also in the folder
    (``claims.json``, ``report.html``), with the answers (``answers/``), where each population is
    (``populations.json``), and what it took (``recipe.json``: seconds of training and of each answer, and the machine).
    """
    from poprnn.report.page import recipe_report

    name, out, overrides = name_of(module), Path(out), list(overrides)
    store = Populations(out.parent / "populations" if populations is None else populations)
    about, chosen = recipe_files.read(name), scale_of(name, scale, overrides)
    setups = module.experiments(chosen)
    _remember(out, {label: store.key(setup) for label, setup in setups.items()})
    runs = {}
    for label, setup in setups.items():
        say(label)
        runs[label] = store.train_or_find(setup, watch)
    ask = Questions(out / "answers", say)
    found = module.answers(runs, chosen, ask)
    say("judging")
    claims = [dataclasses.asdict(c) | {"commit": _commit(name)} for c in module.judge(found, about)]
    storage.save_json(out / "claims.json", claims)
    training = {label: run.manifest.get("seconds") for label, run in runs.items()}
    about_run = {"recipe": name, "scale": scale, "training_seconds": training, "answer_seconds": ask.seconds()}
    about_run |= {"overrides": overrides, "machine": backend.describe()}
    storage.save_json(out / "recipe.json", about_run)
    shown = " ".join([scale, *(f"--set {shlex.quote(text)}" for text in overrides)])
    page = recipe_report(about, shown, runs, claims, module.draw(runs, found), out / "report.html", name=name)
    return {"recipe": name, "scale": scale, "claims": claims, "report": str(page)}


def _remember(out: Path, keys: dict[str, str]) -> None:
    """Which populations this folder is about; a folder about others is not overwritten."""
    path = out / "populations.json"
    if path.exists() and storage.load_json(path) != keys:
        raise ConfigurationError(f"{out} holds another experiment; choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        storage.save_json(path, keys)
    except OSError as error:
        raise StorageError(f"cannot write to {out}: {error.strerror or error}") from None


class Questions:
    """``ask(label, analysis, run, **options)``: an answer, from the folder if it was given there before."""

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda text: None) -> None:
        self.folder, self.say = folder, say

    def __call__(self, label: str, analysis: str | Callable[..., Any], run: Run, /, **options: Any) -> "xr.Dataset":
        """Of all members that have not diverged; an analysis is a catalogue name or a function like one.

        Where all have diverged, nothing is computed or kept: the answer has no variables and no member, and says in
        its attribute ``members`` how many there had been.

        Args:
            label: names the place of the answer, so one label has one answer to a question.
            analysis: the question.
            run: whom to ask.
            options: of the analysis.
        """
        function = catalogue.find("analyses", analysis) if isinstance(analysis, str) else analysis
        path = self.folder / label / f"{function.__name__}.json"
        wanted = storage.to_json(check_options(function, options))
        if path.exists() and storage.to_json((kept := load_result(path)).options) == wanted:
            return kept.data
        if all(word == "diverged" for word in run.outcome):
            import xarray as xr

            return xr.Dataset(coords={"member": np.zeros(0, int)}, attrs={"members": run.n_members})
        self.say(f"{function.__name__.replace('_', ' ')}: {label}")
        began = time.perf_counter()
        answer = measure(function, run, members="all", **options)
        answer.save(path.parent)
        took = self.seconds() | {f"{label}/{function.__name__}": time.perf_counter() - began}
        storage.save_json(self.folder / "seconds.json", took)
        return answer.data

    def seconds(self) -> dict[str, float]:
        """How long each answer took when it was given."""
        path = self.folder / "seconds.json"
        return storage.load_json(path) if path.exists() else {}


def estimate(module: Any, scale: str, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Work and time of a recipe: minutes as measured on two cores, operations at most (every trial at full length).

    Minutes are the whole scale's; members and operations follow what ``overrides`` change.
    """
    name = name_of(module)
    chosen = scale_of(name, scale, overrides)
    operations, members = 0.0, 0
    for setup in module.experiments(chosen).values():
        training = setup.training
        steps = training.epochs * training.steps_per_epoch * training.batch * setup.task.capacity
        operations += 3.0 * step_flops(setup) * steps * setup.population.members
        members += setup.population.members
    return {
        "recipe": name,
        "scale": scale,
        "minutes on two cores": chosen["minutes"],
        "members": members,
        "operations at most": f"{operations:.2g}",
        "how the minutes came": chosen.get("minutes_from", "measured"),
    }


def _commit(name: str) -> str | None:
    """The commit that set the recipe's thresholds, where the package stands in a git checkout."""
    path = catalogue.folder("recipes") / f"{name}.toml"
    try:
        found = subprocess.run(
            ["git", "log", "-1", "--format=%H", "--", path.name],
            cwd=path.parent,
            check=False,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


N_RESAMPLES = 2000
"""Of a bootstrapped interval."""


def bootstrap(
    statistic: Callable[..., Any],
    *samples: np.ndarray,
    confidence: float = 0.95,
    seed: int = 0,
    vectorized: bool = False,
) -> list[float]:
    """Percentile interval of a statistic of one or several samples, from :data:`N_RESAMPLES` resamples.

    Args:
        statistic: of as many arrays as there are samples.
        samples: a value (or place) for each member of a population. Members are resampled within each; NaN for both
            ends where a sample has fewer than two.
        confidence: of the interval, 95 % by default.
        seed: of the resamples.
        vectorized: whether the statistic takes stacks of samples and ``axis=``, and so all resamples at once.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    >>> low, high = bootstrap(lambda a, b: a.mean() - b.mean(), np.array([3, 4, 4, 5]), np.array([1, 2, 2]))
    >>> low < 4 - 5 / 3 < high
    True
    """
    from scipy.stats import bootstrap as resample

    if min(len(sample) for sample in samples) < 2:
        return [float("nan"), float("nan")]
    found = resample(
        samples,
        statistic,
        vectorized=vectorized,
        n_resamples=N_RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return [float(found.low), float(found.high)]
