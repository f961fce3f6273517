"""Taking populations apart: silenced units, noise on weights and time constants, less inhibition, retraining."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

import poprnn as pr
from poprnn.analysis import _probe
from poprnn.analysis._statistics import holm

N, UNITS, MEMBERS = 3, 12, 2
FAST = dict(n_trials=3, n_steps=60, burn_in=20)


def brought_in(task=None, cell=None, seed=0, **more):
    """A random population whose answers are neither all right nor all wrong."""
    rng = np.random.default_rng(seed)
    task = task or pr.tasks.NParity(n_max=N)
    cell = cell or pr.cells.LeakyRNN(n_units=UNITS, activation="tanh")
    arrays = {
        "W": 0.8 * rng.normal(size=(MEMBERS, UNITS, UNITS)) / UNITS**0.5,
        "W_in": rng.normal(size=(MEMBERS, UNITS, 1)),
        "bias": 0.1 * rng.normal(size=(MEMBERS, UNITS)),
        "W_out": rng.normal(size=(MEMBERS, task.n_outputs, UNITS)),
        "b_out": np.zeros((MEMBERS, task.n_outputs)),
        "tau": 1 + 2 * rng.random((MEMBERS, UNITS)),
    }
    return pr.from_arrays(task, cell, arrays | more)


def changed(run, **arrays):
    return dataclasses.replace(run, parameters=run.parameters.replaced(**arrays))


def accuracy_by_hand(run, how, head, **options):
    """Labels by counting, activity by rollout, step by step in Python."""
    task = run.task
    drive = _probe._drive(run.task, run.seed, how)
    inputs = np.moveaxis(np.asarray(drive.inputs), 1, 0)
    outputs = pr.rollout(run, inputs, dt=min(task.dt) if task.dt else None, **options).outputs
    steps = task.steps_per_bit(min(task.dt)) if task.dt else task.steps_per_bit()
    right, asked = np.zeros(run.n_members), 0
    for trial, stream in enumerate(inputs[:, ::steps, 0]):
        bits = (stream == task.bit_values[1]).astype(int)
        for t in range(how.burn_in, how.burn_in + how.n_steps):
            if (t + 1) % steps:
                continue
            last = bits[: (t + 1) // steps][-(task.n_min + head) :]
            wanted = last.sum() % 2 if task.name() == "n_parity" else int(last[0] == last[-1])
            logits = outputs[:, trial, t, 2 * head : 2 * head + 2]
            right += logits.argmax(axis=1) == wanted
            asked += 1
    return right / asked


@pytest.mark.parametrize(
    "task",
    [
        pr.tasks.NParity(n_max=N),
        pr.tasks.NDMS(n_max=N),
        pr.tasks.NDMS(n_max=N, bit_duration=3),
        pr.tasks.NParity(n_max=N, dt=[0.5, 0.25], bit_values=(-1.0, 1.0)),
    ],
    ids=["parity", "dms", "three steps a bit", "small dt"],
)
def test_accuracy_at_every_step_is_what_counting_gives(task):
    run = brought_in(task)
    how = _probe.Probe(4, 48, 24, 0.5, 0)
    head = np.array([1, 0])
    found = _probe.probe(run, np.zeros(1), None, how, heads=head).accuracy[:, 0]
    by_hand = [accuracy_by_hand(run, how, h)[k] for k, h in enumerate(head)]
    # both start from random states of their own, which a burn-in of many time constants has made forgotten
    np.testing.assert_allclose(found, by_hand, atol=0.03)
    assert 0.2 < found.min() < 0.98


def test_ablation_is_the_network_without_the_units_weights():
    run = brought_in()
    units = [0, 5, UNITS - 1]
    answer = pr.measure("ablation", run, units=units, **FAST).data
    assert answer["unit"].values.tolist() == [units] * MEMBERS
    for place, unit in enumerate(units):
        keep = np.arange(UNITS) != unit
        p = run.parameters.trainable
        without = changed(
            run,
            W=p["W"] * keep[:, None] * keep[None, :],
            W_in=p["W_in"] * keep[:, None],
            W_out=p["W_out"] * keep[None, :],
        )
        expected = pr.measure("ablation", without, units=[0], **FAST).data["base_accuracy"].values
        np.testing.assert_allclose(answer["accuracy"].values[:, place], expected, atol=1e-6)
    base = answer["base_accuracy"].values[:, None]
    expected = np.where(base > 0.5, (answer["accuracy"] - 0.5) / (base - 0.5), np.nan)
    np.testing.assert_allclose(answer["relative_accuracy"], expected)


def test_ablation_chooses_by_time_constant():
    run = brought_in()
    answer = pr.measure("ablation", run, n_longest=2, n_shortest=3, **FAST).data
    tau = pr.measure("timescales_single", run).data["tau"].values
    for k in range(MEMBERS):
        order = np.argsort(tau[k])
        assert set(answer["unit"].values[k, :2]) == set(order[-2:])
        assert set(answer["unit"].values[k, 2:]) == set(order[:3])
        np.testing.assert_allclose(answer["tau"].values[k], tau[k, answer["unit"].values[k]])
    assert answer["group"].values.tolist() == ["longest"] * 2 + ["shortest"] * 3


def test_ablation_silences_every_array_of_a_state():
    run = pr.fit("n_parity", pr.cells.LSTM(n_units=6), epochs=1, steps_per_epoch=2, batch=4, evaluation_batches=1)
    p = run.parameters.trainable
    answer = pr.measure("ablation", run, members="all", units=[2], **FAST).data
    keep = np.arange(6) != 2
    without = changed(run, W=p["W"] * keep, W_out=p["W_out"] * keep)
    expected = pr.measure("ablation", without, members="all", units=[0], **FAST).data["base_accuracy"].values
    np.testing.assert_allclose(answer["accuracy"].values[:, 0], expected, atol=1e-6)


def test_ablation_refuses_what_is_not_there():
    run = brought_in()
    with pytest.raises(pr.ConfigurationError, match="no unit 12"):
        pr.measure("ablation", run, units=[12])
    with pytest.raises(pr.ConfigurationError, match="at most the 12 units"):
        pr.measure("ablation", run, n_longest=7, n_shortest=6)
    with pytest.raises(pr.ConfigurationError, match="n = 9: must be in 2"):
        pr.measure("ablation", run, n=9)
    plain = pr.from_arrays(pr.tasks.NParity(n_max=3), pr.cells.VanillaRNN(n_units=4), {"W": np.eye(4)})
    with pytest.raises(pr.NotApplicableError, match="no time constants"):
        pr.measure("ablation", plain)


@pytest.mark.parametrize("self_connection", [True, False])
def test_weight_noise_has_the_stated_size(self_connection):
    """The change itself, on one network."""
    import jax

    from poprnn.analysis.weight_perturbation import _change

    cell = pr.cells.LeakyRNN(n_units=UNITS, self_connection=self_connection)
    parameters = jax.tree.map(lambda a: a[0], brought_in().parameters)
    W = np.array(cell.prepare(parameters, pr.Context())["W"])
    draws = [np.asarray(_change(cell, parameters, 0.3, jax.random.key(i)).trainable["W"]) for i in range(300)]
    for new in draws[:5]:
        assert np.linalg.norm(new - W) == pytest.approx(0.3 * np.linalg.norm(W), rel=1e-5)
        assert np.any(np.diag(new)) == self_connection
    free = np.ones_like(W, bool) if self_connection else ~np.eye(UNITS, dtype=bool)
    sizes = np.stack(draws)[:, free] - W[free]
    assert abs(sizes.mean()) < 4 * sizes.std() / sizes.size**0.5
    assert stats.kstest(sizes.reshape(-1) / sizes.std(), "norm").pvalue > 1e-3


def test_time_constant_noise_has_the_stated_size():
    import jax

    from poprnn.analysis.timescale_perturbation import _change

    cell = pr.cells.LeakyRNN(n_units=UNITS, tau_min=1.5)
    parameters = jax.tree.map(lambda a: a[0], brought_in().parameters)
    tau = np.maximum(parameters.trainable["tau"], 1.5)
    new = np.asarray(_change(cell, parameters, 0.2, jax.random.key(0)).trainable["tau"])
    assert np.linalg.norm(new - tau) == pytest.approx(0.2 * np.linalg.norm(tau), rel=1e-5)
    assert (new >= tau - 1e-6).all()


@pytest.mark.parametrize("name", ["weight_perturbation", "timescale_perturbation"])
def test_more_noise_takes_more_accuracy(name):
    # asked whether x(t) equals x(t), a readout that always says yes is always right, whatever the noise
    run = brought_in(b_out=np.tile([-9.0, 9.0], (MEMBERS, N)), task=pr.tasks.NDMS(n_min=1, n_max=N))
    answer = pr.measure(name, run, n=1, strengths=[0.0, 1e-3], n_draws=4, **FAST).data
    assert answer["base_accuracy"].values.tolist() == [1.0, 1.0]
    assert answer["accuracy"].dims == ("member", "strength", "draw")
    np.testing.assert_allclose(answer["accuracy"].values[:, 0], answer["base_accuracy"].values[:, None] * np.ones(4))
    answer = pr.measure(name, brought_in(), n=2, strengths=[1e-6, 3.0], n_draws=4, **FAST).data
    near, far = (abs(answer["accuracy"][:, i] - answer["base_accuracy"]).mean() for i in (0, 1))
    assert near <= 0.02 < far
    assert len(np.unique(answer["accuracy"].values[:, 1])) > 2, "every draw has noise of its own"


def test_inhibition_scaling_finds_the_planted_limit():
    """E <- relu(b E - a (1 + c) I + x), I <- relu(E): the larger root of l² - b l + a (1 + c) decides."""
    W = np.array([[1.5, -0.55], [1.0, 0.0]])
    cell = pr.cells.LeakyRNN(n_units=2, activation="relu", self_connection=True)
    run = pr.from_arrays(
        "n_parity", cell, {"W": W, "bias": np.zeros(2), "tau": np.ones(2), "W_in": np.array([[1.0], [0.0]])}
    )
    c = np.round(np.linspace(-0.5, 0.5, 41), 6)
    answer = pr.measure("inhibition_scaling", run, scales=c.tolist(), n_trials=2).data
    scaled = [np.where(W < 0, (1 + x) * W, W) for x in c]
    radius = np.array([np.abs(np.linalg.eigvals(s)).max() for s in scaled])
    decided = np.abs(radius - 1) > 0.02
    assert (answer["explodes"].values[0] == (radius > 1))[decided].all()
    assert 0 < (radius > 1).sum() < len(c)
    limit = c[(radius > 1) & (c <= 0)].max() if ((radius > 1) & (c <= 0)).any() else np.nan
    np.testing.assert_allclose(answer["critical"].values, [limit], atol=0.03)
    np.testing.assert_allclose(answer["mean_weight"].values[0], [s.sum() / 4 for s in scaled], atol=1e-6)


def test_snapshots_are_asked_at_their_memory():
    run = pr.fit(
        pr.tasks.NParity(n_max=4), pr.cells.LeakyRNN(n_units=8), members=3, epochs=3, steps_per_epoch=2,
        evaluation_batches=1, batch=4, curriculum=pr.curricula.MultiHead(threshold=0.0),
    )  # fmt: skip
    at, heads, reached = _probe.at_memory(run, 3, "test")
    np.testing.assert_array_equal(at.parameters.trainable["W"], run.snapshots["stage_001"].parameters.trainable["W"])
    assert heads.tolist() == [1, 1, 1] and reached.all()
    late, heads, _ = _probe.at_memory(run, None, "test")
    assert late is run and heads.tolist() == [2, 2, 2]
    with pytest.raises(pr.NotApplicableError, match="no member of this run has solved N = 4"):
        _probe.at_memory(dataclasses.replace(run, snapshots={"stage_000": run.snapshots["stage_000"]}), 4, "test")


@pytest.mark.slow
def test_members_that_did_not_get_there_are_blank():
    run = pr.fit(
        pr.tasks.NParity(n_max=4), pr.cells.LeakyRNN(n_units=8), members=2, epochs=2, steps_per_epoch=2,
        evaluation_batches=1, batch=4, curriculum=pr.curricula.MultiHead(threshold=0.0),
    )  # fmt: skip
    run.snapshots["stage_001"].reached[1] = False
    for name, options in (
        ("ablation", {"units": [0], **FAST}),
        ("weight_perturbation", {"strengths": [0.1], "n_draws": 2, **FAST}),
        ("retraining", {"to": [3, 4], "epochs": 1, "n_trials": 256}),
    ):
        answer = pr.measure(name, run, members="all", n=3, **options).data["accuracy"].values
        assert np.isfinite(answer[0]).all() and np.isnan(answer[1]).all(), name


def test_any_task_can_be_asked():
    """A task with targets at every step is judged by its own score."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(16, 30, 2))
    task = pr.tasks.Arrays.of(inputs, inputs[:, :, :1])
    run = pr.fit(task, pr.cells.LeakyRNN(n_units=8), members=2, epochs=1, steps_per_epoch=3, batch=8)
    answer = pr.measure("weight_perturbation", run, members="all", strengths=[0.5], n_draws=2).data
    assert answer["accuracy"].shape == (2, 1, 2) and np.isfinite(answer["accuracy"]).all()


