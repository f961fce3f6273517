"""Oracles for fixed_points and limit_cycles: scalar roots, planted maps and cycles, SciPy, and a trained flip-flop."""

import dataclasses
import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import xarray as xr

import poprnn as pr
from poprnn.analysis._orbits import period_of
from poprnn.analysis.contract import load_result
from poprnn.core import backend

INPUT = importlib.import_module("poprnn.analysis._constant_input")
RANDOM = np.random.default_rng(0)
FEW = {"n_starts": 64, "n_trials": 8}


class Steps(pr.Task):
    """A level out of three for three steps, then nothing for three."""

    n_inputs, n_outputs, capacity = 2, 2, 6

    def sample(self, setting, arrays, *, key):
        level = jnp.array([-1.0, 0.75, 1.0])[jax.random.randint(key, (), 0, 3)]
        on = (jnp.arange(6) < 3)[:, None]
        periods = {"stimulus": jnp.array([0, 3]), "delay": jnp.array([3, 6]), "absent": jnp.array([2, 2])}
        return pr.Trial(jnp.where(on, level * jnp.ones((6, 2)), 0.0), jnp.zeros((6, 2)), periods=periods)


class FlipFlop(pr.Task):
    """Every channel remembers the sign of its last pulse."""

    n_inputs, n_outputs, capacity = 3, 3, 25

    def sample(self, setting, arrays, *, key):
        present, sign = jax.random.split(key)
        pulse = jax.random.bernoulli(present, 0.3, (25, 3)) * jax.random.rademacher(sign, (25, 3), jnp.float32)
        return pr.Trial(pulse, jax.lax.associative_scan(lambda old, new: jnp.where(new == 0, old, new), pulse))


class Planted(pr.Cell):
    """Maps that are known: two numbers, and what they do in a step."""

    rule: str = "turn"
    start: float = 1.0

    def init(self, n_inputs, n_outputs, *, key):
        return pr.Parameters({"a": jnp.zeros(()), "b": jnp.zeros(())}, {})

    def initial_state(self, prepared, *, key):
        return self.start * jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)

    def step(self, prepared, state, input, *, key, context):
        a, b = prepared["a"], prepared["b"]
        if self.rule == "turn":  # the radius goes to 1, the angle by 2 pi / a a step
            radius = jnp.sqrt(jnp.sum(state**2))
            turned = jnp.array([[jnp.cos(2 * jnp.pi / a), -jnp.sin(2 * jnp.pi / a)], [0, 0]])
            turned = turned.at[1].set(jnp.array([-turned[0, 1], turned[0, 0]]))
            return (1 + b * (1 - radius**2)) * turned @ state
        if self.rule == "ghost":  # nearly a fixed point at 0, which a has just taken away
            return jnp.stack([state[0] + a + state[0] ** 2, 0.5 * state[1]])
        logistic = a * jnp.clip(state[0] ** 2, 0, 1)
        return jnp.stack([jnp.sqrt(logistic * (1 - jnp.clip(state[0] ** 2, 0, 1))), 0.5 * state[1]])

    def readout(self, prepared, state):
        return 3 * state


def planted(rule, a, b=0.0, **options):
    a = np.asarray(a, float)
    return pr.from_arrays(Steps(), Planted(rule=rule, **options), {"a": a, "b": np.broadcast_to(b, a.shape)})


def signs(**arrays):
    """Two tanh units that hold a sign each."""
    arrays = {"W": 2 * np.eye(2), "W_in": np.eye(2), "bias": np.zeros(2), "W_out": np.eye(2), "b_out": [0, 0]} | arrays
    return pr.from_arrays(Steps(), pr.cells.VanillaRNN(n_units=2), {k: np.asarray(v, float) for k, v in arrays.items()})


def ask(run, analysis="fixed_points", **options):
    few = FEW | ({"n_starts": 8} if analysis == "limit_cycles" else {})
    return pr.measure(analysis, run, members="all", **few | options).data


