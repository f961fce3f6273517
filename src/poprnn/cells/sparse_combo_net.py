"""Sparse Combo Net: many fixed sparse modules, trained feedback between them."""

from typing import Annotated, Literal

from pydantic import Field

from poprnn.cells._assembly import AssemblyCell
from poprnn.cells._couplings import Couplings
from poprnn.cells.modules.absolute_value import AbsoluteValue
from poprnn.core.blueprint import NonNegative, NonNegativeInt, Positive, PositiveInt


class SparseComboNet(AssemblyCell):
    """Modules under theorem 1, drawn sparse and fixed; only the couplings, the input and the readout are trained.

    Dynamics and arrays are those of :class:`~poprnn.cells.assembly.Assembly` with one kind of module,
    :class:`~poprnn.cells.modules.absolute_value.AbsoluteValue`, all coupled with all. The defaults have
    120 · 32² + 1,024 + 5,130 = 129,034 trainable numbers for one input and ten outputs. Defaults: Kozachkov, Ennis &
    Slotine, NeurIPS 2022, sections 4.2.2 and 4.2.3 (their best network).

    >>> import jax
    >>> trainable = SparseComboNet().init(1, 10, key=jax.random.key(0)).trainable
    >>> sum(a.size for a in trainable.values())
    129034
    """

    static = AssemblyCell.static | {"density", "coupling_density"}

    n_modules: PositiveInt = 16
    """Number of modules."""
    n_module_units: PositiveInt = 32
    """Units in each."""
    density: Annotated[float, Field(ge=0, le=1)] = 0.033
    """Share of a module's entries that are not zero."""
    bound: Positive = 1.0
    """Largest absolute value of an entry as drawn."""
    n_draws: NonNegativeInt = 5000
    """Draws after which a module is scaled to be stable instead (see AbsoluteValue)."""
    radius: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Spectral radius that is scaled to."""
    scaled: bool = False
    """Whether every module is."""
    coupling: Literal["feedback", "unconstrained"] = "feedback"
    """``unconstrained``: the paper's control L = B, both directions trained, no certificate."""
    topology: Literal["all_to_all", "chain", "hub"] = "all_to_all"
    """Which modules are coupled."""
    coupling_density: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the entries of B that exist."""
    gain: NonNegative = 1.0
    """B starts from N(0, gain² / units)."""

    @property
    def body(self) -> Couplings:
        """The modules and their feedback."""
        module = AbsoluteValue(count=self.n_modules, n_units=self.n_module_units, density=self.density)
        own = {name: getattr(self, name) for name in ("bound", "n_draws", "radius", "scaled")}
        couplings = Couplings(coupling=self.coupling, topology=self.topology, density=self.coupling_density)
        return couplings.substitute({"modules": (module.substitute(own),), "gain": self.gain})
