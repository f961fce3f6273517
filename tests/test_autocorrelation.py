"""Oracles for autocorrelation_timescales: the definition, scipy's curve_fit, and planted timescales."""

import importlib

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit, minimize_scalar

import poprnn as pr
from poprnn.analysis import _exponentials, _lagged
from poprnn.analysis._exponentials import curves, fit_exponentials
from poprnn.analysis._lagged import Autocovariance
from poprnn.training.rollout import Rollout

AUTOCORRELATION = importlib.import_module("poprnn.analysis.autocorrelation_timescales")
RANDOM = np.random.default_rng(0)
LAGS = np.arange(31)


# --- autocovariance ---------------------------------------------------------------------------------------------


def by_definition(states, max_lag):
    """``[trial, time, unit]`` to ``[trial, unit + 1, lag]``, the sum over units as the last series."""
    n = states.shape[1]
    states = states.astype(np.float64)
    series = np.concatenate([states, states.sum(axis=2, keepdims=True)], axis=2)
    series -= series.mean(axis=1, keepdims=True)
    full = [[np.correlate(x, x, "full")[n - 1 : n + max_lag] for x in trial.T] for trial in series]
    return np.array(full) / (n - np.arange(max_lag + 1))


def in_pieces(states, max_lag, size):
    covariance = Autocovariance(max_lag)
    for first in range(0, states.shape[1], size):
        covariance.add(states[:, first : first + size])
    return covariance.covariance()


@settings(deadline=None, max_examples=60)
@given(
    n_steps=st.integers(2, 400), data=st.data(), size=st.integers(1, 450), level=st.floats(-50, 50), seed=st.integers(0)
)
def test_pieces_give_the_definition(n_steps, data, size, level, seed):
    max_lag = data.draw(st.integers(1, n_steps - 1))
    walk = np.cumsum(np.random.default_rng(seed).normal(size=(2, n_steps, 2)), axis=1)
    states = (level + walk).astype(np.float32)
    expected = by_definition(states, max_lag)
    assert np.abs(in_pieces(states, max_lag, size) - expected).max() < 1e-9 * expected[..., 0].max()


@pytest.mark.parametrize("max_lag", [_lagged.DIRECT, _lagged.DIRECT + 1, 300])
def test_long_series_and_both_ways_to_multiply(max_lag):
    states = RANDOM.normal(size=(1, 5000, 2)).astype(np.float32).cumsum(axis=1) + 100
    np.testing.assert_allclose(in_pieces(states, max_lag, 1999), by_definition(states, max_lag), rtol=1e-9)


def test_the_analysis_gives_the_definition_whatever_the_pieces(monkeypatch):
    run, kept = filters([2.0, 4.0, 9.0], members=2), []
    real = AUTOCORRELATION.driven

    def keep(*args, **options):
        for states, counts in real(*args, **options):
            kept.append(states)
            yield states, counts

    monkeypatch.setattr(AUTOCORRELATION, "driven", keep)
    monkeypatch.setattr(AUTOCORRELATION, "PIECE_BYTES", 12 * 2 * 3 * (3 + run.task.n_outputs) * 70)
    answer = pr.measure("autocorrelation_timescales", run, n_trials=3, n_steps=500, burn_in=20, max_lag=12).data
    assert len(kept) > 5
    for member, states in enumerate(np.concatenate(kept, axis=2)):
        assert states.shape == (3, 500, 3)
        expected = by_definition(states, 12).mean(axis=0)
        expected /= expected[:, :1]
        np.testing.assert_allclose(answer["autocorrelation"][member], expected[:-1], atol=1e-9)
        np.testing.assert_allclose(answer["population_autocorrelation"][member], expected[-1], atol=1e-9)


# --- fits -------------------------------------------------------------------------------------------------------


def single(t, a, tau):
    return a * np.exp(-t / np.maximum(tau, 1e-12))


def double(t, a1, tau1, a2, tau2):
    return single(t, a1, tau1) + single(t, a2, tau2)


MODELS = ((single, (0.9, 5), ([0, 0], [1, 100])), (double, (0.5, 2, 0.5, 20), ([0] * 4, [1, 100] * 2)))


