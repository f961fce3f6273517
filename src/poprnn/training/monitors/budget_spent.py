"""The end of the budget."""

from typing import ClassVar

from poprnn.core.arrays import Array, Bool, Tree
from poprnn.training.monitors.contract import Monitor, Observation


class BudgetSpent(Monitor):
    """A member that no other monitor ended by the last epoch. Always on, and always last.

    >>> BudgetSpent.outcome
    'budget_spent'
    """

    outcome: ClassVar[str] = "budget_spent"

    def update(self, state: Tree, observation: Observation) -> tuple[Tree, Bool[Array, ""] | bool]:
        """Whether that was the last epoch."""
        return state, observation.last_epoch
