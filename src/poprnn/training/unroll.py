"""Running a system through time, and its gradient.

Time goes in blocks. For each block the drive by the inputs is one matrix product; then comes the loop, which does
one product with the recurrent weights and the element-wise rest; then readout and sums of the block at once. The
gradient walks the blocks backwards: the loop only carries the cotangent of the state from step to step and keeps it,
and the gradient of every parameter is taken for the whole block afterwards, the weights' as one product. Nothing is
computed beyond a batch's true length, which is a traced number: lengths never cause another compilation.

Kept between the passes: the states and, where they fit the cache, the drives (else they are computed again, one
product a block). Where even the states exceed the memory budget, only every segment's first state is kept and
segments are run again on the way back.

Two habits of the XLA CPU backend shaped this code (profiled): a product whose right-hand matrix is transposed inside
a loop is two to three times as slow as one with the transpose made once outside, and a product that contracts the
long axis is up to ten times as fast when its left-hand side is stored as ``[row, long]``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from poprnn.cells.contract import Context, add_drives
from poprnn.core import mapping
from poprnn.core.loops import fori_loop
from poprnn.core.arrays import Array, Bool, Count, Float, Key, Tree
from poprnn.training.dynamics import Carry, Dynamics, Prepared, context_at

BLOCK_BYTES = 256 * 2**10
"""Size of a block of states: a few of them fit a core's second-level cache."""
DRIVE_BYTES = 16 * 2**20
"""Drives are kept from the forward pass while the states take no more than this (share of the last-level cache)."""
STATE_BYTES = 512 * 2**20
"""Memory budget for the kept states of one member; beyond it segments are run again on the way back."""


class Sequence(NamedTuple):
    """What is given from outside, for a batch of trials, time first."""

    inputs: Float[Array, "time trial input"]
    keys: Key[Array, "trial"]
    length: Count
    context: Context
    trials: Tree
    """Per trial, for closed loops; else ``None``."""
    first: Count | int = 0
    """Time of the first step (a long sequence comes in pieces)."""
    fixed: Tree = None
    """Prepared values that are not real numbers; filled in by :func:`unroll`."""


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


Read = Callable[[Prepared, Carry], Tree]


