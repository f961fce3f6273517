"""What is certified of an assembly: of its stored arrays in float64, and of the matrices that its steps multiply by."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from poprnn.cells._assembly import AssemblyCell
from poprnn.cells._layout import leaves_of
from poprnn.cells._network import Network
from poprnn.cells.contract import Parameters
from poprnn.core import backend
from poprnn.core.arrays import Float, Tree
from poprnn.core.contraction.assemblies import assembly_certificate, largest_step
from poprnn.core.contraction.certificate import ROUNDING, Certificate, Matrix, in_metric, largest_symmetric
from poprnn.core.errors import ConfigurationError


class Matrices(NamedTuple):
    """An assembly in float64 NumPy."""

    modules: tuple[Matrix, ...]
    metrics: tuple[Matrix, ...]
    """Of the modules, without the factors of hierarchies."""
    scale: Float[np.ndarray, "module"]
    couplings: Matrix

    @property
    def weights(self) -> Matrix:
        """W, block-diagonal."""
        return scipy.linalg.block_diag(*self.modules)

    @property
    def metric(self) -> Matrix:
        """M of the whole, its largest factor 1."""
        scale = self.scale / self.scale.max()
        return scipy.linalg.block_diag(*(s**2 * M for s, M in zip(scale, self.metrics, strict=True)))


class Certified(NamedTuple):
    """What one network's arrays are certified for."""

    certificate: Certificate
    """Of the differential equation; holds only if it does for the rounded matrices as well."""
    rate_as_run: float
    """Its rate with the float32 matrices that the steps multiply by."""
    module_rates: Float[np.ndarray, "module"]
    coupling_norm: float
    """s, ``||R L R^-1||`` with R^T R the metric."""
    module_norm: float
    """rho, the largest ``||R W D R^-1||`` of all modules and slopes D."""
    largest_step: float
    """The largest certified Euler step, in units of tau."""
    step: float
    """The cell's own, dt / tau."""

    must_step: bool
    """Whether steps of that length are enforced to be certified."""

    @property
    def holds_for_steps(self) -> bool:
        """Whether the Euler map is certified too."""
        return self.certificate.holds and self.step <= self.largest_step

    @property
    def holds(self) -> bool:
        """Whether all that the cell claims holds."""
        return self.holds_for_steps if self.must_step else self.certificate.holds


def matrices(cell: AssemblyCell, parameters: Parameters, bits: int = 64) -> Matrices:
    """W, L and metrics of one member's arrays, worked out in float64 or as they are run (32).

    >>> import jax, poprnn as pr
    >>> cell = pr.cells.SparseComboNet(n_modules=2, n_module_units=4)
    >>> matrices(cell, cell.init(1, 1, key=jax.random.key(0))).couplings.shape
    (8, 8)
    """
    kind: Any = np.float64 if bits == 64 else np.float32

    def convert(a: Any) -> Any:
        return np.asarray(a, kind) if np.issubdtype(np.asarray(a).dtype, np.floating) else np.asarray(a)

    with backend.precision(bits):
        network = jax.tree.map(lambda a: np.asarray(a, np.float64), _builder(cell)(jax.tree.map(convert, parameters)))
    couplings, places = np.zeros((cell.n_units, cell.n_units)), cell.layout
    couplings[places.to, places.from_] = network.couplings
    modules = tuple(W for stack in network.modules for W in stack.W)
    metrics = tuple((M + M.T) / 2 for stack in network.modules for M in stack.metric)
    return Matrices(modules, metrics, network.scale, couplings)


@functools.lru_cache(maxsize=64)
def _builder(cell: AssemblyCell) -> Callable[[Parameters], Network]:
    return jax.jit(lambda parameters: cell.network(jax.tree.map(jnp.asarray, parameters)))


def certify(cell: AssemblyCell, parameters: Parameters) -> Certified:
    """Ask every module's theorem about its stored weights, and put the modules together.

    The metric is worked out in float64. In it the float32 matrices are asked too: a network whose rounding errors are
    larger than its rate is not called certified.

    >>> import jax, poprnn as pr
    >>> cell = pr.cells.SparseComboNet(n_modules=2, n_module_units=4)
    >>> certify(cell, cell.init(1, 1, key=jax.random.key(0))).certificate.holds
    True
    """
    wide, run = matrices(cell, parameters, 64), matrices(cell, parameters, 32)
    alpha, enforced = float(cell.dt / cell.tau), cell.certify == "euler"
    try:
        rates, norms = _modules(cell, wide.modules, wide.metrics)
        certificate = assembly_certificate(np.repeat(rates, cell.layout.sizes), wide.metric, wide.couplings)
        normal = in_metric(wide.couplings, wide.metric)
        run_rates, _ = _modules(cell, run.modules, wide.metrics)
        units = np.repeat(run_rates, cell.layout.sizes)
        as_run = -largest_symmetric(in_metric(run.couplings, wide.metric) - np.diag(units))
    except (ConfigurationError, np.linalg.LinAlgError):  # numbers that are not finite, or no metric at all
        none = Certificate("assembly", False, None, np.nan, -np.inf, ())
        return Certified(none, np.nan, np.full(len(wide.modules), np.nan), np.nan, np.nan, 0.0, alpha, enforced)
    holds = bool(certificate.holds and as_run > ROUNDING and cell.is_certified)
    singular = all(leaf.is_singular for leaf in leaves_of(cell.body))
    norm = float(norms.max())
    step = largest_step(normal, norm if singular else np.inf, certificate.rate, norm) if holds else 0.0
    coupling_norm = float(np.linalg.norm(normal, 2))
    return Certified(certificate._replace(holds=holds), as_run, rates, coupling_norm, norm, step, alpha, enforced)


def _modules(cell: AssemblyCell, weights: Tree, metrics: Tree) -> tuple[np.ndarray, np.ndarray]:
    """Rates and norms of all modules by their theorems, which speak of the voltage form."""
    kinds = [leaf for leaf in leaves_of(cell.body) for _ in range(leaf.count)]
    found = []
    for leaf, W, M in zip(kinds, weights, metrics, strict=True):
        if leaf.theorem is None or not (np.isfinite(W).all() and np.isfinite(M).all()):
            found.append((-np.inf, np.inf))
        elif cell.form == "rate":
            inverse = np.linalg.inv(M)
            found.append(leaf.verify(W.T, _diagonal_stays((inverse + inverse.T) / 2, M), cell.slope))
        else:
            found.append(leaf.verify(W, M, cell.slope))
    rates, norms = np.array(found, np.float64).T
    return rates, norms


def _diagonal_stays(inverse: Matrix, metric: Matrix) -> Matrix:
    """Inverting must not put rounding errors beside a diagonal."""
    is_diagonal = np.count_nonzero(metric - np.diag(np.diagonal(metric))) == 0
    return np.diag(np.diagonal(inverse)) if is_diagonal else inverse
