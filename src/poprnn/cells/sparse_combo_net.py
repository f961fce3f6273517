"""Sparse Combo Net: many fixed sparse modules, trained feedback between them."""

from typing import Annotated

from pydantic import Field

from poprnn.cells._combo_net import ComboNet
from poprnn.cells.modules.absolute_value import AbsoluteValue
from poprnn.core.blueprint import NonNegativeInt, Positive


class SparseComboNet(ComboNet):
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

    static = ComboNet.static | {"density"}

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

    @property
    def module(self) -> AbsoluteValue:
        """Drawn sparse."""
        module = AbsoluteValue(count=self.n_modules, n_units=self.n_module_units, density=self.density)
        return module.substitute({name: getattr(self, name) for name in ("bound", "n_draws", "radius", "scaled")})