def mixtures(n, noise):
    """Single and double exponentials and damped oscillations, with noise correlated between lags."""
    a, fast, slow = RANDOM.uniform(0.1, 0.9, n), RANDOM.uniform(0.3, 5, n), RANDOM.uniform(5, 120, n)
    curve = np.where(np.arange(n) % 3 == 0, 1, a)[:, None] * np.exp(-LAGS / slow[:, None])
    curve += np.where(np.arange(n) % 3 == 0, 0, 1 - a)[:, None] * np.exp(-LAGS / fast[:, None])
    turning = np.exp(-LAGS / fast[:, None]) * np.cos(LAGS * RANDOM.uniform(0, 1, n)[:, None])
    curve[1::3] = turning[1::3]
    error = noise * np.apply_along_axis(np.convolve, 1, RANDOM.normal(size=(n, 50)), np.ones(20) / 20**0.5, "valid")
    error[:, 0] = 0
    return curve + error


def test_never_worse_than_curve_fit_and_the_same_where_it_is_as_good():
    y = np.concatenate([mixtures(60, noise) for noise in (1e-3, 1e-2, 0.05)])
    n_same = [0, 0]
    for model, fit in enumerate(fit_exponentials(y, np.full(len(y), 100.0))):
        function, start, bounds = MODELS[model]
        assert np.isfinite(fit.rss).all()
        np.testing.assert_allclose(((curves(fit, 31) - y) ** 2).sum(axis=1), fit.rss, rtol=1e-6)
        for i, curve in enumerate(y):
            try:
                found = curve_fit(function, LAGS, curve, p0=start, bounds=bounds)[0]
            except RuntimeError:  # more than its limit of evaluations
                continue
            rss = ((function(LAGS, *found) - curve) ** 2).sum()
            assert fit.rss[i] <= rss + 1e-9 * (curve**2).sum()
            amplitude, tau = found[::2][np.argsort(found[1::2])], np.sort(found[1::2])
            # parameters that the curve says something about; a small tau is seen in exp(-1 / tau) only
            if rss < fit.rss[i] * (1 + 1e-9) and amplitude.min() > 0.05 and tau.min() > 0.2 and tau.max() < 99.9:
                if model == 1 and tau[1] < 1.5 * tau[0]:
                    continue
                np.testing.assert_allclose(fit.amplitude[:, i], amplitude, atol=1e-3)
                np.testing.assert_allclose(fit.tau[:, i], tau, rtol=1e-3)
                n_same[model] += 1
    assert n_same[0] > 80 and n_same[1] > 40


@settings(deadline=None, max_examples=60)
@given(fast=st.floats(0.3, 5), ratio=st.floats(3, 20), share=st.floats(0.1, 0.9), shrink=st.floats(0.5, 1))
def test_exact_mixtures_are_found(fast, ratio, share, shrink):
    slow = min(fast * ratio, 90.0)
    y = shrink * (share * np.exp(-LAGS / fast) + (1 - share) * np.exp(-LAGS / slow))
    one, two = fit_exponentials(np.stack([y, shrink * np.exp(-LAGS / slow)]), np.full(2, 100.0))
    np.testing.assert_allclose(two.tau[:, 0], [fast, slow], rtol=1e-4)
    np.testing.assert_allclose(two.amplitude[:, 0], [shrink * share, shrink * (1 - share)], rtol=1e-3)
    np.testing.assert_allclose([one.tau[0, 1], one.amplitude[0, 1]], [slow, shrink], rtol=1e-6)
    assert (two.rss <= one.rss + 1e-15).all()