def norms(a):
    return np.linalg.norm(a, axis=-1)


# --- fixed points: closed forms ----------------------------------------------------------------------------------


def test_independent_units_have_products_of_scalar_fixed_points():
    found = ask(signs(), jitter=2.0, n_starts=200)
    corner = scipy.optimize.brentq(lambda h: np.tanh(2 * h) - h, 0.1, 1, xtol=1e-15)
    expected = np.array(list(itertools.product([-corner, 0, corner], repeat=2)))
    assert found.sizes["point"] == 9
    order = lambda states: states[np.lexsort(np.round(states, 6).T)]
    np.testing.assert_allclose(order(found["state"].values[0]), order(expected), atol=1e-14)
    np.testing.assert_array_equal(found["readout"], found["state"].values)
    slope = np.sort(2 * (1 - found["state"].values[0] ** 2), axis=1)[:, ::-1]
    np.testing.assert_allclose(found["eigenvalue_real"][0], slope, rtol=1e-12)
    np.testing.assert_array_equal(found["eigenvalue_imag"], 0)
    np.testing.assert_allclose(found["spectral_radius"][0], slope[:, 0], rtol=1e-12)
    n_zero = (np.abs(found["state"].values[0]) < 1e-9).sum(axis=1)
    assert found["kind"][0].values.tolist() == [["stable", "saddle", "unstable"][n] for n in n_zero]
    assert found["n_growing"][0].values.tolist() == n_zero.tolist()
    assert (int(found["n_fixed"][0]), int(found["n_stable"][0]), int(found["n_slow"][0])) == (9, 4, 9)
    assert int(found["n_reached"].sum()) == 200
    assert (np.diff(found["n_reached"][0]) <= 0).all()
    assert float(found["unresolved"][0]) == 0


def test_under_an_input_that_is_strong_enough_one_sign_is_left():
    run = signs()
    found = ask(run, inputs=[[0.0, 0.0], [1.0, 0.0], [1.0, -1.0]], jitter=2.0, n_starts=200)
    assert found["n_stable"].values.tolist() == [[4, 2, 1]]
    assert found["n_fixed"].values.tolist() == [[9, 3, 1]]
    assert found["held_input"].values.tolist() == [[0, 0], [1, 0], [1, -1]]
    assert found["state"].dims == ("member", "condition", "point", "unit")
    assert np.isnan(found["state"][0, 2, 1:]).all()
    assert (found["kind"][0, 2, 1:] == "").all()
    assert not found["n_reached"][0, 2, 1:].any()
    alone = ask(run, inputs=[1.0, -1.0], jitter=2.0, n_starts=200)
    assert alone["state"].dims == ("member", "point", "unit")
    np.testing.assert_array_equal(alone["state"][0, 0], found["state"][0, 2, 0])


def test_a_contracting_network_has_one_found_from_every_start():
    W = RANDOM.normal(size=(3, 16, 16))
    W *= 0.95 / np.linalg.norm(W, 2, axis=(1, 2))[:, None, None]
    bias, W_in = RANDOM.normal(size=(3, 16)), RANDOM.normal(size=(3, 16, 2))
    run = pr.from_arrays(Steps(), pr.cells.VanillaRNN(n_units=16), {"W": W, "bias": bias, "W_in": W_in})
    found = ask(run, inputs=[[0.0, 0.0], [2.0, -1.0]], n_starts=100, jitter=3.0)
    assert (found["n_fixed"] == 1).all() and (found["n_stable"] == 1).all() and (found["n_reached"] == 100).all()
    arrays = {k: v.astype(np.float64) for k, v in run.parameters.trainable.items()}
    for c, x in enumerate(found["held_input"].values):
        h = np.zeros((3, 16))
        for _ in range(2000):  # Banach's iteration
            h = np.tanh(np.einsum("kij,kj->ki", arrays["W"], h) + arrays["W_in"] @ x + arrays["bias"])
        np.testing.assert_allclose(found["state"][:, c, 0], h, atol=1e-13)
    assert found["residual"].max() < 1e-13


