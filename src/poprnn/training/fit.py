"""The loop on the host: dispatch steps, evaluate, keep records, write checkpoints."""

import contextlib
import dataclasses
import functools
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from poprnn.cells.contract import Cell, Context, Parameters
from poprnn.core import backend
from poprnn.core.arrays import Tree
from poprnn.core.errors import ConfigurationError, StorageError
from poprnn.core.mapping import MemberMap
from poprnn.tasks.contract import Task
from poprnn.training.flops import training_flops
from poprnn.training.folder import RunFolder
from poprnn.training.monitors.contract import Observation
from poprnn.training.program import MemberState, Program, Record, Shared, first_true
from poprnn.training.run import History, Run, Snapshot, stack_varied, to_numpy
from poprnn.training.settings import Population, Setup, Training

TARGET_SECONDS = 3.0
"""Aim for the length of one dispatch: the host is touched that often, and Ctrl-C takes at most about as long."""
CHECKPOINT_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Update:
    """What :func:`fit_iter` yields: at every evaluation, and (``evaluated = False``) on the way to it."""

    epoch: int
    """Epochs finished."""
    n_epochs: int
    """Budget."""
    n_steps: int
    """Optimiser steps taken."""
    n_steps_per_epoch: int
    """Optimiser steps between evaluations."""
    seconds: float
    """Since training began (without what a resumed run had used before)."""
    active: np.ndarray
    """``[member]``: who is still being trained."""
    training_loss: np.ndarray
    """``[member]``: mean since the last evaluation; NaN for members that have ended."""
    evaluated: bool
    record: dict[str, np.ndarray]
    """The epoch's row of the history; empty if not evaluated."""
    run: Callable[[], Run]
    """Call it for the run as it stands."""


