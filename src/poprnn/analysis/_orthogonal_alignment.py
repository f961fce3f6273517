"""How near two linear operators come to one another by a change of orthonormal basis, for many pairs at once.

For square A and B of unit Frobenius norm this looks for the orthogonal Q that minimises

    c(Q) = 1/2 ||A - Q B Q^T||^2,

over rotations and reflections. The problem is not convex (one Q is to align symmetric parts S and skew parts K), so the
search starts from several places and keeps the best end. Two starts are found from spectra: eigenvectors of S, and of
the Hermitian matrix S + iK, which Q carries into one another where A = Q B Q^T; what eigenvectors leave open, signs, is
chosen by how they agree about the rest. Of the other starts half are random, of either determinant in turn, and half
are the best end so far, turned away from it at random (of fitted operators the best end often lies beside a good one,
in a basin too narrow for random starts: one pair of fifty was found so, and by none of 64 that were random).

From each start a trust-region Newton method runs on the orthogonal group. At Q, with P = Q B Q^T, moving along
exp(W) Q, W skew, has gradient and Hessian

    G = skew(P^T A - A P^T),      H(W) = skew(D^T A - A D^T) - [W, G] / 2,      D = [W, P] = W P - P W,

of which truncated conjugate gradients need products only (as does everything here that is done for each pair: LAPACK on
single small matrices took as long as a search). Absil, Baker & Gallivan, Trust-region methods on Riemannian
manifolds, Foundations of Computational Mathematics 2007.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from poprnn.core import backend
from poprnn.core.arrays import Array, Float, Int, Tree
from poprnn.core.mapping import MemberMap

N_SPECTRAL = 2
"""Starts that are found from spectra."""
HOP = 4.5
"""Largest angle, in radians, by which a start is turned away from the best end so far (1.5 and 3 found less)."""
MAX_STEPS = 100
"""Of the trust region; 20 to 70 were needed at ranks 10 to 100."""
MAX_PRODUCTS = 60
"""Conjugate gradients in a step."""
TOLERANCE = 1e-4
"""A search has ended when two steps in a row gain less than this share of c, which is 5e-5 of the distance."""


class Spectra(NamedTuple):
    """What starts are made of, for every operator."""

    symmetric: Float[np.ndarray, "member rank rank"]
    """Eigenvectors of S, in columns."""
    skew: Float[np.ndarray, "member rank rank"]
    """K in that basis."""
    real: Float[np.ndarray, "member rank rank"]
    """Eigenvectors z of S + iK, in columns, their phases such that z^T z >= 0."""
    imaginary: Float[np.ndarray, "member rank rank"]


def parts(operators: Float[np.ndarray, "... rank rank"]) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric and skew part."""
    transposed = np.swapaxes(operators, -1, -2)
    return (operators + transposed) / 2, (operators - transposed) / 2


def lower_bound(operators: Float[np.ndarray, "member rank rank"]) -> Float[np.ndarray, "member member"]:
    """What no Q can go below: the larger of two distances between sorted eigenvalues.

    d^2 >= |s_1 - s_2|^2 + |k_1 - k_2|^2 with the spectra of S and of iK (Q aligns both at best), and
    d^2 >= |m_1 - m_2|^2 with those of the Hermitian matrix S + iK (unitary matrices are more than orthogonal ones).

    >>> lower_bound(np.stack([np.diag([1.0, 0.0]), np.diag([0.0, 0.6])]))[0, 1].round(12).item()
    0.4
    """
    symmetric, skew = parts(operators)
    apart = lambda matrices: _squared_distances(np.linalg.eigvalsh(matrices))
    return np.sqrt(np.maximum(apart(symmetric) + apart(1j * skew), apart(symmetric + 1j * skew)))


def _squared_distances(values: Float[np.ndarray, "member rank"]) -> Float[np.ndarray, "member member"]:
    return ((values[:, None] - values[None]) ** 2).sum(axis=-1)


def align(
    operators: Float[np.ndarray, "member rank rank"], pairs: Int[np.ndarray, "pair 2"], *, n_starts: int, seed: int
) -> Float[np.ndarray, "pair rank rank"]:
    """The best Q found for each pair, such that ``operators[i]`` is near ``Q operators[j] Q^T``; float64, orthogonal.

    Operators have unit norm and are finite. Pairs are dealt out to the devices; the same pair gets the same Q in
    whatever company.
    """
    rank = operators.shape[-1]
    n_hops = max(n_starts - N_SPECTRAL, 0) // 2
    n_random = max(n_starts - N_SPECTRAL, 0) - n_hops
    spectra = _spectra(operators)
    narrow = lambda a: jnp.asarray(a, jnp.float32)
    with backend.precision(64):
        shared = {
            "operators": narrow(operators),
            "spectra": jax.tree.map(narrow, spectra),
            "random": narrow(_random_orthogonal(rank, n_random, seed)),
            "hops": narrow(_random_skew(rank, n_hops, seed)),
        }
        mapped = _compiled(len(pairs), min(n_starts, N_SPECTRAL))
        found = np.asarray(mapped(np.asarray(pairs, np.int32), shared)[1], np.float64)
    for _ in range(2):  # orthogonal to float64
        found = 1.5 * found - 0.5 * found @ (np.swapaxes(found, -1, -2) @ found)
    return found