@settings(deadline=None, max_examples=60)
@given(y=st.lists(st.floats(-3, 3), min_size=6, max_size=6), tau_max=st.floats(0.05, 1000))
@example(y=[0.0, 0.0, 1.0, 0.0, 0.0, 0.0], tau_max=0.25)  # flat where the grid has its only point below the bound
def test_anything_is_fitted_within_the_bounds(y, tau_max):
    y = np.array(y)
    one, two = fit_exponentials(y[None], np.array([tau_max]))
    for fit in (one, two):
        assert np.isfinite(fit.rss).all()
        assert (fit.amplitude >= 0).all() and (fit.amplitude <= 1).all()
        assert (fit.tau >= 0).all() and (fit.tau <= tau_max * (1 + 1e-9)).all()
    assert two.rss <= one.rss + 1e-9 * (y**2).sum()

    def rss(q):  # the best amplitude for one q, the plain way
        power = q ** np.arange(6)
        return ((y - np.clip(power @ y / (power @ power), 0, 1) * power) ** 2).sum()

    grid = np.linspace(0, np.exp(-1 / tau_max), 200)
    near = np.argmin([rss(q) for q in grid])
    ends = grid[max(near - 1, 0)], grid[min(near + 1, 199)]
    least = min(minimize_scalar(rss, bounds=ends, method="bounded", options={"xatol": 1e-12}).fun, rss(grid[near]))
    assert one.rss[0] <= least + 1e-7 * max((y**2).sum(), 1e-30)


def test_white_noise_slow_decay_and_no_numbers():
    y = np.stack([LAGS == 0, np.exp(-LAGS / 500), np.full(31, np.nan), np.exp(-LAGS / 50)]).astype(float)
    one, two = fit_exponentials(y, np.array([100.0, 100, 100, 20]))
    np.testing.assert_allclose(one.tau[0], [0, 100, np.nan, 20], atol=1e-12)
    np.testing.assert_allclose(one.amplitude[0, :2], 1)
    np.testing.assert_allclose(two.rss[0], 0, atol=1e-20)
    assert np.isnan(two.tau[:, 2]).all() and np.isnan(two.rss[2])


# --- planted timescales through the whole analysis --------------------------------------------------------------


def filters(tau, members=1, task=None, **cell):
    """Units that do nothing but low-pass filter the input, independent of one another."""
    n = len(tau)
    task = task or pr.tasks.NParity(n_max=3)
    arrays = {"W": np.zeros((members, n, n)), "tau": np.tile(tau, (members, 1))}
    return pr.from_arrays(task, pr.cells.LeakyRNN(n_units=n, activation="identity", **cell), arrays)


def leak(tau):
    """The time constant of a unit whose autocorrelation is exp(-t / tau): 1 - 1 / leak = exp(-1 / tau)."""
    return 1 / (1 - np.exp(-1 / tau))


def planted(n, seed=0):
    """Noise-driven units: n AR(1) with tau 1 … 50, and n sums of two others; with what their timescales are.

    A sum reads two units that nothing else reads, weighted so that each contributes its share of the variance; its
    own noise is 1e-4 of that.
    """
    random = np.random.default_rng(seed)
    ar = np.geomspace(1, 50, n)
    slow, share = random.uniform(8, 30, n), random.uniform(0.3, 0.7, n)
    fast = np.maximum(slow / random.uniform(5, 15, n), 0.7)
    tau = np.concatenate([leak(ar), leak(fast), leak(slow), np.ones(n)])
    variance = lambda t: 1 / (2 * leak(t) - 1)  # of x' = x + (noise - x) / leak
    W, i = np.zeros((4 * n, 4 * n)), np.arange(n)
    W[3 * n + i, n + i] = 100 * np.sqrt((1 - share) / variance(fast))
    W[3 * n + i, 2 * n + i] = 100 * np.sqrt(share / variance(slow))
    zero = {"W_in": np.zeros((4 * n, 1)), "bias": np.zeros(4 * n)}
    cell = pr.cells.LeakyRNN(n_units=4 * n, activation="identity", noise=1.0)
    run = pr.from_arrays(pr.tasks.NParity(n_max=2), cell, {"W": W, "tau": tau, **zero}, seed=seed)
    return run, ar, np.stack([fast, slow], axis=1)


