"""Tasks against brute force from their own inputs, and every option against the claim that it does something."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from scipy import special, stats

import poprnn as pr
from conftest import TINY
from poprnn.tasks.contract import Setting, Stage, Trial

MEMORY_TASKS = [pr.tasks.NParity, pr.tasks.NDMS]


def stage_of(task, heads, shared=False, split="train"):
    """The stage in which ``heads`` are active."""
    active = np.isin(np.arange(task.n_heads), heads)
    return Stage(jnp.asarray(active), jnp.asarray(max(heads)), jnp.asarray(max(heads)), shared, split)


def brute_force(task, bits, memory):
    """The answer after all of ``bits``, in plain Python."""
    bits = [int(b) for b in bits]
    if isinstance(task, pr.tasks.NParity):
        return sum(bits[-memory:]) % 2
    return int(bits[-1] == bits[-memory])


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def draw_many(task, heads, n, seed=0):
    stage = stage_of(task, heads)
    return jax.jit(jax.vmap(lambda key: task.draw(stage, key=key)))(keys(n, seed))


@functools.cache
def sampler(task, heads, n, shared):
    """One compiled program for a setting and its trials."""
    stage = stage_of(task, heads, shared)

    def batch(draw_key, trial_keys):
        setting = task.draw(stage, key=draw_key)
        return setting, jax.vmap(lambda key: task.sample(setting, (), key=key))(trial_keys)

    return jax.jit(batch)


def batch_of(task, heads, n, seed=0, shared=False):
    """One setting and ``n`` trials drawn under it."""
    setting, trials = sampler(task, tuple(heads), n, shared)(jax.random.key(seed), keys(n, seed + 1))
    return setting._replace(extra=setting.extra | {"shared": shared}), trials


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MEMORY_TASKS)
def test_labels_are_right_at_every_step_for_every_head(make):
    task = make(n_min=1, n_max=7)
    for seed in range(3):
        bits = np.random.default_rng(seed).integers(0, 2, 40)
        classes, known = task.labels(jnp.asarray(bits))
        assert classes.shape == known.shape == (40, 7)
        for t in range(40):
            for head, memory in enumerate(range(1, 8)):
                assert bool(known[t, head]) == (t + 1 >= memory)
                if known[t, head]:
                    assert int(classes[t, head]) == brute_force(task, bits[: t + 1], memory)


@pytest.mark.optimised
@pytest.mark.parametrize("make", MEMORY_TASKS)
@pytest.mark.parametrize("options", [{}, {"bit_duration": 3}, {"bit_duration": 2, "dt": (0.5, 1.0, 0.3)}], ids=str)
def test_samples_answer_to_the_true_last_bit(make, options):
    task = make(n_max=5, **options)
    n_wrong_if_early = 0
    for seed in range(6):
        setting, trials = batch_of(task, range(task.n_heads), 20, seed=10 * seed)
        length, steps = int(setting.length), int(setting.extra["steps"])
        assert trials.inputs.shape == (20, task.capacity, 1)
        assert length == steps * int(setting.extra["n_bits"]) <= task.capacity
        assert set(np.unique(trials.inputs)) <= {0.0, 1.0}
        for inputs, targets in zip(np.asarray(trials.inputs)[:, :length, 0], np.asarray(trials.targets), strict=True):
            shown = inputs.reshape(-1, steps)
            assert (shown == shown[:, :1]).all(), "a bit stays for all its steps"
            bits = shown[:, 0]
            assert targets.tolist() == [brute_force(task, bits, n) for n in range(2, 6)]
            n_wrong_if_early += targets.tolist() != [brute_force(task, bits[:-1], n) for n in range(2, 6)]
    assert n_wrong_if_early > 20, "the test could not tell the last bit from the one before"


@pytest.mark.parametrize("make", MEMORY_TASKS)
def test_head_names_and_sizes(make):
    task = make(n_min=3, n_max=9)
    assert (task.n_heads, task.n_outputs, task.n_inputs) == (7, 14, 1)
    assert task.memories.tolist() == list(range(3, 10))
    assert [task.head_name(h) for h in (0, 6)] == ["N = 3", "N = 9"]
    assert task.capacity == 36
    with pytest.raises(pr.ConfigurationError, match="n_max = 2 must be at least n_min = 3"):
        make(n_min=3, n_max=2)


@pytest.mark.parametrize("make", MEMORY_TASKS)
@pytest.mark.parametrize("options", [{}, {"bit_duration": 2, "dt": (0.5, 1.0)}], ids=str)
def test_bit_values_stand_for_the_bits(make, options):
    plain, signed = make(n_max=4, **options), make(n_max=4, bit_values=(-1.0, 1.0), **options)
    odd = make(n_max=4, bit_values=(2.5, -0.75), **options)  # the larger value may stand for the 0
    for seed in range(3):
        (setting, bits), (_, signs), (_, odds) = (batch_of(t, range(3), 8, seed) for t in (plain, signed, odd))
        shown = np.asarray(bits.inputs)
        assert bits.inputs.dtype == signs.inputs.dtype == jnp.float32
        assert set(np.unique(shown)) == {0.0, 1.0}
        np.testing.assert_array_equal(signs.inputs, np.where(shown > 0, 1, -1))
        np.testing.assert_array_equal(odds.inputs, np.where(shown > 0, -0.75, 2.5))
        for other in (signs, odds):
            np.testing.assert_array_equal(other.targets, bits.targets, "the question stays the same")
        assert int(setting.length) > 0


def test_the_default_shows_the_bits_themselves():
    """Bit for bit: earlier results hold."""
    task, key = pr.tasks.NParity(n_max=4, bit_duration=3), jax.random.key(7)
    setting = task.draw(stage_of(task, [0, 1, 2]), key=key)
    shown = np.asarray(task.sample(setting, (), key=key).inputs)
    expected = np.repeat(np.asarray(task.bits(key=key)), 3).astype(np.float32)[:, None]
    assert shown.tobytes() == expected.tobytes()


@pytest.mark.parametrize("bits", [[0, 1, 1], [[True], [False]], np.array([[0, 1]], np.int8)], ids=str)
def test_encode_takes_bits_of_any_kind(bits):
    task = pr.tasks.NDMS(bit_values=(-2.0, 0.5))
    encoded = task.encode(jnp.asarray(bits))
    assert encoded.dtype == jnp.float32
    np.testing.assert_array_equal(encoded, np.where(np.asarray(bits), 0.5, -2.0))
    np.testing.assert_array_equal(jax.jit(task.encode)(jnp.asarray(bits)), encoded)


@pytest.mark.parametrize("values", [(), (1.0,), (0.0, 1.0, 2.0), (1.0, 1.0), (0.0, -0.0)], ids=str)
def test_bit_values_are_two_different_numbers(values):
    with pytest.raises(pr.ConfigurationError, match=r"NParity: bit_values = .*two different numbers"):
        pr.tasks.NParity(bit_values=values)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1"])
def test_bit_values_are_finite_numbers(value):
    with pytest.raises(pr.ConfigurationError, match="NDMS: bit_values"):
        pr.tasks.NDMS(bit_values=(0.0, value))


# --- what is drawn --------------------------------------------------------------------------------------------------


def is_uniform_on(values, low, high):
    """Exact support and a chi-square test."""
    counts = np.bincount(np.asarray(values), minlength=high + 1)
    inside = counts[low : high + 1]
    return counts.sum() == inside.sum() and bool((inside > 0).all()) and stats.chisquare(inside).pvalue > 1e-3


@pytest.mark.parametrize("make", MEMORY_TASKS)
@pytest.mark.parametrize(("heads", "largest"), [([0], 2), ([3], 5), ([0, 1, 2, 3, 4], 6), ([1, 8], 10)])
def test_lengths_are_uniform_from_n_plus_2_to_4n(make, heads, largest):
    lengths = draw_many(make(n_max=10), heads, 20_000, seed=largest).length
    assert is_uniform_on(lengths, largest + 2, 4 * largest)
    for low, high in [(largest + 1, 4 * largest), (largest + 2, 4 * largest + 1), (largest + 3, 4 * largest)]:
        assert not is_uniform_on(lengths, low, high)


def test_uniformity_is_really_tested():
    rng = np.random.default_rng(0)
    assert is_uniform_on(rng.integers(4, 9, 20_000), 4, 8)
    assert not is_uniform_on(np.round(rng.normal(6, 1, 20_000)).clip(4, 8).astype(int), 4, 8)


def test_extra_bits_and_length_factor_set_the_range_of_lengths():
    task = pr.tasks.NParity(n_max=6, extra_bits=5, length_factor=3)
    assert is_uniform_on(draw_many(task, [4], 20_000).length, 11, 18)
    short = pr.tasks.NDMS(n_max=6, extra_bits=3, length_factor=1)  # the range would be empty: the lower end holds
    assert set(np.unique(draw_many(short, [4], 200).length)) == {9}
    assert short.capacity == 9


def fractions_of_ones(task, n=3000, n_bits=1500):
    bits = jax.jit(jax.vmap(lambda key: task.bits(key=key, n_bits=n_bits).mean()))(keys(n))
    return np.asarray(bits, np.float64)


def test_parity_draws_its_bit_probability_for_every_trial():
    found = fractions_of_ones(pr.tasks.NParity(n_max=3))
    assert stats.kstest(found, "uniform").pvalue > 1e-3
    assert stats.kstest(fractions_of_ones(pr.tasks.NDMS(n_max=3)), "uniform").pvalue < 1e-9, "planted failure"
    # within a trial bits are independent: the chance of a change is 2 p (1 - p), on average 1/3
    bits = jax.vmap(lambda key: pr.tasks.NParity(n_max=3).bits(key=key, n_bits=400))(keys(2000, 1))
    changes = np.mean(np.asarray(bits)[:, 1:] != np.asarray(bits)[:, :-1], axis=1)
    assert abs(changes.mean() - 1 / 3) < 4 * changes.std() / 2000**0.5


@pytest.mark.parametrize("probability", [0.5, 0.2])
def test_match_to_sample_has_one_bit_probability(probability):
    found = fractions_of_ones(pr.tasks.NDMS(n_max=3, bit_probability=probability))
    standard_error = (probability * (1 - probability) / 1500) ** 0.5
    assert abs(found.mean() - probability) < 4 * standard_error / 3000**0.5
    assert abs(found.std() / standard_error - 1) < 0.06
    assert pr.tasks.NDMS().bit_probability == 0.5
    assert pr.tasks.NParity().bit_probability == "uniform"


def test_batches_share_their_length_and_trials_differ():
    setting, trials = batch_of(pr.tasks.NParity(n_max=6), [4], 64)
    assert np.ndim(setting.length) == 0
    assert len({row.tobytes() for row in np.asarray(trials.inputs)}) > 50


def test_bits_last_k_steps():
    task = pr.tasks.NDMS(n_max=4, bit_duration=5)
    assert task.capacity == 16 * 5
    lengths = np.asarray(draw_many(task, [2], 5000).length)
    assert (lengths % 5 == 0).all()
    assert is_uniform_on(lengths // 5, 6, 16)


def test_dt_is_drawn_for_each_batch():
    dts = (1 / 7, 1 / 8, 0.3, 1.0)
    task = pr.tasks.NParity(n_max=4, bit_duration=2, dt=dts)
    drawn = draw_many(task, [1], 8000)
    found = np.asarray(drawn.dt)
    index = np.argmin(np.abs(found[:, None] - np.asarray(dts)), axis=1)
    np.testing.assert_allclose(found, np.float32(dts)[index])
    assert stats.chisquare(np.bincount(index, minlength=4)).pvalue > 1e-3
    steps = np.array([round(2 / dt) for dt in dts])
    assert steps.tolist() == [14, 16, 7, 2]
    np.testing.assert_array_equal(drawn.extra["steps"], steps[index])
    np.testing.assert_array_equal(drawn.length, np.asarray(drawn.extra["n_bits"]) * steps[index])
    assert task.capacity == 16 * 16
    bits_by_dt = stats.chi2_contingency(
        [np.bincount(np.asarray(drawn.extra["n_bits"])[index == i], minlength=13)[5:] for i in range(4)]
    )
    assert bits_by_dt.pvalue > 1e-3, "length and dt are independent"
    assert draw_many(pr.tasks.NParity(n_max=4), [1], 3).dt is None


# --- no silent arguments --------------------------------------------------------------------------------------------

OTHER = {
    "n_min": 3,
    "n_max": 6,
    "bit_probability": 0.9,
    "bit_values": (-1.0, 1.0),
    "bit_duration": 2,
    "dt": (0.5,),
    "extra_bits": 4,
    "length_factor": 3,
}


def everything_a_task_does(task):
    """All that a member's training could notice."""
    heads = range(task.n_heads)
    drawn = [batch_of(task, heads, 4, seed) for seed in range(12)]
    return [
        task.n_inputs,
        task.n_outputs,
        task.capacity,
        [
            [
                int(s.length),
                None if s.dt is None else float(s.dt),
                np.asarray(t.inputs).tolist(),
                np.asarray(t.targets).tolist(),
            ]
            for s, t in drawn
        ],
    ]


