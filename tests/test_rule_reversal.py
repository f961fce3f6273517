"""Rule reversal against brute force from its own conditions, planted agents, and the networks' own states."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import special, stats

import poprnn as pr
from poprnn.core import backend
from poprnn.core.blueprint import variable_fields
from poprnn.core.references import bibtex
from poprnn.tasks.contract import Stage
from poprnn.training.fit import make_trainer
from poprnn.training.program import Program

make = pr.tasks.RuleReversal
NAMES = ("stimulus", "response", "feedback", "wait")
SHORT = dict(stimulus_ms=20.0, response_ms=30.0, feedback_ms=20.0, wait_ms=15.0, jitter_ms=10.0, warm_up_ms=15.0)
SHORT |= dict(grace_ms=5.0)
TINY = dict(epochs=2, steps_per_epoch=4, evaluation_batches=1, batch=4)


def stage_of(split="train"):
    return Stage(jnp.ones(1, bool), 0, 0, split=split)


@functools.cache
def sampler(task, split):
    """One compiled program for a setting and its trials."""

    def batch(draw_key, trial_keys, factor):
        setting = task.draw(stage_of(split), key=draw_key)
        if factor is not None:
            setting = task.coarsen(setting, factor)
        return setting, jax.vmap(lambda key: task.sample(setting, (), key=key))(trial_keys)

    return jax.jit(batch)


def batch_of(task, n=20, seed=0, split="train", factor=None):
    """One setting and ``n`` trials drawn under it, as NumPy arrays."""
    keys = jax.random.split(jax.random.key(seed + 1), n)
    found = sampler(task, split)(jax.random.key(seed), keys, factor)
    return jax.tree.map(np.asarray, found)


def one_of(trials, i):
    return jax.tree.map(lambda a: a[i], trials)


@functools.cache
def player(task):
    """The task's inputs for a whole sequence of given outputs, step by step as the unroll does it."""

    @jax.jit
    def play(trial, outputs):
        before = jnp.concatenate([jnp.zeros((1, 2)), outputs[:-1]])

        def step(state, given):
            return task.respond(state, trial, given[0], given[1], key=jax.random.key(0))

        start = task.begin(trial, key=jax.random.key(0))
        return lax.scan(step, start, (jnp.arange(len(outputs)), before))[1]

    return play


def spans(trial, name):
    """``[trial, 2]``: first step and the one past the last."""
    found = sorted((int(key.split("_")[1]), key) for key in trial.periods if key.startswith(f"{name}_"))
    return np.array([trial.periods[key] for _, key in found])


def expected_feedback(trial, choices):
    """``[time, (right, wrong)]``, from the current rule."""
    out = np.zeros((len(trial.targets), 2))
    for (start, end), choice, s, r in zip(
        spans(trial, "feedback"), choices, trial.condition["stimuli"], trial.condition["rules"], strict=True
    ):
        asked = s if r == 0 else 1 - s
        out[start:end, 0 if choice == asked else 1] = 1
    return out


def outputs_of(trial, choices, rng=None):
    """Logits that say ``choices`` in the responses, and anything elsewhere."""
    rng = rng or np.random.default_rng(0)
    out = 3 * rng.normal(size=(len(trial.targets), 2))
    for (start, end), choice in zip(spans(trial, "response"), choices, strict=True):
        out[start:end] = [[0, 1]] if choice else [[1, 0]]
    return out.astype(np.float32)


# --- time -----------------------------------------------------------------------------------------------------------


def many_durations(task, split, n=4000):
    draw = jax.jit(jax.vmap(lambda key: task.draw(stage_of(split), key=key)))
    setting = draw(jax.random.split(jax.random.key(0), n))
    return setting, np.asarray(setting.extra["durations_ms"], np.float64)


def test_durations_are_jittered_uniformly_and_independently():
    task = make(stimulus_ms=450.0, wait_ms=650.0)
    _, durations = many_durations(task, "train")
    assert durations.shape == (4000, 5, 4)
    for i, mean in enumerate((450, 500, 500, 650)):
        jitter = durations[:, :, i] - mean
        assert -100.001 < jitter.min() < -99 and 99 < jitter.max() < 100.001
        for k in range(5):
            assert stats.kstest(jitter[:, k], stats.uniform(-100, 200).cdf).pvalue > 1e-3, (i, k)
    correlation = np.corrcoef(durations.reshape(4000, -1).T)
    assert abs(correlation - np.eye(20)).max() < 5 / 4000**0.5


