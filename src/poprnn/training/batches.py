"""What a batch is made of: its setting, its trials and their keys, and what their steps may see."""

from typing import Any

import jax
import jax.numpy as jnp

from poprnn.cells.contract import Context, Parameters
from poprnn.core import loops
from poprnn.core.arrays import Array, Count, Key, PRNGKey, Scalar, Tree
from poprnn.tasks.contract import Piecewise, Setting, Stage, Task, Trial
from poprnn.training import unroll as unrolling
from poprnn.training.dynamics import Carry
from poprnn.training.methods.contract import Method
from poprnn.training.penalties.contract import Penalty
from poprnn.training.settings import Setup


def draw(
    setup: Setup,
    method: Method,
    stage: Stage,
    arrays: Tree,
    context: Context,
    n_trials: int,
    part: tuple[Count, int],
    *,
    key: PRNGKey,
    trial_key: PRNGKey | None = None,
) -> tuple[Setting, Trial, Key[Array, "trial"], Key[Array, "trial"]]:
    """What a batch shares, (a part of) its trials, and the keys of their first states and of their steps."""
    draw_key, *keys = jax.random.split(key, 4)
    if trial_key is not None:
        draw_key, keys[0] = jax.random.split(trial_key, 4)[:2]
    size = n_trials // part[1]
    places = part[0] * size + jnp.arange(size)  # a trial's randomness depends on its place in the whole batch
    sample_keys, start_keys, step_keys = (jax.vmap(lambda i, k=k: jax.random.fold_in(k, i))(places) for k in keys)
    setting = method.adapt(setup.task.draw(stage, key=draw_key), context.schedule, setup.task)
    make = lambda: jax.vmap(lambda k: setup.task.sample(setting, arrays, key=k))(sample_keys)
    return setting, loops.apart(make, jax.random.key_data(draw_key)[0]), start_keys, step_keys


def sequence_of(
    setting: Setting, trials: Trial, step_keys: Key[Array, "trial"], context: Context, seen: Trial | None
) -> unrolling.Sequence:
    """The batch as the unroll wants it: time first, but where inputs come by pieces; no warm-up for a plain 0."""
    inputs, warm_up = trials.inputs, setting.no_gradient
    return unrolling.Sequence(
        inputs if isinstance(inputs, Piecewise) else jnp.swapaxes(inputs, 0, 1),
        step_keys,
        setting.length,
        context,
        seen,
        no_gradient=None if isinstance(warm_up, int) and warm_up == 0 else jnp.asarray(warm_up, jnp.int32),
    )


def seen_by_steps(trials: Trial, task: Task, method: Method) -> Trial | None:
    """What the steps of an unroll may look at: closed loops at everything, methods at periods and skips."""
    if task.closed_loop:
        return trials
    if not method.reads_trial:
        return None
    return Trial(None, None, None, trials.periods, None, trials.skips)  # type: ignore[arg-type]


def state_of(setup: Setup) -> Tree:
    """Shapes of the state of one trial."""

    def state() -> Tree:
        key = jax.random.key(0)
        parameters = setup.cell.init(setup.task.n_inputs, setup.task.n_outputs, key=key)
        return setup.cell.initial_state(setup.cell.prepare(parameters, Context()), key=key)

    return jax.eval_shape(state)


def trains_last_readout(setup: Setup, parameters: Parameters) -> bool:
    """Whether the trained arrays are the readout's alone, and it is read at the last step of an open loop only."""
    readout = setup.cell.groups.get("readout", ())
    return setup.task.readout == "last" and not setup.task.closed_loop and set(parameters.trainable) <= set(readout)


def activity_penalty(setup: Setup) -> unrolling.Read | None:
    """Sum of the penalties on one step's activity; ``None`` if there is none."""
    penalties = [p for p in setup.training.penalties if type(p).on_activity is not Penalty.on_activity]

    def penalty(prepared: dict[str, Any], carry: Carry) -> Scalar:
        del prepared
        return sum((p.strength * p.on_activity(setup.cell.activity(carry.state)) for p in penalties), jnp.zeros(()))

    return penalty if penalties else None