@pytest.mark.parametrize("make", MEMORY_TASKS)
def test_every_option_of_the_memory_tasks_changes_something(make):
    base = make(n_max=5)
    before = everything_a_task_does(base)
    assert before == everything_a_task_does(make(n_max=5)), "the same task does the same"
    fields = [f.name for f in dataclasses.fields(make)]
    assert set(fields) == set(OTHER), "a new option needs another value here"
    for field in fields:
        assert everything_a_task_does(make(**{"n_max": 5, field: OTHER[field]})) != before, field


# --- loss and scores ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MEMORY_TASKS)
@pytest.mark.parametrize("shared", [False, True])
def test_loss_and_scores_against_scipy(make, shared):
    task = make(n_max=5)
    heads = [2] if shared else [0, 2]
    setting, trials = batch_of(task, heads, 12, seed=3, shared=shared)
    outputs = 3 * np.random.default_rng(0).normal(size=(12, task.n_outputs)).astype(np.float32)
    losses = jax.vmap(lambda o, t: task.loss(o, t, setting))(jnp.asarray(outputs), trials)
    scores = jax.vmap(lambda o, t: task.scores(o, t, setting)["accuracy"])(jnp.asarray(outputs), trials)
    logits = outputs.astype(np.float64).reshape(12, 4, 2)
    if shared:
        logits = np.repeat(logits[:, :1], 4, axis=1)
    targets = np.asarray(trials.targets)
    chosen = np.take_along_axis(special.log_softmax(logits, axis=2), targets[..., None], axis=2)[..., 0]
    np.testing.assert_allclose(losses, -chosen[:, heads].sum(axis=1), rtol=1e-5, atol=1e-6)
    right = (logits.argmax(axis=2) == targets).astype(float)
    right[:, [h for h in range(4) if h not in heads]] = np.nan
    np.testing.assert_array_equal(scores, right)


