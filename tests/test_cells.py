"""Cells against plain NumPy, against PyTorch, and every option against the claim that it does something."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from scipy import special

import poprnn as pr
from conftest import TINY
from poprnn.core import backend

Context, Parameters = pr.Context, pr.Parameters
TORCH = safetensors.numpy.load_file(Path(__file__).parent / "fixtures" / "torch_rnn.safetensors")
ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.3 * x),
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(x, 0),
    "sigmoid": special.expit,
    "identity": lambda x: x,
}
N, N_IN, N_OUT, N_STEPS = 5, 2, 3, 4


def some_arrays(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"W": (N, N), "W_in": (N, N_IN), "bias": (N,), "W_out": (N_OUT, N), "b_out": (N_OUT,)}
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return arrays | {"tau": np.array([0.2, 0.7, 1.0, 2.5, 6.0])}, rng.normal(size=N), rng.normal(size=(N_STEPS, N_IN))


def parameters_of(arrays, fixed_tau=False):
    arrays = {k: jnp.asarray(v) for k, v in arrays.items()}
    if fixed_tau:
        return Parameters({k: v for k, v in arrays.items() if k != "tau"}, {"tau": arrays["tau"]})
    return Parameters(arrays, {})


def run_cell(cell, parameters, state, inputs, dt=None, *, seed=0):
    """States and outputs by the cell's own step, one after another."""
    context = Context(dt=dt)
    prepared = cell.prepare(parameters, context)
    states, outputs = [], []
    for t, x in enumerate(inputs):
        state = cell.step(prepared, state, jnp.asarray(x), key=jax.random.key(seed + t), context=context)
        states.append(np.asarray(cell.activity(state)))
        outputs.append(np.asarray(cell.readout(prepared, state)))
    return np.array(states), np.array(outputs)


def leaky_reference(arrays, h, inputs, f, kind, dt):
    """The equations in NumPy, unit by unit."""
    states = []
    for x in inputs:
        new = np.empty(N)
        for i in range(N):
            total = arrays["bias"][i] + sum(arrays["W_in"][i, k] * x[k] for k in range(N_IN))
            total += sum(arrays["W"][i, j] * h[j] for j in range(N) if j != i)
            alpha = dt / max(arrays["tau"][i], dt)
            new[i] = (
                f((1 - alpha) * h[i] + alpha * total) if kind == "inside" else ((1 - alpha) * h[i] + alpha * f(total))
            )
        h = new
        states.append(h)
    return np.array(states), np.array(states) @ arrays["W_out"].T + arrays["b_out"]


# --- the leaky RNN --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["inside", "outside"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_leaky_step_is_the_equation(name, kind):
    arrays, h, inputs = some_arrays()
    with backend.precision(64):
        for dt_cell, dt_batch in [(1.0, None), (0.5, None), (1.0, 0.25)]:
            for fixed_tau in (False, True):
                cell = pr.cells.LeakyRNN(
                    n_units=N, activation=name, negative_slope=0.3, self_interaction=kind, dt=dt_cell
                )
                found = run_cell(cell, parameters_of(arrays, fixed_tau), jnp.asarray(h), inputs, dt_batch)
                wanted = leaky_reference(arrays, h, inputs, ACTIVATIONS[name], kind, dt_batch or dt_cell)
                np.testing.assert_allclose(found[0], wanted[0], rtol=1e-11, atol=1e-12)
                np.testing.assert_allclose(found[1], wanted[1], rtol=1e-11, atol=1e-12)
                other = leaky_reference(arrays, h, inputs, ACTIVATIONS[name], kind, 0.9)
                assert np.abs(found[0] - other[0]).max() > 1e-3, "another dt would not be noticed"


def test_inside_and_outside_differ_unless_f_is_linear():
    arrays, h, inputs = some_arrays()
    a, b = (leaky_reference(arrays, h, inputs, np.tanh, kind, 0.5)[0] for kind in ("inside", "outside"))
    assert np.abs(a - b).max() > 0.01
    a, b = (leaky_reference(arrays, h, inputs, lambda x: x, kind, 0.5)[0] for kind in ("inside", "outside"))
    np.testing.assert_allclose(a, b)


