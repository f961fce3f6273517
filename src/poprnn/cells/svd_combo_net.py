"""SVD Combo Net: modules with bounded singular values, everything trained."""

from typing import Annotated, Literal

from pydantic import Field

from poprnn.cells._assembly import AssemblyCell
from poprnn.cells._couplings import Couplings
from poprnn.cells.modules.singular_value import SingularValue
from poprnn.core.blueprint import NonNegative, PositiveInt


class SVDComboNet(AssemblyCell):
    """Modules under theorem 5, parameterised so that every gradient step keeps it; all arrays are trained.

    Dynamics and arrays are those of :class:`~poprnn.cells.assembly.Assembly` with one kind of module,
    :class:`~poprnn.cells.modules.singular_value.SingularValue`, all coupled with all. Default size: as the Sparse Combo
    Net's. Kozachkov, Ennis & Slotine, NeurIPS 2022, section 4.1.

    >>> import jax
    >>> sorted(SVDComboNet(n_modules=2, n_module_units=4).init(1, 1, key=jax.random.key(0)).trainable)
    ['B', 'U_0', 'V_0', 'W_in', 'W_out', 'b_out', 'bias', 's_0', 'theta_0']
    """

    static = AssemblyCell.static | {"coupling_density"}

    n_modules: PositiveInt = 16
    """Number of modules."""
    n_module_units: PositiveInt = 32
    """Units in each."""
    slack: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """How far g times the largest singular value stays below 1."""
    orthogonal: Literal["cayley", "exponential"] = "cayley"
    """How skew matrices become orthogonal."""
    coupling: Literal["feedback", "unconstrained"] = "feedback"
    """``unconstrained``: L = B, both directions trained, no certificate."""
    topology: Literal["all_to_all", "chain", "hub"] = "all_to_all"
    """Which modules are coupled."""
    coupling_density: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the entries of B that exist."""
    gain: NonNegative = 1.0
    """B starts from N(0, gain² / units)."""

    @property
    def body(self) -> Couplings:
        """The modules and their feedback."""
        module = SingularValue(count=self.n_modules, n_units=self.n_module_units, orthogonal=self.orthogonal)
        couplings = Couplings(coupling=self.coupling, topology=self.topology, density=self.coupling_density)
        return couplings.substitute({"modules": (module.substitute({"slack": self.slack}),), "gain": self.gain})
