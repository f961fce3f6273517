"""Certificates of single modules against simulation, brute force and a solver of matrix inequalities."""

import math

import numpy as np
import pytest
from scipy import linalg

import poprnn as pr
from poprnn.core.contraction import assemblies, inequalities, slopes
from poprnn.core.contraction.certificate import in_metric, rate_form, root
from poprnn.core.contraction.theorems import (
    absolute_rate,
    diagonal_metric,
    restricted,
    sector_rate,
    singular_rate,
    theorem_1,
    theorem_2,
    theorem_3,
    theorem_4,
    theorem_5,
)

N, MANY = 8, 1000
RELU, TANH = (lambda x: np.maximum(x, 0)), np.tanh


def orthogonal(rng):
    return linalg.qr(rng.normal(size=(N, N)))[0]


def sparse(rng, target, density=0.4):
    """Random weights whose absolute values have a given spectral radius."""
    while True:
        W = rng.normal(size=(N, N)) * (rng.random((N, N)) < density)
        if (radius := np.abs(linalg.eigvals(restricted(W))).max()) > 1e-6:
            return W * target / radius


def symmetric(rng, target):
    Q, values = orthogonal(rng), rng.uniform(-5, target, N)
    values[0] = target
    return (Q * values) @ Q.T


def diagonal_product(rng, smallest):
    Q, values = orthogonal(rng), rng.uniform(0.1, 3, N)
    values[0] = smallest
    Q = (Q * values) @ Q.T
    return -rng.uniform(0.2, 3, (N, 1)) * ((Q + Q.T) / 2) * rng.uniform(0.2, 3, N)


def triangular(rng, target):
    W = np.tril(rng.normal(size=(N, N)), -1) + np.diag(rng.uniform(-2, target, N))
    W[3, 3] = target
    return W.T if rng.random() < 0.5 else W


def singular(rng, target):
    values = rng.uniform(0, target, N)
    values[0] = target
    theta = rng.uniform(0.3, 3, N)
    return (orthogonal(rng) * values) @ orthogonal(rng) / theta[:, None] * theta, theta


# theorem, construction, slope bound g, what lies inside, what lies outside (near misses among them), nonlinearity
CASES = {
    "1": (theorem_1, sparse, (0.2, 0.999), (1.001, 1.5)),
    "2": (theorem_2, symmetric, (-1, 0.999), (1.001, 1.5)),
    "3": (theorem_3, diagonal_product, (0.01, 1), (-1, -0.001)),
    "4": (theorem_4, triangular, (-1, 0.99), (1.001, 1.5)),
}


def constructed(theorem, where, rng, g):
    ask, make, inside, outside = CASES[theorem]
    W = make(rng, rng.uniform(*(inside if where == "inside" else outside)))
    W = W if theorem == "3" else W / g
    return W, ask(W, g)


def distances(W, metric, phi, rng, rate_form=False, n_steps=150, dt=0.01):
    """Distances in the metric of pairs of trajectories under the same random input, ``[step, network]``."""
    x, y = rng.normal(size=(2, len(W), N, 1)) * 3
    R, out = np.linalg.cholesky(metric).swapaxes(1, 2), []

    def f(x, u):
        return -x + phi(W @ x + u) if rate_form else -x + W @ phi(x) + u

    def rk4(x, u):
        a = f(x, u)
        b = f(x + dt / 2 * a, u)
        c = f(x + dt / 2 * b, u)
        return x + dt / 6 * (a + 2 * b + 2 * c + f(x + dt * c, u))

    for t in range(n_steps):
        if t % 10 == 0:
            u = rng.normal(size=(len(W), N, 1)) * 5
        out.append(np.linalg.norm((R @ (x - y))[..., 0], axis=1))
        x, y = rk4(x, u), rk4(y, u)
    return np.array(out), n_steps * dt


