"""Certificates of contraction for the members of a population, whatever their cells claim themselves."""

from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.linalg

from poprnn.cells._activations import largest_slope
from poprnn.cells._assembly import AssemblyCell
from poprnn.cells._certified import certify, matrices
from poprnn.cells.contract import Cell, Context, Parameters
from poprnn.cells.leaky_rnn import LeakyRNN
from poprnn.core import backend
from poprnn.core.arrays import Float
from poprnn.core.contraction.assemblies import assembly_certificate, largest_step
from poprnn.core.contraction.best import THEOREMS, best, certificates
from poprnn.core.contraction.certificate import Certificate, Matrix, in_metric
from poprnn.core.contraction.slopes import symmetric_margin
from poprnn.core.errors import ConfigurationError


class Weights(NamedTuple):
    """A network as the theorems see it."""

    modules: tuple[Matrix, ...]
    couplings: Matrix
    slope: float
    in_rate_form: bool
    step: float
    """dt / tau."""


class Judged(NamedTuple):
    """One member's certificates."""

    certificate: Certificate
    """The best of the whole."""
    by_theorem: list[list[Certificate]]
    """For each module, theorems 1 to 5."""
    symmetric_margins: list[float]
    rate_as_run: float
    coupling_norm: float
    module_norm: float
    largest_step: float
    step: float


def weights_of(cell: Cell, parameters: Parameters, dt: float | None) -> Weights | None:
    """Modules and couplings of a member; ``None`` for cells whose dynamics are not of that form.

    Assemblies, and leaky RNNs with their self-interaction outside, one time constant for all units and an activation
    function that never falls: ``tau dh/dt = -h + f(W h + u)`` is one module in the rate form.
    """
    if isinstance(cell, AssemblyCell):
        known = matrices(cell, parameters)
        step = float((cell.dt if dt is None else dt) / cell.tau)
        return Weights(known.modules, known.couplings, cell.slope, cell.form == "rate", step)
    if not isinstance(cell, LeakyRNN) or not cell.is_flow:
        return None
    try:
        slope = largest_slope(cell.activation, float(cell.negative_slope))
    except ConfigurationError:
        return None
    with backend.precision(64):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), parameters)
        prepared = {k: np.asarray(v) for k, v in cell.prepare(wide, Context(dt=dt)).items() if k in ("W", "alpha")}
    if np.ptp(prepared["alpha"]) > 1e-9 * prepared["alpha"].max():
        return None
    n = len(prepared["W"])
    return Weights((prepared["W"],), np.zeros((n, n)), slope, True, float(prepared["alpha"][0]))


def judge(cell: Cell, parameters: Parameters, dt: float | None, search: bool) -> Judged | None:
    """All certificates of one member; ``None`` where none can be given."""
    known = weights_of(cell, parameters, dt)
    if known is None:
        return None
    found = [certificates(W, known.slope, in_rate_form=known.in_rate_form, search=search) for W in known.modules]
    by_theorem = [certificates_[: len(THEOREMS)] for certificates_ in found]
    margins = [symmetric_margin(W, slope=known.slope) for W in known.modules]
    if isinstance(cell, AssemblyCell) and cell.is_certified:
        own = certify(cell, parameters)
        numbers = own.rate_as_run, own.coupling_norm, own.module_norm, own.largest_step
        return Judged(own.certificate, by_theorem, margins, *numbers, known.step)
    return _unclaimed(known, [best(certificates_) for certificates_ in found], by_theorem, margins)


def _unclaimed(
    known: Weights, chosen: list[Certificate], by_theorem: list[list[Certificate]], margins: list[float]
) -> Judged:
    """A network that claims nothing: every module in its best metric, and what the couplings leave of that."""
    if not all(c.holds for c in chosen):
        worst = min(chosen, key=lambda c: (c.holds, c.margin))._replace(holds=False, metric=None, rate=np.nan)
        return Judged(worst, by_theorem, margins, np.nan, np.nan, np.nan, 0.0, known.step)
    metric = scipy.linalg.block_diag(*(c.metric for c in chosen))
    rates = np.repeat([c.rate for c in chosen], [len(W) for W in known.modules])
    whole = chosen[0] if len(chosen) == 1 else assembly_certificate(rates, metric, known.couplings)
    normal = in_metric(known.couplings, metric)
    norms = [_module_norm(W, c, known.slope) for W, c in zip(known.modules, chosen, strict=True)]
    singular = not np.count_nonzero(metric - np.diag(np.diagonal(metric)))
    step = largest_step(normal, max(norms) if singular else np.inf, whole.rate, max(norms)) if whole.holds else 0.0
    norm = float(np.linalg.norm(normal, 2))
    return Judged(whole, by_theorem, margins, np.nan, norm, max(norms), step, known.step)


def _module_norm(weights: Matrix, certificate: Certificate, slope: float) -> float:
    """A bound on ``||R W D R^-1||``, and so on ``||R D W R^-1||``, for a diagonal or any metric."""
    metric: Any = certificate.metric
    norm = float(np.linalg.norm(in_metric(weights, metric), 2))
    if np.count_nonzero(metric - np.diag(np.diagonal(metric))) == 0:
        return slope * norm
    return slope * norm * float(np.sqrt(np.linalg.cond(metric)))


def stacked_metrics(judged: list[Judged | None], n_units: int) -> Float[np.ndarray, "member unit unit"]:
    """Roots R of the members' metrics, the identity where there is none; scaled so that the largest number is 1."""
    out = np.stack([np.eye(n_units)] * len(judged))
    for k, one in enumerate(judged):
        if one is not None and one.certificate.metric is not None:
            metric = one.certificate.metric
            out[k] = np.linalg.cholesky(metric / np.abs(metric).max()).T
    return out
