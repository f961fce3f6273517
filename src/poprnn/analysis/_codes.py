"""What passes a bottleneck, and how much it tells of the input."""

from typing import Any, NamedTuple

import numpy as np

from poprnn.analysis._shared_trials import on_shared_trials
from poprnn.cells.bottleneck_autoencoder import BottleneckAutoencoder
from poprnn.cells.contract import Cell
from poprnn.core import backend
from poprnn.core.arrays import Float, Int, Tree
from poprnn.core.errors import NotApplicableError
from poprnn.tasks.distributions.contract import Distribution
from poprnn.tasks.static_vectors import StaticVectors
from poprnn.training.run import Run


class Passed(NamedTuple):
    """What a population makes of the same vectors."""

    inputs: Float[np.ndarray, "trial input"]
    kinds: Int[np.ndarray, "trial"]
    outputs: Float[np.ndarray, "member trial time output"]
    codes: Float[np.ndarray, "member trial time code"]
    """Of a discrete bottleneck: whole numbers from 0, one for each of its units."""


def require_autoencoder(analysis: str, run: Run, *, discrete: bool = False) -> None:
    """``NotApplicableError`` unless the question makes sense: static vectors through a (discrete) bottleneck."""
    if not isinstance(run.task, StaticVectors) or not isinstance(run.cell, BottleneckAutoencoder):
        raise NotApplicableError(
            f"{analysis}: asks for cell 'bottleneck_autoencoder' on task 'static_vectors', not "
            f"'{run.cell.name()}' on '{run.task.name()}'"
        )
    if discrete and run.cell.bottleneck == "continuous":
        raise NotApplicableError(f"{analysis}: this bottleneck is continuous, it has no code words")


def distribution_of(run: Run) -> Distribution:
    """Where the trials that :func:`passed` draws come from: the distribution of the first member's stage."""
    task: Any = run.task
    stage = int(np.asarray(run.places().index)[0])
    return task.distributions[min(stage, len(task.shifts))]


def passed(analysis: str, run: Run, n_trials: int, seed: int) -> Passed:
    """The population on the same fresh vectors, in float64.

    Raises:
        NotApplicableError: other networks, or members whose trials differ in length. CapacityError: too many trials.
    """
    require_autoencoder(analysis, run)
    task, cell = run.task, run.cell
    size = run.n_members * n_trials * task.capacity * (task.n_outputs + cell.n_codes) * 12  # type: ignore[attr-defined]
    backend.require_memory(size, f"{analysis}: {n_trials} trials")
    found = on_shared_trials(run, n_trials, seed, _code_and_output)
    if np.ptp(found.length):
        raise NotApplicableError(f"{analysis}: members differ in the number of steps; ask them apart (run.select)")
    codes, outputs = (np.asarray(a, np.float64) for a in found.values)
    inputs = np.asarray(found.trials.targets.values, np.float64)[:, 0]
    return Passed(inputs, np.asarray(found.trials.condition["kind"]), outputs, codes)


def _code_and_output(cell: Cell, prepared: dict[str, Any], state: Tree) -> Tree:
    return cell.code(state), cell.readout(prepared, state)  # type: ignore[attr-defined]


# --- discrete codes -----------------------------------------------------------------------------------------------


def symbols_of(run: Run, codes: Float[np.ndarray, "member trial time width"]) -> Int[np.ndarray, "member trial time"]:
    """What the units of a discrete bottleneck say in a step, as one number below c^k."""
    cell: Any = run.cell
    n_classes = cell.n_classes or 2
    return np.rint(codes).astype(np.int64) @ n_classes ** np.arange(cell.width)


def words(symbols: Int[np.ndarray, "member trial time"]) -> Int[np.ndarray, "member trial time"]:
    """Numbers for the words that have been sent by each step; the same number for the same symbols from the first on.

    Numbers at a step are dense, and different in different members.

    >>> words(np.array([[[0, 1], [0, 0], [1, 0], [0, 1]]]))[0].tolist()
    [[0, 1], [0, 0], [1, 2], [0, 1]]
    """
    n_members, n_trials, n_steps = symbols.shape
    out = np.empty(symbols.shape, np.int64)
    before = np.broadcast_to(np.arange(n_members)[:, None], (n_members, n_trials))
    n_symbols = symbols.max(initial=0) + 1
    for step in range(n_steps):  # a word is one before, and a symbol
        _, number = np.unique(before * n_symbols + symbols[:, :, step], return_inverse=True)
        before = number.reshape(n_members, n_trials)
        out[:, :, step] = before
    return out


class Entropy(NamedTuple):
    """Of words, in bits."""

    bits: Float[np.ndarray, "..."]
    """Corrected for the bias of few samples."""
    correction: Float[np.ndarray, "..."]
    """What was added."""
    n_words: Int[np.ndarray, "..."]


def word_entropy(words: Int[np.ndarray, "member trial"]) -> Entropy:
    """``-sum_w p_w log2 p_w + (n_words - 1) / (2 n ln 2)`` for each member: the plug-in estimate and Miller's
    correction.

    Words of different members must have different numbers.

    Reference: Miller, Note on the bias of information estimates, 1955.
    """
    n_members, n_trials = words.shape
    count = np.bincount(words.reshape(-1))
    member = np.empty(len(count), np.int64)
    member[words] = np.arange(n_members)[:, None]
    p = count / n_trials
    bits = np.bincount(member, weights=-p * np.log2(p), minlength=n_members)
    n_words = np.bincount(member, minlength=n_members)
    correction = (n_words - 1) / (2 * n_trials * np.log(2))
    return Entropy(bits + correction, correction, n_words)


# --- continuous codes ---------------------------------------------------------------------------------------------


def effective_dimensions(
    codes: Float[np.ndarray, "member trial time width"], inputs: Float[np.ndarray, "trial input"]
) -> Float[np.ndarray, "member time"]:
    """``d (1 - e(t))``, e(t) the error of the best linear decoder of everything sent by step t, over the variance.

    Least squares with an intercept; the residual is divided by its degrees of freedom, so that codes that say nothing
    explain nothing on average. One orthonormal basis (QR) serves all steps: its first columns span what was sent first.
    """
    n_members, n_trials, n_steps, width = codes.shape
    flat = codes.reshape(n_members, n_trials, n_steps * width)
    flat = flat - flat.mean(axis=1, keepdims=True)
    scale = np.maximum(flat.std(axis=1, keepdims=True), 1e-12 * (1 + np.abs(codes).max()))
    basis, triangle = np.linalg.qr(flat / scale)
    # a number that those before it tell already would add a direction of rounding errors
    new = np.abs(np.diagonal(triangle, axis1=1, axis2=2)) > 1e-5 * n_trials**0.5
    centred = inputs - inputs.mean(axis=0)
    explained = ((np.swapaxes(basis, 1, 2) @ centred) ** 2).sum(axis=2) * new
    explained, used = (np.cumsum(a, axis=1)[:, width - 1 :: width] for a in (explained, new))
    total = (centred**2).sum()
    error = (total - explained) / np.maximum(n_trials - 1 - used, 1) / (total / (n_trials - 1))
    return inputs.shape[1] * (1 - error)
