"""SVD Combo Net: modules with bounded singular values, everything trained."""

from typing import Annotated, Literal

from pydantic import Field

from poprnn.cells._combo_net import ComboNet
from poprnn.cells.modules.singular_value import SingularValue


class SVDComboNet(ComboNet):
    """Modules under theorem 5, parameterised so that every gradient step keeps it; all arrays are trained.

    Dynamics and arrays are those of :class:`~poprnn.cells.assembly.Assembly` with one kind of module,
    :class:`~poprnn.cells.modules.singular_value.SingularValue`, all coupled with all. Default size: as the Sparse Combo
    Net's. Kozachkov, Ennis & Slotine, NeurIPS 2022, section 4.1.

    >>> import jax
    >>> sorted(SVDComboNet(n_modules=2, n_module_units=4).init(1, 1, key=jax.random.key(0)).trainable)
    ['B', 'U_0', 'V_0', 'W_in', 'W_out', 'b_out', 'bias', 's_0', 'theta_0']
    """

    slack: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """How far g times the largest singular value stays below 1."""
    orthogonal: Literal["cayley", "exponential"] = "cayley"
    """How skew matrices become orthogonal."""

    @property
    def module(self) -> SingularValue:
        """Of bounded singular values."""
        module = SingularValue(count=self.n_modules, n_units=self.n_module_units, orthogonal=self.orthogonal)
        return module.substitute({"slack": self.slack})