def test_inactive_heads_have_no_loss_and_no_gradient():
    task = pr.tasks.NParity(n_max=5)
    setting, trials = batch_of(task, [1], 1)
    trial = jax.tree.map(lambda a: a[0], trials)
    outputs = jnp.arange(8.0)
    gradient = np.asarray(jax.grad(task.loss)(outputs, trial, setting))
    assert (gradient[[0, 1, 4, 5, 6, 7]] == 0).all()
    assert (gradient[[2, 3]] != 0).all()
    wild = outputs.at[jnp.array([0, 4])].set(jnp.inf)
    np.testing.assert_allclose(task.loss(wild, trial, setting), task.loss(outputs, trial, setting))
    assert np.isfinite(jax.grad(task.loss)(wild, trial, setting)[2:4]).all()


def test_shared_readout_hears_only_head_0():
    task = pr.tasks.NDMS(n_max=5)
    setting, trials = batch_of(task, [3], 1, shared=True)
    trial = jax.tree.map(lambda a: a[0], trials)
    gradient = np.asarray(jax.grad(task.loss)(jnp.arange(8.0), trial, setting))
    assert (gradient[:2] != 0).all()
    assert (gradient[2:] == 0).all()
    unshared = setting._replace(extra=setting.extra | {"shared": False})
    assert (np.asarray(jax.grad(task.loss)(jnp.arange(8.0), trial, unshared))[:2] == 0).all()


