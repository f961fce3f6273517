"""Flip-flop, delayed discrimination, sine waves, path integration: their trials told again, step by step."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import poprnn as pr
from poprnn.core import backend
from poprnn.core.errors import NotApplicableError
from poprnn.training.program import Program

T = pr.tasks
FOUR = [T.FlipFlop, T.DelayedDiscrimination, T.SineWave, T.PathIntegration]
LIKELY = 1e-4
"""Smallest p that passes: the keys are fixed, so a test that passes once passes always."""


@functools.cache
def trials_of(task, n, seed=0):
    """A setting and ``n`` trials, in NumPy; compiled once for a task and number."""
    setting = task.draw(None, key=jax.random.key(0))
    sample = jax.jit(jax.vmap(lambda key: task.sample(setting, (), key=key)))
    return setting, jax.tree.map(np.asarray, sample(jax.random.split(jax.random.key(seed), n)))


def is_uniform(values, low, high):
    return stats.kstest(np.ravel(values), "uniform", (low, high - low)).pvalue > LIKELY


def occur_equally(values, expected):
    """Exactly these values, equally often."""
    found, counts = np.unique(values, return_counts=True)
    return found.tolist() == list(expected) and stats.chisquare(counts).pvalue > LIKELY


def test_the_tests_of_distributions_can_fail():
    rng = np.random.default_rng(0)
    assert is_uniform(rng.random(4000), 0, 1) and occur_equally(rng.integers(3, 7, 4000), range(3, 7))
    assert not is_uniform(rng.beta(1.2, 1, 4000), 0, 1)
    assert not is_uniform(rng.random(4000), 0, 1.1)
    assert not occur_equally(rng.integers(3, 7, 4000), range(3, 8))
    assert not occur_equally(rng.binomial(3, 0.5, 4000), range(4))


# --- flip-flop ------------------------------------------------------------------------------------------------------


def test_flip_flop_remembers_the_last_pulse():
    setting, trials = trials_of(T.FlipFlop(n_steps=40), 50)
    for inputs, targets in zip(trials.inputs, trials.targets, strict=True):
        last = [0.0, 0.0, 0.0]
        for x, y in zip(inputs, targets, strict=True):
            last = [new or old for new, old in zip(x.tolist(), last, strict=True)]
            assert y.tolist() == last
    assert setting.length == 40
    np.testing.assert_array_equal(trials.condition["n_pulses"], (trials.inputs != 0).sum(axis=1))
    np.testing.assert_array_equal(trials.periods["trial"], [[0, 40]] * 50)


@pytest.mark.parametrize("probability", [0.3, 0.05, 1.0])
def test_pulses_are_as_probable_as_said_and_independent(probability):
    _, trials = trials_of(T.FlipFlop(probability=probability), 300)
    assert set(np.unique(trials.inputs)) == ({-1, 0, 1} if probability < 1 else {-1, 1})
    shown, n = trials.inputs != 0, trials.inputs.size
    assert stats.binomtest(int(shown.sum()), n, probability).pvalue > LIKELY
    assert stats.binomtest(int((trials.inputs > 0).sum()), int(shown.sum()), 0.5).pvalue > LIKELY
    for a, b in ((shown[:, 1:], shown[:, :-1]), (shown[..., 1:], shown[..., :-1]), (shown[1:], shown[:-1])):
        together = (a & b).mean() - probability**2
        assert abs(together) < 4.5 * (probability**2 * (1 - probability**2) / a.size) ** 0.5 + 1e-9
    assert abs(np.mean(trials.inputs[:, 1:] * trials.inputs[:, :-1])) < 4.5 * probability / n**0.5


def test_the_papers_flip_flop():
    task = T.FlipFlop()
    assert (task.n_inputs, task.n_outputs, task.n_steps, task.probability) == (3, 3, 100, 0.3)


# --- delayed discrimination -----------------------------------------------------------------------------------------


def told(task, onset, delay, f1, f2):
    """Inputs, targets and weights of a trial, step by step; ``delay`` is what is seen of it."""
    n = len(f1)
    second = onset + task.pulse_steps + delay
    end = second + task.pulse_steps
    drawn = delay // task.delay_factor
    last = task.n_steps + delay - drawn
    inputs, targets, weights = [], [], []
    for t in range(task.capacity):
        first_on, second_on = onset <= t < onset + task.pulse_steps, second <= t < end
        inputs.append([f1[c] if first_on else f2[c] if second_on else 0.0 for c in range(n)])
        signs = [0.0 if f1[c] == f2[c] else 1.0 if f2[c] > f1[c] else -1.0 for c in range(n)]
        answer = signs + ([float(f1[c] - f2[c]) for c in range(n)] if task.auxiliary else [])
        targets.append(answer if end <= t < last else [0.0] * len(answer))
        weights.append(float((t >= end or task.counted == "all") and t < last))
    return inputs, targets, weights


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_channels": 3, "auxiliary": True, "counted": "all"},
        {"delay_factor": 3, "n_channels": 2, "max_steps": 120},
        {"pulse_steps": 2, "latest_onset": 0, "min_delay": 0, "max_delay": 3, "n_steps": 8, "n_amplitudes": 3},
    ],
    ids=str,
)
def test_delayed_discrimination_told_again(options):
    task = T.DelayedDiscrimination(**options)
    setting, trials = trials_of(task, 40)
    assert int(setting.length) == task.n_steps + (task.delay_factor - 1) * task.max_delay <= task.capacity
    c = trials.condition
    for k in range(40):
        expected = told(task, int(c["onset"][k]), int(c["delay"][k]), c["f1"][k], c["f2"][k])
        for found, wanted in zip((trials.inputs[k], trials.targets[k], trials.weights[k]), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-6)
        assert trials.weights[k][int(setting.length) :].sum() == 0 < trials.weights[k].sum()
    names = ["fixation", "stimulus_1", "delay", "stimulus_2", "response"]
    assert sorted(trials.periods) == sorted(names), "which follow one another"
    for before, after in itertools.pairwise(names):
        np.testing.assert_array_equal(trials.periods[before][:, 1], trials.periods[after][:, 0])


def test_delays_onsets_and_amplitudes_are_drawn_as_said():
    task = T.DelayedDiscrimination(n_channels=2)
    assert (task.n_steps, task.lowest_amplitude, task.highest_amplitude) == (60, 2.0, 10.0)
    _, trials = trials_of(task, 8000)
    c = trials.condition
    assert occur_equally(c["delay"], range(5, 21)) and occur_equally(c["onset"], range(10))
    assert is_uniform(c["f1"], 2, 10) and is_uniform(c["f2"], 2, 10)
    pairs = np.concatenate([c["f1"], c["f2"], c["delay"][:, None], c["onset"][:, None]], axis=1)
    correlation = np.corrcoef(pairs.T) - np.eye(6)
    assert np.abs(correlation).max() < 4.5 / 8000**0.5, "all independent"


def test_a_few_amplitudes_are_equally_likely_and_never_equal():
    _, trials = trials_of(T.DelayedDiscrimination(n_amplitudes=5), 6000)
    f1, f2 = (trials.condition[name][:, 0] for name in ("f1", "f2"))
    assert occur_equally(f1, [2, 4, 6, 8, 10]) and occur_equally(f2, [2, 4, 6, 8, 10])
    assert occur_equally(10 * f1 + f2, sorted(10 * a + b for a in range(2, 11, 2) for b in range(2, 11, 2) if a != b))


def test_stretched_delays_leave_the_rest_of_a_trial_as_it_was():
    """With the same key: same pulses, twice the delay, as long a response."""
    task = T.DelayedDiscrimination()
    twin = task.out_of_distribution()
    assert (twin.delay_factor, twin.capacity) == (2, 80)
    (_, a), (_, b) = trials_of(task, 200), trials_of(twin, 200)
    for name in ("f1", "f2", "onset"):
        np.testing.assert_array_equal(a.condition[name], b.condition[name])
    np.testing.assert_array_equal(2 * a.condition["delay"], b.condition["delay"])
    for name in ("fixation", "stimulus_1", "stimulus_2", "response"):
        np.testing.assert_array_equal(np.diff(a.periods[name]), np.diff(b.periods[name]))
    assert (np.diff(a.periods["response"]) >= 21).all()


# --- sine waves -----------------------------------------------------------------------------------------------------


def test_sine_waves_told_again():
    task = T.SineWave(n_channels=2, n_steps=30, input_per_hz=0.5)
    _, trials = trials_of(task, 30)
    allowed = [1 + 29 * i / 9 for i in range(10)]
    for inputs, targets, frequency in zip(trials.inputs, trials.targets, trials.condition["frequency"], strict=True):
        exact = [min(allowed, key=lambda a: abs(a - f)) for f in frequency]
        np.testing.assert_allclose(frequency, exact, rtol=1e-6)
        np.testing.assert_allclose(inputs, [[0.5 * f for f in exact]] * 30, rtol=1e-6)
        wanted = [[math.sin(2 * math.pi * f * t / 100) for f in exact] for t in range(30)]
        np.testing.assert_allclose(targets, wanted, atol=2e-5)


def test_frequencies_are_equally_likely_and_independent():
    _, trials = trials_of(T.SineWave(n_channels=2, n_frequencies=3, n_steps=2), 9000)
    first, second = trials.condition["frequency"].T
    assert occur_equally(first, [1.0, 15.5, 30.0])
    assert occur_equally(1000 * first + second, sorted(1000 * a + b for a in (1, 15.5, 30) for b in (1, 15.5, 30)))


def test_the_papers_second_has_a_hundred_steps_and_its_twin_two():
    task = T.SineWave(lowest_hz=1.0, highest_hz=2.0, n_frequencies=2)
    _, trials = trials_of(task, 40)
    slow = trials.targets[trials.condition["frequency"][:, 0] == 1.0][0, :, 0]
    assert len(slow) == 100 and np.argmax(slow) == 25 and np.argmin(slow) == 75, "one period"
    _, longer = trials_of(task.out_of_distribution(), 40)
    slow = longer.targets[longer.condition["frequency"][:, 0] == 1.0][0, :, 0]
    assert len(slow) == 200
    np.testing.assert_allclose(slow[100:], slow[:100], atol=1e-5)


# --- path integration -----------------------------------------------------------------------------------------------


def heading(task, inputs):
    """Unit vectors ``[trial, time, agent, coordinate]`` from the angles that are shown."""
    shown = inputs.reshape(*inputs.shape[:2], task.n_channels, -1).astype(np.float64)
    theta, phi = shown[..., 0], shown[..., 1] if task.n_dimensions == 3 else np.zeros(shown.shape[:-1])
    vector = np.stack([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)], axis=-1)
    return vector[..., : task.n_dimensions], shown[..., task.n_dimensions - 1], shown[..., task.n_dimensions :]


WALKS = [
    T.PathIntegration(n_channels=2),
    T.PathIntegration(n_dimensions=3),
    T.PathIntegration(side=0.3, max_speed=0.2, turn=0.1, n_steps=40),  # bumps into walls at nearly every step
    T.PathIntegration(n_dimensions=3, n_channels=2, side=0.3, max_speed=0.2, turn=0.1, n_steps=40),
]


@pytest.mark.parametrize("task", WALKS, ids=lambda t: f"{t.n_dimensions}D-{t.n_channels}-{t.side}")
def test_a_walk_told_again_by_reflecting_it_at_every_wall(task):
    """From the inputs alone, one coordinate after the other; and after a wall the direction is mirrored."""
    _, trials = trials_of(task, 20)
    wall, n_hits, turns, mirrored_turns = task.side / 2, 0, [], []
    direction, speed, starts = heading(task, trials.inputs)
    positions = trials.targets.reshape(direction.shape)
    assert np.abs(positions).max() <= wall
    assert (starts[:, 1:] == 0).all(), "the start is shown once"
    np.testing.assert_array_equal(starts[:, 0], trials.condition["start"])
    for k in range(20):
        for agent in range(task.n_channels):
            place = starts[k, 0, agent].copy()
            for t in range(task.n_steps):
                way = direction[k, t, agent].copy()
                free = place + speed[k, t, agent] * way
                place = free.copy()
                for axis in range(task.n_dimensions):
                    while abs(place[axis]) > wall:
                        place[axis] = math.copysign(2 * wall, place[axis]) - place[axis]
                        way[axis] = -way[axis]
                hit = (place != free).any()
                n_hits += hit
                np.testing.assert_allclose(positions[k, t, agent], place, atol=2e-5)
                place = positions[k, t, agent].astype(np.float64)  # rounding errors must not add up
                if t + 1 < task.n_steps:
                    (mirrored_turns if hit else turns).append(direction[k, t + 1, agent] @ way)
    assert n_hits > 20
    expected = math.exp(-(task.turn**2) / 2)  # the mean cosine of a normal angle
    for cosines in (turns, mirrored_turns):
        assert abs(np.mean(cosines) - expected) < 4.5 * np.std(cosines) / len(cosines) ** 0.5 + 1e-6


@pytest.mark.parametrize("n_dimensions", [2, 3])
def test_starts_speeds_and_directions_are_uniform(n_dimensions):
    task = T.PathIntegration(n_dimensions=n_dimensions, n_steps=50)
    _, trials = trials_of(task, 4000)
    direction, speed, starts = heading(task, trials.inputs)
    assert is_uniform(starts[:, 0], -1, 1)
    assert is_uniform(speed[:, 7], 0, 0.05)
    assert abs(np.corrcoef(speed[:, 7, 0], speed[:, 8, 0])[0, 1]) < 4.5 / 4000**0.5
    for t in (0, 49):  # at first, and still after many turns and walls
        assert is_uniform(np.arctan2(direction[:, t, 0, 1], direction[:, t, 0, 0]), -np.pi, np.pi)
        if n_dimensions == 3:
            assert is_uniform(direction[:, t, 0, 2], -1, 1), "Archimedes: equal areas at equal heights"
    assert is_uniform(trials.targets[:, -1], -1, 1), "reflection keeps a uniform distribution"
    np.testing.assert_allclose(trials.condition["length"], speed.sum(axis=1), rtol=1e-5)


def test_angles_turn_normally():
    _, trials = trials_of(T.PathIntegration(n_steps=20, side=1e4, turn=0.3), 500)
    turns = np.diff(np.unwrap(trials.inputs[..., 0].astype(np.float64), axis=1), axis=1)
    assert stats.kstest(turns.ravel(), "norm", (0, 0.3)).pvalue > LIKELY
    assert stats.kstest(turns.ravel(), "norm", (0, 0.33)).pvalue < LIKELY


def test_a_trial_crosses_about_half_the_arena():
    for n_dimensions in (2, 3):
        _, trials = trials_of(T.PathIntegration(n_dimensions=n_dimensions), 1000)
        away = trials.targets[:, -1] - trials.condition["start"][:, 0]
        assert 0.35 < np.sqrt((away**2).sum(axis=1).mean()) / 2 < 0.5


# --- losses and scores ----------------------------------------------------------------------------------------------

SCORED = [
    T.FlipFlop(n_channels=2, n_steps=30, max_steps=40),
    T.DelayedDiscrimination(n_channels=2, max_steps=70),
    T.DelayedDiscrimination(n_channels=2, auxiliary=True, auxiliary_weight=0.3, delay_factor=2),
    T.SineWave(n_channels=2, n_steps=30, max_steps=40),
    T.PathIntegration(n_channels=2, n_dimensions=3, n_steps=30, max_steps=40),
]


def expected_scores(task, outputs, targets, counts, response):
    """By NumPy in float64, where ``counts`` [time] are the steps that count and ``response`` those of the answer."""
    if isinstance(task, T.FlipFlop):
        nearest = np.abs(outputs[counts][..., None] - np.array([-1.0, 0.0, 1.0])).argmin(axis=-1) - 1
        return {"accuracy": (nearest == targets[counts]).mean()}
    if isinstance(task, T.DelayedDiscrimination):
        said, wanted, n = outputs[response].mean(axis=0), targets[response][0], task.n_channels
        out = {"accuracy": (np.sign(said[:n]) == wanted[:n]).mean()}
        return out | ({"auxiliary_accuracy": (np.abs(said - wanted)[n:] <= 0.8).mean()} if task.auxiliary else {})
    error = ((outputs - targets)[counts] ** 2).mean(axis=0)
    if isinstance(task, T.PathIntegration):
        mine = error.reshape(task.n_channels, -1).mean(axis=1) / (task.side**2 / 12)
        return {"variance_explained": np.clip(1 - mine, 0, 1).mean()}
    return {"variance_explained": np.clip(1 - error / targets[counts].var(axis=0), 0, 1).mean()}


@pytest.mark.parametrize("task", SCORED, ids=lambda t: f"{t.name()}-{t.n_outputs}")
def test_losses_and_scores_against_numpy(task):
    setting, trials = trials_of(task, 5)
    rng = np.random.default_rng(1)
    judge = jax.jit(lambda o, t: (task.loss(o, t, setting), task.scores(o, t, setting)))
    seen = []
    for k in range(5):
        trial = jax.tree.map(lambda a: a[k], trials)  # noqa: B023
        outputs = (trial.targets + rng.normal(0, 0.6, trial.targets.shape)).astype(np.float32)
        counts = np.arange(task.capacity) < int(setting.length)
        response = counts
        if isinstance(task, T.DelayedDiscrimination):
            counts = counts & (trial.weights > 0)
            response = (np.arange(task.capacity) >= trial.periods["response"][0]) & counts
        each = ((outputs.astype(np.float64) - trial.targets)[counts] ** 2).mean(axis=0)
        wanted = each.mean()
        if isinstance(task, T.DelayedDiscrimination) and task.auxiliary:
            wanted = each[:2].mean() + 0.3 * each[2:].mean()
        loss, scores = judge(outputs, trial)
        np.testing.assert_allclose(loss, wanted, rtol=1e-5)
        expected = expected_scores(task, outputs.astype(np.float64), trial.targets, counts, response)
        assert set(scores) == set(expected) and task.score in scores
        for name, value in scores.items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-6)
        seen.append(float(scores[task.score]))
        wild = np.where(counts[:, None], outputs, np.inf)
        assert all(np.isfinite(v) for v in jax.tree.leaves(judge(wild, trial))), "steps that do not count do not count"
        perfect = judge(trial.targets, trial)
        assert float(perfect[0]) == 0 and float(perfect[1][task.score]) == 1
        poor = judge(-5 * outputs, trial)[1][task.score]
        assert float(poor) < 0.75
    assert min(seen) >= 0 and max(seen) <= 1 and not set(seen) <= {0.0}


# --- options --------------------------------------------------------------------------------------------------------

DD_BASE = {"auxiliary": True, "n_channels": 1}
OTHERS = {
    T.FlipFlop: ({}, {"n_steps": 50, "max_steps": 120, "n_channels": 2, "probability": 0.1}),
    T.DelayedDiscrimination: (
        DD_BASE,
        {
            "n_steps": 70,
            "max_steps": 90,
            "n_channels": 2,
            "auxiliary": False,
            "auxiliary_weight": 0.5,
            "lowest_amplitude": 3.0,
            "highest_amplitude": 9.0,
            "n_amplitudes": 4,
            "pulse_steps": 3,
            "latest_onset": 4,
            "min_delay": 10,
            "max_delay": 15,
            "delay_factor": 2,
            "counted": "all",
        },
    ),
    T.SineWave: (
        {},
        {
            "n_steps": 50,
            "max_steps": 120,
            "n_channels": 2,
            "n_frequencies": 4,
            "lowest_hz": 2.0,
            "highest_hz": 20.0,
            "rate_hz": 80.0,
            "input_per_hz": 0.1,
        },
    ),
    T.PathIntegration: (
        {},
        {
            "n_steps": 50,
            "max_steps": 120,
            "n_dimensions": 3,
            "n_channels": 2,
            "side": 3.0,
            "max_speed": 0.1,
            "turn": 0.2,
        },
    ),
}


def everything(task):
    """All that a member's training could notice."""
    setting, trials = trials_of(task, 6)
    first = jax.tree.map(lambda a: a[0], trials)
    loss = task.loss(jnp.ones((task.capacity, task.n_outputs)), first, setting)
    arrays = [np.asarray(a).tolist() for a in (trials.inputs, trials.targets, trials.weights)]
    return [int(setting.length), *arrays, float(loss)]


