"""The twenty cognitive tasks against their published numbers, brute force, and every option's claim that it matters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import poprnn as pr
from cognitive_by_hand import (
    CHOICE,
    DELAYED_CHOICE,
    MATCHING,
    NAMES,
    PERIODS,
    VARIANTS,
    bump,
    by_hand,
    drawer,
    drawn,
    keys,
    loss_by_hand,
    make,
    performance_by_hand,
    published,
    right_answer,
    sampled,
    stage_of,
)  # fmt: skip
from conftest import usually
from poprnn.cells.contract import Context
from poprnn.core import backend, native
from poprnn.tasks.contract import Setting, mean_squared_error
from poprnn.training import trainer
from poprnn.training.program import Program
from poprnn.training.settings import shape_of


@functools.cache
def conditions(variant, n=40_000, split="train", dt=1.0):
    """What ``n`` trials of all rules are about; their inputs are never made."""
    draw = drawer(make(rule="all", variant=variant, dt=dt), None, split, True)

    def only(trial_keys):
        setting, trials = draw(trial_keys)
        return setting.length, setting.no_gradient, trials.periods, trials.condition

    length, no_gradient, periods, condition = jax.tree.map(np.asarray, jax.jit(only)(keys(n)))
    lasts = {p: (edges[:, 1] - edges[:, 0]) * dt for p, edges in periods.items()}
    return condition | {"length": length, "no_gradient": no_gradient, "periods": periods, "lasts": lasts}


def of(variant, *names, **options):
    """The trials of some rules."""
    found = conditions(variant, **options)
    chosen = np.isin(found["rule"], [NAMES.index(n) for n in names])
    return jax.tree.map(lambda a: a[chosen], found)


# --- what is drawn --------------------------------------------------------------------------------------------------


def is_uniform(values, low, high, step=0.0):
    """Exact bounds, reached, and Kolmogorov-Smirnov; ``step``: what the values are rounded to."""
    values = np.asarray(values, np.float64)
    slack = step / 2 + 1e-5
    inside = low - slack <= values.min() and values.max() <= high + slack
    reached = max(values.min() - low, high - values.max()) < slack + 20 * (high - low) / len(values)
    smooth = values + np.random.default_rng(0).uniform(-step / 2, step / 2, len(values))
    return inside and reached and stats.kstest(smooth, "uniform", (low, high - low)).pvalue > 1e-4


def is_one_of(values, *choices):
    """Exactly these, equally often."""
    places = np.abs(np.asarray(values, np.float64)[:, None] - np.array(choices)).argmin(axis=1)
    exact = np.abs(values - np.array(choices)[places]).max() < 1e-5
    return exact and (len(choices) == 1 or stats.chisquare(np.bincount(places, minlength=len(choices))).pvalue > 1e-4)


def is_even(yes):
    return stats.binomtest(int(np.sum(yes)), len(yes)).pvalue > 1e-4


def test_distributions_are_really_tested():
    rng = np.random.default_rng(0)
    values = rng.uniform(400, 600, 2000)
    assert is_uniform(values, 400, 600) and is_uniform(np.round(values), 400, 600, step=1)
    for low, high in [(390, 610), (400, 610), (405, 600), (410, 590)]:
        assert not is_uniform(values, low, high)
    assert not is_uniform(400 + 200 * rng.beta(1.3, 1.3, 2000), 400, 600)
    assert is_one_of(rng.choice([200, 400], 2000), 200, 400)
    assert not is_one_of(rng.choice([200, 400], 2000), 200, 400, 600)
    assert not is_one_of(rng.choice([200, 410], 2000), 200, 400)
    assert not is_one_of(rng.choice([200, 400], 2000, p=[0.4, 0.6]), 200, 400)
    assert is_even(rng.uniform(size=2000) < 0.5) and not is_even(rng.uniform(size=2000) < 0.45)


@pytest.mark.parametrize("variant", VARIANTS)
def test_durations(variant):
    for name in NAMES:
        found, expected = of(variant, name), published(variant, name)
        assert set(found["periods"]) == set(PERIODS[variant])
        for period in PERIODS[variant]:
            ms = found["lasts"][period]
            values = expected.get(period, [0])
            right = is_uniform(ms, *values, step=1) if isinstance(values, tuple) else is_one_of(ms, *values)
            assert right, (name, period, values, ms.min(), ms.max())
        np.testing.assert_allclose(found["delay_ms"], found["lasts"]["delay"], atol=0.5001)


@pytest.mark.parametrize("variant", VARIANTS)
def test_periods_follow_one_another(variant):
    found = conditions(variant)
    edge = np.zeros(len(found["rule"]))
    for period in PERIODS[variant]:
        np.testing.assert_array_equal(found["periods"][period][:, 0], edge)
        edge = found["periods"][period][:, 1]
    assert (edge <= found["length"]).all(), "no trial is cut"
    np.testing.assert_array_equal(found["no_gradient"], 1000 if variant == "soo" else 0)
    first, second = found["lasts"]["fixation"], found["lasts"]["stimulus"]
    chosen = found["rule"] == NAMES.index("dlydm1")
    assert abs(stats.spearmanr(first[chosen], second[chosen]).statistic) < 0.1, "each period has its own duration"


def test_evaluation_trials_have_no_jitter():
    for name in NAMES:
        found = of("soo", name, n=2000, split="evaluate")
        for period, values in published("soo", name).items():
            assert set(found["lasts"][period]) == {np.mean(values)}, (name, period)
    yang = of("yang", "dlygo", n=2000, split="evaluate")
    assert len(set(yang["delay_ms"])) == 4, "durations belong to the task there"


@pytest.mark.parametrize("variant", VARIANTS)
def test_directions(variant):
    turn, opposite = 2 * np.pi, (np.pi / 2, 3 * np.pi / 2)
    for name in set(NAMES) - {"dmc", "dnmc"}:
        assert is_uniform(of(variant, name)["directions"][:, 0], 0, turn), name
    for name in CHOICE:
        first, second = of(variant, name)["directions"].T
        assert is_uniform((second - first) % turn, *opposite), name
        assert is_uniform(second, 0, turn), name
    for name in ("dms", "dnms"):
        found = of(variant, name)
        offset = (found["directions"][:, 1] - found["directions"][:, 0] + np.pi) % turn - np.pi
        match = found["match"]
        assert is_even(match)
        if variant == "soo":
            assert is_uniform(offset[match], -np.pi / 18, np.pi / 18)
            assert is_uniform(offset[~match] % turn, *opposite)
        else:
            assert abs(offset[match]).max() < 1e-5
            assert is_uniform(offset[~match] % turn, np.pi / 9, 17 * np.pi / 9)
    for name in set(NAMES) - set(CHOICE) - set(MATCHING):
        found = of(variant, name)
        assert np.isnan(found["directions"][:, 1]).all() and np.isnan(found["coherence"]).all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["dmc", "dnmc"])
def test_categories(variant, name):
    found = of(variant, name)
    directions, category, match = found["directions"], found["category"], found["match"]
    np.testing.assert_array_equal(category, directions >= np.pi)
    np.testing.assert_array_equal(match, category[:, 0] == category[:, 1])
    assert is_one_of(2 * category[:, 0] + category[:, 1], 0, 1, 2, 3), "also from the second category to the first"
    within = directions - np.pi * category
    for stimulus in (0, 1):
        for c in (0, 1):
            values = within[category[:, stimulus] == c, stimulus]
            if variant == "soo":
                assert is_uniform(values, 0, np.pi / 2)
            else:
                assert is_one_of(values / np.pi, 0.1, 0.3, 0.5, 0.7, 0.9)
    assert abs(stats.spearmanr(*within.T).statistic) < 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_stimulus_is_on_either_ring(variant):
    for name in set(NAMES) - set(CHOICE):
        strengths = of(variant, name)["strengths"]
        np.testing.assert_array_equal(np.sort(strengths[:, 0], axis=1), np.tile([0.0, 1.0], (len(strengths), 1)))
        assert is_even(strengths[:, 0, 0] == 1)
        if name in MATCHING:
            assert is_even(strengths[:, 1, 0] == 1)
            assert is_even(strengths[:, 0, 0] == strengths[:, 1, 0]), "independent of the first"
        else:
            assert (strengths[:, 1] == 0).all()


def are_strengths(variant, name, first, second):
    """Whether two strengths have the published mean and difference, either the larger as often."""
    mean, half = (first + second) / 2, (first - second) / 2
    if variant == "soo":
        size = is_uniform(abs(half), 0.1, 0.2)
    else:
        size = is_one_of(abs(half), *([0.08, 0.16, 0.32] if "dly" in name else [0.01, 0.02, 0.04, 0.08]))
    return size and is_uniform(mean, 0.8, 1.2) and is_even(half > 0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", CHOICE)
def test_strengths(variant, name):
    found = of(variant, name)
    strengths = found["strengths"].astype(np.float64)
    coherence = np.abs(found["coherence"])
    if name.startswith("multsen"):
        total = strengths.mean(axis=2)
        assert are_strengths(variant, name, *total.T)
        excess = strengths[:, :, 0] / total - 1
        low, high = (0.2, 0.4) if variant == "soo" else (0.1, 0.4)
        for stimulus in (0, 1):
            assert is_uniform(abs(excess[:, stimulus]), low, high)
            assert is_even(excess[:, stimulus] > 0)
        alike = np.allclose(excess[:, 0], excess[:, 1], atol=1e-5)
        assert alike == (variant == "soo")
        assert alike or is_even((excess[:, 0] > 0) == (excess[:, 1] > 0))
        np.testing.assert_allclose(coherence, abs(total[:, 0] - total[:, 1]), atol=1e-5)
        return
    ring = int(name[-1]) - 1
    assert are_strengths(variant, name, *strengths[:, :, ring].T)
    np.testing.assert_allclose(found["coherence"], strengths[:, 0, ring] - strengths[:, 1, ring], atol=1e-5)
    other = strengths[:, :, 1 - ring]
    if "ctx" not in name:
        assert (other == 0).all()
        return
    assert are_strengths(variant, name, *other.T)
    assert is_even((other[:, 0] > other[:, 1]) == (found["coherence"] > 0)), "the other ring says nothing"
    assert abs(stats.spearmanr(other.sum(axis=1), strengths[:, :, ring].sum(axis=1)).statistic) < 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_rules_are_drawn_evenly_among_those_active(variant):
    assert stats.chisquare(np.bincount(conditions(variant)["rule"], minlength=20)).pvalue > 1e-4
    task = make(rule=["dms", "go", "dnmc"], variant=variant, dt=50.0)
    _, trials = drawn(task, 200, heads=(0, 2))
    assert set(trials.condition["head"]) == {0, 2}
    np.testing.assert_array_equal(trials.condition["rule"], np.array([16, 0, 19])[trials.condition["head"]])


# --- every step, by brute force -------------------------------------------------------------------------------------


@functools.cache
def some_trials(variant, timing="trial"):
    """All rules at once, without noise."""
    task = make(rule="all", variant=variant, dt=25.0, timing=timing, input_noise=0.0)
    return task, *drawn(task, 400, batches=False)


def each(trials):
    for i in range(len(trials.weights)):
        yield i, jax.tree.map(lambda a, i=i: a[i], trials)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("timing", ["trial", "batch"])
def test_every_step_by_hand(variant, timing):
    _, setting, trials = some_trials(variant, timing)
    assert set(trials.condition["rule"]) == set(range(20)), "every rule is looked at"
    holds = set()
    for _, trial in each(trials):
        inputs, targets, weights = by_hand(variant, trial.condition, trial.periods, 25.0)
        n = len(weights)
        np.testing.assert_allclose(trial.inputs[:n], inputs, atol=1e-5)
        np.testing.assert_allclose(trial.targets[:n], targets, atol=1e-5)
        np.testing.assert_array_equal(trial.weights[:n], weights)
        assert (trial.weights[n:] == 0).all() and n <= setting.length
        answer = right_answer(variant, NAMES[trial.condition["rule"]], trial.condition)
        assert trial.condition["hold"] == (answer is None)
        holds.add((NAMES[trial.condition["rule"]], bool(trial.condition["hold"])))
        if answer is not None:
            np.testing.assert_allclose(trial.condition["response_direction"], answer % (2 * np.pi), atol=1e-5)
    assert {n for n, hold in holds if hold} == {n for n in MATCHING if (n, False) in holds} == set(MATCHING)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("pair", [("dms", "dnms"), ("dmc", "dnmc")])
def test_the_negated_tasks_are_the_opposite(variant, pair):
    """Same keys, same stimuli, the other answer."""
    (_, same), (_, other) = (drawn(make(rule=r, variant=variant, dt=50.0, input_noise=0.0), 64) for r in pair)
    np.testing.assert_array_equal(same.inputs[:, :, :65], other.inputs[:, :, :65])
    assert (same.inputs[:, :, 65:] != other.inputs[:, :, 65:]).any()
    np.testing.assert_array_equal(same.condition["match"], other.condition["match"])
    np.testing.assert_array_equal(same.condition["hold"], ~other.condition["hold"])
    assert 16 < same.condition["hold"].sum() < 48
    both = np.where(same.condition["hold"], other.condition["response_direction"], same.condition["response_direction"])
    np.testing.assert_array_equal(both, same.condition["directions"][:, 1])


def test_input_noise():
    quiet, noisy, louder = (make(rule="dm1", variant="yang", input_noise=n) for n in (0.0, None, 0.02))
    (_, clean), (_, default), (_, loud) = (drawn(t, 50, split="evaluate") for t in (quiet, noisy, louder))
    noise = default.inputs - clean.inputs
    expected = 0.01 * (2 * 100 / 20) ** 0.5
    n = noise.size
    assert abs(noise.std() / expected - 1) < 5 / (2 * n) ** 0.5 and abs(noise.mean()) < 5 * expected / n**0.5
    np.testing.assert_allclose(loud.inputs - clean.inputs, 2 * noise, atol=1e-5)
    for shift in ((0, 1, 0), (0, 0, 1)):
        assert abs(np.mean(noise * np.roll(noise, shift, (0, 1, 2)))) < 5 * expected**2 / n**0.5, "white"
    _, coarse = drawn(make(rule="dm1", variant="yang", dt=80.0), 50)
    _, smooth = drawn(make(rule="dm1", variant="yang", dt=80.0, input_noise=0.0), 50)
    assert abs((coarse.inputs - smooth.inputs).std() / expected - 0.5) < 0.01, "scaled by the step"
    _, soo = drawn(make(dt=50.0), 3)
    _, soo_noisy = drawn(make(dt=50.0, input_noise=0.01), 3)
    assert (soo.inputs == 0).any() and not (soo_noisy.inputs == 0).any()


# --- lengths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "ms"), [("go", 2500), ("dlygo", 3500), ("dlydm1", 4000), (["rtgo", "dms"], 4000)])
@pytest.mark.parametrize("dt", [None, 1.0, 20.0])
def test_lengths_of_soo(rule, ms, dt):
    task = make(rule=rule, dt=dt)
    step = dt or 5.0
    still = task.draw(stage_of(task, split="evaluate"), key=jax.random.key(0))
    assert (int(still.length), int(still.no_gradient), float(still.dt)) == (ms / step, 1000 / step, step)
    n_jittered = {2500: 2, 3500: 3, 4000: 4}[ms]
    assert task.capacity == (ms + 100 * n_jittered) / step
    lengths = jax.jit(jax.vmap(lambda key: task.draw(stage_of(task), key=key).length))(keys(2000))
    assert (ms - 100 * n_jittered) / step <= lengths.min() < ms / step < lengths.max() <= task.capacity
    own = make(rule=rule, dt=dt, timing="trial").draw(stage_of(task), key=jax.random.key(0))
    assert int(own.length) == task.capacity, "room for the longest"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dt", [7.3, 24.0, 100.0])
def test_no_trial_is_longer_than_its_batch_or_the_capacity(variant, dt):
    task = make(rule="all", variant=variant, dt=dt)
    extremes = jnp.asarray([0.0, 0.5, 1 - 1e-7])
    for stage in (stage_of(task), stage_of(task, split="evaluate")):
        setting = jax.vmap(functools.partial(lambda stage, key: task.draw(stage, key=key), stage))(keys(300))
        assert int(setting.length.max()) <= task.capacity
    for chance in extremes:
        setting = task.draw(stage_of(task), key=jax.random.key(0))
        setting = setting._replace(extra=setting.extra | {"chances": jnp.full(7, chance)})
        assert int(task.coarsen(setting, 1.0).length) <= task.capacity
    setting, trials = drawn(make(rule="all", variant=variant, dt=dt, timing="trial"), 100, batches=False)
    assert trials.periods["response"][:, 1].max() <= setting.length <= task.capacity
    assert all((trials.weights * (np.arange(task.capacity) >= trials.periods["response"][:, :1])).max(axis=1) > 0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_length_is_that_of_the_longest_active_rule(variant):
    task = make(rule=["go", "dlydm1"], variant=variant)
    lengths = [int(task.draw(stage_of(task, heads), key=jax.random.key(4)).length) for heads in ([0], [1], [0, 1])]
    assert lengths[0] < lengths[1] == lengths[2]
    setting, trials = drawn(task, 200, seed=3, batches=False)
    ends = trials.periods["response"][:, 1]
    assert len(set(ends)) == 2, "one for each rule: a batch shares its durations"
    assert ends.max() == setting.length


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("rule", usually(["rtgo", "dlyanti", "multsendm", "ctxdlydm2", "dnmc"], "ctxdlydm2", "dnmc"))
def test_ten_times_coarser_is_the_same_trial_in_a_tenth_of_the_steps(variant, rule):
    task = make(rule=rule, variant=variant, dt=2.0, input_noise=0.0)
    stage = stage_of(task, split="evaluate")

    @jax.jit
    def both(factor):
        fine = task.draw(stage, key=jax.random.key(1))
        coarse = task.coarsen(fine, factor)
        sample = lambda setting: jax.vmap(lambda key: sampled(task, setting, key))(keys(20))
        return [(setting, sample(setting)) for setting in (fine, coarse)]

    (fine, trials), (coarse, again) = jax.tree.map(np.asarray, both(10.0))
    assert coarse.dt == 20 and coarse.no_gradient == -(-fine.no_gradient // 10)
    for name, value in trials.condition.items():
        np.testing.assert_array_equal(again.condition[name], value, name)
    for period in PERIODS[variant]:
        lasts = [np.diff(t.periods[period]).ravel() for t in (trials, again)]
        np.testing.assert_allclose(lasts[1], lasts[0] / 10, atol=0.5 + 1e-6)
    assert abs(int(coarse.length) - int(fine.length) / 10) <= (0 if variant == "soo" else 1.5)
    assert (again.periods["response"][:, 1] == coarse.length).all()
    if variant == "soo":  # every duration is a whole number of coarse steps
        n = int(coarse.length)
        np.testing.assert_array_equal(again.inputs[:, :n], trials.inputs[:, : 10 * n : 10])
        np.testing.assert_array_equal(again.targets[:, :n], trials.targets[:, : 10 * n : 10])
        np.testing.assert_array_equal(again.weights[:, :n], trials.weights[:, : 10 * n : 10])
    for got, want in zip(jax.tree.leaves(both(1.0)[1]), jax.tree.leaves((fine, trials)), strict=True):
        np.testing.assert_array_equal(got, want, "a factor of one changes nothing")


def test_two_thousand_trials_at_once():
    task = make()
    _, trials = drawn(task, 2000, batches=False)
    assert trials.inputs.shape == (2000, task.capacity, 85)
    assert len({row.tobytes() for row in trials.inputs[:, 350]}) > 1900, "no two alike"


# --- performance and loss -------------------------------------------------------------------------------------------


def rough(trials, seed=0):
    """Outputs that are sometimes right and sometimes not."""
    rng = np.random.default_rng(seed)
    turned = np.roll(trials.targets[:, :, 1:], 4, axis=2)  # by 0.25 pi
    ring = np.where(rng.uniform(size=trials.targets.shape[:2])[..., None] < 0.4, turned, trials.targets[:, :, 1:])
    fixation = np.clip(trials.targets[:, :, :1] + rng.normal(0, 0.4, (*trials.targets.shape[:2], 1)), 0, 1)
    ring = np.clip(ring + rng.normal(0, 0.05, ring.shape), 0, 1)
    return np.concatenate([fixation, ring], axis=2).astype(np.float32)


def scores(task, setting, trials, outputs):
    found = jax.jit(jax.vmap(lambda o, t: task.scores(o, t, setting)["performance"]))(outputs, trials)
    return np.asarray(found)


def losses(task, setting, trials, outputs):
    return np.asarray(jax.jit(jax.vmap(lambda o, t: task.loss(o, t, setting)))(outputs, trials))


@pytest.mark.parametrize("variant", VARIANTS)
def test_performance_and_loss_by_hand(variant):
    task, setting, trials = some_trials(variant)
    outputs = rough(trials)
    found, loss = scores(task, setting, trials, outputs), losses(task, setting, trials, outputs)
    heads = trials.condition["head"]
    assert (np.isnan(found).sum(axis=1) == 19).all() and found.shape == (400, 20)
    expected = [performance_by_hand(variant, t, outputs[i], 25.0) for i, t in each(trials)]
    np.testing.assert_allclose(found[np.arange(400), heads], expected, atol=1e-5)
    np.testing.assert_allclose(loss, [loss_by_hand(variant, t, outputs[i], 25.0) for i, t in each(trials)], rtol=1e-4)
    assert 0.2 < np.mean(expected) < 0.95, "neither all right nor all wrong"


@pytest.mark.parametrize("variant", VARIANTS)
def test_performance_at_its_ends(variant):
    task, setting, trials = some_trials(variant)
    own = lambda outputs: scores(task, setting, trials, outputs)[np.arange(400), trials.condition["head"]]
    np.testing.assert_allclose(own(trials.targets), 1, atol=1e-6)
    assert (losses(task, setting, trials, trials.targets) < 1e-12).all()
    hold = trials.condition["hold"]
    assert hold.any() and not hold.all()
    wrong = np.concatenate([trials.targets[:, :, :1], np.roll(trials.targets[:, :, 1:], 16, axis=2)], axis=2)
    share = np.array(
        [5 / 6 if n in DELAYED_CHOICE + MATCHING else 4 / 5 if n.startswith("dly") else 2 / 3 for n in NAMES]
    )
    share = share[trials.condition["rule"]] if variant == "soo" else np.zeros(400)
    np.testing.assert_allclose(own(wrong), np.where(hold, 1, share), atol=1e-6)
    silent, eager = (np.concatenate([np.full_like(trials.targets[:, :, :1], y), trials.targets[:, :, 1:]], axis=2)
                     for y in (0.9, 0.1))  # fmt: skip
    np.testing.assert_allclose(own(silent), np.where(hold, 1, share), atol=1e-6)
    np.testing.assert_allclose(own(eager), np.where(hold, 0, 1 - share), atol=1e-6)
    assert (own(np.full_like(trials.targets, np.nan)) == 0).all()


@pytest.mark.parametrize(("off", "right"), [(0.19, 1.0), (0.21, 0.0)])
def test_right_is_within_a_fifth_of_pi(off, right):
    task = make(rule="go", variant="yang", input_noise=0.0)
    setting, trials = drawn(task, 20, batches=False)
    target = trials.condition["response_direction"] + off * np.pi * np.array([1, -1] * 10)
    ring = np.stack([bump(d % (2 * np.pi)) for d in target])[:, None].repeat(task.capacity, axis=1)
    outputs = np.concatenate([trials.targets[:, :, :1], ring + 0.05], axis=2).astype(np.float32)
    np.testing.assert_array_equal(scores(task, setting, trials, outputs)[:, 0], right)


@pytest.mark.parametrize("half", ["first", "second"])
def test_half_a_response_counts_half(half):
    task = make(rule="dlygo", dt=10.0)
    setting, trials = drawn(task, 10, split="evaluate", batches=False)
    start = trials.periods["response"][0, 0]
    outputs = trials.targets.copy()
    window = slice(start, start + 35) if half == "first" else slice(start + 35, None)  # 20 left out, then 15 and 15
    outputs[:, window, 1:] = np.roll(outputs[:, window, 1:], 16, axis=2)
    np.testing.assert_allclose(scores(task, setting, trials, outputs)[:, 0], 4 / 5 + 1 / 5 / 2, atol=1e-6)
    outputs = trials.targets.copy()
    outputs[:, 120 : 120 + 90, 0] = 0.2  # 90 of the 180 steps of fixation that count
    np.testing.assert_allclose(scores(task, setting, trials, outputs)[:, 0], 4 / 5 / 2 + 1 / 5, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_does_not_count_may_be_anything(variant):
    task, setting, trials = some_trials(variant)
    outputs = rough(trials)
    wild = np.where(trials.weights[..., None] > 0, outputs, np.inf)
    np.testing.assert_array_equal(losses(task, setting, trials, wild), losses(task, setting, trials, outputs))
    np.testing.assert_array_equal(scores(task, setting, trials, wild), scores(task, setting, trials, outputs))
    _, trial = next(each(trials))
    gradient = np.asarray(jax.grad(task.loss)(jnp.asarray(wild[0]), trial, setting))
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal((gradient != 0).any(axis=1), trial.weights > 0)
    assert float(mean_squared_error(task, jnp.asarray(wild[0]), trial, setting)) < np.inf, "also for other objectives"


# --- options --------------------------------------------------------------------------------------------------------


def test_rules_by_name():
    assert make(rule="all").rules == tuple(NAMES) and make().rules == ("dlygo",)
    paper = ["dgo", "danti", "ddm", "ddmd", "msddm", "dmd", "msdm"]
    assert make(rule=paper).rules == (
        "dlygo", "dlyanti", "dlydm1", "ctxdlydm1", "multsendlydm", "ctxdm1", "multsendm"
    )  # fmt: skip
    task = make(rule=("DMC", "dms"))
    assert (task.n_heads, task.n_inputs, task.n_outputs) == (2, 85, 33)
    assert [task.head_name(h) for h in range(2)] == ["dmc", "dms"]
    assert make(variant="yang").step_ms == 20 and make().step_ms == 5


BAD = {
    "unknown rule": ({"rule": "dlgo"}, "rule = 'dlgo': no such rule; did you mean 'dlygo'"),
    "unknown among several": ({"rule": ["go", "dmx"]}, "rule = 'dmx': no such rule"),
    "no rule": ({"rule": []}, "at least one"),
    "twice": ({"rule": ["go", "go"]}, "'go' stands there twice"),
    "twice by another name": ({"rule": ["dlygo", "dgo"]}, "'dlygo' stands there twice"),
    "jitter where there is none": ({"variant": "yang", "jitter": 50.0}, "jitter = 50: has no effect"),
    "jitter as long as what counts": ({"jitter": 300.0}, "jitter = 300.0: must be less than 300"),
    "negative jitter": ({"jitter": -1.0}, "jitter = -1.0: must be greater than or equal to 0"),
    "no step": ({"dt": 0.0}, "dt = 0.0: must be greater than 0"),
    "a step too long": ({"dt": 101.0}, "dt = 101.0: must be less than or equal to 100"),
    "variant": ({"variant": "zoo"}, "variant = 'zoo': must be 'soo' or 'yang'"),
    "timing": ({"timing": "member"}, "timing = 'member'"),
    "noise": ({"input_noise": -0.1}, "input_noise = -0.1"),
}


@pytest.mark.parametrize("case", BAD)
def test_tasks_that_cannot_be_are_refused(case):
    options, words = BAD[case]
    with pytest.raises(pr.ConfigurationError, match=words):
        make(**options)


OTHER = {"rule": "dlyanti", "variant": "yang", "dt": 10.0, "jitter": 50.0, "timing": "trial", "input_noise": 0.1}


def test_every_option_changes_something():
    def does(task):
        setting, trials = drawn(task, 3, batches=False)
        return [int(setting.length), float(setting.dt), trials.inputs.tolist(), trials.targets.tolist()]

    before = does(make())
    assert before == does(make())
    assert set(OTHER) == {f.name for f in dataclasses.fields(pr.tasks.Cognitive)}, (
        "a new option needs another value here"
    )
    for field, value in OTHER.items():
        assert does(make(**{field: value})) != before, field


def test_what_may_differ_between_members():
    vary = lambda name: pr.Setup(
        task=make(), cell=pr.cells.LeakyRNN(n_units=4), population={"members": 2, "vary": {name: [0.5, 3.0]}}
    )
    assert vary("task.input_noise").population.values(1) == {"task.input_noise": 3.0}
    for name in ("task.dt", "task.jitter"):
        with pytest.raises(pr.ConfigurationError, match=f"'{name}' cannot differ"):
            vary(name)
    task, key = make(dt=50.0), jax.random.key(0)
    setting = task.draw(stage_of(task), key=key)
    inputs = lambda task: sampled(task, setting, key).inputs
    traced = jax.jit(lambda x: inputs(task.substitute({"input_noise": x})))(0.5)
    np.testing.assert_allclose(traced, jax.jit(lambda: inputs(make(dt=50.0, input_noise=0.5)))(), rtol=1e-6)


# --- training -------------------------------------------------------------------------------------------------------

CELL = pr.cells.LeakyRNN(
    n_units=16, tau=100.0, self_interaction="outside", activation="relu", input_units=(0, 6), output_units=(6, 12)
)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_short_training_learns_and_compiles_once_for_all_lengths(variant):
    run = pr.fit(
        make(rule="go", variant=variant, dt=50.0),
        CELL,
        members=2,
        epochs=60,
        steps_per_epoch=1,
        batch=16,
        evaluation_batches=1,
        optimizer={"kind": "adam", "learning_rate": 0.01},
    )
    assert len(set(np.diff(run.history["n_time_steps"][:, 0]))) > 4, "batches of different lengths"
    train, evaluate = trainer.compiled(shape_of(run.setup), 2, False, None, native.instructions())[2:]
    assert train._jitted._cache_size() == evaluate._jitted._cache_size() == 1
    found = run.history["scores/performance"]
    assert found.shape == (60, 2, 1) and (found >= 0).all() and (found <= 1).all()
    loss = run.history["training_loss"]
    assert (loss[-10:].mean(axis=0) < 0.75 * loss[:10].mean(axis=0)).all()


def scored(setup, heads, n_batches, n_trials):
    """What :meth:`Program.score` says, and every trial's own loss and scores, drawn with the same keys."""
    program, task = Program(setup), setup.task

    @jax.jit
    def both(key):
        parameters, stage = program.start(0, {}, 0).parameters, stage_of(task, heads, "evaluate")
        found = program.score(setup, parameters, stage, (), n_batches, key=key, n_trials=n_trials)

        def one(i):
            key_i = jax.random.fold_in(key, i)
            batch = program.run_batch(
                setup, pr.methods.Control(), parameters, stage, (), Context(), key=key_i, n_trials=n_trials
            )
            single = lambda o, t: (task.loss(o, t, batch.setting), task.scores(o, t, batch.setting))
            return jax.vmap(single)(batch.outputs, batch.trials)

        return found, jax.lax.map(one, jnp.arange(n_batches))

    with backend.precision(32):
        found, single = both(jax.random.key(3))
    return *found, *jax.tree.map(lambda a: np.asarray(a, np.float64), single)


