"""What a trained network can be trained to do next."""

import dataclasses
from typing import Annotated, Any

import jax
import numpy as np
import xarray as xr
from pydantic import Field

from poprnn.analysis._population import Seed
from poprnn.analysis._probe import at_memory
from poprnn.analysis._statistics import relative_accuracy
from poprnn.core.blueprint import Fraction, PositiveInt
from poprnn.core.errors import ConfigurationError, NotApplicableError
from poprnn.tasks._memory import MemoryTask
from poprnn.training.curricula.none import None_
from poprnn.training.evaluate import evaluate
from poprnn.training.run import History, Run
from poprnn.training.settings import Population, Setup
from poprnn.training.trainer import Trainer

Memories = Annotated[list[PositiveInt], Field(min_length=1)]


def retraining(
    run: Run,
    *,
    to: Memories,
    n: PositiveInt | None = None,
    trainable: list[str] | None = None,
    epochs: PositiveInt = 20,
    steps_per_epoch: PositiveInt | None = None,
    threshold: Fraction = 0.98,
    n_trials: PositiveInt = 12800,
    seed: Seed = 0,
) -> xr.Dataset:
    """Accuracy at other memories N after retraining to each of them, without a curriculum, from the same weights.

    Every member is retrained to every N in ``to``, all of them as one population, with the run's own settings, until
    ``threshold`` is exceeded or ``epochs`` are over. With ``trainable=["readout"]`` the recurrent network is left
    as it is (and the gradient does not go back through time): what its states hold about N is asked, forwards for N
    larger than it was trained on, backwards for smaller. After a curriculum with one readout for all N that readout is
    trained on; otherwise every N keeps its own, which is a fresh one where the task had none for it.

    Args:
        run: the population.
        to: memories N to retrain to; they may exceed the task's largest.
        n: memory N to start from, with the weights from when it was solved (stage snapshot); members that did not
            solve it get NaN. Default: the final weights.
        trainable: arrays or groups to train; default: those that the run trained.
        epochs: budget for each (the paper: 20).
        steps_per_epoch: batches in an epoch; default: as in the run.
        threshold: accuracy that ends retraining (the paper: 0.98).
        n_trials: fresh trials for the final accuracies.
        seed: changes batches, fresh readouts and fresh trials.

    Returns:
        ``accuracy`` and ``relative_accuracy`` = (accuracy - 1/2) / (accuracy at N before - 1/2) (member, to);
        ``epochs`` (member, to) that were needed, NaN where the threshold was not exceeded; ``base_accuracy`` (member).

    Raises:
        NotApplicableError: the task has no memories N, or nobody solved ``n``. ConfigurationError: an N below the
            task's smallest.

    Reference: Khajehabdollahi et al., Emergent mechanisms for long timescales depends on training curriculum and
    affects performance in memory tasks, ICLR 2024, figures 7e and S17.

    >>> import poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=8), members=2, epochs=1, steps_per_epoch=1, batch=4)
    >>> pr.measure("retraining", run, members="all", to=[2, 21, 22], epochs=1, n_trials=256).data["accuracy"].shape
    (2, 3)
    """
    if not isinstance(run.task, MemoryTask):
        raise NotApplicableError(f"retraining: task '{run.task.name()}' has no memories N to retrain to")
    for target in to:
        if target < run.task.n_min:
            raise ConfigurationError(f"retraining: to = {target}: the task's smallest N is {run.task.n_min}")
    at, heads, reached = at_memory(run, n, "retraining")
    there = np.flatnonzero(reached)
    shape = (run.n_members, len(to))
    accuracy, needed, base = np.full(shape, np.nan), np.full(shape, np.nan), np.full(run.n_members, np.nan)
    if len(there):
        start = at.select(there)
        rows = np.arange(len(there))
        base[there] = evaluate(start, heads=heads[there], n_trials=n_trials, seed=seed)["accuracy"][
            rows, rows, heads[there]
        ]
        trained = _trained(start, to, trainable, epochs, steps_per_epoch, threshold, seed)
        scores = evaluate(trained, n_trials=n_trials, seed=seed)["accuracy"][:, 0]
        head = np.tile(np.array(to) - run.task.n_min, len(there))
        accuracy[there] = scores[np.arange(len(head)), head].reshape(len(there), -1)
        ended = np.isfinite(trained.history["loss"]).sum(axis=0)
        needed[there] = np.where(trained.solved, ended, np.nan).reshape(len(there), -1)
    return xr.Dataset(
        {
            "accuracy": (("member", "to"), accuracy),
            "relative_accuracy": (("member", "to"), relative_accuracy(accuracy, base[:, None])),
            "epochs": (("member", "to"), needed),
            "base_accuracy": ("member", base),
        },
        {"member": run.member_index, "to": np.array(to)},
    )


def _trained(
    run: Run,
    to: list[int],
    trainable: list[str] | None,
    epochs: int,
    steps_per_epoch: int | None,
    threshold: float,
    seed: int,
) -> Run:
    """Every member beside itself once for each N, retrained: ``[member · to]``."""
    task: Any = run.task
    repeat = lambda tree: jax.tree.map(lambda a: np.repeat(a, len(to), axis=0), tree)
    old = run.setup.population
    vary = {
        name: tuple(np.repeat(values, len(to)).tolist())
        for name, values in run.varied.items()
        if not name.startswith("training.curriculum.")
    }
    vary["training.curriculum.head"] = tuple(t - task.n_min for t in to)
    population = Population(
        members=run.n_members * len(to), seed=(run.seed + seed) % 2**32, vary=vary, generation=old.generation + 1
    )
    training = run.setup.training
    shared = training.curriculum.shared_readout
    training = dataclasses.replace(
        training,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch or training.steps_per_epoch,
        curriculum=None_(head=to[0] - task.n_min, threshold=threshold, shared_readout=shared),
        trainable=training.trainable if trainable is None else tuple(trainable),
        snapshots="none",
    )
    grown = dataclasses.replace(task, n_max=max(task.n_max, *to))
    start = dataclasses.replace(
        run, parameters=repeat(run.parameters), history=History(), snapshots={}, progress=None, index=None
    )
    trainer = Trainer(Setup(population=population, task=grown, cell=run.cell, training=training), start=start)
    for _ in trainer.updates():
        pass
    return trainer.run()
