"""Kernels in C++ for what XLA's CPU backend is slow at: loops of small products over time, and normal numbers.

They are compiled when the package is installed (``build.py``), if there is a compiler, for several instruction sets;
the processor decides which one runs (the environment variable ``POPRNN_KERNELS`` may name a lesser one, ``avx2`` or
``plain``). Without them, with ``POPRNN_KERNELS=0``, on other devices and in other precisions everything runs by XLA
alone, equal to rounding. The formulas of a block's steps are in ``steps.h``.
"""

import contextlib
import ctypes
import functools
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from poprnn.core import backend, loops, mapping
from poprnn.core.arrays import Array, Count, Float, Int, Scalar, UInt8, UInt32

VARIABLE = "POPRNN_KERNELS"
"""Environment variable; 0 turns the kernels off, ``avx2`` or ``plain`` asks for the kernels of lesser processors."""
ACTIVATIONS = ("relu", "leaky_relu", "tanh", "softplus", "sigmoid", "identity")
"""In the order of ``steps.h``."""
_LIBRARY = Path(__file__).with_name("_kernels.so")
_TARGETS = ("pack", "forward", "backward", "marks", "outer", "normals")


def instructions() -> str | None:
    """Which instruction set the kernels use here (``avx512``, ``avx2`` or ``plain``); ``None``: there are no kernels.

    >>> instructions() in ("avx512", "avx2", "plain", None)
    True
    """
    return None if os.environ.get(VARIABLE) == "0" else _load()


def status() -> str:
    """What :func:`instructions` says, for people."""
    if name := instructions():
        return f"compiled kernels ({name})"
    if os.environ.get(VARIABLE) == "0":
        return f"XLA alone ({VARIABLE}=0)"
    return "XLA alone (no kernels for this machine and jaxlib; `python -m poprnn.core.native.build` compiles them)"


_off: ContextVar[bool] = ContextVar("off", default=False)


@contextlib.contextmanager
def without() -> Iterator[None]:
    """Inside, what is traced runs by XLA alone (so that operations can be counted)."""
    token = _off.set(True)
    try:
        yield
    finally:
        _off.reset(token)


def serve() -> bool:
    """Whether what is being traced may call the kernels: one member at a time, compiled, on a CPU."""
    if _off.get() or loops.are_python() or mapping.is_vmapped():
        return False
    return backend.is_cpu() and instructions() is not None


@functools.cache
def _load() -> str | None:
    """Register the kernels with XLA."""
    try:
        library = ctypes.CDLL(str(_LIBRARY))
        library.poprnn_instructions.restype = ctypes.c_char_p
        name = library.poprnn_instructions().decode()
        for target in _TARGETS:
            handler = jax.ffi.pycapsule(getattr(library, f"poprnn_{target}"))
            jax.ffi.register_ffi_target(f"poprnn_{target}", handler, platform="cpu")
    except (OSError, AttributeError, RuntimeError, ValueError):  # not built, or for another machine or another jaxlib
        return None
    return name


TELLING = ("relu", "tanh", "sigmoid", "identity")
"""Activations whose value tells their slope."""


class Form(NamedTuple):
    """Numbers of a block's steps, d(t) = e(t) + h(t-1) M', h(t) = f(d(t)) or h(t-1) + leak (f(d(t)) - h(t-1))."""

    activation: str
    slope: Scalar | float
    """f's slope below zero (``leaky_relu``)."""
    leak: Float[Array, "unit"] | None


class Skips(NamedTuple):
    """Skips through time in a block, h(t) <- w h(t) + (1 - w) a where one arrives, lane by lane.

    Where one begins, a = h(t-1) + reach leak (f(d(t)) - h(t-1)) in the first lane, and h(t-1) in the second. At a
    weight of 1 the block is the one without skips, and the anchors stay as they are.
    """

    marks: UInt8[Array, "lane time trial"]
    """From :func:`marks`."""
    weight: Scalar
    """w."""
    reach: Count
    """0 where there is no leak."""
    anchors: tuple[Float[Array, "trial unit"], ...]
    """a of each lane, the latest; on the way back its cotangent."""


