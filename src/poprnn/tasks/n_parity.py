"""N-parity: the sum of the last N bits modulo 2."""

from typing import Literal

import jax.numpy as jnp

from poprnn.core.arrays import Array, Int
from poprnn.core.blueprint import Fraction
from poprnn.tasks._memory import MemoryTask


class NParity(MemoryTask):
    """The class of head N after M bits is ``(x_{M-N+1} + … + x_M) mod 2``, for all N at once.

    Bits come one a step (or every ``bit_duration / dt`` steps); each sequence draws its own bit probability from
    U(0, 1), as in the released code of the paper. Khajehabdollahi et al., Emergent mechanisms for long timescales
    depends on training curriculum and affects performance in memory tasks, ICLR 2024.

    >>> import jax, jax.numpy as jnp
    >>> NParity(n_max=3).answers(jnp.array([1, 0, 1, 1]), 4).tolist()     # N = 2 and N = 3
    [0, 0]
    """

    bit_probability: Fraction | Literal["uniform"] = "uniform"

    def answers(self, bits: Int[Array, "bit"], n_bits: Int[Array, ""]) -> Int[Array, "head"]:
        """Parity of the last N of the first ``n_bits`` bits: one product with a band of ones, not a running sum."""
        age = n_bits - 1 - jnp.arange(bits.shape[0])
        window = (age[:, None] >= 0) & (age[:, None] < self.memories[None, :])
        counts = jnp.asarray(bits, jnp.float32) @ window.astype(jnp.float32)
        return counts.astype(jnp.int32) % 2
