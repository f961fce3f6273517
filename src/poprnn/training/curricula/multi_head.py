"""Multi-head curriculum."""

import jax.numpy as jnp

from poprnn.core.arrays import Array, Bool, Count
from poprnn.tasks.contract import Task
from poprnn.training.curricula.contract import Curriculum, up_to


class MultiHead(Curriculum):
    """Heads 0 … m are all trained; whenever the stage is passed the next one is added.

    Khajehabdollahi et al., ICLR 2024.

    >>> from poprnn.tasks import NParity
    >>> MultiHead().heads(NParity(n_max=4), 1)[0].tolist()     # stage 1: N = 2 and 3
    [True, True, False]
    """

    cites = ("khajehabdollahi2024",)

    def check(self, task: Task) -> None:
        """Needs heads to add."""
        self.require_heads(task)

    def n_stages(self, task: Task) -> int:
        """One for each head."""
        return task.n_heads

    def heads(self, task: Task, index: Count) -> tuple[Bool[Array, "head"], Count]:
        """All up to the newest."""
        return up_to(task, jnp.asarray(index)), jnp.asarray(index)
