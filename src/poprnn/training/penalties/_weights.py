"""Base of penalties on named weight arrays."""

from typing import Any

from poprnn.core.arrays import Array, Float, Scalar
from poprnn.core.blueprint import Tuple
from poprnn.core.errors import ConfigurationError, nearest
from poprnn.training.penalties.contract import Penalty


class WeightPenalty(Penalty):
    """A sum over the arrays named in ``arrays`` of something done to each."""

    arrays: Tuple[str] = ("W",)
    """Which of the cell's (prepared) arrays; default: the recurrent weights."""

    def check(self, prepared: dict[str, Any]) -> None:
        """Every named array must exist."""
        for name in self.arrays:
            if name not in prepared:
                raise ConfigurationError(
                    f"penalty '{self.name()}': the cell has no array '{name}'{nearest(name, prepared)}"
                )

    def on_array(self, array: Float[Array, "..."]) -> Scalar:
        """The penalty of one array."""
        raise NotImplementedError

    def on_weights(self, prepared: dict[str, Any]) -> Scalar:
        """Sum over the named arrays."""
        return sum((self.on_array(prepared[name]) for name in self.arrays[1:]), self.on_array(prepared[self.arrays[0]]))