def final_output(cell, parameters, seed=0):
    """A number that depends on everything, for gradients."""
    _, h, inputs = some_arrays()
    context = Context()

    def value(trainable):
        prepared = cell.prepare(Parameters(trainable, parameters.fixed), context)
        state = jnp.asarray(h, jnp.float32)
        for t, x in enumerate(inputs):
            key = jax.random.key(seed + t)
            state = cell.step(prepared, state, jnp.asarray(x, jnp.float32), key=key, context=context)
        return jnp.sum(cell.readout(prepared, state) * jnp.arange(1.0, N_OUT + 1))

    return jax.jit(jax.value_and_grad(value))(parameters.trainable)


def test_no_self_connection_has_no_effect_and_no_gradient():
    arrays, _, _ = some_arrays()
    changed = arrays | {"W": arrays["W"] + 5 * np.eye(N)}
    one, gradient = final_output(pr.cells.LeakyRNN(n_units=N), parameters_of(arrays))
    two, _ = final_output(pr.cells.LeakyRNN(n_units=N), parameters_of(changed))
    assert float(one) == float(two)
    assert (np.diag(gradient["W"]) == 0).all()
    assert (np.asarray(gradient["W"])[~np.eye(N, dtype=bool)] != 0).all()
    cell = pr.cells.LeakyRNN(n_units=N, self_connection=True)
    assert float(final_output(cell, parameters_of(arrays))[0]) != float(final_output(cell, parameters_of(changed))[0])
    assert (np.diag(final_output(cell, parameters_of(arrays))[1]["W"]) != 0).all()


@pytest.mark.parametrize(("options", "below"), [({}, [0, 1]), ({"dt": 0.5}, [0]), ({"tau_min": 2.0}, [0, 1, 2])])
def test_tau_is_clamped_from_below(options, below):
    arrays, _, _ = some_arrays()
    arrays["tau"][2] = 1.01
    cell = pr.cells.LeakyRNN(n_units=N, activation="tanh", **options)
    lowest = options.get("tau_min", options.get("dt", 1.0))
    value, gradient = final_output(cell, parameters_of(arrays))
    clamped = arrays | {"tau": np.maximum(arrays["tau"], lowest)}
    assert float(value) == float(final_output(cell, parameters_of(clamped))[0])
    is_zero = np.asarray(gradient["tau"]) == 0
    assert np.flatnonzero(is_zero).tolist() == below
    prepared = cell.prepare(parameters_of(arrays), Context())
    np.testing.assert_allclose(prepared["alpha"], options.get("dt", 1.0) / np.maximum(arrays["tau"], lowest), rtol=1e-6)


def test_tau_is_clamped_at_the_batch_dt():
    arrays, _, _ = some_arrays()
    prepared = pr.cells.LeakyRNN(n_units=N).prepare(parameters_of(arrays), Context(dt=0.25))
    np.testing.assert_allclose(prepared["alpha"], 0.25 / np.maximum(arrays["tau"], 0.25), rtol=1e-6)


def test_starting_distributions():
    cell = pr.cells.LeakyRNN(n_units=200)
    p = cell.init(4, 6, key=jax.random.key(0))
    assert set(p.trainable) == {"W", "W_in", "bias", "W_out", "b_out", "tau"}
    assert p.fixed == {}
    bounds = {
        "W": (-1, 1, 200**-0.5),
        "W_out": (-1, 1, 200**-0.5),
        "b_out": (-1, 1, 200**-0.5),
        "W_in": (-1, 1, 1),
        "bias": (-1, 1, 1),
        "tau": (1, 2, 1),
    }
    for name, (low, high, scale) in bounds.items():
        a = np.asarray(p.trainable[name]) / scale
        assert low <= a.min() <= a.max() <= high, name
        if a.size > 100:
            assert abs(a.mean() - (low + high) / 2) < 0.12 * (high - low)
            assert abs(a.std() / ((high - low) / 12**0.5) - 1) < 0.12
    h = np.asarray(cell.initial_state(None, key=jax.random.key(1)))
    assert h.min() >= 0
    assert 0.08 < h.max() <= 0.1
    normal = pr.cells.LeakyRNN(n_units=200, recurrent_init="normal", recurrent_gain=1.5)
    W = np.asarray(normal.init(1, 1, key=jax.random.key(0)).trainable["W"])
    assert abs(W.std() * 200**0.5 / 1.5 - 1) < 0.02
    fixed = pr.cells.LeakyRNN(n_units=7, tau=3.0).init(1, 1, key=jax.random.key(0))
    assert "tau" not in fixed.trainable
    assert fixed.fixed["tau"].tolist() == [3.0] * 7


