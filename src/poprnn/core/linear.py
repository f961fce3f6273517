"""LAPACK on many small matrices inside compiled programs.

jaxlib hands the matrices of a stack to XLA's pool of threads and waits until they are done. A program that runs on
that pool itself, as those of several devices may, then waits for threads that all wait like it: for ever. A single
matrix asks for no other thread, so here matrices come one after another. That is as fast where every core has a device
of its own.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from poprnn.core.arrays import Array


def over_stack(function: Callable[..., Array], *stacks: Any) -> Any:
    """``function`` of every matrix in stacks ``[..., row, column]``; one after another: not to be vmapped itself.

    NumPy's stacks, which no pool works on, are handed over whole.

    >>> import jax.numpy as jnp
    >>> over_stack(jnp.linalg.inv, jnp.array([[[2.0]], [[4.0]]])).ravel().tolist()
    [0.5, 0.25]
    """
    leading = stacks[0].shape[:-2]
    if not leading or isinstance(stacks[0], np.ndarray):
        return function(*stacks)
    flat = tuple(a.reshape(-1, *a.shape[-2:]) for a in stacks)
    out = lax.map(lambda matrices: function(*matrices), flat)
    return jax.tree.map(lambda a: a.reshape(*leading, *a.shape[1:]), out)
