"""Static vectors, their distributions, and the autoencoder with a bottleneck: equations, moments, every option."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import poprnn as pr
from conftest import TINY
from poprnn.core import backend, catalogue
from poprnn.tasks.contract import Setting, Stage, Trial, in_steps
from poprnn.training.program import Program

D = pr.distributions
DISTRIBUTIONS = {name: catalogue.find("distributions", name)() for name in catalogue.names("distributions")}
OTHERS = {
    "coloured": D.Gaussian(n_dimensions=3, variances=[4.0, 1.0, 0.25]),
    "interval": D.Uniform(n_dimensions=1, low=-1.0, high=3.0),
    "even dictionary": D.Dictionary(n_patterns=5, n_dimensions=1, exponent=0.0),
    "three factors": D.Compositional(n_factors=3, n_values=3, n_held_out=2),
    "held out": D.Compositional(held_out_only=True),
}


def drawn(distribution, n=20_000, held_out=False, seed=0):
    keys = jax.random.split(jax.random.key(seed), n)
    x, kind = jax.jit(jax.vmap(lambda k: distribution.sample(distribution.arrays(), held_out, key=k)))(keys)
    return np.asarray(x, np.float64), np.asarray(kind)


# --- distributions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*DISTRIBUTIONS, *OTHERS])
def test_covariance_and_kinds_are_those_of_draws(name):
    distribution = (DISTRIBUTIONS | OTHERS)[name]
    x, kind = drawn(distribution)
    d = distribution.n_dimensions
    assert x.shape == (20_000, d) and kind.dtype.kind == "i"
    assert kind.min() >= 0 and kind.max() < distribution.n_kinds
    covariance = distribution.covariance()
    # each entry within five standard errors of its own
    products = (x - x.mean(0))[:, :, None] * (x - x.mean(0))[:, None, :]
    error = products.std(axis=0) / 20_000**0.5
    assert (np.abs(products.mean(axis=0) - covariance) < 5 * error + 1e-3).all()
    assert (np.abs(products.mean(axis=0) - 1.3 * covariance) > 5 * error + 1e-3).any(), "the test can fail"
    np.testing.assert_allclose(distribution.spectrum().sum(), np.trace(covariance))
    assert (np.diff(distribution.spectrum()) <= 0).all()


def test_shapes_of_the_distributions():
    assert stats.kstest(drawn(D.Gaussian(n_dimensions=1, variances=[4.0]))[0][:, 0] / 2, "norm").pvalue > 1e-3
    assert stats.kstest(drawn(OTHERS["interval"])[0][:, 0], stats.uniform(-1, 4).cdf).pvalue > 1e-3
    signs = drawn(D.Signs(n_dimensions=3))[0]
    assert set(np.unique(signs)) == {-1.0, 1.0} and len(np.unique(signs, axis=0)) == 8
    dictionary = D.Dictionary(n_patterns=6, exponent=1.5, pattern_seed=3)
    x, kind = drawn(dictionary)
    np.testing.assert_allclose(x, dictionary.patterns()[kind], rtol=1e-6)
    expected = np.arange(1, 7) ** -1.5
    assert stats.chisquare(np.bincount(kind), 20_000 * expected / expected.sum()).pvalue > 1e-3
    assert stats.chisquare(np.bincount(kind), np.full(6, 20_000 / 6)).pvalue < 1e-9


def test_held_out_combinations_are_never_trained_and_no_value_is_new():
    for distribution in (D.Compositional(), OTHERS["three factors"]):
        f, v = distribution.n_factors, distribution.n_values
        place = v ** np.arange(f)
        trained, held = (set(np.unique(drawn(d)[1])) for d in (distribution, distribution.out_of_distribution()))
        assert trained | held == set(range(v**f)) and not trained & held
        assert len(held) == v ** (f - 1) * distribution.n_held_out
        assert trained == {int(c @ place) for c in distribution.combinations(held_out=False)}
        digits = np.array([[k // p % v for p in place] for k in drawn(distribution)[1]])
        for factor in range(f):
            assert stats.chisquare(np.bincount(digits[:, factor])).pvalue > 1e-3
        # by hand from its definition
        x, kind = drawn(distribution, 50)
        a = distribution.patterns()
        for row, k in zip(x, kind, strict=True):
            np.testing.assert_allclose(row, sum(a[i, k // p % v] for i, p in enumerate(place)) / f**0.5, atol=1e-5)


def test_digits_keep_pictures_for_evaluation():
    from sklearn.datasets import load_digits

    pixels, digit = load_digits(return_X_y=True)
    find = lambda x: np.array([np.flatnonzero((np.abs(known - row) < 1e-4).all(axis=1))[0] for row in x])
    known = DISTRIBUTIONS["digits"].arrays()["pictures"]
    assert abs(known.var(axis=0).mean() - 1) < 1e-5 and np.abs(known.mean(axis=0)).max() < 1e-5
    assert np.corrcoef(known.ravel(), (pixels - pixels.mean(0)).ravel())[0, 1] > 0.999999
    for held_out, low, high in ((False, 0, 1500), (True, 1500, 1797)):
        x, kind = drawn(DISTRIBUTIONS["digits"], 300, held_out)
        place = find(x)
        assert (digit[place] == kind).all() and place.min() >= low and place.max() < high
    assert find(drawn(D.Digits(n_held_out=0), 300, held_out=True)[0]).min() < 1500


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: D.Gaussian(n_dimensions=2, variances=[1.0]), "2 numbers"),
        (lambda: D.Gaussian(n_dimensions=2, variances=[0.0, 0.0]), "not all 0"),
        (lambda: D.Uniform(low=1.0, high=1.0), "below high"),
        (lambda: D.Digits(n_held_out=1797), "less than 1797"),
        (lambda: D.Compositional(n_held_out=4), "fewer held out"),
        (lambda: D.Compositional(n_held_out=0, held_out_only=True), "nothing is held out"),
        (lambda: pr.tasks.StaticVectors(shifts=[D.Signs(n_dimensions=3)]), "must be 8"),
        (lambda: pr.cells.BottleneckAutoencoder(n_classes=3), "2 classes or more, others none"),
        (lambda: pr.cells.BottleneckAutoencoder(bottleneck="categorical"), "2 classes or more"),
        (lambda: pr.cells.BottleneckAutoencoder(bottleneck="categorical", n_classes=1), "2 classes or more"),
        (lambda: pr.cells.BottleneckAutoencoder(bottleneck="binary", noise=0.1), "a continuous bottleneck's"),
        (lambda: pr.curricula.Shifts(epochs=[3, 3]), "each above the last"),
        (lambda: pr.curricula.Shifts(epochs=[]), "one or more"),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(pr.ConfigurationError, match=says):
        make()


OPTIONS = {
    "gaussian": ({"n_dimensions": 3}, {"n_dimensions": 2}, {"variances": [4.0, 1.0, 1.0]}),
    "uniform": ({"n_dimensions": 3}, {"n_dimensions": 2}, {"low": 0.0}, {"high": 2.0}),
    "signs": ({"n_dimensions": 3}, {"n_dimensions": 2}),
    "dictionary": ({}, {"n_dimensions": 2}, {"n_patterns": 9}, {"exponent": 4.0}, {"pattern_seed": 1}),
    "digits": ({}, {"n_held_out": 0}),
    "compositional": (
        {},
        *({"n_dimensions": 2}, {"n_factors": 3}, {"n_values": 3}, {"n_held_out": 3}, {"pattern_seed": 1}),
        {"held_out_only": True},
    ),
}


def test_every_option_of_a_distribution_changes_something():
    for name, (base, *changes) in OPTIONS.items():
        cls = catalogue.find("distributions", name)
        assert {k for c in changes for k in c} == {f.name for f in dataclasses.fields(cls)}, name
        usual = drawn(cls(**base), 20, held_out=True)[0].tolist()
        for change in changes:
            assert drawn(cls(**base | change), 20, held_out=True)[0].tolist() != usual, (name, change)
    assert set(OPTIONS) == set(DISTRIBUTIONS)


# --- the task -------------------------------------------------------------------------------------------------------


def trial_of(task, stage=0, seed=0):
    setting = task.draw(Stage(jnp.ones(1, bool), 0, jnp.asarray(stage)), key=None)
    return setting, task.sample(setting, task.arrays(), key=jax.random.key(seed))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_inputs_and_targets_are_one_vector_throughout(name):
    task = pr.tasks.StaticVectors(inputs=DISTRIBUTIONS[name], n_steps=3)
    setting, trial = trial_of(task)
    shown, wanted = in_steps(trial.inputs, 3), in_steps(trial.targets, 3)
    assert shown.shape == (3, task.n_inputs) and int(setting.length) == 3
    assert (shown == shown[0]).all() and (shown == wanted).all() and np.abs(shown).max() > 0
    perfect = task.scores(wanted, trial, setting)["explained"]
    half = task.scores(wanted + 0.5**0.5 * float(trial.condition["variance"]) ** 0.5, trial, setting)["explained"]
    np.testing.assert_allclose([perfect, half], [1, 0.5], rtol=1e-5)
    assert float(task.scores(wanted * np.array([[0], [0], [1]]), trial, setting)["explained"]) == 1, "the last step"
    assert float(task.scores(wanted + 99, trial, setting)["explained"]) == 0


def test_stages_are_distributions():
    later = [D.Uniform(n_dimensions=2, low=5.0, high=6.0), D.Gaussian(n_dimensions=2, variances=[0.0, 9.0])]
    task = pr.tasks.StaticVectors(inputs=D.Signs(n_dimensions=2), shifts=later)
    x = [np.array([in_steps(trial_of(task, s, k)[1].inputs, 4)[0] for k in range(20)]) for s in range(4)]
    assert (np.abs(x[0]) == 1).all() and (x[1] >= 5).all() and (x[1] <= 6).all()
    assert (x[2][:, 0] == 0).all() and (x[2][:, 1] != 0).all()
    assert (x[3] == x[2]).all(), "beyond the last stage the last distribution stays"
    variances = [float(trial_of(task, s)[1].condition["variance"]) for s in range(3)]
    np.testing.assert_allclose(variances, [1, 1 / 12, 4.5], rtol=1e-6)


def test_out_of_distribution_is_what_was_held_out_else_longer():
    task = pr.tasks.StaticVectors(inputs=D.Compositional())
    assert task.out_of_distribution().inputs == D.Compositional(held_out_only=True)
    assert task.out_of_distribution().n_steps == task.n_steps
    assert pr.tasks.StaticVectors(n_steps=3).out_of_distribution() == pr.tasks.StaticVectors(n_steps=6)
    with pytest.raises(pr.NotApplicableError, match="holds nothing out"):
        D.Gaussian().out_of_distribution()


def test_members_may_differ_in_their_steps():
    run = pr.fit(
        pr.tasks.StaticVectors(max_steps=5),
        pr.cells.BottleneckAutoencoder(n_units=4),
        members=2,
        vary={"task.n_steps": [2, 5]},
        objective="final",
        **TINY,
    )
    assert pr.rollout(run, n_trials=2).length.tolist() == [2, 5]


# --- objectives -----------------------------------------------------------------------------------------------------


def test_final_and_anytime_against_numpy():
    rng = np.random.default_rng(0)
    outputs, targets = rng.normal(size=(2, 6, 3)).astype(np.float32)
    weights = np.array([1.0, 0.0, 2.0, 0.5, 9.0, 9.0], np.float32)
    task = pr.tasks.Arrays.of(np.zeros((1, 6, 1)), np.zeros((1, 6, 3)))
    trial, error = Trial(None, jnp.asarray(targets), jnp.asarray(weights)), ((outputs - targets) ** 2).mean(axis=1)
    loss = lambda objective, length: float(objective.loss(task, jnp.asarray(outputs), trial, Setting(length)))
    for length in (1, 4):  # later steps do not exist
        np.testing.assert_allclose(loss(pr.objectives.Final(), length), error[length - 1], rtol=1e-6)
        np.testing.assert_allclose(loss(pr.objectives.Anytime(), length), weights[:length] @ error[:length], rtol=1e-6)
    wrong = Trial(None, jnp.zeros((6, 2)), jnp.ones(6))
    for name in ("final", "anytime"):
        with pytest.raises(pr.ConfigurationError, match=f"objective '{name}' needs targets"):
            catalogue.find("objectives", name)().loss(task, jnp.asarray(outputs), wrong, Setting(4))
    parity = pr.tasks.NParity(n_max=3)
    with pytest.raises(pr.ConfigurationError, match="last step only"):
        pr.objectives.Anytime().loss(parity, jnp.zeros(4), Trial(None, jnp.zeros(4)), Setting(4))
    last = pr.objectives.Final().loss(parity, jnp.zeros(4), Trial(None, jnp.full(4, 3.0)), Setting(4))
    assert float(last) == 9.0


# --- the curriculum -------------------------------------------------------------------------------------------------


def test_shifts_come_by_the_clock_and_snapshots_show_them():
    inputs = D.Gaussian(n_dimensions=2, variances=[1.0, 0.0])
    task = pr.tasks.StaticVectors(inputs=inputs, shifts=[D.Gaussian(n_dimensions=2, variances=[0.0, 1.0])], n_steps=2)
    options = dict(curriculum=pr.curricula.Shifts(epochs=[2]), objective="anytime", monitors=(), snapshots=1)
    run = pr.fit(task, pr.cells.BottleneckAutoencoder(n_units=4), **options, **TINY | {"epochs": 4})
    assert run.history["stage"][:, 0].tolist() == [0, 0, 1, 1]
    assert sorted(run.snapshots) == [f"epoch_{e:05d}" for e in (1, 2, 3, 4)]
    # the first channel is silent from the third epoch on: its weights stand still but for Adam's momentum
    W = [run.snapshots[s].parameters.trainable["W_in"][0] for s in sorted(run.snapshots)]
    assert np.abs(W[1] - W[0])[:, 1].max() == 0 < np.abs(W[3] - W[2])[:, 1].max()
    assert pr.curricula.Shifts(epochs=[2, 5]).n_stages(task) == 3


# --- the cell -------------------------------------------------------------------------------------------------------

N, N_IN, N_OUT, N_STEPS = 5, 3, 2, 4
KINDS = {
    "continuous": dict(width=2),
    "squashed": dict(width=2, squash=True),
    "binary": dict(width=3, bottleneck="binary"),
    "categorical": dict(width=2, bottleneck="categorical", n_classes=3),
    "without feedback": dict(width=2, feedback=False),
}


def some_arrays(cell, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {k: v.shape for k, v in cell.init(N_IN, N_OUT, key=jax.random.key(0)).trainable.items()}
    return {k: rng.normal(size=s) for k, s in shapes.items()}, rng.normal(size=N_IN)


def reference(cell, a, x, temperature=None, chance=None):
    """The equations in NumPy, step by step; hard codes."""
    h, out = np.zeros(N), []
    for _ in range(N_STEPS):
        e = np.tanh(a["W_in"] @ x + a["b_encoder"] + (a["W_feedback"] @ h if cell.feedback else 0))
        z = a["W_bottleneck"] @ e + a["b_bottleneck"]
        if cell.squash:
            z = np.tanh(z)
        if cell.bottleneck == "binary":
            z = np.sign(z)
        if cell.bottleneck == "categorical":
            z = np.eye(3)[z.reshape(2, 3).argmax(axis=1)].reshape(-1)
        h = np.tanh(a["W"] @ h + a["W_decoder"] @ z + a["bias"])
        out.append((z, h, a["W_out"] @ h + a["b_out"]))
    return [np.array(part) for part in zip(*out, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_the_equations(kind):
    cell = pr.cells.BottleneckAutoencoder(n_units=N, **KINDS[kind])
    arrays, x = some_arrays(cell)
    with backend.precision(64):
        parameters = pr.Parameters({k: jnp.asarray(v) for k, v in arrays.items()}, {})
        prepared = cell.prepare(parameters, pr.Context())
        state, found = cell.initial_state(prepared, key=None), []
        for t in range(N_STEPS):
            state = cell.step(prepared, state, jnp.asarray(x), key=jax.random.key(t), context=pr.Context())
            found.append((state.z, cell.activity(state), cell.readout(prepared, state)))
        for mine, theirs in zip(zip(*found, strict=True), reference(cell, arrays, x), strict=True):
            np.testing.assert_allclose(np.array(mine), theirs, rtol=1e-11, atol=1e-12)
        seen = len({tuple(np.round(np.asarray(z), 6)) for z, _, _ in found})
        discrete = cell.bottleneck != "continuous"
        assert discrete or (seen > 1) == cell.feedback, "what is sent changes by feedback alone"
        code = np.asarray(cell.code(state))
        assert code.shape == (cell.width,)
        if cell.bottleneck != "continuous":
            assert (code == np.round(code)).all() and code.min() >= 0 and code.max() < (cell.n_classes or 2)


def test_the_unroll_runs_the_same_equations():
    cell = pr.cells.BottleneckAutoencoder(n_units=N, **KINDS["categorical"])
    arrays, _ = some_arrays(cell)
    task = pr.tasks.StaticVectors(inputs=D.Gaussian(n_dimensions=N_IN), n_steps=N_STEPS)
    arrays |= {"W_out": np.ones((N_IN, N)), "b_out": np.arange(N_IN)}
    answer = pr.rollout(pr.from_arrays(task, cell, arrays), n_trials=3)
    for i in range(3):
        _, h, y = reference(cell, arrays, answer.inputs[0, i, 0].astype(float))
        np.testing.assert_allclose(answer.states[0, i], h, atol=1e-5)
        np.testing.assert_allclose(answer.outputs[0, i], y, atol=1e-4)


def passes(cell, logits, seed=0, n=20_000, training=True, step=0):
    """What passes in training, many times over: by a cell whose encoder says nothing but these logits."""
    arrays = {k: jnp.zeros_like(v) for k, v in cell.init(1, 1, key=jax.random.key(0)).trainable.items()}
    prepared = arrays | {"b_bottleneck": jnp.asarray(logits, jnp.float32)}
    context = pr.Context(schedule=cell.schedule(step) if training else {}, training=training)
    state = cell.initial_state(prepared, key=None)
    one = lambda key: cell.step(prepared, state, jnp.zeros(1), key=key, context=context).z
    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed), n)))


def test_random_units_have_the_probabilities_of_their_logits():
    binary = pr.cells.BottleneckAutoencoder(n_units=2, width=2, bottleneck="binary")
    z = passes(binary, [1.0, -0.4])
    p = 1 / (1 + np.exp(-np.array([1.0, -0.4])))
    assert set(np.unique(z.round(5))) == {-1.0, 1.0}
    np.testing.assert_allclose((z > 0).mean(axis=0), p, atol=5 * 0.5 / 20_000**0.5)
    assert (passes(binary, [1.0, -0.4], training=False) == [1, -1]).all(), "hard and free of chance in use"
    assert (passes(binary.substitute({"gumbel": 0.0}), [1.0, -0.4]).round(5) == [1, -1]).all()
    three = pr.cells.BottleneckAutoencoder(n_units=2, width=1, bottleneck="categorical", n_classes=3)
    logits = np.array([0.5, 0.0, -1.0])
    z = passes(three, logits)
    np.testing.assert_allclose(z.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(z.mean(axis=0), np.exp(logits) / np.exp(logits).sum(), atol=5 * 0.5 / 20_000**0.5)
    assert (passes(three, logits, training=False) == [1, 0, 0]).all()


def test_noise_of_a_continuous_bottleneck_is_there_in_use_too():
    cell = pr.cells.BottleneckAutoencoder(n_units=2, width=2, noise=0.3)
    for training in (True, False):
        z = passes(cell, [1.0, 0.0], training=training)
        np.testing.assert_allclose(z.mean(axis=0), [1, 0], atol=0.01)
        np.testing.assert_allclose(np.cov(z.T), 0.09 * np.eye(2), atol=0.004)


def test_the_gradient_is_that_of_the_soft_code():
    """Straight through: for a readout linear in z, the gradient in the logits is that of tanh or softmax, at tau."""
    tau = 0.7
    context = pr.Context(schedule={"temperature": tau, "relaxed": False})
    w = np.array([1.0, -2.0, 0.5])
    for options, soft in (
        (dict(width=3, bottleneck="binary"), lambda a: np.tanh(a / (2 * tau))),
        (dict(width=1, bottleneck="categorical", n_classes=3), lambda a: np.exp(a / tau) / np.exp(a / tau).sum()),
    ):
        cell = pr.cells.BottleneckAutoencoder(n_units=2, gumbel=0.0, **options)
        with backend.precision(64):
            a = jnp.array([0.3, -0.2, 0.6])
            found = jax.grad(lambda a, cell=cell: jnp.sum(w * cell._pass(a, 0.0, context)))(a)
            relaxed = pr.Context(schedule={"temperature": tau, "relaxed": True})
            np.testing.assert_allclose(cell._pass(a, 0.0, relaxed), soft(np.asarray(a)), rtol=1e-12)
            assert (cell._pass(a, 0.0, context) == cell._pass(a, 0.0, pr.Context())).all(), "hard forwards"
            step = lambda i: 1e-6 * np.eye(3)[i]
            wanted = [(w @ soft(a + step(i)) - w @ soft(a - step(i))) / 2e-6 for i in range(3)]
            np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_the_temperature_falls_in_a_geometric_line():
    cell = pr.cells.BottleneckAutoencoder(
        bottleneck="binary", temperature=2.0, final_temperature=0.5, annealing_steps=10
    )
    found = [float(cell.schedule(n)["temperature"]) for n in (0, 5, 10, 99)]
    np.testing.assert_allclose(found, [2, 1, 0.5, 0.5], rtol=1e-6)
    assert float(cell.substitute({"annealing_steps": 0}).schedule(0)["temperature"]) == 0.5
    assert pr.cells.BottleneckAutoencoder().schedule(3) == {}


CONTINUOUS, DISCRETE = dict(n_units=4), dict(n_units=4, bottleneck="binary")
CHANGES = {
    "n_units": (CONTINUOUS, 5),
    "width": (CONTINUOUS, 3),
    "bottleneck": (CONTINUOUS, "binary"),
    "n_classes": (dict(n_units=4, bottleneck="categorical", n_classes=2), 3),
    "activation": (CONTINUOUS, "relu"),
    "negative_slope": (CONTINUOUS | {"activation": "leaky_relu"}, 0.5),
    "feedback": (CONTINUOUS, False),
    "recurrent_gain": (CONTINUOUS, 2.0),
    "feedback_gain": (CONTINUOUS, 2.0),
    "bias_gain": (CONTINUOUS, 2.0),
    "squash": (CONTINUOUS, True),
    "noise": (CONTINUOUS, 0.5),
    "gumbel": (DISCRETE, 0.5),
    "temperature": (DISCRETE, 3.0),
    "final_temperature": (DISCRETE | {"annealing_steps": 2}, 0.05),
    "annealing_steps": (DISCRETE, 1),
    "relaxed_steps": (DISCRETE, 2),
}


def what_training_sees(cell):
    """Gradient of a step in the middle of the annealing, and what passes in use."""
    arrays = cell.init(2, 2, key=jax.random.key(0)).trainable
    x = jnp.array([0.5, -1.0])

    def outputs(arrays, training):
        context = pr.Context(schedule=cell.schedule(1) if training else {}, training=training)
        prepared = cell.prepare(pr.Parameters(arrays, {}), context)
        state, out = cell.initial_state(prepared, key=None), []
        for t in range(3):
            state = cell.step(prepared, state, x, key=jax.random.key(t), context=context)
            out.append(cell.readout(prepared, state))
        return jnp.stack(out)

    gradient = jax.jit(jax.grad(lambda a: jnp.sum(outputs(a, True) ** 2)))(arrays)
    return {k: v.tolist() for k, v in gradient.items()}, outputs(arrays, False).tolist()


def test_every_option_of_the_cell_changes_something():
    cls = pr.cells.BottleneckAutoencoder
    assert set(CHANGES) == {f.name for f in dataclasses.fields(cls)}
    for field, (base, value) in CHANGES.items():
        usual = what_training_sees(cls(**base))
        assert what_training_sees(cls(**base | {field: value})) != usual, field
        assert what_training_sees(cls(**base)) == usual


def test_gains_scale_the_start_and_nothing_else():
    start = lambda **gains: pr.cells.BottleneckAutoencoder(**gains).init(3, 3, key=jax.random.key(2)).trainable
    plain, moved = start(), start(recurrent_gain=2.0, feedback_gain=3.0, bias_gain=0.5)
    factor = {"W": 2.0, "W_feedback": 3.0, "bias": 0.5, "b_encoder": 0.5}
    for name, array in plain.items():
        np.testing.assert_array_equal(moved[name], factor.get(name, 1.0) * array)
    assert not np.asarray(start(feedback_gain=0.0)["W_feedback"]).any()


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_gradients_equal_central_differences(kind):
    """Through the unroll, chance included; for a discrete one as long as it is relaxed."""
    cell = pr.cells.BottleneckAutoencoder(n_units=3, gumbel=0.0, **KINDS[kind])
    if kind == "categorical":
        cell = pr.cells.BottleneckAutoencoder(n_units=3, relaxed_steps=9, **KINDS[kind])
    setup = pr.Setup(task=pr.tasks.StaticVectors(n_steps=3), cell=cell, training=pr.Training(batch=4))
    program = Program(setup)
    with backend.precision(64):
        trainable = jax.tree.map(lambda a: a.astype(float), cell.init(8, 8, key=jax.random.key(0)).trainable)
        stage = setup.training.curriculum.stage(setup.task, setup.training.curriculum.init(setup.task))

        @jax.jit
        def loss(w):
            parameters = pr.Parameters(w, {})
            arrays = setup.task.arrays()
            return program.batch_loss(setup, parameters, stage, arrays, 5, None, key=jax.random.key(1))[0]

        gradient = jax.grad(loss)(trainable)
        direction = {k: np.random.default_rng(i).normal(size=v.shape) for i, (k, v) in enumerate(trainable.items())}
        move = lambda step: {k: v + step * direction[k] for k, v in trainable.items()}
        slope = (loss(move(1e-5)) - loss(move(-1e-5))) / 2e-5
        np.testing.assert_allclose(sum(np.sum(gradient[k] * direction[k]) for k in gradient), slope, rtol=1e-5)


def test_a_reconstruction_is_learned():
    """One number through one unit; not where all that is trained is what to say on average."""
    options = dict(epochs=1, steps_per_epoch=300, batch=64, evaluation_batches=4, objective="final", monitors=())
    task = pr.tasks.StaticVectors(inputs=D.Gaussian(n_dimensions=1), n_steps=2)
    cell = pr.cells.BottleneckAutoencoder(n_units=16, width=1)
    adam = {"kind": "adam", "learning_rate": 0.01}
    assert pr.fit(task, cell, optimizer=adam, **options).history["loss"][-1, 0] < 0.1
    blind = pr.fit(task, cell, optimizer=adam, trainable=["b_out"], **options)
    assert blind.history["loss"][-1, 0] > 0.5
