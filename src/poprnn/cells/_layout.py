"""Where everything in an assembly stands: modules, groups of modules, and the entries of the couplings between them.

All of it is known from the blueprint alone, in NumPy; nothing here depends on weights.
"""

import functools
import itertools
from typing import Any, NamedTuple

import numpy as np

from poprnn.cells._couplings import Couplings
from poprnn.cells.modules.contract import Leaf
from poprnn.core.arrays import Int

DENSE_SHARE, DENSE_UNITS = 0.5, 128
"""A matrix with more than this share of entries, or of no more units, is multiplied as a whole."""


class Kind(NamedTuple):
    """Modules with weights of their own, as far as places depend on them."""

    n_units: int
    n_modules: int


class Node(NamedTuple):
    """A group, as far as places depend on it."""

    parts: tuple[Any, ...]
    """Kinds and nodes, repeated groups written out."""
    coupling: str
    pairs: tuple[tuple[int, int], ...]
    levels: tuple[int, ...]
    density: float


class Stack(NamedTuple):
    """Modules of one kind, which stand next to one another."""

    n_units: int
    n_modules: int
    first_unit: int

    @property
    def units(self) -> slice:
        """Their units."""
        return slice(self.first_unit, self.first_unit + self.n_units * self.n_modules)


class Pairs(NamedTuple):
    """Couplings of a group between modules of two sizes."""

    to: Int[np.ndarray, "pair"]
    """Modules, numbered through the assembly."""
    from_: Int[np.ndarray, "pair"]
    shape: tuple[int, int]
    first: int
    """Where their entries begin in the group's B."""


class Coupled(NamedTuple):
    """A group and its couplings."""

    node: Node
    parts: tuple[slice, ...]
    """Modules of each part."""
    pairs: tuple[Pairs, ...]
    n_entries: int
    n_kept: int


class Strip(NamedTuple):
    """Modules of one size that receive from as many units: one stacked product."""

    modules: Int[np.ndarray, "module"]
    sources: Int[np.ndarray, "module source"]
    """Units they receive from."""
    entries: Int[np.ndarray, "module unit source"]
    """Places of the weights in the list of all couplings."""


class Layout(NamedTuple):
    """All places."""

    stacks: tuple[Stack, ...]
    groups: tuple[Coupled, ...]
    """Inner ones first; the last is the whole."""
    sizes: Int[np.ndarray, "module"]
    starts: Int[np.ndarray, "module"]
    to: Int[np.ndarray, "entry"]
    """Units that the couplings lead to, in the order in which they are worked out, ..."""
    from_: Int[np.ndarray, "entry"]
    """... and those they come from."""

    @property
    def n_units(self) -> int:
        """Units in all."""
        return int(self.sizes.sum())

    @property
    def is_dense(self) -> bool:
        """Whether L is multiplied as a whole."""
        return self.n_units <= DENSE_UNITS or len(self.to) > DENSE_SHARE * self.n_units**2

    @property
    def is_feedback(self) -> bool:
        """Whether all couplings are feedback."""
        return all(group.node.coupling == "feedback" for group in self.groups)

    def module_of_unit(self) -> Int[np.ndarray, "unit"]:
        """The module each unit belongs to."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


def layout_of(root: Couplings) -> Layout:
    """The layout of an assembly, worked out once for every shape.

    >>> from poprnn.cells.modules.symmetric import Symmetric
    >>> layout_of(Couplings(modules=(Symmetric(n_units=2, count=3),), topology="chain")).to[:8].tolist()
    [0, 0, 1, 1, 2, 2, 3, 3]
    """
    return _layout(_node(root))


def leaves_of(root: Couplings) -> tuple[Leaf, ...]:
    """The blueprints of the layout's stacks, in their order."""
    out: list[Leaf] = []
    for module in root.modules:
        if isinstance(module, Couplings):
            out += leaves_of(module) * module.count
        elif isinstance(module, Leaf):
            out.append(module)
    return tuple(out)


def couplings_of(root: Couplings) -> tuple[Couplings, ...]:
    """The blueprints of the layout's groups, in their order."""
    inner = (couplings_of(m) * m.count for m in root.modules if isinstance(m, Couplings))
    return (*itertools.chain.from_iterable(inner), root)


def _node(root: Couplings) -> Node:
    parts: list[Any] = []
    for module in root.modules:
        if isinstance(module, Couplings):
            parts += [_node(module)] * module.count
        elif isinstance(module, Leaf):
            parts.append(Kind(module.n_units, module.count))
    pairs = tuple((int(i), int(j)) for i, j in root.pairs())
    return Node(tuple(parts), root.coupling, pairs, tuple(int(k) for k in root.levels()), root.density)


