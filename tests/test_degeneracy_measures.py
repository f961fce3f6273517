"""Measures of degeneracy: distances of weights, spread of errors, complexity of tasks, speed of activity."""

import dataclasses
import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import poprnn as pr
import toys
from poprnn.analysis import _entropy as entropy
from poprnn.analysis import _matching as matching
from poprnn.analysis._pairs import bootstrap_mean, pairs_of
from poprnn.analysis.contract import load_result
from poprnn.analysis.task_complexity import task_complexity
from poprnn.report import results
from poprnn.tasks.contract import Piecewise

SPREAD = importlib.import_module("poprnn.analysis.generalisation_spread")
NAMES = ("identity", "independent", "conjugate")


def recurrent(W):
    """Weights without inputs and readouts; one gate."""
    nothing = np.zeros((W.shape[-1], 0))
    return matching.Weights(W.reshape(-1, W.shape[-1], W.shape[-1]), nothing, nothing)


def random_weights(random, n_units=5, n_gates=1, n_inputs=2, n_outputs=1):
    return matching.Weights(
        random.normal(size=(n_gates, n_units, n_units)),
        random.normal(size=(n_units, n_inputs)),
        random.normal(size=(n_units, n_outputs)),
    )


def relabelled(weights, rows, columns):
    return matching.Weights(
        weights.recurrent[:, rows][:, :, columns], weights.incoming[rows], weights.outgoing[columns]
    )


def brute_force(a, b, relabelling):
    """The smallest distance over all permutations, and over all pairs of them."""
    orders = [np.array(p) for p in itertools.permutations(range(a.n_units))]
    pairs = itertools.product(orders, orders) if relabelling == "independent" else zip(orders, orders, strict=True)
    flat = lambda w: np.concatenate([part.ravel() for part in w])
    return min(np.linalg.norm(flat(a) - flat(relabelled(b, *pair))) for pair in pairs)


def population(arrays, cell=None, task="n_parity"):
    cell = cell or pr.cells.VanillaRNN(n_units=next(iter(arrays.values())).shape[-1])
    return pr.from_arrays(task, cell, arrays)


def ask(analysis, run, **options):
    return pr.measure(analysis, run, members="all", **options).data


# --- matching -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_units", [64, 128])
def test_exact_relabellings_are_found_every_time(n_units):
    for k in range(20):
        random = np.random.default_rng(k)
        W, order = random.normal(size=(n_units, n_units)) / n_units**0.5, random.permutation(n_units)
        found = matching.match_conjugate(recurrent(W), recurrent(W[order][:, order]), 10, random)
        assert found < 1e-3


def test_alternating_assignment_misses_what_the_other_search_finds():
    """The paper's estimator on networks that are renumberings of one another, as the documentation says of it."""
    shares = []
    for k in range(5):
        random = np.random.default_rng(k)
        W, order = random.normal(size=(64, 64)), random.permutation(64)
        a, b = recurrent(W), recurrent(W[order][:, order])
        shares.append(matching.match_independent(a, b, 10, random) / np.linalg.norm(W - W[order][:, order]))
    assert 0.77 < np.median(shares) < 0.83


@pytest.mark.parametrize("n_gates", [1, 3])
@pytest.mark.parametrize("with_ends", [False, True])
def test_never_below_the_true_minimum_and_mostly_at_it(n_gates, with_ends):
    hits = {"independent": 0, "conjugate": 0}
    for k in range(12):
        random = np.random.default_rng(k)
        a, b = (random_weights(random, 4, n_gates) for _ in range(2))
        if not with_ends:
            a, b = recurrent(a.recurrent), recurrent(b.recurrent)
        for name, match in (("independent", matching.match_independent), ("conjugate", matching.match_conjugate)):
            true = brute_force(a, b, name)
            found = match(a, b, 20, random)
            assert found > true - 1e-9
            hits[name] += found < true + 1e-9
    assert min(hits.values()) >= 11, hits


def test_a_planted_relabelling_of_all_weights_is_found():
    random = np.random.default_rng(1)
    a, rows, columns = random_weights(random, 20, 3), random.permutation(20), random.permutation(20)
    assert matching.match_conjugate(a, relabelled(a, rows, rows), 5, random) < 1e-9
    assert matching.match_conjugate(a, relabelled(a, rows, columns), 5, random) > 1
    # inputs and readouts tell units apart, so that even alternating assignment need not search
    loud = a._replace(incoming=30 * a.incoming, outgoing=30 * a.outgoing)
    assert matching.match_independent(loud, relabelled(loud, rows, columns), 5, random) < 1e-9


# a generator of its own: scipy warns where anybody has seeded the global one
FAQ = {"maximize": True, "rng": np.random.default_rng(0)}


def test_frank_wolfe_against_scipy():
    random = np.random.default_rng(2)
    for _ in range(5):
        A, B = random.normal(size=(2, 15, 15))
        mine = matching.frank_wolfe(A[None], B[None], np.zeros((15, 15)), np.full((15, 15), 1 / 15))
        theirs = scipy.optimize.quadratic_assignment(A, B, method="faq", options=FAQ).col_ind
        assert mine.tolist() == theirs.tolist()


