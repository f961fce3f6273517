"""Assemblies: their steps against plain NumPy, their certificates before, during and after training, every option."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

import poprnn as pr
from conftest import TINY, usually
from poprnn.cells import _network
from poprnn.cells._certified import certify, matrices
from poprnn.cells._couplings import Couplings
from poprnn.cells._layout import layout_of, strips_of
from poprnn.cells._network import norm_bound
from poprnn.cells.modules.absolute_value import spectral_radius
from poprnn.core.contraction import assemblies
from poprnn.core.contraction.theorems import theorem_1, theorem_2, theorem_3, theorem_4

M, Context = pr.modules, pr.Context
KINDS = {
    "1": M.AbsoluteValue(n_units=4, count=2, density=0.3),
    "2": M.Symmetric(n_units=3, count=2),
    "3": M.DiagonalProduct(n_units=4),
    "4": M.Triangular(n_units=3, count=2),
    "5": M.SingularValue(n_units=5),
}
PAIR = M.Group(modules=(KINDS["2"], KINDS["4"]), coupling="hierarchical", topology="chain")
NESTED = pr.cells.Assembly(
    modules=(
        M.Group(modules=(PAIR, KINDS["1"], KINDS["5"]), topology="hub"),
        KINDS["3"],
        M.Group(modules=(KINDS["5"], M.Group(modules=(KINDS["1"], KINDS["3"]))), coupling="hierarchical", count=2),
    ),
    activation="tanh",
)
SMALL = pr.cells.Assembly(
    modules=(M.Group(modules=(PAIR, KINDS["1"]), topology="hub"), KINDS["5"]),
    coupling="hierarchical",
    activation="tanh",
)
STRIPS = pr.cells.Assembly(
    modules=(M.AbsoluteValue(n_units=40, count=3, density=0.02), M.Symmetric(n_units=25), M.SingularValue(n_units=40)),
    topology="chain",
)
CELLS = {
    "nested": NESTED,
    "strips": STRIPS,
    "a hierarchy in strips": dataclasses.replace(STRIPS, coupling="hierarchical", topology="hub"),
    "dense and large": dataclasses.replace(STRIPS, topology="all_to_all"),
    "sparse couplings": dataclasses.replace(STRIPS, topology="graph", edges=((0, 2), (1, 4)), density=0.3),
    "one module": pr.cells.SparseComboNet(n_modules=1, n_module_units=6, density=0.2),
    "unconstrained": pr.cells.SparseComboNet(n_modules=3, n_module_units=5, coupling="unconstrained"),
}
FORMS = [(name, form) for name in CELLS for form in ("voltage", "rate")]


@functools.lru_cache(maxsize=32)
def starts(cell, n_inputs, n_outputs):
    return jax.jit(lambda key: cell.init(n_inputs, n_outputs, key=key))


def parameters_of(cell, seed=0, n_inputs=2, n_outputs=3):
    return starts(cell, n_inputs, n_outputs)(jax.random.key(seed))


def with_couplings(parameters, change):
    """The couplings' B replaced, every group's."""
    return parameters._replace(
        trainable={k: change(np.asarray(v)) if k[0] == "B" else v for k, v in parameters.trainable.items()}
    )


# --- the dynamics ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form"),
    usually(FORMS, "nested-voltage", "strips-rate", "a hierarchy in strips-voltage"),
)
def test_a_step_is_the_equation(name, form):
    cell = dataclasses.replace(CELLS[name], form=form, dt=0.1, tau=2.0)
    parameters = parameters_of(cell)
    p = {k: np.asarray(v, np.float64) for k, v in parameters.trainable.items()}
    known = matrices(cell, parameters)
    W, L = known.weights, known.couplings
    phi = np.tanh if cell.activation == "tanh" else lambda x: np.maximum(x, 0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=cell.n_units)
    for dt in (None, 0.5):
        context, alpha = Context(dt=dt), (dt or 0.1) / 2
        prepared = jax.jit(lambda p, c=context: cell.prepare(p, c))(parameters)
        step = jax.jit(lambda s, u, q=prepared, c=context: cell.step(q, s, u, key=jax.random.key(0), context=c))
        state = jnp.asarray(x, jnp.float32)
        wanted = x
        for u in rng.normal(size=(4, 2)):
            state = step(state, jnp.asarray(u, jnp.float32))
            drive = p["W_in"] @ u + p["bias"]
            inner = W @ phi(wanted) + drive if form == "voltage" else phi(W @ wanted + drive)
            wanted = wanted + alpha * (-wanted + inner + L @ wanted)
        np.testing.assert_allclose(state, wanted, rtol=2e-4, atol=2e-4)
        output = cell.readout(prepared, state)
        np.testing.assert_allclose(output, p["W_out"] @ wanted + p["b_out"], rtol=1e-3, atol=1e-3)
    assert (linalg.block_diag(*(np.ones_like(m) for m in known.modules)) * L == 0).all()
    assert np.abs(L).max() > 0 or name == "one module"


def test_which_products_are_taken():
    assert layout_of(NESTED).is_dense
    assert not layout_of(STRIPS).is_dense
    assert layout_of(CELLS["dense and large"]).is_dense
    prepared = STRIPS.prepare(parameters_of(STRIPS), Context())
    assert "A" not in prepared and "W" not in prepared
    # nothing is formed that is zero: as many numbers as there are entries of L
    assert sum(v.size for k, v in prepared.items() if k.startswith("A_")) == len(layout_of(STRIPS).to)
    strips, order = strips_of(STRIPS)
    assert sorted(order) == list(range(STRIPS.n_units))
    assert {strip.entries.shape for strip in strips} == {(1, 40, n) for n in (25, 40, 65, 80)} | {(1, 25, 80)}


def test_couplings_are_the_papers_equation():
    """L_ij = B_ij - M_i^-1 B_ji^T M_j, with theorem 1's metric worked out here."""
    cell = pr.cells.SparseComboNet(n_modules=3, n_module_units=4, density=0.3)
    parameters = parameters_of(cell)
    known = matrices(cell, parameters)
    B = np.zeros((12, 12))
    blocks = iter(np.asarray(parameters.trainable["B"], np.float64).reshape(3, 4, 4))
    for i, j in itertools.combinations(range(3), 2):
        B[4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = next(blocks)
    P = []
    for W in np.asarray(parameters.fixed["W_0"], np.float64):
        J = abs(W) - np.eye(4)
        P.append(linalg.solve(-J.T, np.ones(4)) / linalg.solve(-J, np.ones(4)))
        P[-1] /= np.exp(np.log(P[-1]).mean())  # one scale for each module: all are metrics
    P = np.concatenate(P)
    np.testing.assert_allclose(known.couplings, B - B.T * P[None, :] / P[:, None], rtol=1e-9, atol=1e-12)
    identity = matrices(dataclasses.replace(cell, metric="identity"), parameters)
    np.testing.assert_allclose(identity.couplings, B - B.T, atol=1e-12)
    control = dataclasses.replace(cell, coupling="unconstrained")
    L = matrices(control, parameters_of(control)).couplings
    assert (L != 0).sum() == 12 * 12 - 3 * 16 and np.abs(L + L.T).max() > 0.1


def test_the_best_published_network_has_as_many_parameters():
    trainable = jax.eval_shape(lambda: parameters_of(pr.cells.SparseComboNet(), n_inputs=1, n_outputs=10)).trainable
    assert sum(int(np.prod(a.shape)) for a in trainable.values()) == 120 * 32**2 + 1024 + 5130


# --- certificates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["voltage", "rate"])
@pytest.mark.parametrize("theorem", KINDS)
def test_every_kind_keeps_its_theorem_under_any_gradient_step(theorem, form):
    """Weights anywhere, and the theorem's own finder recognises them."""
    cell = pr.cells.Assembly(modules=(KINDS[theorem],), form=form)
    for seed in range(5):
        parameters = parameters_of(cell, seed)
        rng = np.random.default_rng(seed)
        step = {k: np.asarray(v + 2 * rng.normal(size=v.shape), np.float32) for k, v in parameters.trainable.items()}
        parameters = parameters._replace(trainable=step)
        answer = certify(cell, parameters)
        assert answer.certificate.holds, (theorem, seed, answer)
        W = matrices(cell, parameters).modules[0]
        W = W.T if form == "rate" else W
        if theorem == "5":
            theta = np.exp(np.asarray(parameters.trainable["theta_0"][0], np.float64))
            assert np.linalg.norm(W * theta[:, None] / theta, 2) < 1
        else:
            ask = {"1": theorem_1, "2": theorem_2, "3": theorem_3, "4": theorem_4}[theorem]
            assert ask(W).holds
            assert answer.module_rates[0] <= ask(W).rate + 1e-6 or theorem == "4"


entries = st.one_of(st.floats(-1e3, 1e3, width=32), st.sampled_from([0.0, 1e3, -1e3]))


@given(data=st.data(), seed=st.integers(0, 2**31), form=st.sampled_from(["voltage", "rate"]))
@settings(deadline=None, max_examples=25)
def test_nested_assemblies_are_certified_for_any_couplings(data, seed, form):
    """Three levels of groups, mixed couplings, every kind of module; entries of B up to 1e3, in float32."""
    cell = dataclasses.replace(NESTED, form=form)
    parameters = parameters_of(cell, seed % 7)
    rng = np.random.default_rng(seed)
    size = data.draw(entries)
    how = data.draw(st.sampled_from(["equal", "signs", "uniform", "one"]))

    def change(B):
        drawn = {
            "equal": np.full(B.shape, size),
            "signs": size * rng.choice([-1, 1], B.shape),
            "uniform": size * rng.uniform(-1, 1, B.shape),
            "one": np.where(np.arange(B.size) == rng.integers(B.size), size, 0),
        }
        return drawn[how].astype(np.float32)

    answer = certify(cell, with_couplings(parameters, change))
    assert answer.certificate.holds and answer.certificate.margin > 0, answer
    # the metric of the whole, independently: the Jacobian's symmetric part in it, at random slopes
    known = matrices(cell, with_couplings(parameters, change))
    R = np.linalg.cholesky(known.metric).T
    for _ in range(5):
        D = rng.uniform(0, 1, cell.n_units).round(rng.integers(0, 3))
        J = -np.eye(cell.n_units) + (known.weights * D if form == "voltage" else D[:, None] * known.weights)
        normal = R @ (J + known.couplings) @ np.linalg.inv(R)
        assert -np.linalg.eigvalsh((normal + normal.T) / 2)[-1] >= answer.certificate.rate * (1 - 1e-3)


def test_couplings_are_scaled_only_where_float32_would_not_keep_them_skew():
    """All of 1000 in three levels, in the rate form: rounding took 0.15 from a rate of 0.065."""
    cell = dataclasses.replace(NESTED, form="rate")
    usual, huge = (
        with_couplings(parameters_of(cell, 3), lambda B, s=s: np.full(B.shape, s, np.float32)) for s in (1.0, 1e3)
    )
    answer = certify(cell, huge)
    assert answer.certificate.holds and answer.rate_as_run > 0.7 * answer.certificate.rate
    assert certify(cell, usual).coupling_norm * 100 < answer.coupling_norm
    # what is not scaled has the bits of its equation
    plain = pr.cells.SparseComboNet(n_modules=3, n_module_units=6, density=0.2)
    network = plain.network(parameters_of(plain))
    B = np.asarray(parameters_of(plain).trainable["B"])
    assert set(B.tolist()) <= set(np.asarray(network.couplings).tolist())


def test_the_rate_of_a_hierarchy_is_the_share_that_was_asked_for():
    part = M.SingularValue(n_units=4, slack=0.3)
    for share in (0.2, 0.9):
        cell = pr.cells.Assembly(modules=(part, part, part), coupling="hierarchical", kept_rate=share, gain=100.0)
        answer = certify(cell, parameters_of(cell))
        assert share * answer.module_rates.min() * 0.999 <= answer.certificate.rate < answer.module_rates.min()
        # without the levels' factors the same couplings are not certified
        known = matrices(cell, parameters_of(cell))
        flat = linalg.block_diag(*known.metrics)
        rates = np.repeat(answer.module_rates, 4)
        assert not assemblies.assembly_certificate(rates, flat, known.couplings).holds


@pytest.fixture(scope="module")
def trained():
    """Nested assemblies of three levels and mixed couplings, trained with steps that are far too large."""
    optimizer = {"kind": "adam", "learning_rate": 0.3}
    settings_ = TINY | {"snapshots": 1, "epochs": 3, "optimizer": optimizer}
    return pr.fit(pr.tasks.NParity(n_max=3), SMALL, members=2, **settings_)


def test_certified_before_during_and_after_training(trained):
    moments = [trained.initial, *(s.parameters for s in trained.snapshots.values()), trained.parameters]
    assert len(moments) == 5
    for k in range(2):
        for stacked in moments:
            assert certify(SMALL, jax.tree.map(lambda a, k=k: a[k], stacked)).certificate.holds
    moved = np.abs(trained.parameters.trainable["B"] - trained.initial.trainable["B"])
    assert moved.min() > 0 and np.median(moved) > 1e-2
    assert any(name.startswith("W_") for name in trained.initial.fixed)  # modules under theorem 1 keep their weights
    for name, start in trained.initial.fixed.items():
        np.testing.assert_array_equal(trained.parameters.fixed[name], start)


def test_trajectories_of_a_trained_network_come_together(trained):
    """The distance in the metric of the whole falls at least at the certified rate, whatever the input."""
    parameters = jax.tree.map(lambda a: a[0], trained.parameters)
    known, answer = matrices(SMALL, parameters), certify(SMALL, parameters)
    R, W, L = np.linalg.cholesky(known.metric).T, known.weights, known.couplings
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, SMALL.n_units))
    dt = min(answer.largest_step, 1e-3)
    for _ in range(300):
        u, before = 3 * rng.normal(size=len(W)), np.linalg.norm(R @ (x - y))
        x, y = (z + dt * (-z + W @ np.tanh(z) + L @ z + u) for z in (x, y))
        assert np.linalg.norm(R @ (x - y)) <= before * (1 + 1e-12) + 1e-13