@pytest.mark.parametrize(
    "cell",
    [
        pr.cells.LeakyRNN(n_units=6, activation="tanh", recurrent_gain=0.3),
        pr.cells.LeakyRNN(n_units=6, activation="tanh", self_interaction="outside", recurrent_gain=0.3, noise=0.3),
        pr.cells.LeakyRNN(n_units=6, activation="relu", recurrent_gain=0.3, noise=0.5, noise_tau=4.0),
        pytest.param(pr.cells.GRU(n_units=6, recurrent_gain=0.3, noise=0.1), marks=pytest.mark.slow),
        pr.cells.LSTM(n_units=6, recurrent_gain=0.3, noise=0.1),
    ],
    ids=["inside", "outside", "noise with a memory", "gru", "lstm"],
)
def test_any_cell_ends_where_a_long_run_without_noise_ends(cell):
    run = pr.from_arrays(Steps(), cell, {"b_out": RANDOM.normal(size=(2, 2))})
    found = ask(run, inputs=[0.7, -0.3], n_starts=20)
    assert (found["n_fixed"] == 1).all() and (found["n_reached"] == 20).all() and (found["kind"] == "stable").all()
    ran = pr.rollout(run, np.full((1, 400, 2), [0.7, -0.3]), noise=0.0)
    np.testing.assert_allclose(found["readout"][:, 0], ran.outputs[:, 0, -1], atol=2e-6)
    lstm = isinstance(cell, pr.cells.LSTM)
    np.testing.assert_allclose(found["activity" if lstm else "state"][:, 0], ran.states[:, 0, -1], atol=2e-6)
    assert found["state"].sizes == {"member": 2, "point": 1, "dimension" if lstm else "unit": 12 if lstm else 6}
    # the last differences of the run shrink by the spectral radius
    if not lstm:
        return
    with backend.precision(64):
        wide = jax.tree.map(lambda a: jnp.asarray(a[0], jnp.float64), run.parameters)
        still = INPUT.still(cell, wide, jnp.array([0.7, -0.3]), None)
        h, unit = jnp.asarray(found["state"].values[0, 0]), 1e-5 * jnp.eye(12)
        jacobian = np.stack([(still.step(h + e) - still.step(h - e)) / 2e-5 for e in unit], axis=1)
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(jacobian)).max(), found["spectral_radius"][0, 0], rtol=1e-6)


# --- slow points ---------------------------------------------------------------------------------------------------


def test_the_ghost_of_a_fixed_point_is_a_slow_point():
    run = planted("ghost", [1e-3, 1e-2, 1e-1], start=0.2)
    minima = ask(run, gradient_tolerance=1e-9)  # r = a + h², q = r²/2: its minimum is at 0 and a²/2
    assert minima["n_fixed"].values.tolist() == [0, 0, 0]
    assert minima["n_slow"].values.tolist() == [1, 1, 0]  # the third is too fast
    assert minima["unresolved"].values.tolist() == [0, 0, 1]
    np.testing.assert_allclose(minima["slow_q"][:2, 0], [5e-7, 5e-5], rtol=1e-6)
    assert norms(minima["slow_state"][:2, 0]).max() < 1e-6
    np.testing.assert_allclose(minima["slow_spectral_radius"][:2, 0], 1, atol=1e-6)
    assert minima["slow_n_marginal"][:2, 0].values.tolist() == [1, 1]
    assert ask(run, slow=1e-5, gradient_tolerance=1e-9)["n_slow"].values.tolist() == [1, 0, 0]
    assert ask(run, slow=1e-2, gradient_tolerance=1e-9)["n_slow"].values.tolist() == [1, 1, 1]
    # |dq/dh| = 2 (a + h²) h is below the tolerance on a stretch around the minimum, and points are kept all along it
    found = ask(run, gradient_tolerance=1e-5)
    assert found["unresolved"].values.tolist() == [0, 0, 1]
    h = found["slow_state"].values[0, : int(found["n_slow"][0]), 0]
    assert len(h) > 5 and 1e-3 < np.abs(h).max() < 5.1e-3


