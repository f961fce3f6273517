"""Temporal pattern generation against direct sums, and every option against the claim that it does something."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import poprnn as pr
from poprnn.tasks.contract import Stage

make = pr.tasks.TemporalPattern


def stage_of(task, heads, shared=False):
    """The stage in which ``heads`` are active."""
    return Stage(jnp.asarray(np.isin(np.arange(task.n_heads), heads)), jnp.asarray(max(heads)), jnp.asarray(0), shared)


def one(task, heads=None, shared=False, seed=0):
    """A setting and a trial."""
    key = jax.random.key(seed)
    setting = task.draw(stage_of(task, range(task.n_heads) if heads is None else heads, shared), key=key)
    return setting, task.sample(setting, jax.tree.map(jnp.asarray, task.arrays()), key=key)


def wave_sums(frequencies, n_steps):
    """y_m(t), term by term in plain Python."""
    return [
        [sum(math.sin(2 * math.pi * f * t) for f in frequencies[:m]) for m in range(1, len(frequencies) + 1)]
        for t in range(n_steps)
    ]


def outputs_near(trial, noise=0.3, seed=0):
    """Targets with errors that grow from head to head."""
    rng = np.random.default_rng(seed)
    n_steps, n_heads = trial.targets.shape
    errors = noise * np.arange(1, n_heads + 1) * rng.normal(size=(n_steps, n_heads))
    return (np.asarray(trial.targets) + errors).astype(np.float32)


# --- targets and inputs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frequencies", [(0.1,), (0.3, 0.11, 0.05), (0.49, 0.2, 1 / 7, 0.01)], ids=str)
def test_targets_are_sums_of_sines(frequencies):
    task = make(n_max=len(frequencies), frequencies=frequencies)
    setting, trial = one(task)
    assert int(setting.length) == task.capacity == math.ceil(2 / frequencies[-1])
    assert trial.targets.dtype == jnp.float32
    np.testing.assert_allclose(trial.targets, wave_sums(frequencies, task.capacity), atol=1e-6)
    np.testing.assert_allclose(task.targets(), wave_sums(frequencies, task.capacity), atol=1e-9)


def test_targets_keep_their_phase_in_long_trials():
    task = make(n_max=2, frequencies=(0.3, 0.1), n_steps=100_000)
    targets = task.arrays()["targets"]
    np.testing.assert_allclose(targets[99_990:], targets[:10], atol=1e-6)


def test_frequencies_follow_from_first_period_and_ratio():
    task = make(n_max=4, first_period=8.0, period_ratio=2.0)
    np.testing.assert_allclose(task.periods, [8, 16, 32, 64])
    assert task.capacity == 128
    same = make(n_max=4, frequencies=(1 / 8, 1 / 16, 1 / 32, 1 / 64))
    np.testing.assert_array_equal(task.targets(), same.targets())


def test_default_holds_two_periods_of_the_slowest_wave():
    task = make()
    slowest = 10 * 1.5**5
    assert task.capacity - 1 < 2 * slowest <= task.capacity
    assert (task.n_inputs, task.n_heads, task.n_outputs) == (1, 6, 6)
    assert [task.head_name(h) for h in (0, 1, 5)] == ["1 wave", "2 waves", "6 waves"]


def test_input_is_a_cue_and_noise():
    _, quiet = one(make(n_max=3, cue=0.7))
    expected = np.zeros((make(n_max=3).capacity, 1), np.float32)
    expected[0] = 0.7
    np.testing.assert_array_equal(quiet.inputs, expected)
    noisy = make(n_max=3, cue=0.7, input_noise=0.4)
    inputs = np.stack([one(noisy, seed=seed)[1].inputs for seed in range(200)])[..., 0] - expected[:, 0]
    n = inputs.size
    assert abs(inputs.mean()) < 4 * 0.4 / n**0.5
    assert abs(inputs.std() / 0.4 - 1) < 4 / (2 * n) ** 0.5
    assert abs(inputs.std(axis=0) / 0.4 - 1).max() < 5 / 400**0.5, "the same at every step, the first among them"
    lagged = np.mean(inputs[:, 1:] * inputs[:, :-1]) / 0.4**2
    assert abs(lagged) < 4 / n**0.5, "white"


# --- what is refused ------------------------------------------------------------------------------------------------

BAD = {
    "rising frequencies": ({"n_max": 2, "frequencies": (0.1, 0.2)}, "must decrease"),
    "a frequency twice": ({"n_max": 3, "frequencies": (0.2, 0.1, 0.1)}, "must decrease"),
    "more frequencies than heads": ({"n_max": 1, "frequencies": (0.2, 0.1)}, "n_max = 1 of them"),
    "no frequencies": ({"frequencies": ()}, "n_max = 6 of them"),
    "frequencies and a period": ({"n_max": 1, "frequencies": (0.2,), "first_period": 5.0}, "have no effect"),
    "frequencies and a ratio": ({"n_max": 1, "frequencies": (0.2,), "period_ratio": 2.0}, "have no effect"),
    "negative frequency": ({"n_max": 1, "frequencies": (-0.2,)}, "greater than 0"),
    "two steps a period": ({"first_period": 2.0}, "longer than two"),
    "frequency of one half": ({"n_max": 1, "frequencies": (0.5,)}, "longer than two"),
    "constant periods": ({"period_ratio": 1.0}, "greater than 1"),
    "trial shorter than the slowest wave": ({"n_max": 2, "n_steps": 14}, "15 steps"),
    "a period beyond counting": ({"n_max": 5000}, r"n_max = 5000.*2\^2928 steps"),
}


@pytest.mark.parametrize("case", BAD)
def test_patterns_that_cannot_be_are_refused(case):
    options, words = BAD[case]
    with pytest.raises(pr.ConfigurationError, match=f"TemporalPattern.*{words}"):
        make(**options)


def test_the_limits_themselves_are_allowed():
    assert make(n_max=2, n_steps=15).capacity == 15
    assert make(first_period=2.1).capacity == math.ceil(2 * 2.1 * 1.5**5)
    assert make(n_max=2, frequencies=(0.49, 0.1)).capacity == 20


# --- loss and scores ------------------------------------------------------------------------------------------------


def reference(task, outputs, targets, shared=False):
    """Mean squared error and R² of every head, in float64."""
    said = np.repeat(outputs[:, :1], task.n_heads, axis=1) if shared else outputs
    said, targets = said.astype(np.float64), np.asarray(targets, np.float64)
    error = ((said - targets) ** 2).sum(0)
    r2 = 1 - error / ((targets - targets.mean(0)) ** 2).sum(0)
    return error / len(targets), np.clip(r2, 0, 1)


@pytest.mark.parametrize(("heads", "shared"), [([0], False), ([0, 1, 2, 3], False), ([1, 3], False), ([2], True)])
def test_loss_and_scores_against_numpy(heads, shared):
    task = make(n_max=4, n_steps=101)
    setting, trial = one(task, heads, shared)
    outputs = outputs_near(trial)
    errors, r2 = reference(task, outputs, trial.targets, shared)
    np.testing.assert_allclose(task.loss(outputs, trial, setting), errors[heads].sum(), rtol=1e-5)
    expected = np.full(4, np.nan)
    expected[heads] = r2[heads]
    found = task.scores(outputs, trial, setting)
    assert set(found) == {task.score}
    np.testing.assert_allclose(found[task.score], expected, rtol=1e-5, atol=1e-6)
    assert len(set(np.round(r2, 3))) == 4, "the test could not tell the heads apart"


def test_scores_at_their_ends():
    task = make(n_max=3)
    setting, trial = one(task)
    np.testing.assert_allclose(task.scores(trial.targets, trial, setting)[task.score], 1)
    np.testing.assert_array_equal(task.scores(-trial.targets, trial, setting)[task.score], 0)
    mean = jnp.broadcast_to(trial.targets.mean(0), trial.targets.shape)
    np.testing.assert_allclose(task.scores(mean, trial, setting)[task.score], 0, atol=1e-6)
    assert float(task.loss(trial.targets, trial, setting)) == 0


def test_steps_beyond_the_length_count_for_nothing():
    task = make(n_max=3)
    setting, trial = one(task)
    outputs = outputs_near(trial)
    half = setting._replace(length=20)
    wild = jnp.asarray(outputs).at[20:].set(jnp.inf)
    errors, r2 = reference(task, outputs[:20], trial.targets[:20])
    np.testing.assert_allclose(task.loss(wild, trial, half), errors.sum(), rtol=1e-5)
    np.testing.assert_allclose(task.scores(wild, trial, half)[task.score], r2, rtol=1e-5)
    gradient = np.asarray(jax.grad(task.loss)(wild, trial, half))
    assert (gradient[20:] == 0).all() and (gradient[:20] != 0).all()


def test_a_missing_wave_does_not_pass_the_threshold():
    task = make(n_max=10)
    setting, trial = one(task)
    without = jnp.roll(trial.targets, 1, axis=1)  # every head says the sum of one wave less
    found = np.asarray(task.scores(without, trial, setting)[task.score])
    m = np.arange(2, 11)
    np.testing.assert_allclose(1 - found[1:], 1 / m, rtol=0.15)
    assert (found[1:] < 0.98 - 0.05).all()


def test_inactive_heads_have_no_loss_and_no_gradient():
    task = make(n_max=4)
    setting, trial = one(task, [1, 2])
    outputs = jnp.asarray(outputs_near(trial))
    gradient = np.asarray(jax.grad(task.loss)(outputs, trial, setting))
    assert (gradient[:, [0, 3]] == 0).all()
    assert (gradient[:, [1, 2]] != 0).all()
    wild = outputs.at[:, jnp.array([0, 3])].set(jnp.inf)
    np.testing.assert_array_equal(task.loss(wild, trial, setting), task.loss(outputs, trial, setting))
    np.testing.assert_array_equal(jax.grad(task.loss)(wild, trial, setting), gradient)


def test_a_head_weighs_the_same_however_many_are_active():
    task = make(n_max=4)
    outputs = jnp.asarray(outputs_near(one(task)[1]))
    alone = [jax.grad(task.loss)(outputs, trial, setting) for setting, trial in (one(task, [h]) for h in range(4))]
    setting, trial = one(task)
    np.testing.assert_allclose(jax.grad(task.loss)(outputs, trial, setting), sum(alone), rtol=1e-6)


def test_shared_readout_hears_only_head_0():
    task = make(n_max=4)
    setting, trial = one(task, [3], shared=True)
    outputs = jnp.asarray(outputs_near(trial))
    gradient = np.asarray(jax.grad(task.loss)(outputs, trial, setting))
    assert (gradient[:, 0] != 0).all()
    assert (gradient[:, 1:] == 0).all()
    right = outputs.at[:, 0].set(trial.targets[:, 3])
    assert float(task.scores(right, trial, setting)[task.score][3]) == 1
    own = one(task, [3])[0]
    assert (np.asarray(jax.grad(task.loss)(outputs, trial, own))[:, 0] == 0).all()


# --- no silent arguments --------------------------------------------------------------------------------------------

OTHER = {
    "n_max": 4,
    "first_period": 9.0,
    "period_ratio": 1.4,
    "frequencies": (0.2, 0.1, 0.05),
    "n_steps": 50,
    "cue": 0.0,
    "input_noise": 0.1,
}


def test_every_option_changes_something():
    def does(task):
        _, trial = one(task)
        return [task.n_outputs, task.capacity, np.asarray(trial.inputs).tolist(), np.asarray(trial.targets).tolist()]

    before = does(make(n_max=3))
    assert before == does(make(n_max=3))
    assert set(OTHER) == {f.name for f in dataclasses.fields(make)}, "a new option needs another value here"
    for field, value in OTHER.items():
        assert does(make(**{"n_max": 3, field: value})) != before, field


# --- training -------------------------------------------------------------------------------------------------------

QUICK = dict(
    cell=pr.cells.LeakyRNN(
        n_units=32, activation="tanh", self_interaction="outside", recurrent_gain=1.7, tau_start=(1.0, 5.0)
    ),
    optimizer={"kind": "adam", "learning_rate": 3e-3, "clip_norm": 1.0},
    batch=8,
    epochs=12,
    steps_per_epoch=100,
    evaluation_batches=1,
)


@pytest.mark.parametrize("curriculum", ["single_head", "multi_head"])
def test_first_stages_are_passed(curriculum):
    run = pr.fit(make(n_max=2, first_period=8.0), curriculum=curriculum, **QUICK)
    assert run.outcome == ["solved"]
    assert run.history["newest"][:, 0].max() == 1
    scores = pr.evaluate(run, n_trials=8, batch=8)["variance_explained"][0, 0]
    assert scores[1] > 0.98
    assert np.isnan(scores[0]) == (curriculum == "single_head")


def test_what_may_differ_between_members():
    """Noise and cue, which are traced then; not what sets the length of a trial."""
    task = make(n_max=2)
    setting, trial = one(make(n_max=2, input_noise=0.5, cue=2.0))
    traced = jax.jit(
        lambda values: task.substitute(values).sample(setting, task.arrays(), key=jax.random.key(0)).inputs
    )
    np.testing.assert_allclose(traced({"input_noise": 0.5, "cue": 2.0}), trial.inputs, rtol=1e-6)
    vary = lambda name: pr.Setup(task=task, cell=QUICK["cell"], population={"members": 2, "vary": {name: [0.5, 3.0]}})
    assert vary("task.input_noise").population.values(1) == {"task.input_noise": 3.0}
    for name in ("task.first_period", "task.period_ratio", "task.n_max"):
        with pytest.raises(pr.ConfigurationError, match=f"'{name}' cannot differ"):
            vary(name)
