"""Counting operations from traced programs: matrix products exactly, element-wise work one for each element."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from poprnn.cells.contract import Context, Parameters, add_drives
from poprnn.core import native
from poprnn.core.arrays import Array, PRNGKey, Scalar, Tree
from poprnn.tasks.contract import Piecewise, Stage
from poprnn.training.batches import activity_penalty, draw, seen_by_steps, sequence_of, trains_last_readout
from poprnn.training.dynamics import Dynamics
from poprnn.training.steps import Plan, Steps

ELEMENTWISE = frozenset({
    "abs", "acos", "acosh", "add", "add_any", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil",
    "clamp", "cos", "cosh", "digamma", "div", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor",
    "integer_pow", "lgamma", "log", "log1p", "logistic", "max", "min", "mul", "neg", "nextafter", "pow", "rem",
    "round", "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt", "square", "sub", "tan", "tanh",
})  # fmt: skip
"""One operation for each element that comes out; selections are among them, copies and conversions are not."""
REDUCTIONS = frozenset({
    "argmax", "argmin", "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "reduce_max", "reduce_min",
    "reduce_prod", "reduce_sum",
})  # fmt: skip
"""One operation for each element that goes in."""


@dataclasses.dataclass(frozen=True)
class Operations:
    """Numbers of operations on real numbers.

    >>> 3 * Operations(10.0, 1.0) - Operations(5.0)
    Operations(products=25.0, elementwise=3.0)
    """

    products: float = 0.0
    """Multiplications and additions in matrix products: 2 · rows · columns · contracted."""
    elementwise: float = 0.0
    """All others."""

    @property
    def total(self) -> float:
        """Both together."""
        return self.products + self.elementwise

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(self.products + other.products, self.elementwise + other.elementwise)

    def __rmul__(self, n: float) -> "Operations":
        return Operations(n * self.products, n * self.elementwise)

    def __sub__(self, other: "Operations") -> "Operations":
        return self + (-1) * other


def count(jaxpr: Any) -> Operations:
    """Operations of a traced function.

    Loops of known length count as often as they run, other loops once, branches as the longest of them. Only real
    numbers count: not the integers that random numbers are made of, nor places and comparisons.

    >>> count(jax.make_jaxpr(lambda a, b: jnp.tanh(a @ b))(jnp.ones((2, 3)), jnp.ones((3, 4))))
    Operations(products=48.0, elementwise=8.0)
    """
    total = Operations()
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        total += _own(equation)
        inner = [count(part) for part in _inside(equation)]
        if equation.primitive.name == "cond":
            total += max(inner, key=lambda branch: branch.total)
        else:
            times = equation.params["length"] if equation.primitive.name == "scan" else 1
            total += times * sum(inner, Operations())
    return total


def _own(equation: Any) -> Operations:
    """Of one primitive, without what is inside it."""
    name = equation.primitive.name
    if not equation.outvars or not jnp.issubdtype(getattr(equation.outvars[0].aval, "dtype", bool), jnp.floating):
        return Operations()
    if name == "dot_general":
        ((contracted, _), _), left = equation.params["dimension_numbers"], equation.invars[0].aval
        return Operations(2.0 * equation.outvars[0].aval.size * float(np.prod([left.shape[d] for d in contracted])))
    if name in ELEMENTWISE:
        return Operations(elementwise=float(equation.outvars[0].aval.size))
    if name in REDUCTIONS:
        return Operations(elementwise=float(equation.invars[0].aval.size))
    if name == "scatter-add":
        return Operations(elementwise=float(equation.invars[2].aval.size))
    return Operations()


def _inside(equation: Any) -> Iterator[Any]:
    """The traced functions that a primitive runs."""
    if equation.primitive.name.startswith("scatter"):  # how two numbers are put together, counted with the rest
        return
    for value in equation.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(part, "jaxpr", part), "eqns"):
                yield part


# --- a training, as the manifest and dry runs count it -------------------------------------------------------------


def step_flops(setup: Any) -> int:
    """Operations in matrix products of one forward step of one trial (with its readout, where every step is read)."""
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
    return int((count(whole) - count(prepare)).products)


def training_flops(setup: Any, state: Any) -> float:
    """Products of a training so far: forward, and twice that (states, weights) backward, summed over members."""
    forward, backward = (np.asarray(n, np.float64).sum() for n in (state.n_time_steps, state.n_gradient_steps))
    return float(step_flops(setup) * setup.training.batch * (forward + 2 * backward))


# --- a training, operation by operation ----------------------------------------------------------------------------


class Costs(NamedTuple):
    """What one optimiser step costs, as a part for every time step and a part for the batch."""

    forward_step: Operations
    """One time step of the batch."""
    backward_step: Operations
    """Its gradient."""
    forward_batch: Operations
    """What there is once: preparing weights, drawing trials, the loss."""
    backward_batch: Operations
    """Its gradient, less what the first time step spares: the state before it is given and asks for no gradient."""
    update: Operations
    """The optimiser's."""


