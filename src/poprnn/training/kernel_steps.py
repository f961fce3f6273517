"""Steps whose loops over time are compiled kernels (``core/native``): cells that say they are element-wise, on CPUs,
under methods that leave their steps alone or skip through time."""

from typing import cast

import jax
import jax.numpy as jnp

from poprnn.cells.contract import ElementWise
from poprnn.core import native, trees
from poprnn.core.arrays import Array, Count, Float, Tree
from poprnn.training.dynamics import Carry, Dynamics, Prepared, context_at
from poprnn.training.gradient import GradientSteps, Place
from poprnn.training.methods._skips import Anchors, SkipMethod
from poprnn.training.methods.contract import Method
from poprnn.training.steps import Kept, Plan, Read, Sequence


def kernel_serves(dynamics: Dynamics, prepared: Prepared, carry: Carry) -> bool:
    """Whether this system's loops can be a kernel's: the one place where that is decided.

    The base dynamics, or skips through time, of an element-wise cell in an open loop, in float32, one member after
    another on a CPU.
    """
    form, method, reach = dynamics.cell.element_wise, type(dynamics.method), dynamics.method.reach
    if form is None or dynamics.task is not None or not native.serve():
        return False
    if reach is None and (method.update is not Method.update or method.init is not Method.init):
        return False
    if reach is not None and not (isinstance(reach, int) and reach == 0) and form.leak is None:
        return False  # no Euler step
    names = (form.matrix, *form.inputs, *(() if form.leak is None else (form.leak,)))
    arrays = (carry.state, *(prepared[name] for name in names))
    return all(a.dtype == jnp.float32 for a in arrays)


