"""How alike the states of the members of a population are, on the same trials."""

from typing import Literal

import numpy as np
import xarray as xr

from poprnn.analysis._pairs import with_degeneracy
from poprnn.analysis._population import Seed
from poprnn.analysis._shared_trials import activity_on_shared_trials
from poprnn.core import backend
from poprnn.core.arrays import Float
from poprnn.core.blueprint import PositiveInt
from poprnn.training.run import Run

NAME = "representational_similarity"


def representational_similarity(
    run: Run, *, distance: Literal["shape", "cka"] = "shape", n_trials: PositiveInt = 64, seed: Seed = 0
) -> xr.Dataset:
    """Linear CKA and the angular Procrustes (shape) distance between members' states.

    All members run the same fresh trials. With X_i the states of member i, one row for each step of each trial, columns
    centred, then scaled to unit Frobenius norm,

        cka_ij   = ||X_i^T X_j||_F^2 / (||X_i^T X_i||_F ||X_j^T X_j||_F),
        shape_ij = arccos ||X_i^T X_j||_*,

    the nuclear norm being the maximum of <X_i Q, X_j> over orthogonal Q. Both ignore rotations, reflections and scale
    of the states; they compare where trajectories are, not how they go on (:func:`dynamical_similarity` does).
    Dimensions of large variance weigh most, in CKA (fourth powers) more than in the shape distance.

    Args:
        run: the population. Members may not differ in their number of units, which their blueprint fixes.
        distance: what ``distance`` and ``degeneracy`` are: the shape distance, a metric, or 1 - CKA, which is none.
        n_trials: trials (64, as :func:`dynamical_similarity`).
        seed: changes trials, noise and resampling.

    Returns:
        ``cka`` (member, other), 0 to 1, 1 on the diagonal; ``shape`` (member, other), in radians, 0 to pi / 2;
        ``distance``, one of them; ``degeneracy``, its mean over pairs, with ``degeneracy_low`` and
        ``degeneracy_high``: 95 %, by bootstrap over members. NaN for states that are not finite or never change.

    Raises:
        NotApplicableError: a cell whose activity is not a vector. CapacityError: too much for the memory there is.

    References: Kornblith et al., Similarity of neural network representations revisited, ICML 2019; Williams et al.,
    Generalized shape metrics on neural representations, NeurIPS 2021.

    >>> import numpy as np, poprnn as pr
    >>> swap = np.array([[0.0, 1.0], [1.0, 0.0]])                     # a network, and the same with its units swapped
    >>> W, W_in = np.array([[0.5, 0.3], [-0.3, 0.2]]), np.array([[1.0], [0.0]])
    >>> run = pr.from_arrays("n_parity", pr.cells.VanillaRNN(n_units=2), {
    ...     "W": np.stack([W, swap @ W @ swap]), "W_in": np.stack([W_in, swap @ W_in]),
    ...     "bias": np.zeros((2, 2))})
    >>> found = pr.measure("representational_similarity", run).data
    >>> found["cka"].values.round(4).tolist(), found["shape"].values.round(4).tolist()
    ([[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]])
    """
    states = activity_on_shared_trials(NAME, run, n_trials, seed)
    n_members, n_units = states.shape[0], states.shape[3]
    backend.require_memory(4 * 8 * (n_members * n_units) ** 2 + 16 * states.size, f"{NAME}: products of all states")
    cka, shape = similarities(states.reshape(n_members, -1, n_units))
    variables = {
        "distance": (("member", "other"), shape if distance == "shape" else 1 - cka),
        "cka": (("member", "other"), cka),
        "shape": (("member", "other"), shape, {"units": "rad"}),
    }
    return with_degeneracy(variables, "distance", run.member_index, seed, {"distance": distance})


def similarities(
    states: Float[np.ndarray, "member sample unit"],
) -> tuple[Float[np.ndarray, "member other"], Float[np.ndarray, "member other"]]:
    """Linear CKA and angular Procrustes distance of any arrays of samples.

    >>> cka, shape = similarities(np.array([[[1.0, 0], [-1, 0], [0, 0]], [[1.0, 0], [0, 0], [-1, 0]]]))
    >>> cka[0, 1].round(6).item(), shape[0, 1].round(6).item()                # <x, y> = 1 / 2: its square; 60 degrees
    (0.25, 1.047198)
    """
    finite = np.isfinite(states).all(axis=(1, 2))
    centred = np.where(finite[:, None, None], states, 0).astype(np.float64)
    size = np.linalg.norm(centred, axis=(1, 2))
    centred -= centred.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=(1, 2))
    good = finite & (norm > 1e-6 * size)  # states are float32: less is rounding
    centred /= np.where(good, norm, 1)[:, None, None]
    n_members, _, n_units = states.shape
    wide = np.where(good[:, None, None], centred, 0).transpose(1, 0, 2).reshape(states.shape[1], -1)
    products = (wide.T @ wide).reshape(n_members, n_units, n_members, n_units).transpose(0, 2, 1, 3)
    singular = np.linalg.svd(products, compute_uv=False)
    strength = (singular**2).sum(axis=-1)
    own = np.sqrt(np.diagonal(strength))
    with np.errstate(invalid="ignore", divide="ignore"):
        cka = np.clip(strength / (own[:, None] * own), 0, 1)
    shape = np.arccos(np.clip(singular.sum(axis=-1), 0, 1))
    np.fill_diagonal(shape, 0)
    both = good[:, None] & good
    return np.where(both, cka, np.nan), np.where(both, shape, np.nan)
