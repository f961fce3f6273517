"""DSA and maps of distances: dsa-metric's own numbers, closed forms, brute force, planted truth."""

import importlib
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from safetensors.numpy import load_file
from sklearn.manifold import ClassicalMDS

import poprnn as pr
from poprnn.analysis import _operators as operators
from poprnn.analysis._orthogonal_alignment import align, lower_bound, parts
from poprnn.analysis._pairs import mean_over_pairs
from poprnn.analysis.contract import load_result
from poprnn.analysis.dynamical_similarity import aligned_distances, eigenvalue_distances
from poprnn.analysis.embedding import scaled_points

MODULE = importlib.import_module("poprnn.analysis.dynamical_similarity")
THEIRS = load_file(Path(__file__).parent / "fixtures" / "dsa_metric.safetensors")
GROUPS = ("trained_10", "trained_20", "random_10", "random_30")
N_DELAYS = 4
PAIRS = list(itertools.combinations(range(3), 2))


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def orthogonal(rank, seed=0, determinant=None):
    q = np.linalg.qr(gaussian(rank, rank, seed=seed))[0]
    if determinant is not None and np.linalg.det(q) * determinant < 0:
        q[:, 0] *= -1
    return q


def unit(matrices):
    return matrices / np.linalg.norm(matrices, axis=(-2, -1), keepdims=True)


# --- the search -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found():
    """Distances within every group of the fixture."""
    return {name: aligned_distances(unit(THEIRS[f"{name}/operators"].astype(float))) for name in GROUPS}


@pytest.mark.parametrize("group", GROUPS)
def test_no_larger_than_what_dsa_metric_finds_and_never_below_the_bound(group, found):
    ours, bound = (found[group][name] for name in ("distance", "lower_bound"))
    for place, (i, j) in enumerate(PAIRS):
        assert bound[i, j] <= ours[i, j] <= THEIRS[f"{group}/euclidean"][place] + 1e-4
        assert 2 * np.arcsin(ours[i, j] / 2) <= THEIRS[f"{group}/angular"][place] + 1e-4


@pytest.mark.parametrize("rank", [2, 5, 20, 100])
def test_a_planted_transformation_is_found(rank):
    a = unit(gaussian(rank, rank))
    turned = [q @ a @ q.T for q in (orthogonal(rank, 1, determinant) for determinant in (1, -1))]
    assert aligned_distances(np.stack([a, *turned]), n_starts=4)["distance"].max() < 2e-5


def test_a_planted_transformation_of_trained_operators_is_found():
    for group in ("trained_10", "trained_20"):
        a = unit(THEIRS[f"{group}/operators"].astype(float))[0]
        q = orthogonal(len(a), 2)
        assert aligned_distances(np.stack([a, q @ a @ q.T]), n_starts=2)["distance"][0, 1] < 2e-5


def test_what_is_found_is_orthogonal_in_float64():
    matrices = unit(gaussian(3, 15, 15))
    q = align(matrices, np.array(PAIRS), n_starts=3, seed=0)
    np.testing.assert_allclose(q @ np.swapaxes(q, 1, 2), np.tile(np.eye(15), (3, 1, 1)), atol=1e-12)


@pytest.mark.parametrize("kind", ["symmetric", "skew"])
def test_closed_form_of_symmetric_and_of_skew_matrices(kind):
    """The distance of sorted eigenvalues."""
    matrices = unit(np.stack(parts(gaussian(4, 11, 11)))[0 if kind == "symmetric" else 1])
    spectrum = np.linalg.eigvalsh(matrices if kind == "symmetric" else 1j * matrices)
    expected = np.linalg.norm(spectrum[:, None] - spectrum[None], axis=-1)
    got = aligned_distances(matrices, n_starts=12)
    np.testing.assert_allclose(got["distance"], expected, atol=2e-5)
    np.testing.assert_allclose(got["lower_bound"], expected, atol=1e-12)