def plan(carry: Tree, capacity: int, *, block: int | None = None, state_bytes: int = STATE_BYTES) -> Plan:
    """Block and segment lengths for a carry (of a whole batch) and a number of steps."""
    step_bytes = max(sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(eqx.filter(carry, eqx.is_array))), 1)
    block = block or max(4, min(24, BLOCK_BYTES // step_bytes))
    block = max(1, min(block, capacity))
    n_blocks = -(-capacity // block)
    segment = n_blocks
    if capacity * step_bytes > state_bytes:
        # with s segments, s starts and n / s steps are in memory: least at s = sqrt(n)
        segment = max(1, min(state_bytes // (block * step_bytes), round(n_blocks**0.5)))
    return Plan(block, n_blocks, segment, min(segment * block, capacity) * step_bytes <= DRIVE_BYTES)


class Kept(NamedTuple):
    """What the forward pass leaves for the backward pass."""

    states: Tree
    """States of one segment, one more than steps."""
    drives: Tree
    """Drives of one segment, or nothing."""
    starts: Tree
    """First states of all segments, if there are several."""


def unroll(dynamics: Dynamics, prepared: Prepared, carry: Carry, sequence: Sequence, *, emit: Read | None = None,
           accumulate: Read | None = None, gradient: bool = True, plan_: Plan | None = None,
           workspace: Kept | None = None) -> tuple[Carry, Emitted, Kept | None]:
    """Run a batch of trials from ``carry`` over ``sequence.length`` steps.

    ``emit(prepared, carry)`` of one trial is recorded after every step, ``accumulate(prepared, carry)`` summed.
    Differentiable in ``prepared`` and ``carry`` (reverse mode) where ``gradient``; the inputs are data, not variables.
    The third result is the memory that kept the states: handed in again as ``workspace`` it spares the next call
    clearing as much (a buffer for the longest trial, however short this one is).
    """
    plan_ = plan_ or plan(carry, sequence.inputs.shape[0])
    steps = _Steps(dynamics, emit, accumulate, plan_)
    padding = plan_.n_blocks * plan_.block - sequence.inputs.shape[0]
    inputs = jnp.pad(sequence.inputs, ((0, padding), (0, 0), (0, 0)))
    prepared, fixed = eqx.partition(prepared, eqx.is_inexact_array)
    sequence = sequence._replace(inputs=lax.stop_gradient(inputs), fixed=fixed,
                                 length=jnp.asarray(sequence.length, jnp.int32))
    if gradient:
        workspace = workspace or steps.workspace(prepared, carry, sequence)
        carry, emitted, workspace = _differentiable(steps)(prepared, carry, sequence, workspace)
    else:
        carry, emitted, workspace = steps.forward(prepared, carry, sequence, None)
    outputs = jax.tree.map(lambda a: a[: a.shape[0] - padding], emitted.outputs)
    return carry, emitted._replace(outputs=outputs), workspace


def _differentiable(steps: "_Steps") -> Callable[..., tuple[Carry, Emitted, Kept]]:
    @jax.custom_vjp
    def run(prepared: Prepared, carry: Carry, sequence: Sequence, workspace: Kept) -> tuple[Carry, Emitted, Kept]:
        return steps.forward(prepared, carry, sequence, workspace)

    def forward(prepared: Prepared, carry: Carry, sequence: Sequence, workspace: Kept) -> Any:
        carry, emitted, kept = steps.forward(prepared, carry, sequence, workspace)
        return (carry, emitted, kept), (prepared, sequence, kept)

    def backward(residual: Any, cotangent: tuple[Carry, Emitted, Kept]) -> Any:
        prepared, sequence, kept = residual
        gradient, carry_gradient = steps.backward(prepared, sequence, kept, *cotangent[:2])
        return gradient, carry_gradient, None, None

    run.defvjp(forward, backward)
    return run


class _Steps:
    """The system vectorised over trials (and time), its forward and its backward pass."""

    def __init__(self, dynamics: Dynamics, emit: Read | None, accumulate: Read | None, plan_: Plan) -> None:
        self.plan, self.dynamics, self._emit, self._accumulate = plan_, dynamics, emit, accumulate
        self.reads = emit is not None or accumulate is not None
        self.n_segments = -(-plan_.n_blocks // plan_.segment)

    # --- one step or block, all trials -------------------------------------------------------------------------

    def external(self, q: Prepared, sequence: Sequence, t0: Count) -> Tree:
        """Drive by the inputs for a block, ``[time, trial, …]``."""
        q = eqx.combine(q, sequence.fixed)
        exists = t0 + jnp.arange(self.plan.block) < sequence.length
        inputs = _zero_beyond(_rows(sequence.inputs, t0, self.plan.block), exists)

        def one(input: Tree, key: Array, time: Count, trial: Tree) -> Tree:
            context = context_at(time, sequence.context, trial)
            return self.dynamics.external(q, input, key=jax.random.fold_in(jax.random.fold_in(key, time), 0),
                                          context=context)

        over_trials = jax.vmap(one, (0, 0, None, 0))
        times = sequence.first + t0 + jnp.arange(self.plan.block)
        return jax.vmap(over_trials, (0, None, 0, None))(inputs, sequence.keys, times, sequence.trials)

    def recurrent(self, q: Prepared, carry: Carry, sequence: Sequence) -> Tree | None:
        """Drive by the state, ``[trial, …]``."""
        q = eqx.combine(q, sequence.fixed)
        return jax.vmap(lambda c: self.dynamics.recurrent(q, c))(carry)

    def update(self, q: Prepared, carry: Carry, drive: Tree, time: Count, sequence: Sequence) -> Carry:
        """One step of all trials."""
        q = eqx.combine(q, sequence.fixed)

        def one(c: Carry, d: Tree, key: Array, trial: Tree) -> Carry:
            key = jax.random.fold_in(jax.random.fold_in(key, time), 1)
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

        total = jax.tree.map(lambda a: jnp.sum(jnp.where(_like(exists, a), a, 0), axis=0),
                             over_block(self._accumulate))
        return over_block(self._emit), total

    # --- forward ----------------------------------------------------------------------------------------------

    def workspace(self, q: Prepared, carry: Carry, sequence: Sequence) -> Kept:
        """Cleared memory for states and drives."""
        n_steps = self.plan.segment * self.plan.block
        states = jax.tree.map(lambda a: jnp.zeros((n_steps + 1, *a.shape), a.dtype), carry)
        drives: Tree = ()
        if self.plan.keep_drive:
            shapes = jax.eval_shape(lambda: self.external(q, sequence, jnp.int32(0)))
            drives = jax.tree.map(lambda s: jnp.zeros((n_steps, *s.shape[1:]), s.dtype), shapes)
        starts = () if self.n_segments == 1 else jax.tree.map(
            lambda a: jnp.zeros((self.n_segments, *a.shape), a.dtype), carry)
        return Kept(states, drives, starts)

    def forward(self, q: Prepared, carry: Carry, sequence: Sequence,
                workspace: Kept | None) -> tuple[Carry, Emitted, Kept | None]:
        """All segments; keeps states and drives if there is one segment, else every segment's start."""
        outputs, sums = self._empty_emitted(q, carry, sequence)
        if self.n_segments == 1:
            carry, kept, outputs, sums = self.segment(q, carry, sequence, 0, outputs, sums, workspace)
            return carry, Emitted(outputs, sums), kept
        starts = () if workspace is None else workspace.starts

        def one(i: Count, loop: Any) -> Any:
            carry, starts, outputs, sums = loop
            if jax.tree.leaves(starts):
                starts = _put(starts, carry, i)
            carry, _, outputs, sums = self.segment(q, carry, sequence, i, outputs, sums, None)
            return carry, starts, outputs, sums

        carry, starts, outputs, sums = fori_loop(0, self._n_segments_of(sequence), one,
                                                     (carry, starts, outputs, sums))
        return carry, Emitted(outputs, sums), None if workspace is None else workspace._replace(starts=starts)

    def segment(self, q: Prepared, carry: Carry, sequence: Sequence, index: Count | int, outputs: Tree, sums: Tree,
                workspace: Kept | None) -> tuple[Carry, Kept | None, Tree, Tree]:
        """The blocks of one segment; with a workspace, states and drives are left in it."""
        size, first = self.plan.block, index * self.plan.segment
        keep = workspace is not None
        states, drives = (workspace.states, workspace.drives) if workspace is not None else ((), ())
        if not keep and self.reads:
            states = jax.tree.map(lambda a: jnp.zeros((size + 1, *a.shape), a.dtype), carry)
        if jax.tree.leaves(states):
            states = _put(states, carry, 0)
        keep_drive = bool(jax.tree.leaves(drives))
        keep_states = bool(jax.tree.leaves(states))
        transposed = _transpose(q)
        length = mapping.population_maximum(sequence.length)

        def block(i: Count, loop: Any) -> Any:
            carry, states, drives, outputs, sums = loop
            t0 = (first + i) * size
            base = i * size if keep else 0
            external = self.external(q, sequence, t0)

            def step(j: Count, loop: Any) -> Any:
                carry, states, drives = loop
                q_ = _transpose(transposed)
                drive = add_drives(_row(external, j), self.recurrent(q_, carry, sequence))
                new = self.update(q_, carry, drive, sequence.first + t0 + j, sequence)
                return (new, _put(states, new, base + j + 1) if keep_states else (),
                        _put(drives, drive, base + j) if keep_drive else ())

            n_steps = jnp.clip(length - t0, 0, size)
            carry, states, drives = fori_loop(0, n_steps, step, (carry, states, drives))
            if self.reads:
                exists = t0 + jnp.arange(size) < sequence.length
                here = _valid(_rows(states, base + 1, size), exists)
                values, total = self.read(q, here, exists, sequence)
                outputs = _put_rows(outputs, _zero_beyond(values, exists), t0)
                sums = jax.tree.map(jnp.add, sums, total)
            return carry, states, drives, outputs, sums

        n_blocks = jnp.clip(-(-length // size) - first, 0, self.plan.segment)
        carry, states, drives, outputs, sums = fori_loop(0, n_blocks, block,
                                                             (carry, states, drives, outputs, sums))
        kept = None if workspace is None else workspace._replace(states=states, drives=drives)
        return carry, kept, outputs, sums

    def _n_segments_of(self, sequence: Sequence) -> Count:
        steps = self.plan.segment * self.plan.block
        return -(-mapping.population_maximum(sequence.length) // steps)

    def _empty_emitted(self, q: Prepared, carry: Carry, sequence: Sequence) -> tuple[Tree, Tree]:
        n_steps = self.plan.n_blocks * self.plan.block
        values, sums = jax.eval_shape(lambda: self.read(q, jax.tree.map(lambda a: a[None], carry), jnp.ones(1, bool),
                                                        sequence))
        return (jax.tree.map(lambda s: jnp.zeros((n_steps, *s.shape[1:]), s.dtype), values),
                jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), sums))

    # --- backward ---------------------------------------------------------------------------------------------

    def backward(self, q: Prepared, sequence: Sequence, kept: Kept, carry_cotangent: Carry,
                 emitted_cotangent: Emitted) -> tuple[Prepared, Carry]:
        """Gradients in the prepared parameters and in the first carry."""
        loop = jax.tree.map(jnp.zeros_like, q), _floats(carry_cotangent)
        if self.n_segments == 1:
            return self.segment_backward(q, sequence, kept, 0, emitted_cotangent, *loop)
        n_segments = self._n_segments_of(sequence)
        empty = self._empty_emitted(q, _row(kept.starts, 0), sequence)

        def one(i: Count, loop: Any) -> Any:
            states, drives, *gradients = loop
            index = n_segments - 1 - i
            again = Kept(states, drives, kept.starts)
            _, again, _, _ = self.segment(q, _row(kept.starts, index), sequence, index, *empty, again)
            return (again.states, again.drives,
                    *self.segment_backward(q, sequence, again, index, emitted_cotangent, *gradients))

        return fori_loop(0, n_segments, one, (kept.states, kept.drives, *loop))[2:]

    def segment_backward(self, q: Prepared, sequence: Sequence, kept: Kept, index: Count | int, cotangent: Emitted,
                         g_q: Tree, g_carry: Tree) -> tuple[Tree, Tree]:
        """Walk the blocks of one segment backwards."""
        size, first = self.plan.block, index * self.plan.segment
        length = mapping.population_maximum(sequence.length)
        n_blocks = jnp.clip(-(-length // size) - first, 0, self.plan.segment)

        def block(i: Count, loop: Any) -> Any:
            g_q, g_carry = loop
            position = n_blocks - 1 - i
            base, t0 = position * size, (first + position) * size
            exists = t0 + jnp.arange(size) < sequence.length
            before = _valid(_rows(kept.states, base, size), exists)
            after = _valid(_rows(kept.states, base + 1, size), exists)
            g_read, g_after = self._read_backward(q, after, exists, sequence, cotangent, t0)
            drive, drive_vjp = jax.vjp(lambda q: self._drive(q, before, sequence, t0), q)
            if self.plan.keep_drive:
                drive = _valid(_rows(kept.drives, base, size), exists)
            n_steps = jnp.clip(length - t0, 0, size)
            g_carry, total = self._loop_backward(q, before, drive, sequence, t0, n_steps, g_carry, g_after)
            g_update, g_drive = self._update_backward(q, before, drive, sequence, t0, total)
            g_linear, = drive_vjp(_long_axis_last(g_drive))
            g_q = jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), g_q, g_read, g_update, g_linear)
            return g_q, g_carry

        return fori_loop(0, n_blocks, block, (g_q, g_carry))

    def _drive(self, q: Prepared, before: Carry, sequence: Sequence, t0: Count) -> Tree:
        recurrent = jax.vmap(lambda c: self.recurrent(q, c, sequence))(before)
        return add_drives(self.external(q, sequence, t0), recurrent)

    def _read_backward(self, q: Prepared, after: Carry, exists: Array, sequence: Sequence, cotangent: Emitted,
                       t0: Count) -> tuple[Tree, Tree]:
        """Gradient of readout and sums: in the parameters, and in the states after every step of the block."""
        floats, rest = eqx.partition(after, eqx.is_inexact_array)
        g_out = _rows(cotangent.outputs, t0, self.plan.block)
        g_out = _zero_beyond(_floats(g_out), exists)
        _, vjp = jax.vjp(lambda q, f: _floats(self.read(q, eqx.combine(f, rest), exists, sequence)), q, floats)
        return vjp((_long_axis_last(g_out), _floats(cotangent.sums)))

    def _loop_backward(self, q: Prepared, before: Carry, drive: Tree, sequence: Sequence, t0: Count, n_steps: Count,
                       g_carry: Tree, g_after: Tree) -> tuple[Tree, Tree]:
        """The loop: cotangent of the carry from step to step; returns the first one and all of them."""
        floats, rest = eqx.partition(before, eqx.is_inexact_array)
        drive_floats, drive_rest = eqx.partition(drive, eqx.is_inexact_array)
        all_ = jax.tree.map(jnp.zeros_like, g_after)

        def step(i: Count, loop: Any) -> Any:
            g, all_ = loop
            j = n_steps - 1 - i
            g = jax.tree.map(jnp.add, g, _row(g_after, j))
            all_ = _put(all_, g, j)
            state, others = _row(floats, j), _row(rest, j)

            def update(state: Tree, d: Tree) -> Tree:
                d = eqx.combine(d, _row(drive_rest, j))
                new = self.update(q, eqx.combine(state, others), d, sequence.first + t0 + j, sequence)
                return _floats(new)

            g_state, g_drive = jax.vjp(update, state, _row(drive_floats, j))[1](g)
            return jax.tree.map(jnp.add, g_state, self._recurrent_backward(q, state, others, g_drive, sequence)), all_

        return fori_loop(0, n_steps, step, (g_carry, all_))

    def _recurrent_backward(self, q: Prepared, state: Tree, others: Tree, g_drive: Tree, sequence: Sequence) -> Tree:
        primal, vjp = jax.vjp(lambda s: self.recurrent(q, eqx.combine(s, others), sequence), state)
        if primal is None:
            return jax.tree.map(jnp.zeros_like, state)
        if isinstance(primal, dict):  # drives without a recurrent part have no say here
            g_drive = {k: g_drive[k] for k in primal}
        return vjp(g_drive)[0]

    def _update_backward(self, q: Prepared, before: Carry, drive: Tree, sequence: Sequence, t0: Count,
                         total: Tree) -> tuple[Tree, Tree]:
        """Gradient of a block's updates: in the parameters they read, and in the drives."""
        floats, rest = eqx.partition(drive, eqx.is_inexact_array)

        def updates(q: Tree, floats: Tree) -> Tree:
            times = sequence.first + t0 + jnp.arange(self.plan.block)
            new = jax.vmap(lambda c, d, t: self.update(q, c, d, t, sequence))(before, eqx.combine(floats, rest), times)
            return _floats(new)

        _, vjp = jax.vjp(updates, q, floats)
        return vjp(total)


def _floats(tree: Tree) -> Tree:
    """The real-valued part of a tree, which is what gradients exist for."""
    return eqx.filter(tree, eqx.is_inexact_array)


def _transpose(q: Prepared) -> Prepared:
    """Matrices transposed. Applied outside a loop and again inside, it hands the loop a transpose that was made once."""
    return jax.tree.map(lambda a: a.T if eqx.is_inexact_array(a) and a.ndim == 2 else a, q)


def _long_axis_last(tree: Tree) -> Tree:
    """Store cotangents ``[time, trial, unit]`` with time and trial along the rows of memory, values unchanged."""
    def store(a: Array) -> Array:
        if a.ndim < 3:
            return a
        flat = a.reshape(-1, a.shape[-1])
        return lax.optimization_barrier(flat.T).T.reshape(a.shape)
    return jax.tree.map(store, tree)


def _row(tree: Tree, i: Count | int) -> Tree:
    return jax.tree.map(lambda a: lax.dynamic_index_in_dim(a, i, 0, keepdims=False), tree)


def _rows(tree: Tree, start: Count | int, size: int) -> Tree:
    return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, size, 0), tree)


def _put(tree: Tree, value: Tree, i: Count | int) -> Tree:
    return jax.tree.map(lambda a, b: lax.dynamic_update_index_in_dim(a, b, i, 0), tree, value)


def _put_rows(tree: Tree, value: Tree, start: Count | int) -> Tree:
    return jax.tree.map(lambda a, b: lax.dynamic_update_slice_in_dim(a, b, start, 0), tree, value)


def _like(mask: Bool[Array, "time"], a: Array) -> Array:
    return mask.reshape(mask.shape + (1,) * (a.ndim - 1))


def _valid(tree: Tree, exists: Bool[Array, "time"]) -> Tree:
    """Rows that do not exist become copies of the block's first, so that no function meets values it never made."""
    return jax.tree.map(lambda a: jnp.where(_like(exists, a), a, a[:1]) if eqx.is_inexact_array(a) else a, tree)


def _zero_beyond(tree: Tree, exists: Bool[Array, "time"]) -> Tree:
    return jax.tree.map(lambda a: jnp.where(_like(exists, a), a, jnp.zeros_like(a)), tree)