class KernelSteps(GradientSteps):
    """The same system; what differs is who walks through a block.

    Of a method's memory only the time since the regular skip began is kept, and read where a block begins: from there
    the marks of the block's skips are made again on the way back, which does not need the anchors.
    """

    @property
    def _shape(self) -> ElementWise:
        return cast(ElementWise, self.dynamics.cell.element_wise)

    def __init__(self, dynamics: Dynamics, emit: Read | None, accumulate: Read | None, plan_: Plan) -> None:
        super().__init__(dynamics, emit, accumulate, plan_)
        skips, leaks = dynamics.method.reach is not None, self._shape.leak is not None
        self.needs_drives = native.needs_drives(self._shape.activation, leaks=leaks, skips=skips)
        if not self.needs_drives:
            self.plan = plan_._replace(keep_drive=False)

    def _form(self, q: Prepared) -> native.Form:
        shape = self._shape
        return native.Form(shape.activation, shape.negative_slope, None if shape.leak is None else q[shape.leak])

    def input_products(self, q: Prepared, inputs: Float[Array, "a b input"]) -> Float[Array, "a b unit"]:
        """U x + c, whose gradient is a kernel's."""
        return _affine(inputs, *(q[name] for name in self._shape.inputs))

    def _skips(
        self, start: Tree, anchors: Tree, sequence: Sequence, t0: Count, n_steps: Count
    ) -> tuple[native.Skips | None, Tree]:
        """A block's skips, for anchors or their cotangents, and the method's memory ``start`` as it is after it."""
        if self.dynamics.method.reach is None:
            return None, start
        method = cast(SkipMethod, self.dynamics.method)
        at = lambda trial, _: method.times(self.dynamics.cell, context_at(0, sequence.context, trial))
        starts, ends = jax.vmap(at)(sequence.trials, start.n_since)  # the second says how many trials there are
        steps = sequence.first + t0, n_steps, self.plan.block
        marks, n_since = native.marks(start.n_since, starts, ends, method.span, steps)
        lanes = (anchors.regular,) if ends is None else (anchors.regular, anchors.strategic)
        skips = native.Skips(marks, sequence.context.schedule["weight"], self.dynamics.method.reach, lanes)
        return skips, start._replace(n_since=n_since)

    # --- forward ----------------------------------------------------------------------------------------------

    def ready_forward(self, q: Prepared) -> Tree:
        """Leak and packed matrix."""
        return self._form(q)[1:], native.pack(q[self._shape.matrix], transposed=True)

    def one_block(self, carry: Carry) -> Tree:
        """The kernel writes states whether or not somebody reads them."""
        return jax.tree.map(lambda a: jnp.zeros((self.plan.block + 1, *a.shape), a.dtype), self.stored(carry))

    def stored(self, carry: Carry) -> Carry:
        """Without anchors."""
        return carry._replace(noise=None, method=_with_anchors(carry.method, ((), ())))

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
        """One call."""
        numbers, packed = ready
        # where nothing is kept every block begins in the same place
        states = trees.put(states, self.stored(carry), base)
        skips, memory = self._skips(carry.method, carry.method, sequence, t0, n_steps)
        kept = drives if jax.tree.leaves(drives) else None
        form = native.Form(self._shape.activation, *numbers)
        h, new, anchors = native.forward(form, packed, external, states.state, kept, base, n_steps, skips)
        carry = carry._replace(state=trees.row(h, base + n_steps), method=_with_anchors(memory, anchors))
        return carry, states._replace(state=h), drives if new is None else new

    # --- backward ---------------------------------------------------------------------------------------------

    def ready_backward(self, q: Prepared) -> Tree:
        """The packed matrix."""
        return native.pack(q[self._shape.matrix], transposed=False)

    def memory_of_block(self, g_carry: Tree) -> Tree:
        """None: the kernel needs no cotangents after the block."""
        del g_carry
        return ()

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
        """One call, which gives matrix and leak their gradients, too; the input drive's follow from its result."""
        position, base, t0, steps, _ = place
        drives = None
        if self.needs_drives:
            drives = (kept.drives, base) if self.plan.keep_drive else (self._drive(q, kept, position, sequence, t0), 0)
        matrix, leak = self._shape.matrix, self._shape.leak
        skips, _ = self._skips(trees.row(kept.states.method, base), g_carry.method, sequence, t0, steps[1])
        g, g_matrix, g_leak, g_drive, g_anchors = native.backward(
            self._form(q),
            ready,
            (kept.states.state, base),
            drives,
            g_after.state,
            g_carry.state,
            g_q[matrix],
            None if leak is None else g_q[leak],
            steps,
            skips,
        )
        g_q = g_q | {matrix: g_matrix} | ({} if leak is None else {leak: g_leak})
        noise = trees.row(kept.noises, position)
        _, vjp = jax.vjp(lambda q: self.external(q, noise, sequence, t0)[0], q)
        g_carry = g_carry._replace(state=g, method=_with_anchors(g_carry.method, g_anchors))
        return jax.tree.map(jnp.add, g_q, vjp(g_drive)[0]), g_carry, memory


def _with_anchors(memory: Tree, anchors: tuple[Tree, ...]) -> Tree:
    """A method's memory with the anchors of as many lanes as are given, if it has any."""
    if not isinstance(memory, Anchors):
        return memory
    return memory._replace(**dict(zip(("regular", "strategic"), anchors, strict=False)))


@jax.custom_vjp
def _affine(x: Float[Array, "a b input"], U: Float[Array, "unit input"], c: Float[Array, "unit"]) -> Array:
    return x @ U.T + c


def _affine_backward(residual: tuple[Array, Array], g: Float[Array, "a b unit"]) -> tuple[Array, Array, Array]:
    x, U = residual
    with_one = jnp.concatenate([x, jnp.ones((*x.shape[:-1], 1), x.dtype)], axis=-1)
    sums = native.outer(with_one.reshape(-1, with_one.shape[-1]), g.reshape(-1, g.shape[-1]))
    return g @ U, sums[:-1].T, sums[-1]


_affine.defvjp(lambda x, U, c: (_affine(x, U, c), (x, U)), _affine_backward)
