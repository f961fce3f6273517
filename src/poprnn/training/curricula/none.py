"""No curriculum: one head from scratch."""

import jax.numpy as jnp

from poprnn.core.arrays import Array, Bool, Count
from poprnn.core.blueprint import NonNegativeInt
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Task
from poprnn.training.curricula.contract import Curriculum, up_to


class None_(Curriculum):
    """Train on one head only, from the start (on the whole task where it has no heads).

    Khajehabdollahi et al., ICLR 2024, figure 3a: one N at a time, 50 epochs or 98 %.

    >>> from poprnn.tasks import NParity
    >>> None_().heads(NParity(n_max=4), 0)[0].tolist()
    [False, False, True]
    """

    cites = ("khajehabdollahi2024",)

    traced = frozenset({"head"})

    head: NonNegativeInt | None = None
    """Which head; ``None``: the last (the largest N). May differ between members."""
    shared_readout: bool = False  # type: ignore[misc]
    """Whether the head is answered by the readout of head 0, as after ``single_head`` (for retraining)."""

    def check(self, task: Task) -> None:
        """The head must exist."""
        if self.head is not None and self.head >= task.n_heads:
            raise ConfigurationError(f"None_: head = {self.head}: the task has heads 0 … {task.n_heads - 1}")

    def heads(self, task: Task, index: Count) -> tuple[Bool[Array, "head"], Count]:
        """The one head."""
        head = jnp.asarray(task.n_heads - 1 if self.head is None else self.head)
        return up_to(task, head, head), head
