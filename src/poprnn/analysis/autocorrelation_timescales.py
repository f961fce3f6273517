"""The timescales that units have within their network, seen in the autocorrelation of their activity."""

import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from pydantic import Field

from poprnn.analysis._exponentials import Fit, curves, fit_exponentials
from poprnn.analysis._lagged import Autocovariance
from poprnn.analysis._population import BitProbability, Piece, Seed, driven, refuse_bits, smallest_dt
from poprnn.core import backend
from poprnn.core.arrays import Bool, Float
from poprnn.core.blueprint import Fraction, NonNegativeInt, Positive, PositiveInt
from poprnn.core.errors import ConfigurationError, NotApplicableError
from poprnn.tasks._memory import MemoryTask
from poprnn.training.rollout import rollout
from poprnn.training.run import Run

NAME = "autocorrelation_timescales"
PIECE_BYTES = 2**28
"""Aim for the size of the activity held at once."""
SMALLEST_RSS = 1e-28
"""Residual sums of squares below this are rounding."""

MaxLag = Annotated[int, Field(ge=5, lt=2**31)]
Criterion = Literal["aic", "bic", "trials"]
Series = Float[np.ndarray, "member series"]
"""The units of every member, and as the last one their sum."""


def autocorrelation_timescales(
    run: Run,
    *,
    criterion: Criterion = "aic",
    n_trials: PositiveInt = 10,
    n_steps: PositiveInt | None = None,
    burn_in: NonNegativeInt | None = None,
    bit_probability: BitProbability | None = None,
    max_lag: MaxLag = 30,
    tau_max: Positive = 100.0,
    min_amplitude: Fraction = 0.01,
    seed: Seed = 0,
) -> xr.Dataset:
    """Timescale of every unit's activity, and of the summed activity, from fits of exponentials to autocorrelations.

    Activity x of a trial has its mean over time removed; autocovariances are averaged over trials and normalised,

        c(k) = < sum_t x(t) x(t - k) / (n - k) >_trials,    r(k) = c(k) / c(0),    k = 0 … max_lag,

    and fitted, with t = k dt, by least squares:

        r(t) = A exp(-t / tau)    or    r(t) = A_1 exp(-t / tau_1) + A_2 exp(-t / tau_2),

    amplitudes in [0, 1], taus in [0, tau_max]. With K = 2 or 4 parameters and n = max_lag + 1 lags the model with
    the lower AIC = 2 K + n ln(RSS / n), or BIC = K ln n + n ln(RSS / n), is chosen; tau is its slower time constant.
    These are timescales within the network, not those that training gave to units (``timescales_single``).

    Both criteria take residuals for independent, which sampling errors of neighbouring lags are not, and find a second
    exponential where there is none. Among 600 AR(1) units, tau 1 to 50, 10 trials of 1e5 steps, AIC chose one
    exponential for 40 %, BIC for 49 %. Slow components of small amplitude then pass for timescales: with AIC the mean
    tau of 200 came out 1.35 times too large (2.2 times with ``min_amplitude = 0``). ``criterion = "trials"`` chose one
    for 98.5 %: both models are fitted to all trials but one and judged on that one, in turn, and two exponentials are
    chosen where they predict better by more than the standard error. All three chose two for all of 200 sums of two
    AR(1) processes (taus 5 to 15 times apart, shares 0.3 to 0.7).

    Networks of a memory task are driven by random bits, the same for all members; others run fresh trials of their
    task. Activity is correlated as it comes, in float64; memory holds one piece of it.

    Args:
        run: the population.
        criterion: ``"aic"`` (the paper), ``"bic"`` or ``"trials"``, see above.
        n_trials: trials (sequences of bits) for each member (the paper: 10).
        n_steps: steps of every sequence after the burn-in; default 100 000 (the paper). Memory tasks only.
        burn_in: steps left out at the start of every trial; default 500 for memory tasks (the paper's code), else 0.
        bit_probability: probability of a 1; default ``"uniform"``, one drawn for each sequence from U(0, 1), as in
            the paper's code, whatever the task trains with. Memory tasks only. A bit lasts as long as in the task,
            at the smallest dt that the task draws.
        max_lag: largest lag that is fitted, in steps (the paper's code: 30).
        tau_max: upper bound of taus, in the units of the cell's dt (the paper's code: 100).
        min_amplitude: a slower component of smaller amplitude does not count, tau is then the faster one. The paper's
            code has 0 (and bounds A_1 + A_2 by 1, not each of them).
        seed: changes bits or trials, the start and the noise.

    Returns:
        In units of the cell's dt (of the smallest that the task draws; of one step, where the cell has no dt): ``tau``
        (member, unit) and over units ``mean``, ``std`` (divided by their number), ``median`` and ``standard_error`` of
        the mean (member); ``population_tau`` (member), that of the summed activity. ``n_exponentials`` (member,
        unit), chosen by ``criterion``, ``n_exponentials_aic`` and ``n_exponentials_bic``, by these two, and
        ``aic_bic_agreement`` (member), the share of units in which they are the same. ``r_squared`` (member,
        unit) and ``population_r_squared`` (member) of the chosen fits. ``tau_single``, ``amplitude_single`` (member,
        unit), ``tau_double``, ``amplitude_double`` (member, unit, component), the slower component last.
        ``autocorrelation`` (member, unit, lag) and ``population_autocorrelation`` (member, lag), lags in steps.
        ``n_failed`` (member): units with NaN, because their activity is constant or not finite, or a fit did not
        converge; statistics leave them out.

    Raises:
        ConfigurationError: ``n_steps`` or ``bit_probability`` for a task that is not driven by bits; trials that are
            not longer than burn-in and largest lag; a single trial for ``criterion = "trials"``. NotApplicableError: a
            cell whose activity is not a vector. CapacityError: too many units, trials and lags for the memory there is.

    Reference: Khajehabdollahi et al., Emergent mechanisms for long timescales depends on training curriculum and
    affects performance in memory tasks, ICLR 2024, figures 5 and S1 to S4.

    >>> import numpy as np, poprnn as pr
    >>> cell = pr.cells.LeakyRNN(n_units=3, activation="identity")               # low-pass filters of the bits
    >>> run = pr.from_arrays("n_parity", cell, {"W": np.zeros((3, 3)), "tau": np.array([2.0, 5.0, 10.0])})
    >>> answer = pr.measure("autocorrelation_timescales", run, n_steps=10_000, criterion="trials").data
    >>> answer["tau"].values.round().tolist()                                    # tau = -1 / ln(1 - 1 / tau_i)
    [[1.0, 4.0, 9.0]]
    """
    if criterion == "trials" and n_trials < 2:
        raise ConfigurationError(f"{NAME}: n_trials = 1: criterion = 'trials' needs at least 2")
    covariance = _covariance(_pieces(run, n_trials, n_steps, burn_in, bit_probability, seed), run, n_trials, max_lag)
    dt = np.broadcast_to(np.asarray(_dt(run), np.float64), run.n_members)
    correlation = _normalised(covariance.mean(axis=1))
    one, two = _fit(correlation, tau_max / dt)
    double = {name: _by_information(one, two, max_lag + 1, name) for name in ("aic", "bic")}
    if criterion == "trials":
        double["trials"] = _by_trials(covariance, tau_max / dt)
    chosen = _choose(one, two, double[criterion], correlation, min_amplitude, dt)
    return _dataset(run, correlation, chosen, double, (one, two), dt)