def test_scores_are_means_over_the_trials_of_a_head():
    task = make(rule=["go", "anti", "dmc", "dlydm1"], dt=100.0)
    loss, found, each_loss, each_score = scored(pr.Setup(task=task, cell=CELL), [0, 1, 2], 3, 10)
    by_trial = each_score["performance"].reshape(30, 4)
    counts = (~np.isnan(by_trial)).sum(axis=0)
    assert counts.sum() == 30 and counts[3] == 0 and len(set(counts[:3])) > 1
    expected = [np.nanmean(column) if n else np.nan for column, n in zip(by_trial.T, counts, strict=True)]
    np.testing.assert_allclose(found["performance"], expected, rtol=1e-5)
    np.testing.assert_allclose(loss, each_loss.mean(), rtol=1e-5)


def test_scores_of_memory_tasks_are_the_means_they_were():
    setup = pr.Setup(task=pr.tasks.NDMS(n_max=6), cell=pr.cells.LeakyRNN(n_units=8))
    _, found, _, each_score = scored(setup, [0, 3], 4, 16)
    by_batch = each_score["accuracy"].mean(axis=1).mean(axis=0)
    np.testing.assert_array_equal(found["accuracy"], np.float32(by_batch))
    assert np.isnan(by_batch).tolist() == [False, True, True, False, True]


