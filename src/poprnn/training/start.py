"""Where a population begins: seeds of its streams, and weights taken over from another run."""

import jax.numpy as jnp
import numpy as np

from poprnn.cells.contract import Parameters
from poprnn.core.errors import ConfigurationError
from poprnn.core.mapping import MemberMap
from poprnn.training.program import Program
from poprnn.training.run import Run, stack_varied, to_numpy
from poprnn.training.settings import Population, Setup


def stream_seed(population: Population) -> int:
    """Seed of the training streams: a run that starts from another must not see the same batches again."""
    if population.generation == 0:
        return population.seed
    return int(np.random.SeedSequence([population.seed, population.generation]).generate_state(1)[0])


def same_course(old: Setup, new: Setup) -> bool:
    """Whether members may go on at the stage they had reached."""
    return old.task == new.task and old.training.curriculum == new.training.curriculum


def adapt(start: Run, setup: Setup) -> Parameters:
    """A run's weights in the shapes the new task asks for: grown first axes keep their old rows."""
    old = {**start.parameters.fixed, **start.parameters.trainable}
    n, population = setup.population.members, setup.population
    program = Program(setup.substitute({"training.trainable": None}))
    fresh_map = MemberMap(lambda s, seed: (s, program.start(s[0], s[1], seed).parameters), n)
    fresh = to_numpy(
        fresh_map(
            (np.arange(n, dtype=np.int32), stack_varied(setup)), jnp.asarray(stream_seed(population), jnp.uint32)
        )[1]
    )

    def take(name: str, new: np.ndarray) -> np.ndarray:
        if name not in old:
            raise ConfigurationError(f"start has no array '{name}' that cell '{setup.cell.name()}' needs")
        array = old[name]
        if array.shape == new.shape:
            return array
        if array.ndim > 1 and array.shape[2:] == new.shape[2:] and array.shape[1] < new.shape[1]:
            return np.concatenate([array, new[:, array.shape[1] :]], axis=1)
        raise ConfigurationError(
            f"start's '{name}' has shape {list(array.shape[1:])}, the new task and cell ask for {list(new.shape[1:])}"
        )

    return Parameters(
        {k: take(k, v) for k, v in fresh.trainable.items()}, {k: take(k, v) for k, v in fresh.fixed.items()}
    )
