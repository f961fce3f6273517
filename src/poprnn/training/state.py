"""What a member's training consists of, as trees of arrays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from poprnn.cells.contract import Parameters
from poprnn.core.arrays import Array, Bool, Count, Float, Scalar, Tree
from poprnn.core.errors import ConfigurationError, nearest
from poprnn.tasks.contract import Setting, Trial
from poprnn.training.settings import Setup


class MemberState(NamedTuple):
    """Everything that changes while a member is trained; all of it is in a checkpoint."""

    member: Count
    varied: dict[str, Scalar]
    """Hyperparameters of its own."""
    parameters: Parameters
    optimizer: Tree
    progress: Tree
    """Place in the curriculum."""
    monitors: tuple[Tree, ...]
    n_steps: Count
    """Optimiser steps taken."""
    n_time_steps: Count
    """Time steps unrolled in training, for the operation count."""
    n_gradient_steps: Count
    """Those of them through which the gradient went back."""
    loss_sum: Scalar
    """Over the steps since the last evaluation."""
    diverged: Bool[Array, ""]
    outcome: Count
    """0 while training, then 1 + place in :attr:`Program.outcomes`."""


class Shared(NamedTuple):
    """What all members are given alike."""

    seed: Count
    arrays: Tree
    n_steps: Count | int = 0
    """Optimiser steps of this call."""
    last_epoch: Bool[Array, ""] | bool = False


class Record(NamedTuple):
    """What an evaluation leaves in the history."""

    n_steps: Count
    n_time_steps: Count
    n_gradient_steps: Count
    training_loss: Scalar
    """Mean over the epoch's steps."""
    loss: Scalar
    """On fresh trials, without penalties."""
    scores: dict[str, Float[Array, "..."]]
    stage: Count
    """Stage that was evaluated."""
    newest: Count
    """Its newest head."""
    passed: Bool[Array, ""]
    """Whether the stage was passed."""
    outcome: Count


class Batch(NamedTuple):
    """A batch of trials and what the network made of it."""

    setting: Setting
    trials: Trial
    prepared: dict[str, Any]
    outputs: Float[Array, "trial ..."]
    emitted: Tree
    """What ``emit`` said at every step, ``[trial, time, …]``."""
    activity_penalty: Scalar
    workspace: Tree


def all_finite(tree: Tree) -> Bool[Array, ""]:
    """Whether every number of a tree is finite."""
    leaves = [jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves)) if leaves else jnp.asarray(True)


def first_true(ends: list[Any]) -> Count:
    """1 + the place of the first true entry, 0 if there is none."""
    flags = jnp.stack([jnp.asarray(e, bool) for e in ends])
    return jnp.where(jnp.any(flags), 1 + jnp.argmax(flags), 0).astype(jnp.int32)


def select_trainable(parameters: Parameters, setup: Setup) -> Parameters:
    """Arrays that ``training.trainable`` does not name become fixed; what the cell holds fixed stays so."""
    wanted = setup.training.trainable
    if wanted is None:
        return parameters
    everything = {**parameters.fixed, **parameters.trainable}
    names: set[str] = set()
    for name in wanted:
        members = setup.cell.groups.get(name, (name,))
        found = [m for m in members if m in everything]
        if not found:
            known = [*everything, *setup.cell.groups]
            raise ConfigurationError(f"trainable: no array or group named '{name}'{nearest(name, known)}")
        names.update(m for m in found if m in parameters.trainable or m == name)
    return Parameters(
        {k: v for k, v in everything.items() if k in names}, {k: v for k, v in everything.items() if k not in names}
    )
