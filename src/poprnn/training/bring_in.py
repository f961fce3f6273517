"""Networks trained elsewhere, as a run."""

from typing import Any

import jax
import numpy as np

from poprnn.cells.contract import Cell
from poprnn.core import backend
from poprnn.core.blueprint import build
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Task
from poprnn.training.run import Run, to_numpy
from poprnn.training.settings import Population, Setup, Training


def from_arrays(
    task: Task | str, cell: Cell | str, arrays: dict[str, Any], *, seed: int = 0, training: Training | None = None
) -> Run:
    """A population from arrays trained elsewhere; every analysis then works on it.

    Args:
        task: what the networks do (its input and output sizes decide the shapes).
        cell: their dynamics.
        arrays: the cell's arrays by name (see the cell's docstring), one network's or stacked ``[member, …]``.
        seed: for rollouts and scores.
        training: settings to take over (a curriculum with a shared readout, say).

    Raises:
        ConfigurationError: a name the cell does not have, or a shape that does not fit.

    >>> import numpy as np, poprnn as pr
    >>> pr.from_arrays(pr.tasks.NParity(n_max=3), pr.cells.VanillaRNN(n_units=4), {"W": np.eye(4)}).members[0].W.shape
    (4, 4)
    """
    setup = build(Setup, {"task": task, "cell": cell})
    arrays = {name: np.asarray(a) for name, a in arrays.items()}
    with backend.precision(32):
        one = setup.cell.init(setup.task.n_inputs, setup.task.n_outputs, key=jax.random.key(0))
        known = {**one.trainable, **one.fixed}
        stacked = {name for name, a in arrays.items() if name in known and np.ndim(a) == known[name].ndim + 1}
        if stacked and len(stacked) != len(arrays):
            raise ConfigurationError("from_arrays: some arrays have a member axis and others have none")
        counts = {name: len(arrays[name]) for name in stacked}
        if len(set(counts.values())) > 1:
            raise ConfigurationError(f"from_arrays: arrays hold different numbers of members: {counts}")
        n = next(iter(counts.values())) if stacked else 1
        rows = [{name: a[k] if stacked else a for name, a in arrays.items()} for k in range(n)]
        made = [setup.cell.from_arrays(setup.task.n_inputs, setup.task.n_outputs, row) for row in rows]
        parameters = to_numpy(jax.tree.map(lambda *a: np.stack(a), *made))
    setup = Setup(
        population=Population(members=n, seed=seed), task=setup.task, cell=setup.cell, training=training or Training()
    )
    return Run(setup, parameters, parameters, ["brought_in"] * n, arrays=to_numpy(setup.task.arrays()))