@pytest.mark.parametrize("theorem", CASES)
def test_a_thousand_constructions_are_certified_and_contract(theorem):
    rng = np.random.default_rng(int(theorem))
    g = 1.0
    found = [constructed(theorem, "inside", rng, g) for _ in range(MANY)]
    assert all(c.holds for _, c in found)
    W, metric = (np.stack(a) for a in zip(*((W, c.metric) for W, c in found), strict=True))
    rates = np.array([c.rate for _, c in found])
    for phi in (RELU, TANH):
        d, _ = distances(W, metric, phi, rng)
        assert (d[1:] <= d[:-1] * np.exp(-rates * 0.01) * (1 + 1e-3 * 0.01) + 1e-12).mean() > 0.999
        assert (d[1:] <= d[:-1] * (1 + 1e-9) + 1e-12).all()
        assert (d[-1] <= d[0] * np.exp(-rates * 1.49) * 1.001).all()


@pytest.mark.parametrize("theorem", CASES)
def test_a_thousand_violations_are_refused(theorem):
    rng = np.random.default_rng(10 + int(theorem))
    for _ in range(MANY):
        W, certificate = constructed(theorem, "outside", rng, g=rng.uniform(0.25, 2))
        assert not certificate.holds, (W, certificate)


def test_theorem_5_accepts_contracts_and_refuses():
    rng = np.random.default_rng(5)
    found = [singular(rng, rng.uniform(0.2, 0.999)) for _ in range(MANY)]
    W, theta = (np.stack(a) for a in zip(*found, strict=True))
    metric = np.stack([np.diag(t**2) for t in theta])
    certificates = [theorem_5(w, metric=P) for w, P in zip(W, metric, strict=True)]
    assert all(c.holds for c in certificates)
    rates = np.array([c.rate for c in certificates])
    for phi in (RELU, TANH):
        d, _ = distances(W, metric, phi, rng)
        assert (d[1:] <= d[:-1] * (1 + 1e-9) + 1e-12).all()
        assert (d[-1] <= d[0] * np.exp(-rates * 1.49) * 1.001).all()
    for _ in range(MANY):
        W, theta = singular(rng, rng.uniform(1.001, 1.5))
        assert not theorem_5(W, metric=np.diag(theta**2)).holds


@pytest.mark.parametrize(
    ("ask", "at", "inside"),
    [
        (theorem_1, np.array([[0.0, 2.0], [0.5, 0.0]]), 1 - 1e-6),
        (theorem_2, np.array([[0.0, 1.0], [1.0, 0.0]]), 1 - 1e-6),
        (theorem_4, np.array([[1.0, 0.0], [1.0, 0.0]]), 1 - 1e-6),
        (theorem_5, np.array([[0.0, -1.0], [1.0, 0.0]]), 1 - 1e-6),
    ],
)
def test_the_boundary_itself_is_refused(ask, at, inside):
    assert not ask(at).holds
    assert abs(ask(at).margin) < 1e-9
    assert ask(at * inside).holds
    assert not ask(at * inside, slope=1.1).holds
    assert ask(at * 1.9, slope=0.5).holds


def test_theorem_3_at_its_boundary_and_beside_its_form():
    P1, P2 = np.diag([1.0, 2.0]), np.diag([3.0, 1.0])
    singular_Q = np.array([[1.0, 1.0], [1.0, 1.0]])
    assert not theorem_3(-P1 @ singular_Q @ P2).holds
    assert theorem_3(-P1 @ (singular_Q + 1e-3 * np.eye(2)) @ P2).holds
    assert not theorem_3(-P1 @ np.array([[1.0, 0.5], [0.4, 1.0]]) @ np.eye(2) @ np.diag([1, -1])).holds
    three = -np.array([[3.0, 1.0, 2.0], [1.0, 3.0, 1.0], [1.0, 1.0, 3.0]])  # around the circle the ratios disagree
    assert not theorem_3(three).holds


