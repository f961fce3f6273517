"""How many images of a set are told right, all of them asked once."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from poprnn.cells.contract import Context
from poprnn.core import backend
from poprnn.core.arrays import Count, Tree
from poprnn.core.blueprint import PositiveInt
from poprnn.core.errors import NotApplicableError
from poprnn.core.keys import member_key
from poprnn.core.mapping import MemberMap
from poprnn.tasks.sequential_images import PARTS, SequentialImages
from poprnn.training import unroll as unrolling
from poprnn.training.dynamics import Dynamics
from poprnn.training.methods.control import Control
from poprnn.training.program import Program
from poprnn.training.run import Run, to_numpy
from poprnn.training.settings import Setup, shape_of

Part = Literal["training", "validation", "test"]


def image_accuracy(run: Run, *, part: Part = "test", batch: PositiveInt = 250) -> xr.Dataset:
    """Accuracy on a whole set of images, each shown once, by the base dynamics; and what is taken for what.

        accuracy = number of images with argmax y(T) = class / number of images

    Evaluations while training draw images at random; this asks all. A network that was chosen by its validation score
    is ``run.at("best")`` (trained with ``snapshots = "best"``), to be asked about the test set.

    Args:
        run: a population on task ``sequential_images``.
        part: which images.
        batch: images run at once (250: our choice, a matter of memory); accuracy does not depend on it, but for a cell
            with noise, whose random numbers it changes.

    Returns:
        ``accuracy`` (member); ``answers`` (member, class, answer), the number of images of a class that were taken for
        another or the same; ``n_images`` and ``n_trained_on``, the sizes of this set and of the one trained on.

    Raises:
        NotApplicableError: another task.

    >>> import poprnn as pr
    >>> run = pr.fit(pr.tasks.SequentialImages(pool=4), pr.cells.LeakyRNN(n_units=4), epochs=1, steps_per_epoch=1,
    ...              batch=4, evaluation_batches=1)
    >>> found = image_accuracy(run)
    >>> int(found["answers"].sum()), int(found["n_trained_on"])
    (297, 1350)
    """
    if not isinstance(run.task, SequentialImages):
        raise NotApplicableError(f"image_accuracy: task '{run.task.name()}' has no set of images")
    place = PARTS.index(part)
    low, high = (int(edge) for edge in run.arrays["bounds"][place : place + 2])
    batch = min(batch, high - low)
    score = _compiled(shape_of(run.setup), run.n_members, batch, -(-(high - low) // batch))
    with backend.precision(32):
        shared = {
            "seed": jnp.asarray(run.seed, jnp.uint32),
            "arrays": jax.tree.map(jnp.asarray, run.arrays),
            "edges": jnp.asarray([low, high], jnp.int32),
        }
        answers = to_numpy(score((run.member_index.astype(np.int32), run.varied, run.parameters), shared)[1])
    right = np.trace(answers, axis1=1, axis2=2)
    return xr.Dataset(
        {
            "accuracy": ("member", right / (high - low)),
            "answers": (("member", "class", "answer"), answers.astype(np.int64)),
            "n_images": high - low,
            "n_trained_on": int(run.arrays["bounds"][1]),
        },
        {"member": run.member_index},
    )


@functools.lru_cache(maxsize=16)
def _compiled(setup: Setup, n_members: int, batch: int, n_batches: int) -> MemberMap:
    """The program that asks; another snapshot of the population needs no other."""
    program = Program(setup)

    def member(state: Tree, shared: Tree) -> tuple[Tree, Any]:
        index, varied, parameters = state
        own = program.of(varied)
        prepared = own.cell.prepare(parameters, Context())
        dynamics = Dynamics(own.cell, Control())
        key = member_key(shared["seed"], index, "score")
        arrays, (low, high) = shared["arrays"], shared["edges"]

        def one(counts: Any, i: Count) -> tuple[Any, None]:
            places = low + i * batch + jnp.arange(batch)
            asked = places < high  # the last batch may be shorter
            places = jnp.minimum(places, high - 1)
            keys = jax.random.split(jax.random.fold_in(key, i), (2, batch))
            carry = jax.vmap(lambda k: dynamics.start(prepared, None, own.task.n_outputs, key=k))(keys[0])
            inputs = jnp.swapaxes(own.task.inputs_of(arrays["pixels"][places]), 0, 1)  # type: ignore[attr-defined]
            sequence = unrolling.Sequence(inputs, keys[1], own.task.capacity, Context(), None)
            carry, _, _ = unrolling.unroll(dynamics, prepared, carry, sequence, gradient=False)
            said = jnp.argmax(jax.vmap(lambda c: dynamics.output(prepared, c))(carry), axis=-1)
            return counts.at[arrays["classes"][places], said].add(asked.astype(jnp.int32)), None

        empty = jnp.zeros((own.task.n_outputs, own.task.n_outputs), jnp.int32)
        return state, jax.lax.scan(one, empty, jnp.arange(n_batches))[0]

    return MemberMap(member, n_members)
