"""What a task is: a generator of trials on the device, with its own loss and scores.

A task is written for one trial of one member; the unroll adds the trial axis, the mapping the member axis.
"""

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from poprnn.core.arrays import Array, Bool, Count, Float, Int, PRNGKey, Scalar, Tree
from poprnn.core.blueprint import Blueprint
from poprnn.core.errors import NotApplicableError


class Stage(NamedTuple):
    """Where a member stands in its curriculum; what a task may look at when it draws a batch."""

    active: Bool[Array, "head"]
    """Heads that are trained now."""
    newest: Count
    """Index of the head that was added last."""
    index: Count  # type: ignore[assignment]
    """Number of stages passed so far."""
    shared: bool = False
    """One readout (that of head 0) serves whichever head is active."""
    split: Literal["train", "evaluate"] = "train"
    """Tasks with a finite set of trials keep some for evaluation."""


class Setting(NamedTuple):
    """What one batch shares."""

    length: Count | int
    """Steps of the trials in this batch, at most the task's capacity."""
    dt: Scalar | float | None = None
    """Integration step of this batch; ``None`` leaves it to the cell."""
    extra: dict[str, Any] = {}  # noqa: RUF012
    """Anything else the task wants to remember (active heads, a condition, …)."""
    no_gradient: Count | int = 0
    """Steps at the beginning through which no gradient goes back (a warm-up)."""


class Piecewise(NamedTuple):
    """Values that stay the same for many steps: those of piece k from step ``starts[k]`` on, until the next begins.

    Worth its name where inputs have many channels: what they add to the units is then worked out once a piece.

    >>> pieces = Piecewise(jnp.array([[1.0], [2.0], [3.0]]), jnp.array([0, 2, 3]))
    >>> in_steps(pieces, 5)[:, 0].tolist()
    [1.0, 1.0, 2.0, 3.0, 3.0]
    """

    values: Float[Array, "piece channel"]
    starts: Int[Array, "piece"]
    """In order; equal ones for pieces that do not exist, of which the last counts. The first is taken for 0."""

    def at(self, time: Count) -> Float[Array, "channel"]:
        """Values at one step."""
        # a chain of selections and not an index: it becomes part of whatever reads it, and it is vectorised
        value = self.values[0]
        for k in range(1, self.values.shape[0]):
            value = jnp.where(time >= self.starts[k], self.values[k], value)
        return value


def in_steps(values: Tree, n_steps: int) -> Tree:
    """Step by step, ``[time, channel]``, whatever form the values have."""
    return jax.vmap(values.at)(jnp.arange(n_steps)) if isinstance(values, Piecewise) else values


class Trial(NamedTuple):
    """One trial. Steps beyond the setting's length hold anything and are never looked at."""

    inputs: Tree
    """``[time, input]``, or :class:`Piecewise`."""
    targets: Tree
    """``[time, output]`` or :class:`Piecewise`; for the last step only where ``task.readout == "last"``."""
    weights: Float[Array, "time"] | Tree = 1.0
    """Weight of each step in the loss; zero where the answer does not count."""
    periods: dict[str, Int[Array, "2"]] | None = None
    """By name the first step of a period and the one past its last, equal where a trial has no such period."""
    condition: Tree = None
    """What made this trial what it is (directions, coherence, …), for analyses."""
    skips: Int[Array, "skip 2"] | None = None
    """Where the task itself would have state skip through time: from the beginning of one step to that of another.

    Skips may follow one another but must not overlap; those with ``to <= from`` are none.
    """