@pytest.mark.parametrize("make", FOUR)
def test_every_option_changes_something(make):
    base, others = OTHERS[make]
    before = everything(make(**base))
    assert set(others) == {f.name for f in dataclasses.fields(make)}, "a new option needs another value here"
    for name, value in others.items():
        assert everything(make(**base | {name: value})) != before, name


BAD = {
    "probability of nothing": (T.FlipFlop, {"probability": 0.0}, "probability = 0.0"),
    "probability above one": (T.FlipFlop, {"probability": 1.1}, "probability = 1.1"),
    "less room than steps": (T.FlipFlop, {"max_steps": 99}, "max_steps = 99: must be at least the 100"),
    "less room than stretched": (
        T.DelayedDiscrimination,
        {"max_steps": 79, "delay_factor": 2},
        "max_steps = 79: must be at least the 80",
    ),
    "no response": (T.DelayedDiscrimination, {"n_steps": 39}, "n_steps = 39: must be more than 39"),
    "falling delays": (T.DelayedDiscrimination, {"min_delay": 21}, "max_delay = 20: must be above min_delay"),
    "one amplitude": (T.DelayedDiscrimination, {"lowest_amplitude": 10.0}, "highest_amplitude = 10.0: must be above"),
    "one amplitude of several": (T.DelayedDiscrimination, {"n_amplitudes": 1}, "n_amplitudes = 1"),
    "weight of nothing": (T.DelayedDiscrimination, {"auxiliary_weight": 2.0}, "has no effect without auxiliary"),
    "one frequency": (T.SineWave, {"n_frequencies": 1}, "n_frequencies = 1"),
    "falling frequencies": (T.SineWave, {"lowest_hz": 30.0}, "highest_hz = 30: must be above lowest_hz = 30"),
    "two steps a period": (T.SineWave, {"highest_hz": 50.0}, "highest_hz = 50: must be below half of rate_hz = 100"),
    "one dimension": (T.PathIntegration, {"n_dimensions": 1}, "n_dimensions = 1"),
    "no arena": (T.PathIntegration, {"side": 0.0}, "side = 0.0"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_refused(case):
    make, options, words = BAD[case]
    with pytest.raises(pr.ConfigurationError, match=f"{make.__name__}: .*{words}"):
        make(**options)


def test_the_limits_themselves_are_allowed():
    assert T.DelayedDiscrimination(n_steps=40, min_delay=20).capacity == 40
    assert T.FlipFlop(max_steps=100).capacity == 100
    assert T.DelayedDiscrimination(max_steps=80).out_of_distribution().capacity == 80
    assert T.DelayedDiscrimination(max_steps=79).out_of_distribution().capacity == 80


# --- lengths, gradients, and other tasks than that of training ------------------------------------------------------

SHORT = [
    T.FlipFlop(n_steps=6, max_steps=12),
    T.DelayedDiscrimination(n_steps=9, pulse_steps=1, latest_onset=1, min_delay=1, max_delay=3, max_steps=12),
    T.SineWave(n_steps=6, max_steps=12),
    T.PathIntegration(n_steps=6, max_steps=12),
]


@pytest.mark.parametrize("task", SHORT, ids=lambda t: t.name())
def test_one_program_serves_all_lengths_and_its_gradient_is_right(task):
    """The task and its twin are one compiled program; along a random direction the gradient is a central difference."""
    twin = task.out_of_distribution()
    changed = next(f.name for f in dataclasses.fields(task) if getattr(task, f.name) != getattr(twin, f.name))
    setup = pr.Setup(task=task, cell=pr.cells.VanillaRNN(n_units=5), training=pr.Training(batch=4))
    program, stage = Program(setup), setup.training.curriculum.stage(task, setup.training.curriculum.init(task))
    with backend.precision(64):
        parameters = setup.cell.init(task.n_inputs, task.n_outputs, key=jax.random.key(1))
        key = jax.random.key(2)

        @jax.jit
        def loss_and_gradient(trainable, value):
            own = setup.substitute({f"task.{changed}": value})
            loss = lambda w: program.batch_loss(own, pr.Parameters(w, {}), stage, (), jnp.asarray(0), None, key=key)[0]
            return jax.value_and_grad(loss)(trainable)

        for which in (task, twin):
            value, gradient = loss_and_gradient(parameters.trainable, jnp.asarray(getattr(which, changed)))
            rng = np.random.default_rng(0)
            step = jax.tree.map(lambda a: 1e-5 * rng.normal(size=a.shape), parameters.trainable)  # noqa: B023
            ahead, behind = (
                loss_and_gradient(
                    jax.tree.map(lambda a, d: a + s * d, parameters.trainable, step),  # noqa: B023
                    jnp.asarray(getattr(which, changed)),
                )[0]
                for s in (1, -1)
            )
            slope = sum(float(jnp.sum(g * d)) for g, d in zip(*map(jax.tree.leaves, (gradient, step)), strict=True))
            assert abs(float(ahead - behind) / 2 - slope) < 1e-5 * abs(slope) + 1e-12
            trials = jax.vmap(lambda k: which.sample(which.draw(stage, key=k), (), key=k))(  # noqa: B023
                jax.random.split(jax.random.split(key, 4)[1], 4)
            )
            assert float(value) == pytest.approx(loss_by_hand(which, parameters.trainable, trials), rel=1e-6)
        assert loss_and_gradient._cache_size() == 1


def loss_by_hand(task, weights, trials):
    """Mean squared error of a vanilla RNN, step by step in NumPy."""
    p, x = {k: np.asarray(v, np.float64) for k, v in weights.items()}, np.asarray(trials.inputs, np.float64)
    h, errors, total = np.zeros((len(x), len(p["W"]))), 0.0, 0.0
    w = np.broadcast_to(np.asarray(trials.weights, np.float64).reshape(len(x), -1), x.shape[:2])
    for t in range(task.length):
        h = np.tanh(h @ p["W"].T + x[:, t] @ p["W_in"].T + p["bias"])
        error = ((h @ p["W_out"].T + p["b_out"] - np.asarray(trials.targets)[:, t]) ** 2).mean(axis=1)
        errors, total = errors + w[:, t] * error, total + w[:, t]
    return (errors / total).mean()


def test_members_may_differ_in_length_if_there_is_room():
    cell, options = pr.cells.VanillaRNN(n_units=3), dict(epochs=1, steps_per_epoch=1, batch=2, evaluation_batches=1)
    run = pr.fit(T.FlipFlop(n_steps=5, max_steps=9), cell, members=2, vary={"task.n_steps": [5, 9]}, **options)
    assert run.history["n_time_steps"].tolist() == [[5, 9]]
    with pytest.raises(pr.ConfigurationError, match=r"FlipFlop: trials last differently long.*give max_steps"):
        pr.fit(T.FlipFlop(n_steps=5), cell, members=2, vary={"task.n_steps": [5, 9]}, **options)
    with pytest.raises(pr.ConfigurationError, match="max_steps = 9: must be at least the 10"):
        pr.fit(T.FlipFlop(n_steps=5, max_steps=9), cell, members=2, vary={"task.n_steps": [5, 10]}, **options)


def test_networks_are_scored_out_of_distribution():
    """The loss on the twin is that of the states a rollout shows; members, weights and outcomes stay."""
    task = T.DelayedDiscrimination(n_channels=2, n_steps=40, max_delay=18, latest_onset=2)
    run = pr.fit(
        task, pr.cells.VanillaRNN(n_units=4), members=2, epochs=1, steps_per_epoch=1, batch=4, evaluation_batches=1
    )
    twin = run.on(task.out_of_distribution())
    assert twin.task == task.out_of_distribution() and run.task == task
    assert twin.outcome == run.outcome and twin.parameters is run.parameters
    seen = pr.rollout(twin, n_trials=64)
    w = seen.trials.weights[..., None]
    by_hand = (w * (seen.outputs - seen.trials.targets) ** 2).sum(axis=(2, 3)) / (2 * w.sum(axis=(2, 3)))
    found = pr.evaluate(twin, n_trials=512, batch=64)["loss"][:, 0]
    assert np.abs(found - by_hand.mean(axis=1)).max() < 5 * (by_hand.std(axis=1) / 8).max()
    assert (seen.length == 58).all()
    curve = pr.measure("performance", twin, members="all", by="delay", n_trials=64).data
    assert set(curve["delay"].values) <= set(range(10, 37, 2))
    with pytest.raises(pr.ConfigurationError, match="n_inputs = 3, these networks have 2"):
        run.on(T.FlipFlop())
    with pytest.raises(pr.ConfigurationError, match="n_outputs = 4, these networks have 2"):
        run.on(T.DelayedDiscrimination(n_channels=2, auxiliary=True))
    with pytest.raises(NotApplicableError, match="task 'n_parity' does not say what is out of its distribution"):
        T.NParity().out_of_distribution()


@pytest.mark.parametrize("make", FOUR)
def test_the_twin_asks_the_same_of_the_same_networks(make):
    task = make()
    twin = task.out_of_distribution()
    assert type(twin) is make and twin != task
    assert (twin.n_inputs, twin.n_outputs, twin.n_heads) == (task.n_inputs, task.n_outputs, task.n_heads)
    if make is not T.DelayedDiscrimination:
        assert twin == make(n_steps=200)
    roomy = make(max_steps=200)
    assert roomy.out_of_distribution().capacity == roomy.capacity == 200, "the arrays have the same shapes"


# --- can it be learned? ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "limit"),
    [
        (T.FlipFlop(n_channels=2, n_steps=25), 0.1),
        (T.DelayedDiscrimination(n_steps=30, pulse_steps=3, latest_onset=3, min_delay=2, max_delay=6), 0.5),
        (T.SineWave(n_frequencies=2, lowest_hz=2.0, highest_hz=6.0, n_steps=50, input_per_hz=0.2), 0.1),
        (T.PathIntegration(n_steps=25, turn=0.2, max_speed=0.2), 0.12),
    ],
    ids=lambda v: v.name() if isinstance(v, pr.Task) else "",
)
def test_small_networks_learn_it(task, limit):
    """A few hundred steps bring the loss well below that of the best constant answer."""
    run = pr.fit(
        task,
        pr.cells.VanillaRNN(n_units=32),
        members=2,
        epochs=3,
        steps_per_epoch=500,
        evaluation_batches=4,
        batch=32,
        monitors=(),
        optimizer=pr.optimizers.Adam(learning_rate=3e-3, clip_norm=1.0),
    )
    _, trials = trials_of(task, 1000)
    counts = np.broadcast_to(trials.weights.reshape(1000, -1), trials.targets.shape[:2]) > 0
    constant = trials.targets[counts].var(axis=0).mean()
    losses = run.history["loss"][-1]
    assert (losses < limit).all() and limit < 0.6 * constant, (losses, constant)
    assert (run.history[f"scores/{task.score}"][-1] > 0.6).all()
