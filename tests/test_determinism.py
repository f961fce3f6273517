"""Same seed, same bits: alone or among others, on one device or two; a failing member harms nobody."""

import jax
import numpy as np
import pytest

import poprnn as pr
from poprnn.core import backend
from poprnn.training import trainer, unroll
from poprnn.training.fit import make_trainer

SETTINGS = dict(
    epochs=1,
    steps_per_epoch=200,
    evaluation_batches=2,
    batch=16,
    curriculum="multi_head",
    optimizer={"kind": "sgd", "learning_rate": 0.05, "momentum": 0.1, "nesterov": True, "clip_norm": 2.0},
)
TASK, CELL = pr.tasks.NParity(n_max=6), pr.cells.LeakyRNN(n_units=24, noise=0.01)


def same(a, b, row_a, row_b):
    for name in a.parameters.trainable:
        np.testing.assert_array_equal(a.parameters.trainable[name][row_a], b.parameters.trainable[name][row_b], name)


@pytest.fixture(scope="module")
def eight():
    return pr.fit(TASK, CELL, members=8, seed=3, **SETTINGS)


@pytest.mark.optimised
def test_member_alone_and_among_others(eight):
    """200 steps: member k of 1 is member k of 8, bit for bit."""
    alone = pr.fit(TASK, CELL, members=1, seed=3, **SETTINGS)
    same(alone, eight, 0, 0)
    assert not np.array_equal(eight.members[0].W, eight.members[1].W)


@pytest.mark.optimised
def test_one_device_and_two(eight):
    """And three members are the first three of eight."""
    if len(backend.devices()) < 2:
        pytest.skip("one device only")
    three = pr.fit(TASK, CELL, members=3, seed=3, n_devices=1, **SETTINGS)
    for k in range(3):
        same(three, eight, k, k)


@pytest.mark.optimised
def test_global_precision_is_neither_used_nor_changed(eight):
    trainer.compiled.cache_clear()
    with jax.enable_x64(True):
        again = pr.fit(TASK, CELL, members=8, seed=3, **SETTINGS)
        assert jax.numpy.ones(()).dtype == np.float64
    assert again.members[0].W.dtype == np.float32
    same(again, eight, 5, 5)


@pytest.fixture
def in_parts(monkeypatch):
    """Batches cut in four parts of four trials, which otherwise only large ones are."""
    for name, value in {"PART_TRIALS": 4, "PART_STATE": 0, "MAX_PARTS": 4}.items():
        monkeypatch.setattr(unroll, name, value)
    trainer.compiled.cache_clear()
    yield
    trainer.compiled.cache_clear()


@pytest.mark.optimised
def test_devices_that_share_a_member_change_no_bit(in_parts):
    """A lone member on two devices is itself on one device."""
    if len(backend.devices()) < 2:
        pytest.skip("one device only")
    made = make_trainer(TASK, CELL, members=1, **SETTINGS)
    assert (made.program.n_parts, made.train.n_sharing, made.train.parts_each) == (4, 2, 2)
    shared = pr.fit(TASK, CELL, members=1, seed=3, **SETTINGS)
    alone = pr.fit(TASK, CELL, members=1, seed=3, n_devices=1, **SETTINGS)
    same(shared, alone, 0, 0)
    np.testing.assert_array_equal(shared.history["training_loss"], alone.history["training_loss"])


def test_devices_that_share_members_change_no_bit(in_parts):
    """Three members, each on two devices, are themselves on one device."""
    if len(backend.devices()) < 2:
        pytest.skip("one device only")
    three = pr.fit(TASK, CELL, members=3, seed=3, **SETTINGS)
    one_by_one = pr.fit(TASK, CELL, members=3, seed=3, n_devices=1, **SETTINGS)
    for k in range(3):
        same(three, one_by_one, k, k)


def test_parts_of_a_batch_add_up_to_the_batch(in_parts, monkeypatch):
    """Same trials, same gradient up to rounding, whatever the parts; penalties count once."""
    settings = SETTINGS | {"steps_per_epoch": 3, "penalties": [{"kind": "l2", "strength": 0.1}, {"kind": "activity"}]}
    cut = pr.fit(TASK, CELL, members=1, **settings)
    monkeypatch.setattr("poprnn.training.unroll.MAX_PARTS", 1)
    trainer.compiled.cache_clear()
    whole = pr.fit(TASK, CELL, members=1, **settings)
    for name, a in whole.parameters.trainable.items():
        np.testing.assert_allclose(cut.parameters.trainable[name], a, rtol=1e-5, atol=1e-6, err_msg=name)
    assert not np.array_equal(cut.parameters.trainable["W"], whole.parameters.trainable["W"]), "nothing was cut"


