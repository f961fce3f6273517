"""GRU and LSTM against plain NumPy, against PyTorch, and their gradients through the unroll."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax import lax
from scipy.special import expit

import poprnn as pr
from conftest import TINY
from poprnn.core import backend
from poprnn.core.references import bibtex
from poprnn.training import unroll as unrolling
from poprnn.training.dynamics import Dynamics
from poprnn.training.flops import step_flops
from poprnn.training.methods.control import Control
from poprnn.training.settings import Setup, Training
from poprnn.training.state import select_trainable

Context, Parameters = pr.Context, pr.Parameters
TORCH = safetensors.numpy.load_file(Path(__file__).parent / "fixtures" / "torch_gated.safetensors")
N, N_IN, N_OUT, N_STEPS = 5, 2, 3, 6
CELLS = {"gru": pr.cells.GRU, "lstm": pr.cells.LSTM}
N_GATES = {"gru": 3, "lstm": 4}
kinds = pytest.mark.parametrize("kind", CELLS)


def some_arrays(kind):
    rng = np.random.default_rng(0)
    n = N_GATES[kind] * N
    shapes = {"W": (n, N), "W_in": (n, N_IN), "bias": (n,), "W_out": (N_OUT, N), "b_out": (N_OUT,)}
    if kind == "gru":
        shapes["bias_candidate"] = (N,)
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return arrays, rng.normal(size=N), rng.normal(size=N), rng.normal(size=(N_STEPS, N_IN))


def parameters_of(arrays, dtype=None):
    return Parameters({k: jnp.asarray(v, dtype) for k, v in arrays.items()}, {})


def state_of(kind, h, c):
    zero = CELLS[kind](n_units=len(h)).initial_state({}, key=jax.random.key(0))
    return jnp.asarray(h) if kind == "gru" else type(zero)(h=jnp.asarray(h), c=jnp.asarray(c))


def run_cell(cell, parameters, state, inputs, *, seed=0):
    """Activities, outputs and the last state by the cell's own step, one after another."""
    context = Context()
    prepared = cell.prepare(parameters, context)
    activities, outputs = [], []
    for t, x in enumerate(inputs):
        state = cell.step(prepared, state, jnp.asarray(x), key=jax.random.key(seed + t), context=context)
        activities.append(np.asarray(cell.activity(state)))
        outputs.append(np.asarray(cell.readout(prepared, state)))
    return np.array(activities), np.array(outputs), state


# --- the equations --------------------------------------------------------------------------------------------------


def gate(arrays, place, i, h, x, f):
    """One gate of one unit."""
    row = place * len(h) + i
    total = arrays["bias"][row] + sum(arrays["W"][row, j] * h[j] for j in range(len(h)))
    return f(total + sum(arrays["W_in"][row, k] * x[k] for k in range(len(x))))


def gru_reference(a, h, c, inputs):
    n, states = len(h), []
    for x in inputs:
        new = np.empty(n)
        for i in range(n):
            r, z = (gate(a, place, i, h, x, expit) for place in (0, 1))
            row = 2 * n + i
            recalled = sum(a["W"][row, j] * h[j] for j in range(n)) + a["bias_candidate"][i]
            heard = sum(a["W_in"][row, k] * x[k] for k in range(len(x))) + a["bias"][row]
            new[i] = (1 - z) * np.tanh(heard + r * recalled) + z * h[i]
        h = new
        states.append(h)
    return np.array(states), c


def lstm_reference(a, h, c, inputs):
    n, states = len(h), []
    for x in inputs:
        i, f, g, o = (
            np.array([gate(a, place, unit, h, x, np.tanh if place == 2 else expit) for unit in range(n)])
            for place in range(4)
        )
        c = f * c + i * g
        h = o * np.tanh(c)
        states.append(h)
    return np.array(states), c


REFERENCES = {"gru": gru_reference, "lstm": lstm_reference}


