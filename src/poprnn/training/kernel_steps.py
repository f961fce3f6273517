"""Steps whose loops over time are compiled kernels (``core/native``): cells that say they are element-wise, on CPUs."""

from typing import cast

import jax
import jax.numpy as jnp

from poprnn.cells.contract import ElementWise
from poprnn.core import native, trees
from poprnn.core.arrays import Array, Count, Float, Tree
from poprnn.training.dynamics import Carry, Dynamics, Prepared
from poprnn.training.gradient import GradientSteps, Place
from poprnn.training.methods.contract import Method
from poprnn.training.steps import Kept, Sequence


def kernel_serves(dynamics: Dynamics, prepared: Prepared, carry: Carry) -> bool:
    """Whether this system's loops can be a kernel's: the one place where that is decided.

    The base dynamics of an element-wise cell in an open loop, in float32, one member after another on a CPU.
    """
    form, method = dynamics.cell.element_wise, type(dynamics.method)
    if form is None or dynamics.task is not None or not native.serve():
        return False
    if method.update is not Method.update or method.init is not Method.init:
        return False
    names = (form.matrix, *form.inputs, *(() if form.leak is None else (form.leak,)))
    arrays = (carry.state, *(prepared[name] for name in names))
    return all(a.dtype == jnp.float32 for a in arrays)


class KernelSteps(GradientSteps):
    """The same system; what differs is who walks through a block."""

    @property
    def _shape(self) -> ElementWise:
        return cast(ElementWise, self.dynamics.cell.element_wise)

    def _form(self, q: Prepared) -> native.Form:
        shape = self._shape
        return native.Form(shape.activation, shape.negative_slope, None if shape.leak is None else q[shape.leak])

    def input_products(self, q: Prepared, inputs: Float[Array, "a b input"]) -> Float[Array, "a b unit"]:
        """U x + c, whose gradient is a kernel's."""
        return _affine(inputs, *(q[name] for name in self._shape.inputs))

    # --- forward ----------------------------------------------------------------------------------------------

    def ready_forward(self, q: Prepared) -> Tree:
        """Leak and packed matrix."""
        return self._form(q)[1:], native.pack(q[self._shape.matrix], transposed=True)

    def one_block(self, carry: Carry) -> Tree:
        """The kernel writes states whether or not somebody reads them."""
        return jax.tree.map(lambda a: jnp.zeros((self.plan.block + 1, *a.shape), a.dtype), carry)

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
        del t0, sequence
        numbers, packed = ready
        states = trees.put(states, carry, base)  # where nothing is kept every block begins in the same place
        kept = drives if jax.tree.leaves(drives) else None
        form = native.Form(self._shape.activation, *numbers)
        h, new = native.forward(form, packed, external, states.state, kept, base, n_steps)
        states = states._replace(state=h)
        return trees.row(states, base + n_steps), states, drives if new is None else new

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
        drives = (kept.drives, base) if self.plan.keep_drive else (self._drive(q, kept, position, sequence, t0), 0)
        matrix, leak = self._shape.matrix, self._shape.leak
        g, g_matrix, g_leak, g_drive = native.backward(
            self._form(q),
            ready,
            (kept.states.state, base),
            drives,
            g_after.state,
            g_carry.state,
            g_q[matrix],
            None if leak is None else g_q[leak],
            steps,
        )
        g_q = g_q | {matrix: g_matrix} | ({} if leak is None else {leak: g_leak})
        noise = trees.row(kept.noises, position)
        _, vjp = jax.vjp(lambda q: self.external(q, noise, sequence, t0)[0], q)
        return jax.tree.map(jnp.add, g_q, vjp(g_drive)[0]), g_carry._replace(state=g), memory


@jax.custom_vjp
def _affine(x: Float[Array, "a b input"], U: Float[Array, "unit input"], c: Float[Array, "unit"]) -> Array:
    return x @ U.T + c


def _affine_backward(residual: tuple[Array, Array], g: Float[Array, "a b unit"]) -> tuple[Array, Array, Array]:
    x, U = residual
    with_one = jnp.concatenate([x, jnp.ones((*x.shape[:-1], 1), x.dtype)], axis=-1)
    sums = native.outer(with_one.reshape(-1, with_one.shape[-1]), g.reshape(-1, g.shape[-1]))
    return g @ U, sums[:-1].T, sums[-1]


_affine.defvjp(lambda x, U, c: (_affine(x, U, c), (x, U)), _affine_backward)