def test_self_inhibition_is_left_out_of_theorem_1():
    W = np.array([[-5.0, 0.5], [0.5, -5.0]])
    assert theorem_1(W).holds
    assert theorem_1(W).rate == pytest.approx(0.5)
    assert not theorem_1(abs(W)).holds
    assert slopes.corner_rate(W, theorem_1(W).metric) >= 0.5 - 1e-12


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_every_rate_is_at_most_the_exact_one():
    """All 2^8 corners of the slopes."""
    rng = np.random.default_rng(0)
    for theorem in CASES:
        for _ in range(10):
            W, c = constructed(theorem, "inside", rng, 1.0)
            assert c.rate <= slopes.corner_rate(W, c.metric) + 1e-9, theorem
    for _ in range(10):
        W, theta = singular(rng, 0.9)
        P = np.diag(theta**2)
        assert theorem_5(W, metric=P).rate <= slopes.corner_rate(W, P) + 1e-9
        assert absolute_rate(W, P) <= slopes.corner_rate(W, P) + 1e-9
        assert sector_rate(W, P, rng.uniform(0.1, 3, N)) <= slopes.corner_rate(W, P) + 1e-9


def test_the_identity_is_not_a_metric_in_general():
    """Neither for theorem 1 nor for theorem 2, where the named metrics are; nor is the plain Lyapunov solution."""
    rng = np.random.default_rng(1)
    identity, lyapunov, symmetric_identity = 0, 0, 0
    for _ in range(100):
        W = sparse(rng, 0.95)
        good = theorem_1(W)
        assert good.holds
        identity += slopes.corner_rate(W, np.eye(N)) <= 0
        J = abs(W) * (1 - np.eye(N)) + np.diag(np.diag(W).clip(min=0)) - np.eye(N)
        lyapunov += slopes.corner_rate(W, linalg.solve_continuous_lyapunov(J.T, -np.eye(N))) <= 0
        symmetric_identity += slopes.corner_rate(symmetric(rng, 0.95), np.eye(N)) <= 0
    assert identity > 20
    assert lyapunov > 20
    assert symmetric_identity > 5


def test_theorem_1_implies_theorem_5_in_the_same_metric():
    rng = np.random.default_rng(2)
    for _ in range(500):
        W = abs(sparse(rng, 1.0))
        W *= rng.uniform(0.5, 0.999) / np.abs(linalg.eigvals(W)).max()
        P, rate, norm = diagonal_metric(W)
        assert 0 < rate <= absolute_rate(W, np.diag(P)) + 1e-12
        assert 1 - singular_rate(W, np.diag(P)) <= norm + 1e-12 < 1


@pytest.mark.parametrize("theorem", CASES)
def test_the_rate_form_contracts_in_the_inverse_metric_of_the_transpose(theorem):
    rng = np.random.default_rng(3)
    ask = CASES[theorem][0]
    W = np.stack([constructed(theorem, "inside", rng, 1.0)[0] for _ in range(200)])
    certificates = [rate_form(ask(w.T, 1.0)) for w in W]
    assert all(c.holds for c in certificates)
    d, _ = distances(W, np.stack([c.metric for c in certificates]), RELU, rng, rate_form=True)
    assert (d[1:] <= d[:-1] * (1 + 1e-9) + 1e-12).all()
    rates = np.array([c.rate for c in certificates])
    assert (d[-1] <= d[0] * np.exp(-rates * 1.49) * 1.001).all()
    if theorem in "23":  # and not in the other form's metric, as the corners show
        other = [ask(w, 1.0).metric for w in W[:50]]
        exact = [1 - max(np.linalg.eigvalsh(in_metric(np.diag(s) @ w, M) + in_metric(np.diag(s) @ w, M).T)[-1] / 2
                         for s in slopes.slope_corners(N)) for w, M in zip(W, other, strict=False)]  # fmt: skip
        assert min(exact) < 0


