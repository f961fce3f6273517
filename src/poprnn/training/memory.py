"""How much memory a training needs, before it starts."""

from typing import Any

import jax
import numpy as np

from poprnn.core import backend
from poprnn.core.arrays import Tree
from poprnn.core.errors import ConfigurationError
from poprnn.training.batches import state_of
from poprnn.training.program import Program
from poprnn.training.settings import Setup
from poprnn.training.state import Shared


def require_memory(program: Program, setup: Setup, shared: Shared) -> None:
    """Refuse, with the estimate, what would not fit: weights, optimiser, states between the passes, trials."""
    population, training = setup.population, setup.training
    try:
        member = jax.eval_shape(program.start, 0, {}, shared.seed)
        weights = _n_bytes(member.parameters.trainable)
        carry = state_of(setup)
        batch = jax.eval_shape(lambda seed: _one_trial(setup, shared.arrays, seed), shared.seed)
    except (OverflowError, TypeError, ValueError, MemoryError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"cell '{setup.cell.name()}' cannot be made for this task: {error}") from error
    n_devices = min(len(backend.devices()), population.members)
    states = min(training.batch * setup.task.capacity * _n_bytes(carry) * 2, 2 * training.state_memory_mb * 2**20)
    trials = 3 * training.batch * _n_bytes(batch)
    total = 4 * population.members * _n_bytes(member) + n_devices * (states + trials + 4 * weights)
    backend.require_memory(total, f"training {population.members} member(s) of '{setup.cell.name()}'")


def _one_trial(setup: Setup, arrays: Tree, seed: Any) -> Tree:
    task, training, key = setup.task, setup.training, jax.random.key(seed)
    stage = training.curriculum.stage(task, training.curriculum.init(task))
    return task.sample(task.draw(stage, key=key), arrays, key=key)


def _n_bytes(tree: Tree) -> int:
    return sum(int(np.prod([int(d) for d in a.shape], dtype=object)) * a.dtype.itemsize for a in jax.tree.leaves(tree))