class Trainer:
    """State of a training in progress."""

    def __init__(self, setup: Setup, *, start: Run | None = None, out: str | Path | None = None, debug: bool = False,
                 n_devices: int | None = None, resume: bool = False, arrays: Tree = None) -> None:
        self.setup, self.start = setup, start
        n = setup.population.members
        self.program, self.begin, self.train, self.evaluate = compiled(_shape_of(setup), n, debug, n_devices)
        self.folder = None if out is None else RunFolder(out)
        self.history, self.snapshots = History(), dict[str, Snapshot]()
        self.interrupted = False
        self.seconds_before = 0.0
        backend.devices()
        with backend.precision(32):
            self.shared = Shared(jnp.asarray(_stream_seed(setup.population), jnp.uint32),
                                 jax.tree.map(jnp.asarray, setup.task.arrays() if arrays is None else arrays))
            self._require_memory()
            if self.folder and not resume:
                self.folder.create()
                self.folder.save_setup(setup)
            self.state = to_numpy(self._begin())
            self.initial = self.state.parameters
        if resume:
            self._load()
        self.began = time.perf_counter()

    # --- begin ------------------------------------------------------------------------------------------------

    def _begin(self) -> MemberState:
        """All members' states before the first step; each from its own stream, however many there are."""
        n, varied = self.setup.population.members, stack_varied(self.setup)
        given = None if self.start is None else _adapt(self.start, self.setup)
        states = (np.arange(n, dtype=np.int32), varied) + (() if given is None else (given,))
        state = self.begin(states, jnp.asarray(self.setup.population.seed, jnp.uint32))[1]
        if self.start is not None and self.start.progress is not None and _same_course(self.start.setup, self.setup):
            state = state._replace(progress=jax.tree.map(jnp.asarray, self.start.progress))
        return state

    def _require_memory(self) -> None:
        population, training = self.setup.population, self.setup.training
        try:
            member = jax.eval_shape(self.program.start, 0, {}, self.shared.seed)
            weights = _n_bytes(member.parameters.trainable)
            carry = jax.eval_shape(lambda p, k: self.setup.cell.initial_state(
                self.setup.cell.prepare(p, Context()), key=k), member.parameters, jax.random.key(0))
            batch = jax.eval_shape(self._one_trial, self.shared.seed)
        except (OverflowError, TypeError, ValueError, MemoryError) as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(f"cell '{self.setup.cell.name()}' cannot be made for this task: {error}") from error
        n_devices = min(len(backend.devices()), population.members)
        states = min(training.batch * self.setup.task.capacity * _n_bytes(carry) * 2, 2 * training.state_memory_mb * 2**20)
        trials = 3 * training.batch * _n_bytes(batch)
        total = 4 * population.members * _n_bytes(member) + n_devices * (states + trials + 4 * weights)
        backend.require_memory(total, f"training {population.members} member(s) of '{self.setup.cell.name()}'")

    def _one_trial(self, seed: Any) -> Tree:
        task, training, key = self.setup.task, self.setup.training, jax.random.key(seed)
        stage = training.curriculum.stage(task, training.curriculum.init(task))
        return task.sample(task.draw(stage, key=key), self.shared.arrays, key=key)

    def _load(self) -> None:
        """Go on from the newest checkpoint that can be read."""
        if self.folder is None:
            raise StorageError("nothing to resume: the run has no folder")
        self.state, self.history, meta, problems = self.folder.load_checkpoint(self.state)
        self.initial = self.folder.load_weights("initial", self.initial)
        epochs = np.asarray(self.state.n_steps) // max(self.setup.training.steps_per_epoch, 1)
        if self.setup.training.snapshots != "none":
            self.snapshots = self.folder.load_snapshots(self.initial, epochs)
        self.seconds_before = meta["seconds"]
        here = backend.describe()
        for what in ("n_threads", "processor", "versions"):
            if meta["machine"].get(what) != here[what]:
                problems.append(f"this run was begun with another {what} ({meta['machine'].get(what)}, here "
                                f"{here[what]}): it goes on, but not with the same bits")
        for problem in problems:
            warnings.warn(problem, stacklevel=3)

    # --- the loop ----------------------------------------------------------------------------------------------

    @property
    def active(self) -> np.ndarray:
        """Who is still being trained."""
        return np.asarray(self.state.outcome) == 0

    def n_steps(self) -> int:
        """Optimiser steps taken by the members that are still being trained (all the same)."""
        steps = np.asarray(self.state.n_steps)
        alive = self.active & ~np.asarray(self.state.diverged)
        return int(steps[alive].max()) if alive.any() else int(steps.max())

    def updates(self) -> Iterator[Update]:
        """Train until every member has ended, yielding after every dispatch."""
        training = self.setup.training
        total, per_epoch = training.epochs * training.steps_per_epoch, training.steps_per_epoch
        n, last_saved = 1, time.perf_counter()
        if self.folder and not len(self.history) and self.n_steps() == 0:
            self.folder.save_weights("initial", self.initial)
            self.checkpoint()
        while self.active.any() and (done := self.n_steps()) < total and not self.interrupted:
            n = min(n, per_epoch - done % per_epoch)
            before = time.perf_counter()
            self._train(n)
            took = time.perf_counter() - before
            done += n
            if done % per_epoch == 0:
                yield self._evaluate(done)
            else:
                yield self._update(done, evaluated=False, record={})
            # the first dispatch holds the compilation and is one step long; then the length follows the clock
            n = max(1, min(2 * n if n > 1 else 8, int(n * TARGET_SECONDS / max(took, 1e-3)) if n > 1 else 8))
            if self.folder and time.perf_counter() - last_saved > CHECKPOINT_SECONDS:
                self.checkpoint()
                last_saved = time.perf_counter()
        if self.folder:
            self.finish()

    def _train(self, n: int) -> None:
        with backend.precision(32):
            shared = self.shared._replace(n_steps=jnp.asarray(n, jnp.int32))
            self.state, _ = jax.block_until_ready(self.train(self.state, shared, self.active))

    def _evaluate(self, done: int) -> Update:
        training, active = self.setup.training, self.active
        epoch = done // training.steps_per_epoch
        with backend.precision(32):
            last = jnp.asarray(epoch >= training.epochs)
            state, record = self.evaluate(self.state, self.shared._replace(n_steps=jnp.asarray(0, jnp.int32),
                                                                           last_epoch=last), active)
        self.state = to_numpy(state)
        if self.program.has_host_monitors:
            self._ask_host(to_numpy(record), active, epoch)
        row = _history_row(to_numpy(record)._replace(outcome=self.state.outcome), active)
        self.history.append(row)
        self._snapshot(active & np.asarray(record.passed), np.asarray(record.stage), epoch, active)
        return self._update(done, evaluated=True, record=row)

    def _ask_host(self, record: Record, active: np.ndarray, epoch: int) -> None:
        """Monitors that want NumPy: one member at a time; a device monitor that already spoke keeps its word."""
        memories, outcomes = [], self.state.outcome.copy()
        for k in range(len(active)):
            pick = lambda tree, k=k: jax.tree.map(lambda a: a[k], tree)  # noqa: E731
            mine = pick(self.state)
            seen = Observation(epoch, epoch >= self.setup.training.epochs, record.loss[k], pick(record.scores),
                               mine.parameters, mine.progress.finished, mine.diverged)
            memory, ends = self.program.ask(mine.monitors, seen, "host") if active[k] else (mine.monitors, [False])
            memories.append(to_numpy(memory))
            word = int(first_true([bool(e) for e in ends]))
            budget = len(self.program.outcomes)  # comes last: anything more telling goes before it
            if active[k] and word and outcomes[k] in (0, budget):
                outcomes[k] = word
        self.state = self.state._replace(monitors=jax.tree.map(lambda *a: np.stack(a), *memories), outcome=outcomes)

    def _snapshot(self, passed: np.ndarray, stage: np.ndarray, epoch: int, active: np.ndarray) -> None:
        every = self.setup.training.snapshots
        if every == "none":
            return
        if every == "stages":
            moments = {f"stage_{s:03d}": passed & (stage == s) for s in np.unique(stage[passed])}
        else:
            moments = {f"epoch_{epoch:05d}": active} if epoch % every == 0 else {}
        for name, reached in moments.items():
            old = self.snapshots.get(name)
            mine = lambda new: jax.tree.map(  # noqa: E731
                lambda a: np.where(reached.reshape(-1, *[1] * (a.ndim - 1)), a, 0).astype(a.dtype), new)
            parameters = mine(self.state.parameters)
            if old is not None:
                parameters = jax.tree.map(np.add, parameters, jax.tree.map(
                    lambda a: np.where((~reached).reshape(-1, *[1] * (a.ndim - 1)), a, 0).astype(a.dtype), old.parameters))
                self.snapshots[name] = Snapshot(old.reached | reached, np.where(reached, epoch, old.epoch), parameters)
            else:
                self.snapshots[name] = Snapshot(reached, np.where(reached, epoch, -1).astype(np.int32), parameters)
            if self.folder:
                self.folder.save_snapshot(name, self.snapshots[name])

    def _update(self, done: int, *, evaluated: bool, record: dict[str, np.ndarray]) -> Update:
        training = self.setup.training
        epoch = done // training.steps_per_epoch
        if evaluated:
            loss = record["training_loss"]
        else:
            since = done - epoch * training.steps_per_epoch
            loss = np.where(self.active, np.asarray(self.state.loss_sum) / max(since, 1), np.nan)
        return Update(epoch, training.epochs, done, training.steps_per_epoch, time.perf_counter() - self.began, self.active,
                      loss, evaluated, record, self.run)

    # --- results -----------------------------------------------------------------------------------------------

    def manifest(self) -> dict[str, Any]:
        """Versions, machine, times, outcomes, operation count, peak memory."""
        outcomes = self.outcome_words()
        return {
            "machine": backend.describe(), "seed": self.setup.population.seed,
            "seconds": self.seconds_before + time.perf_counter() - self.began,
            "outcomes": {word: outcomes.count(word) for word in dict.fromkeys(outcomes)},
            "n_steps": np.asarray(self.state.n_steps), "flops": training_flops(self.setup, self.state),
            "peak_bytes": backend.peak_bytes(),
            "start": None if self.start is None else str(self.start.path or "in memory"),
        }

    def outcome_words(self) -> list[str]:
        """One word per member; ``training`` for those that have not ended."""
        words = ("training", *self.program.outcomes)
        return [words[int(i)] for i in np.asarray(self.state.outcome)]

    def run(self) -> Run:
        """The run as it stands."""
        state = to_numpy(self.state)
        return Run(self.setup, state.parameters, self.initial, self.outcome_words(), self.history,
                   dict(self.snapshots), state.progress, self.manifest(), self.folder and self.folder.path,
                   to_numpy(self.shared.arrays))

    def checkpoint(self) -> None:
        """Write all that resuming needs."""
        if self.folder is None:
            return
        meta = {"n_steps": self.n_steps(), "seconds": self.seconds_before + time.perf_counter() - self.began,
                "machine": backend.describe()}
        self.folder.save_checkpoint(to_numpy(self.state), self.history, meta)

    def finish(self) -> None:
        """Checkpoint, weights, history and manifest."""
        if self.folder is None:
            return
        self.checkpoint()
        self.folder.save_weights("weights", to_numpy(self.state.parameters))
        self.folder.save_history(self.history)
        self.folder.save_manifest(self.manifest())

    @contextlib.contextmanager
    def stop_at_boundary(self) -> Iterator[None]:
        """Ctrl-C inside ends training after the current dispatch; a second one at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(*_: Any) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True

        previous = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)


def fit(task: Task | dict | str | None = None, cell: Cell | dict | str | None = None, *, members: int | None = None,
        seed: int | None = None, vary: dict[str, Any] | None = None, training: Training | None = None,
        start: Run | None = None, out: str | Path | None = None, debug: bool = False, n_devices: int | None = None,
        progress: bool = False, **options: Any) -> Run:
    """Train a population.

    Args:
        task: blueprint (or catalogue name, or dictionary) of the task; default: that of ``start``.
        cell: blueprint of the dynamics; default: that of ``start``.
        members: number of members; default 1, or as many as ``start`` has.
        seed: the one integer that everything random follows from.
        vary: hyperparameters that differ between members, dotted name to values.
        training: how to train; further ``options`` (``epochs=30``, ``curriculum=…``) change single fields of it.
        start: a run to continue, or to retrain on another task. Arrays whose first axis has grown (new heads) keep
            their old rows; with the same task and curriculum members go on at their stage.
        out: a new folder to write to; ``None`` keeps everything in memory.
        debug: step by step without compilation, so that a traceback shows the line that failed.
        n_devices: use only so many devices.
        progress: print a line at every evaluation.

    Returns:
        A :class:`Run`. Ctrl-C ends training at the next boundary, with a checkpoint if there is a folder.

    Raises:
        ConfigurationError: an option that cannot be, with its name, value and rule.
        CapacityError: the work would not fit into memory.

    >>> import poprnn as pr
    >>> run = pr.fit(pr.tasks.NParity(n_max=3), pr.cells.LeakyRNN(n_units=8), members=2, epochs=1,
    ...              steps_per_epoch=2, evaluation_batches=1, batch=4)
    >>> run.outcome
    ['budget_spent', 'budget_spent']
    """
    trainer = make_trainer(task, cell, members=members, seed=seed, vary=vary, training=training, start=start, out=out,
                           debug=debug, n_devices=n_devices, **options)
    with trainer.stop_at_boundary():
        for update in trainer.updates():
            if progress and update.evaluated:
                print(f"epoch {update.epoch}: loss {np.nanmean(update.record['loss']):.4g}, "
                      f"{int(update.active.sum())} still training", flush=True)
    return trainer.run()


def fit_iter(task: Task | dict | str | None = None, cell: Cell | dict | str | None = None, *,
             out: str | Path | None = None, **options: Any) -> Iterator[Update]:
    """Train, yielding an :class:`Update` after every dispatch; leave the loop to stop. Options as for :func:`fit`.

    >>> import poprnn as pr
    >>> for update in pr.fit_iter("n_parity", pr.cells.LeakyRNN(n_units=8), epochs=5, steps_per_epoch=2, batch=4,
    ...                           evaluation_batches=1):
    ...     if update.evaluated:
    ...         break
    >>> update.run().outcome
    ['training']
    """
    trainer = make_trainer(task, cell, out=out, **options)
    try:
        yield from trainer.updates()
    except GeneratorExit:
        trainer.finish()
        raise


def make_trainer(task: Any = None, cell: Any = None, *, members: int | None = None, seed: int | None = None,
                 vary: dict[str, Any] | None = None, training: Training | None = None, start: Run | None = None,
                 out: str | Path | None = None, debug: bool = False, n_devices: int | None = None,
                 **options: Any) -> Trainer:
    """The trainer behind :func:`fit`."""
    base = Training() if start is None else start.setup.training
    training = training or base
    training = Training(**({field.name: getattr(training, field.name) for field in dataclasses.fields(training)} | options))
    if start is not None:
        old = start.setup.population
        if members not in (None, old.members):
            raise ConfigurationError(f"fit: members = {members}, but start has {old.members}")
        population = Population(members=old.members, seed=old.seed if seed is None else seed,
                                vary=old.vary if vary is None else vary, generation=old.generation + 1)
        task, cell = task or start.task, cell or start.cell
    else:
        population = Population(members=members or 1, seed=seed or 0, vary=vary or {})
    if task is None or cell is None:
        raise ConfigurationError("fit needs a task and a cell, or a run to start from")
    setup = Setup(population=population, task=task, cell=cell, training=training)
    return Trainer(setup, start=start, out=out, debug=debug, n_devices=n_devices)


@functools.lru_cache(maxsize=16)
def compiled(setup: Setup, n_members: int, debug: bool,
             n_devices: int | None) -> tuple[Program, MemberMap, MemberMap, MemberMap]:
    """The programs of a setup: start, train, evaluate.

    Asked for again (another seed, a resumed run), they need not be compiled again.
    """
    program = Program(setup)

    def begin(state: Tree, seed: Any) -> tuple[Tree, MemberState]:
        return state, program.start(*state[:2], seed, *state[2:])

    maps = (MemberMap(f, n_members, debug=debug, n_devices=n_devices) for f in (begin, program.train, program.evaluate))
    return program, *maps


def _shape_of(setup: Setup) -> Setup:
    """The setup without what the compiled programs do not depend on."""
    vary = {name: (values[0],) for name, values in setup.population.vary.items()}
    return setup.substitute({"population": Population(vary=vary), "training.epochs": 0, "training.snapshots": "none"})


def _n_bytes(tree: Tree) -> int:
    return sum(int(np.prod([int(d) for d in a.shape], dtype=object)) * a.dtype.itemsize for a in jax.tree.leaves(tree))


def _stream_seed(population: Population) -> int:
    """Seed of the training streams: a run that starts from another must not see the same batches again."""
    if population.generation == 0:
        return population.seed
    return int(np.random.SeedSequence([population.seed, population.generation]).generate_state(1)[0])


def _same_course(old: Setup, new: Setup) -> bool:
    return old.task == new.task and old.training.curriculum == new.training.curriculum


def _history_row(record: Record, active: np.ndarray) -> dict[str, np.ndarray]:
    flat = {k: v for k, v in record._asdict().items() if k != "scores"}
    flat |= {f"scores/{k}": v for k, v in record.scores.items()}

    def blank(a: np.ndarray) -> np.ndarray:
        shaped = active.reshape(-1, *[1] * (a.ndim - 1))
        if np.issubdtype(a.dtype, np.floating):
            return np.where(shaped, a, np.nan).astype(a.dtype)
        return a & shaped if a.dtype == bool else np.where(shaped, a, -1).astype(a.dtype)

    return {name: blank(np.asarray(a)) for name, a in flat.items()}


def _adapt(start: Run, setup: Setup) -> Parameters:
    """A run's weights in the shapes the new task asks for: grown first axes keep their old rows."""
    old = {**start.parameters.fixed, **start.parameters.trainable}
    n, population = setup.population.members, setup.population
    program = Program(setup.__class__(population=population, task=setup.task, cell=setup.cell))
    fresh_map = MemberMap(lambda s, seed: (s, program.start(s[0], s[1], seed).parameters), n)
    fresh = to_numpy(fresh_map((np.arange(n, dtype=np.int32), stack_varied(setup)),
                               jnp.asarray(_stream_seed(population), jnp.uint32))[1])

    def take(name: str, new: np.ndarray) -> np.ndarray:
        if name not in old:
            raise ConfigurationError(f"start has no array '{name}' that cell '{setup.cell.name()}' needs")
        array = old[name]
        if array.shape == new.shape:
            return array
        if array.ndim > 1 and array.shape[2:] == new.shape[2:] and array.shape[1] < new.shape[1]:
            return np.concatenate([array, new[:, array.shape[1]:]], axis=1)
        raise ConfigurationError(f"start's '{name}' has shape {list(array.shape[1:])}, the new task and cell ask for "
                                 f"{list(new.shape[1:])}")

    return Parameters({k: take(k, v) for k, v in fresh.trainable.items()},
                      {k: take(k, v) for k, v in fresh.fixed.items()})