def test_eigenvalues_that_are_negative_everywhere_are_not_enough():
    """Section 3.1: at all times the Jacobian's eigenvalues are -1, and yet trajectories grow.

    Slopes that switch between (1, 0) and (0, 1) under W = [[0, -6], [6, 0]] make the Jacobian triangular with -1 on
    its diagonal; switched at the right moments, it doubles the distance again and again.
    """
    W = slopes.turning(6.0)
    ends = [W * d - np.eye(2) for d in ([1.0, 0.0], [0.0, 1.0])]
    for J in ends:
        np.testing.assert_allclose(linalg.eigvals(J).real, -1.0)
    period = linalg.expm(0.6 * ends[1]) @ linalg.expm(0.6 * ends[0])
    assert np.abs(linalg.eigvals(period)).max() > 1.5
    assert not theorem_1(W).holds and not theorem_5(W).holds


# --- theorems 6 and 7 -----------------------------------------------------------------------------------------------


def trajectories(W, speed, rng, dt=0.005, n_steps=1400, n_before=1000):
    """Pairs of neighbouring trajectories of a tanh network, its slopes and their derivatives by time."""
    x = rng.normal(size=len(W))
    v = rng.normal(size=len(W))
    phases = rng.uniform(0, 2 * np.pi, len(W))
    out = []
    for t in range(n_steps):
        u = 2 * (1 + speed) * np.sin(speed * t * dt + phases)  # as much of it arrives when it is quick
        dx = -x + W @ np.tanh(x) + u
        slope = 1 / np.cosh(x) ** 2
        if t >= n_before:
            out.append((slope, -2 * np.tanh(x) * slope * dx, v))
        x, v = x + dt * dx, v + dt * (-v + W @ (slope * v))
    return [np.array(a) for a in zip(*out, strict=True)]


def growth(slope, v, weights, dt=0.005):
    """Rates at which ``v^T diag(weights · slope) v`` falls."""
    squared = np.log(np.sum(weights * slope * v**2, axis=1))
    return -np.diff(squared) / dt


def test_theorem_6_along_slow_and_quick_trajectories():
    rng = np.random.default_rng(6)
    n_slow, n_quick = 0, 0
    for i in range(60):
        quick = i % 2
        W = 0.3 * rng.normal(size=(3, 3)) + slopes.turning(1.0 + quick)[[0, 1, 0]][:, [0, 1, 0]] * (1 - np.eye(3))
        P = np.diag(rng.uniform(0.7, 1.4, 3))
        slope, change, v = trajectories(0.5 * W, 20.0 if quick else 0.2, rng)
        certificate = slopes.theorem_6(0.5 * W, slope, change, metric=P)
        if certificate.holds:
            n_slow += 1
            assert growth(slope, v, 1 / np.diag(P)).min() >= 2 * certificate.rate - 0.05
        n_quick += quick and not certificate.holds
    assert n_slow >= 10
    assert n_quick >= 20


def test_theorem_6_as_printed_fails_and_corrected_holds():
    """The text's metric D; and c / g for g < 1. Constructed at the boundary: dD/dt = (c - beta) D."""
    rng = np.random.default_rng(7)
    printed, corrected, n = 0, 0, 0
    while n < 200:
        A, P, c = rng.normal(size=(4, 4)), np.diag(10.0 ** rng.uniform(-1, 1, 4)), rng.uniform(0.1, 1.9)
        W = ((1 - c / 2) * P + 3 * (A - A.T)) @ np.linalg.inv(P)
        assert slopes.symmetric_margin(W, P) == pytest.approx(c)
        n += 1
        D = rng.uniform(0.05, 1, 4)
        change = (c - 0.01) * D * rng.uniform(0, 1, 4)
        certificate = slopes.theorem_6(W, D[None], change[None], metric=P)
        assert certificate.holds

        def falls(M, change_of_M, W=W, D=D, beta=certificate.margin):
            J = W * D - np.eye(4)
            return linalg.eigvalsh(np.diag(change_of_M) + M @ J + J.T @ M + beta * M)[-1] <= 1e-9

        inverse = 1 / np.diag(P)
        corrected += falls(np.diag(inverse * D), inverse * change)
        printed += falls(np.diag(D), change)
    assert corrected == n
    assert printed < 0.7 * n


