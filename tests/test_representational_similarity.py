"""CKA and shape distance: closed forms, the definitions in plain NumPy, planted networks."""

import numpy as np
import pytest
import xarray as xr
from scipy.linalg import orthogonal_procrustes

import poprnn as pr
from poprnn.analysis.contract import load_result
from poprnn.analysis.representational_similarity import similarities

RANDOM = np.random.default_rng(0)


def orthogonal(n):
    return np.linalg.qr(RANDOM.normal(size=(n, n)))[0]


def test_rotations_reflections_shifts_and_scales_change_nothing():
    x = RANDOM.normal(size=(50, 6))
    turned = 3.0 * x @ orthogonal(6) + RANDOM.normal(size=6)
    mirrored = x * np.where(np.arange(6) == 0, -1, 1)
    cka, shape = similarities(np.stack([x, turned, mirrored]))
    np.testing.assert_allclose(cka, 1, atol=1e-12)
    np.testing.assert_allclose(shape, 0, atol=1e-7)


def test_states_that_have_nothing_in_common_are_as_far_apart_as_can_be():
    q = np.linalg.qr(np.concatenate([np.ones((20, 1)), RANDOM.normal(size=(20, 6))], axis=1))[0][:, 1:]
    cka, shape = similarities(np.stack([q[:, :3], q[:, 3:]]))
    assert cka[0, 1] == pytest.approx(0, abs=1e-12)
    assert shape[0, 1] == pytest.approx(np.pi / 2)


def test_the_definitions():
    states = RANDOM.normal(size=(4, 30, 5)) * np.array([3, 2, 1, 1, 0.1]) + RANDOM.normal(size=(4, 1, 5))
    states[1:] += 0.7 * states[:1]
    cka, shape = similarities(states)
    centre = np.eye(30) - 1 / 30
    hsic = lambda x, y: np.trace(x @ x.T @ centre @ y @ y.T @ centre)
    for i, x in enumerate(states):
        for j, y in enumerate(states):
            assert cka[i, j] == pytest.approx(hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y)))
            a, b = ((z - z.mean(0)) / np.linalg.norm(z - z.mean(0)) for z in (x, y))
            q, _ = orthogonal_procrustes(a, b)
            assert shape[i, j] == pytest.approx(np.arccos(np.clip((a @ q * b).sum(), -1, 1)), abs=1e-7)


def test_the_shape_distance_is_a_metric():
    _, shape = similarities(RANDOM.normal(size=(6, 12, 4)))
    np.testing.assert_array_equal(np.diagonal(shape), 0)
    np.testing.assert_allclose(shape, shape.T, atol=1e-12)
    assert (shape[:, None, :] <= shape[:, :, None] + shape[None] + 1e-9).all()


def test_states_that_never_change_or_are_not_finite_are_nan():
    states = RANDOM.normal(size=(4, 10, 3)).astype(np.float32)
    states[1], states[2, 0, 0] = np.float32(0.1), np.inf
    cka, shape = similarities(states)
    for found in (cka, shape):
        assert np.isnan(found).all(axis=1).tolist() == [False, True, True, False]
        assert np.isfinite(found[np.ix_([0, 3], [0, 3])]).all()


@pytest.fixture(scope="module")
def population():
    """A network, the same with its units in another order, and another one."""
    order, W, W_in = np.eye(6)[RANDOM.permutation(6)], RANDOM.normal(size=(6, 6)) / 3, RANDOM.normal(size=(6, 1))
    arrays = {
        "W": np.stack([W, order @ W @ order.T, RANDOM.normal(size=(6, 6)) / 3]),
        "W_in": np.stack([W_in, order @ W_in, RANDOM.normal(size=(6, 1))]),
        "bias": np.zeros((3, 6)),
    }
    return pr.from_arrays(pr.tasks.NParity(n_max=6), pr.cells.VanillaRNN(n_units=6), arrays)


@pytest.fixture(scope="module")
def answer(population):
    return pr.measure("representational_similarity", population, n_trials=16)


def test_a_network_with_its_units_in_another_order_is_the_same(answer):
    data = answer.data
    assert data["shape"].dims == ("member", "other")
    assert data["shape"].values[0, 1] < 1e-3 and data["shape"].values[0, 2] > 1e-2
    assert data["cka"].values[0, 1] == pytest.approx(1, abs=1e-6) and data["cka"].values[0, 2] < 0.999
    xr.testing.assert_equal(data["distance"], data["shape"].rename("distance"))
    pairs = data["shape"].values[np.triu_indices(3, 1)]
    assert data["degeneracy"] == pytest.approx(pairs.mean())
    assert data["degeneracy_low"] <= data["degeneracy"] <= data["degeneracy_high"]


def test_options_and_a_round_trip_to_disk(population, answer, tmp_path):
    xr.testing.assert_identical(load_result(answer.save(tmp_path)).data, answer.data)
    ask = lambda **options: pr.measure("representational_similarity", population, n_trials=16, **options).data
    cka = ask(distance="cka")
    np.testing.assert_array_equal(cka["distance"], 1 - cka["cka"])
    assert cka.attrs == {"distance": "cka"} and answer.data.attrs == {"distance": "shape"}
    xr.testing.assert_identical(ask(), answer.data)
    assert abs(ask(seed=1)["shape"] - answer.data["shape"]).max() > 1e-4
    more = pr.measure("representational_similarity", population, n_trials=17).data
    assert abs(more["shape"] - answer.data["shape"]).max() > 1e-5
