"""What a file says, turned into a run: reading experiments, training, resuming, loading."""

import contextlib
import dataclasses
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from poprnn.analysis.contract import Result, check_members, check_options, load_result, measure
from poprnn.core import backend, catalogue, storage
from poprnn.core.arrays import Tree
from poprnn.core.blueprint import build
from poprnn.core.errors import ConfigurationError, NotApplicableError, StorageError, nearest
from poprnn.tasks.arrays import Arrays
from poprnn.training.folder import RunFolder
from poprnn.training.program import Program
from poprnn.training.run import History, Run, stack_varied, to_numpy
from poprnn.training.settings import Setup
from poprnn.training.trainer import Trainer, Update

_SECTIONS = ("population", "task", "cell", "training", "analysis")
Watch = Callable[[Update], None]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A setup and the questions to put to the trained population."""

    setup: Setup
    analyses: tuple[dict[str, Any], ...] = ()
    """``{"kind": "connectivity", "members": "solved", …options}`` each."""

    def to_dict(self) -> dict[str, Any]:
        """What ``experiment.toml`` holds."""
        out = self.setup.to_dict()
        return out | {"analysis": [dict(a) for a in self.analyses]} if self.analyses else out


def read(path: str | Path, overrides: Iterable[str] = ()) -> Experiment:
    """An experiment from a TOML file, with ``a.b=value`` overrides.

    Raises ``ConfigurationError`` for a missing or broken file and for any option that cannot be.
    """
    data = storage.load_toml(Path(path))
    for text in overrides:
        override(data, text)
    return from_dict(data)


def from_dict(data: Mapping[str, Any]) -> Experiment:
    """An experiment from plain nested dictionaries, as a TOML file gives them.

    >>> from_dict({"task": {"kind": "n_parity"}, "cell": {"kind": "leaky_rnn", "n_units": 10}}).setup.cell.n_units
    10
    """
    for key in data:
        if key not in _SECTIONS:
            raise ConfigurationError(f"experiment: unknown section '{key}'{nearest(key, _SECTIONS)}")
    for key in ("task", "cell"):
        if key not in data:
            raise ConfigurationError(f"experiment: section [{key}] is missing")
    analyses = data.get("analysis", [])
    if not isinstance(analyses, list):
        raise ConfigurationError("experiment: write analyses as [[analysis]] sections")
    setup = build(Setup, {k: v for k, v in data.items() if k != "analysis"}, "experiment")
    return Experiment(setup, tuple(_request(a, setup.population.members) for a in analyses))


def _request(request: Mapping[str, Any], n_members: int) -> dict[str, Any]:
    """Check name and options now, not after hours of training."""
    if not isinstance(request, Mapping):
        raise ConfigurationError("experiment: write analyses as [[analysis]] sections")
    options = dict(request)
    kind = options.get("kind")
    if kind is None:
        raise ConfigurationError(f"analysis: 'kind' is missing{nearest('', catalogue.names('analyses'))}")
    check_options(catalogue.find("analyses", kind), {k: v for k, v in options.items() if k not in ("kind", "members")})
    check_members(options.get("members", "all"), range(n_members))
    return options


def override(data: dict[str, Any], text: str) -> None:
    """Set ``a.b=value`` in nested dictionaries; values are TOML, a bare word is a string."""
    path, equals, right = text.partition("=")
    if not equals or not path:
        raise ConfigurationError(f"--set {text}: write it as section.option=value")
    try:
        parsed = tomllib.loads(f"value = {right}")
        value = parsed["value"] if len(parsed) == 1 else None
    except tomllib.TOMLDecodeError:
        value = right  # a bare word is a string
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"--set {path}: {error}") from None
    if value is None or "\n" in right:
        raise ConfigurationError(f"--set {path}: one value at a time")
    *sections, last = path.strip().split(".")
    for section in sections:
        inner = data.setdefault(section, {})
        if isinstance(inner, str):  # curriculum = "multi_head" grows options
            inner = data[section] = {"kind": inner}
        if not isinstance(inner, dict):
            raise ConfigurationError(f"--set {text}: '{section}' has no options")
        data = inner
    data[last] = value


def run(
    experiment: Experiment, out: str | Path | None = None, *, watch: Watch | None = None, debug: bool = False
) -> Run:
    """Train, measure, and write all of it to a new folder ``out``. Ctrl-C ends it with a checkpoint."""
    trainer = Trainer(experiment.setup, out=out, debug=debug)
    if trainer.folder:
        storage.save_toml(trainer.folder.experiment, experiment.to_dict())
    return _carry_out(trainer, experiment, watch)


def resume(path: str | Path, *, watch: Watch | None = None, setup: Setup | None = None) -> Run:
    """Go on with an interrupted run from its newest checkpoint; bit for bit what it would have been.

    ``setup`` is needed only for blueprints that no catalogue knows. A damaged checkpoint falls back to the one before,
    with a warning; a machine that differs in what decides the bits warns too.
    """
    folder = RunFolder(path)
    folder.require()
    experiment = _stored(folder, setup)
    trainer = Trainer(experiment.setup, out=path, resume=True, arrays=_kept_arrays(folder))
    return _carry_out(trainer, experiment, watch)


def _carry_out(trainer: Trainer, experiment: Experiment, watch: Watch | None) -> Run:
    with trainer.stop_at_boundary():
        for update in trainer.updates():
            if watch:
                watch(update)
    result = trainer.run()
    if trainer.folder and not trainer.interrupted:
        for request in experiment.analyses:
            # a question no member can answer is not an error of the run
            with contextlib.suppress(NotApplicableError):
                ask(result, request).save(trainer.folder.path / "results")
    return result


def ask(run: Run, request: Mapping[str, Any]) -> Result:
    """One ``[[analysis]]`` section put to a run."""
    options = dict(request)
    return measure(options.pop("kind"), run, **options)


def load(path: str | Path, *, setup: Setup | None = None) -> Run:
    """Open a run folder. ``setup`` is needed only for blueprints that no catalogue knows.

    Raises ``StorageError`` if the folder is no run, or a weights file is damaged or of another shape.
    """
    folder = RunFolder(path)
    folder.require()
    setup = _stored(folder, setup).setup
    with backend.precision(32):
        program, n = Program(setup), setup.population.members
        one = jax.eval_shape(program.start, 0, {k: np.asarray(v[0]) for k, v in stack_varied(setup).items()}, 0)
    like = jax.tree.map(lambda s: np.zeros((n, *s.shape), s.dtype), one)
    initial = folder.load_weights("initial", like.parameters)
    try:
        state, history, _, _ = folder.load_checkpoint(like)
        words = ("training", *program.outcomes)
        outcome, progress = [words[int(i)] for i in state.outcome], state.progress
    except StorageError:
        history, outcome, progress, state = History(), ["training"] * n, like.progress, None
    if (folder.path / "weights.safetensors").exists():
        parameters = folder.load_weights("weights", like.parameters)
    elif state is not None:
        parameters = state.parameters
    else:
        raise StorageError(f"{folder.path} has neither weights nor a readable checkpoint")
    manifest = folder.load_manifest() if (folder.path / "manifest.json").exists() else {}
    arrays = _kept_arrays(folder)
    return Run(
        setup,
        parameters,
        initial,
        outcome,
        history,
        folder.load_snapshots(like.parameters),
        to_numpy(progress),
        manifest,
        folder.path,
        to_numpy(setup.task.arrays()) if arrays is None else arrays,
    )


def results(path: str | Path) -> list[Result]:
    """All results kept in a run folder."""
    return [load_result(p) for p in sorted((Path(path) / "results").glob("*.json"))]


def references(path: str | Path) -> list[str]:
    """Keys of the papers behind what a run used."""
    run_ = load(path)
    setup, training = run_.setup, run_.setup.training
    parts = (setup.task, setup.cell, training.curriculum, training.method, training.optimizer, *training.penalties)
    return list(dict.fromkeys(["poprnn", *(key for part in parts for key in type(part).cites)]))


def _stored(folder: RunFolder, setup: Setup | None) -> Experiment:
    _kept_arrays(folder)  # an arrays task finds its data by digest while it is being built
    data = storage.load_toml(folder.experiment)
    if setup is not None:
        return Experiment(setup, tuple(_request(a, setup.population.members) for a in data.get("analysis", [])))
    return from_dict(data)


def _kept_arrays(folder: RunFolder) -> Tree:
    path = folder.path / "data.safetensors"
    if not path.exists():
        return None
    arrays = storage.load_arrays(path)
    Arrays.remember(arrays)
    return arrays
