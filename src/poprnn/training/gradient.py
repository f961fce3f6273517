"""The backward pass of an unroll, block by block (see ``unroll.py``)."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from poprnn.cells.contract import add_drives
from poprnn.core import mapping, trees
from poprnn.core.arrays import Array, Bool, Count, Tree
from poprnn.core.loops import fori_loop
from poprnn.training.dynamics import Carry, Prepared
from poprnn.training.steps import Emitted, Kept, Sequence, Steps


class Place(NamedTuple):
    """Where a block stands."""

    position: Count
    """Its number in the segment."""
    base: Count
    """Row of the state before it."""
    t0: Count
    """Time of its first step."""
    steps: tuple[Count, Count]
    """The first and one past the last of its steps to walk."""
    counts: Bool[Array, "time"]
    """Which of its steps come after the warm-up."""


class GradientSteps(Steps):
    """Steps that also know their gradient."""

    def backward(
        self, q: Prepared, sequence: Sequence, kept: Kept, carry_cotangent: Carry, emitted_cotangent: Emitted
    ) -> tuple[Prepared, Carry]:
        """Gradients in the prepared parameters and in the first carry."""
        loop = jax.tree.map(jnp.zeros_like, q), trees.floats(carry_cotangent._replace(noise=None))
        if self.n_segments == 1:
            return self._without_start(sequence, *self.segment_backward(q, sequence, kept, 0, emitted_cotangent, *loop))
        n_segments = self._n_segments_of(sequence)
        first_segment = self._first_step(sequence) // (self.plan.segment * self.plan.block)
        empty = self._empty_emitted(q, trees.row(kept.starts, 0), sequence)

        def one(i: Count, loop: Any) -> Any:
            states, drives, noises, *gradients = loop
            index = n_segments - 1 - i
            again = Kept(states, drives, noises, kept.starts)
            segment = self.segment(q, trees.row(kept.starts, index), sequence, index, *empty, again)
            again = segment[1] or again
            return *again[:3], *self.segment_backward(q, sequence, again, index, emitted_cotangent, *gradients)

        loop = fori_loop(0, n_segments - first_segment, one, (*kept[:3], *loop))[3:]
        return self._without_start(sequence, *loop)

    def _first_step(self, sequence: Sequence) -> Count | int:
        """The step at which the walk back ends, one number for all members that run together."""
        return 0 if sequence.no_gradient is None else -mapping.population_maximum(-sequence.no_gradient)

    def _without_start(self, sequence: Sequence, g_q: Tree, g_carry: Tree) -> tuple[Tree, Tree]:
        """No gradient reaches the first carry where the walk back ended before it."""
        if sequence.no_gradient is None:
            return g_q, g_carry
        reached = sequence.no_gradient <= 0
        return g_q, jax.tree.map(lambda a: jnp.where(reached, a, jnp.zeros_like(a)), g_carry)

    def segment_backward(
        self,
        q: Prepared,
        sequence: Sequence,
        kept: Kept,
        index: Count | int,
        cotangent: Emitted,
        g_q: Tree,
        g_carry: Tree,
    ) -> tuple[Tree, Tree]:
        """Walk the blocks of one segment backwards."""
        size, first = self.plan.block, index * self.plan.segment
        length = mapping.population_maximum(sequence.length)
        n_blocks = jnp.clip(-(-length // size) - first, 0, self.plan.segment)
        ready = self.ready_backward(q)
        first_block = jnp.clip(self._first_step(sequence) // size - first, 0, n_blocks)

        def block(i: Count, loop: Any) -> Any:
            g_q, g_carry, memory = loop
            position = n_blocks - 1 - i
            base, t0 = position * size, (first + position) * size
            exists, counts = self._which_count(t0, sequence)
            after = trees.rows(kept.states, base + 1, size)
            g_read, g_after = self._read_backward(q, after, exists & counts, sequence, cotangent, t0)
            g_q = jax.tree.map(jnp.add, g_q, g_read)
            steps = jnp.clip(self._first_step(sequence) - t0, 0, size), jnp.clip(length - t0, 0, size)
            place = Place(position, base, t0, steps, counts)
            return self.walk_block(q, ready, kept, sequence, place, g_q, g_carry, g_after, memory)

        memory = self.memory_of_block(g_carry)
        return fori_loop(0, n_blocks - first_block, block, (g_q, g_carry, memory))[:2]

    def ready_backward(self, q: Prepared) -> Tree:
        """What :meth:`walk_block` reads beside the parameters, made once for all blocks."""
        del q
        return ()

    def memory_of_block(self, g_carry: Tree) -> Tree:
        """Memory that passes from block to block: cotangents of a block's states.

        Cleared once: the block visited first is the only one that may be shorter.
        """
        return jax.tree.map(lambda a: jnp.zeros((self.plan.block, *a.shape), a.dtype), g_carry)

    def walk_block(
        self,
        q: Prepared,
        ready: Tree,
        kept: Kept,
        sequence: Sequence,
        place: Place,
        g_q: Tree,
        g_carry: Tree,
        g_after: Tree,
        memory: Tree,
    ) -> tuple[Tree, Tree, Tree]:
        """Back through one block: its gradients added to ``g_q``, and the cotangent of the carry before it."""
        del ready
        position, base, t0, steps, counts = place
        size = self.plan.block
        before = trees.rows(kept.states, base, size)
        matrices, vectors = eqx.partition(q, lambda a: a.ndim >= 2)
        drive, matrices_vjp, rest = jax.vjp(
            lambda m: trees.split(self._drive(eqx.combine(m, vectors), kept, position, sequence, t0)),
            matrices,
            has_aux=True,
        )
        _, vectors_vjp = jax.vjp(
            lambda v: trees.floats(self._drive(eqx.combine(matrices, v), kept, position, sequence, t0)), vectors
        )
        drives, row = (kept.drives, base) if self.plan.keep_drive else (trees.join(drive, rest), 0)
        first_step = sequence.first + t0
        g_carry, memory = self._loop_backward(
            q, (kept.states, base), (drives, row), sequence, first_step, steps, g_carry, g_after, memory
        )
        if sequence.no_gradient is not None:  # the memory still holds the block after this one
            memory = trees.zero_beyond(memory, counts)
        drive = trees.rows(drives, row, size) if self.plan.keep_drive else drives
        g_update, g_drive = self._update_backward(q, before, drive, sequence, first_step, memory)
        # the matrices' products contract the long axis, the vectors' sums run over it
        g_linear = eqx.combine(*matrices_vjp(long_axis_last(g_drive)), *vectors_vjp(g_drive))
        return jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), g_q, g_update, g_linear), g_carry, memory

    def _which_count(self, t0: Count, sequence: Sequence) -> tuple[Bool[Array, "time"], Bool[Array, "time"]]:
        """Which of a block's steps exist, and which come after the warm-up."""
        steps = t0 + jnp.arange(self.plan.block)
        exists = steps < sequence.length
        return exists, jnp.ones_like(exists) if sequence.no_gradient is None else steps >= sequence.no_gradient

    def _drive(self, q: Prepared, kept: Kept, position: Count, sequence: Sequence, t0: Count) -> Tree:
        """Drives of the block at a position in its segment, as a function of the parameters."""
        before = trees.rows(kept.states, position * self.plan.block, self.plan.block)
        recurrent = jax.vmap(lambda c: self.recurrent(q, c, sequence))(before)
        return add_drives(self.external(q, trees.row(kept.noises, position), sequence, t0)[0], recurrent)

    def _read_backward(
        self, q: Prepared, after: Carry, exists: Array, sequence: Sequence, cotangent: Emitted, t0: Count
    ) -> tuple[Tree, Tree]:
        """Gradient of readout and sums: in the parameters, and in the states after every step of the block."""
        floats, rest = trees.split(after)
        g_out = trees.rows(cotangent.outputs, t0, self.plan.block)
        g_out = trees.zero_beyond(trees.floats(g_out), exists)
        _, vjp = jax.vjp(lambda q, f: trees.floats(self.read(q, trees.join(f, rest), exists, sequence)), q, floats)
        return vjp((long_axis_last(g_out), trees.floats(cotangent.sums)))

    def _loop_backward(
        self,
        q: Prepared,
        states: tuple[Carry, Count | int],
        drives: tuple[Tree, Count | int],
        sequence: Sequence,
        first_step: Count,
        steps: tuple[Count, Count],
        g_carry: Tree,
        g_after: Tree,
        memory: Tree,
    ) -> tuple[Tree, Tree]:
        """The loop: cotangent of the carry from step to step; returns the first one, and ``memory`` filled with all.

        States before the steps and drives come as memory and the place where the block begins in it; ``steps`` are
        the first and one past the last of the block's steps to walk.
        """
        floats, rest = trees.split(states[0])
        drive_floats, drive_rest = trees.split(drives[0])

        def step(i: Count, loop: Any) -> Any:
            g, memory = loop
            j = steps[1] - 1 - i
            g = jax.tree.map(jnp.add, g, trees.row(g_after, j))
            memory = trees.put(memory, g, j)
            state, others = trees.row(floats, states[1] + j), trees.row(rest, states[1] + j)

            def update(state: Tree, d: Tree) -> Tree:
                d = trees.join(d, trees.row(drive_rest, drives[1] + j))
                return trees.floats(self.update(q, trees.join(state, others), d, first_step + j, sequence))

            g_state, g_drive = jax.vjp(update, state, trees.row(drive_floats, drives[1] + j))[1](g)
            g_state = jax.tree.map(jnp.add, g_state, self._recurrent_backward(q, state, others, g_drive, sequence))
            return g_state, memory

        return fori_loop(0, steps[1] - steps[0], step, (g_carry, memory))

    def _recurrent_backward(self, q: Prepared, state: Tree, others: Tree, g_drive: Tree, sequence: Sequence) -> Tree:
        primal, vjp = jax.vjp(lambda s: self.recurrent(q, trees.join(s, others), sequence), state)
        if primal is None:
            return jax.tree.map(jnp.zeros_like, state)
        if isinstance(primal, dict):  # drives without a recurrent part have no say here
            g_drive = {k: g_drive[k] for k in primal}
        return vjp(g_drive)[0]

    def _update_backward(
        self, q: Prepared, before: Carry, drive: Tree, sequence: Sequence, first_step: Count, total: Tree
    ) -> tuple[Tree, Tree]:
        """Gradient of a block's updates: in the parameters they read, and in the drives."""
        floats, rest = trees.split(drive)

        def updates(q: Tree, floats: Tree) -> Tree:
            times = first_step + jnp.arange(self.plan.block)
            new = jax.vmap(lambda c, d, t: self.update(q, c, d, t, sequence))(before, trees.join(floats, rest), times)
            return trees.floats(new)

        _, vjp = jax.vjp(updates, q, floats)
        return vjp(total)


def long_axis_last(tree: Tree) -> Tree:
    """Store cotangents ``[time, trial, unit]`` with time and trial along the rows of memory, values unchanged."""

    def store(a: Array) -> Array:
        if a.ndim < 3:
            return a
        # the first barrier keeps what computes `a` out of the transposition, where it would not be vectorised
        flat = lax.optimization_barrier(a).reshape(-1, a.shape[-1])
        return lax.optimization_barrier(flat.T).T.reshape(a.shape)

    return jax.tree.map(store, tree)
