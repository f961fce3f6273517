"""The system of an unroll vectorised over trials and time: its forward and its backward pass (see ``unroll.py``)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from poprnn.cells.contract import Context, add_drives, add_product
from poprnn.core import loops, mapping, trees
from poprnn.core.arrays import Array, Bool, Count, Float, Key, Tree
from poprnn.core.keys import step_normals
from poprnn.core.loops import fori_loop
from poprnn.tasks.contract import Piecewise
from poprnn.training.dynamics import Carry, Dynamics, Prepared, context_at


class Sequence(NamedTuple):
    """What is given from outside, for a batch of trials, time first."""

    inputs: Tree
    """``[time, trial, input]``, or :class:`Piecewise`, trial first."""
    keys: Key[Array, "trial"]
    length: Count
    context: Context
    trials: Tree
    """Per trial, for closed loops; else ``None``."""
    first: Count | int = 0
    """Time of the first step (a long sequence comes in pieces)."""
    fixed: Tree = None
    """Prepared values that are not real numbers; filled in by :func:`unroll`."""
    no_gradient: Count | None = None
    """Steps at the beginning through which no gradient goes back."""


class Emitted(NamedTuple):
    """What comes out."""

    outputs: Tree
    """``emit``'s value at every step, ``[time, trial, …]``, zero beyond the length."""
    sums: Tree
    """``accumulate``'s value summed over the steps that exist, ``[trial, …]``."""


class Plan(NamedTuple):
    """Static choices for one shape of problem; see :func:`plan`."""

    block: int
    n_blocks: int
    segment: int
    """Blocks in a segment."""
    keep_drive: bool


NOISE_STREAM = 2**32 - 1
"""Where the keys of single steps (twice the time, and one more) do not come."""

Read = Callable[[Prepared, Carry], Tree]


class Kept(NamedTuple):
    """What the forward pass leaves for the backward pass."""

    states: Tree
    """States of one segment, one more than steps."""
    drives: Tree
    """Drives of one segment, or nothing."""
    noises: Tree
    """What noise with a memory was at the beginning of every block of one segment, or nothing."""
    starts: Tree
    """First states of all segments, if there are several."""


