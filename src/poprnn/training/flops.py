"""Counting operations: multiplications and additions in matrix products, which are all but all of the work."""

from typing import Any

import jax
import numpy as np

from poprnn.cells.contract import Context
from poprnn.core.arrays import Tree


def product_flops(jaxpr: Any) -> int:
    """2 · (rows · columns · contracted) summed over the products of a traced function, loops not multiplied.

    >>> import jax.numpy as jnp
    >>> product_flops(jax.make_jaxpr(lambda a, b: a @ b)(jnp.ones((2, 3)), jnp.ones((3, 4))))
    48
    """
    total = 0
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    for equation in inner.eqns:
        if equation.primitive.name == "dot_general":
            ((contracted, _), _), left = equation.params["dimension_numbers"], equation.invars[0].aval
            size = int(np.prod([left.shape[d] for d in contracted]))
            total += 2 * int(np.prod(equation.outvars[0].aval.shape)) * size
        for value in equation.params.values():
            for sub in value if isinstance(value, tuple | list) else (value,):
                if hasattr(getattr(sub, "jaxpr", sub), "eqns"):
                    total += product_flops(sub)
    return total


def step_flops(setup: Any) -> int:
    """Operations of one forward step of one trial (and its readout, where every step is read)."""
    cell, task = setup.cell, setup.task
    key = jax.random.key(0)

    def step(parameters: Any, input: Any) -> Tree:
        prepared = cell.prepare(parameters, Context())
        state = cell.initial_state(prepared, key=key)
        state = cell.step(prepared, state, input, key=key, context=Context())
        return cell.readout(prepared, state) if task.readout == "all" else state

    parameters = jax.eval_shape(lambda: cell.init(task.n_inputs, task.n_outputs, key=key))
    prepare = jax.make_jaxpr(lambda p: cell.prepare(p, Context()))(parameters)
    whole = jax.make_jaxpr(step)(parameters, jax.ShapeDtypeStruct((task.n_inputs,), np.float32))
    return product_flops(whole) - product_flops(prepare)


def training_flops(setup: Any, state: Any) -> float:
    """Operations of a training so far: three times the forward pass (forward, states, weights), summed over members."""
    n_steps = float(np.asarray(state.n_time_steps, np.float64).sum())
    return 3.0 * step_flops(setup) * setup.training.batch * n_steps