@kinds
def test_step_is_the_equation(kind):
    arrays, h, c, inputs = some_arrays(kind)
    with backend.precision(64):
        found = run_cell(CELLS[kind](n_units=N), parameters_of(arrays), state_of(kind, h, c), inputs)
        states, held = REFERENCES[kind](arrays, h, c, inputs)
        np.testing.assert_allclose(found[0], states, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(found[1], states @ arrays["W_out"].T + arrays["b_out"], rtol=1e-12, atol=1e-13)
        if kind == "lstm":
            np.testing.assert_allclose(found[2].c, held, rtol=1e-12, atol=1e-13)


def brought_in(kind, **changes):
    """torch's weights under poprnn's names, as the docstrings say."""
    a = {name.removeprefix(f"{kind}/"): v for name, v in TORCH.items() if name.startswith(kind)}
    arrays = {"W": a["weight_hh"], "W_in": a["weight_ih"], "bias": a["bias_ih"] + a["bias_hh"]}
    arrays |= {"W_out": a["weight_out"], "b_out": a["bias_out"]}
    n_units = a["weight_hh"].shape[1]
    if kind == "gru":
        two = 2 * n_units
        arrays["bias"] = a["bias_ih"] + np.concatenate([a["bias_hh"][:two], np.zeros(n_units, np.float32)])
        arrays["bias_candidate"] = a["bias_hh"][two:]
    arrays |= {name: change(arrays[name]) for name, change in changes.items()}
    task = pr.tasks.Arrays.of(TORCH["inputs"], a["outputs"])
    return a, pr.from_arrays(task, CELLS[kind](n_units=n_units), arrays)


@kinds
def test_cell_is_torchs(kind):
    torch, run = brought_in(kind)
    answer = pr.rollout(run, TORCH["inputs"])
    np.testing.assert_allclose(answer.states[0], torch["states"], atol=1e-5)
    np.testing.assert_allclose(answer.outputs[0], torch["outputs"], atol=1e-5)
    assert torch["states"].std() > 0.2, "nothing happens in the fixture"


def test_what_an_lstm_holds_is_torchs():
    torch, run = brought_in("lstm")
    parameters = parameters_of({name: a[0] for name, a in run.parameters.trainable.items()})
    zero = run.cell.initial_state({}, key=jax.random.key(0))
    for trial, inputs in enumerate(TORCH["inputs"]):
        last = run_cell(run.cell, parameters, zero, inputs)[2]
        np.testing.assert_allclose(last.c, torch["held"][trial], atol=1e-5)


@kinds
def test_gates_in_another_order_would_be_noticed(kind):
    for place in range(1, N_GATES[kind]):

        def swap(stacked, place=place):
            parts = np.split(stacked, N_GATES[kind])
            parts[0], parts[place] = parts[place], parts[0]
            return np.concatenate(parts)

        torch, run = brought_in(kind, W=swap, W_in=swap, bias=swap)
        assert np.abs(pr.rollout(run, TORCH["inputs"]).states[0] - torch["states"]).max() > 1e-2
    if kind == "gru":  # nor may the candidate's two biases be one
        torch, run = brought_in(kind, bias_candidate=np.zeros_like)
        assert np.abs(pr.rollout(run, TORCH["inputs"]).states[0] - torch["states"]).max() > 1e-2


# --- gradients ------------------------------------------------------------------------------------------------------


def losses(kind, plan):
    """The same number by the unroll and by the plainest scan, and what it depends on."""
    arrays, h, c, _ = some_arrays(kind)
    cell, n_trials = CELLS[kind](n_units=N, noise=0.1), 3
    keys = jax.random.split(jax.random.key(1), n_trials)
    inputs = jax.random.normal(keys[0], (N_STEPS, n_trials, N_IN), jnp.float64)
    start = jax.tree.map(lambda a: a * jnp.arange(1.0, 1.0 + n_trials)[:, None], state_of(kind, h, c))
    dynamics = Dynamics(cell, Control())
    weights = jnp.cos(jnp.arange(N_STEPS * n_trials * N_OUT, dtype=float)).reshape(N_STEPS, n_trials, N_OUT)

    def value(outputs, squares, length):
        exists = (jnp.arange(N_STEPS) < length)[:, None, None]
        return jnp.sum(jnp.where(exists, weights * jnp.tanh(outputs), 0)) + 0.3 * jnp.sum(squares)

    def fast(trainable, start, length):
        prepared = cell.prepare(Parameters(trainable, {}), Context())
        carry = jax.vmap(lambda k: dynamics.start(prepared, None, N_OUT, key=k))(keys)._replace(state=start)
        sequence = unrolling.Sequence(inputs, keys, length, Context(), None)
        emit, square = dynamics.output, lambda q, c: jnp.sum(cell.activity(c.state) ** 2)
        emitted = unrolling.unroll(dynamics, prepared, carry, sequence, emit=emit, accumulate=square, plan_=plan)[1]
        return value(emitted.outputs, emitted.sums, length)

    def slow(trainable, start, length):
        prepared = cell.prepare(Parameters(trainable, {}), Context())

        def step(state, given):
            time, inputs = given

            def one(state, x, key):
                drive = cell.input_drive(prepared, x, key=jax.random.fold_in(key, 2 * time), context=Context())
                recurrent = cell.recurrent_drive(prepared, state)
                drive = {name: a + recurrent.get(name, 0) for name, a in drive.items()}
                return cell.update(prepared, state, drive, key=key, context=Context())

            state = jax.vmap(one)(state, inputs, keys)
            squares = jnp.sum(cell.activity(state) ** 2) * (time < length)
            return state, (jax.vmap(lambda s: cell.readout(prepared, s))(state), squares)

        return value(*lax.scan(step, start, (jnp.arange(N_STEPS), inputs))[1], length)

    return fast, slow, parameters_of(arrays).trainable, start


PLANS = {"blocks": unrolling.Plan(4, 2, 2, True), "segments": unrolling.Plan(2, 3, 2, False)}


@kinds
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_gradients_equal_those_of_a_plain_scan(kind, plan):
    with backend.precision(64):
        fast, slow, *at = losses(kind, plan)
        fast, slow = (jax.jit(jax.value_and_grad(f, argnums=(0, 1))) for f in (fast, slow))
        for length in (N_STEPS, 3):
            (f, g), (f_, g_) = fast(*at, length), slow(*at, length)
            np.testing.assert_allclose(f, f_, rtol=1e-10)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10), g, g_)
        assert all((np.abs(a) > 0).any() for a in jax.tree.leaves(g)), "some array has no gradient"


