"""Loops that compile, or, for debugging, run step by step in Python so that values and tracebacks can be looked at."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
from jax import lax

from poprnn.core.arrays import Count, Tree

_in_python: ContextVar[bool] = ContextVar("in_python", default=False)


@contextlib.contextmanager
def in_python() -> Iterator[None]:
    """Inside, loops are Python's."""
    token = _in_python.set(True)
    try:
        yield
    finally:
        _in_python.reset(token)


def are_python() -> bool:
    """Whether loops run in Python now."""
    return _in_python.get()


def fori_loop(first: Count | int, past_last: Count | int, body: Callable[[Any, Tree], Tree], start: Tree) -> Tree:
    """``for i in range(first, past_last): start = body(i, start)``.

    >>> int(fori_loop(0, 4, lambda i, total: total + i, 0))
    6
    """
    if not _in_python.get():
        return lax.fori_loop(first, past_last, body, start)
    for i in range(int(first), int(past_last)):
        start = body(i, start)
    return start


def apart(function: Callable[[], Tree], number: Any) -> Tree:
    """``function()``, computed once and for all before whatever reads it.

    A compiler that fuses what is cheap to compute into its readers (XLA on CPUs does, barriers notwithstanding) would
    draw a trial's random numbers anew for every step that looks at them. It does not look into a branch, and cannot
    know that this one is always taken: ``number`` may be any traced integer.

    >>> int(apart(lambda: 3, jax.numpy.uint32(5)))
    3
    """
    if _in_python.get():
        return function()
    nothing = lambda: jax.tree.map(lambda s: jax.numpy.zeros(s.shape, s.dtype), jax.eval_shape(function))
    return lax.cond((number | 1) != 0, lambda: jax.tree.map(jax.numpy.asarray, function()), nothing)


def while_loop(condition: Callable[[Tree], Any], body: Callable[[Tree], Tree], start: Tree) -> Tree:
    """``while condition(start): start = body(start)``.

    >>> int(while_loop(lambda x: x < 10, lambda x: x * 2, 3))
    12
    """
    if not _in_python.get():
        return lax.while_loop(condition, body, start)
    while bool(condition(start)):
        start = body(start)
    return start
