"""How far training methods lead from the true dynamics: loops in NumPy, closed forms, exact expectations over noise."""

import dataclasses
import importlib

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import poprnn as pr
import toys
from poprnn.analysis.contract import Result, load_result
from poprnn.report import results

MODULE = importlib.import_module("poprnn.analysis.dynamics_mismatch")
ALL = ("coarsened", "skip", "aligned_skip")
LENGTH, PERIODS = 22, ((0, 5), (5, 5), (5, 14), (14, 22))


class Waves(pr.Task):
    """The same trial again and again, with periods; beyond its length it holds what must not be looked at."""

    n_inputs, n_outputs, capacity, length = 2, 1, 24, LENGTH
    has_periods: bool = True

    def draw(self, stage, *, key):
        return pr.Setting(self.length if stage.split == "evaluate" else 3)

    def coarsen(self, setting, factor):
        return setting

    def sample(self, setting, arrays, *, key):
        inputs = jnp.where(jnp.arange(self.capacity)[:, None] < self.length, jnp.asarray(waves(self.capacity)), jnp.inf)
        periods = {f"period {i}": jnp.array(p) for i, p in enumerate(PERIODS)} if self.has_periods else None
        return pr.Trial(inputs, jnp.asarray(target(self.capacity)), periods=periods)


def waves(n_steps):
    time = np.arange(n_steps)[:, None]
    return np.sin(time * np.array([0.4, 0.9]) + 1).astype(np.float32)


def target(n_steps):
    return np.cos(np.arange(n_steps) / 3).astype(np.float32)[:, None]


def unrolled(rate, h, n_steps, method, span, weight=0.5, periods=PERIODS):
    """States after each of ``n_steps`` steps of ``h <- h + rate(h, t)`` under a method, step by step."""
    states, anchor, since = [], h, 0
    for t in range(n_steps):
        if method == "coarsened":
            if t % span == 0:
                anchor = h + span * rate(h, t)
            h = anchor if (t + 1) % span == 0 else h
        else:
            if since == 0 or any(t == first and last > first for first, last in periods):
                anchor, since = (h + span * rate(h, t) if method == "aligned_skip" else h), 0
            h, since = h + rate(h, t), since + 1
            if since == span:
                h, since = weight * h + (1 - weight) * anchor, 0
        states.append(h)
    return np.array(states)


def true(rate, h, n_steps):
    return unrolled(rate, h, n_steps, "skip", n_steps + 1)


def at_common_times(method, span, *trajectories):
    """What is compared: every theta-th state where theta dt is the step."""
    return [a[span - 1 :: span] if method == "coarsened" else a for a in trajectories]


def at(data, **place):
    """``data.sel(method=…)`` would read ``method`` as a way to fill gaps."""
    return data.sel(place)


CELL = pr.cells.LeakyRNN(n_units=5, self_interaction="outside", activation="tanh", tau=6.0, state_start=0.0)


@pytest.fixture(scope="module")
def two():
    """Two networks with large weights and no randomness, read out as well as they can be."""
    random = np.random.default_rng(0)
    sizes = {"W": (2, 5, 5), "W_in": (2, 5, 2), "bias": (2, 5), "W_out": (2, 1, 5)}
    arrays = {name: random.normal(size=size) for name, size in sizes.items()} | {"b_out": np.zeros((2, 1))}
    for k in range(2):
        states = true(rate_of(arrays, k), np.zeros(5), LENGTH)
        arrays["W_out"][k, 0] = np.linalg.lstsq(states, target(LENGTH)[:, 0], rcond=None)[0]
    return pr.from_arrays(Waves(), CELL, arrays), arrays


def rate_of(arrays, k):
    """One Euler step of member k's dynamics."""
    W = arrays["W"][k] * (1 - np.eye(5))
    return lambda h, t: (np.tanh(W @ h + arrays["W_in"][k] @ waves(LENGTH)[t] + arrays["bias"][k]) - h) / 6.0


