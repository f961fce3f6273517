"""Performance by condition and by period: planted networks of known accuracy, closed forms, brute force."""

import dataclasses
import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import poprnn as pr
import toys
from poprnn.analysis import _conditional as conditional
from poprnn.analysis.contract import load_result
from poprnn.report import results

MODULE = importlib.import_module("poprnn.analysis.performance")
DELAYS = np.array([100.0, 200.0, 400.0])


class Coherent(pr.Task):
    """Say at the end which sign a coherence has that was seen through noise."""

    n_inputs, n_outputs, capacity, score = 1, 2, 14, "accuracy"
    noise: float = 0.5

    def draw(self, stage, *, key):
        length = 11 if stage.split == "evaluate" else jax.random.randint(key, (), 12, 15)
        return pr.Setting(length)

    def sample(self, setting, arrays, *, key):
        keys = jax.random.split(key, 6)
        coherence = jax.random.uniform(keys[0], minval=-1.0, maxval=1.0)
        seen = coherence + self.noise * jax.random.normal(keys[1])
        time = jnp.arange(self.capacity)
        inputs = jnp.where(time < setting.length, seen, jnp.inf)[:, None]
        # what planted networks say is [seen, 0]: errors of 2 and 0, of 3 and 1 and so on are put in here
        target = jnp.stack([inputs[:, 0] + jnp.where(time < 3, 2.0, 3.0), jnp.where(time < 8, 0.0, 1.0)], axis=1)
        weights = jnp.where(time < 3, 1.0, jnp.where(time < 7, 0.0, jnp.where(time < 8, 3.0, 1.0)))
        delay = jnp.asarray(DELAYS, jnp.float32)[jax.random.randint(keys[2], (), 0, 3)]
        base = jax.random.uniform(keys[3], minval=500.0, maxval=1000.0)
        condition = {
            "coherence": coherence,
            "delay_ms": (base + delay) - base,  # equal up to rounding, as differences of strengths are
            "match": coherence > 0,
            "rule": jax.random.randint(keys[4], (), 0, 20),
            "directions": jnp.zeros(2),
            "outer": {"level": jax.random.randint(keys[4], (), 0, 2)},
            "sometimes": jnp.where(coherence > 0, delay, jnp.nan),
            "never": jnp.nan,
            "head": jax.random.randint(keys[5], (), 0, 3),
        }
        periods = {"stimulus": (3, 7), "fixation": (0, 3), "absent": (7, 7), "response": (7, 20)}
        return pr.Trial(inputs, target, weights, {k: jnp.array(v) for k, v in periods.items()}, condition)

    def scores(self, outputs, trial, setting):
        said, coherence = outputs[setting.length - 1, 0], trial.condition["coherence"]
        return {
            "accuracy": ((said > 0) == (coherence > 0)).astype(jnp.float32),
            "positive": (said > 0).astype(jnp.float32),
            "graded": jnp.abs(coherence),
        }


def planted(task, gains=(1.0, -1.0)):
    """Networks that say ``[gain · input, 0]`` at every step."""
    n = len(gains)
    arrays = {
        "W": np.zeros((n, 1, 1)),
        "W_in": np.reshape(gains, (n, 1, 1)),
        "bias": np.zeros((n, 1)),
        "W_out": np.tile([[1.0], [0.0]], (n, 1, 1)),
        "b_out": np.zeros((n, 2)),
    }
    return pr.from_arrays(task, pr.cells.VanillaRNN(n_units=1, activation="identity"), arrays)


@pytest.fixture(scope="module")
def psychometric():
    return pr.measure("performance", planted(Coherent()), by="coherence", n_trials=4000, bins=10)


# --- curves ---------------------------------------------------------------------------------------------------------