def check_planted(n, n_steps, tolerance):
    """Taus of the planted model, and the model chosen by every criterion: the share of right choices."""
    run, ar, mixed = planted(n)
    answer = pr.measure("autocorrelation_timescales", run, n_steps=n_steps, criterion="trials").data.isel(member=0)
    assert answer["n_failed"] == 0
    units = answer.isel(unit=slice(0, n)), answer.isel(unit=slice(3 * n, None))
    assert (np.abs(units[0]["tau_single"] / ar - 1) < tolerance).mean() >= 0.95
    assert (np.abs(units[1]["tau_double"].values / mixed - 1) < tolerance).mean() >= 0.95
    assert (np.abs(units[0]["tau"] / ar - 1) < tolerance).mean() >= 0.9
    assert (np.abs(units[1]["tau"] / mixed[:, 1] - 1) < tolerance).mean() >= 0.9
    return {
        name: [float((part[f"n_exponentials{name}"] == right).mean()) for right, part in enumerate(units, 1)]
        for name in ("", "_aic", "_bic")
    }


def test_planted_timescales_and_models_are_found():
    right = check_planted(40, 20_000, tolerance=0.15)
    assert min(right[""]) >= 0.95
    # information criteria take the correlated errors of neighbouring lags for structure
    assert right["_aic"][0] < 0.7 and right["_bic"][0] < 0.8
    assert right["_aic"][1] >= 0.95 and right["_bic"][1] >= 0.95


@pytest.mark.slow
def test_planted_timescales_at_full_size():
    right = check_planted(100, 100_000, tolerance=0.05)
    assert min(right[""]) >= 0.95


def test_the_population_is_the_sum_of_its_units():
    slow, fast = filters([10.0] * 3), filters([2.0] * 3)
    for run, tau in ((slow, 10.0), (fast, 2.0)):
        answer = pr.measure("autocorrelation_timescales", run, n_steps=5000, criterion="trials").data
        np.testing.assert_allclose(answer["population_tau"], -1 / np.log(1 - 1 / tau), rtol=0.1)
        np.testing.assert_allclose(answer["population_autocorrelation"], answer["autocorrelation"][:, 0], atol=1e-5)
        assert answer["population_r_squared"].item() > 0.99
    # one fast and one slow unit: the sum has both
    both = pr.measure("autocorrelation_timescales", filters([20.0, 1.3]), n_steps=5000, criterion="trials").data
    assert both["population_n_exponentials"].item() == 2
    assert both["n_exponentials"].values.tolist() == [[1, 1]]


# --- what is made of the fits -----------------------------------------------------------------------------------


