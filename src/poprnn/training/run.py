"""What training leaves: a population's weights, snapshots, history and outcomes."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from poprnn.cells.contract import Cell, Parameters
from poprnn.core.arrays import Tree
from poprnn.core.errors import ConfigurationError, nearest
from poprnn.tasks.contract import Task
from poprnn.training.settings import Setup
from poprnn.training.state import Record


class History:
    """Per epoch and member: losses, scores, stages. ``history["loss"]`` is ``[epoch, member]``.

    Entries of members that had already ended are NaN (integers: -1). Scores are ``history["scores/accuracy"]``.
    """

    def __init__(self, arrays: dict[str, np.ndarray] | None = None) -> None:
        self._rows: list[dict[str, np.ndarray]] = []
        if arrays:
            n_epochs = len(next(iter(arrays.values())))
            self._rows = [{k: v[i] for k, v in arrays.items()} for i in range(n_epochs)]

    def append(self, row: dict[str, np.ndarray]) -> None:
        """Add one epoch."""
        self._rows.append(row)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, name: str) -> np.ndarray:
        if not self._rows:
            raise ConfigurationError("the history is empty: no epoch has been finished")
        if name not in self._rows[0]:
            raise ConfigurationError(f"history has no '{name}'{nearest(name, self._rows[0])}")
        return np.stack([row[name] for row in self._rows])

    def names(self) -> list[str]:
        """What was recorded."""
        return sorted(self._rows[0]) if self._rows else []

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, stacked over epochs."""
        return {name: self[name] for name in self.names()}

    def table(self) -> Any:
        """One row for each epoch and member, as a pyarrow table; scores per head in columns of their own."""
        import pyarrow as pa

        arrays = self.arrays()
        if not arrays:
            return pa.table({})
        n_epochs, n_members = arrays["loss"].shape
        columns: dict[str, np.ndarray] = {
            "epoch": np.repeat(np.arange(1, n_epochs + 1), n_members),
            "member": np.tile(np.arange(n_members), n_epochs),
        }
        for name, array in arrays.items():
            flat = array.reshape(n_epochs * n_members, -1)
            if flat.shape[1] == 1 and array.ndim == 2:
                columns[name] = flat[:, 0]
            else:
                columns |= {f"{name}/{i}": flat[:, i] for i in range(flat.shape[1])}
        return pa.table(columns)


@dataclasses.dataclass
class Snapshot:
    """Weights of the members that reached a moment (a stage passed, an epoch)."""

    reached: np.ndarray
    """``[member]``: who did."""
    epoch: np.ndarray
    """``[member]``: when (epochs finished); -1 where not reached."""
    parameters: Parameters
    """Stacked; rows of members that have not reached it are zero."""

    @staticmethod
    def of(parameters: Parameters, reached: np.ndarray, epoch: int, before: "Snapshot | None" = None) -> "Snapshot":
        """The members in ``reached`` as they are now, beside those that were there ``before``."""

        def rows(new: np.ndarray, old: np.ndarray) -> np.ndarray:
            return np.where(reached.reshape(-1, *[1] * (new.ndim - 1)), new, old).astype(new.dtype)

        if before is None:
            before = Snapshot(
                np.zeros_like(reached), np.full(reached.shape, -1, np.int32), jax.tree.map(np.zeros_like, parameters)
            )
        return Snapshot(
            before.reached | reached,
            np.where(reached, epoch, before.epoch).astype(np.int32),
            jax.tree.map(rows, parameters, before.parameters),
        )