def test_psychometric_curve_is_the_normal_distribution(psychometric):
    """P(positive | c) = Phi(gain c / noise), averaged over the bin."""
    data = psychometric.data
    centre = data["coherence"].values
    np.testing.assert_allclose(centre, np.arange(-0.9, 1, 0.2), atol=0.03)
    assert data["positive"].dims == ("member", "coherence")
    n = data["n_trials"].values
    np.testing.assert_array_equal(n.sum(axis=0), 800)
    np.testing.assert_array_equal(n.sum(axis=1), 4000)
    inside = []
    for member, gain in enumerate((1, -1)):
        for i, c in enumerate(centre):
            within = np.linspace(c - 0.1, c + 0.1, 101)
            around = stats.norm.cdf(gain * within / 0.5).mean()
            right = stats.norm.cdf(gain * abs(within) / 0.5).mean()
            for name, p in (("positive", around), ("accuracy", right)):
                found = data[name].values[member, i]
                assert abs(found - p) < 5 * (p * (1 - p) / n[member, i]) ** 0.5 + 0.01, (name, member, c)
                low, high = (data[f"{name}_{end}"].values[member, i] for end in ("low", "high"))
                assert low <= found <= high
                inside.append(low <= p <= high)
    assert 0.8 < np.mean(inside) < 1, "the interval holds the truth about 95 times in 100"
    assert "Wilson" in data["positive"].attrs["interval"]


def test_graded_scores_get_a_bootstrap(psychometric):
    data = psychometric.data
    centre, graded = data["coherence"].values, data["graded"].values
    np.testing.assert_allclose(graded, np.broadcast_to(abs(centre), graded.shape), atol=0.02)
    assert "bootstrap" in data["graded"].attrs["interval"]
    expected = 2 * 1.96 * 0.2 / 12**0.5 / data["n_trials"].values ** 0.5  # of U(0, 0.2)
    np.testing.assert_allclose(data["graded_high"] - data["graded_low"], expected, rtol=0.2)


def test_without_noise_right_and_wrong_networks_are_told_apart():
    data = pr.measure("performance", planted(Coherent(noise=0.0)), by="match", n_trials=300).data
    assert data["match"].values.tolist() == [0, 1]
    np.testing.assert_array_equal(data["accuracy"], [[1, 1], [0, 0]])
    np.testing.assert_array_equal(data["positive"], [[0, 1], [1, 0]])
    together = pr.measure("performance", planted(Coherent(noise=0.0)), n_trials=300).data
    np.testing.assert_array_equal(together["accuracy"], [1, 0])
    np.testing.assert_array_equal(together["n_trials"], [300, 300])
    assert "period" in together.dims and "match" not in together.dims


def test_few_values_that_recur_have_a_bin_each():
    run = planted(Coherent(), (1.0,))
    delay = pr.measure("performance", run, by="delay_ms", n_trials=500).data
    np.testing.assert_allclose(delay["delay_ms"], DELAYS, atol=1e-2)
    assert delay["delay_ms"].attrs == {"long_name": "delay", "units": "ms"}
    rule = pr.measure("performance", run, by="rule", n_trials=500).data
    assert rule["rule"].values.tolist() == list(range(20))
    level = pr.measure("performance", run, by="outer.level", n_trials=200).data
    assert level["outer.level"].values.tolist() == [0, 1]
    own = pr.measure("performance", run, by="head", n_trials=200).data
    assert own["head_of_trial"].values.tolist() == [0, 1, 2]


def test_trials_without_the_condition_are_left_out():
    run = planted(Coherent(noise=0.0), (1.0,))
    data = pr.measure("performance", run, by="sometimes", n_trials=400).data
    np.testing.assert_allclose(data["sometimes"], DELAYS)
    assert 150 < data["n_trials"].sum() < 250
    np.testing.assert_array_equal(data["positive"], 1)  # there are only those above 0


def test_edges_of_bins():
    run = planted(Coherent(noise=0.0), (1.0,))
    data = pr.measure("performance", run, by="coherence", bins=[-0.5, 0.0, 0.5, 3.0, 4.0], n_trials=400).data
    np.testing.assert_allclose(data["coherence"], [-0.25, 0.25, 0.75, 3.5], atol=0.05)
    np.testing.assert_array_equal(data["positive"][0, :3], [0, 1, 1])
    assert data["n_trials"][0, 3] == 0 and np.isnan(data["positive"][0, 3])
    assert 250 < data["n_trials"].sum() < 350


# --- other ways to know ---------------------------------------------------------------------------------------------


def test_the_same_trials_as_evaluate(tiny_run):
    found = pr.measure("performance", tiny_run, members="all", n_trials=60, batch=20, seed=3).data
    scored = pr.evaluate(tiny_run, n_trials=60, batch=20, seed=3)
    np.testing.assert_allclose(found["accuracy"], scored["accuracy"][:, 0], rtol=1e-6)
    assert found["accuracy"].dims == ("member", "head")
    assert found["head"].values.tolist() == ["N = 2", "N = 3", "N = 4"]
    active = ~np.isnan(scored["accuracy"][:, 0])
    np.testing.assert_array_equal(found["n_trials"], np.where(active, 60, 0))
    assert not any("period" in str(name) for name in found.data_vars), "read at the last step only"