def test_theorem_6_with_a_small_slope_bound():
    """With g < 1 the text's c / g would admit slopes under which distances grow."""
    g, W = 0.25, np.zeros((1, 1))
    assert slopes.symmetric_margin(W, slope=g) == 2.0
    D = np.array([[0.1]])
    grows = 3 * D  # below c / g = 8, above c = 2
    assert not slopes.theorem_6(W, D, grows, g).holds
    # d/dt (D v²) = (3 - 2) D v² > 0
    assert slopes.theorem_6(W, D, 1.5 * D, g).rate == pytest.approx(0.25)
    assert not slopes.theorem_6(W, 0 * D, 0 * D, g).holds


def test_theorem_7_no_constant_metric_from_two_on():
    pytest.importorskip("cvxpy")
    for c in (0.5, 1.5, 1.95):
        found = inequalities.constant_metric(slopes.turning(c))
        assert found.holds
        assert slopes.corner_rate(slopes.turning(c), found.metric) > 0
    for c in (2.0, 2.05, 3.0, 10.0):
        assert slopes.symmetric_margin(slopes.turning(c)) == 2.0
        assert not inequalities.constant_metric(slopes.turning(c)).holds
        # in closed form: the product of two corners has negative eigenvalues
        one, two = (slopes.turning(c) * d - np.eye(2) for d in ([1.0, 0.0], [0.0, 1.0]))
        assert linalg.eigvals(one @ two).real.max() < 0
    with pytest.raises(pr.ConfigurationError, match="at most 8 units"):
        inequalities.constant_metric(np.zeros((9, 9)))


# --- a solver as an independent package -----------------------------------------------------------------------------


def test_the_closed_form_of_theorem_1_agrees_with_the_solver():
    pytest.importorskip("cvxpy")
    rng = np.random.default_rng(8)
    verdicts = []
    for _ in range(200):
        W = sparse(rng, rng.choice([rng.uniform(0.3, 0.99), rng.uniform(1.01, 2)]))
        closed, solved = theorem_1(W), inequalities.absolute_metric(W)
        verdicts.append(closed.holds)
        assert closed.holds == (solved is not None)
        if solved is not None:
            assert absolute_rate(W, np.diag(solved)) > 0
    assert 50 < sum(verdicts) < 150


def test_searches_find_what_was_planted_and_more_than_formulas():
    pytest.importorskip("cvxpy")
    rng = np.random.default_rng(9)
    for _ in range(5):
        W, theta = singular(rng, 0.9)
        planted = singular_rate(W, np.diag(theta**2))
        found = inequalities.smallest_norm(W)
        assert found.rate >= planted - 2e-3
        assert found.rate == pytest.approx(singular_rate(W, found.metric))
    for make in (lambda: symmetric(rng, 0.9), lambda: diagonal_product(rng, 0.1), lambda: singular(rng, 0.9)[0]):
        found = inequalities.sector_metric(make())
        assert found.holds
    W = symmetric(rng, 0.9)
    assert inequalities.sector_metric(W).rate >= theorem_2(W).rate - 2e-3
    assert not inequalities.sector_metric(slopes.turning(3.0)).holds
    assert not inequalities.smallest_norm(2 * orthogonal(rng)).holds


def test_without_the_solver_the_error_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cvxpy", None)
    assert not inequalities.is_available()
    with pytest.raises(pr.NotApplicableError, match=r"poprnn\[certificates\]"):
        inequalities.constant_metric(np.zeros((2, 2)))


# --- assemblies and Euler steps -------------------------------------------------------------------------------------


def test_feedback_is_skew_in_the_metric():
    rng = np.random.default_rng(10)
    A, C = rng.normal(size=(2, 5, 5))
    M_i, M_j = A @ A.T + np.eye(5), C[:3, :3] @ C[:3, :3].T + np.eye(3)
    B = 1e3 * rng.normal(size=(5, 3))
    answer = assemblies.feedback(B, M_i, np.linalg.inv(M_j))
    np.testing.assert_allclose(M_i @ B, -answer.T @ M_j, rtol=1e-9)