def history_row(record: Record, active: np.ndarray, recorded: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
    """An evaluation's record, and what monitors ``recorded``, as a row of the history; ended members are blank."""
    flat = {k: v for k, v in record._asdict().items() if k != "scores"}
    flat |= {f"scores/{k}": v for k, v in record.scores.items()} | (recorded or {})

    def blank(a: np.ndarray) -> np.ndarray:
        shaped = active.reshape(-1, *[1] * (a.ndim - 1))
        if np.issubdtype(a.dtype, np.floating):
            return np.where(shaped, a, np.nan).astype(a.dtype)
        return a & shaped if a.dtype == bool else np.where(shaped, a, -1).astype(a.dtype)

    return {name: blank(np.asarray(a)) for name, a in flat.items()}


class Member:
    """One member of a run: its arrays as attributes (``member.W``), its outcome, its own hyperparameters."""

    def __init__(self, run: "Run", index: int) -> None:
        self._run, self.index = run, index

    @property
    def outcome(self) -> str:
        """How it ended."""
        return self._run.outcome[self.index]

    @property
    def varied(self) -> dict[str, float | int]:
        """Hyperparameters in which it differs from others."""
        return self._run.setup.population.values(int(self._run.member_index[self.index]))

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All its arrays by name."""
        p = self._run.parameters
        return {
            name: array[self.index]
            for name, array in {**p.fixed, **p.trainable}.items()
            if isinstance(array, np.ndarray)
        }

    def __getattr__(self, name: str) -> np.ndarray:
        if name.startswith("_"):
            raise AttributeError(name)
        arrays = self.arrays
        if name not in arrays:
            raise AttributeError(f"member has no array '{name}'{nearest(name, arrays)}")
        return arrays[name]

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.arrays})

    def __repr__(self) -> str:
        return f"<member {self.index}: {self.outcome}>"


@dataclasses.dataclass
class Run:
    """A trained (or brought-in) population."""

    setup: Setup
    parameters: Parameters
    """Final weights, stacked ``[member, …]``, NumPy."""
    initial: Parameters
    """Weights before training."""
    outcome: list[str]
    """One word per member: ``solved``, ``budget_spent``, ``diverged``, …, ``training`` if interrupted."""
    history: History = dataclasses.field(default_factory=History)
    snapshots: dict[str, Snapshot] = dataclasses.field(default_factory=dict)
    """``stage_003`` (the fourth stage passed), ``epoch_00010`` or ``best``."""
    progress: Tree = None
    """Place in the curriculum, stacked."""
    manifest: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Versions, machine, times, operation count."""
    path: Path | None = None
    """Its folder, if it has one."""
    arrays: Tree = ()
    """The task's shared data."""
    index: np.ndarray | None = None
    """Which members of the population these are, after :meth:`select`; ``None``: all of them."""

    @property
    def task(self) -> Task:
        """The task it was trained on."""
        return self.setup.task

    @property
    def cell(self) -> Cell:
        """Its dynamics."""
        return self.setup.cell

    @property
    def n_members(self) -> int:
        """Number of members."""
        return len(self.member_index)

    @property
    def member_index(self) -> np.ndarray:
        """``[member]``: each member's number in its population, on which its random streams depend."""
        return np.arange(self.setup.population.members) if self.index is None else self.index

    def select(self, members: np.ndarray) -> "Run":
        """The run reduced to some members (places in this run), with their numbers and random streams unchanged."""
        members = np.asarray(members)
        pick = lambda tree: jax.tree.map(lambda a: a[members], tree)
        history = History({k: v[:, members] for k, v in self.history.arrays().items()})
        snapshots = {
            k: Snapshot(s.reached[members], s.epoch[members], pick(s.parameters)) for k, s in self.snapshots.items()
        }
        return dataclasses.replace(
            self,
            parameters=pick(self.parameters),
            initial=pick(self.initial),
            history=history,
            snapshots=snapshots,
            outcome=[self.outcome[int(k)] for k in members],
            index=self.member_index[members],
            progress=None if self.progress is None else pick(self.progress),
        )

    @property
    def seed(self) -> int:
        """Seed of the population."""
        return self.setup.population.seed

    @property
    def members(self) -> list[Member]:
        """One view per member."""
        return [Member(self, k) for k in range(self.n_members)]

    @property
    def solved(self) -> np.ndarray:
        """``[member]``: who solved the task."""
        return np.array([word == "solved" for word in self.outcome])

    @property
    def varied(self) -> dict[str, np.ndarray]:
        """Varied hyperparameters, ``[member]`` each."""
        return {name: values[self.member_index] for name, values in stack_varied(self.setup).items()}

    def on(self, task: Task) -> "Run":
        """The same networks asked another task, of as many inputs, outputs and heads: to be scored, not trained, on it.

        Everything that takes a run (``evaluate``, ``rollout``, analyses) then draws its trials from that task. To go on
        training on another task, see ``fit(start=…)``.

        Raises:
            ConfigurationError: a task of other sizes, or one the run's training could not have been set up with.

        >>> import poprnn as pr
        >>> run = pr.fit(pr.tasks.FlipFlop(n_steps=10), pr.cells.VanillaRNN(n_units=4), epochs=1, steps_per_epoch=1,
        ...              batch=4, evaluation_batches=1)
        >>> twice = run.on(run.task.out_of_distribution())
        >>> pr.rollout(twice, n_trials=2).states.shape
        (1, 2, 20, 4)
        """
        for size in ("n_inputs", "n_outputs", "n_heads"):
            mine, asked = getattr(self.task, size), getattr(task, size)
            if mine != asked:
                raise ConfigurationError(f"task '{task.name()}' has {size} = {asked}, these networks have {mine}")
        return dataclasses.replace(self, setup=self.setup.replace("task", task), arrays=to_numpy(task.arrays()))

    def places(self) -> Tree:
        """Place in the curriculum, stacked; that of a beginner for networks that were brought in."""
        if self.progress is not None:
            return self.progress
        first = self.setup.training.curriculum.init(self.task)
        return jax.tree.map(lambda a: np.stack([np.asarray(a)] * self.n_members), first)

    def stages_passed(self) -> np.ndarray:
        """``[member]``: stages of the curriculum that were passed."""
        if self.progress is None:
            return np.zeros(self.n_members, int)
        return np.asarray(self.progress.index) + np.asarray(self.progress.finished)

    def at(self, snapshot: str) -> "Run":
        """The population as it was at a snapshot; members that did not reach it keep the outcome ``not_reached``."""
        if snapshot not in self.snapshots:
            raise ConfigurationError(f"no snapshot '{snapshot}'{nearest(snapshot, self.snapshots)}")
        s = self.snapshots[snapshot]
        outcome = [word if ok else "not_reached" for word, ok in zip(self.outcome, s.reached, strict=True)]
        return dataclasses.replace(self, parameters=s.parameters, outcome=outcome, snapshots={}, path=None)

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members)

    def __repr__(self) -> str:
        counts = {word: self.outcome.count(word) for word in dict.fromkeys(self.outcome)}
        words = ", ".join(f"{n} {word}" for word, n in counts.items())
        return f"<run of {self.n_members} {self.cell.name()} on {self.task.name()}: {words}>"


def stack_varied(setup: Setup) -> dict[str, np.ndarray]:
    """Varied hyperparameters stacked over members: float32, or int32 where all values are integers."""
    members = range(setup.population.members)
    out = {}
    for name in setup.population.vary:
        values = [setup.population.values(k)[name] for k in members]
        out[name] = np.asarray(values, np.int32 if all(isinstance(v, int) for v in values) else np.float32)
    return out


def to_numpy(tree: Tree) -> Tree:
    """Every array of a tree as NumPy."""
    return jax.tree.map(np.asarray, tree)
