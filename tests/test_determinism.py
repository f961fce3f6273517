"""Same seed, same bits: alone or among others, on one device or two; a failing member harms nobody."""

import jax
import numpy as np
import pytest

import poprnn as pr
from poprnn.core import backend

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


def test_member_alone_and_among_others(eight):
    """200 steps: member k of 1 is member k of 8, bit for bit."""
    alone = pr.fit(TASK, CELL, members=1, seed=3, **SETTINGS)
    same(alone, eight, 0, 0)
    three = pr.fit(TASK, CELL, members=3, seed=3, **SETTINGS)
    for k in range(3):
        same(three, eight, k, k)
    assert not np.array_equal(eight.members[0].W, eight.members[1].W)


def test_one_device_and_two(eight):
    if len(backend.devices()) < 2:
        pytest.skip("one device only")
    one = pr.fit(TASK, CELL, members=8, seed=3, n_devices=1, **SETTINGS)
    for k in range(8):
        same(one, eight, k, k)


def test_global_precision_is_neither_used_nor_changed(eight):
    with jax.enable_x64(True):
        again = pr.fit(TASK, CELL, members=8, seed=3, **SETTINGS)
        assert jax.numpy.ones(()).dtype == np.float64
    assert again.members[0].W.dtype == np.float32
    same(again, eight, 5, 5)


def test_diverging_member_ends_alone():
    """One member gets an absurd learning rate; it ends as diverged with finite weights, the others do not notice."""
    rates = [0.05, 0.05, 1e30, 0.05]
    settings = SETTINGS | {"optimizer": {"kind": "sgd", "learning_rate": 0.05}, "steps_per_epoch": 50}
    sick = pr.fit(TASK, CELL, members=4, vary={"training.optimizer.learning_rate": rates}, **settings)
    well = pr.fit(TASK, CELL, members=4, vary={"training.optimizer.learning_rate": [0.05]}, **settings)
    assert sick.outcome == ["budget_spent", "budget_spent", "diverged", "budget_spent"]
    for k in (0, 1, 3):
        same(sick, well, k, k)
    assert all(np.isfinite(a).all() for a in sick.members[2].arrays.values())
    assert not np.array_equal(sick.members[2].W, well.members[2].W)


def test_varied_member_equals_a_run_with_that_value():
    """vary gives each member what a population with that value throughout would have given it."""
    settings = SETTINGS | {"steps_per_epoch": 20}
    varied = pr.fit(TASK, CELL, members=2, vary={"training.optimizer.learning_rate": [0.05, 0.01]}, **settings)
    plain = pr.fit(TASK, CELL, members=2, **settings | {"optimizer": settings["optimizer"] | {"learning_rate": 0.01}})
    for name, a in varied.parameters.trainable.items():
        np.testing.assert_allclose(a[1], plain.parameters.trainable[name][1], rtol=1e-5, atol=1e-6)


def test_seed_matters_and_start_gets_new_batches(eight):
    other = pr.fit(TASK, CELL, members=1, seed=4, **SETTINGS | {"steps_per_epoch": 2})
    assert not np.array_equal(other.initial.trainable["W"][0], eight.initial.trainable["W"][0])
    short = SETTINGS | {"steps_per_epoch": 1, "optimizer": {"kind": "sgd", "learning_rate": 1e-6}}
    first = pr.fit(TASK, CELL, members=1, **short)
    second = pr.fit(start=first, **short)
    assert first.history["training_loss"][0, 0] != second.history["training_loss"][0, 0]
    assert abs(first.history["training_loss"][0, 0] - second.history["training_loss"][0, 0]) > 1e-5