# --- retraining -----------------------------------------------------------------------------------------------------


def test_readout_alone_needs_no_gradient_through_time():
    """The short way gives the same readout as the whole gradient with everything else held fixed."""
    from poprnn.training import program

    settings = dict(epochs=1, steps_per_epoch=20, evaluation_batches=1, batch=16, members=2, trainable=["readout"])
    cell = pr.cells.LeakyRNN(n_units=8)
    short = pr.fit(pr.tasks.NParity(n_max=3), cell, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "trains_last_readout", lambda *_: False)
        # another learning rate type of the same value gives another cache entry, so that it is compiled anew
        long = pr.fit(pr.tasks.NParity(n_max=3, n_min=2), cell, state_memory_mb=511, **settings)
    np.testing.assert_allclose(
        short.parameters.trainable["W_out"], long.parameters.trainable["W_out"], rtol=1e-4, atol=1e-6
    )
    assert not np.array_equal(short.parameters.trainable["W_out"], short.initial.trainable["W_out"])
    np.testing.assert_array_equal(short.parameters.fixed["W"], long.parameters.fixed["W"])


@pytest.mark.slow
@pytest.mark.parametrize("curriculum", ["multi_head", "single_head"])
def test_retraining_starts_from_the_weights_and_reaches_what_is_easy(curriculum):
    run = pr.fit(
        pr.tasks.NDMS(n_max=4), pr.cells.LeakyRNN(n_units=32), members=2, curriculum=curriculum, epochs=1,
        steps_per_epoch=200, batch=64, evaluation_batches=4, optimizer="adam",
    )  # fmt: skip
    answer = pr.measure("retraining", run, members="all", to=[2, 5], epochs=8, steps_per_epoch=100, n_trials=2000).data
    assert (answer["accuracy"].sel(to=2) > 0.9).all()
    assert answer["accuracy"].sel(to=2).mean() >= answer["base_accuracy"].mean() - 0.1
    solved = np.isfinite(answer["epochs"].values)
    assert (answer["accuracy"].values[solved] > 0.95).all() and (answer["epochs"].values[solved] <= 8).all()


