"""Weights that a theorem must accept or refuse, and what pairs of trajectories do under those it accepts."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import linalg

from poprnn.core import backend
from poprnn.core.arrays import Float
from poprnn.core.contraction.assemblies import feedback
from poprnn.core.contraction.certificate import Certificate, Matrix, root
from poprnn.core.contraction.theorems import restricted, theorem_1, theorem_2, theorem_3, theorem_4, theorem_5

DENSITY = 0.4
INSIDE, MISS = (0.5, 0.99), (0.001, 0.05)
"""What must stay below 1 in the weights to be accepted, and by how much it exceeds 1 in near misses."""
DT, N_STEPS, HELD = 0.01, 200, 10
"""Step of the fourth-order Runge-Kutta scheme (units of tau), steps, and steps for which an input stays."""
NONLINEARITIES: dict[str, Callable[[Any], Any]] = {"relu": jax.nn.relu, "tanh": jnp.tanh}


class Case(NamedTuple):
    """Weights, and what their theorem says."""

    weights: Matrix
    certificate: Certificate


def _orthogonal(rng: np.random.Generator, n: int) -> Matrix:
    return linalg.qr(rng.normal(size=(n, n)))[0]


def absolute(rng: np.random.Generator, n: int, target: float) -> Case:
    """Theorem 1: sparse weights; target: the spectral radius of |W|."""
    radius = 0.0
    while radius < 1e-6:  # a nilpotent draw cannot be scaled
        W = rng.normal(size=(n, n)) * (rng.random((n, n)) < DENSITY)
        radius = np.abs(linalg.eigvals(restricted(W))).max()
    W = W * target / radius
    return Case(W, theorem_1(W))


def symmetric(rng: np.random.Generator, n: int, target: float) -> Case:
    """Theorem 2; target: the largest eigenvalue."""
    values, Q = np.r_[target, rng.uniform(-5, target, n - 1)], _orthogonal(rng, n)
    W = (Q * values) @ Q.T
    return Case((W + W.T) / 2, theorem_2((W + W.T) / 2))


def diagonal_product(rng: np.random.Generator, n: int, target: float) -> Case:
    """Theorem 3, ``-P1 Q P2``; target: 1 minus the smallest eigenvalue of Q."""
    values, V = np.r_[1 - target, rng.uniform(0.1, 3, n - 1)], _orthogonal(rng, n)
    Q = (V * values) @ V.T
    W = -rng.uniform(0.2, 3, (n, 1)) * ((Q + Q.T) / 2) * rng.uniform(0.2, 3, n)
    return Case(W, theorem_3(W))


def triangular(rng: np.random.Generator, n: int, target: float) -> Case:
    """Theorem 4; target: the largest entry of the diagonal."""
    diagonal = np.r_[target, rng.uniform(-2, target, n - 1)]
    W = np.tril(rng.normal(size=(n, n)), -1) + np.diag(rng.permutation(diagonal))
    W = W.T if rng.random() < 0.5 else W
    return Case(W, theorem_4(W))


def singular(rng: np.random.Generator, n: int, target: float) -> Case:
    """Theorem 5, ``Theta^-1 U S V^T Theta`` in the metric Theta²; target: the largest singular value.

    For near misses V = U: then the target is an eigenvalue as well, and no metric at all has a smaller norm.
    """
    values, U = np.r_[target, rng.uniform(0, min(target, 1.0), n - 1)], _orthogonal(rng, n)
    V = _orthogonal(rng, n) if target < 1 else U
    theta = rng.uniform(0.3, 3, n)
    W = (U * values) @ V.T / theta[:, None] * theta
    return Case(W, theorem_5(W, metric=np.diag(theta**2)))


THEOREMS = {"1": absolute, "2": symmetric, "3": diagonal_product, "4": triangular, "5": singular}


class Systems(NamedTuple):
    """Assemblies of two modules each, ``dx/dt = -x + W phi(x) + L x + u``; or single modules, L = 0."""

    W: Float[np.ndarray, "case unit unit"]
    L: Float[np.ndarray, "case unit unit"]
    metric: Float[np.ndarray, "case unit unit"]
    rate: Float[np.ndarray, "case"]


def alone(cases: list[Case]) -> Systems:
    """Single modules."""
    W, metric = (np.stack(a) for a in zip(*((c.weights, c.certificate.metric) for c in cases), strict=True))
    return Systems(W, np.zeros_like(W), metric, np.array([c.certificate.rate for c in cases]))


def coupled(rng: np.random.Generator, cases: list[Case], strength: float) -> Systems:
    """Each with the next, by feedback for a random B of that norm in their metrics; no slower than the slower one."""
    single = alone(cases)
    n = single.W.shape[1]
    other = Systems(*(np.roll(a, -1, axis=0) for a in single))
    R, S = (np.stack([root(M) for M in s.metric]) for s in (single, other))
    B: Any = rng.normal(size=(len(cases), n, n))
    B *= strength / np.linalg.norm(B, 2, axis=(1, 2))[:, None, None]
    B = np.linalg.solve(R, B @ S)
    zero = np.zeros_like(B)
    answer = feedback(B, single.metric, np.linalg.inv(other.metric))
    block = lambda a, b, c, d: np.block([[a, b], [c, d]])
    return Systems(
        block(single.W, zero, zero, other.W),
        block(zero, B, answer, zero),
        block(single.metric, zero, zero, other.metric),
        np.minimum(single.rate, other.rate),
    )


def distances(rng: np.random.Generator, systems: Systems, nonlinearity: str) -> Float[np.ndarray, "time case"]:
    """Distance in the metric of two trajectories of every system under the same random inputs, divided by the first."""
    n_cases, n = systems.W.shape[:2]
    starts = 3 * rng.normal(size=(2, n_cases, n))
    inputs = np.repeat(5 * rng.normal(size=(N_STEPS // HELD, n_cases, n)), HELD, axis=0)
    roots = np.stack([root(M) for M in systems.metric])
    with backend.precision(64):
        out = np.asarray(_lengths(systems.W, systems.L, roots, starts, inputs, nonlinearity))
    return out / out[0]


@functools.partial(jax.jit, static_argnames="nonlinearity")
def _lengths(W: Any, L: Any, roots: Any, starts: Any, inputs: Any, nonlinearity: str) -> Any:
    """Of the differences, at the start and after every step, by the Runge-Kutta scheme."""
    phi = NONLINEARITIES[nonlinearity]
    apply = lambda A, x: jnp.einsum("cij,pcj->pci", A, x)
    length = lambda x: jnp.linalg.norm(jnp.einsum("cij,cj->ci", roots, x[0] - x[1]), axis=1)

    def step(x: Any, u: Any) -> tuple[Any, Any]:
        f = lambda x: -x + apply(W, phi(x)) + apply(L, x) + u
        a = f(x)
        b = f(x + DT / 2 * a)
        c = f(x + DT / 2 * b)
        x = x + DT / 6 * (a + 2 * b + 2 * c + f(x + DT * c))
        return x, length(x)

    return jnp.concatenate([length(starts)[None], lax.scan(step, starts, inputs)[1]])


def excess(apart: Float[np.ndarray, "time case"], rate: Float[np.ndarray, "case"]) -> Float[np.ndarray, "case"]:
    """By how much the distance falls more slowly than certified, at the worst moment, in units of 1/tau (at most 0 if
    the certificate is right, but for the scheme's error).

    >>> excess(np.exp(-0.01 * np.arange(5))[:, None], np.array([1.5])).round(6).tolist()
    [0.5]
    """
    counts = apart[1:] > 1e-9  # below, all is rounding
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.where(counts, np.diff(np.log(apart), axis=0) / DT, -np.inf)
    return change.max(axis=0) + rate