def test_what_is_broken_is_refused():
    cell = CELLS["one module"]
    parameters = parameters_of(cell)
    assert certify(cell, parameters).certificate.holds
    W = np.asarray(parameters.fixed["W_0"])
    for bad in (W + 0.5, np.full_like(W, np.nan)):
        assert not certify(cell, parameters.replaced(W_0=jnp.asarray(bad))).certificate.holds
    edge = np.zeros_like(W)
    edge[0, 0, 1], edge[0, 1, 0] = 4.0, 0.25
    for factor, holds in ((0.999, True), (1.0, False), (1.001, False)):
        assert certify(cell, parameters.replaced(W_0=jnp.asarray(factor * edge))).certificate.holds is holds
    control = CELLS["unconstrained"]
    assert not control.is_certified and not certify(control, parameters_of(control)).certificate.holds
    mixed = pr.cells.Assembly(modules=(KINDS["5"], M.Unconstrained(n_units=3)))
    assert not mixed.is_certified and not certify(mixed, parameters_of(mixed)).certificate.holds
    identity = pr.cells.SparseComboNet(n_modules=2, metric="identity")
    assert not identity.is_certified and not certify(identity, parameters_of(identity)).certificate.holds


@pytest.mark.parametrize("size", [1e3, 1e8])
def test_enormous_feedback_is_scaled_so_that_rounding_leaves_it_skew(size):
    """Feedback of 1e8 is skew in float64 and was no longer so in float32: its rounding exceeded the rate."""
    cell = pr.cells.SparseComboNet(n_modules=4, n_module_units=8, density=0.1)
    huge = with_couplings(parameters_of(cell), lambda B: np.sign(B) * size)
    answer = certify(cell, huge)
    assert answer.certificate.holds and answer.rate_as_run > 0.7 * answer.certificate.rate