def test_parts_and_evaluations_step_by_step(in_parts):
    """``debug=True`` does in Python what is compiled otherwise, parts and several evaluation batches included."""
    settings = SETTINGS | {"steps_per_epoch": 1, "curriculum": "all_heads"}
    task = pr.tasks.NParity(n_max=2)
    compiled, eager = (pr.fit(task, CELL, debug=debug, **settings) for debug in (False, True))
    for name in ("training_loss", "loss", "scores/accuracy"):
        np.testing.assert_allclose(eager.history[name], compiled.history[name], rtol=1e-5)


def test_parts_depend_on_size_alone():
    from poprnn.training.unroll import n_parts

    assert [n_parts(*shape) for shape in ((256, 200), (256, 64), (20, 50), (64, 500), (257, 200), (8192, 500))] == [
        4, 1, 1, 1, 1, 16
    ]  # fmt: skip


def test_parts_are_all_done_whatever_the_map():
    from poprnn.core.mapping import MemberMap, mean_of_parts

    def function(state, shared):
        mean, n = mean_of_parts(lambda i, n: (state * i, n + 1), 6, 0)
        return state, {"mean": mean, "n": n}

    for n_parts in (1, 2, 3, 6):
        result = MemberMap(function, 3, n_parts=n_parts)(np.array([1.0, 2.0, 4.0], "float32"), np.int32(0))[1]
        np.testing.assert_array_equal(result["mean"], [2.5, 5.0, 10.0])


def test_all_devices_are_used():
    from poprnn.core.mapping import _devices_a_member

    # devices, members, parts: how many devices share a member
    assert _devices_a_member(2, 1, 4) == 2
    assert _devices_a_member(2, 100, 1) == 1
    assert _devices_a_member(3, 3, 4) == 1, "three members at a time rather than one on two of three devices"
    assert _devices_a_member(8, 3, 4) == 4, "two rounds of a quarter rather than one of a half: as long, evener"
    assert _devices_a_member(8, 100, 4) == 4


RATES = SETTINGS | {"optimizer": {"kind": "sgd", "learning_rate": 0.05, "momentum": 0.1}, "steps_per_epoch": 20}


@pytest.fixture(scope="module")
def well():
    return pr.fit(TASK, CELL, members=4, vary={"training.optimizer.learning_rate": [0.05, 0.01]}, **RATES)


def test_diverging_member_ends_alone(well):
    """One member gets an absurd learning rate; it ends as diverged with finite weights, the others do not notice."""
    sick = pr.fit(TASK, CELL, members=4, vary={"training.optimizer.learning_rate": [0.05, 0.01, 1e30, 0.01]}, **RATES)
    assert sick.outcome == ["budget_spent", "budget_spent", "diverged", "budget_spent"]
    for k in (0, 1, 3):
        same(sick, well, k, k)
    assert all(np.isfinite(a).all() for a in sick.members[2].arrays.values())
    assert not np.array_equal(sick.members[2].W, well.members[2].W)


def test_varied_member_equals_a_run_with_that_value(well):
    """vary gives each member what a population with that value throughout would have given it."""
    plain = pr.fit(TASK, CELL, members=2, **RATES | {"optimizer": RATES["optimizer"] | {"learning_rate": 0.01}})
    for name, a in well.parameters.trainable.items():
        np.testing.assert_allclose(a[1], plain.parameters.trainable[name][1], rtol=1e-5, atol=1e-6)


def test_seed_matters_and_start_gets_new_batches():
    short = SETTINGS | {"steps_per_epoch": 1, "optimizer": {"kind": "sgd", "learning_rate": 1e-6}}
    first, other = (pr.fit(TASK, CELL, members=1, seed=seed, **short) for seed in (3, 4))
    assert not np.array_equal(other.initial.trainable["W"][0], first.initial.trainable["W"][0])
    second = pr.fit(start=first, **short)
    assert first.history["training_loss"][0, 0] != second.history["training_loss"][0, 0]
    assert abs(first.history["training_loss"][0, 0] - second.history["training_loss"][0, 0]) > 1e-5
