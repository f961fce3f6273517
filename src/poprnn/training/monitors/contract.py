"""What a monitor is: a rule that ends a member's training with an outcome of its own."""

from typing import Any, ClassVar, Literal, NamedTuple

from poprnn.cells.contract import Cell, Parameters
from poprnn.core.arrays import Array, Bool, Count, Scalar, Tree
from poprnn.core.blueprint import Blueprint


class Observation(NamedTuple):
    """What a monitor sees of one member after an evaluation."""

    epoch: Count
    """Epochs finished."""
    last_epoch: bool | Array
    """Whether the budget is spent."""
    loss: Scalar
    """Mean loss on fresh trials."""
    scores: dict[str, Any]
    """Mean scores on fresh trials."""
    parameters: Parameters
    """Current weights."""
    finished: Bool[Array, ""]
    """Whether the curriculum is through."""
    diverged: Bool[Array, ""]
    """Whether loss, gradient or weights were not finite; the weights are the last finite ones."""
    cell: Cell | None = None
    """The member's dynamics, for ``host`` monitors."""


class Monitor(Blueprint):
    """Base of monitors. ``update`` says whether the member ends now, with ``outcome`` as the word for it.

    ``on = "host"`` monitors get NumPy arrays instead of traced ones, after each evaluation, one member at a time
    (for checks in float64 or by other libraries); their state must be arrays too.

    ``on = "population"`` monitors get NumPy arrays of all members at once, ``[member]`` first, NaN for members that
    ended earlier, and say who ends. If anybody does, the run is over: the others end as ``ended_with_population``.
    They never change a member's path before that.
    """

    family = "monitors"
    outcome: ClassVar[str]
    """One word for how the member ended."""
    on: ClassVar[Literal["device", "host", "population"]] = "device"
    overrules: ClassVar[bool] = False
    """For ``host`` monitors: whether its word stands even where another monitor has spoken."""

    def init(self) -> Tree:
        """State at the start of training."""
        return ()

    def update(self, state: Tree, observation: Observation) -> tuple[Tree, Bool[Array, ""] | bool]:
        """New state, and whether the member ends here."""
        raise NotImplementedError

    def recorded(self, state: Tree) -> dict[str, Any]:
        """Columns of the history that its state gives, one value for each member; none unless it says so."""
        del state
        return {}
