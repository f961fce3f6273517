"""Divergence."""

from typing import ClassVar

from poprnn.core.arrays import Array, Bool, Tree
from poprnn.training.monitors.contract import Monitor, Observation


class Diverged(Monitor):
    """A loss, a gradient or a weight that is not finite ends a member. Always on.

    Training checks every step; the member stops at that step and keeps its last finite weights.

    >>> Diverged.outcome
    'diverged'
    """

    outcome: ClassVar[str] = "diverged"

    def update(self, state: Tree, observation: Observation) -> tuple[Tree, Bool[Array, ""] | bool]:
        """What training found."""
        return state, observation.diverged
