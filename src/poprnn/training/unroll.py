"""Running a system through time, and its gradient.

Time goes in blocks. For each block the drive by the inputs is one matrix product; then comes the loop, which does
one product with the recurrent weights and the element-wise rest; then readout and sums of the block at once. The
gradient walks the blocks backwards: the loop only carries the cotangent of the state from step to step and keeps it,
and the gradient of every parameter is taken for the whole block afterwards, the weights' as one product. Nothing is
computed beyond a batch's true length, which is a traced number: lengths never cause another compilation.

Kept between the passes: the states and, where both fit the memory budget, the drives (else they are computed again,
one product a block; writing and reading them costs a quarter of it even from main memory). Where even the states
exceed the budget, only every segment's first state is kept and segments are run again on the way back.

Two habits of the XLA CPU backend shaped this code (profiled): a product whose right-hand matrix is transposed inside
a loop is two to three times as slow as one with the transpose made once outside, and a product that contracts the
long axis is up to ten times as fast when its left-hand side is stored as ``[row, long]``.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from poprnn.core import loops
from poprnn.core.arrays import Tree
from poprnn.tasks.contract import Piecewise
from poprnn.training.dynamics import Carry, Dynamics, Prepared
from poprnn.training.gradient import GradientSteps
from poprnn.training.kernel_steps import KernelSteps, kernel_serves
from poprnn.training.steps import Emitted, Kept, Plan, Read, Sequence

__all__ = ["Emitted", "Kept", "Plan", "Read", "Sequence", "n_parts", "plan", "unroll"]

BLOCK_BYTES = 256 * 2**10
"""Size of a block of states: a few of them fit a core's second-level cache."""
PART_TRIALS, PART_STATE, MAX_PARTS = 64, 12_000, 16
"""Fewest trials and numbers of state in a part of a batch, and most parts."""
STATE_BYTES = 512 * 2**20
"""Memory budget for the kept states of one member; beyond it segments are run again on the way back."""


def n_parts(n_trials: int, state_size: int) -> int:
    """Equal parts a batch's trials are cut in, by its size alone, so that bits do not depend on the machine.

    A part has work enough that a part takes its share of the whole's time (measured: 64 trials of 200 units do,
    128 of 64 do not).
    """
    n = 1
    while n < MAX_PARTS and n_trials % (2 * n) == 0 and _is_enough(n_trials // (2 * n), state_size):
        n *= 2
    return n


def _is_enough(n_trials: int, state_size: int) -> bool:
    return n_trials >= PART_TRIALS and n_trials * state_size >= PART_STATE


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
    return Plan(block, n_blocks, segment, 2 * min(segment * block, capacity) * step_bytes <= state_bytes)


def unroll(
    dynamics: Dynamics,
    prepared: Prepared,
    carry: Carry,
    sequence: Sequence,
    *,
    emit: Read | None = None,
    accumulate: Read | None = None,
    gradient: bool = True,
    plan_: Plan | None = None,
    workspace: Kept | None = None,
    n_steps: int | None = None,
) -> tuple[Carry, Emitted, Kept | None]:
    """Run a batch of trials from ``carry`` over ``sequence.length`` steps.

    ``emit(prepared, carry)`` of one trial is recorded after every step, ``accumulate(prepared, carry)`` summed.
    Differentiable in ``prepared`` and ``carry`` (reverse mode) where ``gradient``; the inputs are data, not variables.
    ``n_steps``: the most steps there can be, for inputs that do not tell.

    The third result is the memory that kept the states: handed in again as ``workspace`` it spares the next call
    clearing as much (a buffer for the longest trial, however short this one is).
    """
    inputs, dense = sequence.inputs, not isinstance(sequence.inputs, Piecewise)
    n_steps = n_steps if n_steps is not None else inputs.shape[0]
    plan_ = plan_ or plan(carry, n_steps)
    kind = KernelSteps if kernel_serves(dynamics, prepared, carry) else GradientSteps
    steps = kind(dynamics, emit, accumulate, plan_)
    padding = plan_.n_blocks * plan_.block - n_steps
    inputs = jnp.pad(inputs, ((0, padding), (0, 0), (0, 0))) if dense else inputs
    prepared, fixed = eqx.partition(prepared, eqx.is_inexact_array)
    sequence = sequence._replace(
        inputs=lax.stop_gradient(inputs), fixed=fixed, length=jnp.asarray(sequence.length, jnp.int32)
    )
    if gradient and not loops.are_python():  # step by step, automatic differentiation sees every step itself
        workspace = workspace or steps.workspace(prepared, carry, sequence)
        carry, emitted, workspace = _differentiable(steps)(prepared, carry, sequence, workspace)
    else:
        carry, emitted, workspace = steps.forward(prepared, carry, sequence, None)
    outputs = jax.tree.map(lambda a: a[: a.shape[0] - padding], emitted.outputs)
    return carry, emitted._replace(outputs=outputs), workspace


def _differentiable(steps: GradientSteps) -> Callable[..., tuple[Carry, Emitted, Kept | None]]:
    @jax.custom_vjp
    def run(
        prepared: Prepared, carry: Carry, sequence: Sequence, workspace: Kept
    ) -> tuple[Carry, Emitted, Kept | None]:
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
