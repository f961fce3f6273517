"""How well a vector is reconstructed at every step, beside how well it could be."""

from typing import Annotated, Any

import numpy as np
import xarray as xr
from pydantic import Field

from poprnn.analysis import _rate_distortion as bounds
from poprnn.analysis._codes import Passed, distribution_of, passed
from poprnn.analysis._population import Seed
from poprnn.core.arrays import Float
from poprnn.core.blueprint import is_zero
from poprnn.tasks.distributions.contract import Distribution
from poprnn.tasks.distributions.gaussian import Gaussian
from poprnn.tasks.distributions.signs import Signs
from poprnn.tasks.distributions.uniform import Uniform
from poprnn.training.objectives.final import Final
from poprnn.training.run import Run

Trials = Annotated[int, Field(ge=2, lt=2**31)]
Lines = dict[str, tuple[str, Float[np.ndarray, "time"]]]
"""Name to kind (``limit``, ``reachable``, ``benchmark``) and values."""


def rate_distortion(run: Run, *, n_trials: Trials = 4096, seed: Seed = 0) -> xr.Dataset:
    """Error of the reconstruction at every step, over the inputs' variance, with the lines it can be compared with.

        e(t) = E |y(t) - x|² / sum_i lambda_i,    lambda the eigenvalues of the inputs' covariance.

    A line's ``kind`` says what it is. ``limit``: nobody can pass it (white and coloured Gaussian vectors, uniform
    scalar, signs; a noisy continuous bottleneck on Gaussian vectors). ``reachable``: some code attains it, a network
    may beat it (uniform vectors, sign bits, signs as they are, scalar quantisers of 8 bits at most). ``benchmark``:
    noiseless continuous numbers, linear code and decoder; no limit, and reached only with gating that changes over
    time. At step t, R = b t bits have been sent, b the most that the bottleneck can send in a step. Where no line is
    known there is none.

    Args:
        run: the population, cell ``bottleneck_autoencoder`` on task ``static_vectors``.
        n_trials: vectors, the same for all members (our choice).
        seed: changes them.

    Returns:
        ``error`` and its ``error_standard_error`` over trials (member, time); ``reference`` and its ``kind`` (line,
        time; line); ``error_by_kind`` (member, pattern, time), for distributions with kinds of vectors, NaN for those
        not drawn; ``signal_to_noise`` (member), for a noisy bottleneck: variance of what its units say over that of the
        noise, mean over units and steps, from which its limit follows (mean over members). Time counts from 1, steps
        made.

    Raises:
        NotApplicableError: other networks. CapacityError: too many trials for the memory there is.

    References: see :mod:`poprnn.analysis._rate_distortion`; Graetz et al., Exploring trade-offs between sequential and
    parallel computation in recurrent neural networks.

    >>> import numpy as np, poprnn as pr
    >>> cell = pr.cells.BottleneckAutoencoder(n_units=4, width=1)
    >>> run = pr.from_arrays(pr.tasks.StaticVectors(n_steps=2), cell, {"W_out": np.zeros((8, 4)), "b_out": np.zeros(8)})
    >>> found = pr.measure("rate_distortion", run).data              # always says 0
    >>> found["error"].values.round(1).tolist(), found["reference"].sel(line="linear").values.tolist()
    ([[1.0, 1.0]], [0.875, 0.75])
    """
    found, distribution = passed("rate_distortion", run, n_trials, seed), distribution_of(run)
    total = distribution.spectrum().sum()
    each = ((found.outputs - found.inputs[:, None]) ** 2).sum(axis=3) / total
    n_steps = each.shape[2]
    variables: dict[str, Any] = {
        "error": (("member", "time"), each.mean(axis=1), {"long_name": "error / variance"}),
        "error_standard_error": (("member", "time"), each.std(axis=1, ddof=1) / n_trials**0.5),
    }
    coordinates: dict[str, Any] = {"member": run.member_index, "time": np.arange(1, n_steps + 1)}
    if (ratio := _signal_to_noise(run, found)) is not None:
        variables["signal_to_noise"] = ("member", ratio)
    steps = np.arange(1, n_steps + 1)
    if lines := _lines(run, distribution, steps, ratio):
        variables["reference"] = (("line", "time"), np.stack([values for _, values in lines.values()]))
        variables["kind"] = ("line", [kind for kind, _ in lines.values()])
        coordinates["line"] = list(lines)
    if distribution.n_kinds > 1:
        n = np.bincount(found.kinds, minlength=distribution.n_kinds)
        drawn = np.eye(distribution.n_kinds)[found.kinds]
        with np.errstate(invalid="ignore"):  # a kind that was not drawn
            by_kind = np.einsum("mrt,rk->mkt", each, drawn) / n[:, None]
        variables["error_by_kind"] = (("member", "pattern", "time"), by_kind)
        coordinates["pattern"] = np.arange(distribution.n_kinds)
    return xr.Dataset(variables, coordinates)