def costs(setup: Any, *, arrays: Tree = (), n_trials: int | None = None) -> Costs:
    """Operations of training steps, from the traced program at one and at two time steps.

    Counted is what the gradient of the program needs, written without loops (:func:`straight_line`): not the states
    that are worked out again on the way back because that is faster than to keep them. ``arrays`` are the task's,
    ``n_trials`` the trials of a batch (default: as in training). Methods cost the same whether or not their schedule
    has ended.

    >>> import poprnn as pr
    >>> setup = pr.Setup(task=pr.tasks.TemporalPattern(n_max=1), cell=pr.cells.VanillaRNN(n_units=10))
    >>> costs(setup, arrays=setup.task.arrays(), n_trials=1).forward_step.products     # 2 (10 · 10 + 10 + 10)
    240.0
    """
    from poprnn.training.program import Program  # the program of a training counts its own operations

    parameters = Program(setup).start(jnp.int32(0), {}, jnp.uint32(0)).parameters
    forward, both = [], []
    for n_steps in (1, 2):
        loss = straight_line(setup, n_steps, arrays=arrays, n_trials=n_trials)
        fixed = functools.partial(loss, fixed=parameters.fixed)
        forward.append(count(jax.make_jaxpr(fixed)(parameters.trainable)))
        both.append(count(jax.make_jaxpr(jax.value_and_grad(fixed))(parameters.trainable)))
    step, whole = forward[1] - forward[0], both[1] - both[0]
    optimizer = setup.training.optimizer.build()

    def update(gradient: Tree, weights: Tree) -> Tree:
        return optax.apply_updates(weights, optimizer.update(gradient, optimizer.init(weights), weights)[0])

    return Costs(
        step,
        whole - step,
        forward[0] - step,
        both[0] - forward[0] - (whole - step),
        count(jax.make_jaxpr(update)(parameters.trainable, parameters.trainable)),
    )


def straight_line(
    setup: Any, n_steps: int, *, arrays: Tree = (), n_trials: int | None = None, seed: int = 0
) -> Callable[..., Scalar]:
    """The loss of one training batch as ``loss(trainable, fixed)``, its ``n_steps`` time steps written one by one.

    The same numbers as ``Program.batch_loss`` at training step 0, for trials of that length, but without loops, so
    that differentiation and operation counts see every step.
    """
    training, task = setup.training, setup.task
    stage = training.curriculum.stage(task, training.curriculum.init(task))._replace(split="train")
    key = jax.random.key(seed)

    def loss(trainable: dict[str, Array], fixed: dict[str, Any]) -> Scalar:
        return _loss(setup, Parameters(trainable, fixed), stage, arrays, n_steps, n_trials or training.batch, key=key)

    return loss


def _loss(
    setup: Any, parameters: Parameters, stage: Stage, arrays: Tree, n_steps: int, n_trials: int, *, key: PRNGKey
) -> Scalar:
    task, training, cell = setup.task, setup.training, setup.cell
    context = Context(schedule=setup.cell.schedule(0) | training.method.schedule(0), training=True)
    setting, trials, start_keys, step_keys = draw(
        setup, training.method, stage, arrays, context, n_trials, (0, 1), key=key
    )
    setting, context = setting._replace(length=n_steps), context._replace(dt=setting.dt)
    prepared = cell.prepare(parameters, context)
    dynamics = Dynamics(cell, training.method, task if task.closed_loop else None)
    carry = jax.vmap(lambda t, k: dynamics.start(prepared, t, task.n_outputs, key=k))(trials, start_keys)
    penalty = activity_penalty(setup)
    if penalty is None and trains_last_readout(setup, parameters):
        q_steps, carry = lax.stop_gradient((eqx.filter(prepared, eqx.is_inexact_array), carry))
    else:
        q_steps = eqx.filter(prepared, eqx.is_inexact_array)
    sequence = sequence_of(setting, trials, step_keys, context, seen_by_steps(trials, task, training.method))
    sequence = sequence._replace(fixed=eqx.filter(prepared, eqx.is_inexact_array, inverse=True))
    if not isinstance(sequence.inputs, Piecewise):
        sequence = sequence._replace(inputs=_to_length(sequence.inputs, max(n_steps, task.capacity)))
    emit = dynamics.output if task.readout == "all" else None
    steps = Steps(dynamics, emit, penalty, Plan(n_steps, 1, 1, keep_drive=True))
    carry, values, sums = _steps(steps, q_steps, carry, sequence, n_steps)
    if task.readout == "all":
        outputs = jnp.swapaxes(_to_length(values, task.capacity), 0, 1)
    else:
        outputs = jax.vmap(lambda c: dynamics.output(prepared, c))(carry)
    losses = jax.vmap(lambda o, t: training.objective.loss(task, o, t, setting))(outputs, trials)
    value = jnp.mean(losses) + (0.0 if penalty is None else jnp.mean(sums) / n_steps)
    return value + sum(p.strength * p.on_weights(prepared) for p in training.penalties)


def _steps(steps: Steps, q: Tree, carry: Tree, sequence: Any, n_steps: int) -> tuple[Tree, Tree, Tree]:
    """All steps and what is read from them: the last carry, outputs ``[time, trial, …]`` and sums."""
    with native.without():  # random numbers are counted like everything else
        drives, _ = steps.external(q, carry.noise, sequence, 0)
    carry = carry._replace(noise=None)
    carries = []
    for t in range(n_steps):
        drive = add_drives(jax.tree.map(lambda a, t=t: a[t], drives), steps.recurrent(q, carry, sequence))
        carry = steps.update(q, carry, drive, t, sequence)
        carries.append(carry)
    if not steps.reads:
        return carry, (), ()
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *carries)
    return carry, *steps.read(q, stacked, jnp.ones(n_steps, bool), sequence)


def _to_length(a: Array, n: int) -> Array:
    """Cut, or filled up with zeros, along the first axis."""
    return jnp.pad(a[:n], [(0, max(n - a.shape[0], 0))] + [(0, 0)] * (a.ndim - 1))