@functools.lru_cache(maxsize=16)
def _compiled(n_pairs: int, n_spectral: int) -> MemberMap:
    def one(pair: Array, shared: Tree) -> tuple[Array, Array]:
        a, b = (shared["operators"][pair[k]] for k in (0, 1))
        first, second = (jax.tree.map(lambda x, k=k: x[pair[k]], shared["spectra"]) for k in (0, 1))
        starts = jnp.concatenate([_spectral_starts(first, second)[:n_spectral], shared["random"]])
        ends, costs = lax.map(lambda start: _search(a, b, start), starts)
        lowest = jnp.argmin(costs)

        def hop(best: tuple[Array, Array], turn: Array) -> tuple[tuple[Array, Array], None]:
            end, cost = _search(a, b, _nearer_orthogonal(_exponential(turn) @ best[0]))
            return (jnp.where(cost < best[1], end, best[0]), jnp.minimum(cost, best[1])), None

        (best, _), _ = lax.scan(hop, (ends[lowest], costs[lowest]), shared["hops"])
        return pair, best

    return MemberMap(one, n_pairs)


# --- starts --------------------------------------------------------------------------------------------------------


def _spectra(operators: Float[np.ndarray, "member rank rank"]) -> Spectra:
    symmetric, skew = parts(operators)
    vectors = np.linalg.eigh(symmetric)[1]
    z = np.linalg.eigh(symmetric + 1j * skew)[1]
    z = z * np.exp(-0.5j * np.angle((z * z).sum(axis=-2, keepdims=True)))
    return Spectra(vectors, np.swapaxes(vectors, -1, -2) @ skew @ vectors, z.real, z.imag)


