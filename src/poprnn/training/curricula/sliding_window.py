"""Multi-head curriculum with a sliding window."""

import jax.numpy as jnp

from poprnn.core.arrays import Array, Bool, Count
from poprnn.core.blueprint import PositiveInt
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Task
from poprnn.training.curricula.contract import Curriculum, up_to


class SlidingWindow(Curriculum):
    """Heads are added one by one until ``window`` are trained; then the window moves on by ``shift`` at a time.

    A head keeps its N (and its weights) when the window leaves it behind. Khajehabdollahi et al., ICLR 2024,
    appendix F (window 5; the released model: window 10, shift 5).

    >>> from poprnn.tasks import NParity
    >>> [SlidingWindow(window=2).heads(NParity(n_max=5), i)[0].tolist() for i in (0, 1, 2)]
    [[True, False, False, False], [True, True, False, False], [False, True, True, False]]
    """

    cites = ("khajehabdollahi2024",)

    window: PositiveInt = 5
    """Number of heads trained at a time."""
    shift: PositiveInt = 1
    """How many heads the window moves on when a stage is passed."""

    def __post_init__(self) -> None:
        if self.shift > self.window:
            raise ConfigurationError(
                f"SlidingWindow: shift = {self.shift} would skip heads with window = {self.window}"
            )

    def check(self, task: Task) -> None:
        """Needs heads to slide over."""
        self.require_heads(task)

    def n_stages(self, task: Task) -> int:
        """Growing to full width, then shifts until the last head is in."""
        growing = min(self.window, task.n_heads)
        return growing + -(-(task.n_heads - growing) // self.shift)

    def heads(self, task: Task, index: Count) -> tuple[Bool[Array, "head"], Count]:
        """The window; the last one may be cut short by the end of the heads."""
        index = jnp.asarray(index)
        shifts = jnp.maximum(index - self.window + 1, 0)
        newest = jnp.minimum(jnp.minimum(index, self.window - 1) + shifts * self.shift, task.n_heads - 1)
        return up_to(task, newest, shifts * self.shift), newest