# --- own arrays -----------------------------------------------------------------------------------------------------


def regression(n=10, n_steps=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, n_steps, 2)).astype(np.float32), rng.normal(size=(n, n_steps, 3)).astype(np.float32)


def drawn_from(task, split, n=600, seed=0):
    stage = stage_of(task, [0], split=split)
    setting = task.draw(stage, key=jax.random.key(0))
    arrays = jax.tree.map(jnp.asarray, task.arrays())
    return setting, jax.vmap(lambda key: task.sample(setting, arrays, key=key))(keys(n, seed))


def test_arrays_are_drawn_whole_and_with_their_own_targets():
    inputs, targets = regression()
    weights = np.random.default_rng(1).uniform(size=(10, 6)).astype(np.float32)
    task = pr.tasks.Arrays.of(inputs, targets, weights)
    assert (task.n_inputs, task.n_outputs, task.capacity, task.n_heads) == (2, 3, 6, 1)
    _, trials = drawn_from(task, "train")
    which = np.asarray(trials.condition)
    np.testing.assert_array_equal(trials.inputs, inputs[which])
    np.testing.assert_array_equal(trials.targets, targets[which])
    np.testing.assert_array_equal(trials.weights, weights[which])
    assert stats.chisquare(np.bincount(which, minlength=10)).pvalue > 1e-3