def _random_orthogonal(rank: int, n: int, seed: int) -> Float[np.ndarray, "start rank rank"]:
    """Uniform over the group, of determinant +1 and -1 in turn."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, rank, rank)))
    q = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None]
    wanted = np.where(np.arange(n) % 2 == 0, 1, -1)
    q[:, 0] *= (wanted * np.sign(np.linalg.det(q)))[:, None]
    return q


def _random_skew(rank: int, n: int, seed: int) -> Float[np.ndarray, "hop rank rank"]:
    """Gaussian, of such a size that the largest angle turned is about ``HOP``."""
    w = np.random.default_rng([seed, 1]).normal(size=(n, rank, rank))
    return HOP / (8 * rank) ** 0.5 * (w - np.swapaxes(w, 1, 2))


def _spectral_starts(first: Spectra, second: Spectra) -> Float[Array, "start rank rank"]:
    """From eigenvectors of the symmetric parts, and of S + iK."""
    sign = _signs(first.skew * second.skew)
    by_symmetric = (first.symmetric * sign) @ second.symmetric.T
    # an orthogonal Q changes nothing about the products z_j^T z_k but signs
    (real_1, imaginary_1), (real_2, imaginary_2) = (_products(x.real, x.imaginary) for x in (first, second))
    sign = _signs(real_1 * real_2 + imaginary_1 * imaginary_2)
    by_both = _polar((first.real * sign) @ second.real.T + (first.imaginary * sign) @ second.imaginary.T)
    return jnp.stack([by_symmetric, by_both])


def _products(real: Any, imaginary: Any) -> tuple[Array, Array]:
    """Real and imaginary part of z_j^T z_k, without conjugation, for all columns."""
    cross = real.T @ imaginary
    return real.T @ real - imaginary.T @ imaginary, cross + cross.T


def _signs(agreement: Float[Array, "rank rank"]) -> Float[Array, "rank"]:
    """Signs s that make s^T C s large: those of the leading eigenvector, by squaring C (shifted) twelve times."""
    shift = jnp.max(jnp.sum(jnp.abs(agreement), axis=1)) / 2
    power = agreement + shift * jnp.eye(len(agreement), dtype=agreement.dtype)
    # the square is scaled afterwards; a loop of the compiled program, as an unrolled one took long to compile
    scaled = lambda p: p / jnp.maximum(jnp.linalg.norm(p), 1e-30)
    power = lax.fori_loop(0, 12, lambda _, p: scaled(p @ p), scaled(power))
    column = power[:, jnp.argmax(jnp.diagonal(power))]
    return jnp.where(column < 0, -1, 1).astype(agreement.dtype)


def _polar(matrix: Float[Array, "rank rank"]) -> Float[Array, "rank rank"]:
    """The nearest orthogonal matrix to one of spectral norm at most 1; identity where it is too nearly singular."""
    one = jnp.eye(len(matrix), dtype=matrix.dtype)
    matrix = lax.fori_loop(0, 20, lambda _, m: _nearer_orthogonal(m), matrix)
    return jnp.where(jnp.max(jnp.abs(matrix.T @ matrix - one)) < 1e-3, matrix, one)


# --- search --------------------------------------------------------------------------------------------------------


class _Place(NamedTuple):
    q: Float[Array, "rank rank"]
    moved: Float[Array, "rank rank"]
    """Q B Q^T."""
    cost: Float[Array, ""]


class _Search(NamedTuple):
    n_steps: Array
    place: _Place
    radius: Array
    n_small: Array
    """Steps in a row that gained next to nothing."""


def _search(a: Array, b: Array, start: Array) -> tuple[Array, Array]:
    """The end of the search from one start, and its cost."""
    size = len(a) ** 0.5

    def at(q: Array) -> _Place:
        moved = q @ b @ q.T
        return _Place(q, moved, jnp.sum((a - moved) ** 2) / 2)

    def step(now: _Search) -> _Search:
        move, promised = _newton(a, now.place.moved, now.radius)
        new = at(_nearer_orthogonal(_exponential(move) @ now.place.q))
        gain = now.place.cost - new.cost
        length = jnp.linalg.norm(move)
        ratio = gain / jnp.maximum(promised, 1e-30)
        at_border = length > 0.99 * now.radius
        wider = jnp.where((ratio > 0.75) & at_border, jnp.minimum(2 * now.radius, size), now.radius)
        radius = jnp.where(ratio < 0.25, length / 4, wider)
        n_small = jnp.where(gain < TOLERANCE * now.place.cost, now.n_small + 1, 0)
        place = jax.tree.map(lambda x, y: jnp.where(gain > 0, x, y), new, now.place)
        return _Search(now.n_steps + 1, place, radius, n_small)

    goes_on = lambda now: (now.n_steps < MAX_STEPS) & (now.n_small < 2)
    zero = jnp.zeros((), jnp.int32)
    end = lax.while_loop(goes_on, step, _Search(zero, at(start), jnp.asarray(size / 4, a.dtype), zero))
    return end.place.q, end.place.cost


class _Conjugate(NamedTuple):
    n: Array
    move: Array
    bent: Array
    """H(move)."""
    residual: Array
    direction: Array
    squared: Array
    ended: Array


def _newton(a: Array, moved: Array, radius: Array) -> tuple[Array, Array]:
    """Skew W that lowers G·W + W·H(W) / 2 within the trust region, and by how much it does."""
    gradient, hessian = _derivatives(a, moved)
    norm = jnp.linalg.norm(gradient)
    enough = norm * jnp.minimum(3 * jnp.sqrt(norm), 0.1)  # superlinear near the end

    def step(s: _Conjugate) -> _Conjugate:
        bent = hessian(s.direction)
        curvature = jnp.sum(s.direction * bent)
        length, along, so_far = (jnp.sum(x * y) for x, y in ((s.direction,) * 2, (s.move, s.direction), (s.move,) * 2))
        whole = s.squared / jnp.where(curvature > 0, curvature, 1)
        outside = (curvature <= 0) | (so_far + 2 * whole * along + whole**2 * length >= radius**2)
        to_border = (-along + jnp.sqrt(jnp.maximum(along**2 + length * (radius**2 - so_far), 0))) / length
        share = jnp.where(outside, to_border, whole)
        residual = s.residual + share * bent
        squared = jnp.sum(residual**2)
        direction = -residual + squared / s.squared * s.direction
        ended = outside | (jnp.sqrt(squared) <= enough)
        return _Conjugate(
            s.n + 1, s.move + share * s.direction, s.bent + share * bent, residual, direction, squared, ended
        )

    zero = jnp.zeros_like(a)
    first = _Conjugate(jnp.zeros((), jnp.int32), zero, zero, gradient, -gradient, norm**2, norm < 1e-9)
    end = lax.while_loop(lambda s: ~s.ended & (s.n < MAX_PRODUCTS), step, first)
    return end.move, -jnp.sum(end.move * (gradient + end.bent / 2))


def _derivatives(a: Array, moved: Array) -> tuple[Array, Any]:
    """Gradient, and the Hessian as a function: one product with [S_P K_P G] and one with [S; -K]."""
    s, k = (moved + moved.T) / 2, (moved - moved.T) / 2
    outer = jnp.concatenate([(a + a.T) / 2, -(a - a.T) / 2])
    product = jnp.concatenate([s, k], axis=1) @ outer
    gradient = product - product.T
    inner = jnp.concatenate([s, k, gradient], axis=1)

    def hessian(w: Array) -> Array:
        x, y, z = jnp.split(w @ inner, 3, axis=1)
        turned = jnp.concatenate([x + x.T, y - y.T], axis=1) @ outer
        return turned - turned.T - (z - z.T) / 2

    return gradient, hessian


def _exponential(w: Array) -> Array:
    """Of a skew matrix: a series for a sixteenth of it, squared four times."""
    one, t = jnp.eye(len(w), dtype=w.dtype), w / 16
    out = one + t @ (one + t @ (one / 2 + t @ (one / 6 + t / 24)))
    for _ in range(4):
        out = out @ out
    return out


def _nearer_orthogonal(q: Array) -> Array:
    """One step of Newton and Schulz towards the polar factor, against rounding."""
    return 1.5 * q - 0.5 * q @ (q.T @ q)