def test_evaluations_are_not_jittered():
    setting, durations = many_durations(make(wait_ms=650.0), "evaluate", 5)
    np.testing.assert_array_equal(durations, np.broadcast_to([500, 500, 500, 650], (5, 5, 4)))
    assert set(np.asarray(setting.length)) == {200 + 5 * (100 + 100 + 100 + 130)}
    assert np.ptp(many_durations(make(jitter_ms=0.0), "train", 50)[1]) == 0


@pytest.mark.parametrize("options", [{}, {"dt": 7.0, "warm_up_ms": 333.0}, {"n_trials": 2, **SHORT}], ids=str)
def test_periods_follow_one_another_and_last_what_was_drawn(options):
    task = make(**options)
    lengths = set()
    for seed in range(6):
        setting, trials = batch_of(task, 3, seed)
        assert float(setting.dt) == pytest.approx(task.dt)
        for i in range(3):
            trial = one_of(trials, i)
            at = round(task.warm_up_ms / task.dt)
            assert int(setting.no_gradient) == at
            assert trial.periods["warm_up"].tolist() == [0, at]
            expected = {"warm_up"}
            for k in range(task.n_trials):
                for name, duration in zip(NAMES, setting.extra["durations_ms"][k], strict=True):
                    start, end = trial.periods[f"{name}_{k + 1}"]
                    expected.add(f"{name}_{k + 1}")
                    assert start == at
                    assert end - start == max(round(float(duration) / task.dt), 1)
                    at = end
            assert set(trial.periods) == expected
            assert int(setting.length) == at <= task.capacity
            starts = spans(trial, "stimulus")[:, 0]
            np.testing.assert_array_equal(trial.skips, np.stack([starts[:-1], starts[1:]], axis=1))
        lengths.add(int(setting.length))
    assert len(lengths) > 3, "the lengths differ between batches"


def test_capacity_is_the_longest_sequence():
    task = make(n_trials=3, **SHORT)
    longest = task._discretised(task.dt, jnp.asarray(task._means_ms()) + task.jitter_ms * jnp.ones((3, 4)))
    assert int(longest.length) == task.capacity == 3 + 3 * (6 + 8 + 6 + 5)
    assert make().capacity == 200 + 5 * 4 * 120
    assert make(warm_up_ms=0.0).capacity == 2400
    setting, trials = batch_of(make(warm_up_ms=0.0), 2)
    assert int(setting.no_gradient) == 0
    assert trials.periods["warm_up"].tolist() == [[0, 0]] * 2
    assert (trials.periods["stimulus_1"][:, 0] == 0).all()


# --- rules, stimuli, targets ----------------------------------------------------------------------------------------

PAPER = {"00000", "01100", "00011", "01111", "11111", "10011", "11100", "10000"}


def test_sequences_and_complements_are_equally_frequent():
    _, trials = batch_of(make(**SHORT), 8000)
    found = ["".join(map(str, row)) for row in trials.condition["rules"]]
    names, counts = np.unique(found, return_counts=True)
    assert set(names) == PAPER
    assert stats.chisquare(counts).pvalue > 1e-3
    assert stats.chisquare(np.bincount(trials.condition["sequence"])).pvalue > 1e-3
    table = make().rule_table()
    np.testing.assert_array_equal(table[trials.condition["sequence"]], trials.condition["rules"])
    # stimuli are fair, and tell nothing about one another or about the rules
    stimuli = trials.condition["stimuli"]
    assert set(np.unique(stimuli)) == {0, 1}
    together = np.corrcoef(np.concatenate([stimuli, trials.condition["rules"]], axis=1).T)
    assert abs(together[:5, :5] - np.eye(5)).max() < 5 / 8000**0.5
    assert abs(together[:5, 5:]).max() < 5 / 8000**0.5
    assert abs(stimuli.mean(axis=0) - 0.5).max() < 5 * 0.5 / 8000**0.5


def test_sequences_are_cut_or_begun_again():
    assert make(n_trials=3).rule_table().tolist()[:4] == [[0, 0, 0], [0, 1, 1], [0, 0, 0], [0, 1, 1]]
    assert make(n_trials=7, sequences=("011",)).rule_table().tolist() == [[0, 1, 1, 0, 1, 1, 0], [1, 0, 0, 1, 0, 0, 1]]


