"""Random keys: one integer seed, one stream per member and purpose.

Member ``k``'s stream depends only on ``(seed, k)``, never on how many members there are or where they run.
"""

import jax

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
