"""Random keys: one integer seed, one stream per member and purpose.

Member ``k``'s stream depends only on ``(seed, k)``, never on how many members there are or where they run.
"""

import jax
import jax.numpy as jnp
from jax import lax

from poprnn.core import loops, native
from poprnn.core.arrays import Array, Count, Float, Key, UInt32

STREAMS = ("init", "train", "evaluate", "score", "rollout", "analysis", "probe")
"""Purposes with a stream of their own; new ones are appended, so that old runs keep their numbers."""


def member_key(seed: int | jax.Array, member: int | jax.Array, purpose: str) -> jax.Array:
    """Key of one member for one purpose.

    >>> import jax.numpy as jnp
    >>> a, b = member_key(0, 3, "init"), member_key(0, 3, "train")
    >>> bool(jnp.all(jax.random.key_data(a) == jax.random.key_data(b)))
    False
    """
    key = jax.random.fold_in(jax.random.key(seed), member)
    return jax.random.fold_in(key, STREAMS.index(purpose))


def step_bits(key: Key[Array, ""], time: Count, n: int) -> UInt32[Array, "n"]:
    """Random bits of one step, which depend on the key, the time and their place.

    Those of ``jax.random.bits`` (Threefry, 20 rounds) with the time in the upper half of the counter, where it leaves
    0: a key for every step, and the library's loop over rounds, take twice as long on a CPU.

    Reference: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011.

    >>> bool(jnp.all(step_bits(jax.random.key(0), 0, 4) == jax.random.bits(jax.random.key(0), 4)))
    True
    """
    words = jax.random.key_data(key)
    high, low = _threefry((words[0], words[1]), (jnp.asarray(time, jnp.uint32), jnp.arange(n, dtype=jnp.uint32)))
    return high ^ low


def step_normals(keys: Key[Array, "trial"], first: Count, n_steps: int, n: int) -> Float[Array, "time trial unit"]:
    """Standard normal numbers of ``n_steps`` steps from time ``first`` on, made of :func:`step_bits`.

    By a kernel where there is one: of the same bits, and equal to rounding.

    >>> step_normals(jax.random.split(jax.random.key(0), 3), 0, 4, 2).shape
    (4, 3, 2)
    """
    if native.serve():
        return native.normals(jax.random.key_data(keys), first, n_steps, n)
    draw = jax.vmap(lambda key, time: step_bits(key, time, n), (0, None))
    times = first + jnp.arange(n_steps)
    # bits are drawn apart: fused with what makes numbers of them they take half as long again
    return normal_from(loops.apart(lambda: jax.vmap(draw, (None, 0))(keys, times), times[0]))


def normal_from(bits: UInt32[Array, "..."]) -> Float[Array, "..."]:
    """Standard normal numbers, made of bits as ``jax.random.normal`` does.

    >>> key = jax.random.key(0)
    >>> bool(jnp.all(normal_from(jax.random.bits(key, 4)) == jax.random.normal(key, 4)))
    True
    """
    # 23 bits make a number in [1, 2), from there one between -1 and 1, both left out
    fraction = lax.bitcast_convert_type((bits >> 9) | jnp.uint32(0x3F800000), jnp.float32) - 1.0
    least = jnp.nextafter(jnp.float32(-1.0), jnp.float32(0.0))
    return jnp.float32(2**0.5) * lax.erf_inv(jnp.maximum(least, fraction * (1.0 - least) + least))


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def _threefry(key: tuple[Count, Count], counter: tuple[Array, Array]) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds, written out."""
    schedule = (*key, key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA))
    a, b = counter[0] + schedule[0], counter[1] + schedule[1]
    for i in range(5):
        for rotation in _ROTATIONS[i % 2]:
            a = a + b
            b = a ^ ((b << rotation) | (b >> (32 - rotation)))
        a, b = a + schedule[(i + 1) % 3], b + schedule[(i + 2) % 3] + jnp.uint32(i + 1)
    return a, b
