"""N-DMS: delayed match to sample over N bits."""

import jax.numpy as jnp

from poprnn.core.arrays import Array, Int
from poprnn.tasks._memory import MemoryTask


class NDMS(MemoryTask):
    """The class of head N after M bits is 1 when ``x_M == x_{M-N+1}``, for all N at once.

    Bits are fair coins. Khajehabdollahi et al., Emergent mechanisms for long timescales depends on training
    curriculum and affects performance in memory tasks, ICLR 2024.

    >>> import jax.numpy as jnp
    >>> NDMS(n_max=3).answers(jnp.array([1, 0, 1, 1]), 4).tolist()     # N = 2: 1 == 1; N = 3: 1 == 0
    [1, 0]
    """

    def answers(self, bits: Int[Array, "bit"], n_bits: Int[Array, ""]) -> Int[Array, "head"]:
        """Whether the last of the first ``n_bits`` bits equals the one N - 1 before it."""
        first = jnp.maximum(n_bits - self.memories, 0)
        return (bits[n_bits - 1] == bits[first]).astype(jnp.int32)
