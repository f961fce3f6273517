"""What the two ready assemblies share: equal modules, all of one kind, and feedback between them."""

from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import Field

from poprnn.cells._assembly import AssemblyCell
from poprnn.cells._couplings import Couplings
from poprnn.cells.modules.contract import Module
from poprnn.core.blueprint import NonNegative, PositiveInt


class ComboNet(AssemblyCell):
    """Modules of one size and kind, coupled by feedback."""

    static = AssemblyCell.static | {"coupling_density"}

    n_modules: PositiveInt = 16
    """Number of modules."""
    n_module_units: PositiveInt = 32
    """Units in each."""
    coupling: Literal["feedback", "unconstrained"] = "feedback"
    """``unconstrained``: the paper's control L = B, both directions trained, no certificate."""
    topology: Literal["all_to_all", "chain", "hub"] = "all_to_all"
    """Which modules are coupled."""
    coupling_density: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the entries of B that exist."""
    gain: NonNegative = 1.0
    """B starts from N(0, gain² / units)."""

    @property
    @abstractmethod
    def module(self) -> Module:
        """All modules, as one group."""

    @property
    def body(self) -> Couplings:
        """The modules and their feedback."""
        couplings = Couplings(coupling=self.coupling, topology=self.topology, density=self.coupling_density)
        # gain may be a member's own, which options that are checked at construction cannot be
        return couplings.substitute({"modules": (self.module,), "gain": self.gain})