def test_the_linear_term_against_scipy_with_fixed_nodes():
    """Inputs and outputs as further nodes of one graph, each matched to itself beforehand."""
    random = np.random.default_rng(3)
    a, b = (random_weights(random, 12, 1, 3, 2) for _ in range(2))
    graphs = np.zeros((2, 17, 17))
    for graph, w in zip(graphs, (a, b), strict=True):
        graph[:12, :12], graph[:12, 12:15], graph[15:, :12] = w.recurrent[0], w.incoming, w.outgoing.T
    fixed = np.repeat(np.arange(12, 17)[:, None], 2, axis=1)
    theirs = scipy.optimize.quadratic_assignment(*graphs, method="faq", options=FAQ | {"partial_match": fixed})
    theirs = theirs.col_ind[:12]
    linear = a.incoming @ b.incoming.T + a.outgoing @ b.outgoing.T
    mine = matching.frank_wolfe(a.recurrent, b.recurrent, linear, np.full((12, 12), 1 / 12))
    assert mine.tolist() == theirs.tolist()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(2, 6))
def test_gains_of_exchanges_by_brute_force(seed, n_gates, n):
    random = np.random.default_rng(seed)
    A, M = random.normal(size=(2, n_gates, n, n))
    linear = random.normal(size=(n, n))
    gains = matching.exchange_gains(A, M, linear)
    value = lambda order: (A * M[:, order[:, None], order]).sum() + np.trace(linear[:, order])
    for r, s in itertools.product(range(n), repeat=2):
        order = np.arange(n)
        order[[r, s]] = order[[s, r]]
        np.testing.assert_allclose(gains[r, s], value(order) - value(np.arange(n)), atol=1e-9)


def test_two_opt_ends_where_no_exchange_gains():
    random = np.random.default_rng(4)
    A, B, linear = random.normal(size=(1, 9, 9)), random.normal(size=(1, 9, 9)), random.normal(size=(9, 9))
    value = lambda order: (A * B[:, order[:, None], order]).sum() + linear[np.arange(9), order].sum()
    order = matching.two_opt(A, B, linear, np.arange(9))
    assert value(order) > value(np.arange(9))
    for r, s in itertools.combinations(range(9), 2):
        other = order.copy()
        other[[r, s]] = other[[s, r]]
        assert value(other) < value(order) + 1e-9


# --- weight_distance ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three():
    """Two networks that are one, renumbered, and a third."""
    random = np.random.default_rng(5)
    order = random.permutation(6)
    one = {
        "W": random.normal(size=(6, 6)),
        "W_in": random.normal(size=(6, 1)),
        "bias": random.normal(size=6),
        "W_out": random.normal(size=(38, 6)),
    }
    two = {"W": one["W"][order][:, order], "W_in": one["W_in"][order], "bias": one["bias"][order]}
    two["W_out"] = one["W_out"][:, order]
    third = {name: random.normal(size=a.shape) for name, a in one.items()}
    return population(
        {name: np.stack([one[name], two[name], third[name]]) for name in one}, pr.cells.VanillaRNN(n_units=6)
    )


def test_distances_of_members(three):
    data = ask("weight_distance", three)
    assert data["relabelling"].values.tolist() == list(NAMES)
    assert data["member_1"].values.tolist() == [0, 0, 1]
    assert data["member_2"].values.tolist() == [1, 2, 2]
    W = [m.W.astype(float) for m in three.members]
    by_hand = [np.linalg.norm(W[0] - W[1]), np.linalg.norm(W[0] - W[2]), np.linalg.norm(W[1] - W[2])]
    np.testing.assert_allclose(data["distance"].sel(relabelling="identity"), by_hand)
    conjugate = data["distance"].sel(relabelling="conjugate")
    assert conjugate[0] < 1e-6
    for pair, other in ((1, 0), (2, 1)):
        np.testing.assert_allclose(conjugate[pair], brute_force(*map(recurrent, (W[other], W[2])), "conjugate"))
    assert (data["distance"].sel(relabelling="independent") <= data["distance"].sel(relabelling="identity")).all()
    np.testing.assert_allclose(data["distance_per_parameter"], data["distance"] / 36)
    np.testing.assert_allclose(data["mean"], data["distance"].mean("pair"))
    np.testing.assert_allclose(data["mean_per_parameter_high"], data["mean_high"] / 36)


def test_inputs_biases_and_readouts_move_with_their_units(three):
    data = ask("weight_distance", three, include="all")
    assert data.attrs["n_parameters"] == 36 + 6 + 6 + 38 * 6
    found = data["distance"].isel(pair=0)
    assert found.sel(relabelling="conjugate") < 1e-6
    arrays = [np.concatenate([m.W.ravel(), m.W_in.ravel(), m.bias, m.W_out.ravel()]) for m in three.members]
    np.testing.assert_allclose(found.sel(relabelling="identity"), np.linalg.norm(arrays[0] - arrays[1]), rtol=1e-6)
    # with the readout left where it was, the same networks are another pair
    crossed = dataclasses.replace(
        three, parameters=three.parameters.replaced(W_out=three.parameters.trainable["W_out"][[0, 0, 2]])
    )
    assert ask("weight_distance", crossed, include="all")["distance"].sel(relabelling="conjugate")[0] > 1


