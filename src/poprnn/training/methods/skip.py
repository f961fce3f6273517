"""Skips through time that bring the earlier state as it was."""

from typing import Any

from poprnn.cells.contract import Cell
from poprnn.core.arrays import Tree
from poprnn.training.methods._skips import SkipMethod


class Skip(SkipMethod):
    """Skip connections through time (the paper's SCTT): every theta steps the state of theta steps before is mixed in,

        r(t + theta) <- (1 - beta) r(t) + beta r_base(t + theta),

    r_base what theta steps of the base dynamics make of r(t); beta grows from ``base_weight`` to 1 in ``n_increments``
    equal steps. Gradients have a way back that is theta times as short. Works with every cell. Also known as ``sctt``.

    Soo, Goudar & Wang, Training biologically plausible recurrent neural networks on cognitive tasks with long-term
    dependencies, NeurIPS 2023.

    >>> method = Skip(base_weight=0.5, n_increments=5, annealing_steps=60)
    >>> [round(float(method.schedule(n)["weight"]), 1) for n in (0, 10, 20, 30, 40, 50, 99)]
    [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0]
    """

    def departure(self, cell: Cell, prepared: dict[str, Any], state: Tree, drive: Tree) -> Tree:
        """The state itself."""
        del cell, prepared, drive
        return state

    @property
    def reach(self) -> int:
        """No step: the state itself."""
        return 0