def test_the_target_follows_the_rule_of_the_trial_before():
    _, trials = batch_of(make(**SHORT), 200)
    for i in range(200):
        trial = one_of(trials, i)
        rules, stimuli = (trial.condition[name].tolist() for name in ("rules", "stimuli"))
        before = [0, *rules[:-1]]
        expected = [s if r == 0 else 1 - s for s, r in zip(stimuli, before, strict=True)]
        assert trial.condition["targets"].tolist() == expected
        for (start, end), target in zip(spans(trial, "response"), expected, strict=True):
            assert (trial.targets[start:end] == target).all()


@pytest.mark.parametrize("factor", [None, 4.0])
def test_inputs_and_weights_by_brute_force(factor):
    task = make()
    setting, trials = batch_of(task, 6, factor=factor)
    dt = float(setting.dt)
    for i in range(6):
        trial = one_of(trials, i)
        inputs, weights = np.zeros((task.capacity, 4)), np.zeros(task.capacity)
        for (start, end), s in zip(spans(trial, "stimulus"), trial.condition["stimuli"], strict=True):
            inputs[start:end, s] = 1
        for start, end in spans(trial, "response"):
            weights[start + round(100 / dt) : end] = 1
        np.testing.assert_array_equal(trial.inputs, inputs)
        np.testing.assert_array_equal(trial.weights, weights)
        assert trial.inputs.dtype == trial.weights.dtype == np.float32


# --- the network's own answer ---------------------------------------------------------------------------------------

AGENTS = {
    "always right": lambda c, k: c["targets"][k],
    "always wrong": lambda c, k: 1 - c["targets"][k],
    "alternating": lambda c, k: k % 2,
    "always response 1": lambda c, k: 1,
}


@pytest.mark.parametrize("agent", AGENTS)
def test_feedback_follows_the_current_rule_and_the_own_choice(agent):
    task = make(**SHORT)
    setting, trials = batch_of(task, 60)
    n_each = np.zeros(2)
    for i in range(60):
        trial = one_of(trials, i)
        choices = [int(AGENTS[agent](trial.condition, k)) for k in range(5)]
        outputs = outputs_of(trial, choices, np.random.default_rng(i))
        feedback = expected_feedback(trial, choices)
        n_each += feedback.any() * feedback.sum(axis=0)
        inputs = np.asarray(player(task)(trial, outputs))
        np.testing.assert_array_equal(inputs[:, :2], trial.inputs[:, :2])
        np.testing.assert_array_equal(inputs[:, 2:], feedback)
        right = np.mean(choices == trial.condition["targets"])
        assert float(task.scores(outputs, trial, setting)["accuracy"]) == pytest.approx(right)
        assert task.choices(outputs, trial).tolist() == choices
    assert (n_each > 0).all(), "both kinds of feedback were seen"


def test_feedback_after_a_switch_calls_the_right_answer_wrong():
    task = make(sequences=("01100",), **SHORT)
    _, trials = batch_of(task, 40)
    for i in range(40):
        trial = one_of(trials, i)
        inputs = np.asarray(player(task)(trial, outputs_of(trial, trial.condition["targets"])))
        wrong = [inputs[start, 3] for start, _ in spans(trial, "feedback")]
        rules = trial.condition["rules"]
        assert wrong == (rules != np.array([0, *rules[:-1]])).tolist()


def test_choice_is_by_mean_probability_over_the_counted_part():
    task = make()
    _, trials = batch_of(task, 40, seed=3)
    n_by_logit = n_by_all = 0
    rng = np.random.default_rng(1)
    for i in range(40):
        trial = one_of(trials, i)
        outputs = (8 * rng.standard_t(1.2, size=(task.capacity, 2))).astype(np.float32)
        for start, _ in spans(trial, "response"):
            outputs[start : start + 20] = [[3, 0]] if rng.random() < 0.5 else [[0, 3]]
        y = special.softmax(outputs.astype(np.float64), axis=1)
        choices = [int(np.diff(y[start + 20 : end].mean(axis=0))[0] > 0) for start, end in spans(trial, "response")]
        assert task.choices(outputs, trial).tolist() == choices
        np.testing.assert_array_equal(
            np.asarray(player(task)(trial, outputs))[:, 2:], expected_feedback(trial, choices)
        )
        for (start, end), choice in zip(spans(trial, "response"), choices, strict=True):
            n_by_logit += int(np.diff(outputs[start + 20 : end].mean(axis=0))[0] > 0) != choice
            n_by_all += int(np.diff(y[start:end].mean(axis=0))[0] > 0) != choice
    assert n_by_logit > 5 and n_by_all > 5, "the test could not tell one way to choose from another"