@functools.lru_cache(maxsize=64)
def _layout(root: Node) -> Layout:
    stacks: list[Stack] = []
    groups: list[Coupled] = []
    sizes: list[int] = []

    def place(node: Node) -> slice:
        """Put a group's modules and couplings in their places; the modules it takes."""
        first, parts = len(sizes), []
        for part in node.parts:
            if isinstance(part, Node):
                parts.append(place(part))
                continue
            stacks.append(Stack(part.n_units, part.n_modules, sum(sizes)))
            parts += [slice(len(sizes) + k, len(sizes) + k + 1) for k in range(part.n_modules)]
            sizes.extend([part.n_units] * part.n_modules)
        groups.append(_coupled(node, tuple(parts), np.array(sizes)))
        return slice(first, len(sizes))

    place(root)
    all_sizes = np.array(sizes, np.int32)
    starts = (np.cumsum(all_sizes) - all_sizes).astype(np.int32)
    to, from_ = [np.zeros(0, int)], [np.zeros(0, int)]
    for group in groups:
        for pairs in group.pairs:
            for a, b in _directions(group, pairs):
                rows, columns = (_units(starts, all_sizes, m) for m in (a, b))
                shape = (len(a), rows.shape[1], columns.shape[1])
                to.append(np.broadcast_to(rows[:, :, None], shape).ravel())
                from_.append(np.broadcast_to(columns[:, None, :], shape).ravel())
    to_, from__ = (np.concatenate(a).astype(np.int32) for a in (to, from_))
    return Layout(tuple(stacks), tuple(groups), all_sizes, starts, to_, from__)


def _directions(group: Coupled, pairs: Pairs) -> list[tuple[np.ndarray, np.ndarray]]:
    """Modules (to, from) of the blocks that a set of pairs gives: B, and under feedback what answers it."""
    both = group.node.coupling == "feedback"
    return [(pairs.to, pairs.from_), (pairs.from_, pairs.to)] if both else [(pairs.to, pairs.from_)]


def _units(starts: np.ndarray, sizes: np.ndarray, modules: np.ndarray) -> Int[np.ndarray, "module unit"]:
    """Units of modules that are all of one size."""
    return starts[modules][:, None] + np.arange(sizes[modules[0]] if len(modules) else 0)


def _coupled(node: Node, parts: tuple[slice, ...], sizes: np.ndarray) -> Coupled:
    """A group's couplings, module by module, sorted by size."""
    blocks: list[tuple[int, int]] = []
    for i, j in node.pairs:
        product = itertools.product(range(parts[i].start, parts[i].stop), range(parts[j].start, parts[j].stop))
        for a, b in product:
            blocks += {"feedback": [(a, b)], "hierarchical": [(b, a)], "unconstrained": [(a, b), (b, a)]}[node.coupling]
    table = np.array(blocks, np.int32).reshape(-1, 2)  # of 32 bits: they are indices in programs of either precision
    shapes = sizes[table]
    pairs, first = [], 0
    for shape in np.unique(shapes, axis=0) if len(table) else []:
        mine = table[(shapes == shape).all(axis=1)]
        pairs.append(Pairs(mine[:, 0], mine[:, 1], (int(shape[0]), int(shape[1])), first))
        first += len(mine) * int(shape[0]) * int(shape[1])
    return Coupled(node, parts, tuple(pairs), first, max(round(node.density * first), min(first, 1)))


@functools.lru_cache(maxsize=64)
def _strips(root: Node) -> tuple[tuple[Strip, ...], Int[np.ndarray, "unit"]]:
    places = _layout(root)
    module = places.module_of_unit()
    entry_blocks: dict[int, list[tuple[int, np.ndarray]]] = {}
    first = 0
    for group in places.groups:
        for pairs in group.pairs:
            for a, b in _directions(group, pairs):
                size = int(places.sizes[a[0]] * places.sizes[b[0]])
                for k, (i, j) in enumerate(zip(a, b, strict=True)):
                    block = first + k * size + np.arange(size)
                    entry_blocks.setdefault(int(i), []).append((int(j), block.reshape(places.sizes[i], -1)))
                first += len(a) * size
    rows = {}
    for i, blocks in entry_blocks.items():
        blocks.sort(key=lambda block: block[0])
        sources = np.concatenate([np.flatnonzero(module == j) for j, _ in blocks])
        rows[i] = sources, np.concatenate([entries for _, entries in blocks], axis=1)
    strips = []
    for shape in sorted({entries.shape for _, entries in rows.values()}):
        mine = [i for i in sorted(rows) if rows[i][1].shape == shape]
        sources, entries = (np.stack([rows[i][k] for i in mine]).astype(np.int32) for k in (0, 1))
        strips.append(Strip(np.array(mine), sources, entries))
    silent = [i for i in range(len(places.sizes)) if i not in rows]
    written = [_units(places.starts, places.sizes, strip.modules).ravel() for strip in strips]
    written += [np.flatnonzero(np.isin(module, silent))]
    return tuple(strips), np.argsort(np.concatenate(written)).astype(np.int32)


def strips_of(root: Couplings) -> tuple[tuple[Strip, ...], Int[np.ndarray, "unit"]]:
    """L cut in stacks of rows without zeros, and the order that puts what they give (zeros last) back in place."""
    return _strips(_node(root))
