"""Training a population from Python: ``fit`` and ``fit_iter``."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from poprnn.cells.contract import Cell
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Task
from poprnn.training.run import Run
from poprnn.training.settings import Population, Setup, Training
from poprnn.training.trainer import Trainer, Update


def fit(
    task: Task | dict | str | None = None,
    cell: Cell | dict | str | None = None,
    *,
    members: int | None = None,
    seed: int | None = None,
    vary: dict[str, Any] | None = None,
    training: Training | None = None,
    start: Run | None = None,
    out: str | Path | None = None,
    debug: bool = False,
    progress: bool = False,
    **options: Any,
) -> Run:
    """Train a population.

    Args:
        task: blueprint (or catalogue name, or dictionary) of the task; default: that of ``start``.
        cell: blueprint of the dynamics; default: that of ``start``.
        members: number of members; default 1, or as many as ``start`` has.
        seed: the one integer that everything random follows from.
        vary: hyperparameters that differ between members, dotted name to values.
        training: how to train; ``options`` (``epochs=30``, ``curriculum=…``) change single fields of it.
        start: a run to continue, or to retrain on another task. Arrays whose first axis has grown (new heads) keep
            their old rows; with the same task and curriculum members go on at their stage.
        out: a new folder to write to; ``None`` keeps everything in memory.
        debug: step by step without compilation, so that a traceback shows the line that failed.
        progress: print a line at every evaluation.
        options: fields of ``training``, and ``n_devices`` to use fewer devices than there are.

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
    trainer = make_trainer(
        task,
        cell,
        members=members,
        seed=seed,
        vary=vary,
        training=training,
        start=start,
        out=out,
        debug=debug,
        **options,
    )
    with trainer.stop_at_boundary():
        for update in trainer.updates():
            if progress and update.evaluated:
                loss, active = np.nanmean(update.record["loss"]), int(update.active.sum())
                print(f"epoch {update.epoch}: loss {loss:.4g}, {active} still training", flush=True)
    return trainer.run()


def fit_iter(
    task: Task | dict | str | None = None,
    cell: Cell | dict | str | None = None,
    *,
    out: str | Path | None = None,
    **options: Any,
) -> Iterator[Update]:
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


def make_trainer(
    task: Any = None,
    cell: Any = None,
    *,
    members: int | None = None,
    seed: int | None = None,
    vary: dict[str, Any] | None = None,
    training: Training | None = None,
    start: Run | None = None,
    out: str | Path | None = None,
    debug: bool = False,
    n_devices: int | None = None,
    **options: Any,
) -> Trainer:
    """The trainer behind :func:`fit`."""
    base = Training() if start is None else start.setup.training
    training = training or base
    training = Training(
        **({field.name: getattr(training, field.name) for field in dataclasses.fields(training)} | options)
    )
    if start is not None:
        old = start.setup.population
        if members not in (None, old.members):
            raise ConfigurationError(f"fit: members = {members}, but start has {old.members}")
        population = Population(
            members=old.members,
            seed=old.seed if seed is None else seed,
            vary=old.vary if vary is None else vary,
            generation=old.generation + 1,
        )
        task, cell = task or start.task, cell or start.cell
    else:
        population = Population(members=members or 1, seed=seed or 0, vary=vary or {})
    if task is None or cell is None:
        raise ConfigurationError("fit needs a task and a cell, or a run to start from")
    setup = Setup(population=population, task=task, cell=cell, training=training)
    return Trainer(setup, start=start, out=out, debug=debug, n_devices=n_devices)