def test_a_line_and_a_plane_of_fixed_points_are_not_joined_into_one():
    eigenvalues = np.array([[1, 0.5, 0.2, 0, 0], [1, 1, 0.5, 0, 0]])
    basis = np.linalg.qr(RANDOM.normal(size=(5, 5)))[0]
    W = (basis * eigenvalues[:, None]) @ basis.T
    run = pr.from_arrays(
        Steps(), pr.cells.VanillaRNN(n_units=5, activation="identity"), {"W": W, "bias": np.zeros((2, 5))}
    )
    found = ask(run, jitter=1.0)
    assert (found["n_slow"] > 40).all()
    share = found["slow_variance"].values
    assert share[0, 0] > 1 - 1e-6 and share[1, 0] < 0.99 and share[1, :2].sum() > 1 - 1e-6
    for member, n in enumerate((1, 2)):
        assert (found["slow_n_marginal"][member, : int(found["n_slow"][member])] == n).all()
        states = found["slow_state"].values[member, : int(found["n_slow"][member])]
        apart = norms(states[:, None] - states)
        assert apart[~np.eye(len(apart), dtype=bool)].min() > 1e-3 * float(found["spread"][member])


# --- a trained network ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flip_flop():
    return pr.fit(
        FlipFlop(), pr.cells.VanillaRNN(n_units=64), members=2, epochs=12, steps_per_epoch=100, batch=64,
        evaluation_batches=1, monitors=[], optimizer={"kind": "adam", "learning_rate": 0.003},
    )  # fmt: skip


def test_a_flip_flop_has_a_stable_point_at_every_corner_and_scipy_finds_the_same(flip_flop):
    assert np.nanmin(flip_flop.history["loss"], axis=0).max() < 0.02
    found = ask(flip_flop, n_starts=1024, n_trials=64)  # with 256, saddles are missed
    assert found["n_stable"].values.tolist() == [8, 8]  # of members trained to the end
    seen = INPUT.visited(flip_flop, 1024, 64, None, 0, "test").states
    for member in range(2):
        W, bias = (flip_flop.parameters.trainable[k][member].astype(np.float64) for k in ("W", "bias"))
        residual = lambda h, W=W, bias=bias: np.tanh(W @ h + bias) - h
        jacobian = lambda h, W=W, bias=bias: (1 - np.tanh(W @ h + bias) ** 2)[:, None] * W - np.eye(64)
        mine = found.isel(member=member)
        states = mine["state"].values[: int(mine["n_fixed"])]
        assert max(norms(residual(h)) for h in states) < 1e-12
        corners = mine["readout"].values[mine["kind"].values == "stable"]
        assert len(np.unique(np.sign(corners), axis=0)) == 8
        assert np.abs(np.abs(corners) - 1).max() < 0.3
        theirs = [scipy.optimize.root(residual, h, jac=jacobian, tol=1e-13) for h in seen[member][:64].astype(float)]
        theirs = np.stack([one.x for one in theirs if norms(residual(one.x)) < 1e-10])
        assert len(theirs) > 50
        assert norms(theirs[:, None] - states).min(axis=1).max() < 1e-8
        stable = states[mine["kind"].values[: len(states)] == "stable"]
        assert norms(theirs[:, None] - stable).min(axis=0).max() < 1e-8
        radius = [np.abs(np.linalg.eigvals(jacobian(h) + np.eye(64))).max() for h in states]
        np.testing.assert_allclose(mine["spectral_radius"][: len(states)], radius, rtol=1e-8)
    assert (found["slow_variance"][:, :3].sum("component") > 0.9).all()