def test_rounding_that_exceeds_the_rate_is_not_called_certified(monkeypatch):
    """Without that scaling."""
    monkeypatch.setattr(_network, "_skew_share", lambda *_: 1.0)
    cell = pr.cells.SparseComboNet(n_modules=4, n_module_units=8, density=0.1, gain=1.5)  # not compiled before
    answer = certify(cell, with_couplings(parameters_of(cell), lambda B: np.sign(B) * 1e8))
    assert answer.certificate.rate > 0 > answer.rate_as_run
    assert not answer.certificate.holds


def factorised(jaxpr):
    """Shapes of all matrices that a program hands to LAPACK."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in {"lu", "cholesky", "eigh", "eig", "svd", "geqrf", "householder_product", "schur"}:
            yield equation.invars[0].aval.shape
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from factorised(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("orthogonal", ["cayley", "exponential"])
def test_no_stack_of_matrices_is_handed_to_lapack(orthogonal):
    """jaxlib waits for other threads of the pool on which the programs of several devices run: training hung."""
    more = M.SingularValue(n_units=5, count=2, orthogonal=orthogonal)
    cell = dataclasses.replace(NESTED, modules=(*NESTED.modules, more))
    parameters = parameters_of(cell)

    def total(trainable):
        return sum(jnp.sum(a) for a in jax.tree.leaves(cell.network(parameters._replace(trainable=trainable))))

    shapes = list(factorised(jax.make_jaxpr(jax.grad(total))(parameters.trainable).jaxpr))
    assert len(shapes) > 5 and {len(shape) for shape in shapes} == {2}


# --- Euler steps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", usually(["voltage", "rate"], "rate"))
def test_enforced_steps_contract_whatever_the_couplings(form):
    for gain, dt in itertools.product((0.1, 1.0, 1e3), (0.03, 0.5)):
        common = dict(gain=gain, dt=dt, form=form, certify="euler")
        cell = pr.cells.Assembly(modules=(KINDS["1"], KINDS["5"]), **common)
        parameters = parameters_of(cell)
        answer = certify(cell, parameters)
        assert answer.holds_for_steps
        free = certify(dataclasses.replace(cell, certify="flow"), parameters)
        if free.holds_for_steps and free.largest_step > 1.5 * dt:
            np.testing.assert_allclose(answer.coupling_norm, free.coupling_norm, rtol=1e-5)
        else:  # not more than needed: the bounds on norms cost little
            assert answer.largest_step < 1.6 * dt
        known = matrices(cell, parameters)
        R = np.sqrt(np.diagonal(known.metric))
        rng, phi = np.random.default_rng(0), lambda x: np.maximum(x, 0)
        x, y = rng.normal(size=(2, cell.n_units))
        for _ in range(100):
            u, before = rng.normal(size=cell.n_units), np.linalg.norm(R * (x - y))
            x, y = (
                z + dt * (-z + (known.weights @ phi(z) + u if form == "voltage" else phi(known.weights @ z + u))
                          + known.couplings @ z)
                for z in (x, y)
            )  # fmt: skip
            assert np.linalg.norm(R * (x - y)) <= before * (1 + 1e-12) + 1e-13


def test_enforcing_steps_is_refused_where_there_is_no_closed_form():
    for options in (
        {"modules": (KINDS["2"],)},
        {"modules": (KINDS["1"], KINDS["4"])},
        {"modules": (KINDS["1"],), "coupling": "hierarchical"},
        {"modules": (KINDS["1"],), "metric": "identity"},
    ):
        with pytest.raises(pr.ConfigurationError, match="certify = 'euler'"):
            pr.cells.Assembly(certify="euler", **options)


def test_norm_bound_is_a_bound_and_close():
    rng = np.random.default_rng(0)
    for n in (1, 5, 60):
        for scale in (1e-6, 1.0, 1e6):
            S = scale * rng.normal(size=(n, n)).astype(np.float32)
            exact = np.linalg.norm(S.astype(np.float64), 2)
            assert exact * (1 - 1e-5) <= norm_bound(jnp.asarray(S)) <= 1.08 * exact
    assert np.isfinite(jax.grad(norm_bound)(jnp.zeros((3, 3)))).all()
    assert norm_bound(jnp.zeros((3, 3))) < 1e-10


# --- how modules begin -----------------------------------------------------------------------------------------------


def test_sparse_modules_are_drawn_until_they_are_stable():
    module = M.AbsoluteValue(n_units=32, count=50, density=0.06)
    fixed = {k: np.asarray(v) for k, v in module.init(1.0, key=jax.random.key(0)).fixed.items()}
    assert ((fixed["W"] != 0).sum(axis=(1, 2)) == round(0.06 * 1024)).all()
    assert (np.diagonal(fixed["W"], axis1=1, axis2=2) == 0).all()
    assert np.abs(fixed["W"]).max() <= 1 and np.abs(fixed["W"]).max() > 0.95
    assert all(theorem_1(W).holds for W in fixed["W"].astype(float))
    assert (fixed["n_draws"] >= 1).all() and (fixed["n_draws"] > 1).any()
    # with one draw, those that needed more are scaled, and it is said of them; the others are as drawn
    once = M.AbsoluteValue(n_units=32, count=50, density=0.06, n_draws=0).init(1.0, key=jax.random.key(0)).fixed
    again = fixed["n_draws"] > 1
    np.testing.assert_array_equal(np.asarray(once["n_draws"]), np.where(again, 0, 1))
    np.testing.assert_array_equal(np.asarray(once["W"])[~again], fixed["W"][~again])
    for W in np.asarray(once["W"], float)[again]:
        assert np.abs(linalg.eigvals(abs(W))).max() == pytest.approx(0.9, rel=2e-3)


def test_dense_modules_are_scaled_to_the_radius_asked_for():
    module = M.AbsoluteValue(n_units=32, count=4, density=0.265, bound=0.4, n_draws=20, radius=0.7)
    fixed = module.init(1.0, key=jax.random.key(0)).fixed
    assert (np.asarray(fixed["n_draws"]) == 0).all()
    for W in np.asarray(fixed["W"], float):
        assert np.abs(linalg.eigvals(abs(W))).max() == pytest.approx(0.7, rel=2e-3)
    # for a steeper activation function they must be smaller
    steep = pr.cells.SparseComboNet(n_modules=2, density=0.265, n_draws=3, activation="leaky_relu", negative_slope=2.0)
    answer = certify(steep, parameters_of(steep))
    assert answer.certificate.holds and answer.module_rates.min() > 0
    assert np.abs(linalg.eigvals(abs(matrices(steep, parameters_of(steep)).modules[0]))).max() < 0.5
    with pytest.raises(pr.ConfigurationError, match="must not be below 0"):
        pr.cells.SparseComboNet(activation="leaky_relu", negative_slope=-0.1)


def test_spectral_radius():
    rng = np.random.default_rng(0)
    for _ in range(20):
        A = rng.random((32, 32)) * (rng.random((32, 32)) < 0.06)
        exact = np.abs(linalg.eigvals(A)).max()
        found = float(spectral_radius(jnp.asarray(A, jnp.float32)))
        assert exact * (1 - 1e-4) <= found <= max(exact * 1.02, 1e-3) or exact < 1e-6


def test_levels_are_the_longest_paths():
    parts = (M.Symmetric(n_units=2, count=5),)
    for topology, edges, levels in (
        ("chain", None, [0, 1, 2, 3, 4]),
        ("hub", None, [0, 1, 1, 1, 1]),
        ("all_to_all", None, [0, 1, 2, 3, 4]),
        ("graph", ((0, 3), (1, 3), (3, 4), (0, 4)), [0, 0, 0, 1, 2]),
    ):
        assert Couplings(modules=parts, topology=topology, edges=edges).levels().tolist() == levels


def test_couplings_that_cannot_be():
    parts = (M.Symmetric(n_units=2, count=3),)
    for options, word in (
        ({"modules": ()}, "at least one module"),
        ({"topology": "graph"}, "go together"),
        ({"edges": ((0, 1),)}, "go together"),
        ({"topology": "graph", "edges": ((0, 3),)}, "i < j < 3"),
        ({"topology": "graph", "edges": ((1, 0),)}, "i < j < 3"),
        ({"topology": "graph", "edges": ((0, 1), (0, 1))}, "twice"),
        ({"dt": 2.0}, "must not exceed tau"),
    ):
        with pytest.raises(pr.ConfigurationError, match=word):
            pr.cells.Assembly(**{"modules": parts} | options)


# --- no silent arguments ---------------------------------------------------------------------------------------------

LEAVES = (M.Symmetric(n_units=3, count=2), M.SingularValue(n_units=2))
LEVELS = M.Group(modules=LEAVES, coupling="hierarchical", gain=20.0)
COMMON = {
    "activation": ({}, {"activation": "tanh"}),
    "negative_slope": ({"activation": "leaky_relu"}, {"negative_slope": 0.5}),
    "form": ({}, {"form": "rate"}),
    "dt": ({}, {"dt": 0.1}),
    "tau": ({}, {"tau": 2.0}),
    "noise": ({}, {"noise": 0.5}),
    "metric": ({"density": 0.3}, {"metric": "identity"}),
    "certify": ({"dt": 0.9, "gain": 9.0}, {"certify": "euler"}),
    "input_gain": ({}, {"input_gain": 0.5}),
    "gain": ({}, {"gain": 0.5}),
    "coupling": ({}, {"coupling": "unconstrained"}),
    "topology": ({}, {"topology": "chain"}),
}
SIZES = {"n_modules": ({}, {"n_modules": 2}), "n_module_units": ({}, {"n_module_units": 5})}
SCALED = {"n_draws": 0, "density": 0.9}
OF_SPARSE = {
    "density": ({}, {"density": 0.6}),
    "bound": ({}, {"bound": 0.5}),
    "n_draws": ({"density": 0.6}, {"n_draws": 0}),
    "radius": (SCALED, {"radius": 0.5}),
    "scaled": ({}, {"scaled": True}),
}
OF_COUPLINGS = {
    "modules": ({}, {"modules": LEAVES[:1]}),
    "edges": ({"topology": "graph", "edges": ((0, 1),)}, {"edges": ((0, 2),)}),
    "density": ({}, {"density": 0.5}),
    "kept_rate": ({"modules": (LEVELS, *LEAVES)}, {"modules": (dataclasses.replace(LEVELS, kept_rate=0.1), *LEAVES)}),
}
OPTIONS = {
    "sparse_combo_net": COMMON | SIZES | OF_SPARSE | {"coupling_density": ({}, {"coupling_density": 0.5})},
    "svd_combo_net": COMMON
    | SIZES
    | {
        "metric": ({"theta": True}, {"metric": "identity"}),
        "slack": ({}, {"slack": 0.3}),
        "orthogonal": ({}, {"orthogonal": "exponential"}),
        "coupling_density": ({}, {"coupling_density": 0.5}),
    },
    "assembly": COMMON
    | OF_COUPLINGS
    | {
        "metric": ({}, {"metric": "identity"}),
        "certify": ({"modules": (LEAVES[1], LEAVES[1]), "dt": 0.9, "gain": 9.0}, {"certify": "euler"}),
    },
}
BASES = {
    "sparse_combo_net": {"n_modules": 3, "n_module_units": 4, "density": 0.4},
    "svd_combo_net": {"n_modules": 3, "n_module_units": 4},
    "assembly": {"modules": LEAVES},
}
MODULE_OPTIONS = {
    "absolute_value": ({"density": 0.4}, OF_SPARSE),
    "symmetric": ({}, {"slack": ({}, {"slack": 0.3}), "spread": ({}, {"spread": 0.3})}),
    "diagonal_product": ({}, {"eps": ({}, {"eps": 0.3}), "gain": ({}, {"gain": 0.3})}),
    "triangular": ({}, {"slack": ({}, {"slack": 0.3}), "bound": ({}, {"bound": 0.1}), "gain": ({}, {"gain": 0.3})}),
    "singular_value": ({}, {"slack": ({}, {"slack": 0.3}), "orthogonal": ({}, {"orthogonal": "exponential"})}),
    "unconstrained": ({}, {"gain": ({}, {"gain": 0.3})}),
}


@functools.cache  # most options are compared with the same cell
def what_it_does(cell, theta=False):
    """Operation by operation: programs of their own for each cell would take far longer to compile."""
    with jax.disable_jit():
        parameters = cell.init(2, 3, key=jax.random.key(0))
        if theta:
            parameters = parameters.replaced(theta_0=jnp.arange(12.0).reshape(3, 4) / 12)
        prepared, out = cell.prepare(parameters, Context()), []
        state = cell.initial_state(prepared, key=jax.random.key(1)) + 0.1 * jnp.arange(cell.n_units)
        for t in range(2):
            state = cell.step(prepared, state, jnp.ones(2), key=jax.random.key(t), context=Context())
            out += [state, cell.readout(prepared, state)]
        return [a.tolist() for a in out]


@pytest.mark.parametrize("name", usually(OPTIONS, "svd_combo_net"))
def test_every_option_changes_something(name):
    make = {"assembly": pr.cells.Assembly, "sparse_combo_net": pr.cells.SparseComboNet}.get(name, pr.cells.SVDComboNet)
    changes = OPTIONS[name]
    assert set(changes) == {f.name for f in dataclasses.fields(make)}, "a new option needs an entry here"
    for field, (base, change) in changes.items():
        base = BASES[name] | base
        theta = base.pop("theta", False)
        one, two = make(**base), make(**base | change)
        assert one.n_units != two.n_units or what_it_does(one, theta) != what_it_does(two, theta), field


@pytest.mark.parametrize("name", usually(MODULE_OPTIONS, "symmetric", "diagonal_product"))
def test_every_option_of_a_module_changes_something(name):
    make = type(next(m for m in (*KINDS.values(), M.Unconstrained()) if m.name() == name))
    base, changes = MODULE_OPTIONS[name]
    changes = changes | {"n_units": ({}, {"n_units": 5}), "count": ({}, {"count": 3})}
    assert set(changes) == {f.name for f in dataclasses.fields(make)}, "a new option needs an entry here"
    for field, (more, change) in changes.items():
        one, two = ({"n_units": 4, "count": 2} | base | more | extra for extra in ({}, change))
        one, two = (pr.cells.Assembly(modules=(make(**o),)) for o in (one, two))
        assert one.n_units != two.n_units or what_it_does(one) != what_it_does(two), field


@pytest.mark.slow
def test_every_option_of_a_group_changes_something():
    base = {"modules": LEAVES}
    changes = OF_COUPLINGS | {k: COMMON[k] for k in ("coupling", "topology", "gain")} | {"count": ({}, {"count": 2})}
    assert set(changes) == {f.name for f in dataclasses.fields(M.Group)}
    for field, (more, change) in changes.items():
        one, two = (base | more | extra for extra in ({}, change))
        one, two = (pr.cells.Assembly(modules=(M.Group(**o), LEAVES[1])) for o in (one, two))
        assert one.n_units != two.n_units or what_it_does(one) != what_it_does(two), field


def test_groups_of_arrays_can_be_trained_alone():
    run = pr.fit(
        pr.tasks.NParity(n_max=3), pr.cells.SVDComboNet(n_modules=2, n_module_units=4),
        trainable=["couplings", "readout"], **TINY,
    )  # fmt: skip
    assert set(run.parameters.trainable) == {"B", "W_out", "b_out"}
    assert set(run.cell.groups["recurrent"]) == {"B", "U_0", "V_0", "s_0", "theta_0"}
