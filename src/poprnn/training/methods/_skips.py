"""Skip connections through time: what the two kinds share."""

import itertools
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from poprnn.cells.contract import Cell, Context
from poprnn.core import trees
from poprnn.core.arrays import Array, Bool, Count, Int, PRNGKey, Tree
from poprnn.core.blueprint import Fraction, NonNegative, Tuple
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Task, Trial
from poprnn.training.methods._annealing import AnnealedMethod
from poprnn.training.methods.contract import mix

By = Tuple[Tuple[NonNegative]]


class Anchors(NamedTuple):
    """Where skips come from. Only real arrays are kept: nothing else is ever mixed."""

    n_since: Count
    """Steps since the regular skip in progress began."""
    regular: Tree
    strategic: Tree
    """Empty without strategic skips."""


class SkipMethod(AnnealedMethod):
    """Base of methods that mix a state from earlier in, with a weight for the base dynamics that grows to 1.

    Regular skips span ``span`` steps and begin anew at the start of every period of the task. Strategic skips reach
    from where to where the task (or ``strategic``) says, in addition.
    """

    cites = ("soo2023",)
    traced = AnnealedMethod.traced | {"span"}
    reads_trial: ClassVar[bool] = True

    span: Annotated[int, Field(ge=1, lt=2**31)] = 40
    """Steps that a regular skip spans, theta (the paper: 10, 20, 40)."""
    base_weight: Fraction = 0.5
    """beta at the start: the weight of the base dynamics where a skip arrives (the paper: 0.2, 0.5, 0.8)."""
    strategic: Literal["task"] | By | None = None
    """Skips besides the regular ones: the task's own, or pairs [from, to] of times in the units of dt."""

    def __post_init__(self) -> None:
        if not isinstance(self.strategic, tuple):
            return
        pairs = [tuple(pair) for pair in self.strategic]
        if any(len(pair) != 2 or pair[0] >= pair[1] for pair in pairs):
            raise ConfigurationError(f"{type(self).__name__}: strategic = {pairs}: each must be [from, later]")
        if any(a[1] > b[0] for a, b in itertools.pairwise(pairs)):
            raise ConfigurationError(f"{type(self).__name__}: strategic = {pairs}: must not overlap, in order of time")

    def schedule(self, n_step: Count) -> dict[str, Any]:
        """``weight``: beta, exactly 1 once the schedule has ended."""
        progress, ended = self.progress(n_step)
        return {"weight": jnp.where(ended, 1.0, self.base_weight + (1 - self.base_weight) * progress)}

    def init(self, state: Tree) -> Anchors:
        """Every trial begins with a regular skip."""
        anchor = trees.floats(state)
        return Anchors(jnp.asarray(0, jnp.int32), anchor, () if self.strategic is None else anchor)

    def departure(self, cell: Cell, prepared: dict[str, Any], state: Tree, drive: Tree) -> Tree:
        """What a skip that begins at ``state`` will bring to its end."""
        raise NotImplementedError

    def update(
        self,
        cell: Cell,
        prepared: dict[str, Any],
        state: Tree,
        memory: Anchors,
        drive: Tree,
        *,
        key: PRNGKey,
        context: Context,
    ) -> tuple[Tree, Anchors]:
        """The base step; skips begin at the state before it and arrive at the state after it."""
        new, others = trees.split(cell.update(prepared, state, drive, key=key, context=context))
        weight, period_begins = context.schedule["weight"], jnp.any(_period_starts(context) == context.time)
        begins = (memory.n_since == 0) | period_begins
        regular = _pick(begins, trees.floats(self.departure(cell, prepared, state, drive)), memory.regular)
        n_since = jnp.where(begins, 1, memory.n_since + 1)
        arrives = n_since == self.span
        new = mix(new, regular, jnp.where(arrives, weight, 1.0))
        strategic = memory.strategic
        if self.strategic is not None:
            first, last = self._strategic_ends(context, getattr(cell, "dt", 1.0))
            strategic = _pick(jnp.any(first == context.time), trees.floats(state), strategic)
            new = mix(new, strategic, jnp.where(jnp.any(last == context.time + 1), weight, 1.0))
        return trees.join(new, others), Anchors(jnp.where(arrives, 0, n_since), regular, strategic)

    def times(self, cell: Cell, context: Context) -> tuple[Int[Array, "period"], Int[Array, "skip 2"] | None]:
        """Steps with which regular skips begin anew; beginnings and ends of strategic ones; -1 stands for none."""
        if self.strategic is None:
            return _period_starts(context), None
        return _period_starts(context), jnp.stack(self._strategic_ends(context, getattr(cell, "dt", 1.0)), axis=-1)

    def _strategic_ends(self, context: Context, dt: float) -> tuple[Int[Array, "skip"], Int[Array, "skip"]]:
        """Steps at whose beginning strategic skips begin and end."""
        if isinstance(self.strategic, tuple):
            times = np.array(self.strategic, np.float32)
            steps = jnp.round(times / (dt if context.dt is None else context.dt)).astype(jnp.int32)
        else:
            steps = context.trial.skips
        real = steps[:, 1] > steps[:, 0]
        return jnp.where(real, steps[:, 0], -1), jnp.where(real, steps[:, 1], -1)

    def check(self, cell: Cell, task: Task) -> None:
        """Strategic skips of the task's need a task that has some."""
        if self.strategic == "task" and not task.has_skips:
            raise ConfigurationError(
                f"method '{self.name()}': task '{task.name()}' names no skips; give strategic = [[from, to], …]"
            )


def _period_starts(context: Context) -> Int[Array, "period"]:
    """First steps of the trial's periods, -1 for those that the trial does not have."""
    trial: Trial = context.trial
    if trial is None or not trial.periods:
        return jnp.zeros(0, jnp.int32)
    ends = jnp.stack(list(trial.periods.values())).astype(jnp.int32)
    return jnp.where(ends[:, 1] > ends[:, 0], ends[:, 0], -1)


def _pick(which: Bool[Array, ""] | bool, a: Tree, b: Tree) -> Tree:
    return jax.tree.map(lambda x, y: jnp.where(which, x, y), a, b)