# --- how they are asked --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_option_of_fixed_points_changes_something():
    run = signs()
    base = ask(run)
    assert int(base["n_reached"].sum()) == 64 and int(ask(run, n_starts=7)["n_reached"].sum()) == 7
    assert ask(run, n_trials=1)["spread"] != base["spread"]
    assert ask(run, seed=1)["spread"] != base["spread"]
    assert ask(run, jitter=2.0)["n_fixed"] > base["n_fixed"]  # else both units always agree
    assert ask(run, unique=100.0)["n_fixed"] == 1
    assert ask(run, marginal=5.0)["n_marginal"].max() == 2 and base["n_marginal"].max() == 0
    assert ask(run, n_iterations=1)["unresolved"] > base["unresolved"]
    assert ask(run, period="delay")["spread"] != base["spread"]
    assert (ask(run, inputs=[0.1, 0.0])["state"][:, 0] != base["state"][:, 0]).any()
    leaky = pr.from_arrays(
        Steps(),
        pr.cells.LeakyRNN(n_units=2, self_interaction="outside"),
        {"tau": np.full((1, 2), 4.0), "W": np.zeros((1, 2, 2))},
    )
    for options, alpha in (({}, 0.25), ({"dt": 2.0}, 0.5)):
        np.testing.assert_allclose(ask(leaky, **options)["eigenvalue_real"], 1 - alpha, rtol=1e-6)


def test_inputs_that_the_trials_give():
    run = signs()
    level = ask(run, inputs="distinct", period="stimulus")
    assert level["held_input"].values.tolist() == [[-1, -1], [0.75, 0.75], [1, 1]]
    assert level["n_stable"].values.tolist() == [[1, 1, 1]]
    assert ask(run, inputs="distinct")["held_input"].values.tolist() == [[-1, -1], [0, 0], [0.75, 0.75], [1, 1]]
    assert ask(run, inputs="distinct", period="delay")["held_input"].values.tolist() == [[0, 0]]
    seen = INPUT.visited(run, 64, 8, "stimulus", 0, "test")
    np.testing.assert_allclose(ask(run, inputs="mean", period="stimulus")["held_input"], seen.inputs.mean(axis=(0, 1)))
    assert set(np.unique(seen.inputs)) == {-1, 0.75, 1}
    # 24 steps of the period make the first 24 starts, all different trials and steps, and then come again
    np.testing.assert_array_equal(seen.states[:, :24], seen.states[:, 24:48])
    assert (np.abs(seen.states[0, :24]) > 0).all()


class Noise(Steps):
    """Inputs that never recur."""

    def sample(self, setting, arrays, *, key):
        return pr.Trial(jax.random.normal(key, (6, 2)), jnp.zeros((6, 2)))


@pytest.mark.parametrize("analysis", ["fixed_points", "limit_cycles"])
def test_what_cannot_be_asked(analysis):
    run = signs()
    noise = pr.from_arrays(Noise(), run.cell, {})
    for options, error, word in (
        ({"inputs": [1.0]}, pr.ConfigurationError, "one number for each of the 2 input channels"),
        ({"inputs": [[1.0, 2.0], [1.0]]}, pr.ConfigurationError, "one number for each of the 2"),
        ({"inputs": "zeros"}, pr.ConfigurationError, "inputs"),
        ({"inputs": []}, pr.ConfigurationError, "inputs"),
        ({"period": "delays"}, pr.NotApplicableError, "did you mean 'delay'"),
        ({"period": "absent"}, pr.NotApplicableError, "no step of these 8 trials is in period 'absent'"),
        ({"n_starts": 0}, pr.ConfigurationError, "greater than 0"),
    ):
        with pytest.raises(error, match=word):
            ask(run, analysis, **options)
    with pytest.raises(pr.ConfigurationError, match="different inputs, more than 64"):
        ask(noise, analysis, inputs="distinct", n_trials=100, n_starts=100)


