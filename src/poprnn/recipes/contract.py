"""Carrying out a recipe: train (or find) its populations, judge its claims, draw its figures, write its page.

A recipe module defines three functions:

* ``experiments(scale) -> {name: Setup}``: the populations to train, from one scale's entries in the TOML;
* ``judge(runs, about) -> [Claim]``: verdicts by the rules in the TOML;
* ``draw(runs) -> {name: figures}``: figures in the paper's arrangement (made by ``poprnn.report``).
"""

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from poprnn.core import catalogue, recipe_files, storage
from poprnn.core.errors import ConfigurationError, nearest
from poprnn.experiment import load
from poprnn.training.flops import step_flops
from poprnn.training.folder import RunFolder
from poprnn.training.run import Run
from poprnn.training.settings import Setup
from poprnn.training.trainer import Trainer


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


def scale_of(name: str, scale: str) -> dict[str, Any]:
    """One scale's entries."""
    scales = recipe_files.read(name)["scales"]
    if scale not in scales:
        raise ConfigurationError(f"recipe '{name}' has no scale '{scale}'{nearest(scale, scales)}")
    return scales[scale]


def reproduce(
    module: Any, scale: str, out: str | Path, *, watch: Any = None, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Carry out a recipe in folder ``out``; populations that are already there are loaded or resumed, not retrained.

    Returns the claims and the path of the report; both are also in the folder (``claims.json``, ``report.html``).
    """
    from poprnn.report.page import recipe_report

    name, out = name_of(module), Path(out)
    about, chosen = recipe_files.read(name), scale_of(name, scale)
    out.mkdir(parents=True, exist_ok=True)
    runs = {}
    for label, setup in module.experiments(chosen).items():
        say(label)
        runs[label] = train_or_find(setup, out / "runs" / label, watch)
        if "training" in runs[label].outcome:
            raise KeyboardInterrupt
    say("judging")
    claims = [dataclasses.asdict(c) | {"commit": _commit(name)} for c in module.judge(runs, about)]
    storage.save_json(out / "claims.json", claims)
    page = recipe_report(about, scale, runs, claims, module.draw(runs), out / "report.html", name=name)
    return {"recipe": name, "scale": scale, "claims": claims, "report": str(page)}


def train_or_find(setup: Setup, folder: Path, watch: Any = None) -> Run:
    """The finished run in a folder, or the interrupted one carried on, or a new one."""
    stored = RunFolder(folder)
    if stored.experiment.is_file():
        if storage.load_toml(stored.experiment) != setup.to_dict():
            raise ConfigurationError(f"{folder} holds another experiment; choose another --out")
        run = load(folder)
        if "training" not in run.outcome and (folder / "manifest.json").exists():
            return run
        trainer = Trainer(setup, out=folder, resume=True)
    else:
        trainer = Trainer(setup, out=folder)
    with trainer.stop_at_boundary():
        for update in trainer.updates():
            if watch:
                watch(update)
    return trainer.run()


def estimate(module: Any, scale: str) -> dict[str, Any]:
    """Work and time of a recipe: minutes as measured on two cores, operations at most (every trial at full length)."""
    name = name_of(module)
    chosen = scale_of(name, scale)
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


def bootstrap(statistic: Callable[[np.ndarray], float], n_members: int, seed: int = 0) -> list[float]:
    """95 % percentile interval of a statistic of members (given as an array of places), resampling members."""
    from scipy.stats import bootstrap as resample

    if n_members < 2:
        return [float("nan"), float("nan")]
    result = resample(
        (np.arange(n_members),),
        lambda places: statistic(np.asarray(places, int)),
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]