def _pieces(
    run: Run, n_trials: int, n_steps: int | None, burn_in: int | None, bit_probability: float | str | None, seed: int
) -> Iterable[Piece]:
    """Activity in pieces: driven by bits for memory tasks, on trials of its own for any other."""
    if isinstance(run.task, MemoryTask):
        steps, left_out = 100_000 if n_steps is None else n_steps, 500 if burn_in is None else burn_in
        probability = "uniform" if bit_probability is None else bit_probability
        return driven(run, n_trials, steps, left_out, probability, seed=seed, piece_bytes=PIECE_BYTES)
    refuse_bits(NAME, run, n_steps=n_steps, bit_probability=bit_probability)
    found = rollout(run, n_trials=n_trials, seed=seed)
    time = np.arange(found.states.shape[2])
    return [(found.states, (time >= (burn_in or 0)) & (time < np.asarray(found.length)[:, None]))]


def _covariance(
    pieces: Iterable[Piece], run: Run, n_trials: int, max_lag: int
) -> Float[np.ndarray, "member trial series lag"]:
    """Autocovariances of every trial; members are shared out among the cores."""
    members = [Autocovariance(max_lag) for _ in range(run.n_members)]
    with ThreadPoolExecutor(backend.n_cores()) as pool:
        for first, (states, counts) in enumerate(pieces):
            if states.ndim != 4:
                raise NotApplicableError(f"{NAME}: the activity of this cell is not one number for each unit")
            if first == 0:  # sums, ends and what they become
                size = run.n_members * n_trials * (states.shape[3] + 1) * (max_lag + 1) * 8
                backend.require_memory(6 * size, f"autocovariances of {states.shape[3]} units at {max_lag + 1} lags")
            parts = [own[:, mine] for own, mine in zip(states, counts, strict=True)]
            list(pool.map(Autocovariance.add, members, parts))
    shortest = min(member.n_steps for member in members)
    if shortest <= max_lag:
        raise ConfigurationError(
            f"{NAME}: max_lag = {max_lag}: must be less than the {shortest} steps that are left "
            f"of a trial of '{run.task.name()}' after the burn-in"
        )
    return np.stack([member.covariance() for member in members])