def test_retraining_the_readout_leaves_the_rest():
    run = pr.fit(
        pr.tasks.NDMS(n_max=3), pr.cells.LeakyRNN(n_units=8), members=2, curriculum="multi_head",
        epochs=1, steps_per_epoch=5, batch=8,
    )  # fmt: skip
    from poprnn.analysis import retraining  # noqa: F401
    from poprnn.analysis.retraining import _trained

    trained = _trained(run, [2, 4], ["readout"], 1, 3, 0.98, 0)
    np.testing.assert_array_equal(trained.parameters.fixed["W"], np.repeat(run.parameters.trainable["W"], 2, axis=0))
    assert trained.task.n_max == 4 and trained.varied["training.curriculum.head"].tolist() == [0, 2, 0, 2]
    old = np.repeat(run.parameters.trainable["W_out"], 2, axis=0)
    assert not np.array_equal(trained.parameters.trainable["W_out"][0, :2], old[0, :2])
    np.testing.assert_array_equal(trained.parameters.trainable["W_out"][0, 2:4], old[0, 2:4])


# --- statistics -----------------------------------------------------------------------------------------------------


def test_group_tests_agree_with_scipy():
    import xarray as xr

    rng = np.random.default_rng(0)
    values = {
        "a": xr.DataArray(rng.normal(0, 1, (5, 3, 4)), dims=("member", "strength", "draw")),
        "b": xr.DataArray(rng.normal(1, 2, (7, 3, 4)), dims=("member", "strength", "draw")),
    }
    for equal in (True, False):
        found = pr.group_tests(values, samples=("member", "draw"), equal_variance=equal)
        for i in range(3):
            a, b = (values[k].values[:, i].reshape(-1) for k in "ab")
            expected = stats.ttest_ind(a, b, equal_var=equal)
            assert found["t"].values[0, i] == pytest.approx(expected.statistic)
            assert found["p"].values[0, i] == pytest.approx(expected.pvalue)
            low, high = expected.confidence_interval()
            assert found["low"].values[0, i] == pytest.approx(low) and found["high"].values[0, i] == pytest.approx(high)
    one = pr.group_tests({k: v.values[:, 0, 0] for k, v in values.items()})
    pooled = np.sqrt((4 * values["a"].values[:, 0, 0].var(ddof=1) + 6 * values["b"].values[:, 0, 0].var(ddof=1)) / 10)
    difference = values["a"].values[:, 0, 0].mean() - values["b"].values[:, 0, 0].mean()
    assert one["effect_size"].item() == pytest.approx(difference / pooled)