@kinds
def test_gradients_equal_central_differences(kind):
    with backend.precision(64):
        fast, _, trainable, start = losses(kind, PLANS["blocks"])
        fast = jax.jit(fast)
        gradient = jax.grad(fast)(trainable, start, 5)
        for name, a in trainable.items():
            direction = jnp.asarray(np.random.default_rng(0).normal(size=a.shape))
            up, down = (fast(trainable | {name: a + s * direction}, start, 5) for s in (1e-6, -1e-6))
            np.testing.assert_allclose(jnp.sum(gradient[name] * direction), (up - down) / 2e-6, rtol=1e-6)


# --- start, noise, options ------------------------------------------------------------------------------------------


@kinds
def test_starting_distributions(kind):
    n, bound = 150, 150**-0.5
    cell = CELLS[kind](n_units=n)
    p = cell.init(4, 6, key=jax.random.key(0))
    assert set(p.trainable) == set(some_arrays(kind)[0])
    assert p.fixed == {}
    for name, a in p.trainable.items():
        assert np.abs(a).max() <= bound, name
        if a.size > 100:
            assert abs(a.mean()) < 0.15 * bound, name
            assert abs(a.std() / (bound / 3**0.5) - 1) < 0.12, name
    assert all((a == 0).all() for a in jax.tree.leaves(cell.initial_state({}, key=jax.random.key(1))))
    strong = CELLS[kind](n_units=n, recurrent_gain=1.5).init(4, 6, key=jax.random.key(0)).trainable
    for name, a in p.trainable.items():
        np.testing.assert_allclose(strong[name], (1.5 if name == "W" else 1.0) * a, rtol=1e-6)


def test_forget_bias_is_the_forget_gates():
    plain, open_ = (
        np.asarray(pr.cells.LSTM(n_units=N, forget_bias=b).init(1, 1, key=jax.random.key(0)).trainable["bias"])
        for b in (0.0, 2.0)
    )
    np.testing.assert_allclose((open_ - plain).reshape(4, N), np.array([0, 2, 0, 0])[:, None] * np.ones(N), atol=1e-6)


@kinds
def test_noise_has_its_standard_deviation(kind):
    arrays, _, _, inputs = some_arrays(kind)

    def drives(noise):
        cell = CELLS[kind](n_units=N, noise=noise)
        prepared = cell.prepare(parameters_of(arrays, jnp.float32), Context())
        one = lambda key: cell.input_drive(prepared, jnp.asarray(inputs[0], jnp.float32), key=key, context=Context())
        found = jax.vmap(one)(jax.random.split(jax.random.key(0), 8000))
        if kind == "gru":  # what the state brings back has a bias and no noise of its own
            np.testing.assert_array_equal(found["recalled"][7], arrays["bias_candidate"].astype(np.float32))
            del found["recalled"]
        assert len(found) == N_GATES[kind]
        return np.concatenate([np.asarray(a, np.float64) for a in found.values()], axis=1)

    quiet, loud = drives(0.0), drives(0.7)
    assert (quiet == quiet[0]).all()
    np.testing.assert_allclose(loud.std(axis=0), 0.7, rtol=0.04)
    np.testing.assert_allclose(loud.mean(axis=0), quiet[0], atol=4 * 0.7 / 8000**0.5)
    assert np.abs(np.corrcoef(loud.T) - np.eye(loud.shape[1])).max() < 0.05, "each gate has noise of its own"