def _dt(run: Run) -> Any:
    """The time that a step takes, one number or one for each member."""
    smallest = smallest_dt(run)
    return run.varied.get("cell.dt", getattr(run.cell, "dt", 1.0)) if smallest is None else smallest


def _normalised(covariance: Float[np.ndarray, "... lag"]) -> Float[np.ndarray, "... lag"]:
    """NaN where there is no variance."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return covariance / covariance[..., :1]


def _fit(correlation: Float[np.ndarray, "member ... lag"], tau_max: Float[np.ndarray, "member"]) -> tuple[Fit, Fit]:
    """Both models, with the axes of the correlations."""
    shape = correlation.shape[:-1]
    bounds = np.repeat(tau_max, int(np.prod(shape[1:])))
    fits = fit_exponentials(correlation.reshape(-1, correlation.shape[-1]), bounds)
    one, two = (Fit(*(a.reshape(*a.shape[:-1], *shape) for a in fit)) for fit in fits)
    return one, two


def _by_information(one: Fit, two: Fit, n_lags: int, criterion: str) -> Bool[np.ndarray, "member series"]:
    """Whether an information criterion asks for two exponentials."""
    price = 2.0 if criterion == "aic" else np.log(n_lags)
    value = lambda fit, k: price * k + n_lags * np.log(np.maximum(fit.rss, SMALLEST_RSS) / n_lags)
    return value(two, 4) < value(one, 2)


def _by_trials(
    covariance: Float[np.ndarray, "member trial series lag"], tau_max: Float[np.ndarray, "member"]
) -> Bool[np.ndarray, "member series"]:
    """Whether two exponentials predict trials they were not fitted to, by more than a standard error better.

    A trial weighs as much as in the average over trials: by its variance.
    """
    n_trials, n_lags = covariance.shape[1], covariance.shape[3]
    rest = _normalised(covariance.sum(axis=1, keepdims=True) - covariance)
    left_out, variance = np.nan_to_num(_normalised(covariance)), covariance[..., 0]  # no variance: no weight
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = variance / variance.sum(axis=1, keepdims=True)
    one, two = (((left_out - curves(fit, n_lags)) ** 2).sum(axis=-1) for fit in _fit(rest, tau_max))
    gain = one - two
    gain, weight = np.nan_to_num(gain), np.where(np.isnan(gain), 0, weight)  # a fit to the others failed
    mean = (weight * gain).sum(axis=1)
    spread = (weight**2 * (gain - mean[:, None]) ** 2).sum(axis=1)
    return mean > np.sqrt(spread * n_trials / (n_trials - 1))


class _Chosen(NamedTuple):
    """Of the chosen model; NaN where one of the fits failed."""

    tau: Series
    n_exponentials: Series
    r_squared: Series


def _choose(
    one: Fit,
    two: Fit,
    double: Bool[np.ndarray, "member series"],
    correlation: Float[np.ndarray, "member series lag"],
    min_amplitude: float,
    dt: Float[np.ndarray, "member"],
) -> _Chosen:
    failed = np.isnan(one.rss) | np.isnan(two.rss)
    slower = np.where(two.amplitude[1] >= min_amplitude, two.tau[1], two.tau[0])
    rss = np.where(double, two.rss, one.rss)
    total = ((correlation - correlation.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    chosen = _Chosen(np.where(double, slower, one.tau[0]) * dt[:, None], 1.0 + double, 1 - rss / total)
    return _Chosen(*(np.where(failed, np.nan, values) for values in chosen))


def _dataset(
    run: Run,
    correlation: Float[np.ndarray, "member series lag"],
    chosen: _Chosen,
    double: dict[str, Bool[np.ndarray, "member series"]],
    fits: tuple[Fit, Fit],
    dt: Float[np.ndarray, "member"],
) -> xr.Dataset:
    units = slice(None, -1)
    tau, failed = chosen.tau[:, units], np.isnan(chosen.tau[:, units])
    by = {name: np.where(failed, np.nan, 1.0 + double[name][:, units]) for name in ("aic", "bic")}
    over_units = {
        **_statistics(tau, failed),
        "aic_bic_agreement": _mean(np.where(failed, np.nan, by["aic"] == by["bic"])),
        "population_tau": chosen.tau[:, -1],
        "population_n_exponentials": chosen.n_exponentials[:, -1],
        "population_r_squared": chosen.r_squared[:, -1],
    }
    by_unit = {
        "tau": tau,
        "r_squared": chosen.r_squared[:, units],
        "n_exponentials": chosen.n_exponentials[:, units],
        "n_exponentials_aic": by["aic"],
        "n_exponentials_bic": by["bic"],
        "tau_single": fits[0].tau[0, :, units] * dt[:, None],
        "amplitude_single": fits[0].amplitude[0, :, units],
    }
    last = lambda a: np.moveaxis(a[:, :, units], 0, -1)
    return xr.Dataset(
        {
            **{name: (("member", "unit"), values) for name, values in by_unit.items()},
            **{name: ("member", values) for name, values in over_units.items()},
            "tau_double": (("member", "unit", "component"), last(fits[1].tau) * dt[:, None, None]),
            "amplitude_double": (("member", "unit", "component"), last(fits[1].amplitude)),
            "autocorrelation": (("member", "unit", "lag"), correlation[:, units]),
            "population_autocorrelation": (("member", "lag"), correlation[:, -1]),
        },
        {
            "member": run.member_index,
            "unit": np.arange(tau.shape[1]),
            "lag": np.arange(correlation.shape[-1]),
            "component": ["faster", "slower"],
        },
    )


def _statistics(
    tau: Float[np.ndarray, "member unit"], failed: Bool[np.ndarray, "member unit"]
) -> dict[str, Float[np.ndarray, "member"]]:
    counted = (~failed).sum(axis=1)
    spread = np.sqrt(_mean((tau - _mean(tau)[:, None]) ** 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no units
        median = np.nanmedian(tau, axis=1)
    error = np.where(counted > 1, spread / np.sqrt(np.maximum(counted - 1, 1)), np.nan)
    n_failed = failed.sum(axis=1)
    return {"mean": _mean(tau), "std": spread, "median": median, "standard_error": error, "n_failed": n_failed}


def _mean(values: Float[np.ndarray, "member unit"]) -> Float[np.ndarray, "member"]:
    """Of those that are numbers; NaN where none is."""
    with np.errstate(invalid="ignore"):
        return np.nansum(values, axis=1) / np.isfinite(values).sum(axis=1)
