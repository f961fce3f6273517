"""The loop on the host: dispatch steps, evaluate, keep records, write checkpoints."""

import contextlib
import dataclasses
import datetime
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

from poprnn.core import backend, native
from poprnn.core.arrays import Tree
from poprnn.core.errors import StorageError
from poprnn.core.mapping import MemberMap
from poprnn.training import judging
from poprnn.training.flops import training_flops
from poprnn.training.folder import RunFolder
from poprnn.training.memory import require_memory
from poprnn.training.program import Program
from poprnn.training.run import History, Run, Snapshot, history_row, stack_varied, to_numpy
from poprnn.training.settings import Setup, shape_of
from poprnn.training.start import adapt, same_course, stream_seed
from poprnn.training.state import MemberState, Shared

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

    def __init__(
        self,
        setup: Setup,
        *,
        start: Run | None = None,
        out: str | Path | None = None,
        debug: bool = False,
        n_devices: int | None = None,
        resume: bool = False,
        arrays: Tree = None,
    ) -> None:
        self.setup, self.start = setup, start
        n = setup.population.members
        self.folder = None if out is None else RunFolder(out)
        self.history, self.snapshots = History(), dict[str, Snapshot]()
        self.interrupted = False
        self.seconds_before = 0.0
        backend.devices()
        with backend.precision(32):
            self.shared = Shared(
                jnp.asarray(stream_seed(setup.population), jnp.uint32),
                jax.tree.map(jnp.asarray, setup.task.arrays() if arrays is None else arrays),
            )
            require_memory(Program(setup), setup, self.shared)
            programs = compiled(shape_of(setup), n, debug, n_devices, native.instructions())
            self.program, self.begin, self.train, self.evaluate = programs
            if self.folder and not resume:
                self.folder.create()
            self.state = to_numpy(self._begin())
            self.initial = self.state.parameters
        if self.folder and not resume:  # only now: a run stopped before there is anything to resume has not begun
            self.folder.save_setup(setup)
        if resume:
            self._load()
        self.began = time.perf_counter()

    # --- begin ------------------------------------------------------------------------------------------------

    def _begin(self) -> MemberState:
        """All members' states before the first step; each from its own stream, however many there are."""
        n, varied = self.setup.population.members, stack_varied(self.setup)
        given = None if self.start is None else adapt(self.start, self.setup)
        states = (np.arange(n, dtype=np.int32), varied) + (() if given is None else (given,))
        state = self.begin(states, jnp.asarray(self.setup.population.seed, jnp.uint32))[1]
        if self.start is not None and self.start.progress is not None and same_course(self.start.setup, self.setup):
            state = state._replace(progress=jax.tree.map(jnp.asarray, self.start.progress))
        return state

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
        here = self.machine()
        for what in ("n_threads", "processor", "versions", "kernels"):
            if meta["machine"].get(what) != here[what]:
                problems.append(
                    f"this run was begun with another {what} ({meta['machine'].get(what)}, here "
                    f"{here[what]}): it goes on, but not with the same bits"
                )
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
        finished = not self.active.any() and self.folder is not None and self.folder.is_finished()
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
        if self.folder and not finished:
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
            state, record = self.evaluate(
                self.state, self.shared._replace(n_steps=jnp.asarray(0, jnp.int32), last_epoch=last), active
            )
        self.state = to_numpy(state)
        last_epoch = epoch >= training.epochs
        if self.program.has_host_monitors:
            self.state = judging.ask_host(self.program, self.state, to_numpy(record), active, epoch, last_epoch)
        if self.program.has_population_monitors:
            self.state = judging.ask_population(self.program, self.state, to_numpy(record), active, epoch, last_epoch)
        recorded = to_numpy(self.program.recorded(self.state.monitors))
        row = history_row(to_numpy(record)._replace(outcome=self.state.outcome), active, recorded)
        self.history.append(row)
        self._snapshot(active & np.asarray(record.passed), np.asarray(record.stage), epoch, active)
        return self._update(done, evaluated=True, record=row)

    def _snapshot(self, passed: np.ndarray, stage: np.ndarray, epoch: int, active: np.ndarray) -> None:
        every = self.setup.training.snapshots
        if every == "none":
            return
        if every == "stages":
            moments = {f"stage_{s:03d}": passed & (stage == s) for s in np.unique(stage[passed])}
        elif every == "best":
            better = active & self._is_best()
            moments = {"best": better} if better.any() else {}
        else:
            moments = {f"epoch_{epoch:05d}": active} if epoch % every == 0 else {}
        for name, reached in moments.items():
            self.snapshots[name] = Snapshot.of(self.state.parameters, reached, epoch, self.snapshots.get(name))
            if self.folder:
                self.folder.save_snapshot(name, self.snapshots[name])

    def _is_best(self) -> np.ndarray:
        """``[member]``: whose score at this evaluation is above that of the snapshot that is kept, if there is one."""
        scores = self.history[f"scores/{self.setup.task.score}"].reshape(len(self.history), len(self.active), -1)
        known = np.isfinite(scores)
        mean = np.where(known, scores, 0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)
        kept = self.snapshots.get("best")
        if kept is None:
            return np.ones(len(self.active), bool)
        # of a run that was killed since, the snapshot may be lost: then any is better than none
        before = np.where(kept.reached, mean[kept.epoch - 1, np.arange(len(self.active))], -np.inf)
        return mean[-1] > before

    def _update(self, done: int, *, evaluated: bool, record: dict[str, np.ndarray]) -> Update:
        training = self.setup.training
        epoch = done // training.steps_per_epoch
        if evaluated:
            loss = record["training_loss"]
        else:
            since = done - epoch * training.steps_per_epoch
            loss = np.where(self.active, np.asarray(self.state.loss_sum) / max(since, 1), np.nan)
        return Update(
            epoch,
            training.epochs,
            done,
            training.steps_per_epoch,
            time.perf_counter() - self.began,
            self.active,
            loss,
            evaluated,
            record,
            self.run,
        )

    # --- results -----------------------------------------------------------------------------------------------

    def machine(self) -> dict[str, Any]:
        """What decides the bits of this run; ``kernels``: the instruction set of those that its loops use."""
        cell, task = self.setup.cell, self.setup.task
        served = cell.element_wise is not None and not task.closed_loop and backend.is_cpu()
        return backend.describe() | {"kernels": native.instructions() if served else None}

    def manifest(self) -> dict[str, Any]:
        """Versions, machine, times, outcomes, operation count, peak memory."""
        outcomes = self.outcome_words()
        return {
            "machine": self.machine(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seed": self.setup.population.seed,
            "seconds": self.seconds_before + time.perf_counter() - self.began,
            "outcomes": {word: outcomes.count(word) for word in dict.fromkeys(outcomes)},
            "n_steps": np.asarray(self.state.n_steps),
            "flops": training_flops(self.setup, self.state),
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
        return Run(
            self.setup,
            state.parameters,
            self.initial,
            self.outcome_words(),
            self.history,
            dict(self.snapshots),
            state.progress,
            self.manifest(),
            self.folder.path if self.folder else None,
            to_numpy(self.shared.arrays),
        )

    def checkpoint(self) -> None:
        """Write all that resuming needs."""
        if self.folder is None:
            return
        meta = {
            "n_steps": self.n_steps(),
            "seconds": self.seconds_before + time.perf_counter() - self.began,
            "machine": self.machine(),
        }
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


@functools.lru_cache(maxsize=16)
def compiled(
    setup: Setup, n_members: int, debug: bool, n_devices: int | None, kernels: str | None
) -> tuple[Program, MemberMap, MemberMap, MemberMap]:
    """The programs of a setup: start, train, evaluate.

    Asked for again (another seed, a resumed run), they need not be compiled again; with other kernels they must.
    """
    del kernels
    program = Program(setup)

    def begin(state: Tree, seed: Any) -> tuple[Tree, MemberState]:
        member, varied, *parameters = state
        return state, program.start(member, varied, seed, *parameters)

    def mapped(function: Any, n_parts: int = 1) -> MemberMap:
        return MemberMap(function, n_members, n_parts=n_parts, debug=debug, n_devices=n_devices)

    evaluate = mapped(program.evaluate, setup.training.evaluation_batches)
    return program, mapped(begin), mapped(program.train, program.n_parts), evaluate
