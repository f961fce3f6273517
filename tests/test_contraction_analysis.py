"""The analysis ``contraction`` against planted truths, and every option of it."""

import dataclasses

import numpy as np
import pytest
from scipy import linalg

import poprnn as pr
from poprnn.analysis.contract import load_result
from poprnn.core.contraction import best
from poprnn.core.contraction.theorems import singular_rate

TASK = pr.tasks.NParity(n_max=3)
SMALL = dict(n_pairs=2, n_steps=50)
M = pr.modules


def leaky(*matrices, activation="tanh", tau=10.0, **arrays):
    """Leaky RNNs with given weights, self-interaction outside: tau dh/dt = -h + f(W h + W_in x + b)."""
    W = np.stack(matrices)
    cell = pr.cells.LeakyRNN(
        n_units=W.shape[-1], activation=activation, self_interaction="outside", self_connection=True, tau=tau
    )
    return pr.from_arrays(TASK, cell, {"W": W, "bias": np.zeros(W.shape[:2])} | arrays)


def assembly(*modules, members=2, **options):
    """Assemblies as they start, brought in member by member."""
    return pr.fit(TASK, pr.cells.Assembly(modules=modules, **options), members=members, epochs=1, steps_per_epoch=1,
                  batch=4, evaluation_batches=1)  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    return assembly(M.SingularValue(n_units=4), M.AbsoluteValue(n_units=3, density=0.4))


def test_each_theorem_is_found_for_its_own_network():
    ring = np.array([[0.0, 0.6, 0.0], [0.0, 0.0, 0.6], [-0.6, 0.0, 0.0]])
    inhibition = -np.diag([1.0, 2.0, 0.5]) @ np.array([[2.0, 1.9, 0], [1.9, 2.0, 0], [0, 0, 1.0]]) @ np.diag([9, 1, 2])
    symmetric = np.array([[-9.0, 4.0, 0.0], [4.0, -2.0, 0.5], [0.0, 0.5, 0.5]])
    triangle = np.array([[0.5, 0.0, 0.0], [90.0, -3.0, 0.0], [9.0, 70.0, 0.9]])
    wild = np.array([[0.0, 5.0, 1.0], [5.0, 0.0, -3.0], [2.0, 1.0, 2.0]])
    run = leaky(ring, inhibition, symmetric, triangle, wild)
    found = pr.measure("contraction", run, **SMALL).data
    assert found["certified"].values.tolist() == [True, True, True, True, False]
    assert found["certificate"].values[1:4].tolist() == ["3", "2", "1"]
    assert found["certificate"].values[0] in "15"
    holds = found["holds"].isel(module=0)
    assert holds.sel(theorem="4").values.tolist() == [False, False, False, True, False]
    assert holds.sel(theorem="2").values.tolist() == [False, False, True, False, False]
    assert np.isnan(found["rate"][4]) and found["margin"][4] < 0 and np.isnan(found["metric"][4]).all()
    assert found["largest_step"][4] == 0 and not found["step_certified"][4]
    assert found["rate"].values[1] == pytest.approx(1.0)
    assert found["rate"].values[0] == pytest.approx(0.4)
    np.testing.assert_allclose(found["step"], 0.1)
    # contraction in the metric that was found, at the rate or faster, at every step
    certified, rate = found["certified"].values, found["rate"].values
    good = certified & (found["step"] <= found["largest_step"]).values
    assert good.any()
    assert (found["worst_factor"].values[good] < 1).all()
    assert (found["pair_rate"].values[good] >= rate[good][:, None] * 0.1 * 0.9).all()


def test_lyapunov_exponents_of_a_linear_network():
    turn = 0.9 * np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    run = leaky(turn, 3 * np.diag([1.0, 0.2]), activation="identity", tau=2.0)
    found = pr.measure("contraction", run, n_directions=2, n_pairs=2, n_steps=200).data
    map_ = np.eye(2) / 2 + turn / 2
    np.testing.assert_allclose(found["exponent"][0], [np.log(np.abs(linalg.eigvals(map_)[0]))] * 2, rtol=1e-3)
    np.testing.assert_allclose(found["exponent"][1], np.log([0.5 + 1.5, 0.5 + 0.3]), rtol=1e-6)
    assert found["certified"].values.tolist() == [True, False]
    np.testing.assert_allclose(found["worst_factor"][0], np.linalg.norm(map_, 2), rtol=1e-3)
    np.testing.assert_allclose(found["pair_rate"][1], -np.log(2.0), rtol=0.05)