@pytest.mark.parametrize("binary", [True, False])
def test_means_by_brute_force(binary):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (3, 50, 4)).astype(float) if binary else rng.random((3, 50, 4))
    values[rng.random(values.shape) < 0.3] = np.nan
    values[:, :, 3] = np.nan
    place = rng.integers(-1, 3, (3, 50))
    bins = conditional.Bins(place, np.arange(3.0))
    found = conditional.means(values, bins, 1)
    for m in range(3):
        for h in range(4):
            for b in range(3):
                mine = [v for v, p in zip(values[m, :, h], place[m], strict=True) if p == b and not np.isnan(v)]
                assert found.n[m, h, b] == len(mine)
                if not mine:
                    assert np.isnan([found.mean[m, h, b], found.low[m, h, b], found.high[m, h, b]]).all()
                    continue
                np.testing.assert_allclose(found.mean[m, h, b], sum(mine) / len(mine))
                if binary:
                    ends = stats.binomtest(int(sum(mine)), len(mine)).proportion_ci(0.95, "wilson")
                    np.testing.assert_allclose([found.low[m, h, b], found.high[m, h, b]], ends, atol=1e-12)
                else:
                    error = np.std(mine) / len(mine) ** 0.5
                    middle = (found.low[m, h, b] + found.high[m, h, b]) / 2
                    np.testing.assert_allclose(middle, found.mean[m, h, b], atol=error / 2)
                    np.testing.assert_allclose(found.high[m, h, b] - found.low[m, h, b], 3.92 * error, rtol=0.25)


@pytest.mark.parametrize("n", [1, 2, 30, 1000])
def test_wilsons_ends_are_where_the_score_test_rejects(n):
    """They solve ``(n_right/n - p)² = z² p (1 - p) / n``."""
    z = stats.norm.ppf(0.975)
    for n_right in {0, 1, n // 3, n}:
        ends = np.array(conditional.wilson(n_right, n))
        np.testing.assert_allclose((n_right / n - ends) ** 2, z**2 * ends * (1 - ends) / n, atol=1e-12)
        assert 0 <= ends[0] <= n_right / n <= ends[1] <= 1 and ends[0] < ends[1]
    assert np.isnan(conditional.wilson(0, 0)).all()


def test_bootstrap_against_all_resamples_there_are():
    """Of so few trials every resample can be listed; 2.5 % of them lie beyond either end."""
    rows = np.random.default_rng(0).beta(5, 1, (3, 5))
    for row, (low, high) in zip(rows, conditional.bootstrap(rows, 1), strict=True):
        every = np.array([np.mean(drawn) for drawn in itertools.product(row, repeat=5)])
        assert 0.01 < (every <= low).mean() < 0.04 and 0.01 < (every >= high).mean() < 0.04


def test_intervals_are_those_of_a_member_alone():
    """However many others are resampled at once; and they follow from the seed."""
    rng = np.random.default_rng(0)
    values, place = rng.random((30, 40, 1)), rng.integers(0, 3, (30, 40))
    every, other = (conditional.means(values, conditional.Bins(place, np.arange(3.0)), seed) for seed in (1, 2))
    for member in (0, 17, 29):
        alone = conditional.means(values[[member]], conditional.Bins(place[[member]], np.arange(3.0)), 1)
        for name in ("mean", "low", "high", "n"):
            np.testing.assert_allclose(getattr(alone, name)[0], getattr(every, name)[member], rtol=1e-12)
    assert (every.low != other.low).mean() > 0.9
    np.testing.assert_array_equal(every.mean, other.mean)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32) | st.just(np.nan), min_size=1, max_size=80).filter(
        lambda v: not np.isnan(v).all()
    ),
    st.integers(1, 9),
)
def test_every_known_trial_falls_into_one_bin_and_bins_are_in_order(values, n_bins):
    condition = np.array(values)[None]
    found = conditional.binned(condition, n_bins, "x")
    np.testing.assert_array_equal(found.place >= 0, np.isfinite(condition))
    used = np.unique(found.place[found.place >= 0])
    for b in used:
        mine = condition[found.place == b]
        np.testing.assert_allclose(found.centre[b], mine.mean(), rtol=1e-6, atol=1e-6)
        higher = condition[found.place > b]
        assert not higher.size or mine.max() <= higher.min()
    assert len(found.centre) <= max(n_bins, conditional.MAX_VALUES)