class Task(Blueprint):
    """Base of all tasks. Subclasses give the sizes, :meth:`sample` and, where the defaults do not fit, the rest.

    A whole task in a few lines (remember the input's sign at the first step):

    >>> import jax, jax.numpy as jnp
    >>> class RememberSign(Task):
    ...     n_inputs, n_outputs, capacity = 1, 1, 10
    ...     def sample(self, setting, arrays, *, key):
    ...         x = jax.random.normal(key, (10, 1)).at[1:].set(0)
    ...         return Trial(x, jnp.broadcast_to(jnp.sign(x[0]), (10, 1)))
    >>> RememberSign().sample(None, (), key=jax.random.key(0)).inputs.shape
    (10, 1)
    """

    family = "tasks"

    readout: ClassVar[Literal["last", "all"]] = "all"
    """Whether the answer is read at the last step or at every step."""
    score: ClassVar[str] = "score"
    """The entry of :meth:`scores` by which curricula and monitors judge."""
    closed_loop: ClassVar[bool] = False
    """Whether inputs depend on the network's own outputs (then :meth:`begin` and :meth:`respond` exist)."""
    has_skips: ClassVar[bool] = False
    """Whether trials say where state may skip through time (``Trial.skips``)."""
    keeps_arrays: ClassVar[bool] = False
    """Whether :meth:`arrays` exist nowhere but in memory, so that a run folder must hold a copy."""
    n_inputs: ClassVar[int]
    n_outputs: ClassVar[int]
    capacity: ClassVar[int]
    """Largest number of steps a trial can have."""
    n_heads: ClassVar[int] = 1
    """Number of answers that a curriculum can switch on and off."""

    def arrays(self) -> Tree:
        """Data shared by all members (images, patterns), passed to :meth:`sample` as an argument."""
        return ()

    def draw(self, stage: Stage, *, key: PRNGKey) -> Setting:
        """What the next batch shares."""
        del stage, key
        return Setting(self.capacity)

    def coarsen(self, setting: Setting, factor: Scalar | float) -> Setting:
        """The setting with steps ``factor`` times as long, and fewer of them; for tasks whose time is continuous."""
        del setting, factor
        raise NotApplicableError(f"task '{self.name()}' counts in steps: it cannot be discretised more coarsely")

    def out_of_distribution(self) -> "Task":
        """The same question outside of what was trained on (longer trials, say), put to the same inputs and outputs.

        ``pr.evaluate(run.on(run.task.out_of_distribution()))`` scores a population on it.
        """
        raise NotApplicableError(f"task '{self.name()}' does not say what is out of its distribution")

    def sample(self, setting: Setting, arrays: Tree, *, key: PRNGKey) -> Trial:
        """One trial, of ``capacity`` steps in memory and ``setting.length`` in truth."""
        raise NotImplementedError

    def loss(self, outputs: Float[Array, "..."], trial: Trial, setting: Setting) -> Scalar:
        """Loss of one trial. Default: weighted mean squared error over the steps that exist."""
        return mean_squared_error(self, outputs, trial, setting)

    def scores(self, outputs: Float[Array, "..."], trial: Trial, setting: Setting) -> dict[str, Array]:
        """Named scores in [0, 1] of one trial (scalars or one per head; NaN where a head is not active).

        Default: the fraction of the target's variance within the trial that is explained (of its power, where the
        target is constant), not below 0.
        """
        weights, targets = step_weights(self, trial, setting), in_steps(trial.targets, self.capacity)
        error = jnp.sum(weights * (outputs - targets) ** 2)
        mean = jnp.sum(weights * targets) / jnp.maximum(jnp.sum(weights * jnp.ones_like(outputs)), 1e-9)
        # a target that is constant within its trial has no variance to explain; its power stands in
        total = jnp.sum(weights * (targets - mean) ** 2)
        total = jnp.where(total > 1e-6, total, jnp.sum(weights * targets**2))
        return {"score": jnp.clip(1 - error / jnp.maximum(total, 1e-9), 0, 1)}

    def head_name(self, head: int) -> str:
        """What a head is called in figures and histories."""
        return str(head)

    def begin(self, trial: Trial, *, key: PRNGKey) -> Tree:
        """Closed loop: the task's own state at the start of a trial."""
        raise NotImplementedError

    def respond(
        self, task_state: Tree, trial: Trial, time: Count, output: Float[Array, "output"], *, key: PRNGKey
    ) -> tuple[Tree, Float[Array, "input"]]:
        """Closed loop: the next input, from the network's output at the step before."""
        raise NotImplementedError


def step_weights(task: Task, trial: Trial, setting: Setting) -> Float[Array, "..."]:
    """The trial's weights shaped to multiply its targets, zero beyond the true length."""
    if task.readout == "last":
        return jnp.asarray(trial.weights)
    exists = jnp.arange(task.capacity) < setting.length
    return jnp.where(exists, jnp.broadcast_to(trial.weights, exists.shape), 0.0)[:, None]


def mean_squared_error(task: Task, outputs: Float[Array, "..."], trial: Trial, setting: Setting) -> Scalar:
    """``sum_t w_t mean_o (y_to - target_to)^2 / sum_t w_t`` over the steps that exist."""
    weights = step_weights(task, trial, setting)
    error = jnp.where(weights > 0, (outputs - in_steps(trial.targets, task.capacity)) ** 2, 0.0)
    total = jnp.sum(weights * jnp.ones_like(error))
    return jnp.sum(weights * error) / jnp.maximum(total, 1e-9)