def test_dale_starts_balanced():
    cell = pr.cells.LeakyRNN(n_units=400, excitatory_fraction=0.8)
    W = np.asarray(cell.prepare(cell.init(1, 1, key=jax.random.key(0)), Context())["W"])
    assert (W[:, :320] >= 0).all()
    assert (W[:, 320:] <= 0).all()
    excitation, inhibition = W.clip(min=0).sum(axis=1), -W.clip(max=0).sum(axis=1)
    assert abs(excitation.mean() / inhibition.mean() - 1) < 0.02
    assert abs(excitation.mean() / (inhibition.mean() / 4) - 1) > 1, "without the scaling it would be four to one"
    for fraction in (0.0, 1.0):  # no unit of one kind
        signs = np.sign(cell.substitute({"excitatory_fraction": fraction}).signs())
        assert (signs == (1 if fraction else -1)).all()


@pytest.fixture(scope="session")
def constrained():
    """Large steps on a cell with signs, groups and noise."""
    cell = pr.cells.LeakyRNN(n_units=8, excitatory_fraction=0.75, input_units=(0, 3), output_units=(5, 8), noise=0.1)
    return pr.fit(pr.tasks.NParity(n_max=3), cell, optimizer=pr.optimizers.Sgd(learning_rate=0.5), **TINY)


def test_dale_holds_after_training(constrained):
    W0, W = constrained.initial.trainable["W"][0], constrained.parameters.trainable["W"][0]
    prepared = constrained.cell.prepare(
        Parameters({k: jnp.asarray(v[0]) for k, v in constrained.parameters.trainable.items()}, {}), Context()
    )["W"]
    assert (np.asarray(prepared)[:, :6] >= 0).all()
    assert (np.asarray(prepared)[:, 6:] <= 0).all()
    assert (W != W0).any(), "nothing was trained"
    np.testing.assert_array_equal(np.diag(W), np.diag(W0))


def test_dale_holds_whatever_training_does_to_the_weights():
    arrays, _, _ = some_arrays()
    assert (arrays["W"] < 0).any()
    assert (arrays["W"] > 0).any()
    W = pr.cells.LeakyRNN(n_units=N, excitatory_fraction=0.6).prepare(parameters_of(arrays), Context())["W"]
    off = ~np.eye(N, dtype=bool)
    np.testing.assert_allclose(W, np.abs(arrays["W"]) * off * np.array([1, 1, 1, -1, -1]), rtol=1e-6)


def test_units_outside_their_group_are_not_trained(constrained):
    start, end = ({k: v[0] for k, v in p.trainable.items()} for p in (constrained.initial, constrained.parameters))
    np.testing.assert_array_equal(start["W_in"][3:], end["W_in"][3:])
    np.testing.assert_array_equal(start["W_out"][:, :5], end["W_out"][:, :5])
    assert (start["W_in"][:3] != end["W_in"][:3]).any()
    assert (start["W_out"][:, 5:] != end["W_out"][:, 5:]).any()


def test_groups_of_units():
    arrays, _, inputs = some_arrays()
    cell = pr.cells.LeakyRNN(n_units=N, input_units=(1, 3), output_units=(2, 4), noise=0.0)
    _, gradient = final_output(cell, parameters_of(arrays))
    assert (np.asarray(gradient["W_in"])[[0, 3, 4]] == 0).all()
    assert (np.asarray(gradient["W_in"])[1:3] != 0).all()
    assert (np.asarray(gradient["W_out"])[:, [0, 1, 4]] == 0).all()
    assert (np.asarray(gradient["W_out"])[:, 2:4] != 0).all()
    prepared = cell.prepare(parameters_of(arrays), Context())
    drive = cell.input_drive(prepared, jnp.asarray(inputs[0]), key=jax.random.key(0), context=Context())
    without_input = (prepared["alpha"] * arrays["bias"])[jnp.array([0, 3, 4])]
    np.testing.assert_allclose(np.asarray(drive)[[0, 3, 4]], without_input, rtol=1e-6)
    for bad in ((3, 3), (4, 2), (0, 6), (1, 2, 3), (2,)):
        with pytest.raises(pr.ConfigurationError, match="input_units"):
            pr.cells.LeakyRNN(n_units=N, input_units=bad)


