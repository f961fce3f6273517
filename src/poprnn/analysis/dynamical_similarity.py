"""How alike the dynamics of the members of a population are."""

from typing import Any, Literal

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

from poprnn.analysis._operators import Operators, fit_operators
from poprnn.analysis._orthogonal_alignment import align, lower_bound
from poprnn.analysis._pairs import with_degeneracy
from poprnn.analysis._population import Seed
from poprnn.analysis._shared_trials import activity_on_shared_trials
from poprnn.core.arrays import Float
from poprnn.core.blueprint import PositiveInt
from poprnn.core.errors import ConfigurationError
from poprnn.training.run import Run

NAME = "dynamical_similarity"
Distance = Literal["frobenius", "angular", "wasserstein"]


def dynamical_similarity(
    run: Run,
    *,
    distance: Distance = "frobenius",
    n_delays: PositiveInt = 30,
    rank: PositiveInt = 100,
    scaled: bool | None = None,
    n_trials: PositiveInt = 64,
    n_starts: PositiveInt | None = None,
    seed: Seed = 0,
) -> xr.Dataset:
    """Distances between members' dynamics: dynamical similarity analysis (DSA).

    All members run the same fresh trials. With h(t) their activity, rows of H are [h(t), h(t-1), …, h(t-n_delays+1)]
    of every trial, H = V S U^T, V cut to ``rank`` columns, and A_k the operator of member k that predicts v(t + 1) from
    v(t) best (least squares). Then, over rotations and reflections Q,

        frobenius:    d_ij = min_Q ||A_i - Q A_j Q^T||,
        angular:      d_ij = min_Q arccos <A_i, Q A_j Q^T>,                       2 sin(d / 2) is the frobenius one,
        wasserstein:  d_ij = min over permutations p (mean_k |l_ik - l_jp(k)|^2)^(1/2),       l: eigenvalues.

    For the first two operators have unit Frobenius norm, unless ``scaled = False``. The minimum over Q is searched for
    from several starts by a trust-region Newton method; what is found is never below the true distance, and
    ``lower_bound`` says how far it may be above. The same seed gives the same numbers.

    A component that holds less than 1e-12 of the largest one's variance is rounding and left out; the operator is zero
    there, as it is for the padding of eigenvalues in dsa-metric (our choice; that package would fit the rounding).

    Args:
        run: the population.
        distance: see above. The paper: "frobenius". "wasserstein" is the square root of what dsa-metric calls so.
        n_delays: steps in a window (the paper: 30; 20 for delayed discrimination). Trials must be longer.
        rank: components kept (the paper: 100; 1000 for the flip-flop). Time grows with its third power.
        scaled: operators of unit norm; default (dsa-metric's) yes, but not for "wasserstein". Angles have no scale.
        n_trials: trials; the default 64 gives more samples than coordinates (units times delays) in the paper's tasks.
        n_starts: of the search; default 100 000 / rank^2, but 6 to 128, which takes about as long at every rank: with
            so many its distances were smaller than dsa-metric's for 119 of 120 pairs of rank 30 and 100 (our choice).
        seed: changes trials, noise, random starts and resampling.

    Returns:
        ``distance`` (member, other), symmetric, 0 on the diagonal, NaN for members with activity that is not finite;
        ``lower_bound`` (member, other), not for "wasserstein"; ``degeneracy``, the mean over pairs, with
        ``degeneracy_low`` and ``degeneracy_high``: 95 %, by bootstrap over members. ``n_components``,
        ``variance_explained`` and ``r_squared`` (member): components kept, the share of H's squared norm they hold, and
        of their change that the operator predicts. ``eigenvalue_real``, ``eigenvalue_imaginary`` (member, component),
        largest first. The attributes ``distance`` and ``scaled`` say what was asked for.

    Raises:
        ConfigurationError: trials shorter than the delays, more rank than samples or coordinates, an option that the
            distance does not have. NotApplicableError: a cell whose activity is not a vector. CapacityError: too much
            for the memory there is.

    References: Ostrow et al., Beyond geometry: comparing the temporal structure of computation in neural circuits with
    dynamical similarity analysis, NeurIPS 2023; Huang et al., Measuring and controlling solution degeneracy across
    task-trained recurrent neural networks, 2024; Redman et al., Identifying equivalent training dynamics, NeurIPS 2024
    (eigenvalues).

    >>> import numpy as np, poprnn as pr
    >>> turn = lambda a: np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    >>> cell = pr.cells.VanillaRNN(n_units=2, activation="identity")      # a fast, a slow and a slow, mirrored spiral
    >>> run = pr.from_arrays(pr.tasks.NParity(n_max=4), cell, {
    ...     "W": 0.9 * np.stack([turn(1.0), turn(0.3), turn(-0.3)]), "W_in": np.tile(np.eye(2, 1), (3, 1, 1)),
    ...     "bias": np.zeros((3, 2))})
    >>> pr.measure("dynamical_similarity", run, n_delays=1, rank=2, n_trials=200).data["distance"][1].values.round(1)
    array([0.5, 0. , 0. ])
    """
    _check(distance, scaled, n_starts)
    states = activity_on_shared_trials(NAME, run, n_trials, seed)
    operators = fit_operators(states, n_delays, rank, analysis=NAME)
    unit = scaled if scaled is not None else distance != "wasserstein"
    variables: dict[str, Any] = _apart(operators.matrices, distance, unit, n_starts or default_starts(rank), seed)
    attributes = {"distance": distance, "scaled": str(unit).lower()}
    return with_degeneracy(variables | _about(operators), "distance", run.member_index, seed, attributes)


