"""What a network still can do without one of its units."""

import numpy as np
import xarray as xr

from poprnn.analysis._population import BitProbability, Seed
from poprnn.analysis._probe import Chance, Probe, at_memory, chance_of, probe
from poprnn.analysis._statistics import relative_accuracy
from poprnn.analysis.timescales_single import timescales_single
from poprnn.core.arrays import Float, Int
from poprnn.core.blueprint import NonNegativeInt, PositiveInt
from poprnn.core.errors import ConfigurationError
from poprnn.training.run import Run


def ablation(
    run: Run,
    *,
    n: PositiveInt | None = None,
    units: list[NonNegativeInt] | None = None,
    n_longest: NonNegativeInt | None = None,
    n_shortest: NonNegativeInt | None = None,
    n_trials: PositiveInt = 10,
    n_steps: PositiveInt = 1000,
    burn_in: NonNegativeInt = 100,
    bit_probability: BitProbability = 0.5,
    chance: Chance | None = None,
    seed: Seed = 0,
) -> xr.Dataset:
    """Accuracy after taking out units, one at a time: those with the longest and those with the shortest tau.

    A unit without incoming, outgoing, input and readout weights has no effect, so its state is held at zero:

        h_u(t) = 0,     relative accuracy = (accuracy - chance) / (accuracy intact - chance).

    All networks and units see the same bits and first states, so that differences are due to the unit.

    Args:
        run: the population.
        n: memory N that is asked about, with the weights from when it was solved (stage snapshots); members that did
            not solve it get NaN. Default: the final weights and the newest N of each member.
        units: which units; default: by time constant, as the next two say (needs a cell with one for each unit).
        n_longest, n_shortest: how many with the longest and the shortest time constants; default 20 and 20 (the paper,
            of 500 units), or half of the units each where there are fewer than 40.
        n_trials, n_steps, burn_in: sequences of random bits for each network, scored steps of each and steps before
            them (the paper: 10, 1000, 100). The answer is due at the last step of every bit.
        bit_probability: probability of a 1, or ``"uniform"``: one for each sequence from U(0, 1) (the paper: 0.5).
        chance: accuracy of guessing; default 0.5 for memory tasks and 0 for others (which run trials of their own
            and are judged by the task's score).
        seed: changes bits and first states.

    Returns:
        ``accuracy`` and ``relative_accuracy`` (member, ablated), with coordinates ``unit`` (member, ablated),
        ``group`` (ablated: ``"longest"``, ``"shortest"`` or ``"given"``) and, where there is one, ``tau`` (member,
        ablated); ``base_accuracy`` (member), of the intact network.

    Raises:
        ConfigurationError: more units than there are, or a unit that is not there. NotApplicableError: no time
            constants to choose by, or nobody solved N.

    Reference: Khajehabdollahi et al., Emergent mechanisms for long timescales depends on training curriculum and
    affects performance in memory tasks, ICLR 2024, figure 7a, 7b.

    >>> import poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=8), members=2, epochs=1, steps_per_epoch=1, batch=4)
    >>> pr.measure("ablation", run, members="all", n_longest=2, n_shortest=1, n_steps=50).data["group"].values.tolist()
    ['longest', 'longest', 'shortest']
    """
    run_, heads, reached = at_memory(run, n, "ablation")
    chosen, groups, tau = _chosen(run_, units, n_longest, n_shortest)
    silenced = np.concatenate([np.full((run_.n_members, 1), -1), chosen], axis=1)
    how = Probe(n_trials, n_steps, burn_in, bit_probability, seed)
    found = probe(run_, np.zeros(silenced.shape[1]), None, how, heads=heads, units=silenced).accuracy
    accuracy = np.where(reached[:, None], found, np.nan)
    coordinates = {
        "member": run_.member_index,
        "unit": (("member", "ablated"), chosen),
        "group": ("ablated", np.array(groups)),
    }
    if tau is not None:
        coordinates["tau"] = (("member", "ablated"), np.take_along_axis(tau, chosen, axis=1))
    base, chance = accuracy[:, :1], chance_of(run_, chance)
    return xr.Dataset(
        {
            "accuracy": (("member", "ablated"), accuracy[:, 1:]),
            "relative_accuracy": (("member", "ablated"), relative_accuracy(accuracy[:, 1:], base, chance)),
            "base_accuracy": ("member", base[:, 0]),
        },
        coordinates,
    )


def _chosen(
    run: Run, units: list[int] | None, n_longest: int | None, n_shortest: int | None
) -> tuple[Int[np.ndarray, "member ablated"], list[str], Float[np.ndarray, "member unit"] | None]:
    n_units = getattr(run.cell, "n_units", None)
    if units is not None:
        for unit in units:
            if n_units is not None and unit >= n_units:
                raise ConfigurationError(f"ablation: no unit {unit}: the cell has units 0 … {n_units - 1}")
        return np.tile(np.array(units, int), (run.n_members, 1)), ["given"] * len(units), None
    tau = timescales_single(run)["tau"].values
    some = min(20, tau.shape[1] // 2)
    n_longest, n_shortest = (some if n is None else n for n in (n_longest, n_shortest))
    if n_longest + n_shortest > tau.shape[1]:
        raise ConfigurationError(
            f"ablation: n_longest + n_shortest = {n_longest + n_shortest}: must be at most the {tau.shape[1]} units"
        )
    order = np.argsort(-tau, axis=1, kind="stable")
    chosen = np.concatenate([order[:, :n_longest], order[:, tau.shape[1] - n_shortest :]], axis=1)
    return chosen, ["longest"] * n_longest + ["shortest"] * n_shortest, tau