def test_holm_agrees_with_a_reference():
    """Expected: statsmodels 0.15, ``multipletests(p, method="holm")``."""
    p = np.array([0.0004, 0.03, 0.02, 0.5, np.nan, 0.011])
    np.testing.assert_allclose(holm(p), [0.002, 0.06, 0.06, 0.5, np.nan, 0.044])


def test_stars_count_levels():
    rng = np.random.default_rng(1)
    found = pr.group_tests({"a": rng.normal(0, 1, 50), "b": rng.normal(3, 1, 50), "c": rng.normal(0, 1, 50)})
    assert found["stars"].values[0] == 5 and found["stars"].values[1] == 0
    assert (found["p_holm"] >= found["p"]).all()


def test_group_tests_leave_out_what_is_missing():
    found = pr.group_tests({"a": np.array([1.0, 2.0, np.nan]), "b": np.array([3.0, np.nan, np.nan])})
    assert np.isnan(found["p"].item()) and found["n_1"].item() == 2 and found["n_2"].item() == 1
    with pytest.raises(pr.ConfigurationError, match="at least two"):
        pr.group_tests({"a": np.ones(3)})


def test_relative_accuracy():
    assert pr.relative_accuracy(0.75, 1.0) == 0.5
    assert np.isnan(pr.relative_accuracy(0.75, 0.5))