def _signal_to_noise(run: Run, found: Passed) -> Float[np.ndarray, "member"] | None:
    """Of every member; ``None`` where there is no noise."""
    cell: Any = run.cell
    if cell.bottleneck != "continuous" or (is_zero(cell.noise) and "cell.noise" not in run.varied):
        return None
    noise = np.broadcast_to(run.varied.get("cell.noise", cell.noise), run.n_members).astype(float)
    total = found.codes.var(axis=1, ddof=1).mean(axis=(1, 2))
    with np.errstate(divide="ignore"):
        return np.maximum(total / noise**2 - 1, 0)


def _lines(run: Run, distribution: Distribution, steps: np.ndarray, ratio: np.ndarray | None) -> Lines:
    """Those that are known for this distribution and bottleneck."""
    cell: Any = run.cell
    d, numbers = distribution.n_dimensions, cell.width * steps
    if cell.bottleneck != "continuous":
        final = isinstance(run.setup.training.objective, Final)
        return _discrete_lines(distribution, cell.capacity_bits * steps, d, final=final)
    if ratio is None:
        return {"linear": ("benchmark", bounds.linear_benchmark(numbers, distribution.spectrum()))}
    if not isinstance(distribution, Gaussian):
        return {}
    if distribution.variances is None:
        return {"noisy channel": ("limit", bounds.noisy_limit(ratio.mean(), numbers, d))}
    bits = numbers * np.log2(1 + ratio.mean()) / 2
    return {"noisy channel": ("limit", bounds.water_filling_limit(bits, distribution.spectrum()))}


def _discrete_lines(distribution: Distribution, bits: np.ndarray, d: int, *, final: bool) -> Lines:
    if isinstance(distribution, Signs):
        lines: Lines = {"signs, at best": ("limit", bounds.signs_limit(bits, d))}
        return lines | {"signs as they are": ("reachable", bounds.signs_reachable(bits, d))}
    if isinstance(distribution, Uniform):
        if d == 1:
            return {"halving": ("limit", bounds.uniform_scalar_limit(bits))}
        return {"halving in turn": ("reachable", bounds.uniform_reachable(bits, d))}
    if not isinstance(distribution, Gaussian):
        return {}
    if distribution.variances is not None:
        return {"water-filling": ("limit", bounds.water_filling_limit(bits, distribution.spectrum()))}
    lines = {"Gaussian": ("limit", bounds.gaussian_limit(bits, d))}
    if d > 1:
        return lines | {"sign bits": ("reachable", bounds.sign_bits_reachable(bits, d))}
    name, quantiser = ("Lloyd-Max", bounds.lloyd_max) if final else ("embedded quantiser", bounds.greedy_embedded)
    whole = [b == round(b) and b <= bounds.MAX_SCALAR_BITS for b in bits]
    return lines | {
        name: ("reachable", np.array([quantiser(round(b)) if w else np.nan for b, w in zip(bits, whole, strict=True)]))
    }
