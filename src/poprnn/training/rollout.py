"""Hidden states of a population for any inputs, streamed when they are long."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from poprnn.cells.contract import Cell, Context, Parameters
from poprnn.core import backend
from poprnn.core.arrays import Array, Float, PRNGKey, Tree
from poprnn.core.errors import ConfigurationError
from poprnn.core.keys import member_key
from poprnn.core.mapping import MemberMap
from poprnn.tasks.contract import Trial, in_steps
from poprnn.training import unroll as unrolling
from poprnn.training.dynamics import Carry, Dynamics
from poprnn.training.methods.contract import Method
from poprnn.training.program import Program
from poprnn.training.run import Run, to_numpy
from poprnn.training.settings import Setup, shape_of

Perturb = Callable[[Tree, Any], Tree]


class Rollout(NamedTuple):
    """A stretch of time of a whole population."""

    states: Float[np.ndarray, "member trial time unit"]
    """Activity of the units after every step."""
    outputs: Float[np.ndarray, "member trial time output"]
    inputs: Float[np.ndarray, "member trial time input"]
    trials: Trial | None = None
    """The trials the task drew, where no inputs were given: ``[member, trial, …]``."""
    length: np.ndarray | None = None
    """``[member]``: true number of steps of those trials."""


class Perturbed(Method):
    """The base dynamics with something done to the state after every step."""

    perturb: Any

    def update(
        self,
        cell: Cell,
        prepared: dict[str, Any],
        state: Tree,
        memory: Tree,
        drive: Tree,
        *,
        key: PRNGKey,
        context: Context,
    ) -> tuple[Tree, Tree]:
        """Update, then perturb."""
        return self.perturb(cell.update(prepared, state, drive, key=key, context=context), context.time), memory


def rollout(
    run: Run,
    inputs: Array | np.ndarray | None = None,
    *,
    n_trials: int = 64,
    parameters: Parameters | None = None,
    dt: float | None = None,
    noise: float | None = None,
    perturb: Perturb | None = None,
    seed: int = 0,
) -> Rollout:
    """Run every member and return its states.

    Args:
        run: the population.
        inputs: ``[trial, time, input]`` for all members alike or ``[member, trial, time, input]``; ``None``: fresh
            trials of the task, at the stage each member has reached.
        n_trials: number of those fresh trials.
        parameters: other weights to run with (perturbed, ablated), stacked over members.
        dt: integration step, where it is not the cell's own.
        noise: standard deviation of the cell's noise, where it is not the cell's own.
        perturb: ``(state, time) -> state``, applied after every step to one trial of one member.
        seed: changes start, noise and trials.

    Raises:
        ConfigurationError: inputs of another shape. CapacityError: too large to hold; use :func:`rollout_iter`.

    >>> import numpy as np, poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=8), epochs=1, steps_per_epoch=1, batch=4)
    >>> rollout(run, np.ones((2, 5, 1))).states.shape
    (1, 2, 5, 8)
    """
    if inputs is None:
        return _task_rollout(run, n_trials, parameters, noise, perturb, seed)
    inputs = _by_member(run, inputs)
    require = inputs.shape[0] * inputs.shape[1] * inputs.shape[2] * (_n_units(run) + run.task.n_outputs) * 4 * 2
    backend.require_memory(require, "this rollout (use rollout_iter to take it in pieces)")
    pieces = list(
        rollout_iter(
            run,
            inputs,
            chunk=max(inputs.shape[2], 1),
            parameters=parameters,
            dt=dt,
            noise=noise,
            perturb=perturb,
            seed=seed,
        )
    )
    return pieces[0]


def rollout_iter(
    run: Run,
    inputs: Array | np.ndarray,
    *,
    chunk: int = 1000,
    parameters: Parameters | None = None,
    dt: float | None = None,
    noise: float | None = None,
    perturb: Perturb | None = None,
    seed: int = 0,
) -> Iterator[Rollout]:
    """As :func:`rollout`, in pieces of ``chunk`` steps that continue one another; memory holds one piece.

    >>> import numpy as np, poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=8), epochs=1, steps_per_epoch=1, batch=4)
    >>> [piece.states.shape[2] for piece in rollout_iter(run, np.ones((2, 25, 1)), chunk=10)]
    [10, 10, 5]
    """
    inputs = _by_member(run, inputs)
    n_trials, n_steps = inputs.shape[1:3]
    # with a function of the user's the program is his own; else the next snapshot of the population needs no other
    make = _runner if perturb is None else _Runner
    runner = make(shape_of(run.setup), run.n_members, n_trials, noise, perturb, dt)
    carry = runner.start(run, parameters, seed)
    for first in range(0, n_steps, chunk):
        piece = inputs[:, :, first : first + chunk]
        size = piece.shape[2]
        padded = np.pad(piece, ((0, 0), (0, 0), (0, min(chunk, n_steps) - size), (0, 0)))
        carry, states, outputs = runner.advance(run, carry, parameters, padded, first, size, seed)
        yield Rollout(states[:, :, :size], outputs[:, :, :size], piece)


class _Runner:
    """One compiled piece, used again for every piece."""

    def __init__(
        self,
        setup: Setup,
        n_members: int,
        n_trials: int,
        noise: float | None,
        perturb: Perturb | None,
        dt: float | None,
    ) -> None:
        if setup.task.closed_loop:
            raise ConfigurationError(
                f"task '{setup.task.name()}' is a closed loop: its inputs follow from the answers; "
                "call rollout without inputs"
            )
        self.setup, self.n_trials, self.dt, self.noise = setup, n_trials, dt, noise
        self.program = Program(setup)
        self.method = Method() if perturb is None else Perturbed(perturb=perturb)
        self._start = MemberMap(self._start_member, n_members)
        self._advance = MemberMap(self._advance_member, n_members)

    def _cell(self, varied: dict[str, Any]) -> Cell:
        cell = self.program.of(varied).cell
        if self.noise is None:
            return cell
        if not hasattr(cell, "noise"):
            raise ConfigurationError(f"cell '{cell.name()}' has no noise to set")
        return cell.substitute({"noise": self.noise})

    def start(self, run: Run, parameters: Parameters | None, seed: int) -> Carry:
        """Carries before the first step, ``[member, trial, …]``."""
        with backend.precision(32):
            shared = (jnp.asarray(run.seed, jnp.uint32), jnp.asarray(seed, jnp.uint32))
            return self._start(_states(run, parameters), shared)[1]

    def _start_member(self, state: Tree, shared: Tree) -> tuple[Tree, Carry]:
        index, varied, parameters = state
        key = jax.random.fold_in(jax.random.fold_in(member_key(shared[0], index, "rollout"), shared[1]), 0)
        cell = self._cell(varied)
        prepared = cell.prepare(parameters, Context(dt=self.dt))
        dynamics = Dynamics(cell, self.method)
        return state, jax.vmap(lambda k: dynamics.start(prepared, None, self.setup.task.n_outputs, key=k))(
            jax.random.split(key, self.n_trials)
        )

    def advance(
        self,
        run: Run,
        carry: Carry,
        parameters: Parameters | None,
        inputs: np.ndarray,
        first: int,
        length: int,
        seed: int,
    ) -> tuple[Carry, np.ndarray, np.ndarray]:
        """One piece."""
        with backend.precision(32):
            shared = (
                jnp.asarray(run.seed, jnp.uint32),
                jnp.asarray(seed, jnp.uint32),
                jnp.asarray(first, jnp.int32),
                jnp.asarray(length, jnp.int32),
            )
            states = (*_states(run, parameters), carry, np.asarray(inputs, np.float32))
            (*_, carry, _), (rates, outputs) = self._advance(states, shared)
        return carry, np.asarray(rates), np.asarray(outputs)

    def _advance_member(self, state: Tree, shared: Tree) -> tuple[Tree, Any]:
        index, varied, parameters, carry, inputs = state
        key = jax.random.fold_in(jax.random.fold_in(member_key(shared[0], index, "rollout"), shared[1]), 1)
        cell = self._cell(varied)
        context = Context(dt=self.dt)
        prepared = cell.prepare(parameters, context)
        dynamics = Dynamics(cell, self.method)
        sequence = unrolling.Sequence(
            jnp.swapaxes(inputs, 0, 1), jax.random.split(key, self.n_trials), shared[3], context, None, shared[2]
        )
        carry, emitted, _ = unrolling.unroll(
            dynamics,
            prepared,
            carry,
            sequence,
            gradient=False,
            emit=lambda q, c: (cell.activity(c.state), cell.readout(q, c.state)),
        )
        rates, outputs = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), emitted.outputs)
        return (index, varied, parameters, carry, inputs), (rates, outputs)


@functools.lru_cache(maxsize=8)
def _runner(*arguments: Any) -> _Runner:
    return _Runner(*arguments)


def _states(run: Run, parameters: Parameters | None) -> tuple[Any, ...]:
    return (run.member_index.astype(np.int32), run.varied, parameters or run.parameters)


def _task_rollout(
    run: Run, n_trials: int, parameters: Parameters | None, noise: float | None, perturb: Perturb | None, seed: int
) -> Rollout:
    """Fresh trials of the task, open or closed loop."""
    make = _task_runner if perturb is None else _make_task_runner
    backend.require_memory(
        run.n_members * n_trials * run.task.capacity * (_n_units(run) + run.task.n_outputs) * 8, "this rollout"
    )
    with backend.precision(32):
        shared = (
            jnp.asarray(run.seed, jnp.uint32),
            jnp.asarray(seed, jnp.uint32),
            jax.tree.map(jnp.asarray, run.arrays),
        )
        runner = make(shape_of(run.setup), run.n_members, n_trials, noise, perturb)
        rates, outputs, trials, length = to_numpy(runner((*_states(run, parameters), run.places()), shared)[1])
    return Rollout(rates, outputs, trials.inputs, trials, length)


def _make_task_runner(
    setup: Setup, n_members: int, n_trials: int, noise: float | None, perturb: Perturb | None
) -> MemberMap:
    program, task = Program(setup), setup.task
    method = Method() if perturb is None else Perturbed(perturb=perturb)

    def member(state: Tree, shared: Tree) -> tuple[Tree, Any]:
        index, varied, parameters, progress = state
        setup = program.of(varied)
        if noise is not None:
            setup = setup.substitute({"cell.noise": noise})
        stage = setup.training.curriculum.stage(task, progress)._replace(split="evaluate")
        key = jax.random.fold_in(member_key(shared[0], index, "rollout"), shared[1])
        batch = program.run_batch(
            setup,
            method,
            parameters,
            stage,
            shared[2],
            Context(),
            key=key,
            n_trials=n_trials,
            emit=lambda q, c: (setup.cell.activity(c.state), setup.cell.readout(q, c.state)),
        )
        rates, outputs = batch.emitted
        every_step = jax.vmap(lambda values: in_steps(values, task.capacity))
        trials = batch.trials._replace(inputs=every_step(batch.trials.inputs), targets=every_step(batch.trials.targets))
        return state, (rates, outputs, trials, jnp.asarray(batch.setting.length, jnp.int32))

    return MemberMap(member, n_members)


@functools.lru_cache(maxsize=8)
def _task_runner(*arguments: Any) -> MemberMap:
    return _make_task_runner(*arguments)


def _by_member(run: Run, inputs: Any) -> np.ndarray:
    inputs = np.asarray(inputs, np.float32)
    if inputs.ndim == 3:
        inputs = np.broadcast_to(inputs, (run.n_members, *inputs.shape))
    if inputs.ndim != 4 or inputs.shape[0] != run.n_members or inputs.shape[3] != run.task.n_inputs:
        raise ConfigurationError(
            f"inputs have shape {list(inputs.shape)}; must be [trial, time, {run.task.n_inputs}] or "
            f"[{run.n_members}, trial, time, {run.task.n_inputs}]"
        )
    return inputs


def _n_units(run: Run) -> int:
    with backend.precision(32):
        parameters = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), run.parameters)
        rates = jax.eval_shape(
            lambda p, k: run.cell.activity(run.cell.initial_state(run.cell.prepare(p, Context()), key=k)),
            parameters,
            jax.random.key(0),
        )
    return rates.size