@pytest.mark.parametrize("make", [pr.cells.LeakyRNN, pr.cells.VanillaRNN])
def test_noise_has_its_standard_deviation(make):
    arrays, h, inputs = some_arrays()
    arrays = {k: v for k, v in arrays.items() if k != "tau" or make is pr.cells.LeakyRNN}
    parameters = parameters_of(arrays)

    def drives(noise):
        cell = make(n_units=N, noise=noise)
        prepared = cell.prepare(parameters, Context())
        return np.asarray(
            jax.vmap(
                lambda key: cell.input_drive(prepared, jnp.asarray(inputs[0], jnp.float32), key=key, context=Context())
            )(jax.random.split(jax.random.key(0), 8000)),
            np.float64,
        )

    quiet, loud = drives(0.0), drives(0.7)
    assert (quiet == quiet[0]).all()
    # the noise of a leaky unit stands inside the bracket that alpha multiplies
    scale = 0.7 / np.maximum(arrays["tau"], 1.0) if make is pr.cells.LeakyRNN else np.full(N, 0.7)
    np.testing.assert_allclose(loud.std(axis=0), scale, rtol=0.04)
    np.testing.assert_allclose(loud.mean(axis=0), quiet[0], atol=4 * 0.7 / 8000**0.5)
    assert np.abs(np.corrcoef(loud.T) - np.eye(N)).max() < 0.05, "each unit has noise of its own"
    state = jnp.asarray(h, jnp.float32)
    one, two = (run_cell(make(n_units=N), parameters, state, inputs[:2], seed=s)[0] for s in (0, 99))
    np.testing.assert_array_equal(one, two)


# --- no silent arguments --------------------------------------------------------------------------------------------

LEAKY = {
    "n_units": ({}, {"n_units": 6}),
    "activation": ({}, {"activation": "tanh"}),
    "negative_slope": ({}, {"negative_slope": 0.5}),
    "self_interaction": ({}, {"self_interaction": "outside"}),
    "self_connection": ({}, {"self_connection": True}),
    "dt": ({}, {"dt": 0.5}),
    "tau": ({}, {"tau": 1.7}),
    "tau_start": ({}, {"tau_start": (3.0, 4.0)}),
    "tau_min": ({}, {"tau_min": 1.9}),
    "noise": ({}, {"noise": 0.5}),
    "noise_tau": ({"noise": 0.5}, {"noise_tau": 5.0}),
    "output_activation": ({}, {"output_activation": "sigmoid"}),
    "output_bias": ({}, {"output_bias": False}),
    "input_init": ({}, {"input_init": "normal"}),
    "readout_init": ({}, {"readout_init": "normal"}),
    "input_units": ({}, {"input_units": (0, 2)}),
    "output_units": ({}, {"output_units": (0, 2)}),
    "excitatory_fraction": ({}, {"excitatory_fraction": 0.6}),
    "recurrent_init": ({}, {"recurrent_init": "normal"}),
    "recurrent_gain": ({}, {"recurrent_gain": 0.5}),
    "state_start": ({}, {"state_start": 1.0}),
}
VANILLA = {
    "n_units": ({}, {"n_units": 6}),
    "activation": ({}, {"activation": "relu"}),
    "negative_slope": ({"activation": "leaky_relu"}, {"negative_slope": 0.5}),
    "noise": ({}, {"noise": 0.5}),
    "recurrent_gain": ({}, {"recurrent_gain": 0.5}),
}


def what_it_does(cell):
    parameters = cell.init(N_IN, N_OUT, key=jax.random.key(0))
    state = cell.initial_state(cell.prepare(parameters, Context()), key=jax.random.key(1))
    states, outputs = run_cell(cell, parameters, state, some_arrays()[2][:2].astype(np.float32))
    return states.tolist(), outputs.tolist()