@pytest.mark.parametrize("cell", [pr.cells.GRU(n_units=4), pr.cells.LSTM(n_units=4)])
def test_gates_are_relabelled_alike(cell):
    random = np.random.default_rng(6)
    order, n_gates = random.permutation(4), {"gru": 3, "lstm": 4}[cell.name()]
    blocks = np.concatenate([g * 4 + order for g in range(n_gates)])
    shapes = {"W": (4,), "W_in": (1,), "bias": ()}
    one = {name: random.normal(size=(n_gates * 4, *shape)) for name, shape in shapes.items()}
    two = {name: a[blocks] for name, a in one.items()}
    two["W"] = two["W"][:, order]
    # the same rows and columns, but each gate in an order of its own
    odd = one | {"W": one["W"][np.concatenate([g * 4 + np.roll(order, g) for g in range(n_gates)])][:, order]}
    run = population(
        {name: np.stack([one[name], two[name], odd[name]]) for name in one} | {"W_out": random.normal(size=(3, 38, 4))},
        cell,
    )
    for include in ("recurrent", "all"):
        found = ask("weight_distance", run, include=include, relabelling=["conjugate"])["distance"][0]
        assert (found[0] < 1e-6) == (include == "recurrent"), "the readouts were not relabelled"
        assert found[1] > 1
    stacks = [recurrent(m.W.astype(float)) for m in run.members]
    np.testing.assert_allclose(
        ask("weight_distance", run, relabelling=["conjugate"])["distance"][0, 1],
        brute_force(stacks[0], stacks[2], "conjugate"),
    )


def test_a_gated_network_renumbered_throughout_is_the_same():
    random = np.random.default_rng(7)
    order = random.permutation(5)
    rows = np.concatenate([g * 5 + order for g in range(3)])
    one = {"W": (15, 5), "W_in": (15, 1), "bias": (15,), "bias_candidate": (5,), "W_out": (38, 5)}
    one = {name: random.normal(size=shape) for name, shape in one.items()}
    two = {name: one[name][rows] for name in ("W", "W_in", "bias")}
    two |= {"W": two["W"][:, order], "bias_candidate": one["bias_candidate"][order], "W_out": one["W_out"][:, order]}
    run = population({name: np.stack([one[name], two[name]]) for name in one}, pr.cells.GRU(n_units=5))
    x = np.random.default_rng(0).normal(size=(3, 7, 1))
    outputs = pr.rollout(run, x).outputs
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-4)  # it is a relabelling
    data = ask("weight_distance", run, include="all", relabelling=["identity", "conjugate"])
    assert data["distance"][0, 0] > 1 and data["distance"][1, 0] < 1e-6
    assert data.attrs["n_parameters"] == sum(a.size for a in one.values())


def test_weights_are_those_that_the_dynamics_see():
    random = np.random.default_rng(8)
    W = random.normal(size=(2, 4, 4)).astype(np.float32)
    dale = ask("weight_distance", population({"W": W}, pr.cells.LeakyRNN(n_units=4, excitatory_fraction=0.5)))
    seen = abs(W) * [1, 1, -1, -1] * (1 - np.eye(4))
    np.testing.assert_allclose(dale["distance"].sel(relabelling="identity"), np.linalg.norm(seen[0] - seen[1]))


def test_few_pairs_of_a_large_population():
    random = np.random.default_rng(9)
    run = population({"W": random.normal(size=(7, 3, 3))})
    everything = ask("weight_distance", run)
    some = ask("weight_distance", run, n_pairs=5)
    assert some.sizes["pair"] == 5
    pairs = {
        (a, b): k for k, (a, b) in enumerate(zip(*(everything[f"member_{i}"].values for i in (1, 2)), strict=True))
    }
    places = [pairs[pair] for pair in zip(*(some[f"member_{i}"].values for i in (1, 2)), strict=True)]
    assert len(set(places)) == 5
    np.testing.assert_array_equal(some["distance"], everything["distance"].isel(pair=places))
    other = ask("weight_distance", run, n_pairs=5, seed=1)
    assert (other["member_1"].values != some["member_1"].values).any() or (
        other["member_2"].values != some["member_2"].values
    ).any()
    assert ask("weight_distance", run, n_pairs=500).sizes["pair"] == 21
    # the value of a pair is that of its members, whoever else is asked for
    two = pr.measure("weight_distance", run, members=[2, 5]).data
    np.testing.assert_array_equal(two["distance"][:, 0], everything["distance"][:, pairs[2, 5]])


def test_more_restarts_come_closer_and_seeds_differ():
    random = np.random.default_rng(10)
    run = population({"W": random.normal(size=(4, 24, 24))})
    few, many, other = (
        ask("weight_distance", run, relabelling=NAMES[1:], n_restarts=n, seed=s)["distance"]
        for n, s in ((0, 0), (6, 0), (6, 1))
    )
    assert (many <= few).all()
    assert (many < few).any("pair").all()
    assert (many != other).any("pair").all()


def test_weights_that_are_not_finite_have_no_distance():
    W = np.random.default_rng(11).normal(size=(4, 3, 3))
    W[1, 0, 0] = np.nan
    data = ask("weight_distance", population({"W": W}))
    missing = (data["member_1"] == 1) | (data["member_2"] == 1)
    np.testing.assert_array_equal(np.isnan(data["distance"]), np.broadcast_to(missing, (3, 6)))
    assert np.isfinite(data["mean"]).all() and np.isfinite(data["mean_low"]).all()