def test_held_out_trials_are_for_evaluation_only():
    task = pr.tasks.Arrays.of(*regression(), held_out=3)
    assert set(np.asarray(drawn_from(task, "train")[1].condition)) == set(range(7))
    assert set(np.asarray(drawn_from(task, "evaluate")[1].condition)) == {7, 8, 9}
    everything = pr.tasks.Arrays.of(*regression())
    for split in ("train", "evaluate"):
        assert set(np.asarray(drawn_from(everything, split)[1].condition)) == set(range(10))


def test_held_out_trials_are_never_trained_on_in_a_fit():
    inputs, targets = regression()
    targets[7:] = 1e4  # would be seen in the loss at once
    task = pr.tasks.Arrays.of(inputs, targets, held_out=3)
    run = pr.fit(task, pr.cells.VanillaRNN(n_units=4), **TINY | {"epochs": 3})
    assert (run.history["training_loss"] < 100).all()
    assert (run.history["loss"] > 1e7).all()
    np.testing.assert_array_equal(pr.evaluate(run, n_trials=8, batch=8)["loss"] > 1e7, True)


def test_regression_loss_and_score_against_numpy():
    inputs, targets = regression()
    weights = np.random.default_rng(1).uniform(size=(10, 6)).astype(np.float32)
    weights[:, 2] = 0
    task = pr.tasks.Arrays.of(inputs, targets, weights)
    outputs = np.random.default_rng(2).normal(size=(6, 3)).astype(np.float32)
    trial = Trial(inputs[4], targets[4], weights[4])
    w = np.broadcast_to(weights[4][:, None], (6, 3)).astype(np.float64)
    error = (outputs - targets[4]).astype(np.float64) ** 2
    np.testing.assert_allclose(task.loss(outputs, trial, Setting(6)), (w * error).sum() / w.sum(), rtol=1e-5)
    close = targets[4] + 0.3 * outputs
    mean = (w * targets[4]).sum() / w.sum()
    explained = 1 - (w * (close - targets[4]) ** 2).sum() / (w * (targets[4] - mean) ** 2).sum()
    np.testing.assert_allclose(task.scores(close, trial, Setting(6))["score"], explained, rtol=1e-5)
    assert float(task.scores(targets[4], trial, Setting(6))["score"]) == 1
    assert float(task.scores(100 * outputs, trial, Setting(6))["score"]) == 0