def test_continuous_conditions_fill_their_bins_equally():
    condition = np.random.default_rng(0).exponential(size=(4, 500))
    found = conditional.binned(condition, 5, "x")
    np.testing.assert_array_equal(np.bincount(found.place.ravel()), 400)
    few = conditional.binned(np.round(condition), 2, "x")
    assert len(few.centre) == len(np.unique(np.round(condition))), "more than two bins, as there are more values"


# --- periods --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "length"), [("evaluate", 11), ("train", None)])
def test_error_of_every_period(split, length):
    data = pr.measure("performance", planted(Coherent(), (1.0, 1.0)), n_trials=200, batch=20, split=split).data
    assert data["period"].values.tolist() == ["fixation", "stimulus", "absent", "response"]
    found = data["squared_error_by_period"].values
    np.testing.assert_allclose(found[:, 0], 2.0, rtol=1e-5)  # (2² + 0²) / 2
    assert np.isnan(found[:, 1:3]).all(), "no step that counts, no step at all"

    def response(length):  # one step of weight 3 and error (9 + 0) / 2, then ones with (9 + 1) / 2
        return (3 * 4.5 + (length - 8) * 5) / (3 + length - 8)

    if length:
        np.testing.assert_allclose(found[:, 3], response(length), rtol=1e-5)
        np.testing.assert_allclose(data["squared_error_by_period_standard_error"][:, 3], 0, atol=1e-5)
    else:  # lengths of 12 to 14, one a batch
        assert (found[:, 3] > response(12)).all() and (found[:, 3] < response(14)).all()
        assert (data["squared_error_by_period_standard_error"][:, 3] > 1e-4).all()


def test_standard_error_of_periods_by_hand():
    values = np.random.default_rng(0).random((2, 30, 3))
    values[0, :, 1] = np.nan
    values[1, :20, 2] = np.nan
    values[0, 3, 0] = np.inf
    found = MODULE._by_period(MODULE.Found({}, np.zeros((2, 30)), "accuracy", values, ["a", "b", "c"]))
    assert set(found) == {"accuracy_by_period", "accuracy_by_period_standard_error"}
    mean, error = (found[name][1] for name in ("accuracy_by_period", "accuracy_by_period_standard_error"))
    for m in range(2):
        for p in range(3):
            mine = values[m, :, p][np.isfinite(values[m, :, p])]
            if len(mine):
                np.testing.assert_allclose([mean[m, p], error[m, p]], [mine.mean(), stats.sem(mine)])
            else:
                assert np.isnan([mean[m, p], error[m, p]]).all()
    alone, unsure = conditional.mean_and_error(values[:, 4:5], axis=1)
    np.testing.assert_array_equal(alone, values[:, 4])
    assert np.isnan(unsure).all()


def test_classes_have_an_accuracy_by_period():
    """A network that always gives response 1, and one that gives response 0: their accuracies add up to 1."""
    arrays = {"W": np.zeros((2, 2, 2)), "W_out": np.zeros((2, 2, 2)), "b_out": np.array([[0.0, 1.0], [1.0, 0.0]])}
    task = pr.tasks.RuleReversal(n_trials=2, dt=50.0, sequences=("01",))
    run = pr.from_arrays(task, pr.cells.VanillaRNN(n_units=2), arrays)
    data = pr.measure("performance", run, by="sequence", n_trials=300).data
    found = data["accuracy_by_period"]
    assert found["period"].values.tolist()[:5] == ["warm_up", "stimulus_1", "response_1", "feedback_1", "wait_1"]
    said = found.dropna("period")
    assert said["period"].values.tolist() == ["response_1", "response_2"]
    assert (abs(said - 0.5) < 5 * 0.5 / 300**0.5).all()
    whole = pr.measure("performance", run, n_trials=300).data["accuracy"].values
    np.testing.assert_allclose(said.mean("period"), whole, atol=1e-6)


def test_a_bare_condition_in_a_closed_loop():
    run = pr.fit(toys.EchoChamber(), pr.cells.LeakyRNN(n_units=4), epochs=1, steps_per_epoch=1, batch=2)
    data = pr.measure("performance", run, members="all", by="condition", n_trials=40, batch=20).data
    assert data["condition"].values.tolist() == [0, 1]
    assert data["n_trials"].sum() == 40