def rotations(rank, n=180):
    """A grid of rotations of the plane or of space, and of their products with a reflection."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    c, s = np.cos(angle), np.sin(angle)
    if rank == 2:
        turn = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    else:
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        a, b, g = (x.ravel() for x in np.meshgrid(angle, angle[:25], angle, indexing="ij"))
        turn = _turn(a, 2) @ _turn(b, 0) @ _turn(g, 2)
    mirror = np.diag([-1.0] + [1.0] * (rank - 1))
    return np.concatenate([turn, turn @ mirror])


def _turn(angle, axis):
    out = np.tile(np.eye(3), (len(angle), 1, 1))
    i, j = [k for k in range(3) if k != axis]
    out[:, i, i] = out[:, j, j] = np.cos(angle)
    out[:, i, j], out[:, j, i] = -np.sin(angle), np.sin(angle)
    return out


@pytest.mark.parametrize("rank", [2, 3])
def test_brute_force_over_a_grid(rank):
    matrices = unit(gaussian(4, rank, rank, seed=3))
    grid = rotations(rank)
    got = aligned_distances(matrices)["distance"]
    gap = 0.02 if rank == 2 else 0.06  # half a cell of the grid moves an operator that far at most
    for i, j in itertools.combinations(range(4), 2):
        best = np.linalg.norm(matrices[i] - grid @ matrices[j] @ np.swapaxes(grid, 1, 2), axis=(1, 2)).min()
        assert best - gap <= got[i, j] <= best + 1e-6


def test_it_is_a_metric_and_the_same_every_time(found):
    d = found["trained_20"]["distance"]
    np.testing.assert_array_equal(d, d.T)
    np.testing.assert_array_equal(np.diagonal(d), 0)
    for i, j, k in itertools.permutations(range(3)):
        assert d[i, k] <= d[i, j] + d[j, k] + 1e-9
    matrices = unit(THEIRS["trained_20/operators"].astype(float))
    again = aligned_distances(matrices)
    np.testing.assert_array_equal(again["distance"], d)
    alone = aligned_distances(matrices[1:])["distance"]
    assert alone[0, 1] == d[1, 2], "in whatever company"


def test_more_starts_find_no_larger_distances():
    matrices = unit(gaussian(3, 12, 12, seed=5))
    few, many = (aligned_distances(matrices, n_starts=n)["distance"] for n in (1, 40))
    assert (many <= few + 1e-6).all()
    assert (many < few - 1e-4).any()


def test_the_bound_is_the_larger_of_two():
    a = unit(gaussian(2, 6, 6, seed=4))
    eigenvalues = np.linalg.eigvalsh
    symmetric, skew = parts(a)
    both = [
        np.sqrt(sum(((eigenvalues(m[0]) - eigenvalues(m[1])) ** 2).sum() for m in of))
        for of in ((symmetric, 1j * skew), (symmetric + 1j * skew,))
    ]
    assert lower_bound(a)[0, 1] == pytest.approx(max(both))


def test_wasserstein_distances():
    matrices = THEIRS["trained_20/operators"].astype(float)
    got = eigenvalue_distances(matrices)
    np.testing.assert_allclose([got[p] ** 2 for p in PAIRS], THEIRS["trained_20/wasserstein"], rtol=1e-3)
    real = np.stack([np.diag([0.1, 0.5, 0.9]), np.diag([0.2, 0.2, 0.7])])
    assert eigenvalue_distances(real)[0, 1] == pytest.approx(np.sqrt((0.1**2 + 0.3**2 + 0.2**2) / 3))


# --- operators ------------------------------------------------------------------------------------------------------


def test_operators_are_those_of_dsa_metric():
    """Up to the signs of singular vectors."""
    fitted = operators.fit_operators(THEIRS["states"], N_DELAYS, 10, analysis="test").matrices
    theirs = THEIRS["trained_10/operators"]
    np.testing.assert_allclose(np.abs(fitted), np.abs(theirs), atol=2e-3)
    together = aligned_distances(unit(np.concatenate([fitted, theirs])), n_starts=4)["distance"]
    assert (np.diagonal(together[:3, 3:]) < 5e-3).all()


def linear_system(noise=0.0):
    """A planted system of three dimensions, seen through ten units, with its eigenvalues."""
    q = orthogonal(3, 7)
    block = np.array([[0.9, -0.3, 0.0], [0.3, 0.9, 0.0], [0.0, 0.0, 0.8]])
    system, seen = q @ block @ q.T, gaussian(10, 3, seed=8)
    x = gaussian(3, 20, seed=9)
    path = np.stack([np.linalg.matrix_power(system, t) @ x for t in range(25)]).transpose(2, 0, 1)
    return (path @ seen.T)[None] + noise * gaussian(1, 20, 25, 10), np.array([0.9 + 0.3j, 0.9 - 0.3j, 0.8])


@pytest.mark.parametrize("n_delays", [1, 3])
def test_the_eigenvalues_of_a_planted_system_are_recovered(n_delays):
    states, expected = linear_system()
    fitted = operators.fit_operators(states, n_delays, 3, analysis="test")
    values = np.linalg.eigvals(fitted.matrices[0])
    np.testing.assert_allclose(np.sort_complex(values), np.sort_complex(expected), atol=1e-6)
    assert fitted.r_squared[0] == pytest.approx(1)
    assert fitted.variance[0] == pytest.approx(1)
    # more rank than the system has dimensions adds components that are zero
    wider = operators.fit_operators(states, n_delays, 6, analysis="test")
    assert wider.n_components.tolist() == [3]
    assert np.abs(wider.matrices[0][3:]).max() == np.abs(wider.matrices[0][:, 3:]).max() == 0


@pytest.mark.parametrize("shape", [(3, 40), (20, 25)])  # fewer samples than coordinates, and more
def test_the_regression_is_that_of_numpy(shape):
    states = gaussian(2, *shape, 30, seed=2)
    windows = np.concatenate([states[:, :, 1:], states[:, :, :-1]], axis=3)  # the newest first
    fitted = operators.fit_operators(states, 2, 8, analysis="test")
    for member in range(2):
        v = np.linalg.svd(windows[member].reshape(-1, 60), full_matrices=False)[0][:, :8]
        v = v.reshape(shape[0], shape[1] - 1, 8)
        expected = np.linalg.lstsq(v[:, :-1].reshape(-1, 8), v[:, 1:].reshape(-1, 8), rcond=None)[0].T
        np.testing.assert_allclose(np.abs(fitted.matrices[member]), np.abs(expected), atol=1e-8)


def test_leading_eigenvectors_of_large_matrices(monkeypatch):
    q, values = orthogonal(300, 3), np.concatenate([10.0 ** -np.arange(0, 8, 0.5), np.linspace(1e-9, 1e-10, 284)])
    matrix = (q * values) @ q.T
    monkeypatch.setattr(operators.scipy.linalg, "eigh", None)  # by block Lanczos, then
    got, vectors = operators._leading_eigenvectors(matrix, 10)
    np.testing.assert_allclose(got, values[:10], rtol=1e-8)
    np.testing.assert_allclose(np.abs((vectors * q[:, :10]).sum(axis=0)), 1, atol=1e-6)


def test_states_that_are_not_finite_are_nan_and_errors_say_what_is_wrong():
    states, _ = linear_system()
    broken = np.concatenate([states, np.where(np.arange(25)[:, None] > 20, np.nan, states)])
    assert np.isnan(operators.fit_operators(broken, 1, 3, analysis="test").matrices).all((1, 2)).tolist() == [
        False,
        True,
    ]
    with pytest.raises(pr.ConfigurationError, match="n_delays = 25: must be less than the 25 steps"):
        operators.fit_operators(states, 25, 3, analysis="test")
    with pytest.raises(pr.ConfigurationError, match="rank = 11: must be at most 10"):
        operators.fit_operators(states, 1, 11, analysis="test")


# --- the analysis ---------------------------------------------------------------------------------------------------


class Steps(pr.Task):
    """Random inputs of twelve steps."""

    n_inputs, n_outputs, capacity = 3, 1, 14

    def draw(self, stage, *, key):
        return pr.Setting(12)

    def sample(self, setting, arrays, *, key):
        x = jax.random.normal(key, (14, 3))
        return pr.Trial(jnp.where(jnp.arange(14)[:, None] < 12, x, jnp.inf), jnp.zeros((14, 1)))


@pytest.fixture(scope="module")
def population():
    """A network, the same in other coordinates, one of other weights, and one that diverges."""
    q, W, W_in = orthogonal(5, 1), 0.4 * gaussian(5, 5), gaussian(5, 3, seed=1)
    arrays = {
        "W": np.stack([W, q @ W @ q.T, 0.4 * gaussian(5, 5, seed=6), 1e30 * np.eye(5)]),
        "W_in": np.stack([W_in, q @ W_in, W_in, W_in]),
        "bias": np.zeros((4, 5)),
    }
    return pr.from_arrays(Steps(), pr.cells.VanillaRNN(n_units=5, activation="identity"), arrays)


SMALL = dict(n_delays=2, rank=6, n_trials=40, n_starts=4)


@pytest.fixture(scope="module")
def answer(population):
    return pr.measure("dynamical_similarity", population, **SMALL)


def test_networks_that_are_the_same_in_other_coordinates_are_at_no_distance(answer):
    data = answer.data
    d = data["distance"].values
    assert data["distance"].dims == ("member", "other")
    assert d[0, 1] < 1e-3
    assert d[0, 2] > 0.05 and d[1, 2] == pytest.approx(d[0, 2], abs=1e-3)
    assert np.isnan(d[3]).all() and np.isnan(d[:, 3]).all()
    assert data["degeneracy"] == pytest.approx((d[0, 1] + d[0, 2] + d[1, 2]) / 3)
    assert data["degeneracy_low"] <= data["degeneracy"] <= data["degeneracy_high"]
    assert (data["lower_bound"].values[:3, :3] <= d[:3, :3]).all()
    assert data.attrs == {"distance": "frobenius", "scaled": "true"}


def test_a_round_trip_to_disk(answer, tmp_path):
    xr.testing.assert_identical(load_result(answer.save(tmp_path)).data, answer.data)


def test_every_option_changes_something(population, answer):
    base, three = answer.data["distance"].values, population.select([0, 1, 2])
    ask = lambda **options: pr.measure("dynamical_similarity", three, **SMALL | options).data["distance"].values
    angular = ask(distance="angular")
    np.testing.assert_allclose(2 * np.sin(angular / 2), base[:3, :3], atol=1e-6)
    for options in ({"n_delays": 1, "rank": 4}, {"rank": 4}, {"scaled": False}, {"n_trials": 30}, {"seed": 1}):
        assert abs(ask(**options) - base[:3, :3]).max() > 1e-4, options
    by_eigenvalues = ask(distance="wasserstein", n_starts=None)
    assert abs(by_eigenvalues - base[:3, :3]).max() > 1e-3
    assert by_eigenvalues[0, 1] < 1e-3
    assert abs(ask(distance="wasserstein", n_starts=None, scaled=True) - by_eigenvalues).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"distance": "angular", "scaled": True}, "scaled = True: has no effect"),
        ({"distance": "wasserstein", "n_starts": 3}, "n_starts = 3: has no effect"),
        ({"distance": "euclid"}, "distance = 'euclid'"),
        ({"n_delays": 12}, "must be less than the 12 steps"),
        ({"rank": 11}, "at most 10"),
    ],
)
def test_wrong_options(population, options, word):
    with pytest.raises(pr.ConfigurationError, match=word):
        pr.measure("dynamical_similarity", population, **{"n_delays": 2, "rank": 6, "n_trials": 40} | options)


# --- means over pairs, and maps -------------------------------------------------------------------------------------


def test_the_interval_is_that_of_members_drawn_again():
    distance = np.abs(np.subtract.outer(*[gaussian(30)] * 2))
    mean, low, high = mean_over_pairs(distance, 0)
    assert mean == pytest.approx(distance[np.triu_indices(30, 1)].mean())
    random, means = np.random.default_rng(1), []
    for _ in range(2000):
        drawn = random.integers(30, size=30)
        i, j = np.triu_indices(30, 1)
        different = drawn[i] != drawn[j]
        means.append(distance[drawn[i], drawn[j]][different].mean())
    np.testing.assert_allclose([low, high], np.quantile(means, (0.025, 0.975)), rtol=0.05)


def test_a_map_keeps_what_lies_in_a_plane_and_is_that_of_scikit_learn():
    points = gaussian(12, 2)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    data = scaled_points(distance, 2)
    again = np.linalg.norm(data["point"].values[:, None] - data["point"].values[None], axis=-1)
    np.testing.assert_allclose(again, distance, atol=1e-10)
    assert data["stress"] < 1e-10
    assert data["spread"] == pytest.approx(np.linalg.norm(points - points.mean(0), axis=1).mean())
    noisy = distance + 0.3 * np.abs(np.subtract.outer(*[gaussian(12, seed=3)] * 2))
    theirs = ClassicalMDS(n_components=3, metric="precomputed").fit_transform(noisy)
    np.testing.assert_allclose(np.abs(scaled_points(noisy, 3)["point"]), np.abs(theirs), atol=1e-8)


def test_a_map_of_several_populations_and_of_members_without_distances():
    points = np.concatenate([gaussian(6, 2), 5 + 3 * gaussian(6, 2, seed=2)])
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    distance[3], distance[:, 3] = np.nan, np.nan
    data = scaled_points(distance, 2, population=["tight"] * 6 + ["wide"] * 6)
    assert np.isnan(data["point"].values).all(axis=1).tolist() == [k == 3 for k in range(12)]
    for name, own in (("tight", points[[0, 1, 2, 4, 5]]), ("wide", points[6:])):
        expected = np.linalg.norm(own - own.mean(0), axis=1).mean()
        assert data["spread"].sel(population=name) == pytest.approx(expected)
    with pytest.raises(pr.NotApplicableError, match="fewer than two members"):
        scaled_points(np.full((3, 3), np.nan))
    nowhere = scaled_points(np.zeros((3, 3)), 4)
    assert nowhere["stress"] == nowhere["spread"] == 0


def test_embedding_asks_for_distances(population):
    three = population.select([0, 1, 2])
    data = pr.measure("embedding", three, options=SMALL).data
    d = pr.measure("dynamical_similarity", three, **SMALL).data
    xr.testing.assert_allclose(
        data[["point", "stress"]],
        scaled_points(d["distance"].values).assign_coords(member=three.member_index)[["point", "stress"]],
    )
    assert data.attrs == {"of": "dynamical_similarity", "distance": "frobenius", "scaled": "true"}
    assert not np.allclose(pr.measure("embedding", three, options=SMALL, seed=1).data["point"], data["point"])
    assert pr.measure("embedding", three, options=SMALL, n_dimensions=1).data["point"].shape == (3, 1)
    other = pr.measure("embedding", three, of="representational_similarity", options={"n_trials": 4}).data
    assert other["spread"] != data["spread"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"of": "connectivity"}, "must be an analysis that finds distances"),
        ({"of": "embedding"}, "must be an analysis that finds distances"),
        ({"of": "dynamical_simularity"}, "did you mean"),
        ({"options": {"seed": 3}}, "must be given as seed"),
        ({"options": {"ranks": 3}}, "unknown option 'ranks'"),
    ],
)
def test_embeddings_that_cannot_be(population, options, word):
    with pytest.raises(pr.ConfigurationError, match=word):
        pr.measure("embedding", population, **options)
