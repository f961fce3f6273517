"""Single-head curriculum."""

from typing import ClassVar

import jax.numpy as jnp

from poprnn.core.arrays import Array, Bool, Count
from poprnn.tasks.contract import Task
from poprnn.training.curricula.contract import Curriculum, up_to


class SingleHead(Curriculum):
    """One memory after another, N = n_min, n_min + 1, …, each answered by the same readout.

    Khajehabdollahi et al., ICLR 2024.

    >>> from poprnn.tasks import NParity
    >>> SingleHead().heads(NParity(n_max=4), 1)[0].tolist()     # stage 1: N = 3 alone
    [False, True, False]
    """

    cites = ("khajehabdollahi2024",)

    shared_readout: ClassVar[bool] = True

    def check(self, task: Task) -> None:
        """Needs heads to go through."""
        self.require_heads(task)

    def n_stages(self, task: Task) -> int:
        """One for each head."""
        return task.n_heads

    def heads(self, task: Task, index: Count) -> tuple[Bool[Array, "head"], Count]:
        """Only the one."""
        return up_to(task, jnp.asarray(index), index), jnp.asarray(index)