@pytest.mark.parametrize("one_hot", [False, True])
def test_class_loss_and_score_against_scipy(one_hot):
    inputs, _ = regression()
    classes = np.random.default_rng(3).integers(0, 4, (10, 6))
    classes[0, 0] = 3
    weights = np.random.default_rng(1).uniform(size=(10, 6)).astype(np.float32)
    task = pr.tasks.Arrays.of(
        inputs,
        np.eye(4)[classes] if one_hot else classes,
        weights,
        **({"loss_kind": "cross_entropy"} if one_hot else {}),
    )
    assert task.is_classes
    assert task.n_outputs == 4
    outputs = np.random.default_rng(2).normal(size=(6, 4)).astype(np.float32)
    trial = jax.tree.map(lambda a: jnp.asarray(a)[5], Trial(inputs, task.arrays()["targets"], weights))
    log_p = special.log_softmax(outputs.astype(np.float64), axis=1)[np.arange(6), classes[5]]
    np.testing.assert_allclose(task.loss(outputs, trial, Setting(6)), -np.average(log_p, weights=weights[5]), rtol=1e-5)
    right = np.average(outputs.argmax(1) == classes[5], weights=weights[5])
    np.testing.assert_allclose(task.scores(outputs, trial, Setting(6))["score"], right, rtol=1e-6)
    assert pr.tasks.Arrays.of(inputs, classes, n_classes=7).n_outputs == 7


