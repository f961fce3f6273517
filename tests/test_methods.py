"""Training methods against plain recurrences in NumPy, and exactly the base dynamics at their end."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import poprnn as pr
from poprnn.cells.contract import Context
from poprnn.core import backend, native
from poprnn.training import unroll as unrolling
from poprnn.training.dynamics import Dynamics
from poprnn.training.program import Program

CELL = {"self_interaction": "outside", "activation": "tanh", "tau": 10.0, "dt": 1.0, "state_start": 0.5}
PERIODS = ((0, 5), (5, 12), (12, 12), (12, 20))
N_UNITS, N_STEPS, N_TRIALS = 4, 20, 3


@pr.register("tasks")
class Ramp(pr.Task):
    """Two periods of continuous time; the first 4 units of time have no gradient."""

    n_inputs, n_outputs, capacity, has_skips = 2, 1, 40, True
    dt: float = 1.0
    warm_up: bool = True

    def draw(self, stage, *, key):
        n = 30 + jax.random.randint(key, (), 0, 10)
        return pr.Setting(n, self.dt, no_gradient=4 if self.warm_up else 0)

    def coarsen(self, setting, factor):
        shorter = lambda n: jnp.ceil(n / factor).astype(jnp.int32)
        return setting._replace(
            dt=setting.dt * factor, length=shorter(setting.length), no_gradient=shorter(setting.no_gradient)
        )

    def sample(self, setting, arrays, *, key):
        time = jnp.arange(self.capacity) * setting.dt
        middle = jax.random.randint(key, (), 10, 15)
        starts = {"early": jnp.array([0, 1]) * middle, "late": jnp.stack([middle, jnp.asarray(setting.length)])}
        inputs = jnp.stack([jnp.sin(time + middle), jnp.cos(time)], axis=1)
        return pr.Trial(inputs, jnp.sin(time / 5)[:, None], periods=starts, skips=jnp.stack([middle, middle + 9])[None])


def batch_loss(method, compile=jax.jit):
    """Loss and gradient of one training batch, as a function of the training step."""
    cell = pr.cells.LeakyRNN(n_units=6, noise=0.1, noise_tau=8.0, **CELL)
    setup = pr.Setup(task=Ramp(), cell=cell, training={"method": method, "batch": 4})
    program = Program(setup)
    with backend.precision(32):
        state = program.start(0, {}, 0)
        stage = setup.training.curriculum.stage(setup.task, state.progress)

    def loss(trainable, n_step):
        parameters = state.parameters._replace(trainable=trainable)
        return program.batch_loss(setup, parameters, stage, (), n_step, None, key=jax.random.key(5))[0]

    both = compile(jax.value_and_grad(loss))

    def at(n_step):
        with backend.precision(32):
            return both(state.parameters.trainable, jnp.int32(n_step))

    return at


@functools.cache
def control(optimised):
    """Of plain training, where the step makes no difference."""
    del optimised  # another program, of other bits
    return batch_loss(pr.methods.Control())(12)


@pytest.mark.parametrize(
    "method",
    [
        pr.methods.Coarsened(factor=4, annealing_steps=12),
        pr.methods.Skip(span=4, annealing_steps=12),
        pytest.param(pr.methods.AlignedSkip(span=4, annealing_steps=12, strategic="task"), marks=pytest.mark.optimised),
        pr.methods.AlignedSkip(span=4, annealing_steps=12, strategic=((2.0, 11.0), (11.0, 19.0))),
    ],
    ids=lambda m: f"{m.name()} {getattr(m, 'strategic', None) or ''}",
)
@native.without()
def test_ended_method_is_the_base_dynamics_bit_for_bit(method, request):
    """In one program for all steps, as in training; kernels, which only control runs by, round differently."""
    at = batch_loss(method)
    ended, going = at(12), at(3)
    plain = control(request.node.get_closest_marker("optimised") is not None)
    assert plain[0] == ended[0] != going[0]
    for name in plain[1]:
        np.testing.assert_array_equal(plain[1][name], ended[1][name], name)
        if name != "W_in":
            assert not np.array_equal(plain[1][name], going[1][name]), name


def by_hand(cell, parameters, inputs, *, span=None, weight=1.0, aligned=False, strategic=(), periods=PERIODS):
    """One trial in float64 loops; ``periods`` of one trial, strategic skips as (from, to)."""
    p = {k: np.asarray(v, float) for k, v in {**parameters.trainable, **parameters.fixed}.items()}
    W, alpha = p["W"] * (1 - np.eye(len(p["W"]))), cell.dt / p["tau"]
    rate = lambda h, x: alpha * (np.tanh(W @ h + p["W_in"] @ x + p["bias"]) - h)
    h, states, anchor, since = p["h0"], [], None, 0
    states_before = []
    for t, x in enumerate(inputs):
        states_before.append(h)
        if since == 0 or any(t == first and last > first for first, last in periods):
            anchor = h + span * rate(h, x) if aligned else h
            since = 0
        new = h + rate(h, x)
        since += 1
        if since == span:
            new, since = weight * new + (1 - weight) * anchor, 0
        for first, last in strategic:
            if last == t + 1:
                new = weight * new + (1 - weight) * states_before[first]
        h = new
        states.append(h)
    return np.array(states)


def unrolled(method, weight, cell, parameters, h0, inputs, *, periods=PERIODS, skips=None, no_gradient=None):
    """The states of a batch of trials after every step, as a function of the trainable parameters and the start."""
    context = Context(schedule={"weight": weight}, training=True)
    n_trials = inputs.shape[0]
    named = {f"period {i}": jnp.tile(jnp.array(p), (n_trials, 1)) for i, p in enumerate(periods)}
    skips = None if skips is None else jnp.tile(jnp.array(skips), (n_trials, 1, 1))
    trials = pr.Trial(None, None, None, named, None, skips)
    dynamics = Dynamics(cell, method)
    keys = jax.random.split(jax.random.key(0), n_trials)
    sequence = unrolling.Sequence(
        jnp.swapaxes(inputs, 0, 1), keys, jnp.int32(inputs.shape[1]), context, trials, no_gradient=no_gradient
    )

    def run(trainable, h0):
        prepared = cell.prepare(parameters._replace(trainable=trainable), context)
        carry = jax.vmap(lambda k: dynamics.start(prepared, None, 1, key=k))(keys)
        memory = jax.vmap(method.init)(h0)
        emit = lambda q, c: c.state
        _, emitted, _ = unrolling.unroll(
            dynamics, prepared, carry._replace(state=h0, method=memory), sequence, emit=emit,
            plan_=unrolling.Plan(6, 4, 4, True),
        )  # fmt: skip
        return jnp.swapaxes(emitted.outputs, 0, 1)

    return run


def small_system():
    """A cell with parameters, starts and inputs in float64."""
    cell = pr.cells.LeakyRNN(n_units=N_UNITS, **CELL)
    parameters = cell.init(2, 1, key=jax.random.key(1))
    parameters = jax.tree.map(lambda a: a.astype(jnp.float64), parameters)
    h0 = jax.random.normal(jax.random.key(2), (N_TRIALS, N_UNITS), jnp.float64)
    inputs = jax.random.normal(jax.random.key(3), (N_TRIALS, N_STEPS, 2), jnp.float64)
    return cell, parameters, h0, inputs


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (pr.methods.Skip(span=3), {"span": 3}),
        (pr.methods.AlignedSkip(span=3), {"span": 3, "aligned": True}),
        (pr.methods.Skip(span=3, strategic="task"), {"span": 3, "strategic": [(1, 9), (9, 16)]}),
        (pr.methods.Skip(span=100, strategic=((2.0, 7.0),)), {"span": 100, "strategic": [(2, 7)]}),
    ],
    ids=["skip", "aligned", "strategic by the task", "strategic by hand"],
)
def test_states_equal_loops_over_time(method, options):
    with backend.precision(64):
        cell, parameters, h0, inputs = small_system()
        run = unrolled(method, 0.3, cell, parameters, h0, inputs, skips=[(1, 9), (9, 16), (0, 0)])
        got = np.asarray(run(parameters.trainable, h0))
        for k in range(N_TRIALS):
            mine = parameters._replace(fixed=parameters.fixed | {"h0": h0[k]})
            np.testing.assert_allclose(
                got[k], by_hand(cell, mine, np.asarray(inputs[k]), weight=0.3, **options), rtol=1e-10
            )


def test_aligned_skip_without_base_dynamics_is_one_long_euler_step():
    with backend.precision(64):
        cell, parameters, h0, inputs = small_system()
        run = unrolled(pr.methods.AlignedSkip(span=5), 0.0, cell, parameters, h0, inputs, periods=((0, 20),))
        got = np.asarray(run(parameters.trainable, h0))[:, 4::5]
        long = pr.cells.LeakyRNN(n_units=N_UNITS, **CELL | {"dt": 5.0})
        for k in range(N_TRIALS):
            mine = parameters._replace(fixed=parameters.fixed | {"h0": h0[k]})
            expected = by_hand(long, mine, np.asarray(inputs[k, ::5]), periods=())
            np.testing.assert_allclose(got[k], expected, rtol=1e-10)


@pytest.mark.parametrize("no_gradient", [None, 8, 6])
@pytest.mark.parametrize("method", [pr.methods.Control(), pr.methods.Skip(span=3), pr.methods.AlignedSkip(span=3)])
def test_gradients_equal_central_differences(method, no_gradient):
    """With a warm-up: the gradient of what follows it, from the state at its end held constant."""
    with backend.precision(64):
        cell, parameters, h0, inputs = small_system()
        # one period from the warm-up's end on, so that no skip reaches across it
        parts = ((0, no_gradient or 0), (no_gradient or 0, N_STEPS))
        run = jax.jit(unrolled(method, 0.4, cell, parameters, h0, inputs, periods=parts, no_gradient=no_gradient))
        counts = (jnp.arange(N_STEPS) >= (no_gradient or 0))[None, :, None]
        of_states = lambda s: jnp.sum(jnp.where(counts, jnp.sin(3 * s), 0))
        gradient, at_start = jax.grad(lambda p, h: of_states(run(p, h)), argnums=(0, 1))(parameters.trainable, h0)

        if no_gradient is None:
            value, start = lambda p, h: of_states(run(p, h)), h0
        else:
            assert not np.any(np.asarray(at_start))
            start = run(parameters.trainable, h0)[:, no_gradient - 1]
            rest = unrolled(method, 0.4, cell, parameters, start, inputs[:, no_gradient:], periods=((0, N_STEPS),))
            value = lambda p, h: jnp.sum(jnp.sin(3 * rest(p, h)))
        value = jax.jit(value)
        for name in ("W", "W_in", "bias"):
            direction = jnp.asarray(np.random.default_rng(0).normal(size=gradient[name].shape))
            at = lambda e, name=name, d=direction: value(
                parameters.trainable | {name: parameters.trainable[name] + e * d}, start
            )
            numeric = (at(1e-5) - at(-1e-5)) / 2e-5
            np.testing.assert_allclose(jnp.sum(gradient[name] * direction), numeric, rtol=1e-6)


def test_stepping_in_python_gives_the_same_gradient():
    from poprnn.core import loops

    method = pr.methods.Skip(span=4, annealing_steps=12)
    compiled = batch_loss(method)(2)
    with loops.in_python():
        stepped = batch_loss(method, compile=lambda f: f)(2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), compiled, stepped)


def test_coarser_steps_are_fewer_and_the_optimiser_starts_anew():
    method = pr.methods.Coarsened(factor=10, n_increments=2, annealing_steps=9)
    factors = [float(method.schedule(n)["factor"]) for n in range(12)]
    np.testing.assert_allclose(factors, [10] * 3 + [5] * 3 + [1] * 6, rtol=1e-6)
    assert [bool(method.restarts(n)) for n in range(12)] == [n in (3, 6) for n in range(12)]
    setting = method.adapt(pr.Setting(30, 1.0, no_gradient=4), method.schedule(0), Ramp())
    assert (int(setting.length), int(setting.no_gradient), float(setting.dt)) == (3, 1, 10.0)


def test_schedules_of_the_paper():
    """DASC, 5 steps, beta_0 = 0.5: beta = 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, each held 20,000 / 6 steps."""
    method = pr.methods.AlignedSkip(n_increments=5, base_weight=0.5)
    changes = [1, 3333, 3334, 6666, 6667, 9999, 10000, 16666, 16667, 20000, 10**6]
    found = [float(method.schedule(n)["weight"]) for n in changes]
    np.testing.assert_allclose(found, [0.5, 0.5, 0.6, 0.6, 0.7, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0], rtol=1e-6)
    one = pr.methods.Skip(n_increments=1, base_weight=0.2)
    np.testing.assert_allclose([float(one.schedule(n)["weight"]) for n in (0, 9999, 10000)], [0.2, 0.2, 1.0], rtol=1e-6)
    never = pr.methods.Skip(annealing_steps=0)
    assert float(never.schedule(0)["weight"]) == 1


def test_members_may_differ_in_their_schedules():
    vary = {"training.method.span": [3, 5], "training.method.base_weight": [0.2, 0.8]}
    options = dict(batch=4, epochs=1, steps_per_epoch=3, evaluation_batches=1, monitors=())
    cell = pr.cells.LeakyRNN(n_units=4, **CELL)
    both = pr.fit(Ramp(), cell, method={"kind": "dasc", "annealing_steps": 100}, members=2, vary=vary, **options)
    alone = pr.fit(
        Ramp(), cell, method=pr.methods.AlignedSkip(span=3, base_weight=0.2, annealing_steps=100), members=2, **options
    )
    np.testing.assert_array_equal(both.members[0].W, alone.members[0].W)
    assert not np.array_equal(both.members[1].W, alone.members[1].W)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pr.Setup(task=Ramp(), cell="gru", training={"method": "dasc"}), "no time derivative"),
        (lambda: pr.Setup(task=Ramp(), cell="leaky_rnn", training={"method": "aligned_skip"}), "no time derivative"),
        (lambda: pr.Setup(task=Ramp(), cell="gru", training={"method": "cd"}), "no integration step"),
        (lambda: pr.Setup(task="n_parity", cell="leaky_rnn", training={"method": "cd"}), "counts in steps"),
        (lambda: pr.methods.Skip(strategic=((5.0, 2.0),)), "from, later"),
        (lambda: pr.methods.Skip(strategic=((0.0, 5.0), (3.0, 8.0))), "must not overlap"),
        (
            lambda: pr.Setup(task="n_parity", cell="gru", training={"method": {"kind": "sctt", "strategic": "task"}}),
            "names no skips",
        ),
        (lambda: pr.cells.LeakyRNN(noise_tau=10.0), "noise = 0"),
        (lambda: pr.cells.LeakyRNN(n_units=10, tau=(1.0, 2.0, 3.0)), "equal groups"),
        (lambda: pr.cells.LeakyRNN(recurrent_init="diagonal"), "self_connection"),
        (lambda: pr.monitors.TrimmedMean(lowest=0.9, highest=0.1), "must be below"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(pr.ConfigurationError, match=message):
        make()


def test_names_of_the_paper():
    assert pr.methods.CD is pr.methods.Coarsened
    assert pr.methods.SCTT is pr.methods.Skip
    assert pr.methods.DASC is pr.methods.AlignedSkip


def test_coloured_noise_has_its_variance_and_its_memory():
    """An identity cell without weights and tau = dt shows the noise itself."""
    options = dict(self_interaction="outside", activation="identity", tau=5.0, dt=5.0, state_start=0.0)
    cell = pr.cells.LeakyRNN(n_units=400, noise=0.3, noise_tau=50.0, recurrent_gain=0.0, **options)
    arrays = {"W_in": np.zeros((1, 400, 1)), "bias": np.zeros((1, 400))}
    run = pr.from_arrays(pr.tasks.NParity(n_max=2), cell, arrays)
    states = np.asarray(pr.rollout(run, np.zeros((4, 600, 1), np.float32)).states)[0]
    assert states.std() == pytest.approx(0.3 * np.sqrt(1 / (1 - 0.05)), rel=0.03)  # Euler's variance: 1 / (1 - a/2)
    correlation = np.mean(states[:, 10:] * states[:, :-10]) / np.mean(states**2)
    assert correlation == pytest.approx(0.9**10, abs=0.02)


def test_starts_groups_and_outputs_of_the_leaky_cell():
    cell = pr.cells.LeakyRNN(
        n_units=200, tau=(100.0, 100.0, 100.0, 100.0, 50.0), dt=5.0, recurrent_init="normal", recurrent_gain=0.1,
        input_init="normal", readout_init="normal", output_bias=False, output_activation="sigmoid",
    )  # fmt: skip
    parameters = cell.init(20, 3, key=jax.random.key(0))
    assert parameters.fixed["tau"].tolist() == [100.0] * 160 + [50.0] * 40
    assert np.std(parameters.trainable["W"]) == pytest.approx(0.1 / 200**0.5, rel=0.02)
    assert np.std(parameters.trainable["W_in"]) == pytest.approx(1.0, rel=0.05)
    assert np.std(parameters.trainable["W_out"]) == pytest.approx(1.0, rel=0.1)
    prepared = cell.prepare(parameters, Context())
    h = np.linspace(-1, 1, 200)
    expected = 1 / (1 + np.exp(-np.asarray(parameters.trainable["W_out"]) @ h))
    np.testing.assert_allclose(cell.readout(prepared, jnp.asarray(h)), expected, rtol=1e-4)
    assert not np.any(parameters.fixed["b_out"])
    assert "b_out" not in parameters.trainable


@pytest.mark.parametrize(("threshold", "outcome"), [(0.0, "solved"), (1.0, "budget_spent")])
def test_population_ends_together(threshold, outcome):
    run = pr.fit(
        Ramp(), pr.cells.LeakyRNN(n_units=4, **CELL), members=3, batch=4, epochs=3, steps_per_epoch=2,
        evaluation_batches=1, monitors=(pr.monitors.TrimmedMean(threshold=threshold),), vary={},
    )  # fmt: skip
    assert run.outcome == [outcome] * 3
    assert len(run.history) == (1 if outcome == "solved" else 3)


def test_members_below_the_threshold_end_with_the_population():
    monitor = pr.monitors.TrimmedMean(threshold=0.9, lowest=0.25, highest=1.0)
    from poprnn.training.monitors.contract import Observation

    scores = {"performance": np.array([[0.2], [0.95], [0.93], [0.99]])}
    _, ends = monitor.update((), Observation(1, False, None, scores, None, None, None))
    assert ends.tolist() == [False, True, True, True]
    _, ends = monitor.update((), Observation(1, False, None, {"performance": scores["performance"] - 0.1}, *[None] * 3))
    assert not ends.any()


@pytest.mark.parametrize("shared", [True, False])
def test_members_may_share_their_trials(shared):
    """Two equal networks without noise stay equal on the same trials, and not on others."""
    cell = pr.cells.LeakyRNN(n_units=4, **CELL | {"state_start": 0.0})
    arrays = {"W": np.repeat(np.random.default_rng(0).normal(size=(1, 4, 4)) / 2, 2, axis=0)}
    for name in ("W_in", "bias", "W_out", "b_out"):
        one = cell.init(2, 1, key=jax.random.key(0)).trainable[name]
        arrays[name] = np.repeat(np.asarray(one)[None], 2, axis=0)
    equal = pr.from_arrays(Ramp(), cell, arrays)
    options = dict(batch=4, epochs=1, steps_per_epoch=3, evaluation_batches=1, monitors=())
    run = pr.fit(start=equal, shared_trials=shared, **options)
    assert np.array_equal(run.members[0].W, run.members[1].W) == shared
    assert not np.array_equal(run.members[0].W, equal.members[0].W)