def explained(outputs):
    """The score: variance of the target that is explained, not below 0."""
    y = target(LENGTH)[:, 0].astype(float)
    return max(1 - np.sum((outputs - y) ** 2) / np.sum((y - y.mean()) ** 2), 0)


@pytest.mark.parametrize("weight", [0.5, 0.2])
def test_equals_loops_over_time(two, weight):
    run, arrays = two
    spans = [1, 3, 4]
    data = pr.measure("dynamics_mismatch", run, spans=spans, base_weight=weight, n_trials=2).data
    assert data["mismatch"].dims == ("member", "method", "span")
    lost = []
    for k in range(2):
        rate = rate_of(arrays, k)
        read = lambda states, k=k: explained(states @ arrays["W_out"][k][0])
        base = true(rate, np.zeros(5), LENGTH)
        np.testing.assert_allclose(data["base_score"][k], read(base), atol=1e-5)
        for method in ALL:
            for span in spans:
                got = at(data, member=k, method=method, span=span)
                other = unrolled(rate, np.zeros(5), LENGTH, method, span, weight)
                a, b = at_common_times(method, span, other, base)
                wanted = np.sum((a - b) ** 2) / np.sum(b**2)
                np.testing.assert_allclose(got["mismatch"], wanted, rtol=2e-4, atol=1e-10)
                np.testing.assert_allclose(got["score"], read(other), atol=1e-4)
                np.testing.assert_allclose(got["performance_lost"], read(base) - read(other), atol=1e-4)
                lost.append(float(got["performance_lost"]))
    assert np.ptp(lost) > 0.05


def one_unit(tau, **options):
    """A linear unit that only leaks: r <- (1 - 1/tau) r + noise / tau."""
    cell = pr.cells.LeakyRNN(n_units=1, self_interaction="outside", activation="identity", tau=tau, **options)
    zero = {"W_in": np.zeros((1, 1, 2)), "bias": np.zeros((1, 1)), "W_out": np.zeros((1, 1, 1))}
    return pr.from_arrays(Waves(has_periods=False), cell, zero)


