"""Trees of arrays that share a first axis."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from poprnn.core.arrays import Array, Bool, Count, Tree


def floats(tree: Tree) -> Tree:
    """The real-valued part of a tree, which is what gradients exist for; ``None`` in place of everything else.

    >>> floats({"h": jnp.ones(1), "n": 3})
    {'h': Array([1.], dtype=float32), 'n': None}
    """
    return split(tree)[0]


def split(tree: Tree) -> tuple[Tree, Tree]:
    """A tree as the part that gradients exist for and the rest; the inverse of :func:`join`."""
    return eqx.partition(tree, eqx.is_inexact_array)


def join(part: Tree, rest: Tree) -> Tree:
    """The tree whose parts these are."""
    return eqx.combine(part, rest)


def row(tree: Tree, i: Count | int) -> Tree:
    """Entry ``i`` along the first axis of every array."""
    return jax.tree.map(lambda a: lax.dynamic_index_in_dim(a, i, 0, keepdims=False), tree)


def rows(tree: Tree, start: Count | int, size: int) -> Tree:
    """``size`` entries from ``start`` on."""
    return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, size, 0), tree)


def put(tree: Tree, value: Tree, i: Count | int) -> Tree:
    """Every array with entry ``i`` replaced; a tree without arrays (nothing is kept) stays as it is."""
    if not jax.tree.leaves(tree):
        return tree
    return jax.tree.map(lambda a, b: lax.dynamic_update_index_in_dim(a, b, i, 0), tree, value)


def put_rows(tree: Tree, value: Tree, start: Count | int) -> Tree:
    """Every array with the entries from ``start`` on replaced."""
    return jax.tree.map(lambda a, b: lax.dynamic_update_slice_in_dim(a, b, start, 0), tree, value)


def like(mask: Bool[Array, "..."], a: Array) -> Array:
    """A mask over the first axis (or a single flag), shaped to apply to an array."""
    return mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim))


def zero_beyond(tree: Tree, exists: Bool[Array, "time"]) -> Tree:
    """Zero where the mask over the first axis says that nothing exists."""
    return jax.tree.map(lambda a: jnp.where(like(exists, a), a, jnp.zeros_like(a)), tree)