def play_an_agent(task, trial, respond, agent):
    """An agent that sees only the inputs, step by step: ``agent(inputs so far)`` chooses in the responses."""
    state, output, seen, outputs = task.begin(trial, key=jax.random.key(0)), np.zeros(2, np.float32), [], []
    responses = spans(trial, "response")
    for t in range(int(spans(trial, "wait")[-1, 1])):
        state, given = respond(state, trial, t, output)
        seen.append(np.asarray(given))
        responds = ((responses[:, 0] <= t) & (t < responses[:, 1])).any()
        output = np.eye(2, dtype=np.float32)[agent(np.array(seen)) if responds else 0]
        outputs.append(output)
    return np.array(outputs + [np.zeros(2)] * (task.capacity - len(outputs)), np.float32)


def infers_the_rule(seen):
    """Answers as the last feedback says it should have; knows neither rules nor targets."""
    rule, stimulus, choice = 0, 0, 0
    for x in seen:
        if x[:2].any():
            stimulus = int(x[1])
            choice = stimulus ^ rule  # what this agent will answer
        if x[2:].any():
            asked = choice if x[2] else 1 - choice
            rule = asked ^ stimulus
    return choice


def test_an_agent_that_learns_from_feedback_is_always_right():
    task = make(**SHORT)
    setting, trials = batch_of(task, 16, seed=5)
    assert len(set(trials.condition["sequence"].tolist())) > 3, "sequences with and without switches"
    respond = jax.jit(functools.partial(task.respond, key=jax.random.key(0)))
    for i in range(16):
        trial = one_of(trials, i)
        outputs = play_an_agent(task, trial, respond, infers_the_rule)
        assert float(task.scores(outputs, trial, setting)["accuracy"]) == 1


def test_stubborn_agents_are_right_half_the_time():
    """One that always answers 1: 1/2. One that never leaves the first rule: right in the first trial, else half."""
    task = make(**SHORT)
    setting, trials = batch_of(task, 1000)
    score = jax.jit(lambda outputs, trial: task.scores(outputs, trial, setting)["accuracy"])

    def accuracy(choices_of):
        return np.mean(
            [score(outputs_of(t, choices_of(t)), t) for t in (one_of(trials, i) for i in range(len(trials.targets)))]
        )

    assert abs(accuracy(lambda t: [1] * 5) - 0.5) < 4 * 0.5 / 5000**0.5
    assert abs(accuracy(lambda t: t.condition["stimuli"]) - 0.6) < 0.05
    assert accuracy(lambda t: t.condition["targets"]) == 1


# --- loss -----------------------------------------------------------------------------------------------------------


def test_loss_against_scipy_and_without_what_does_not_count():
    task = make()
    setting, trials = batch_of(task, 4)
    trial = one_of(trials, 1)
    outputs = np.random.default_rng(0).normal(size=(task.capacity, 2)).astype(np.float32)
    log_p = special.log_softmax(outputs.astype(np.float64), axis=1)
    terms = []
    for (start, end), target in zip(spans(trial, "response"), trial.condition["targets"], strict=True):
        terms += (-log_p[start + 20 : end, target]).tolist()
    np.testing.assert_allclose(task.loss(outputs, trial, setting), np.mean(terms), rtol=1e-5)
    gradient = np.asarray(jax.grad(task.loss)(outputs, trial, setting))
    np.testing.assert_array_equal((gradient != 0).any(axis=1), trial.weights > 0)
    wild = np.where(trial.weights[:, None] > 0, outputs, np.inf).astype(np.float32)
    np.testing.assert_allclose(task.loss(wild, trial, setting), np.mean(terms), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(task.loss)(wild, trial, setting), gradient)
    right = 50 * np.eye(2, dtype=np.float32)[trial.targets]
    assert float(task.loss(right, trial, setting)) < 1e-6 < float(task.loss(-right, trial, setting))