# --- how it is asked ------------------------------------------------------------------------------------------------


def test_every_option_changes_something():
    def does(**options):
        asked = {"by": "coherence", "n_trials": 40, "batch": 20} | options
        return pr.measure("performance", planted(Coherent(), (1.0,)), **asked).data.to_dict()

    before = str(does())
    assert before == str(does())
    others = {"by": "rule", "n_trials": 60, "bins": 3, "split": "train", "batch": 10, "seed": 1}
    assert set(others) == set(importlib.import_module("poprnn.analysis.contract").defaults(MODULE.performance))
    for option, value in others.items():
        assert str(does(**{option: value})) != before, option


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": "coherense"}, "no condition 'coherense'; did you mean 'coherence'"),
        ({"by": "directions"}, r"'directions' .* not one number a trial but \[2\]; there is: .*coherence"),
        ({"by": "outer"}, "no condition 'outer'"),
        ({"by": "never"}, "'never' is NaN in all trials"),
    ],
)
def test_conditions_that_are_not_there(options, words):
    with pytest.raises(pr.NotApplicableError, match=f"performance: .*{words}"):
        pr.measure("performance", planted(Coherent()), n_trials=20, **options)


def test_a_task_without_conditions(tiny_run):
    with pytest.raises(pr.NotApplicableError, match="task 'n_parity' have no condition 'coherence'; there is: none"):
        pr.measure("performance", tiny_run, members="all", by="coherence")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bins": 4}, "bins = 4: has no effect without 'by'"),
        ({"by": "coherence", "bins": [0.0, 0.0]}, "edges must increase"),
        ({"by": "coherence", "bins": [2.0, 3.0]}, "no trial's 'coherence' lies there"),
        ({"by": "coherence", "bins": [1.0]}, "bins"),
        ({"by": "coherence", "bins": 0}, "bins"),
        ({"split": "test"}, "split"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(pr.ConfigurationError, match=f"performance: .*{words}"):
        pr.measure("performance", planted(Coherent()), n_trials=20, **options)


def test_a_round_trip_to_disk_and_figures(psychometric, tmp_path):
    again = load_result(psychometric.save(tmp_path))
    assert again.data.identical(psychometric.data)
    alone = dataclasses.replace(psychometric, data=psychometric.data.isel(member=[0]))
    for result in (again, alone):
        drawings = results.draw(result)
        names = [d.name for d in drawings]
        assert names[:3] == ["performance_accuracy", "performance_graded", "performance_positive"]
        assert "performance_squared_error_by_period" in names
        for drawing in drawings:
            axes = drawing.figure.axes[0]
            assert axes.get_xlabel() and axes.get_ylabel() and drawing.caption
    first = results.draw(alone)[0]
    assert "Wilson" in first.caption and first.figure.axes[0].get_xlabel() == "coherence"


def test_a_few_heads_are_lines_and_many_a_map(psychometric):
    for n_heads, n_lines in ((1, 2), (3, 3), (9, 0)):
        data = psychometric.data[["accuracy", "accuracy_low", "accuracy_high", "n_trials"]]
        data = data.expand_dims(head=[f"h{k}" for k in range(n_heads)], axis=1)
        drawn = results.draw(dataclasses.replace(psychometric, data=data))
        assert len(drawn) == 1
        axes = drawn[0].figure.axes[0]
        assert bool(axes.images) == (n_heads == 9)
        assert sum(len(line.get_xdata()) == 10 for line in axes.lines) == (3 if n_heads == 1 else n_lines)


def test_targets_that_come_in_pieces_have_an_error_by_period():
    """A network that always says 1/2, before it may answer: fixation should be 0.85, the 32 of the ring 0.05."""
    task = pr.tasks.Cognitive(rule="dlygo", dt=100.0)
    cell = pr.cells.LeakyRNN(n_units=1, output_activation="sigmoid", output_bias=True)
    run = pr.from_arrays(task, cell, {"W_out": np.zeros((1, 33, 1)), "b_out": np.zeros((1, 33))})
    found = pr.measure("performance", run, n_trials=6, batch=6).data["squared_error_by_period"]
    np.testing.assert_allclose(found.sel(period=["fixation", "stimulus"]), ((0.35**2 + 32 * 0.45**2) / 33), rtol=1e-5)
    assert found.sel(period="response").item() != pytest.approx(found.sel(period="fixation").item(), rel=0.01)