def test_statistics_and_criteria_by_hand():
    run, _, _ = planted(10)
    answers = {
        c: pr.measure("autocorrelation_timescales", run, n_steps=3000, criterion=c, min_amplitude=0.0).data
        for c in ("aic", "bic", "trials")
    }
    data = answers["aic"].isel(member=0)
    r = data["autocorrelation"].values
    one = data["amplitude_single"].values[:, None] * np.exp(-LAGS / data["tau_single"].values[:, None])
    tau, amplitude = data["tau_double"].values[..., None], data["amplitude_double"].values[..., None]
    two = (amplitude * np.exp(-LAGS / np.maximum(tau, 1e-9))).sum(axis=1)
    rss = [((r - fit) ** 2).sum(axis=1) for fit in (one, two)]
    for name, price in (("aic", 2), ("bic", np.log(31))):
        chosen = 1 + (price * 4 + 31 * np.log(rss[1] / 31) < price * 2 + 31 * np.log(rss[0] / 31))
        for answer in answers.values():
            np.testing.assert_array_equal(answer[f"n_exponentials_{name}"][0], chosen)
        mine = answers[name].isel(member=0)
        np.testing.assert_array_equal(mine["n_exponentials"], chosen)
        np.testing.assert_allclose(mine["tau"], np.where(chosen == 2, tau[:, 1, 0], data["tau_single"]))
        total = ((r - r.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
        np.testing.assert_allclose(mine["r_squared"], 1 - np.where(chosen == 2, rss[1], rss[0]) / total, rtol=1e-9)
    assert (answers["trials"]["n_exponentials"] != answers["aic"]["n_exponentials"]).any()
    np.testing.assert_allclose(
        data["aic_bic_agreement"], (data["n_exponentials_aic"] == data["n_exponentials_bic"]).mean()
    )
    values = data["tau"].values
    for name, statistic in (("mean", np.mean), ("std", np.std), ("median", np.median)):
        np.testing.assert_allclose(data[name], statistic(values))
    np.testing.assert_allclose(data["standard_error"], values.std(ddof=1) / np.sqrt(len(values)))


def given_states(monkeypatch, states):
    """The analysis is given this activity, ``[member, trial, time, unit]``, in place of a rollout's."""
    rows = np.ones((len(states), states.shape[2]), bool)
    monkeypatch.setattr(AUTOCORRELATION, "driven", lambda *_, **__: iter([(states.astype(np.float32), rows)]))


def test_units_without_a_timescale_are_counted_and_left_out(monkeypatch):
    states = RANDOM.normal(size=(2, 3, 400, 3))
    states[0, :, :, 1] = 1 / 3
    states[0, 1, 50, 2] = np.inf
    states[1, 0] = 0.7  # a trial in which all is constant weighs nothing
    given_states(monkeypatch, states)
    run = filters([2.0, 3.0, 4.0], members=2)
    for criterion in ("aic", "trials"):
        answer = pr.measure("autocorrelation_timescales", run, n_trials=3, criterion=criterion).data
        assert answer["n_failed"].values.tolist() == [2, 0]
        for name in ("tau", "n_exponentials", "n_exponentials_aic", "r_squared", "tau_single"):
            assert np.isnan(answer[name]).values.tolist() == [[False, True, True], [False] * 3]
        assert answer["mean"][0] == answer["tau"][0, 0]
        assert np.isnan(answer["standard_error"][0])
        assert answer["aic_bic_agreement"][0] in (0, 1)
        assert np.isnan(answer["population_tau"]).values.tolist() == [True, False]
    given_states(monkeypatch, np.ones((2, 3, 400, 3)))
    answer = pr.measure("autocorrelation_timescales", run, n_trials=3).data
    assert answer["n_failed"].values.tolist() == [3, 3]
    assert np.isnan(answer["mean"]).all()


def test_fits_that_do_not_converge_are_counted(monkeypatch):
    given_states(monkeypatch, RANDOM.normal(size=(1, 3, 400, 3)).cumsum(axis=2))
    for name in ("FEW_STEPS", "MAX_STEPS"):
        monkeypatch.setattr(_exponentials, name, 1)
    answer = pr.measure("autocorrelation_timescales", filters([2.0, 3.0, 4.0]), n_trials=3).data
    assert answer["n_failed"].item() == np.isnan(answer["tau"]).sum() == 3


def test_a_slow_component_counts_from_an_amplitude_on(monkeypatch):
    random = np.random.default_rng(1)
    states = random.normal(size=(1, 2, 20_000, 1)) + 0.5 * np.sin(np.arange(20_000) / 60)[:, None]
    given_states(monkeypatch, states)
    run = filters([2.0])
    taus = {
        least: pr.measure("autocorrelation_timescales", run, n_trials=2, min_amplitude=least).data["tau"].item()
        for least in (0.0, 0.01, 0.5)
    }
    assert taus[0.0] == taus[0.01] > 20  # the amplitude is 1 / 9
    assert taus[0.5] < 0.5


def test_every_option_changes_something():
    run = filters([2.0, 60.0])
    ask = lambda **options: (
        pr.measure("autocorrelation_timescales", run, **({"n_steps": 300, "n_trials": 2, "burn_in": 10} | options)).data
    )
    base = ask()
    r = base["autocorrelation"].values
    assert r.shape == (1, 2, 31)
    for options in ({"n_trials": 3}, {"n_steps": 400}, {"burn_in": 11}, {"bit_probability": 0.5}, {"seed": 1}):
        assert (ask(**options)["autocorrelation"].values != r).any(), options
    np.testing.assert_array_equal(ask()["autocorrelation"], r)
    assert ask(max_lag=40)["autocorrelation"].shape == (1, 2, 41)
    assert base["tau_single"].max() > 10
    np.testing.assert_allclose(ask(tau_max=3.0)["tau_single"].max(), 3)


# --- time -------------------------------------------------------------------------------------------------------


def test_taus_are_in_the_units_of_dt():
    options = {"n_steps": 3000, "criterion": "trials", "n_trials": 4}
    steps = pr.measure("autocorrelation_timescales", filters([4.0, 8.0]), **options).data
    run = filters([2.0, 4.0], dt=0.5, task=pr.tasks.NParity(n_max=3, bit_duration=1))
    half = pr.measure("autocorrelation_timescales", run, tau_max=50.0, **options).data
    np.testing.assert_allclose(half["autocorrelation"], steps["autocorrelation"], atol=1e-5)
    for name in ("tau", "mean", "population_tau", "tau_single"):
        np.testing.assert_allclose(half[name], steps[name] / 2, rtol=1e-4)
    drawn = filters([2.0, 4.0], task=pr.tasks.NParity(n_max=3, dt=(1.0, 0.5)))
    drawn = pr.measure("autocorrelation_timescales", drawn, tau_max=50.0, **options).data
    assert (drawn["autocorrelation"][0, :, 1] > steps["autocorrelation"][0, :, 1]).all()  # a bit lasts two steps
    assert 1.5 < drawn["tau"][0, 0] < 2.5


def test_members_may_differ_in_dt():
    run = filters([4.0, 8.0], members=2)
    vary = pr.Population(members=2, vary={"cell.dt": [1.0, 0.5]})
    run.setup = type(run.setup)(population=vary, task=run.task, cell=run.cell, training=run.setup.training)
    answer = pr.measure("autocorrelation_timescales", run, n_steps=10_000, criterion="trials", n_trials=4).data
    expected = [[-dt / np.log(1 - dt / tau) for tau in (4.0, 8.0)] for dt in (1.0, 0.5)]
    np.testing.assert_allclose(answer["tau"], expected, rtol=0.15)


class Song(pr.Task):
    """White noise; trials are shorter than the task could make them."""

    n_inputs, n_outputs, capacity = 1, 1, 400

    def draw(self, stage, *, key):
        return pr.Setting(300)

    def sample(self, setting, arrays, *, key):
        x = jax.random.normal(key, (400, 1))
        return pr.Trial(x, x)


def test_other_tasks_are_measured_on_trials_of_their_own(monkeypatch):
    run, kept = filters([3.0, 6.0], members=2, task=Song()), []
    real = AUTOCORRELATION.rollout
    monkeypatch.setattr(AUTOCORRELATION, "rollout", lambda *a, **o: kept.append(real(*a, **o)) or kept[-1])
    answer = pr.measure("autocorrelation_timescales", run, n_trials=5, burn_in=20, max_lag=8).data
    expected = by_definition(kept[0].states[1][:, 20:300], 8).mean(axis=0)
    np.testing.assert_allclose(answer["autocorrelation"][1], (expected / expected[:, :1])[:-1], atol=1e-9)
    assert isinstance(kept[0], Rollout)
    with pytest.raises(pr.ConfigurationError, match="max_lag = 30: must be less than the 30 steps"):
        pr.measure("autocorrelation_timescales", run, burn_in=270)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"n_step": 5}, "did you mean 'n_steps'"),
        ({"criterion": "acc"}, "criterion = 'acc': must be 'aic', 'bic' or 'trials'"),
        ({"max_lag": 4}, "greater than or equal to 5"),
        ({"tau_max": 0.0}, "greater than 0"),
        ({"min_amplitude": 1.5}, "less than or equal to 1"),
        ({"n_steps": 30}, "max_lag = 30: must be less than the 30 steps"),
        ({"criterion": "trials", "n_trials": 1}, "needs at least 2"),
    ],
)
def test_options_that_cannot_be(options, word):
    with pytest.raises(pr.ConfigurationError, match=word):
        pr.measure("autocorrelation_timescales", filters([2.0]), **options)


@pytest.mark.parametrize("options", [{"n_steps": 100}, {"bit_probability": 0.5}])
def test_options_about_bits_need_bits(options):
    with pytest.raises(pr.ConfigurationError, match="not driven by bits"):
        pr.measure("autocorrelation_timescales", filters([2.0], task=Song()), **options)


def test_activity_that_is_not_a_vector(monkeypatch):
    given_states(monkeypatch, np.zeros((1, 2, 50)))
    with pytest.raises(pr.NotApplicableError, match="not one number for each unit"):
        pr.measure("autocorrelation_timescales", filters([2.0]))
