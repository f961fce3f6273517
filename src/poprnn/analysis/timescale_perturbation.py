"""How much noise on its time constants a network bears."""

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

STRENGTHS = tuple(float(x) for x in np.geomspace(1e-3, 10, 13))


def timescale_perturbation(
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
    """Accuracy with noise on the units' time constants, by its strength relative to theirs.

        tau' = tau + eps ||tau|| |xi| / ||xi||,     xi_i ~ N(0, 1),

    with tau as the dynamics see it (held above its minimum); noise only makes time constants longer.

    Every network, strength and draw has noise of its own; bits and first states are the same for all.

    Args:
        run: the population.
        n: memory N that is asked about, with the weights from when it was solved (stage snapshots); members that did
            not solve it get NaN. Default: the final weights and the newest N of each member.
        strengths: values of eps (the released code: 13 values from 0.001 to 10, evenly in their logarithm).
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
        NotApplicableError: the cell has no time constant for each unit, or nobody solved N.

    Reference: Khajehabdollahi et al., Emergent mechanisms for long timescales depends on training curriculum and
    affects performance in memory tasks, ICLR 2024, figure 7d.

    >>> import poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=8), members=2, epochs=1, steps_per_epoch=1, batch=4)
    >>> answer = pr.measure("timescale_perturbation", run, members="all", strengths=[0.1, 1.0], n_draws=3, n_steps=50)
    >>> answer.data["accuracy"].shape
    (2, 2, 3)
    """
    return perturbed(
        run,
        _change,
        "timescale_perturbation",
        n=n,
        strengths=np.asarray(strengths, float),
        n_draws=n_draws,
        how=(n_trials, n_steps, burn_in, bit_probability, seed),
        chance=chance,
    )


def _change(cell: Cell, parameters: Parameters, strength: Any, key: PRNGKey) -> Parameters:
    arrays = {**parameters.fixed, **parameters.trainable}
    prepared = cell.prepare(parameters, Context())
    if "tau" not in arrays or "alpha" not in prepared:
        raise NotApplicableError(f"timescale_perturbation: the units of cell '{cell.name()}' have no time constants")
    tau = cell.dt / prepared["alpha"]  # type: ignore[attr-defined]
    noise = jnp.abs(jax.random.normal(key, tau.shape))
    return parameters.replaced(tau=tau + strength * jnp.linalg.norm(tau) * noise / jnp.linalg.norm(noise))