CHANGES = {
    "gru": {"n_units": 6, "noise": 0.5, "recurrent_gain": 0.5},
    "lstm": {"n_units": 6, "noise": 0.5, "recurrent_gain": 0.5, "forget_bias": 1.0},
}


@kinds
def test_every_option_changes_something(kind):
    def what_it_does(**options):
        cell = CELLS[kind](**{"n_units": N} | options)
        parameters = cell.init(N_IN, N_OUT, key=jax.random.key(0))
        state = cell.initial_state({}, key=jax.random.key(1))
        return [a.tolist() for a in run_cell(cell, parameters, state, some_arrays(kind)[3][:2].astype(np.float32))[:2]]

    assert set(CHANGES[kind]) == {f.name for f in dataclasses.fields(CELLS[kind])}, "a new option needs an entry here"
    for field, value in CHANGES[kind].items():
        assert what_it_does() != what_it_does(**{field: value}), field
    assert what_it_does() == what_it_does(), "the same cell does the same"


@pytest.mark.parametrize(("kind", "option"), [(k, o) for k in CHANGES for o in CHANGES[k] if o != "n_units"])
def test_options_may_differ_between_members(kind, option):
    """As a traced value an option does what it does as a plain one."""
    value, key = CHANGES[kind][option], jax.random.key(0)

    def arrays_and_drives(value):
        cell = CELLS[kind](n_units=N).substitute({option: value})
        parameters = cell.init(N_IN, N_OUT, key=key)
        prepared = cell.prepare(parameters, Context())
        return parameters, cell.input_drive(prepared, jnp.ones(N_IN), key=key, context=Context())

    plain, traced = arrays_and_drives(value), jax.jit(arrays_and_drives)(value)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain, traced)


# --- as populations -------------------------------------------------------------------------------------------------

TASK = pr.tasks.NParity(n_max=3)


@pytest.mark.slow
@kinds
def test_a_population_trains_compiled_and_step_by_step(kind):
    options = {"task": TASK, "cell": CELLS[kind](n_units=6, noise=0.1), "members": 2, **TINY}
    options |= {"epochs": 1, "steps_per_epoch": 1}
    run, again = pr.fit(**options), pr.fit(**options, debug=True)
    for name, start in run.initial.trainable.items():
        assert (run.parameters.trainable[name] != start).any(axis=tuple(range(1, start.ndim))).all(), name
    for name in ("training_loss", "loss"):
        np.testing.assert_allclose(again.history[name], run.history[name], rtol=1e-5)
    assert run.manifest["flops"] > 0
    with pytest.raises(pr.NotApplicableError, match="no square matrix"):
        pr.measure("connectivity", run, members="all")


@kinds
def test_groups_hold_every_array_once(kind):
    biases = {"bias", "bias_candidate"} if kind == "gru" else {"bias"}
    groups = {"recurrent": {"W"} | biases, "input": {"W_in"}, "readout": {"W_out", "b_out"}}
    arrays, *_ = some_arrays(kind)
    assert sorted(name for names in groups.values() for name in names) == sorted(arrays)
    for group, names in groups.items():
        setup = Setup(task=TASK, cell=CELLS[kind](n_units=N), training=Training(trainable=(group,)))
        selected = select_trainable(parameters_of(arrays), setup)
        assert (set(selected.trainable), set(selected.fixed)) == (names, set(arrays) - names)


@kinds
def test_operations_are_counted(kind):
    """Gates times the products of one matrix; the readout where every step is read."""
    each = 2 * N_GATES[kind] * 7
    arrays = pr.tasks.Arrays.of(np.zeros((4, 3, 2)), np.zeros((4, 3, 5)))
    for task, wanted in ((TASK, each * (7 + 1)), (arrays, each * (7 + 2) + 2 * 7 * 5)):
        assert step_flops(Setup(task=task, cell=CELLS[kind](n_units=7))) == wanted


@kinds
def test_papers_are_known(kind):
    assert CELLS[kind].cites
    assert "no entry" not in bibtex(CELLS[kind].cites)
