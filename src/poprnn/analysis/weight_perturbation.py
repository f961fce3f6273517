"""How much noise on its recurrent weights a network bears."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from poprnn.analysis._population import BitProbability, Seed
from poprnn.analysis._probe import Chance, Strengths, perturbed
from poprnn.cells.contract import Cell, Context, Parameters
from poprnn.core.arrays import PRNGKey
from poprnn.core.blueprint import NonNegativeInt, PositiveInt
from poprnn.core.errors import NotApplicableError
from poprnn.training.run import Run

STRENGTHS = tuple(float(x) for x in np.geomspace(1e-2, 10, 10))


def weight_perturbation(
    run: Run,
    *,
    n: PositiveInt | None = None,
    strengths: Strengths = STRENGTHS,
    n_draws: PositiveInt = 10,
    n_trials: PositiveInt = 10,
    n_steps: PositiveInt = 1000,
    burn_in: NonNegativeInt = 100,
    bit_probability: BitProbability = 0.5,
    chance: Chance | None = None,
    seed: Seed = 0,
) -> xr.Dataset:
    """Accuracy with noise on the recurrent weights, by its strength relative to theirs.

        W' = W + eps ||W||_F xi / ||xi||_F,     xi_ij ~ N(0, 1),

    with W as the dynamics see it (where units do not connect to themselves, neither W nor xi has a diagonal).

    Every network, strength and draw has noise of its own; bits and first states are the same for all.

    Args:
        run: the population.
        n: memory N that is asked about, with the weights from when it was solved (stage snapshots); members that did
            not solve it get NaN. Default: the final weights and the newest N of each member.
        strengths: values of eps (the paper: 10 values from 0.01 to 10, evenly in their logarithm).
        n_draws: noises for each network and strength (the paper: 10).
        n_trials, n_steps, burn_in: sequences of random bits for each network, scored steps of each and steps before
            them (the paper: 10, 1000, 100). The answer is due at the last step of every bit.
        bit_probability: probability of a 1, or ``"uniform"``: one for each sequence from U(0, 1) (the paper: 0.5).
        chance: accuracy of guessing; default 0.5 for memory tasks and 0 for others (which run trials of their own
            and are judged by the task's score).
        seed: changes noise, bits and first states.

    Returns:
        ``accuracy`` (member, strength, draw), ``relative_accuracy`` (member, strength, draw) =
        (accuracy - chance) / (accuracy unperturbed - chance), ``base_accuracy`` (member).

    Raises:
        NotApplicableError: the cell has no recurrent weights W, or nobody solved N.

    Reference: Khajehabdollahi et al., Emergent mechanisms for long timescales depends on training curriculum and
    affects performance in memory tasks, ICLR 2024, figure 7c.

    >>> import poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=8), members=2, epochs=1, steps_per_epoch=1, batch=4)
    >>> answer = pr.measure("weight_perturbation", run, members="all", strengths=[0.1, 1.0], n_draws=3, n_steps=50)
    >>> answer.data["accuracy"].shape
    (2, 2, 3)
    """
    return perturbed(
        run,
        _change,
        "weight_perturbation",
        n=n,
        strengths=np.asarray(strengths, float),
        n_draws=n_draws,
        how=(n_trials, n_steps, burn_in, bit_probability, seed),
        chance=chance,
    )


def _change(cell: Cell, parameters: Parameters, strength: Any, key: PRNGKey) -> Parameters:
    arrays = {**parameters.fixed, **parameters.trainable}
    if "W" not in arrays:
        raise NotApplicableError(f"weight_perturbation: cell '{cell.name()}' has no recurrent weights W")
    W = cell.prepare(parameters, Context())["W"]
    noise = jax.random.normal(key, W.shape)
    if not getattr(cell, "self_connection", True):
        noise = noise * (1 - jnp.eye(len(W)))
    return parameters.replaced(W=W + strength * jnp.linalg.norm(W) * noise / jnp.linalg.norm(noise))