def write(path, **arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        safetensors.numpy.save_file(arrays, path)
    return str(path)


@pytest.mark.parametrize("name", ["own.npz", "own.safetensors"])
def test_arrays_from_a_file(name, tmp_path):
    inputs, targets = regression()
    path = write(tmp_path / name, inputs=inputs, targets=targets, something_else=np.ones(3))
    task = pr.tasks.Arrays(path=path, held_out=2)
    assert not task.keeps_arrays
    assert pr.tasks.Arrays.of(inputs, targets).keeps_arrays
    assert set(task.arrays()) == {"inputs", "targets"}
    np.testing.assert_array_equal(
        drawn_from(task, "evaluate", 50)[1].inputs,
        drawn_from(pr.tasks.Arrays.of(inputs, targets, held_out=2), "evaluate", 50)[1].inputs,
    )
    assert not task.is_classes
    classes = np.random.default_rng(0).integers(0, 3, (10, 6))
    assert pr.tasks.Arrays(path=write(tmp_path / ("c" + name), inputs=inputs, targets=classes)).is_classes


def test_a_file_that_was_written_anew_is_read_anew(tmp_path):
    inputs, targets = regression()
    path = write(tmp_path / "own.npz", inputs=inputs, targets=targets)
    assert pr.tasks.Arrays(path=path).capacity == 6
    write(tmp_path / "own.npz", inputs=inputs[:, :4], targets=targets[:, :4])
    assert pr.tasks.Arrays(path=path).capacity == 4


def test_every_option_of_arrays_changes_something(tmp_path):
    inputs, targets = regression()
    classes = np.random.default_rng(0).integers(0, 3, (10, 6))
    of, outputs = pr.tasks.Arrays.of, jnp.linspace(-1, 2, 18).reshape(6, 3)

    def does(task):
        setting, trials = drawn_from(task, "train", 20)
        trial = jax.tree.map(lambda a: a[0], trials)
        return [task.n_outputs, np.asarray(trials.inputs).tolist(), float(task.loss(outputs, trial, setting))]

    pairs = {
        "held_out": (of(inputs, targets), of(inputs, targets, held_out=4)),
        "digest": (of(inputs, targets), of(inputs + 1, targets)),
        "path": (
            of(inputs, targets),
            pr.tasks.Arrays(path=write(tmp_path / "a.npz", inputs=inputs * 2, targets=targets)),
        ),
        "loss_kind": (of(inputs, np.eye(3)[classes]), of(inputs, np.eye(3)[classes], loss_kind="cross_entropy")),
    }
    for field, (one, two) in pairs.items():
        assert does(one) != does(two), field
    assert of(inputs, classes).n_outputs != of(inputs, classes, n_classes=5).n_outputs
    assert set(pairs) | {"n_classes"} == {f.name for f in dataclasses.fields(pr.tasks.Arrays)}


def with_value(array, value):
    array = array.copy()
    array.flat[0] = value
    return array


X, Y = regression()
K = np.random.default_rng(0).integers(0, 3, (10, 6))
BAD = {
    "inputs without a time axis": ((X[:, 0], Y), {}, "must be"),
    "other number of trials": ((X, Y[:5]), {}, "must be"),
    "other number of steps": ((X, Y[:, :5]), {}, "must be"),
    "targets with four axes": ((X, Y[..., None]), {}, "must be"),
    "NaN in the inputs": ((with_value(X, np.nan), Y), {}, "not finite"),
    "infinity in the targets": ((X, with_value(Y, np.inf)), {}, "not finite"),
    "NaN in the weights": ((X, Y, with_value(np.ones((10, 6)), np.nan)), {}, "not finite"),
    "everything held out": ((X, Y), {"held_out": 10}, "held_out"),
    "weights of another shape": ((X, Y, np.ones((10, 3))), {}, "weights"),
    "weights for other trials": ((X, Y, np.ones((3, 6))), {}, "weights"),
    "classes below zero": ((X, with_value(K, -1)), {}, "class"),
    "fewer classes than there are": ((X, K), {"n_classes": 2}, "class"),
    "fractions instead of classes": ((X, K + 0.5), {}, "target"),
    "squared error of classes": ((X, K), {"loss_kind": "mean_squared_error"}, "target|class"),
}


@pytest.mark.parametrize("case", BAD)
def test_arrays_that_cannot_be_are_refused(case):
    arrays, options, words = BAD[case]
    with pytest.raises(pr.ConfigurationError, match=f"(?i){words}"):
        pr.tasks.Arrays.of(*arrays, **options)


def test_files_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(pr.ConfigurationError, match="no such file"):
        pr.tasks.Arrays(path=str(tmp_path / "nowhere.safetensors"))
    with pytest.raises(pr.ConfigurationError, match="cannot read"):
        pr.tasks.Arrays(path=str(tmp_path / "nowhere.npz"))
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(pr.ConfigurationError, match="cannot read"):
        pr.tasks.Arrays(path=str(tmp_path / "damaged.npz"))
    (tmp_path / "damaged.safetensors").write_bytes(b"not at all")
    with pytest.raises(pr.ConfigurationError, match="damaged"):
        pr.tasks.Arrays(path=str(tmp_path / "damaged.safetensors"))
    np.savez(tmp_path / "pickled.npz", inputs=np.array([{}], object), targets=Y)
    with pytest.raises(pr.ConfigurationError, match="cannot read"):
        pr.tasks.Arrays(path=str(tmp_path / "pickled.npz"))
    with pytest.raises(pr.ConfigurationError, match="needs 'inputs' and 'targets'"):
        pr.tasks.Arrays(path=write(tmp_path / "less.npz", inputs=X))
    with pytest.raises(pr.ConfigurationError, match="there are only 10 trials"):
        pr.tasks.Arrays(path=write(tmp_path / "own.npz", inputs=X, targets=Y), held_out=10)
    with pytest.raises(pr.ConfigurationError, match="give a path"):
        pr.tasks.Arrays()
    with pytest.raises(pr.ConfigurationError, match="not in memory"):
        _ = pr.tasks.Arrays(digest="0" * 64).n_inputs