@pytest.mark.parametrize(("make", "changes"), [(pr.cells.LeakyRNN, LEAKY), (pr.cells.VanillaRNN, VANILLA)])
def test_every_option_changes_something(make, changes):
    assert set(changes) == {f.name for f in dataclasses.fields(make)}, "a new option needs an entry here"
    for field, (base, change) in changes.items():
        one, two = {"n_units": N} | base, {"n_units": N} | base | change
        assert what_it_does(make(**one)) != what_it_does(make(**two)), field
    assert what_it_does(make(n_units=N)) == what_it_does(make(n_units=N)), "the same cell does the same"


# --- the vanilla RNN against PyTorch, and arrays from elsewhere -----------------------------------------------------


def brought_in(kind, **options):
    a = {name.removeprefix(f"{kind}/"): v for name, v in TORCH.items() if name.startswith(kind)}
    arrays = {
        "W": a["weight_hh"],
        "W_in": a["weight_ih"],
        "bias": a["bias_ih"] + a["bias_hh"],
        "W_out": a["weight_out"],
        "b_out": a["bias_out"],
    }
    cell = pr.cells.VanillaRNN(n_units=12, activation=kind)
    return a, arrays, pr.from_arrays(pr.tasks.NParity(n_max=3), cell, arrays | options)


@pytest.mark.optimised
@pytest.mark.parametrize("kind", ["tanh", "relu"])
def test_vanilla_is_torch_nn_rnn(kind):
    torch, arrays, run = brought_in(kind)
    answer = pr.rollout(run, TORCH["inputs"])
    np.testing.assert_allclose(answer.states[0], torch["states"], atol=1e-5)
    np.testing.assert_allclose(answer.outputs[0], torch["outputs"], atol=1e-5)
    first = ACTIVATIONS[kind](TORCH["inputs"][:, 0] @ arrays["W_in"].T + arrays["bias"])
    np.testing.assert_allclose(answer.states[0][:, 0], first, atol=1e-6, err_msg="h_0 is not zero")
    assert run.outcome == ["brought_in"]
    np.testing.assert_array_equal(run.members[0].W, arrays["W"])


def test_transposed_weights_would_be_noticed():
    torch, _, run = brought_in("tanh", W=TORCH["tanh/weight_hh"].T)
    assert np.abs(pr.rollout(run, TORCH["inputs"]).states[0] - torch["states"]).max() > 1e-2


def test_arrays_that_do_not_fit_are_refused():
    task, cell = pr.tasks.NParity(n_max=3), pr.cells.VanillaRNN(n_units=4)
    with pytest.raises(pr.ConfigurationError, match="no array named 'W_inn'; did you mean 'W_in'"):
        pr.from_arrays(task, cell, {"W_inn": np.ones((4, 1))})
    with pytest.raises(pr.ConfigurationError, match=r"'W' has shape \[4, 5\], must be \[4, 4\]"):
        pr.from_arrays(task, cell, {"W": np.ones((4, 5))})
    with pytest.raises(pr.ConfigurationError, match=r"'bias' has shape \[1, 1, 4\]"):
        pr.from_arrays(task, cell, {"bias": np.ones((1, 1, 4))})
    with pytest.raises(pr.ConfigurationError, match="some arrays have a member axis and others have none"):
        pr.from_arrays(task, cell, {"W": np.ones((2, 4, 4)), "bias": np.ones(4)})


@pytest.mark.parametrize("members", [(2, 3), (3, 2)])
def test_members_must_be_as_many_in_every_array(members):
    arrays = {"W": np.ones((members[0], 4, 4)), "bias": np.ones((members[1], 4))}
    with pytest.raises(pr.ConfigurationError, match="member"):
        pr.from_arrays(pr.tasks.NParity(n_max=3), pr.cells.VanillaRNN(n_units=4), arrays)


def test_stacked_arrays_make_a_population():
    W = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    run = pr.from_arrays(pr.tasks.NParity(n_max=3), pr.cells.VanillaRNN(n_units=4), {"W": W})
    assert run.n_members == 3
    np.testing.assert_array_equal(run.parameters.trainable["W"], W)
    assert (run.parameters.trainable["bias"][0] == run.parameters.trainable["bias"][2]).all()