def test_two_in_a_hierarchy_keep_the_rate_asked_for():
    """eps = 4 (l1 - l)(l2 - l) / s² of the science, against the eigenvalue; a larger eps would not do."""
    rng = np.random.default_rng(11)
    for _ in range(100):
        l1, l2, s = *rng.uniform(0.2, 1, 2), rng.uniform(2, 1e3)
        target = 0.5 * min(l1, l2)
        e = assemblies.hierarchy_scale(np.float64(s / math.sqrt((l1 - target) * (l2 - target))), 2)
        assert e**2 == pytest.approx(4 * (l1 - target) * (l2 - target) / s**2)
        L = np.array([[0.0, 0.0], [s, 0.0]])
        rates = np.array([l1, l2])
        assert assemblies.assembly_certificate(rates, np.diag([1, e**2]), L).rate == pytest.approx(target, rel=1e-6)
        assert assemblies.assembly_certificate(rates, np.diag([1, 4 * e**2]), L).rate < target * 0.999
    assert assemblies.hierarchy_scale(np.float64(0.0), 3) == 1


def test_deep_hierarchies_keep_the_rate_asked_for():
    rng = np.random.default_rng(12)
    for _ in range(100):
        n = int(rng.integers(3, 7))
        rates, L = rng.uniform(0.2, 1, n), np.tril(rng.normal(size=(n, n)) * 10 ** rng.uniform(-1, 2), -1)
        target = 0.5 * rates.min()
        spare = np.sqrt(rates - target)
        e = assemblies.hierarchy_scale(np.linalg.norm(L / spare[:, None] / spare), n)
        metric = np.diag(e ** (2.0 * np.arange(n)))
        assert assemblies.assembly_certificate(rates, metric, L).rate >= target * (1 - 1e-9)


def test_largest_step_is_the_boundary_and_no_pair_ever_grows_below_it():
    rng = np.random.default_rng(13)
    for _ in range(30):
        W = sparse(rng, 0.9) * (1 - np.eye(N))
        P = diagonal_metric(W).P
        R = np.diag(np.sqrt(P))
        S = rng.normal(size=(N, N))
        S = (S - S.T) * rng.uniform(0.1, 2)
        rho = np.linalg.norm(in_metric(W, np.diag(P)), 2)
        step = assemblies.largest_step(S, rho, absolute_rate(W, np.diag(P)), rho)
        assert step == pytest.approx(2 * (1 - rho) / (1 + np.linalg.norm(S, 2) ** 2 - rho**2))
        assert assemblies.euler_factor(S, rho, 0.999 * step) < 1 < assemblies.euler_factor(S, rho, 1.001 * step)
        L = np.linalg.inv(R) @ S @ R
        x, y = rng.normal(size=(2, 40, N))
        for _ in range(50):
            u, before = rng.normal(size=N), np.linalg.norm((x - y) @ R, axis=1)
            x, y = (z + 0.999 * step * (-z + np.maximum(z, 0) @ W.T + z @ L.T + u) for z in (x, y))
            assert (np.linalg.norm((x - y) @ R, axis=1) <= before * (1 + 1e-12)).all()


def test_largest_step_for_other_couplings_and_modules():
    rng = np.random.default_rng(14)
    L = np.tril(rng.normal(size=(4, 4)), -1) * 0.3
    step = assemblies.largest_step(L, 0.3, 0.4, 0.3)
    assert assemblies.euler_factor(L, 0.3, 0.999 * step) < 1
    assert assemblies.euler_factor(L, 0.3, 1.01 * step) > 1 or step == pytest.approx(
        2 * 0.4 / (np.linalg.norm(L - np.eye(4), 2) + 0.3) ** 2
    )
    # theorem 3: rate 1, Jacobians as large as they like; the step follows their norm
    assert assemblies.largest_step(np.zeros((4, 4)), 1.0, 1.0, 9.0) == pytest.approx(2 / 100)
    assert assemblies.largest_step(L, 0.3, -0.1, 0.3) == 0
    np.testing.assert_allclose(root(np.diag([4.0, 9.0])), np.diag([2.0, 3.0]))