@pytest.mark.parametrize("analysis", ["fixed_points", "limit_cycles"])
def test_a_member_is_measured_alike_alone_and_a_broken_one_harms_nobody(analysis, tmp_path):
    W = np.stack([2 * np.eye(2), np.full((2, 2), np.nan), [[0.5, 1], [0, 1.5]]])
    run = signs(
        W=W, W_in=np.stack([np.eye(2)] * 3), bias=np.zeros((3, 2)), W_out=np.zeros((3, 2, 2)), b_out=np.zeros((3, 2))
    )
    small = {"burn_in": 50, "n_steps": 50} if analysis == "limit_cycles" else {}
    result = pr.measure(analysis, run, **FEW | small)
    alone = pr.measure(analysis, run, members=[2], **FEW | small)
    points = {d: slice(alone.data.sizes[d]) for d in ("point", "slow_point") if d in alone.data.dims}
    xr.testing.assert_allclose(result.data.isel(member=[2], **points), alone.data, rtol=1e-9, atol=1e-12)
    if analysis == "fixed_points":
        assert result.data["n_fixed"][1] == 0 and result.data["unresolved"][1] == 1
    else:
        assert (result.data["kind"][1] == "diverged").all()
    again = load_result(result.save(tmp_path))
    xr.testing.assert_identical(again.data, result.data)
    assert again.options == result.options


def test_members_are_taken_with_their_own_hyperparameters():
    cell = pr.cells.LeakyRNN(n_units=2, self_interaction="outside")
    run = pr.from_arrays(Steps(), cell, {"tau": np.full((2, 2), 4.0), "W": np.zeros((2, 2, 2))})
    population = pr.Population(members=2, vary={"cell.dt": [1.0, 2.0]})
    run = dataclasses.replace(run, setup=dataclasses.replace(run.setup, population=population))
    np.testing.assert_allclose(ask(run)["spectral_radius"][:, 0], [0.75, 0.5], rtol=1e-6)
    exponent = ask(run, "limit_cycles", burn_in=50, n_steps=20)["exponent"]
    np.testing.assert_allclose(exponent[:, 0], np.log([[0.75] * 2, [0.5] * 2]), rtol=1e-5)


# --- limit cycles --------------------------------------------------------------------------------------------------


def test_planted_cycles_of_any_period():
    periods = np.array([2.9, 100 / 30, 7.3, 20.0, 61.7, 100.0, 400.0])
    found = ask(planted("turn", periods, 0.05), "limit_cycles")
    assert (found["kind"] == "cycle").all() and (found["cycling"] == 1).all()
    np.testing.assert_allclose(found["period"], np.repeat(periods[:, None], 8, 1), rtol=1e-3)
    np.testing.assert_allclose(found["size"][:6], 1, atol=0.02)  # of 400, two and a half turns are seen
    np.testing.assert_allclose(found["amplitude"][2:, ..., 0], 3, rtol=2e-2)
    along, across = (found["multiplier"].isel(direction=i) for i in (0, 1))
    np.testing.assert_allclose(along, 1, atol=1e-9)  # a turn keeps lengths; radially 1 + b (1 - 3 r²) = 1 - 2 b
    np.testing.assert_allclose(across, np.repeat(0.9 ** periods[:, None], 8, 1), rtol=0.02)
    np.testing.assert_allclose(norms(found["mean_state"])[3], 0, atol=1e-9)