def test_several_rules_at_once():
    task = make(rule=["go", "dlygo", "dnms"], dt=100.0)
    options = dict(epochs=1, steps_per_epoch=2, batch=8, evaluation_batches=1, curriculum="multi_head")
    run = pr.fit(task, CELL, members=2, **options)
    first = [False, True, True]
    assert np.isnan(run.history["scores/performance"]).tolist() == [[first, first]], "the others are switched on later"
    active = np.array([[True, True, True], [False, True, True]])
    found = pr.evaluate(run, heads=active, n_trials=64, batch=64)["performance"]
    assert np.isnan(found).tolist() == [[[False] * 3, [True, False, False]]] * 2


def test_a_curriculum_waits_for_a_rule_that_no_trial_had():
    task, curriculum = make(rule=["go", "dlygo", "dnms"]), pr.curricula.MultiHead(threshold=0.9)
    second = curriculum.init(task)._replace(index=jnp.asarray(1))
    update = lambda *scores: int(curriculum.update(task, second, {"performance": jnp.array(scores)}).index)
    assert update(1.0, jnp.nan, jnp.nan) == update(jnp.nan, 1.0, jnp.nan) == 1
    assert update(1.0, 1.0, jnp.nan) == 2


def test_a_setting_holds_arrays_only():
    """So that it can be mapped and traced."""
    setting = make().draw(stage_of(make()), key=jax.random.key(0))
    assert isinstance(setting, Setting) and all(isinstance(a, jax.Array) for a in jax.tree.leaves(setting))
