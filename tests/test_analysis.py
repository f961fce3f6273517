"""Oracles for accuracy_by_n, timescales_single, dimensionality and connectivity, and for how they are asked."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from sklearn.decomposition import PCA

import poprnn as pr
from poprnn.analysis.contract import load_result
from poprnn.training.rollout import Rollout
from poprnn.training.run import Snapshot

BY_N = importlib.import_module("poprnn.analysis.accuracy_by_n")
POPULATION = importlib.import_module("poprnn.analysis._population")
DIMENSIONALITY = importlib.import_module("poprnn.analysis.dimensionality")
MEMORIES = np.arange(2, 6)
RANDOM = np.random.default_rng(0)


@pytest.fixture
def staged():
    """Two members that have passed three stages; other weights at each."""
    run = pr.from_arrays(
        pr.tasks.NParity(n_max=4),
        pr.cells.LeakyRNN(n_units=8),
        random_arrays(),
        training=pr.Training(curriculum="multi_head"),
    )
    for stage in range(3):
        then = pr.from_arrays(run.task, run.cell, random_arrays())
        run.snapshots[f"stage_{stage:03d}"] = Snapshot(np.ones(2, bool), np.full(2, stage + 1), then.parameters)
    return run


def random_arrays(n_units=8, n_inputs=1):
    return {
        "W": RANDOM.normal(size=(2, n_units, n_units)) / 3,
        "W_in": RANDOM.normal(size=(2, n_units, n_inputs)),
        "tau": RANDOM.uniform(0.5, 5, (2, n_units)),
    }


def vary(run, **values):
    """The run with hyperparameters that differ between its members."""
    population = pr.Population(members=run.n_members, vary={k.replace("__", "."): v for k, v in values.items()})
    return dataclasses.replace(run, setup=dataclasses.replace(run.setup, population=population))


class Echo(pr.Task):
    """Repeat the input; trials are half as long as the task could make them."""

    n_inputs, n_outputs, capacity = 3, 3, 40

    def draw(self, stage, *, key):
        return pr.Setting(20)

    def sample(self, setting, arrays, *, key):
        x = jax.random.normal(key, (40, 3))
        return pr.Trial(x, x)


class Product(pr.Cell):
    """A cell without a square W or a tau, whose activity is a single number."""

    n_units: int = 3

    def init(self, n_inputs, n_outputs, *, key):
        return pr.Parameters({"W": jnp.ones((self.n_units, n_inputs)), "W_out": jnp.ones((n_outputs, 1))}, {})

    def initial_state(self, prepared, *, key):
        return jnp.zeros(())

    def step(self, prepared, state, input, *, key, context):
        return jnp.sum(prepared["W"] @ input)

    def readout(self, prepared, state):
        return prepared["W_out"] @ state[None]


# --- accuracy_by_n: networks that answer by construction --------------------------------------------------------


def keep_first(monkeypatch, module, name):
    """Make a slow function run once: what it first gave is given again. Returns the list that holds it."""
    real, kept = getattr(module, name), []

    def once(*args, **options):
        if not kept:
            kept.append(real(*args, **options))
        return kept[0]

    monkeypatch.setattr(module, name, once)
    return kept


def memory_network(task, memories=MEMORIES):
    """Arrays of a relu network that solves N-parity or N-DMS exactly: a shift register and, on it, counting units.

    Unit j < n_max holds the bit of j steps ago. Unit (N, k) holds max(0, s - k), where s adds up the bits that
    matter: all of the last N (parity), or the newest and the N - 1 steps older one (DMS, k = 1 only: their "and").
    """
    depth = memories[-1]
    counting = [(n, k) for n in memories for k in (range(n) if task == "n_parity" else [1])]
    n_units = depth + len(counting)
    W, W_in, bias = np.zeros((n_units, n_units)), np.zeros((n_units, 1)), np.zeros(n_units)
    W[np.arange(1, depth), np.arange(depth - 1)] = 1
    W_in[0] = 1
    answer = np.zeros((len(memories), n_units))
    for unit, (n, k) in enumerate(counting, start=depth):
        W[unit, : n - 1] = 1 if task == "n_parity" else np.arange(n - 1) == n - 2
        W_in[unit], bias[unit] = 1, -k
        # parity of s: 0, 1, 0, 1, … = s - 2 max(0, s - 1) + 2 max(0, s - 2) - …; equality: 1 - x - y + 2 (x and y)
        answer[n - memories[0], unit] = (1 if k == 0 else 2 * (-1) ** k) if task == "n_parity" else 2
    if task == "n_dms":
        answer[:, 0] = -1
        answer[np.arange(len(memories)), memories - 1] -= 1
    offset = (1.0 if task == "n_dms" else 0.0) - 0.5
    W_out = np.stack([-answer, answer], axis=1).reshape(-1, n_units)
    return {
        "W": W,
        "W_in": W_in,
        "bias": bias,
        "tau": np.ones(n_units),
        "W_out": W_out,
        "b_out": np.tile([-offset, offset], len(memories)),
    }


def bring_in(task, members, **training):
    """A run of several hand-made networks."""
    arrays = {name: np.stack([m[name] for m in members]) for name in members[0]}
    cell = pr.cells.LeakyRNN(n_units=arrays["W"].shape[1], activation="relu")
    task = {"n_parity": pr.tasks.NParity, "n_dms": pr.tasks.NDMS}[task](n_max=int(MEMORIES[-1]))
    return pr.from_arrays(task, cell, arrays, training=pr.Training(**training))


def with_readout(network, change):
    """The network with its readout changed, [head, class, unit] and [head, class]."""
    n_heads = len(MEMORIES)
    W_out, b_out = change(network["W_out"].reshape(n_heads, 2, -1), network["b_out"].reshape(n_heads, 2))
    return network | {"W_out": W_out.reshape(2 * n_heads, -1), "b_out": b_out.reshape(-1)}


def negate(*memories):
    """A change of readout after which these memories are always answered wrongly."""
    sign = np.where(np.isin(MEMORIES, memories), -1, 1)
    return lambda W, b: (W * sign[:, None, None], b * sign[:, None])


@pytest.mark.parametrize("task", ["n_parity", "n_dms"])
def test_accuracy_of_solvers_failures_and_coins(task, monkeypatch):
    solver = memory_network(task)
    broken, forgetful = with_readout(solver, negate(4)), with_readout(solver, negate(2))
    shuffled = with_readout(solver, lambda W, b: (np.roll(W, 1, axis=0), b))
    constant = with_readout(solver, lambda W, b: (0 * W, np.tile([1.0, 0.0], (len(b), 1))))
    run = bring_in(task, [solver, broken, forgetful, shuffled, constant], curriculum="multi_head")
    evaluated = keep_first(monkeypatch, BY_N, "evaluate")
    answer = pr.measure("accuracy_by_n", run, n_trials=1000).data
    assert answer["n"].values.tolist() == MEMORIES.tolist()
    np.testing.assert_array_equal(answer["accuracy"][:3], [[1, 1, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1]])
    # a parity of one bit more (or three, around the corner), and another pair of bits, are coins to the wrong head
    p = np.full((2, 4), 0.5)
    if task == "n_parity":  # E[(1 - 2p)^N] = 1 / (N + 1) for even N: short parities are more often even than odd
        p[1] = np.where(MEMORIES % 2 == 0, 0.5 + 0.5 / (MEMORIES + 1), 0.5)
    error = np.sqrt(p * (1 - p) / 1000)
    assert (np.abs(answer["accuracy"][3:] - p) < 4.5 * error).all()
    np.testing.assert_allclose(answer["standard_error"][3:], error, rtol=0.1)
    for name in ("largest_n", "largest_n_low", "largest_n_high"):
        assert answer[name].values.tolist() == [5, 3, 0, 0, 0]
    assert answer["trained"].values.all()
    assert int(answer["n_trials"]) == 1000

    run.progress = pr.Progress(np.array([1, 1, 0, 0, 0]), np.zeros(5, bool))  # fewer heads have been trained
    answer = pr.measure("accuracy_by_n", run, n_trials=1000).data
    assert answer["trained"].sum("n").values.tolist() == [2, 2, 1, 1, 1]
    assert answer["largest_n"].values.tolist() == [3, 3, 0, 0, 0]
    assert len(evaluated) == 1


def test_heads_a_window_left_behind_have_been_trained():
    run = bring_in("n_parity", [memory_network("n_parity")] * 2, curriculum=pr.curricula.SlidingWindow(window=2))
    run.progress = pr.Progress(np.array([1, 2]), np.zeros(2, bool))
    assert BY_N._trained(run).tolist() == [[True, True, False, False], [True, True, True, False]]


def test_a_shared_readout_is_scored_at_every_n():
    solver = memory_network("n_dms")
    of_four = with_readout(solver, lambda W, b: (np.roll(W, -2, axis=0), b))  # head 0 now answers N = 4
    run = bring_in("n_dms", [solver, of_four], curriculum="single_head")
    answer = pr.measure("accuracy_by_n", run, n_trials=400).data
    assert ((answer["accuracy"] == 1) == [[True, False, False, False], [False, False, True, False]]).all()
    assert (answer["accuracy"].where(answer["accuracy"] < 1) < 0.62).sum() == 6
    assert answer["largest_n"].values.tolist() == [2, 4]


def test_accuracy_options(monkeypatch):
    run, asked = bring_in("n_dms", [memory_network("n_dms")]), []
    monkeypatch.setattr(
        BY_N,
        "evaluate",
        lambda run, **options: (asked.append(options), {"accuracy": np.full((1, 4, 4), 0.75, np.float32)})[1],
    )
    for options, expected in (
        ({}, (100, 2000, 0)),
        ({"batch": 4, "n_trials": 10}, (4, 12, 0)),
        ({"n_trials": 10, "seed": 7}, (10, 10, 7)),
    ):
        answer = pr.measure("accuracy_by_n", run, **options).data
        assert (asked[-1]["batch"], int(answer["n_trials"]), asked[-1]["seed"]) == expected
    for threshold, largest in ((0.7, 5), (0.75, 0), (0.8, 0)):
        assert pr.measure("accuracy_by_n", run, threshold=threshold).data["largest_n"].item() == largest


def test_a_threshold_is_to_be_exceeded_and_its_doubt_is_told(monkeypatch):
    run = bring_in("n_parity", [memory_network("n_parity")] * 3)
    score = np.array([[1, 1, 1, 0.98], [1, 0.99, 0.979, 1], [1, 1, 1, 1]], np.float32)
    monkeypatch.setattr(BY_N, "evaluate", lambda run, **_: {"accuracy": score[:, None].repeat(4, 1)})
    answer = pr.measure("accuracy_by_n", run, n_trials=1000).data
    assert answer["largest_n"].values.tolist() == [4, 3, 5]  # 0.98 in float32 is a little more than 0.98
    assert answer["largest_n_low"].values.tolist() == [4, 3, 5]
    assert answer["largest_n_high"].values.tolist() == [5, 5, 5]


# --- timescales_single ------------------------------------------------------------------------------------------

TAU = np.array([[0.05, 0.5, 1.0, 1.7], [2.5, 0.2, 4.0, 30.0]])


@pytest.mark.parametrize(("options", "lowest"), [({}, 1.0), ({"dt": 0.25}, 0.25), ({"dt": 0.25, "tau_min": 2.0}, 2.0)])
def test_tau_is_held_where_the_cell_holds_it(options, lowest):
    run = pr.from_arrays("n_parity", pr.cells.LeakyRNN(n_units=4, **options), {"tau": TAU})
    answer = pr.measure("timescales_single", run).data
    tau = np.maximum(TAU, lowest)
    np.testing.assert_allclose(answer["tau"], tau, rtol=1e-7)  # tau itself is stored in float32
    for name, statistic in (("mean", np.mean), ("std", np.std), ("median", np.median), ("max", np.max)):
        np.testing.assert_allclose(answer[name], statistic(tau, axis=1), rtol=1e-6)
    np.testing.assert_allclose(answer["standard_error"], tau.std(axis=1, ddof=1) / 2, rtol=1e-6)
    assert "stage" not in answer.dims


def test_tau_is_held_at_the_dt_the_task_draws_or_one_that_is_asked_for():
    run = pr.from_arrays(pr.tasks.NParity(n_max=3, dt=(0.5, 0.1)), pr.cells.LeakyRNN(n_units=4), {"tau": TAU})
    for options, lowest in (({}, 0.1), ({"dt": 0.5}, 0.5)):
        answer = pr.measure("timescales_single", run, **options).data
        np.testing.assert_allclose(answer["tau"], np.maximum(TAU, lowest), rtol=1e-7)


def test_members_are_prepared_with_their_own_hyperparameters():
    run = pr.from_arrays("n_parity", pr.cells.LeakyRNN(n_units=4), {"tau": TAU})
    run = vary(run, cell__tau_min=[1.0, 3.0]).select([1])
    np.testing.assert_allclose(pr.measure("timescales_single", run).data["tau"], [[3, 3, 4, 30]], rtol=1e-7)


def test_one_unit_has_a_tau_but_no_error():
    run = pr.from_arrays("n_parity", pr.cells.LeakyRNN(n_units=1, tau=2.0), {"W": np.ones((1, 1))})
    answer = pr.measure("timescales_single", run).data
    assert answer["tau"].item() == 2
    assert np.isnan(answer["standard_error"].item())
    weights = pr.measure("connectivity", run).data
    assert weights["mean"].item() == 0
    assert np.isnan(weights["standard_error"].item())


def test_statistics_at_every_stage(staged):
    tau, weights = (pr.measure(name, staged).data for name in ("timescales_single", "connectivity"))
    assert tau["stage"].values.tolist() == [0, 1, 2]
    assert tau["n"].values.tolist() == [2, 3, 4]
    for stage in range(3):
        then = staged.at(f"stage_{stage:03d}")
        np.testing.assert_array_equal(tau["mean_by_stage"][stage], pr.measure("timescales_single", then).data["mean"])
        np.testing.assert_array_equal(tau["std_by_stage"][stage], pr.measure("timescales_single", then).data["std"])
        for part in ("mean", "positive", "negative"):
            np.testing.assert_array_equal(
                weights[f"{part}_by_stage"][stage], pr.measure("connectivity", then).data[f"population_{part}"]
            )
    assert len(np.unique(tau["mean_by_stage"])) == 6


def test_a_stage_that_a_member_did_not_reach_is_nan():
    run = pr.from_arrays(
        pr.tasks.NParity(n_max=9),
        pr.cells.LeakyRNN(n_units=4),
        {"tau": TAU},
        training=pr.Training(curriculum=pr.curricula.SlidingWindow(window=4, shift=3)),
    )
    run.snapshots = {
        "stage_000": Snapshot(np.array([True, True]), np.array([1, 1]), run.parameters),
        "stage_004": Snapshot(np.array([False, True]), np.array([-1, 5]), run.parameters),
        "epoch_00010": Snapshot(np.array([True, True]), np.array([10, 10]), run.parameters),
    }
    answer = pr.measure("timescales_single", run).data
    assert answer["stage"].values.tolist() == [0, 4]
    assert answer["n"].values.tolist() == [2, 8]  # four heads, N = 2 … 5, then three more
    assert np.isnan(answer["mean_by_stage"].values).tolist() == [[False, False], [True, False]]


def test_members_with_curricula_of_their_own_have_an_n_of_their_own():
    run = pr.from_arrays(
        pr.tasks.NParity(n_max=9),
        pr.cells.LeakyRNN(n_units=4),
        {"tau": TAU},
        training=pr.Training(curriculum=pr.curricula.None_()),
    )
    run = vary(run, training__curriculum__head=[3, 5])
    run.snapshots = {"stage_000": Snapshot(np.array([True, True]), np.array([1, 1]), run.parameters)}
    assert pr.measure("timescales_single", run).data["n"].values.tolist() == [[5, 7]]


def test_stage_snapshots_come_in_the_order_of_the_curriculum():
    run = pr.from_arrays(
        pr.tasks.NParity(n_max=5),
        pr.cells.LeakyRNN(n_units=4),
        {"tau": TAU},
        training=pr.Training(curriculum=pr.curricula.SingleHead()),
    )
    assert POPULATION.stage_snapshots(run) == []
    kept = Snapshot(np.array([True, False]), np.array([1, -1]), run.parameters)
    # by number, not by name: with a thousand stages "stage_1000" sorts before "stage_999"
    run.snapshots = dict.fromkeys(("stage_1000", "stage_999", "epoch_00010", "stage_002", "stage_000"), kept)
    stages = POPULATION.stage_snapshots(run)
    assert [stage.name for stage in stages] == ["stage_000", "stage_002", "stage_999", "stage_1000"]
    assert [stage.number for stage in stages] == [0, 2, 999, 1000]
    assert [stage.newest.tolist() for stage in stages[:2]] == [[0, 0], [2, 2]]
    assert [stage.n.tolist() for stage in stages[:2]] == [[2, 2], [4, 4]]
    assert stages[1].active.tolist() == [[False, False, True, False]] * 2
    assert stages[0].reached.tolist() == [True, False]


# --- dimensionality ---------------------------------------------------------------------------------------------


def delay_line(rank, n_units=12):
    """A linear network whose activity is the last ``rank`` bits, turned into a random orthonormal basis."""
    basis = np.linalg.qr(RANDOM.normal(size=(n_units, n_units)))[0][:, :rank]
    return {"W": basis @ np.eye(rank, k=-1) @ basis.T, "W_in": basis[:, :1], "bias": np.full(n_units, 0.1)}


@pytest.fixture
def pieces(monkeypatch):
    """The pieces of the one rollout of a test; asked a second time, the analysis is given the same."""
    real, kept = POPULATION.rollout_iter, []

    def once(*args, **options):
        if not kept:
            kept.extend(real(*args, **options))
        yield from kept

    monkeypatch.setattr(POPULATION, "rollout_iter", once)
    return kept


def test_planted_dimensions_are_found(pieces):
    dead = {"W": np.zeros((12, 12)), "W_in": np.zeros((12, 1)), "bias": np.zeros(12)}
    members = [delay_line(3), delay_line(5), dead, dead | {"W": 3 * np.eye(12), "bias": np.ones(12)}]
    run = pr.from_arrays(
        "n_parity",
        pr.cells.VanillaRNN(n_units=12, activation="identity"),
        {name: np.stack([m[name] for m in members]) for name in dead},
    )
    for variance, expected in ((0.7, [3, 4, 0]), (1.0, [3, 5, 0]), (0.01, [1, 1, 0])):  # a count one too low: 2 and 3
        answer = pr.measure("dimensionality", run, variance=variance, bit_probability=0.5).data
        np.testing.assert_array_equal(answer["n_components"], [*expected, np.nan])
    ratio, error = answer["participation_ratio"], answer["participation_ratio_standard_error"]
    assert (np.abs(ratio[:2] - [3, 5]) < 4 * error[:2] + 0.01).all()  # 0.01: few samples lower the ratio a little
    assert (error[:2] < 0.05).all()
    np.testing.assert_allclose(answer["cumulative"][1, :5], np.arange(1, 6) / 5, atol=0.02)
    for member in (2, 3):  # without variance; exploded
        assert np.isnan(answer["cumulative"][member]).all()
        assert np.isnan(ratio[member])
        assert np.isnan(error[member])


def leaky_run(task=None):
    task = task or pr.tasks.NParity(n_max=3)
    return pr.from_arrays(task, pr.cells.LeakyRNN(n_units=6), random_arrays(6, task.n_inputs))


def assert_as_pca(answer, states, variance, n_groups):
    """Against scikit-learn on all activity at once, ``[member, trial, time, unit]``."""
    for member, activity in enumerate(states.astype(np.float64)):
        fitted = PCA().fit(activity.reshape(-1, 6))
        np.testing.assert_allclose(answer["cumulative"][member], np.cumsum(fitted.explained_variance_ratio_), atol=1e-9)
        assert answer["n_components"][member] == PCA(variance).fit(activity.reshape(-1, 6)).n_components_
        ratio = lambda x: x.sum() ** 2 / (x**2).sum()
        np.testing.assert_allclose(answer["participation_ratio"][member], ratio(fitted.explained_variance_))
        groups = np.arange(len(activity)) % n_groups
        without = [ratio(PCA().fit(activity[groups != g].reshape(-1, 6)).explained_variance_) for g in range(n_groups)]
        error = np.sqrt((n_groups - 1) * np.var(without))
        np.testing.assert_allclose(answer["participation_ratio_standard_error"][member], error, rtol=1e-6)


def test_bits_in_pieces_give_what_scikit_learn_gives_for_all_at_once(monkeypatch, pieces):
    run = leaky_run()
    monkeypatch.setattr(DIMENSIONALITY, "PIECE_BYTES", 12 * 2 * 12 * (6 + run.task.n_outputs) * 37)
    for variance in (0.95, 0.5):
        answer = pr.measure("dimensionality", run, variance=variance, n_trials=12, n_steps=150, burn_in=50).data
        states = np.concatenate([piece.states for piece in pieces], axis=2)
        assert_as_pca(answer, states[:, :, 50:], variance, n_groups=10)
    assert [piece.states.shape[2] for piece in pieces] == [37, 37, 37, 37, 37, 15]


def test_trials_of_a_task_count_for_as_long_as_they_are(monkeypatch):
    run, kept = leaky_run(Echo()), keep_first(monkeypatch, DIMENSIONALITY, "rollout")
    for burn_in in (0, 5):
        answer = pr.measure("dimensionality", run, n_trials=8, burn_in=burn_in).data
        assert kept[0].states.shape == (2, 8, 40, 6)
        assert_as_pca(answer, kept[0].states[:, :, burn_in:20], 0.9, n_groups=8)
    with pytest.raises(pr.ConfigurationError, match="less than the 20 steps"):
        pr.measure("dimensionality", run, n_trials=8, burn_in=20)


@pytest.fixture
def asked(monkeypatch):
    """Inputs and options of every rollout that is asked for; the answer is noise."""
    calls = []

    def noise(run, inputs, **options):
        calls.append((inputs, options))
        yield Rollout(RANDOM.normal(size=(run.n_members, *inputs.shape[:2], run.cell.n_units)), inputs, inputs)

    monkeypatch.setattr(POPULATION, "rollout_iter", noise)
    return calls


def test_the_drive_follows_the_options(asked):
    run = leaky_run()
    ask = lambda **options: (pr.measure("dimensionality", run, **options).data, *asked[-1])
    _, bits, options = ask()
    assert bits.shape == (50, 600, 1)
    assert set(np.unique(bits)) == {0, 1}
    assert bits.mean(axis=(1, 2)).std() > 0.2  # U(0, 1) has 0.29
    assert (options["seed"], options["dt"]) == (0, None)
    assert ask(n_steps=20, burn_in=5)[1].shape == (50, 25, 1)
    _, fair, _ = ask(bit_probability=0.5)
    assert np.abs(fair.mean(axis=(1, 2)) - 0.5).max() < 0.1
    _, other, options = ask(seed=3)
    assert (bits != other).any()
    assert options["seed"] == 3
    single, bits, _ = ask(n_trials=1)
    assert bits.shape == (1, 600, 1)
    assert np.isnan(single["participation_ratio_standard_error"]).all()


def test_bits_last_as_long_as_in_the_task(asked):
    task = pr.tasks.NParity(n_max=3, bit_duration=2, dt=(1.0, 0.5))
    run = pr.from_arrays(task, pr.cells.LeakyRNN(n_units=6), {"tau": np.full(6, 2.0)})
    pr.measure("dimensionality", run, n_steps=30, burn_in=2, bit_probability=0.5)
    bits, options = asked[0]
    assert options["dt"] == 0.5
    by_bit = bits.reshape(50, 8, 4)
    assert (by_bit == by_bit[:, :, :1]).all()
    assert 0.4 < (by_bit[:, 1:, 0] != by_bit[:, :-1, 0]).mean() < 0.6


# --- connectivity -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "possible", "signs"),
    [
        (pr.cells.LeakyRNN(n_units=5), 4, None),
        (pr.cells.LeakyRNN(n_units=5, self_connection=True), 5, None),
        (pr.cells.LeakyRNN(n_units=5, excitatory_fraction=0.6), 4, [1, 1, 1, -1, -1]),
        (pr.cells.VanillaRNN(n_units=5), 5, None),
    ],
)
def test_connectivity_against_a_plain_loop(cell, possible, signs):
    arrays = RANDOM.normal(size=(2, 5, 5)).astype(np.float32)
    answer = pr.measure("connectivity", pr.from_arrays("n_parity", cell, {"W": arrays})).data
    for member in range(2):
        W, n_positive = np.zeros((5, 5)), 0
        for i in range(5):
            positive = negative = 0.0
            for j in range(5):
                if i == j and possible == 4:
                    continue
                W[i, j] = arrays[member, i, j] if signs is None else signs[j] * abs(arrays[member, i, j])
                positive, negative = positive + max(W[i, j], 0), negative + min(W[i, j], 0)
                n_positive += W[i, j] > 0
            found = [answer[part][member, i].item() for part in ("positive", "negative", "mean")]
            np.testing.assert_allclose(found, np.array([positive, negative, positive + negative]) / possible, rtol=1e-9)
        np.testing.assert_allclose(answer["positive_fraction"][member], n_positive / (5 * possible))
        np.testing.assert_allclose(answer["spectral_radius"][member], np.abs(np.linalg.eigvals(W)).max())
        mean = answer["mean"][member].values
        np.testing.assert_allclose(answer["population_mean"][member], mean.mean())
        np.testing.assert_allclose(answer["standard_error"][member], mean.std(ddof=1) / np.sqrt(5))


def test_spectral_radius_of_a_turn_and_of_weights_that_are_not_finite():
    turn = 1.25 * np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    broken = np.array([[np.nan, 1], [np.inf, -np.inf]])
    run = pr.from_arrays("n_parity", pr.cells.VanillaRNN(n_units=2), {"W": np.stack([turn, broken, np.zeros((2, 2))])})
    radius = pr.measure("connectivity", run).data["spectral_radius"]
    np.testing.assert_allclose(radius, [1.25, np.nan, 0], rtol=1e-6)


# --- how they are asked -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("analysis", "run", "word"),
    [
        (
            "timescales_single",
            lambda: pr.from_arrays("n_parity", pr.cells.VanillaRNN(n_units=4), {}),
            "no time constants",
        ),
        ("connectivity", lambda: pr.from_arrays("n_parity", Product(), {}), "no square matrix W"),
        ("accuracy_by_n", lambda: leaky_run(Echo()), "no heads that ask for a memory"),
        ("dimensionality", lambda: pr.from_arrays(Echo(), Product(), {}), "not one number for each unit"),
    ],
)
def test_questions_that_make_no_sense(analysis, run, word):
    with pytest.raises(pr.NotApplicableError, match=word):
        pr.measure(analysis, run())


@pytest.mark.parametrize(
    ("analysis", "options", "word"),
    [
        ("accuracy_by_n", {"n_trial": 5}, "did you mean 'n_trials'"),
        ("accuracy_by_n", {"n_trials": 0}, "n_trials = 0: must be greater than 0"),
        ("accuracy_by_n", {"threshold": 1.5}, "less than or equal to 1"),
        ("dimensionality", {"variance": 0.0}, "greater than 0"),
        ("dimensionality", {"bit_probability": "unifrom"}, "bit_probability"),
        ("dimensionality", {"burn_in": -1}, "greater than or equal to 0"),
        ("timescales_single", {"dt": 0.0}, "greater than 0"),
        ("connectivity", {"stage": 1}, "unknown option 'stage'"),
    ],
)
def test_options_that_cannot_be(analysis, options, word):
    with pytest.raises(pr.ConfigurationError, match=word):
        pr.measure(analysis, leaky_run(), **options)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"n_steps": 10}, "n_steps = 10: task 'echo' is not driven by bits"),
        ({"bit_probability": 0.5}, "not driven by bits"),
    ],
)
def test_options_that_do_not_fit_the_task(options, word):
    with pytest.raises(pr.ConfigurationError, match=word):
        pr.measure("dimensionality", leaky_run(Echo()), n_trials=2, **options)


@pytest.mark.parametrize("analysis", ["accuracy_by_n", "timescales_single", "connectivity", "dimensionality"])
def test_members_left_out_and_a_round_trip_to_disk(analysis, staged, asked, tmp_path, monkeypatch):
    score = lambda run, **_: {"accuracy": np.full((run.n_members, 3, 3), 0.7, np.float32)}
    monkeypatch.setattr(BY_N, "evaluate", score)
    run = dataclasses.replace(staged, outcome=["budget_spent", "solved"])
    result = pr.measure(analysis, run)
    assert result.left_out == {0: "budget_spent"}
    assert result.data["member"].values.tolist() == [1]
    again = load_result(result.save(tmp_path))
    xr.testing.assert_identical(again.data, result.data)
    assert (again.options, again.left_out) == (result.options, result.left_out)
    both = pr.measure(analysis, run, members="all").data
    assert both["member"].values.tolist() == [0, 1]
    if analysis != "dimensionality":  # which is given new noise each time
        xr.testing.assert_identical(both.isel(member=[1]), result.data)


def test_no_member_left():
    run = leaky_run()
    run.outcome = ["diverged", "diverged"]
    with pytest.raises(pr.NotApplicableError, match="no member to measure"):
        pr.measure("connectivity", run, members="all")
