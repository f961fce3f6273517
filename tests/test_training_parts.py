"""The parts of training, one by one: curricula, penalties, monitors, schedules, optimizers, objectives, settings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

import poprnn as pr
from conftest import TINY
from poprnn.core import backend, catalogue
from poprnn.tasks.contract import Setting, Trial
from poprnn.training.monitors.contract import Observation
from poprnn.training.program import Program
from poprnn.training.run import stack_varied

C, OPT = pr.curricula, pr.optimizers
TASK = pr.tasks.NParity(n_max=8)  # seven heads


def course(curriculum, task=TASK):
    """Active heads and newest head of every stage."""
    out = []
    for index in range(curriculum.n_stages(task)):
        active, newest = curriculum.heads(task, jnp.asarray(index))
        out.append((np.flatnonzero(active).tolist(), int(newest)))
    return out


# --- curricula ------------------------------------------------------------------------------------------------------


def sliding(window, shift, n=7):
    """Grow to the full width one by one, then move on by ``shift``, the last window cut by the end of the heads."""
    stages = [(list(range(i + 1)), i) for i in range(min(window, n))]
    first = 0
    while stages[-1][1] < n - 1:
        first += shift
        last = min(first + window - 1, n - 1)
        stages.append((list(range(first, last + 1)), last))
    return stages


def test_heads_of_every_stage():
    assert course(C.SingleHead()) == [([i], i) for i in range(7)]
    assert course(C.MultiHead()) == [(list(range(i + 1)), i) for i in range(7)]
    assert course(C.AllHeads()) == [(list(range(7)), 6)]
    assert course(C.None_()) == [([6], 6)]
    assert course(C.None_(head=2)) == [([2], 2)]
    for window in range(1, 9):
        for shift in range(1, window + 1):
            assert course(C.SlidingWindow(window=window, shift=shift)) == sliding(window, shift), (window, shift)
    assert course(C.SlidingWindow(window=3, shift=2))[-2:] == [([2, 3, 4], 4), ([4, 5, 6], 6)]


def test_only_single_head_shares_a_readout():
    shared = {
        n: catalogue.find("curricula", n).shared_readout
        for n in ("all_heads", "multi_head", "none", "single_head", "sliding_window")
    }
    assert [n for n, yes in shared.items() if yes] == ["single_head"]
    assert C.SingleHead().stage(TASK, C.SingleHead().init(TASK)).shared


def test_curricula_that_cannot_be():
    one = pr.tasks.NParity(n_max=2)
    for curriculum in (C.SingleHead(), C.MultiHead(), C.SlidingWindow()):
        with pytest.raises(pr.ConfigurationError, match="several heads"):
            curriculum.check(one)
    C.AllHeads().check(one)
    with pytest.raises(pr.ConfigurationError, match="head = 7"):
        C.None_(head=7).check(TASK)
    with pytest.raises(pr.ConfigurationError, match="would skip heads"):
        C.SlidingWindow(window=2, shift=3)


def scores(**by_head):
    found = np.full(7, np.nan, np.float32)
    for head, value in by_head.items():
        found[int(head[1:])] = value
    return {"accuracy": jnp.asarray(found)}


@pytest.mark.parametrize(
    ("values", "passes"),
    [
        ((0.95, 0.95, 0.95), True),
        ((1.0, 1.0, 0.85), False),  # the mean alone
        ((0.80, 0.80, 0.99), False),  # the newest alone
        ((0.85, 0.95, 0.95), True),  # an older head may lag behind while the mean holds
        ((0.9, 0.9, 0.9), False),  # equal is not above
        ((0.0, 0.0, 0.0), False),
    ],
)
def test_a_stage_is_passed_by_the_mean_and_the_newest_head(values, passes):
    curriculum = C.MultiHead(threshold=0.9)
    at = pr.Progress(jnp.asarray(2), jnp.asarray(False))
    after = curriculum.update(TASK, at, scores(**{f"h{i}": v for i, v in enumerate(values)}))
    assert (int(after.index), bool(after.finished)) == (2 + passes, False)
    assert passes == (np.mean(values) > 0.9 + 1e-6 and values[-1] > 0.9 + 1e-6)


@pytest.mark.parametrize(
    "curriculum",
    [C.SingleHead(), C.MultiHead(), C.SlidingWindow(window=3), C.None_(), C.AllHeads()],
    ids=lambda c: c.name(),
)
def test_a_course_from_start_to_finish(curriculum):
    good, bad = scores(**{f"h{i}": 0.99 for i in range(7)}), scores(**{f"h{i}": 0.97 for i in range(7)})
    n, at = curriculum.n_stages(TASK), curriculum.init(TASK)
    assert (int(at.index), bool(at.finished)) == (0, False)
    for i in range(n):
        at = curriculum.update(TASK, at, bad)
        assert (int(at.index), bool(at.finished)) == (i, False)
        at = curriculum.update(TASK, at, good)
        assert (int(at.index), bool(at.finished)) == (min(i + 1, n - 1), i == n - 1)
    at = curriculum.update(TASK, at, bad)
    assert bool(at.finished), "what is finished stays so"


# --- penalties ------------------------------------------------------------------------------------------------------


def matrix(seed=0, shape=(4, 4)):
    return np.random.default_rng(seed).normal(size=shape)


def test_weight_penalties_against_numpy():
    p = {"W": jnp.asarray(matrix(), jnp.float32), "W_in": jnp.asarray(matrix(1, (4, 2)), jnp.float32)}
    norms = {
        "l1": lambda a: np.abs(a).sum(),
        "l2": lambda a: (a**2).sum(),
        "nuclear_norm": lambda a: np.linalg.norm(a, "nuc"),
    }
    for name, norm in norms.items():
        cls = catalogue.find("penalties", name)
        np.testing.assert_allclose(cls().on_weights(p), norm(matrix()), rtol=1e-5)
        both = cls(arrays=("W", "W_in")).on_weights(p)
        np.testing.assert_allclose(both, norm(matrix()) + norm(matrix(1, (4, 2))), rtol=1e-5)
        assert float(cls().on_activity(p["W"][0])) == 0


def repeated():
    """Distinct; repeated singular values 2, 2, 2, 1; rectangular; the identity."""
    q1, q2 = np.linalg.qr(matrix(2))[0], np.linalg.qr(matrix(3))[0]
    return [matrix(), q1 @ np.diag([2.0, 2, 2, 1]) @ q2, matrix(4, (5, 3)), np.eye(4)]


@pytest.mark.parametrize("case", range(4))
def test_nuclear_norm_gradient_against_finite_differences(case):
    from poprnn.training.penalties.nuclear_norm import NuclearNorm

    W, eps = repeated()[case], 1e-6
    with backend.precision(64):
        gradient = np.asarray(jax.grad(NuclearNorm().on_array)(jnp.asarray(W)))
    for i, j in np.ndindex(W.shape):
        step = np.zeros_like(W)
        step[i, j] = eps
        difference = (np.linalg.norm(W + step, "nuc") - np.linalg.norm(W - step, "nuc")) / (2 * eps)
        assert abs(gradient[i, j] - difference) < 1e-6


def test_nuclear_norm_gradient_is_finite_where_there_is_none():
    from poprnn.training.penalties.nuclear_norm import NuclearNorm

    assert np.isfinite(jax.grad(NuclearNorm().on_array)(jnp.zeros((3, 3)))).all()
    u, v = matrix(5)[0], matrix(6)[0]
    gradient = jax.grad(NuclearNorm().on_array)(jnp.asarray(np.outer(u, v), jnp.float32))
    np.testing.assert_allclose(gradient, np.outer(u, v) / np.linalg.norm(u) / np.linalg.norm(v), atol=1e-4)


def test_penalties_enter_the_loss():
    """Activity as the mean over the steps that exist, weights once; both times their strength."""
    cell = pr.cells.VanillaRNN(n_units=5)

    def loss(**penalties):
        made = tuple(
            {"kind": k, "strength": s} | ({"power": 1} if s == 0.5 and k == "activity" else {})
            for k, s in penalties.items()
        )
        setup = pr.Setup(task=pr.tasks.NParity(n_max=4), cell=cell, training=pr.Training(batch=6, penalties=made))
        program = Program(setup)
        parameters = cell.init(1, 6, key=jax.random.key(0))
        stage = setup.training.curriculum.stage(setup.task, setup.training.curriculum.init(setup.task))
        value = jax.jit(lambda k: program.batch_loss(setup, parameters, stage, (), jnp.asarray(0), None, key=k)[0])
        return float(value(key)), setup, parameters, stage

    key = jax.random.key(3)
    plain, setup, parameters, stage = loss()
    draw_key, sample_key, _, _ = jax.random.split(key, 4)
    setting = setup.task.draw(stage, key=draw_key)
    trials = jax.vmap(lambda k: setup.task.sample(setting, (), key=k))(jax.random.split(sample_key, 6))
    length = int(setting.length)
    assert length < setup.task.capacity, "else steps that do not exist would not be tested"
    p = {k: np.asarray(v, np.float64) for k, v in parameters.trainable.items()}
    h, states = np.zeros((6, 5)), []
    for t in range(length):
        h = np.tanh(h @ p["W"].T + np.asarray(trials.inputs)[:, t] @ p["W_in"].T + p["bias"])
        states.append(h)
    outputs = (h @ p["W_out"].T + p["b_out"]).reshape(6, 3, 2)
    log_p = np.take_along_axis(special.log_softmax(outputs, -1), np.asarray(trials.targets)[..., None], -1)
    np.testing.assert_allclose(plain, -log_p.sum(axis=(1, 2)).mean(), rtol=1e-5)
    np.testing.assert_allclose(loss(activity=0.3)[0] - plain, 0.3 * np.square(states).mean(), rtol=1e-4)
    both = loss(activity=0.5, l2=0.2)[0]
    np.testing.assert_allclose(both - plain, 0.5 * np.abs(states).mean() + 0.2 * np.square(p["W"]).sum(), rtol=1e-4)


def test_a_penalty_on_an_array_that_is_not_there_is_refused():
    with pytest.raises(pr.ConfigurationError, match="no array 'V'"):
        pr.fit(
            pr.tasks.NParity(n_max=3),
            pr.cells.VanillaRNN(n_units=4),
            penalties=({"kind": "l2", "arrays": ["V"]},),
            **TINY,
        )


# --- monitors -------------------------------------------------------------------------------------------------------


def ends(monitor, losses, finished=False):
    """The evaluation (from 0) at which a monitor ends a member, or ``None``."""
    state = monitor.init()
    for i, loss in enumerate(losses):
        seen = Observation(
            i + 1,
            False,
            jnp.asarray(loss, jnp.float32),
            {},
            pr.Parameters({}, {}),
            jnp.asarray(finished),
            jnp.asarray(False),
        )
        state, end = monitor.update(state, seen)
        if bool(end):
            return i
    return None


def test_solved():
    M = pr.monitors.Solved
    assert ends(M(), [9.0], finished=True) == 0
    assert ends(M(), [0.0] * 5) is None
    assert ends(M(patience=3), [9.0] * 5, finished=True) == 2
    assert ends(M(loss=0.5, patience=3), [0.4, 0.4, 0.6, 0.4, 0.4, 0.4]) == 5
    assert ends(M(loss=0.5, patience=2), [0.5, 0.5, 0.5]) is None
    assert ends(M(loss=0.5), [9.0, 9.0], finished=True) is None, "with a loss given, the curriculum does not decide"


def test_early_stopping():
    M = pr.monitors.EarlyStopping
    assert ends(M(patience=3), [1.0, 0.9, 0.95, 0.9, 0.91]) == 4
    assert ends(M(patience=3), [1.0, 0.9, 0.95, 0.91, 0.89, 0.9, 0.9, 0.9]) == 7
    assert ends(M(patience=2), list(np.linspace(1, 0, 20))) is None
    assert ends(M(patience=2, min_change=0.2), list(np.linspace(1, 0.9, 20))) == 2


def test_early_stopping_counts_a_slow_but_steady_fall():
    """0.06 an evaluation is more than ``min_change`` within the patience."""
    assert ends(pr.monitors.EarlyStopping(patience=3, min_change=0.1), list(np.linspace(2, 2 - 0.06 * 19, 20))) is None


def test_diverged_and_budget_spent():
    seen = Observation(
        1, jnp.asarray(False), jnp.asarray(1.0), {}, pr.Parameters({}, {}), jnp.asarray(False), jnp.asarray(False)
    )
    for monitor, field in ((pr.monitors.Diverged(), "diverged"), (pr.monitors.BudgetSpent(), "last_epoch")):
        assert not bool(monitor.update((), seen)[1])
        assert bool(monitor.update((), seen._replace(**{field: jnp.asarray(True)}))[1])


# --- schedules and optimizers ---------------------------------------------------------------------------------------


def test_schedules_against_their_formulas():
    S, steps = pr.schedules, np.arange(60)

    def cosine(step, peak, decay, warm, end):
        if step < warm:
            return peak * step / warm
        part = min((step - warm) / (decay - warm), 1)
        return peak * (end + (1 - end) * (1 + np.cos(np.pi * part)) / 2)

    cases = [
        (S.Cosine(peak=0.1, decay_steps=40), [cosine(t, 0.1, 40, 0, 0) for t in steps]),
        (
            S.Cosine(peak=0.1, decay_steps=40, warmup_steps=8, end_fraction=0.2),
            [cosine(t, 0.1, 40, 8, 0.2) for t in steps],
        ),
        (
            S.Cosine(peak=0.1, decay_steps=15, warmup_steps=3, n_cycles=4),
            [cosine(t % 15, 0.1, 15, 3, 0) for t in steps],
        ),
        (S.Exponential(start=0.3, factor=0.5, every=7), 0.3 * 0.5 ** (steps / 7)),
        (S.Exponential(start=0.3, factor=0.5, every=7, staircase=True), 0.3 * 0.5 ** (steps // 7)),
        (
            S.Piecewise(values=(0.3, 0.2, 0.1), boundaries=(10, 25)),
            np.where(steps < 10, 0.3, np.where(steps < 25, 0.2, 0.1)),
        ),
    ]
    for schedule, wanted in cases:
        found = np.asarray(jax.vmap(schedule.build())(jnp.asarray(steps)))
        np.testing.assert_allclose(found, wanted, atol=1e-7, rtol=1e-4, err_msg=str(schedule))
    with pytest.raises(pr.ConfigurationError, match="2 values need 1 boundaries, not 2"):
        S.Piecewise(values=(0.1, 0.2), boundaries=(1, 2))


def descend(optimizer, n=3, start=(3.0, -2.0, 0.5)):
    """Three steps on x² · (1, 10, 100) / 2."""
    x, scale = jnp.asarray(start), jnp.asarray([1.0, 10.0, 100.0])
    memory = optimizer.init(x)
    path = []
    for _ in range(n):
        change, memory = optimizer.update(scale * x, memory, x)
        x = optax.apply_updates(x, change)
        path.append(np.asarray(x))
    return np.array(path)


PAIRS = {
    "sgd": (OPT.Sgd(learning_rate=0.05, momentum=0.3, nesterov=True), optax.sgd(0.05, momentum=0.3, nesterov=True)),
    "adam": (OPT.Adam(learning_rate=0.05, b1=0.8, b2=0.95, eps=1e-3), optax.adam(0.05, b1=0.8, b2=0.95, eps=1e-3)),
    "adamw": (
        OPT.AdamW(learning_rate=0.05, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.1),
        optax.adamw(0.05, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.1),
    ),
    "adagrad": (
        OPT.Adagrad(learning_rate=0.05, initial_accumulator=0.3, eps=1e-3),
        optax.adagrad(0.05, initial_accumulator_value=0.3, eps=1e-3),
    ),
    "lion": (
        OPT.Lion(learning_rate=0.05, b1=0.8, b2=0.9, weight_decay=0.1),
        optax.lion(0.05, b1=0.8, b2=0.9, weight_decay=0.1),
    ),
    "rmsprop": (
        OPT.RMSProp(learning_rate=0.05, decay=0.8, eps=1e-3, momentum=0.2),
        optax.rmsprop(0.05, decay=0.8, eps=1e-3, momentum=0.2),
    ),
}


def test_every_optimizer_has_its_pair():
    files = {p.stem for p in catalogue.folder("optimizers").glob("*.py") if not p.stem.startswith("_")}
    assert files - {"contract"} == set(PAIRS)


@pytest.mark.parametrize("name", PAIRS)
def test_optimizers_against_optax(name):
    ours, theirs = PAIRS[name]
    np.testing.assert_array_equal(descend(ours.build()), descend(theirs))


@pytest.mark.parametrize("name", PAIRS)
def test_every_option_of_an_optimizer_changes_something(name):
    ours, _ = PAIRS[name]
    ours = ours.substitute({"clip_norm": 4.0, "clip_value": 8.0})
    before = descend(ours.build(), n=40)  # Lion only sees signs, so clipping shows late
    for field in dataclasses.fields(ours):
        if (name, field.name) == ("lion", "clip_value"):  # signs survive it; the clipping itself is tested below
            continue
        value = getattr(ours, field.name)
        new = not value if isinstance(value, bool) else value / 2
        assert (descend(ours.substitute({field.name: new}).build(), n=40) != before).any(), field.name


def test_sgd_and_clipping_against_numpy():
    g = np.array([3.0, -20.0, 50.0])
    step = lambda **o: descend(OPT.Sgd(learning_rate=0.1, **o).build(), n=1)[0] - np.array([3.0, -2.0, 0.5])
    np.testing.assert_allclose(step(), -0.1 * g, rtol=1e-5)
    np.testing.assert_allclose(step(clip_norm=2.0), -0.1 * g * 2 / np.linalg.norm(g), rtol=1e-5)
    np.testing.assert_allclose(step(clip_norm=2e3), -0.1 * g, rtol=1e-5)
    np.testing.assert_allclose(step(clip_value=10.0), -0.1 * g.clip(-10, 10), rtol=1e-5)
    clipped = g.clip(-10, 10)
    np.testing.assert_allclose(
        step(clip_value=10.0, clip_norm=2.0), -0.1 * clipped * 2 / np.linalg.norm(clipped), rtol=1e-5
    )
    np.testing.assert_allclose(step(momentum=0.3, nesterov=True), -0.1 * 1.3 * g, rtol=1e-5)


def test_a_schedule_drives_the_learning_rate():
    piecewise = pr.schedules.Piecewise(values=(0.1, 0.001), boundaries=(2,))
    path = descend(OPT.Sgd(learning_rate=piecewise).build(), start=(3.0, 0.0, 0.0))
    np.testing.assert_allclose(path[:, 0], [2.7, 2.43, 2.43 * 0.999], rtol=1e-5)


# --- objectives -----------------------------------------------------------------------------------------------------


def test_objectives_against_numpy_on_weights():
    rng = np.random.default_rng(0)
    task = pr.tasks.Arrays.of(np.zeros((1, 6, 1)), np.zeros((1, 6, 3)))
    outputs, targets = rng.normal(size=(2, 6, 3)).astype(np.float32)
    weights = np.array([1.0, 0.0, 2.0, 0.5, 9.0, 9.0], np.float32)
    classes = rng.integers(0, 3, 6)
    w = weights[:4].astype(np.float64)  # length 4: later steps do not exist
    mse = pr.objectives.MeanSquaredError().loss(task, outputs, Trial(None, targets, weights), Setting(4))
    np.testing.assert_allclose(mse, np.average(((outputs - targets)[:4] ** 2).mean(axis=1), weights=w), rtol=1e-5)
    log_p = special.log_softmax(outputs.astype(np.float64), axis=1)[np.arange(6), classes][:4]
    for given in (jnp.asarray(classes), jnp.asarray(np.eye(3, dtype=np.float32)[classes])):
        found = pr.objectives.CrossEntropy().loss(task, jnp.asarray(outputs), Trial(None, given, weights), Setting(4))
        np.testing.assert_allclose(found, -np.average(log_p, weights=w), rtol=1e-5)
    trial = Trial(None, jnp.asarray(targets), jnp.asarray(weights))
    assert float(pr.objectives.TaskLoss().loss(task, outputs, trial, Setting(4))) == float(mse)
    for name in ("mean_squared_error", "cross_entropy"):
        with pytest.raises(pr.ConfigurationError, match=f"objective '{name}' needs"):
            catalogue.find("objectives", name)().loss(
                TASK, jnp.zeros(14), Trial(None, jnp.zeros(7, int), jnp.ones(7)), Setting(4)
            )


# --- settings -------------------------------------------------------------------------------------------------------


def setup_of(**population):
    penalties = (pr.penalties.L2(strength=0.1), pr.penalties.L1(strength=0.2))
    return pr.Setup(
        population=pr.Population(**population),
        task=TASK,
        cell=pr.cells.VanillaRNN(n_units=4),
        training=pr.Training(penalties=penalties),
    )


def test_varied_values_are_cycled():
    rate, head = "training.optimizer.learning_rate", "cell.noise"
    setup = setup_of(members=5, vary={rate: (0.1, 0.2), head: (0, 1, 2)})
    assert [setup.population.values(k)[rate] for k in range(5)] == [0.1, 0.2, 0.1, 0.2, 0.1]
    stacked = stack_varied(setup)
    np.testing.assert_allclose(stacked[rate], [0.1, 0.2, 0.1, 0.2, 0.1], rtol=1e-6)
    assert stacked[head].tolist() == [0, 1, 2, 0, 1]
    assert setup.substitute({rate: 0.7}).training.optimizer.learning_rate == 0.7


def test_what_cannot_be_varied():
    for vary, words in [
        ({"cell.n_units": (3, 4)}, "cannot differ"),
        ({"cell.nois": (0.1,)}, "did you mean"),
        ({"cell.noise": ()}, "no values"),
        ({"cell.noise": (0.1, -1.0)}, "noise"),
    ]:
        with pytest.raises(pr.ConfigurationError, match=words):
            setup_of(vary=vary)


def test_the_strength_of_a_penalty_may_vary():
    setup = setup_of(members=2, vary={"training.penalties.1.strength": (0.1, 0.5)})
    assert setup.population.values(1) == {"training.penalties.1.strength": 0.5}


def test_replace_changes_one_option_and_checks_it():
    setup = setup_of(members=3, seed=7)
    new = setup.replace("cell.n_units", 9)
    assert (new.cell.n_units, setup.cell.n_units) == (9, 4)
    assert new == dataclasses.replace(setup, cell=pr.cells.VanillaRNN(n_units=9))
    assert setup.replace("training.optimizer", OPT.Sgd()).training.optimizer == OPT.Sgd()
    for path, value, words in [
        ("cell.n_units", -1, "n_units"),
        ("cell.n_unit", 3, "did you mean 'n_units'"),
        ("sell.n_units", 3, "did you mean 'cell'"),
    ]:
        with pytest.raises(pr.ConfigurationError, match=words):
            setup.replace(path, value)


def test_replace_keeps_what_varies():
    vary = {"cell.noise": (0.0, 0.1)}
    assert setup_of(members=2, vary=vary).replace("training.batch", 8).population.vary == vary


def test_replace_reaches_the_population_and_the_penalties():
    assert setup_of(members=2).replace("population.seed", 9).population.seed == 9
    assert setup_of().replace("training.penalties.1.strength", 0.7).training.penalties[1].strength == 0.7


# --- fits -----------------------------------------------------------------------------------------------------------

EASY = {
    "curriculum": C.MultiHead(threshold=0.0),
    "trainable": ["readout"],
    "members": 2,
    "steps_per_epoch": 2,
    "evaluation_batches": 1,
    "batch": 32,
}


@pytest.fixture(scope="session")
def easy():
    """Only the readout is trained, and every stage is passed at once: one stage an epoch, one epoch so far."""
    return pr.fit(pr.tasks.NParity(n_max=5), pr.cells.LeakyRNN(n_units=6), epochs=1, **EASY)


def test_only_the_named_groups_are_trained(easy, tiny_run):
    start, end = ({**p.trainable, **p.fixed} for p in (easy.initial, easy.parameters))
    assert {n for n in start if (start[n] != end[n]).any()} == {"W_out", "b_out"}
    assert set(easy.parameters.trainable) == {"W_out", "b_out"}
    start, end = tiny_run.initial.trainable, tiny_run.parameters.trainable
    assert {n for n in start if (start[n] != end[n]).any()} == {"W", "W_in", "bias", "W_out", "b_out", "tau"}


def test_an_unknown_group_is_refused():
    for name in ("redout", "W_inn"):
        with pytest.raises(pr.ConfigurationError, match=f"no array or group named '{name}'; did you mean"):
            pr.fit(TASK, pr.cells.LeakyRNN(n_units=6), trainable=[name], **TINY)


def test_continuing_keeps_the_stage(easy):
    assert easy.progress.index.tolist() == [1, 1]
    more = pr.fit(start=easy, epochs=2)
    assert more.history["stage"].tolist() == [[1, 1], [2, 2]]
    assert more.setup.population.generation == 1
    np.testing.assert_array_equal(more.initial.trainable["W_out"], easy.parameters.trainable["W_out"])
    assert set(more.snapshots) == {"stage_001", "stage_002"}
    again = pr.fit(start=easy, epochs=1, curriculum=C.MultiHead(threshold=0.5))
    assert again.history["stage"][0].tolist() == [0, 0], "another course begins at its start"


def test_snapshots(easy):
    assert set(easy.snapshots) == {"stage_000"}
    np.testing.assert_array_equal(
        easy.snapshots["stage_000"].parameters.trainable["W_out"], easy.parameters.trainable["W_out"]
    )
    options = dict(task=easy.task, cell=easy.cell, epochs=3, **EASY)
    assert pr.fit(snapshots="none", **options).snapshots == {}
    by_epoch = pr.fit(snapshots=2, **options)
    assert set(by_epoch.snapshots) == {"epoch_00002"}
    assert by_epoch.snapshots["epoch_00002"].reached.all()
    assert (by_epoch.at("epoch_00002").parameters.trainable["W_out"] != by_epoch.parameters.trainable["W_out"]).any()
    stages = pr.fit(snapshots="stages", **options).snapshots
    assert {n: s.epoch.tolist() for n, s in stages.items()} == {f"stage_00{i}": [i + 1, i + 1] for i in range(3)}
    np.testing.assert_array_equal(
        stages["stage_001"].parameters.trainable["W_out"],
        by_epoch.snapshots["epoch_00002"].parameters.trainable["W_out"],
    )


def test_more_heads_keep_the_old_rows(easy):
    bigger = pr.fit(start=easy, task=pr.tasks.NParity(n_max=7), epochs=0)
    old, new = easy.parameters.trainable, bigger.initial.trainable
    assert new["W_out"].shape == (2, 12, 6)
    np.testing.assert_array_equal(new["W_out"][:, :8], old["W_out"])
    np.testing.assert_array_equal(new["b_out"][:, :8], old["b_out"])
    assert (new["W_out"][:, 8:] != 0).all()
    assert (new["W_out"][0, 8:] != new["W_out"][1, 8:]).all()
    for name, array in easy.parameters.fixed.items():
        np.testing.assert_array_equal(bigger.initial.fixed[name], array)
    with pytest.raises(pr.ConfigurationError, match="has shape"):
        pr.fit(start=easy, task=pr.tasks.NParity(n_max=3), epochs=0)