def test_the_interval_is_over_members_not_pairs():
    """Distances on a line: |x_i - x_j|; the mean's standard error by resampling members one by one."""
    random = np.random.default_rng(12)
    x = random.normal(size=30)
    pairs = pairs_of(30, None, random)
    values = abs(x[pairs[0]] - x[pairs[1]])
    low, high = bootstrap_mean(values, pairs, random)
    means = []
    for _ in range(600):
        y = random.integers(0, 30, 30)
        d = [abs(x[i] - x[j]) for i, j in itertools.combinations(y, 2) if i != j]
        means.append(np.mean(d))
    np.testing.assert_allclose([low, high], np.quantile(means, [0.025, 0.975]), atol=0.06)
    by_pair = 3.92 * values.std() / len(values) ** 0.5
    assert high - low > 2 * by_pair, "pairs that share a member are not independent"
    assert np.isnan(bootstrap_mean(np.ones(1), pairs_of(2, None, random), random)).all()


# --- distance_from_start --------------------------------------------------------------------------------------------


def moved_by(change, cell=None, n_units=4):
    """A population whose arrays are so much away from their start."""
    cell = cell or pr.cells.VanillaRNN(n_units=n_units)
    run = pr.from_arrays("n_parity", cell, {"W": np.random.default_rng(0).normal(size=(2, n_units, n_units))})
    start = jax.tree.map(np.copy, run.parameters)
    for name, delta in change.items():
        group = start.trainable if name in start.trainable else start.fixed
        group[name] = (group[name] - delta).astype(np.float32)
    return dataclasses.replace(run, initial=start, outcome=["solved"] * 2)


def test_planted_changes_are_measured():
    change = {
        "W": np.array([3.0, 1.0])[:, None, None] * np.ones((4, 4)),
        "bias": np.array([[0, 3, 4, 0], [0, 0, 0, 1]]),
    }
    data = ask("distance_from_start", moved_by(change))
    np.testing.assert_allclose(data["distance"], [12, 4], rtol=1e-6)
    np.testing.assert_allclose(data["distance_per_parameter"], [12 / 16, 4 / 16], rtol=1e-6)
    by_array = data["distance_by_array"]
    np.testing.assert_allclose(by_array.sel(array="bias"), [5, 1], rtol=1e-5)
    np.testing.assert_allclose(data["distance_by_array_per_parameter"].sel(array="bias"), [1.25, 0.25], rtol=1e-5)
    np.testing.assert_array_equal(by_array.sel(array=["W_in", "W_out", "b_out"]), 0)
    other = ask("distance_from_start", moved_by(change), array="bias")
    np.testing.assert_allclose(other["distance"], [5, 1], rtol=1e-5)


def test_the_start_too_is_seen_as_the_dynamics_see_it():
    change = {"W": np.ones((2, 4, 4))}
    data = ask("distance_from_start", moved_by(change, pr.cells.LeakyRNN(n_units=4)))
    np.testing.assert_allclose(data["distance"], np.sqrt(12), rtol=1e-6)  # there is no diagonal
    np.testing.assert_allclose(data["distance_per_parameter"], np.sqrt(12) / 16, rtol=1e-6)
    np.testing.assert_allclose(data["distance_by_array"].sel(array="W"), 4, rtol=1e-6)


def test_a_trained_population_and_its_snapshots(tiny_run):
    data = ask("distance_from_start", tiny_run)
    for k, member in enumerate(tiny_run.members):
        before = tiny_run.initial.trainable["W"][k]
        off = (member.W - before) * (1 - np.eye(8))
        np.testing.assert_allclose(data["distance"][k], np.linalg.norm(off), rtol=1e-5)
    still = dataclasses.replace(tiny_run, parameters=tiny_run.initial)
    assert (ask("distance_from_start", still)["distance_by_array"] == 0).all()


def test_weights_that_exploded_have_no_distance():
    run = moved_by({"W": np.array([np.inf, 1.0])[:, None, None] * np.ones((4, 4))})
    assert np.isnan(ask("distance_from_start", run)["distance"]).values.tolist() == [True, False]


# --- generalisation_spread ------------------------------------------------------------------------------------------