@pytest.mark.parametrize("tau", [8.0, 3.0])
def test_closed_forms_of_a_decay(tau):
    """With a = 1 - 1/tau: true a^t; skips with all weight on the skip hold r(0), or go as long Euler steps do."""
    spans, time = np.array([2, 4, 7]), np.arange(1, LENGTH + 1)
    data = pr.measure("dynamics_mismatch", one_unit(tau, state_start=1.0), spans=spans.tolist(), base_weight=0.0).data
    a = 1 - 1 / tau
    for span in spans:
        long, late = 1 - span / tau, a ** (time % span)
        k = np.arange(1, LENGTH // span + 1)
        paths = {
            "skip": (late, a**time),
            "aligned_skip": (long ** (time // span) * late, a**time),
            "coarsened": (long**k, a ** (span * k)),
        }
        for method, (found, truth) in paths.items():
            wanted = np.sum((found - truth) ** 2) / np.sum(truth**2)
            got = at(data, method=method, span=span)
            np.testing.assert_allclose(got["mismatch"].values, [wanted], rtol=1e-4, err_msg=method)
            # every trial has the same ratio, whatever its start
            assert got["mismatch_standard_error"].item() < 1e-4 * max(wanted, 1)


def coefficients(tau, noise_tau, method, span, weight):
    """How every state depends on every random number: ``[time, number]``, the first that of eta(0)."""
    n = LENGTH + 1
    if noise_tau is None:
        eta = np.eye(n)[1:]
    else:
        eta, state, share = [], np.eye(n)[0], 1 / noise_tau
        for t in range(LENGTH):
            state = (1 - share) * state + np.sqrt(2 * share) * np.eye(n)[t + 1]
            eta.append(state)
    rate = lambda h, t: (0.3 * eta[t] - h) / tau
    return unrolled(rate, np.zeros(n), LENGTH, method, span, weight, periods=())


@pytest.mark.parametrize("noise_tau", [None, 5.0])
def test_the_same_noise_drives_both(noise_tau):
    """Expectations over Gaussian noise are sums of squared coefficients; with noise of its own they would be larger."""
    tau, weight, spans = 6.0, 0.4, [3, 5]
    run = one_unit(tau, noise=0.3, noise_tau=noise_tau, state_start=0.0)
    data = pr.measure("dynamics_mismatch", run, spans=spans, base_weight=weight, n_trials=4000, batch=1000).data
    for method in ALL:
        for span in spans:
            other = coefficients(tau, noise_tau, method, span, weight)
            base = coefficients(tau, noise_tau, "skip", LENGTH + 1, weight)
            other, base = at_common_times(method, span, other, base)
            wanted, apart = (np.sum(x) / np.sum(base**2) for x in ((other - base) ** 2, other**2 + base**2))
            got = at(data, method=method, span=span)
            error = got["mismatch_standard_error"].item()
            assert error < 0.05 * wanted
            assert abs(got["mismatch"].item() - wanted) < 4 * error, (method, span)
            assert apart > wanted + 8 * error


def noisy_run():
    cell = dataclasses.replace(CELL, noise=0.4, noise_tau=5.0, state_start=0.5, output_activation="sigmoid")
    return pr.from_arrays(Waves(), cell, {"W": np.random.default_rng(1).normal(size=(3, 5, 5))})


def test_nothing_is_lost_where_the_method_is_the_base_dynamics():
    run = noisy_run()
    whole = pr.measure("dynamics_mismatch", run, spans=[1, 3], base_weight=1.0, n_trials=6).data
    for name in ("mismatch", "performance_lost"):
        np.testing.assert_array_equal(at(whole[name], method=["skip", "aligned_skip"]), 0)
        np.testing.assert_array_equal(at(whole[name], method="coarsened", span=1), 0)
    assert (at(whole["mismatch"], method="coarsened", span=3) > 0).all()


def test_standard_errors_are_those_of_a_ratio_over_trials():
    random = np.random.default_rng(0)
    a, b = random.random(50) + 1, random.random(50) + 2
    ratio, error = MODULE._ratio(a, b)
    left = np.array([np.delete(a, i).mean() / np.delete(b, i).mean() for i in range(50)])
    assert ratio == pytest.approx(a.mean() / b.mean())
    assert error == pytest.approx(np.sqrt(49 * left.var()), rel=0.02)  # the jackknife's
    np.testing.assert_array_equal(MODULE._ratio(np.array([[np.nan, 1.0]]), np.ones((1, 2)))[0], [np.inf])
    assert np.isnan(MODULE._ratio(a[:1], b[:1])[1])


def test_options_matter_and_compile_once():
    run, ask = noisy_run(), dict(spans=[2, 3], n_trials=8, batch=8)
    MODULE._compiled.cache_clear()
    first = pr.measure("dynamics_mismatch", run, **ask).data
    assert first.equals(pr.measure("dynamics_mismatch", run, **ask | {"base_weight": 0.5}).data)
    changed = [{"base_weight": 0.3}, {"spans": [4, 5]}, {"seed": 1}]
    for option in changed:
        again = pr.measure("dynamics_mismatch", run, **ask | option).data
        assert not np.array_equal(at(again["mismatch"], method="skip"), at(first["mismatch"], method="skip")), option
    mapped = MODULE._compiled(pr.training.settings.shape_of(run.setup), 3, 1, 8, ALL)
    assert (MODULE._compiled.cache_info().currsize, mapped._jitted._cache_size()) == (1, 1)
    few = pr.measure("dynamics_mismatch", run, methods=["skip"], spans=[2], n_trials=3, batch=2).data
    assert few["mismatch"].shape == (3, 1, 1)
    more = pr.measure("dynamics_mismatch", run, methods=["skip"], spans=[2], n_trials=4, batch=2).data
    assert few.equals(more)  # whole batches


def test_members_are_measured_as_if_alone_and_named():
    run = noisy_run()
    ask = dict(spans=[3], n_trials=4)
    all_, alone = (pr.measure("dynamics_mismatch", run, members=m, **ask) for m in ("all", [2]))
    xr.testing.assert_equal(all_.data.sel(member=[2]), alone.data)
    assert alone.left_out == {0: "not asked for", 1: "not asked for"}


def test_explosions_are_infinite_and_short_trials_unknown():
    class Long(Waves):
        capacity = length = 1000

    cell = pr.cells.LeakyRNN(n_units=1, self_interaction="outside", activation="identity", tau=2.0)
    run = pr.from_arrays(Long(), cell, {"W_in": np.zeros((1, 1, 2)), "bias": np.zeros((1, 1))})
    data = pr.measure("dynamics_mismatch", run, methods=["coarsened"], spans=[2, 40, 2000], n_trials=4).data
    np.testing.assert_array_equal(data["mismatch"][0, 0], [1.0, np.inf, np.nan])  # 2: straight to 0
    assert np.isnan(data["mismatch_standard_error"][0, 0, 1:]).all()


def test_closed_loops():
    task = pr.tasks.RuleReversal(n_trials=1, dt=50.0, warm_up_ms=100.0)
    cell = pr.cells.LeakyRNN(n_units=4, self_interaction="outside", tau=100.0, dt=50.0, noise=0.1)
    run = pr.from_arrays(task, cell, {"bias": np.ones((2, 4))})
    data = pr.measure("dynamics_mismatch", run, spans=[2], base_weight=1.0, n_trials=8).data
    assert not at(data["mismatch"], method=["skip", "aligned_skip"]).any()
    assert (at(data["mismatch"], method="coarsened") > 0).all()


@pytest.mark.parametrize(
    ("task", "cell", "methods", "message"),
    [
        (Waves(), pr.cells.GRU(n_units=4), ["aligned_skip"], "'gru' as it is set up has no time derivative"),
        (Waves(), pr.cells.GRU(n_units=4), ["coarsened"], "no integration step"),
        (Waves(), pr.cells.LeakyRNN(n_units=4), ["skip", "coarsened"], "'coarsened' needs a time derivative"),
        (pr.tasks.NParity(n_max=2), CELL, ["coarsened"], "counts in steps"),
    ],
)
def test_what_a_network_does_not_support(task, cell, methods, message):
    run = pr.from_arrays(task, cell, {"W_out": np.zeros((1, task.n_outputs, cell.n_units))})
    with pytest.raises(pr.NotApplicableError, match=message):
        pr.measure("dynamics_mismatch", run, methods=methods, n_trials=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["skip", "skip"]}, "each must be given once"),
        ({"spans": [3, 3]}, "each must be given once"),
        ({"spans": []}, "spans"),
        ({"spans": [0]}, "spans"),
        ({"methods": ["coarsened"], "base_weight": 0.5}, "have none"),
        ({"methods": ["dasc"]}, "methods"),
        ({"base_weight": 1.5}, "base_weight"),
    ],
)
def test_options_that_cannot_be(two, options, message):
    with pytest.raises(pr.ConfigurationError, match=message):
        pr.measure("dynamics_mismatch", two[0], **options)


def test_any_cell_by_skips():
    """A cell with several arrays in its state, among them integers."""
    run = pr.from_arrays(Waves(), toys.Dice(), {"W": np.ones((2, 6, 6))})
    data = pr.measure("dynamics_mismatch", run, methods=["skip"], spans=[2], n_trials=3).data
    assert (data["mismatch"] > 0).all()


def test_kept_and_drawn(two, tmp_path):
    answer = pr.measure("dynamics_mismatch", two[0], spans=[2, 4], n_trials=2)
    again = load_result(answer.save(tmp_path))
    xr.testing.assert_identical(again.data, answer.data)
    for data in (again.data, again.data.isel(member=[0]), again.data.isel(span=[0], method=[1])):
        drawn = results.draw(Result("dynamics_mismatch", data, answer.options, {}))
        assert [d.name for d in drawn] == ["dynamics_mismatch", "dynamics_mismatch_performance_lost"]