def test_an_assembly_says_what_its_cell_certifies(trained):
    found = pr.measure("contraction", trained, members="all", **SMALL).data
    for k in range(2):
        parameters = type(trained.parameters)(*({n: a[k] for n, a in g.items()} for g in trained.parameters))
        own = trained.cell.certificate(parameters)
        for name, value in (
            ("rate", own.certificate.rate), ("margin", own.certificate.margin), ("rate_as_run", own.rate_as_run),
            ("largest_step", own.largest_step), ("coupling_norm", own.coupling_norm), ("module_norm", own.module_norm),
        ):  # fmt: skip
            assert float(found[name][k]) == pytest.approx(value), name
        np.testing.assert_allclose(
            found["metric"][k] / found["metric"][k].max(),
            own.certificate.metric / own.certificate.metric.max(),
            atol=1e-9,
        )
    assert found["certificate"].values.tolist() == ["assembly"] * 2
    assert found["holds"].dims == ("member", "module", "theorem")
    assert "0 <= phi' <= g" in found["metric"].attrs["assumptions"]
    if found["step_certified"].all():
        assert (found["worst_factor"] < 1).all()


def test_trajectories_in_the_metric_never_part_where_steps_are_certified():
    run = assembly(M.SingularValue(n_units=6, count=2), gain=20.0, certify="euler", dt=0.4, activation="tanh")
    found = pr.measure("contraction", run, members="all", n_pairs=8, n_steps=200, spread=3.0, input_scale=5.0).data
    assert found["step_certified"].all()
    assert (found["worst_factor"] <= 1).all() and (found["exponent"] < 0).all()
    flow = pr.measure("contraction", run, members="all", dt=0.9, **SMALL).data
    assert (flow["step"] == 0.9).all()


def test_the_control_is_judged_by_its_modules_and_what_its_couplings_leave():
    weak, strong = (
        assembly(M.SingularValue(n_units=4, count=2, slack=0.5), coupling="unconstrained", gain=g) for g in (0.05, 9.0)
    )
    assert pr.measure("contraction", weak, members="all", **SMALL).data["certified"].all()
    found = pr.measure("contraction", strong, members="all", **SMALL).data
    assert not found["certified"].any()
    assert (found["exponent"] > 0).any()


def test_cells_of_other_forms_are_measured_only():
    W = np.stack([0.5 * np.eye(3), 2.0 * np.eye(3)])
    for cell in (pr.cells.VanillaRNN(n_units=3, activation="identity"), pr.cells.LSTM(n_units=2)):
        arrays = {"W": W, "bias": np.zeros((2, 3))} if cell.n_units == 3 else {}
        found = pr.measure("contraction", pr.from_arrays(TASK, cell, arrays), n_pairs=2, n_steps=30).data
        assert set(found.data_vars) == {"pair_rate", "worst_factor", "exponent"}
        if arrays:
            np.testing.assert_allclose(found["exponent"][:, 0], np.log([0.5, 2.0]), rtol=1e-6)
            np.testing.assert_allclose(found["worst_factor"], [0.5, 2.0], rtol=1e-6)
            np.testing.assert_allclose(found["pair_rate"], np.log([[2.0] * 2, [0.5] * 2]), rtol=1e-6)
    falling = leaky(np.eye(2), activation="leaky_relu")
    falling = dataclasses.replace(falling, setup=falling.setup.replace("cell.negative_slope", -0.1))
    unequal = leaky(np.eye(2), tau=(10.0, 20.0))
    for run in (falling, unequal):
        assert "certified" not in pr.measure("contraction", run, **SMALL).data


def test_a_search_finds_what_formulas_do_not():
    pytest.importorskip("cvxpy")
    rng = np.random.default_rng(0)
    while True:  # a network of no theorem's closed form, contracting in a scaled norm
        W = rng.normal(size=(4, 4))
        W = 10.0 ** rng.uniform(-1, 1, 4)[:, None] * W * 0.95 / np.linalg.norm(W, 2)
        scale = 10.0 ** rng.uniform(-1, 1, 4)
        W = np.diag(1 / scale) @ (linalg.qr(rng.normal(size=(4, 4)))[0] * 0.95) @ np.diag(scale)
        if not any(c.holds for c in best.certificates(W)):
            break
    run = leaky(W)
    without, found = (pr.measure("contraction", run, search=s, **SMALL).data for s in (False, True))
    assert not without["certified"].any()
    assert found["certified"].all()
    assert float(found["rate"][0]) >= singular_rate(W, np.diag(scale**2)) - 2e-3
    assert found["holds"].shape == without["holds"].shape


def test_every_option_changes_something(trained):
    base = {"n_pairs": 3, "n_steps": 30}
    first = pr.measure("contraction", trained, members="all", **base).data
    for change in (
        {"n_pairs": 2}, {"n_steps": 20}, {"input_scale": 9.0}, {"spread": 0.1}, {"n_directions": 2}, {"dt": 0.5},
        {"seed": 1},
    ):  # fmt: skip
        assert not first.identical(pr.measure("contraction", trained, members="all", **base | change).data), change
    assert first.identical(pr.measure("contraction", trained, members="all", **base).data)
    with pytest.raises(pr.ConfigurationError, match="n_directions = 8: must be at most the 7"):
        pr.measure("contraction", trained, members="all", n_directions=8, **base)


def test_a_round_trip_to_disk(trained, tmp_path):
    result = pr.measure("contraction", trained, members="all", **SMALL)
    assert load_result(result.save(tmp_path)).data.equals(result.data)
