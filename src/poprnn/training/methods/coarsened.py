"""A coarser integration step at first."""

from typing import Any

import jax.numpy as jnp

from poprnn.cells.contract import Cell
from poprnn.core.arrays import Array, Bool, Count
from poprnn.core.blueprint import Positive
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Setting, Task
from poprnn.training.methods._annealing import AnnealedMethod


class Coarsened(AnnealedMethod):
    """Coarsened discretisation (the paper's CD): trials are unrolled with steps of theta · dt, theta stepped down to 1.

        theta = factor · (n - j) / n  for j < n,   1 for j = n,      j the number of changes made, n = ``n_increments``

    Trials are then theta times as short in steps, and gradients have as much shorter a way. Beyond theta · dt = tau
    the discretisation is unstable. The optimiser starts anew whenever theta changes (released code). Works with tasks
    whose time is continuous and cells with a ``dt``. Also known as ``cd``.

    Soo, Goudar & Wang, Training biologically plausible recurrent neural networks on cognitive tasks with long-term
    dependencies, NeurIPS 2023.

    >>> method = Coarsened(factor=10, n_increments=5, annealing_steps=60)
    >>> [round(float(method.schedule(n)["factor"])) for n in (0, 10, 20, 30, 40, 50, 99)]
    [10, 8, 6, 4, 2, 1, 1]
    """

    cites = ("soo2023",)

    factor: Positive = 10.0
    """theta at the start (the paper: 10)."""

    def check(self, cell: Cell, task: Task) -> None:
        """The cell needs a step to coarsen and the task a time that is continuous."""
        if not hasattr(cell, "dt"):
            raise ConfigurationError(f"method 'coarsened': cell '{cell.name()}' has no integration step 'dt'")
        if type(task).coarsen is Task.coarsen:
            raise ConfigurationError(
                f"method 'coarsened': task '{task.name()}' counts in steps, it cannot be discretised more coarsely"
            )

    def schedule(self, n_step: Count) -> dict[str, Any]:
        """``factor``: theta."""
        progress, ended = self.progress(n_step)
        return {"factor": jnp.where(ended, 1.0, jnp.maximum(self.factor * (1 - progress), 1.0))}

    def restarts(self, n_step: Count) -> Bool[Array, ""]:
        """At the first step of every stage but the first."""
        before = self.schedule(jnp.maximum(n_step - 1, 0))["factor"]
        return self.schedule(n_step)["factor"] != before

    def adapt(self, setting: Setting, schedule: dict[str, Any], task: Task) -> Setting:
        """Fewer, longer steps."""
        return task.coarsen(setting, schedule["factor"])