@pr.register("tasks")
class Level(pr.Task):
    """Say the level that was shown; trials beyond may be longer, their level another and the answer due later."""

    n_inputs, n_outputs = 1, 1
    n_steps: int = 4
    level: float = 1.0
    noise: float = 0.0

    @property
    def capacity(self):
        return self.n_steps + 2

    def draw(self, stage, *, key):
        return pr.Setting(self.n_steps)

    def sample(self, setting, arrays, *, key):
        shown = self.level + self.noise * jax.random.normal(key, (self.capacity, 1))
        time = jnp.arange(self.capacity)
        target = jnp.where(time[:, None] < setting.length, jnp.full_like(shown, self.level), jnp.inf)
        return pr.Trial(shown, target, weights=(time >= self.n_steps // 2).astype(jnp.float32))

    def out_of_distribution(self):
        return dataclasses.replace(self, n_steps=2 * self.n_steps, level=2 * self.level)


def echoes(gains, task=None):
    """Members that say ``gain · input``."""
    n = len(gains)
    arrays = {"W": np.zeros((n, 1, 1)), "W_in": np.reshape(gains, (n, 1, 1)), "bias": np.zeros((n, 1))}
    arrays |= {"W_out": np.ones((n, 1, 1)), "b_out": np.zeros((n, 1))}
    return population(arrays, pr.cells.VanillaRNN(n_units=1, activation="identity"), task or Level())


def test_spread_of_planted_errors():
    gains = np.array([1.5, 0.0, 3.0, 0.9])
    data = ask("generalisation_spread", echoes(gains), n_trials=20, batch=10)
    for name, level in (("in", 1.0), ("out", 2.0)):
        error = (level * (gains - 1)) ** 2
        np.testing.assert_allclose(data["error"].sel(distribution=name), error, rtol=1e-5)
        np.testing.assert_allclose(
            data["coefficient_of_variation"].sel(distribution=name), stats.variation(error), rtol=1e-5
        )
    np.testing.assert_allclose(data["ratio"], 4, rtol=1e-4)
    low, high = (data[f"coefficient_of_variation_{end}"].values for end in ("low", "high"))
    assert (low < data["coefficient_of_variation"]).all() and (data["coefficient_of_variation"] < high).all()
    np.testing.assert_allclose([low[0], high[0]], [low[1], high[1]], rtol=1e-5)  # errors four times as large
    np.testing.assert_allclose(data["error_standard_error"], 0, atol=1e-5)


def test_the_other_task_can_be_given_in_every_form(tmp_path):
    run = echoes([0.5, 2.0, 1.2])
    further = Level(n_steps=6, level=5.0)
    given = [pr.measure("generalisation_spread", run, n_trials=4, task=t) for t in (further, further.to_dict())]
    xr.testing.assert_identical(given[0].data, given[1].data)
    np.testing.assert_allclose(given[0].data["ratio"], 25, rtol=1e-4)
    again = load_result(given[0].save(tmp_path))
    assert again.options["task"] == further.to_dict()
    default = pr.measure("generalisation_spread", run, n_trials=4, task="level").data
    np.testing.assert_allclose(default["ratio"], 1, rtol=1e-5)


def test_members_answer_the_same_trials():
    run = echoes([0.5, 0.5, 0.5], Level(noise=1.0))
    data = ask("generalisation_spread", run, n_trials=12, batch=4)
    np.testing.assert_allclose(data["coefficient_of_variation"], 0, atol=1e-6)
    error = data["error_standard_error"].values
    assert (error > 0).all()
    other = ask("generalisation_spread", run, n_trials=12, batch=4, seed=1)
    assert (other["error"] != data["error"]).all()
    batches = ask("generalisation_spread", run, n_trials=12, batch=3)
    assert (batches["error"] != data["error"]).all()
    many = ask("generalisation_spread", run, n_trials=400)
    np.testing.assert_allclose(many["error_standard_error"] / error, np.sqrt(12 / 400), rtol=0.8)
    # (0.5 (1 + z) - 1)² has the mean 1/4 + 1/4
    assert (abs(many["error"].sel(distribution="in") - 0.5) < 5 * many["error_standard_error"][:, 0]).all()


def test_the_interval_of_the_spread_against_scipy():
    random = np.random.default_rng(0)
    error = random.gamma(2, 0.3, 40) ** 2
    other = stats.bootstrap((error,), stats.variation, method="percentile", n_resamples=10_000, rng=1)
    ends = SPREAD._interval(error, stats.variation(error), random.integers(0, 40, (1000, 40)))
    np.testing.assert_allclose(ends, other.confidence_interval, rtol=0.06)
    assert np.isnan(SPREAD._interval(error[:2], 1.0, random.integers(0, 2, (1000, 2)))).all()


def test_the_spread_of_a_loss():
    task = pr.tasks.Arrays.of(np.ones((3, 4, 1)), np.ones((3, 4), int))
    run = population(
        {"W": np.zeros((2, 1, 1)), "W_out": np.zeros((2, 2, 1)), "b_out": np.array([[0.0, 0.0], [0.0, 2.0]])},
        pr.cells.VanillaRNN(n_units=1),
        task,
    )
    data = ask("generalisation_spread", run, task=task, error="loss", n_trials=6)
    loss = np.log(1 + np.exp(-np.array([0.0, 2.0])))
    np.testing.assert_allclose(data["error"].sel(distribution="out"), loss, rtol=1e-5)
    np.testing.assert_allclose(data["coefficient_of_variation"], stats.variation(loss), rtol=1e-5)
    with pytest.raises(pr.NotApplicableError, match="classes, not values"):
        ask("generalisation_spread", run, task=task, n_trials=6)


# --- task_complexity ------------------------------------------------------------------------------------------------


class Symbols(pr.Task):
    """Two ternary channels that are 0 with probability 0.7, a uniform one, and targets that are none of it."""

    n_inputs, n_outputs, capacity = 3, 2, 60
    length: int = 40

    def draw(self, stage, *, key):
        return pr.Setting(self.length, extra={"n_active": jnp.sum(stage.active), "index": stage.index})

    def sample(self, setting, arrays, *, key):
        a, b, c, d = jax.random.split(key, 4)
        shape = (self.capacity, 2)
        ternary = jnp.where(jax.random.bernoulli(a, 0.3, shape), jax.random.rademacher(b, shape), 0)
        inputs = jnp.concatenate([ternary, jax.random.uniform(c, (self.capacity, 1))], axis=1)
        inputs = jnp.where(jnp.arange(self.capacity)[:, None] < setting.length, inputs, jnp.nan)
        level = jnp.full(self.capacity, jax.random.randint(d, (), 0, 4)).astype(jnp.float32)
        return pr.Trial(inputs, jnp.stack([jnp.ones(self.capacity), level], axis=1))


def expected_entropy(shares, n):
    """Of the histogram of n draws: sum over symbols and counts of the binomial probability times -(c/n) log2 (c/n)."""
    c = np.arange(1, n + 1)
    return sum((stats.binom.pmf(c, n, p) * -(c / n) * np.log2(c / n)).sum() for p in shares)


def test_complexity_in_closed_form():
    shares = [0.7, 0.15, 0.15]
    for length in (40, 60):
        found = task_complexity(Symbols(length=length), n_trials=800)
        by_trial = expected_entropy(shares, length)
        np.testing.assert_allclose(found["input_entropy_by_channel"][:2], by_trial, atol=0.01)
        np.testing.assert_allclose(
            found["input_entropy_by_channel"][2], expected_entropy([1 / 32] * 32, length), atol=0.02
        )
        np.testing.assert_array_equal(found["target_entropy_by_channel"], 0)  # both stay the same within a trial
    assert found["input_n_symbols"].values.tolist() == [3, 3, 32]
    assert found["target_n_symbols"].values.tolist() == [1, 4]
    np.testing.assert_allclose(found["input_entropy"], found["input_entropy_by_channel"].sum())

    pooled = task_complexity(Symbols(), n_trials=3000, histogram="pooled")
    np.testing.assert_allclose(pooled["input_entropy_by_channel"], [*[stats.entropy(shares, base=2)] * 2, 5], atol=0.01)
    np.testing.assert_allclose(pooled["target_entropy_by_channel"], [0, 2], atol=0.01)
    assert np.isnan(pooled["input_entropy_standard_error"])


def test_the_standard_error_is_that_of_repeated_questions():
    found = [task_complexity(Symbols(), n_trials=60, seed=s) for s in range(20)]
    spread = np.std([float(f["input_entropy"]) for f in found], ddof=1)
    assert 0.5 < float(found[0]["input_entropy_standard_error"]) / spread < 2
    assert np.isnan(task_complexity(Symbols(), n_trials=1)["input_entropy_standard_error"])


def test_bins_and_seeds():
    uniform = lambda **options: float(task_complexity(Symbols(), **options)["input_entropy_by_channel"][2])
    for n_bins in (4, 8):
        assert abs(uniform(n_bins=n_bins, histogram="pooled") - np.log2(n_bins)) < 0.01
    assert uniform(n_bins=4) < 2
    assert uniform(seed=1) != uniform()
    assert uniform(n_trials=20) != uniform()
    # fewer bins than values: -1 and 0 share the lower one, or 0 and 1 the upper
    two = task_complexity(Symbols(), n_bins=2, histogram="pooled")["input_entropy_by_channel"][0]
    np.testing.assert_allclose(two, stats.entropy([0.15, 0.85], base=2), atol=0.02)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_histograms_by_brute_force(data):
    n_trials, n_steps, n_bins = (data.draw(st.integers(1, high)) for high in (4, 12, 6))
    kind = st.integers(-2, 3).map(float) if data.draw(st.booleans()) else st.floats(-1e3, 1e3, width=32)
    values = np.array(data.draw(st.lists(kind, min_size=n_trials * n_steps, max_size=n_trials * n_steps)))
    values = values.reshape(n_trials, n_steps)
    exists = np.arange(n_steps) < data.draw(st.integers(1, n_steps))
    exists = np.broadcast_to(exists, values.shape)
    found = entropy.symbols(values, exists, n_bins)
    n = entropy.counts(found, exists)
    known = values[exists]
    low, high = known.min(), known.max()
    distinct = np.unique(known)
    if (np.diff(distinct) <= 1e-5 * (high - low)).any():
        return  # rounding decides whether these are one value: another test
    assert found.binned == (len(distinct) > n_bins)
    edges = np.linspace(low, high, n_bins + 1) if found.binned else None
    if found.binned and np.isclose(known[:, None], edges[None, 1:-1], rtol=1e-9, atol=1e-9 * (high - low)).any():
        return  # on an edge
    for trial in range(n_trials):
        mine = values[trial][exists[trial]]
        expected = np.histogram(mine, edges)[0] if found.binned else np.array([(mine == v).sum() for v in distinct])
        np.testing.assert_array_equal(n[trial], expected)
        p = expected[expected > 0] / expected.sum()
        np.testing.assert_allclose(entropy.entropy_bits(n[trial]), -(p * np.log2(p)).sum(), atol=1e-12)


def test_rounding_makes_no_new_values_and_a_continuum_is_none():
    exists = np.ones((1, 400), bool)
    few = np.repeat([0.0, 1.0, 3.0, 7.0], 100)[None] + 1e-7 * np.random.default_rng(0).random((1, 400))
    assert entropy.symbols(few, exists, 8)[1:] == (4, False)
    dense = np.linspace(0, 1, 4_000_001)[None]  # neighbours lie closer than rounding
    found = entropy.symbols(dense, np.ones(dense.shape, bool), 8)
    assert found[1:] == (8, True)
    np.testing.assert_allclose(entropy.entropy_bits(entropy.counts(found, np.ones(dense.shape, bool)))[0], 3, atol=1e-6)


def test_tasks_read_at_the_end():
    task = pr.tasks.NParity(n_max=4, bit_probability=0.5)
    by_trial, pooled = (task_complexity(task, n_trials=600, histogram=h) for h in ("trial", "pooled"))
    assert float(by_trial["target_entropy"]) == 0
    np.testing.assert_allclose(pooled["target_entropy_by_channel"], [1, 1, 1], atol=0.02)
    np.testing.assert_allclose(pooled["input_entropy"], 1, atol=0.01)
    # lengths are uniform on 4 + 2 … 16, each trial's its own
    expected = np.mean([expected_entropy([0.5, 0.5], n) for n in range(6, 17)])
    assert abs(by_trial["input_entropy"] - expected) < 4 * by_trial["input_entropy_standard_error"]


def test_a_run_is_asked_about_its_task(tiny_run):
    found = ask("task_complexity", tiny_run, n_trials=50)
    assert "member" not in found.dims
    assert found["target_entropy_by_channel"].shape == (3,)
    # the last stage of a curriculum of single heads has the largest N alone active, as all together have
    seen = []

    class Watched(Symbols):
        def draw(self, stage, *, key):
            seen.append(stage)
            return super().draw(stage, key=key)

    run = pr.from_arrays(Watched(), pr.cells.VanillaRNN(n_units=2), {}, training=pr.Training(curriculum=toys.Shift()))
    data = ask("task_complexity", run, n_trials=8)
    assert seen[-1].split == "train"
    assert data["input_entropy"] > 0


def test_classes_pieces_and_closed_loops():
    class Classes(pr.Task):
        n_inputs, n_outputs, capacity = 2, 3, 8

        def sample(self, setting, arrays, *, key):
            values = jnp.array([[1.0, 0.0], [2.0, 0.0]])
            return pr.Trial(Piecewise(values, jnp.array([0, 4])), jnp.arange(8) % 4)

    found = task_complexity(Classes(), n_trials=3)
    assert found["input_entropy_by_channel"].values.tolist() == [1, 0]
    assert found["target_entropy_by_channel"].values.tolist() == [2]
    loop = task_complexity(toys.EchoChamber(), n_trials=3)
    assert np.isnan(loop["input_entropy"]) and loop["target_entropy"] == 1


# --- attractorness --------------------------------------------------------------------------------------------------


def linear_network(W, bias=(0, 0), task=None):
    """Members with two linear units each, started in [0, 1]²."""
    cell = pr.cells.LeakyRNN(n_units=2, activation="identity", self_connection=True, state_start=1.0)
    n = len(W)
    arrays = {"W": np.array(W), "W_in": np.zeros((n, 2, 1)), "bias": np.tile(bias, (n, 1)), "tau": np.ones((n, 2))}
    return population(arrays, cell, task or pr.tasks.NParity(n_max=3))


def turn(a):
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


def test_speed_of_planted_states():
    angles = np.array([0.0, 0.1, np.pi / 2, np.pi])
    data = ask("attractorness", linear_network([turn(a) for a in angles]), n_trials=9)
    np.testing.assert_allclose(data["attractorness"], 2 * np.sin(angles / 2), atol=1e-5)
    np.testing.assert_allclose(data["by_trial"], np.repeat(2 * np.sin(angles / 2)[:, None], 9, axis=1), atol=1e-5)
    np.testing.assert_allclose(data["attractorness_standard_error"], 0, atol=1e-5)


def test_speed_of_a_decay_counts_only_the_steps_there_are():
    """h(t) = q^(t-1) h(1): speed = (1 - q) S(T-1) / (T-1) / (S(T) / T), S(n) = (1 - q^n) / (1 - q)."""
    q, length = 0.8, 7

    class Short(pr.Task):
        n_inputs, n_outputs, capacity = 1, 1, 20

        def draw(self, stage, *, key):
            return pr.Setting(length)

        def sample(self, setting, arrays, *, key):
            return pr.Trial(jnp.zeros((20, 1)), jnp.zeros((20, 1)))

    data = ask("attractorness", linear_network([q * np.eye(2)], task=Short()), n_trials=1)
    assert np.isnan(data["attractorness_standard_error"]).all()
    total = lambda n: (1 - q**n) / (1 - q)
    expected = (1 - q) * total(length - 1) / (length - 1) / (total(length) / length)
    np.testing.assert_allclose(data["attractorness"], expected, rtol=1e-5)


def test_speed_by_brute_force():
    run = pr.from_arrays(pr.tasks.NParity(n_max=3), pr.cells.LeakyRNN(n_units=5, noise=0.3), {})
    data = ask("attractorness", run, n_trials=6, seed=2)
    found = pr.rollout(run, n_trials=6, seed=2)
    speeds = []
    for trial in range(6):
        h = found.states[0, trial, : found.length[0]].astype(float)
        size = np.mean([np.linalg.norm(x) for x in h])
        speeds.append(np.mean([np.linalg.norm(b - a) for a, b in itertools.pairwise(h)]) / size)
    np.testing.assert_allclose(data["by_trial"][0], speeds, rtol=1e-5)
    np.testing.assert_allclose(data["attractorness"], np.mean(speeds), rtol=1e-5)
    np.testing.assert_allclose(data["attractorness_standard_error"], stats.sem(speeds), rtol=1e-4)
    assert (ask("attractorness", run, n_trials=6)["by_trial"] != data["by_trial"]).any()


def test_silent_and_exploding_networks_have_no_speed():
    data = ask("attractorness", linear_network([0 * np.eye(2), 1e30 * np.eye(2), np.eye(2)]), n_trials=3)
    assert np.isnan(data["attractorness"]).values.tolist() == [True, True, False]


# --- how they are asked ---------------------------------------------------------------------------------------------


def flat_networks():
    class Flat(pr.Cell):
        """Recurrent and input weights in one matrix."""

        n_units: int = 3

        def init(self, n_inputs, n_outputs, *, key):
            return pr.Parameters({"W": jnp.ones((3, 3 + n_inputs))}, {})

    return pr.from_arrays("n_parity", Flat(), {"W": np.ones((2, 3, 4))})


def two_without_inputs():
    class Inward(pr.Cell):
        """No input weights."""

        n_units: int = 3

        def init(self, n_inputs, n_outputs, *, key):
            return pr.Parameters({"W": jnp.ones((3, 3)), "W_out": jnp.ones((n_outputs, 3))}, {})

    return pr.from_arrays("n_parity", Inward(), {"W": np.ones((2, 3, 3))})


def of_different_tasks():
    run = echoes([1.0, 2.0])
    varied = pr.Population(members=2, vary={"task.level": [1.0, 2.0]})
    return dataclasses.replace(run, setup=dataclasses.replace(run.setup, population=varied))


@pytest.mark.parametrize(
    ("analysis", "run", "options", "word"),
    [
        ("weight_distance", lambda: population({"W": np.ones((1, 2, 2))}), {}, "needs two members"),
        ("weight_distance", flat_networks, {}, "no matrix W"),
        ("weight_distance", two_without_inputs, {"include": "all"}, "no W_in"),
        ("distance_from_start", lambda: population({"W": np.ones((2, 2, 2))}), {}, "no start that is known"),
        ("distance_from_start", lambda: moved_by({}), {"array": "W_inn"}, "did you mean 'W_in'"),
        (
            "generalisation_spread",
            lambda: population({"W": np.ones((2, 2, 2))}),
            {},
            "does not say what is out of its distribution",
        ),
        ("generalisation_spread", lambda: echoes([1.0]), {}, "needs two members"),
        ("generalisation_spread", of_different_tasks, {}, "trained on different tasks"),
        ("task_complexity", of_different_tasks, {}, "trained on different tasks"),
    ],
)
def test_questions_that_make_no_sense(analysis, run, options, word):
    with pytest.raises(pr.NotApplicableError, match=word):
        ask(analysis, run(), **options)


@pytest.mark.parametrize(
    ("analysis", "options", "word"),
    [
        ("weight_distance", {"relabelling": ["identity", "identity"]}, "each must be given once"),
        ("weight_distance", {"relabelling": ["identity"], "n_restarts": 3}, "nothing to search for"),
        ("weight_distance", {"relabelling": []}, "at least 1 item"),
        ("weight_distance", {"include": "some"}, "include = 'some'"),
        ("weight_distance", {"n_pairs": 0}, "greater than 0"),
        ("generalisation_spread", {"task": pr.tasks.NParity(n_max=3)}, "n_outputs = 4: must be 1"),
        ("generalisation_spread", {"task": "levle"}, "levle"),
        ("generalisation_spread", {"task": 3}, "task = 3"),
        ("generalisation_spread", {"error": "mse"}, "error = 'mse'"),
        ("task_complexity", {"n_bins": 0}, "greater than 0"),
        ("task_complexity", {"histogram": "time"}, "histogram = 'time'"),
        ("attractorness", {"n_trials": 0}, "greater than 0"),
    ],
)
def test_options_that_cannot_be(analysis, options, word):
    with pytest.raises(pr.ConfigurationError, match=word):
        ask(analysis, echoes([1.0, 2.0]), **options)


@pytest.mark.parametrize(
    "analysis", ["weight_distance", "distance_from_start", "generalisation_spread", "task_complexity", "attractorness"]
)
def test_members_left_out_a_round_trip_to_disk_and_figures(analysis, tmp_path):
    run = echoes([0.5, 2.0, 1.5, 0.7], Level(noise=0.5))
    run.outcome = ["budget_spent", "solved", "solved", "solved"]
    result = pr.measure(analysis, run)
    assert result.left_out == {0: "budget_spent"}
    if "member" in result.data.dims:
        assert result.data["member"].values.tolist() == [1, 2, 3]
    if analysis == "weight_distance":
        assert result.data["member_1"].values.tolist() == [1, 1, 2]
    again = load_result(result.save(tmp_path))
    xr.testing.assert_identical(again.data, result.data)
    assert again.left_out == result.left_out
    assert {**again.options, "relabelling": None} == {**result.options, "relabelling": None}  # a list, once a tuple
    for drawing in results.draw(result):
        assert drawing.name.startswith(analysis)