# --- coarser steps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.0, 2.0, 10.0, 40.0, 1000.0])
def test_coarser_steps_are_the_same_trials(factor):
    task = make()
    fine, fine_trials = batch_of(task, 8)
    coarse, trials = batch_of(task, 8, factor=factor)
    np.testing.assert_allclose(coarse.dt, 5 * factor)
    np.testing.assert_array_equal(coarse.extra["durations_ms"], fine.extra["durations_ms"])
    assert int(coarse.no_gradient) == max(round(1000 / (5 * factor)), 1)
    steps = np.maximum(np.round(fine.extra["durations_ms"].astype(np.float64) / (5 * factor)), 1)
    assert int(coarse.length) == int(coarse.no_gradient) + steps.sum()
    assert int(coarse.length) <= int(fine.length)
    for name, values in fine_trials.condition.items():
        np.testing.assert_array_equal(values, trials.condition[name])
    trial = one_of(trials, 0)
    for i, name in enumerate(NAMES):
        np.testing.assert_array_equal(np.diff(spans(trial, name), axis=1)[:, 0], steps[:, i])
    for start, end in spans(trial, "response"):
        assert 1 <= trial.weights[start:end].sum() <= end - start
    assert trial.weights.sum() == sum(trial.weights[a:b].sum() for a, b in spans(trial, "response"))
    choices = trial.condition["targets"]
    inputs = np.asarray(player(task)(trial, outputs_of(trial, choices)))
    np.testing.assert_array_equal(inputs[:, 2:], expected_feedback(trial, choices))
    if factor == 1:
        jax.tree.map(np.testing.assert_array_equal, trials, fine_trials)


# --- through networks -----------------------------------------------------------------------------------------------


def test_a_network_hears_what_its_own_outputs_earned():
    """Every state follows from the one before and the inputs that brute force gives for the recorded outputs."""
    task = make(**SHORT)
    cell = pr.cells.LeakyRNN(n_units=6, tau=20.0, self_interaction="outside", activation="tanh")
    run = pr.fit(task, cell, members=2, **TINY)
    rolled = pr.rollout(run, n_trials=12)
    n_right = []
    for m in range(2):
        p = {
            name: np.asarray(a[m], np.float64)
            for name, a in {**run.parameters.fixed, **run.parameters.trainable}.items()
        }
        W = p["W"] * (1 - np.eye(6))
        for i in range(12):
            trial, outputs = one_of(one_of(rolled.trials, m), i), rolled.outputs[m, i]
            length, h = int(rolled.length[m]), rolled.states[m, i].astype(np.float64)
            np.testing.assert_allclose(outputs[:length], h[:length] @ p["W_out"].T + p["b_out"], atol=1e-5)
            y = special.softmax(outputs, axis=1)
            choices = [int(y[a + 1 : b, 1].mean() > 0.5) for a, b in spans(trial, "response")]
            inputs = trial.inputs.copy()
            inputs[:, 2:] = expected_feedback(trial, choices)
            n_right += [inputs[a, 2] for a, _ in spans(trial, "feedback")]
            drive = h[: length - 1] @ W.T + inputs[1:length] @ p["W_in"].T + p["bias"]
            np.testing.assert_allclose(h[1:length], h[: length - 1] * 0.75 + 0.25 * np.tanh(drive), atol=1e-5)
    assert 0 < np.mean(n_right) < 1, "both kinds of feedback were heard"


def test_gradient_equals_central_differences():
    task = make(n_trials=3, **SHORT | {"warm_up_ms": 0.0})  # none goes through a warm-up, differences do
    setup = pr.Setup(
        task=task,
        cell=pr.cells.LeakyRNN(n_units=5, tau=20.0, self_interaction="outside", activation="tanh"),
        training={"batch": 4},
    )
    program = Program(setup)
    with backend.precision(64):
        state = program.start(0, {}, 0)
        trainable = jax.tree.map(lambda a: a.astype(jnp.float64), state.parameters.trainable)
        fixed = jax.tree.map(lambda a: a.astype(jnp.float64), state.parameters.fixed)
        stage = setup.training.curriculum.stage(task, state.progress)

        @jax.jit
        def loss(trainable):
            parameters = state.parameters._replace(trainable=trainable, fixed=fixed)
            return program.batch_loss(setup, parameters, stage, (), 0, None, key=jax.random.key(1))[0]

        gradient = jax.jit(jax.grad(loss))(trainable)
        for name, array in trainable.items():
            direction = jnp.asarray(np.random.default_rng(0).normal(size=array.shape))
            up, down = (float(loss(trainable | {name: array + s * direction})) for s in (1e-5, -1e-5))
            found = float(jnp.sum(gradient[name] * direction))
            assert abs(found) > 1e-6
            np.testing.assert_allclose(found, (up - down) / 2e-5, rtol=1e-3, atol=1e-8, err_msg=name)


