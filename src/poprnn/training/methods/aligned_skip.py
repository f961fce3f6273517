"""Skips through time that follow the dynamics."""

from typing import Any

import jax

from poprnn.cells.contract import Cell
from poprnn.core import trees
from poprnn.core.arrays import Count, Tree
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Task
from poprnn.training.methods._skips import SkipMethod


class AlignedSkip(SkipMethod):
    """Dynamics-aligned skip connections (the paper's DASC): every theta steps one long Euler step is mixed in,

        r(t + theta) <- (1 - beta) [r(t) + theta dt dr/dt(t)] + beta r_base(t + theta),

    r_base what theta steps of the base dynamics make of r(t); beta grows from ``base_weight`` to 1 in ``n_increments``
    equal steps. Unlike with ``skip`` the state that arrives is where the dynamics would have gone, as long as they
    change little over theta steps. Works with cells that discretise a differential equation. Also known as ``dasc``.

    Soo, Goudar & Wang, Training biologically plausible recurrent neural networks on cognitive tasks with long-term
    dependencies, NeurIPS 2023.

    >>> AlignedSkip(span=10).span
    10
    """

    def check(self, cell: Cell, task: Task) -> None:
        """The cell needs a derivative."""
        super().check(cell, task)
        if not cell.is_flow:
            raise ConfigurationError(
                f"method 'aligned_skip': cell '{cell.name()}' as it is set up has no time derivative; "
                "take method 'skip', or a cell that discretises a differential equation"
            )

    def departure(self, cell: Cell, prepared: dict[str, Any], state: Tree, drive: Tree) -> Tree:
        """One Euler step of theta dt, with the drive (input, noise) of the skip's first step."""
        change = trees.floats(cell.derivative(prepared, state, drive))
        return jax.tree.map(lambda r, dr: r + self.span * dr, trees.floats(state), change)

    @property
    def reach(self) -> Count:
        """Theta steps."""
        return self.span
