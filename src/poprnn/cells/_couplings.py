"""How the parts of an assembly are coupled: the options that a group of modules and a whole assembly share."""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from poprnn.cells.modules.absolute_value import AbsoluteValue
from poprnn.cells.modules.contract import Module
from poprnn.core.arrays import Int
from poprnn.core.blueprint import Blueprint, NonNegative, NonNegativeInt, Tuple
from poprnn.core.errors import ConfigurationError


class Couplings(Blueprint):
    """Modules, and linear couplings L between them.

    feedback         L_ij = B_ij, L_ji = -M_j^-1 B_ij^T M_i        for each edge i < j
    hierarchical     L_ji = B_ji, L_ij = 0                         (i drives j)
    unconstrained    L_ij = B_ij, L_ji = B_ji                      (no certificate)

    Between groups every module of one is coupled to every module of the other. Where the metrics of groups carry
    factors c of their own (inside hierarchies, see :func:`~poprnn.core.contraction.assemblies.hierarchy_scale`), B is
    multiplied by sqrt(c_from / c_to), the same as before where they carry none: then neither direction of the feedback
    grows with the depth (our choice; any B certifies either way).
    """

    modules: tuple[Module, ...] = (AbsoluteValue(count=16),)
    """The parts, in order; ``count`` in a module repeats it."""
    coupling: Literal["feedback", "hierarchical", "unconstrained"] = "feedback"
    """What holds of L."""
    topology: Literal["all_to_all", "chain", "hub", "graph"] = "all_to_all"
    """Which parts are coupled: all, neighbours in the order, the first with all others (a global workspace), or those
    of ``edges``."""
    edges: Tuple[Tuple[NonNegativeInt]] | None = None
    """For ``graph``: pairs of parts [i, j], i < j, numbered from 0."""
    density: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of B's entries that exist, drawn at random."""
    gain: NonNegative = 1.0
    """B starts from N(0, gain² / units of the group)."""
    kept_rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """For ``hierarchical``: the share of the slowest part's rate that the metric of the whole is made to keep."""

    def __post_init__(self) -> None:
        name, n = type(self).__name__, self.n_parts
        if not self.modules:
            raise ConfigurationError(f"{name}: modules must name at least one module")
        if (self.edges is not None) != (self.topology == "graph"):
            raise ConfigurationError(f"{name}: edges and topology = 'graph' go together")
        for edge in self.edges or ():
            if len(edge) != 2 or not edge[0] < edge[1] < n:
                raise ConfigurationError(f"{name}: edges: {list(edge)}: must be [i, j] with i < j < {n}")
        if len(set(self.edges or ())) != len(self.edges or ()):
            raise ConfigurationError(f"{name}: edges: no pair may come twice")

    @property
    def n_parts(self) -> int:
        """Parts, repeated ones counted."""
        return sum(module.count for module in self.modules)

    def pairs(self) -> Int[np.ndarray, "edge 2"]:
        """Coupled parts, i < j."""
        n = self.n_parts
        if self.topology == "graph":
            return np.array(self.edges, int).reshape(-1, 2)
        first, second = np.triu_indices(n, 1)
        keep: Any = {"all_to_all": first >= 0, "chain": second == first + 1, "hub": first == 0}[self.topology]
        return np.stack([first[keep], second[keep]], axis=1)

    def levels(self) -> Int[np.ndarray, "part"]:
        """For each part, the longest path of edges that leads to it."""
        level = np.zeros(self.n_parts, int)
        for i, j in sorted(map(tuple, self.pairs())):  # edges go upwards: in this order each is final when it is read
            level[j] = max(level[j], level[i] + 1)
        return level