def test_training_compiles_once_for_all_lengths():
    trainer = make_trainer(
        make(**SHORT),
        pr.cells.LeakyRNN(n_units=6, tau=20.0, noise=0.1),
        members=2,
        batch=4,
        steps_per_epoch=2,
        epochs=5,
        evaluation_batches=1,
    )
    lengths = [0]
    for _ in trainer.updates():
        lengths.append(int(np.asarray(trainer.state.n_time_steps)[0]))
    assert len(set(np.diff(lengths))) > 1, "lengths never changed: the test shows nothing"
    assert (trainer.train._jitted._cache_size(), trainer.evaluate._jitted._cache_size()) == (1, 1)
    run = trainer.run()
    assert np.isfinite(run.history["loss"]).all()
    assert set(np.unique(np.round(run.history["scores/accuracy"] * 20, 4) % 1)) == {0}, "20 choices an evaluation"
    for name, start in run.initial.trainable.items():
        assert (run.parameters.trainable[name] != start).any(), name


@pytest.mark.slow
def test_networks_learn_it():
    """Far above the half that any fixed rule earns, hence feedback is used; how soon all of it is depends on luck."""
    cell = pr.cells.LeakyRNN(n_units=50, tau=100.0, self_interaction="outside", activation="relu", self_connection=True)
    run = pr.fit(
        make(dt=25.0),
        cell,
        members=2,
        seed=1,
        batch=20,
        epochs=15,
        steps_per_epoch=200,
        evaluation_batches=4,
        optimizer={"kind": "adam", "learning_rate": 2e-3, "clip_norm": 1.0},
    )
    assert (np.nanmax(run.history["scores/accuracy"], axis=0) > 0.85).all()  # of 400 choices


# --- options --------------------------------------------------------------------------------------------------------

OTHER = {
    "n_trials": 4,
    "dt": 4.0,
    "stimulus_ms": 30.0,
    "response_ms": 40.0,
    "feedback_ms": 30.0,
    "wait_ms": 30.0,
    "jitter_ms": 5.0,
    "warm_up_ms": 5.0,
    "grace_ms": 10.0,
    "sequences": ("01010",),
}


def test_every_option_changes_something():
    def does(**options):
        task = make(**SHORT | options)
        setting, trials = batch_of(task, 10)
        return [task.capacity, jax.tree.map(np.ndarray.tolist, (setting, trials))]

    before = does()
    assert before == does()
    assert set(OTHER) == {f.name for f in dataclasses.fields(make)}, "a new option needs another value here"
    for field, value in OTHER.items():
        assert does(**{field: value}) != before, field


BAD = {
    "jitter uses up a stimulus": ({"stimulus_ms": 100.0}, "stimulus_ms = 100: must be longer than jitter_ms = 100"),
    "jitter uses up a wait": ({"wait_ms": 50.0}, "wait_ms = 50"),
    "grace uses up a response": ({"grace_ms": 400.0}, "grace_ms = 400: must be less than .* 400"),
    "no sequences": ({"sequences": ()}, "sequences = .*0 and 1"),
    "an empty sequence": ({"sequences": ("",)}, "sequences = .*0 and 1"),
    "a third rule": ({"sequences": ("00", "012")}, "sequences = .*0 and 1"),
    "no trial": ({"n_trials": 0}, "n_trials = 0"),
    "negative jitter": ({"jitter_ms": -1.0}, "jitter_ms = -1.0"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_refused(case):
    options, words = BAD[case]
    with pytest.raises(pr.ConfigurationError, match=f"RuleReversal: {words}"):
        make(**options)


def test_the_limits_themselves_are_allowed():
    task = make(stimulus_ms=100.5, grace_ms=399.0)
    _, trials = batch_of(task, 2)
    assert (trials.weights.sum(axis=1) > 0).all()
    assert batch_of(make(n_trials=1, **SHORT), 2)[1].skips.shape == (2, 0, 2)


def test_what_shapes_the_program_does_not_vary_and_papers_are_known():
    assert variable_fields(make()) == {}
    assert "no entry" not in bibtex(make.cites)
