"""An assembly as a module of another."""

from poprnn.cells._couplings import Couplings
from poprnn.cells.modules.contract import Module
from poprnn.core.blueprint import PositiveInt


class Group(Couplings, Module):
    """Modules coupled with one another, which together are one module of a larger assembly; groups nest to any depth.

    With ``count`` every copy has weights of its own. The metric of a group is block-diagonal, made of its parts': as
    they are under feedback, in a hierarchy times e^(2k) for parts of level k.

    >>> from poprnn.cells.modules.symmetric import Symmetric
    >>> pair = Group(modules=(Symmetric(n_units=4, count=2),), coupling="hierarchical")
    >>> Group(modules=(pair, Symmetric(n_units=8)), topology="chain").pairs().tolist()
    [[0, 1]]
    """

    cites = ("kozachkov2022",)

    count: PositiveInt = 1
    """Number of such groups."""
