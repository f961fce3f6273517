"""What training is told: population, task, cell and how to train, as one blueprint."""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field

from poprnn.cells.contract import Cell
from poprnn.core.blueprint import Blueprint, NonNegativeInt, PositiveInt, Tuple, variable_fields
from poprnn.core.errors import ConfigurationError, nearest
from poprnn.tasks.contract import Task
from poprnn.training.curricula.all_heads import AllHeads
from poprnn.training.curricula.contract import Curriculum
from poprnn.training.methods.contract import Method
from poprnn.training.methods.control import Control
from poprnn.training.monitors.contract import Monitor
from poprnn.training.monitors.solved import Solved
from poprnn.training.objectives.contract import Objective
from poprnn.training.objectives.task_loss import TaskLoss
from poprnn.training.optimizers.adam import Adam
from poprnn.training.optimizers.contract import Optimizer
from poprnn.training.penalties.contract import Penalty


class Population(Blueprint):
    """How many members, from which seed, and in what they differ.

    >>> Population(members=4, vary={"training.optimizer.learning_rate": [0.1, 0.01]}).values(3)
    {'training.optimizer.learning_rate': 0.01}
    """

    members: PositiveInt = 1
    """Number of members."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """The one integer everything random follows from; member k depends on (seed, k) only."""
    vary: dict[str, Tuple[float | int]] = Field(default_factory=dict)
    """Hyperparameters that differ between members: dotted name to values, one for each member, cycled."""

    generation: NonNegativeInt = 0
    """0 for a run from scratch, one more for each run it was started from; gives training a new stream."""

    def __hash__(self) -> int:
        return hash((self.members, self.seed, self.generation, tuple((k, tuple(v)) for k, v in self.vary.items())))

    def values(self, member: int) -> dict[str, float | int]:
        """The varied values of one member."""
        return {name: values[member % len(values)] for name, values in self.vary.items()}


class Training(Blueprint):
    """How to train. One epoch is ``steps_per_epoch`` optimiser steps followed by an evaluation on fresh trials."""

    batch: PositiveInt = 256
    """Trials in a step (Khajehabdollahi et al.: 256)."""
    epochs: NonNegativeInt = 100
    """Budget in epochs; members that are solved end sooner."""
    steps_per_epoch: PositiveInt = 600
    """Optimiser steps between two evaluations (Khajehabdollahi et al.: 600)."""
    evaluation_batches: PositiveInt = 50
    """Fresh batches in an evaluation (Khajehabdollahi et al.: 50)."""
    optimizer: Optimizer = Adam()
    """One of Optax's, with learning rate, schedule and clipping."""
    curriculum: Curriculum = AllHeads()
    """The order in which heads are trained."""
    method: Method = Control()
    """How the unroll departs from the base dynamics in training."""
    objective: Objective = TaskLoss()
    """The loss; default: the task's own."""
    penalties: tuple[Penalty, ...] = ()
    """Added to the loss."""
    shared_trials: bool = False
    """Whether all members are trained on the same trials; start and noise stay their own, and so do evaluations."""
    monitors: tuple[Monitor, ...] = (Solved(),)
    """Rules that end a member, beside divergence and the budget."""
    trainable: Tuple[str] | None = None
    """Arrays or groups (readout, recurrent, input) to train; ``None``: all that the cell trains."""
    snapshots: Literal["stages", "best", "none"] | PositiveInt = "stages"
    """Keep weights whenever a member passes a stage, of the epoch at which a member's score (its mean over heads) was
    best, every so many epochs, or never."""
    state_memory_mb: PositiveInt = 512
    """States of one member kept between the passes; longer trials are run again in segments on the way back."""


class Setup(Blueprint):
    """All that decides the numbers of a run."""

    population: Population = Population()
    task: Task
    cell: Cell
    training: Training = Training()

    def __post_init__(self) -> None:
        self.training.curriculum.check(self.task)
        self.training.method.check(self.cell, self.task)
        known = variable_fields(self)
        for name, values in self.population.vary.items():
            if name not in known:
                raise ConfigurationError(f"vary: '{name}' cannot differ between members{nearest(name, known)}")
            if not values:
                raise ConfigurationError(f"vary: '{name}' has no values")
            for value in values:
                # raises if the value breaks the field's own rule
                _replaced(self.substitute({"population": Population()}), name, value)

    def replace(self, path: str, value: Any) -> "Setup":
        """A copy with one option (dotted path) changed, checked like any other."""
        return _replaced(self, path, value)


def _replaced(blueprint: Any, path: str, value: Any) -> Any:
    head, _, rest = path.partition(".")
    if isinstance(blueprint, tuple):  # "penalties.0.strength"
        if not head.isdigit() or int(head) >= len(blueprint):
            raise ConfigurationError(f"no entry '{head}' among {len(blueprint)}")
        items = list(blueprint)
        items[int(head)] = _replaced(items[int(head)], rest, value) if rest else value
        return tuple(items)
    fields = {field.name: getattr(blueprint, field.name) for field in dataclasses.fields(blueprint)}
    if head not in fields:
        raise ConfigurationError(f"{type(blueprint).__name__}: unknown option '{head}'{nearest(head, fields)}")
    return type(blueprint)(**fields | {head: _replaced(fields[head], rest, value) if rest else value})


def shape_of(setup: Setup) -> Setup:
    """The setup without what the compiled programs do not depend on."""
    vary: dict[str, tuple[float | int, ...]] = {name: (values[0],) for name, values in setup.population.vary.items()}
    return setup.substitute({"population": Population(vary=vary), "training.epochs": 0, "training.snapshots": "none"})