class Steps:
    """The system vectorised over trials (and time), its forward and its backward pass."""

    def __init__(self, dynamics: Dynamics, emit: Read | None, accumulate: Read | None, plan_: Plan) -> None:
        self.plan, self.dynamics, self._emit, self._accumulate = plan_, dynamics, emit, accumulate
        self.reads = emit is not None or accumulate is not None
        self.n_segments = -(-plan_.n_blocks // plan_.segment)

    # --- one step or block, all trials -------------------------------------------------------------------------

    def external(self, q: Prepared, noise: Tree, sequence: Sequence, t0: Count) -> tuple[Tree, Tree]:
        """Drive by the inputs and noise for a block, and the noise's memory after every step: ``[time, trial, …]``."""
        q = eqx.combine(q, sequence.fixed)
        steps = t0 + jnp.arange(self.plan.block)
        inputs, by_time = sequence.inputs, None
        splits = self.dynamics.task is None and self.dynamics.cell.splits_input
        if not isinstance(inputs, Piecewise):
            inputs, by_time = trees.zero_beyond(trees.rows(inputs, t0, self.plan.block), steps < sequence.length), 0
            inputs = self.input_products(q, inputs) if splits else inputs
        elif splits:  # what every piece adds to the units is worked out once a trial
            # apart on the way back too, or XLA adds the pieces' cotangents up again in every sum over them
            inputs = inputs._replace(values=lax.optimization_barrier(self.input_products(q, inputs.values)))

        def one(input: Tree, key: Array, step: Count, trial: Tree) -> Tree:
            time = sequence.first + step
            noise_key = jax.random.fold_in(key, 2 * time)
            context = context_at(time, sequence.context, trial)
            input = input.at(step) if isinstance(input, Piecewise) else input
            if splits:
                return self.dynamics.cell.input_noise(q, input, key=noise_key, context=context)
            return self.dynamics.external(q, input, key=noise_key, context=context)

        over_trials = jax.vmap(one, (0, 0, None, 0))
        drives = jax.vmap(over_trials, (by_time, None, 0, None))(inputs, sequence.keys, steps, sequence.trials)
        if noise is None:
            return drives, None

        keys = jax.vmap(lambda k: jax.random.fold_in(k, NOISE_STREAM))(sequence.keys)
        white = step_normals(keys, sequence.first + t0, self.plan.block, noise.shape[-1])  # time first, as it is used
        colour = jax.vmap(lambda memory, white: self.dynamics.cell.noise_block(q, memory, white), (0, 1), 1)
        memories, noises = colour(noise, white)
        return add_product(drives, noises), memories

    def input_products(self, q: Prepared, inputs: Float[Array, "a b input"]) -> Tree:
        """What the inputs add to the units before noise, over two axes at once."""
        return jax.vmap(jax.vmap(lambda x: self.dynamics.cell.input_product(q, x)))(inputs)

    def recurrent(self, q: Prepared, carry: Carry, sequence: Sequence) -> Tree | None:
        """Drive by the state, ``[trial, …]``."""
        q = eqx.combine(q, sequence.fixed)
        return jax.vmap(lambda c: self.dynamics.recurrent(q, c))(carry)

    def update(self, q: Prepared, carry: Carry, drive: Tree, time: Count, sequence: Sequence) -> Carry:
        """One step of all trials."""
        q = eqx.combine(q, sequence.fixed)

        def one(c: Carry, d: Tree, key: Array, trial: Tree) -> Carry:
            key = jax.random.fold_in(key, 2 * time + 1)
            return self.dynamics.update(q, c, d, key=key, context=context_at(time, sequence.context, trial))

        new = jax.vmap(one)(carry, drive, sequence.keys, sequence.trials)
        if not mapping.is_vmapped():  # else members of different lengths share one loop
            return new
        going = time - sequence.first < sequence.length
        return jax.tree.map(lambda a, b: jnp.where(going, a, b), new, carry)

    def read(self, q: Prepared, carries: Carry, exists: Bool[Array, "time"], sequence: Sequence) -> tuple[Tree, Tree]:
        """Outputs of a block and its contribution to the sums."""
        q = eqx.combine(q, sequence.fixed)

        def over_block(read: Read | None) -> Tree:
            return () if read is None else jax.vmap(jax.vmap(lambda c: read(q, c)))(carries)

        total = jax.tree.map(
            lambda a: jnp.sum(jnp.where(trees.like(exists, a), a, 0), axis=0), over_block(self._accumulate)
        )
        return over_block(self._emit), total

    # --- forward ----------------------------------------------------------------------------------------------

    def workspace(self, q: Prepared, carry: Carry, sequence: Sequence) -> Kept:
        """Cleared memory for states and drives."""
        n_steps = self.plan.segment * self.plan.block
        many = lambda n, tree: jax.tree.map(lambda a: jnp.zeros((n, *a.shape), a.dtype), tree)
        states, noises = many(n_steps + 1, self.stored(carry)), many(self.plan.segment, carry.noise)
        drives: Tree = ()
        if self.plan.keep_drive:
            shapes = jax.eval_shape(lambda: self.external(q, carry.noise, sequence, jnp.int32(0))[0])
            drives = jax.tree.map(lambda s: jnp.zeros((n_steps, *s.shape[1:]), s.dtype), shapes)
        starts = () if self.n_segments == 1 else many(self.n_segments, carry)
        return Kept(states, drives, noises, starts)

    def forward(
        self, q: Prepared, carry: Carry, sequence: Sequence, workspace: Kept | None
    ) -> tuple[Carry, Emitted, Kept | None]:
        """All segments; keeps states and drives if there is one segment, else every segment's start."""
        outputs, sums = self._empty_emitted(q, carry, sequence)
        if self.n_segments == 1:
            carry, kept, outputs, sums = self.segment(q, carry, sequence, 0, outputs, sums, workspace)
            return carry, Emitted(outputs, sums), kept
        starts = () if workspace is None else workspace.starts

        def one(i: Count, loop: Any) -> Any:
            carry, starts, outputs, sums = loop
            if jax.tree.leaves(starts):
                starts = trees.put(starts, carry, i)
            carry, _, outputs, sums = self.segment(q, carry, sequence, i, outputs, sums, None)
            return carry, starts, outputs, sums

        carry, starts, outputs, sums = fori_loop(0, self._n_segments_of(sequence), one, (carry, starts, outputs, sums))
        return carry, Emitted(outputs, sums), None if workspace is None else workspace._replace(starts=starts)

    def segment(
        self,
        q: Prepared,
        carry: Carry,
        sequence: Sequence,
        index: Count | int,
        outputs: Tree,
        sums: Tree,
        workspace: Kept | None,
    ) -> tuple[Carry, Kept | None, Tree, Tree]:
        """The blocks of one segment; with a workspace, states and drives are left in it."""
        size, first = self.plan.block, index * self.plan.segment
        keep = workspace is not None
        moving, noise = carry._replace(noise=None), carry.noise
        states, drives, noises, _ = workspace if workspace is not None else (self.one_block(moving), (), (), ())
        states = trees.put(states, self.stored(moving), 0)
        ready = self.ready_forward(q)
        length = mapping.population_maximum(sequence.length)

        def block(i: Count, loop: Any) -> Any:
            carry, noise, states, drives, noises, outputs, sums = loop
            t0 = (first + i) * size
            base = i * size if keep else 0
            noises = trees.put(noises, noise, i)
            external, memories = self.external(q, noise, sequence, t0)
            n_steps = jnp.clip(length - t0, 0, size)
            carry, states, drives = self.run_block(ready, carry, external, states, drives, base, t0, n_steps, sequence)
            if self.reads:
                values, total = self._read_block(q, trees.rows(states, base + 1, size), t0, sequence)
                outputs = trees.put_rows(outputs, values, t0)
                sums = jax.tree.map(jnp.add, sums, total)
            noise = None if noise is None else trees.row(memories, n_steps - 1)
            return carry, noise, states, drives, noises, outputs, sums

        n_blocks = jnp.clip(-(-length // size) - first, 0, self.plan.segment)
        loop = fori_loop(0, n_blocks, block, (moving, noise, states, drives, noises, outputs, sums))
        moving, noise, states, drives, noises, outputs, sums = loop
        kept = None if workspace is None else workspace._replace(states=states, drives=drives, noises=noises)
        return moving._replace(noise=noise), kept, outputs, sums

    def ready_forward(self, q: Prepared) -> Tree:
        """What :meth:`run_block` reads, made of the parameters once for all blocks."""
        return _transpose(q)

    def run_block(
        self,
        ready: Tree,
        carry: Carry,
        external: Tree,
        states: Tree,
        drives: Tree,
        base: Count | int,
        t0: Count,
        n_steps: Count,
        sequence: Sequence,
    ) -> tuple[Carry, Tree, Tree]:
        """The loop over a block's steps: the last carry, and states and drives written from row ``base`` on."""

        def step(j: Count, loop: Any) -> Any:
            carry, states, drives = loop
            q = _transpose(ready)
            drive = add_drives(trees.row(external, j), self.recurrent(q, carry, sequence))
            new = self.update(q, carry, drive, sequence.first + t0 + j, sequence)
            new = _in_python_without_gradient(new, t0 + j, sequence)
            return new, trees.put(states, new, base + j + 1), trees.put(drives, drive, base + j)

        carry, states, drives = fori_loop(0, n_steps, step, (carry, states, drives))
        return carry, *self._fill(states, drives, carry, external, base, n_steps)

    def _fill(
        self, states: Tree, drives: Tree, carry: Carry, external: Tree, base: Count | int, n_steps: Count
    ) -> tuple[Tree, Tree]:
        """The rest of a trial's last block holds its last state: functions of whole blocks need no masks."""

        def one(j: Count, loop: Any) -> Any:
            states, drives = loop
            return trees.put(states, carry, base + j + 1), trees.put(drives, trees.row(external, j), base + j)

        return fori_loop(n_steps, self.plan.block, one, (states, drives))

    def _read_block(self, q: Prepared, carries: Carry, t0: Count, sequence: Sequence) -> tuple[Tree, Tree]:
        """Outputs of the block that begins at ``t0``, zero beyond the length, and its contribution to the sums."""
        steps = t0 + jnp.arange(self.plan.block)
        exists = steps < sequence.length
        values, total = self.read(q, carries, exists, sequence)
        return trees.zero_beyond(_in_python_without_gradient(values, steps, sequence), exists), total

    def one_block(self, carry: Carry) -> Tree:
        """Memory for the states of one block, where something is read from them but nothing is kept."""
        if not self.reads:
            return ()
        return jax.tree.map(lambda a: jnp.zeros((self.plan.block + 1, *a.shape), a.dtype), self.stored(carry))

    def stored(self, carry: Carry) -> Carry:
        """What of a carry is written at every step."""
        return carry._replace(noise=None)

    def _n_segments_of(self, sequence: Sequence) -> Count:
        steps = self.plan.segment * self.plan.block
        return -(-mapping.population_maximum(sequence.length) // steps)

    def _empty_emitted(self, q: Prepared, carry: Carry, sequence: Sequence) -> tuple[Tree, Tree]:
        n_steps = self.plan.n_blocks * self.plan.block
        one = lambda: jax.tree.map(lambda a: a[None], carry._replace(noise=None))
        values, sums = jax.eval_shape(lambda: self.read(q, one(), jnp.ones(1, bool), sequence))
        return (
            jax.tree.map(lambda s: jnp.zeros((n_steps, *s.shape[1:]), s.dtype), values),
            jax.tree.map(jnp.zeros_like, sums),
        )


def _in_python_without_gradient(tree: Tree, time: Count, sequence: Sequence) -> Tree:
    """Where loops are Python's, automatic differentiation sees every step; elsewhere the walk back ends in time."""
    if sequence.no_gradient is None or not loops.are_python():
        return tree
    stopped = jnp.asarray(time < sequence.no_gradient)
    return jax.tree.map(lambda a: jnp.where(trees.like(stopped, a), lax.stop_gradient(a), a), tree)


def _transpose(q: Prepared) -> Prepared:
    """Matrices transposed; applied outside a loop and again inside, it hands the loop a transpose made once."""
    return jax.tree.map(lambda a: a.T if eqx.is_inexact_array(a) and a.ndim == 2 else a, q)