def default_starts(rank: int) -> int:
    """So many that a pair takes about as long at every rank, where starts cost little.

    >>> [default_starts(rank) for rank in (5, 30, 100, 1000)]
    [128, 111, 10, 6]
    """
    return int(np.clip(100_000 // rank**2, 6, 128))


def _check(distance: str, scaled: bool | None, n_starts: int | None) -> None:
    if distance == "angular" and scaled is not None:
        raise ConfigurationError(f"{NAME}: scaled = {scaled}: has no effect on distance = 'angular'")
    if distance == "wasserstein" and n_starts is not None:
        raise ConfigurationError(f"{NAME}: n_starts = {n_starts}: has no effect on distance = 'wasserstein'")


def _apart(
    operators: Float[np.ndarray, "member rank rank"], distance: str, unit: bool, n_starts: int, seed: int
) -> dict[str, Any]:
    """Distances (and bounds) with their axes; NaN for operators that are not finite, or zero and to be scaled."""
    norm = np.linalg.norm(operators, axis=(1, 2))
    good = np.isfinite(norm) & ((norm > 0) if unit else True)
    used = operators[good] / norm[good, None, None] if unit else operators[good]
    found: dict[str, Any] = (
        {"distance": eigenvalue_distances(used)}
        if distance == "wasserstein"
        else aligned_distances(used, n_starts=n_starts, seed=seed)
    )
    if distance == "angular":
        found = {name: 2 * np.arcsin(np.clip(values / 2, 0, 1)) for name, values in found.items()}
    out = {name: np.full((len(norm), len(norm)), np.nan) for name in found}
    for name, values in found.items():
        out[name][np.ix_(good, good)] = values
    return {name: (("member", "other"), values) for name, values in out.items()}


def aligned_distances(
    operators: Float[np.ndarray, "member rank rank"], *, n_starts: int | None = None, seed: int = 0
) -> dict[str, Float[np.ndarray, "member other"]]:
    """``min_Q ||A_i - Q A_j Q^T||`` over orthogonal Q as found, ``distance``, and ``lower_bound``; of any operators.

    >>> a, flip = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> aligned_distances(np.stack([a, flip @ a @ flip]))["distance"].round(6).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    n, rank = operators.shape[:2]
    out = np.zeros((n, n))
    pairs = np.stack(np.triu_indices(n, 1), axis=1)
    if len(pairs):
        norm = np.linalg.norm(operators, axis=(1, 2), keepdims=True)
        unit = operators / np.where(norm > 0, norm, 1)
        q = align(unit, pairs, n_starts=n_starts or default_starts(rank), seed=seed)
        apart = operators[pairs[:, 0]] - q @ operators[pairs[:, 1]] @ np.swapaxes(q, 1, 2)
        out[pairs[:, 0], pairs[:, 1]] = out[pairs[:, 1], pairs[:, 0]] = np.linalg.norm(apart, axis=(1, 2))
    return {"distance": out, "lower_bound": np.minimum(lower_bound(operators), out)}


def eigenvalue_distances(operators: Float[np.ndarray, "member rank rank"]) -> Float[np.ndarray, "member other"]:
    """2-Wasserstein distances between the eigenvalues, each of weight 1 / rank.

    >>> eigenvalue_distances(np.stack([np.diag([1.0, 0.0]), np.diag([0.0, 0.6])]))[0, 1].round(6).item()
    0.282843
    """
    values = np.linalg.eigvals(operators)
    n, rank = values.shape
    out = np.zeros((n, n))
    for i, j in zip(*np.triu_indices(n, 1), strict=True):  # an assignment problem each
        cost = np.abs(values[i][:, None] - values[j][None]) ** 2
        out[i, j] = out[j, i] = np.sqrt(cost[linear_sum_assignment(cost)].sum() / rank)
    return out


def _about(operators: Operators) -> dict[str, Any]:
    """The operators' eigenvalues and how well they fit."""
    finite = np.isfinite(operators.matrices).all(axis=(1, 2))
    values = np.linalg.eigvals(np.where(finite[:, None, None], operators.matrices, 0)).astype(complex)
    values = np.take_along_axis(values, np.lexsort((-values.imag, -np.abs(values).round(10)), axis=-1), axis=-1)
    values[~finite] = np.nan
    return {
        "n_components": ("member", operators.n_components),
        "variance_explained": ("member", operators.variance),
        "r_squared": ("member", operators.r_squared),
        "eigenvalue_real": (("member", "component"), values.real),
        "eigenvalue_imaginary": (("member", "component"), values.imag),
    }
