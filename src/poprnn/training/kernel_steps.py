"""Steps whose loops over time are compiled kernels (``core/native``): cells that say they are element-wise, on CPUs."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from poprnn.core import native, trees
from poprnn.core.arrays import Count, Tree
from poprnn.training.dynamics import Carry, Dynamics, Prepared
from poprnn.training.gradient import GradientSteps, Place, long_axis_last
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
    arrays = [carry.state, prepared[form.matrix], *([] if form.leak is None else [prepared[form.leak]])]
    return all(a.dtype == jnp.float32 for a in arrays)


class KernelSteps(GradientSteps):
    """The same system; what differs is who walks through a block."""

    def _form(self, q: Prepared) -> native.Form:
        form = self.dynamics.cell.element_wise
        assert form is not None
        leak = None if form.leak is None else q[form.leak]
        return native.Form(form.activation, form.negative_slope, leak)

    @property
    def _matrix(self) -> str:
        form = self.dynamics.cell.element_wise
        assert form is not None
        return form.matrix

    # --- forward ----------------------------------------------------------------------------------------------

    def ready_forward(self, q: Prepared) -> Tree:
        """The form's numbers and the packed matrix."""
        return self._form(q)._replace(activation=None), native.pack(q[self._matrix], transposed=True)  # type: ignore[arg-type]

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
        form = ready[0]._replace(activation=self.dynamics.cell.element_wise.activation)  # type: ignore[union-attr]
        states = trees.put(states, carry, base)  # where nothing is kept every block begins in the same place
        kept = drives if jax.tree.leaves(drives) else None
        h, new = native.forward(form, ready[1], external, states.state, kept, base, n_steps)
        states = states._replace(state=h)
        return trees.row(states, base + n_steps), states, drives if new is None else new

    # --- backward ---------------------------------------------------------------------------------------------

    def ready_backward(self, q: Prepared) -> Tree:
        """The packed matrix."""
        return native.pack(q[self._matrix], transposed=False)

    def memory_of_block(self, g_carry: Tree) -> Tree:
        """None: the kernel keeps what it needs."""
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
        """One call, which also gives the gradients of matrix and leak; those of the input drive are taken from its result."""
        position, base, t0, steps, _ = place
        drives = (kept.drives, base) if self.plan.keep_drive else (self._drive(q, kept, position, sequence, t0), 0)
        form, name = self._form(q), self.dynamics.cell.element_wise
        assert name is not None
        g_leak = None if name.leak is None else g_q[name.leak]
        g, g_matrix, g_leak, g_drive = native.backward(
            form, ready, (kept.states.state, base), drives, g_after.state, g_carry.state, g_q[name.matrix], g_leak, steps
        )
        g_q = g_q | {name.matrix: g_matrix} | ({} if name.leak is None else {name.leak: g_leak})
        g_q = jax.tree.map(jnp.add, g_q, self._external_backward(q, kept, sequence, position, t0, g_drive))
        return g_q, g_carry._replace(state=g), memory

    def _external_backward(
        self, q: Prepared, kept: Kept, sequence: Sequence, position: Count, t0: Count, g_drive: Any
    ) -> Tree:
        """Gradient of a block's input drives in the parameters."""
        noise = trees.row(kept.noises, position)
        matrices, vectors = eqx.partition(q, lambda a: a.ndim >= 2)
        external = lambda m, v: self.external(eqx.combine(m, v), noise, sequence, t0)[0]
        _, matrices_vjp = jax.vjp(lambda m: external(m, vectors), matrices)
        _, vectors_vjp = jax.vjp(lambda v: external(matrices, v), vectors)
        return eqx.combine(*matrices_vjp(long_axis_last(g_drive)), *vectors_vjp(g_drive))