def pack(matrix: Float[Array, "unit unit"], *, transposed: bool) -> Float[Array, "number"]:
    """A matrix as the other functions want it: transposed for :func:`forward`, as it is for :func:`backward`."""
    n = matrix.shape[0]
    return _call("pack", jax.ShapeDtypeStruct((n * (-(-n // 16) * 16),), jnp.float32), matrix, transposed=transposed)


def forward(
    form: Form,
    packed: Array,
    external: Float[Array, "time trial unit"],
    states: Float[Array, "row trial unit"],
    drives: Float[Array, "row trial unit"] | None,
    base: Count | int,
    n_steps: Count,
    skips: Skips | None = None,
) -> tuple[Array, Array | None, tuple[Array, ...]]:
    """``states``, whose row ``base`` stands before the block, and ``drives`` from there on, with a block written in.

    Also the skips' anchors after it.
    """
    kept, operands = jnp.zeros(0, jnp.float32) if drives is None else drives, _operands(skips)
    out = _call(
        "forward",
        (_like(states), _like(kept), *map(_like, operands[2:])),
        packed,
        *_numbers(form),
        external,
        states,
        kept,
        _places(base, n_steps),
        *operands,
        activation=_code(form),
        aliases={4: 0, 5: 1, 9: 2, 10: 3},
    )
    return out[0], None if drives is None else out[1], _anchors(skips, out[2:])


def backward(
    form: Form,
    packed: Array,
    states: tuple[Float[Array, "row trial unit"], Count | int],
    drives: tuple[Float[Array, "row trial unit"], Count | int] | None,
    g_after: Float[Array, "time trial unit"],
    g: Float[Array, "trial unit"],
    g_matrix: Float[Array, "unit unit"],
    g_leak: Float[Array, "unit"] | None,
    steps: tuple[Count, Count],
    skips: Skips | None = None,
) -> tuple[Array, Array, Array | None, Array, tuple[Array, ...]]:
    """Back through a block, from the last of ``steps`` to the first.

    States and drives come with the row where the block begins; drives may be left out where :func:`needs_drives` does
    not ask for them. ``g`` is the cotangent of the last state, ``g_after`` of every state as it is read. Returns the
    cotangent of the state before the block, the gradients of matrix and leak added to those given, the cotangents of
    all drives (0 outside of ``steps``), and those of the skips' anchors before the block.
    """
    leak, operands = jnp.zeros(0, jnp.float32) if g_leak is None else g_leak, _operands(skips)
    drives = drives or (jnp.zeros((0, *g.shape), jnp.float32), 0)
    g, g_matrix, leak, g_drives, *g_anchors = _call(
        "backward",
        (_like(g), _like(g_matrix), _like(leak), _like(g_after), *map(_like, operands[2:])),
        packed,
        *_numbers(form),
        states[0],
        drives[0],
        g_after,
        g,
        g_matrix,
        leak,
        _places(states[1], drives[1], *steps),
        *operands,
        activation=_code(form),
        aliases={6: 0, 7: 1, 8: 2, 12: 4, 13: 5},
    )
    return g, g_matrix, None if g_leak is None else leak, g_drives, _anchors(skips, g_anchors)


def needs_drives(activation: str, *, leaks: bool, skips: bool) -> bool:
    """Whether the way back needs the drives; otherwise it has what it needs in the states."""
    return leaks or skips or activation not in TELLING


def marks(
    n_since: Int[Array, "trial"],
    starts: Int[Array, "trial period"],
    ends: Int[Array, "trial skip 2"] | None,
    span: Count,
    steps: tuple[Count, Count, int],
) -> tuple[UInt8[Array, "lane time trial"], Int[Array, "trial"]]:
    """Where skips begin (1) and arrive (2) in a block, and ``n_since`` after it.

    Regular ones arrive ``span`` steps after they began, and begin anew then and at every one of ``starts``; ``n_since``
    is the time since one began, 0 where one begins with the next step. ``ends`` are those of the strategic ones, if
    there is a lane for them, ``steps`` the time of the block's first step, how many there are, and for how many there
    is room.
    """
    first, n_steps, size = steps
    n_lanes = 1 if ends is None else 2
    ends = jnp.zeros((n_since.size, 0, 2), jnp.int32) if ends is None else ends
    shapes = jax.ShapeDtypeStruct((n_lanes, size, n_since.size), jnp.uint8), _like(n_since)
    got = _call("marks", shapes, n_since, starts, ends, _places(span, first, n_steps))
    return got[0], got[1]


def outer(a: Float[Array, "row i"], b: Float[Array, "row k"]) -> Float[Array, "i k"]:
    """``a' b``: fast where rows are many and i and k few."""
    return _call("outer", jax.ShapeDtypeStruct((a.shape[1], b.shape[1]), jnp.float32), a, b)


def normals(keys: UInt32[Array, "trial 2"], first_time: Count, n_steps: int, n: int) -> Float[Array, "time trial unit"]:
    """Standard normal numbers from the bits of ``keys.step_bits`` at ``first_time`` and the steps that follow."""
    shape = jax.ShapeDtypeStruct((n_steps, keys.shape[0], n), jnp.float32)
    return _call("normals", shape, keys, jnp.asarray(first_time, jnp.uint32))


def _call(name: str, result: Any, *operands: Array, aliases: dict[int, int] | None = None, **attributes: Any) -> Any:
    call = jax.ffi.ffi_call(f"poprnn_{name}", result, vmap_method="sequential", input_output_aliases=aliases)
    return call(*operands, **attributes)


def _like(array: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _places(*numbers: Count | int) -> Array:
    return jnp.stack([jnp.asarray(number, jnp.int32) for number in numbers])


def _numbers(form: Form) -> tuple[Array, Array]:
    leak = jnp.zeros(0, jnp.float32) if form.leak is None else form.leak
    return leak, jnp.asarray(form.slope, jnp.float32)


def _operands(skips: Skips | None) -> tuple[Array, ...]:
    """Marks, numbers and the anchors of both lanes; empty where there are none."""
    none = jnp.zeros(0, jnp.float32)
    if skips is None:
        return jnp.zeros((0, 0, 0), jnp.uint8), none, none, none
    numbers = jnp.stack([jnp.asarray(number, jnp.float32) for number in (skips.weight, skips.reach)])
    return skips.marks, numbers, *skips.anchors, *(none,) * (2 - len(skips.anchors))


def _anchors(skips: Skips | None, both: Sequence[Array]) -> tuple[Array, ...]:
    return () if skips is None else tuple(both[: len(skips.anchors)])


def _code(form: Form) -> Any:
    return np.int32(ACTIVATIONS.index(form.activation))