def test_periods_of_orbits_with_harmonics_and_of_none():
    time = np.arange(1000)
    for period in (11.37, 40.0, 83.2):
        angle = 2 * np.pi * time / period
        orbit = np.stack([np.cos(angle) + 0.8 * np.cos(2 * angle), np.sin(2 * angle) + 0.5 * np.cos(3 * angle)], axis=1)
        with backend.precision(64):
            returns, measured, distance = period_of(jnp.asarray(orbit), 0.1)
        assert bool(returns) and float(distance) < 0.1
        np.testing.assert_allclose(measured, period, rtol=1e-3)
    with backend.precision(64):
        torus = np.stack([np.cos(time / 7), np.sin(time * np.sqrt(3) / 7), np.cos(time * np.e / 7)], axis=1)
        for irregular in (RANDOM.normal(size=(1000, 2)), torus):
            assert not period_of(jnp.asarray(irregular), 0.1)[0]
        assert period_of(jnp.asarray(torus), 1.2)[0]


def test_flips_doubled_periods_and_chaos_of_the_logistic_map():
    found = ask(planted("logistic", [2.5, 3.2, 3.5, 4.0]), "limit_cycles", n_directions=1)
    assert found["kind"].values.tolist() == [["fixed_point"] * 8, ["cycle"] * 8, ["cycle"] * 8, ["irregular"] * 8]
    np.testing.assert_allclose(found["period"][1:3], [[2] * 8, [4] * 8], rtol=1e-12)
    # h = x², and a change of variable changes neither multipliers nor exponents: 2 - a; 4 + 2a - a²; log 2 at a = 4
    np.testing.assert_allclose(found["exponent"][0, :, 0], np.log(0.5), rtol=1e-6)
    np.testing.assert_allclose(found["multiplier"][1, :, 0], np.abs(4 + 2 * 3.2 - 3.2**2), rtol=1e-5)
    np.testing.assert_allclose(found["exponent"][3, :, 0], np.log(2), atol=0.03)
    assert np.isnan(found["multiplier"][3]).all() and np.isnan(found["period"][[0, 3]]).all()


@pytest.mark.slow
def test_every_option_of_limit_cycles_changes_something():
    run = planted("turn", [20.0], 0.05)
    at = lambda run=run, **options: ask(run, "limit_cycles", **{"burn_in": 300, "n_steps": 100} | options)
    base = at()
    assert base["kind"].shape == (1, 8)
    assert at(n_starts=3)["kind"].shape == (1, 3)
    assert at(n_trials=1)["spread"] != base["spread"]
    assert at(seed=1)["spread"] != base["spread"]
    assert at(period="delay")["spread"] != base["spread"]
    assert abs(at(burn_in=0)["size"] - 1).max() > 2 * abs(base["size"] - 1).max()
    assert (base["kind"] == "cycle").all() and (at(standing=10.0)["kind"] == "fixed_point").all()
    drifting = planted("turn", [20.0], 0.002)  # by some hundredths a turn
    assert (at(drifting, burn_in=0)["kind"] == "cycle").all()
    assert (at(drifting, burn_in=0, tolerance=1e-3)["kind"] == "irregular").any()
    few = at(n_steps=38)  # less than two periods
    assert (few["kind"] == "irregular").all() and few["period"].isnull().all()
    held = at(signs(), inputs=[2.0, 2.0])
    assert (held["mean_state"] > 0.5).all() and (held["kind"] == "fixed_point").all()
    free = at(signs())["mean_state"].values
    assert np.abs(free - at(signs(), jitter=10.0)["mean_state"].values).max() > 0.5
    leaky = pr.from_arrays(
        Steps(),
        pr.cells.LeakyRNN(n_units=2, self_interaction="outside"),
        {"tau": np.full((1, 2), 4.0), "W": np.zeros((1, 2, 2))},
    )
    for options, alpha in (({}, 0.25), ({"dt": 2.0}, 0.5)):
        exponent = at(leaky, n_directions=1, **options)["exponent"]
        assert exponent.shape == (1, 8, 1)
        np.testing.assert_allclose(exponent, np.log(1 - alpha), rtol=1e-5)
    for options, word in (({"n_steps": 10}, "at least 16"), ({"n_directions": 3}, "at most the 2 of the state")):
        with pytest.raises(pr.ConfigurationError, match=word):
            at(**options)
