"""A map of a population: its members as points that are as far apart as their dynamics or states are."""

from typing import Annotated, Any

import numpy as np
import xarray as xr
from pydantic import Field

from poprnn.analysis import contract
from poprnn.analysis._population import Seed
from poprnn.core import catalogue
from poprnn.core.arrays import Float
from poprnn.core.blueprint import PositiveInt
from poprnn.core.errors import ConfigurationError, NotApplicableError
from poprnn.training.run import Run

Options = Annotated[dict[str, Any], Field()]


def embedding(
    run: Run,
    *,
    of: str = "dynamical_similarity",
    options: Options | None = None,
    n_dimensions: PositiveInt = 2,
    seed: Seed = 0,
) -> xr.Dataset:
    """Members as points in the plane, by classical multidimensional scaling of the distances between them.

    With D^2 the squared distances and J = I - 1/n the centring, the points are the leading eigenvectors of
    -J D^2 J / 2, each times the root of its eigenvalue. spread is the mean distance of the points from their centroid,

        stress = ( sum_{i<j} (d_ij - |y_i - y_j|)^2 / sum_{i<j} d_ij^2 )^(1/2).

    Classical scaling and not an iterative one (our choice; the paper does not say): it has one solution, the same from
    run to run, so that spreads of populations can be compared. To see several populations on one map, give
    :func:`scaled_points` the distances between all of their members.

    Args:
        run: the population.
        of: analysis that finds the distances: any whose answer has ``distance`` (member, other).
        options: those of that analysis, ``seed`` excepted.
        n_dimensions: of the map (the paper: 2).
        seed: that of the analysis.

    Returns:
        ``point`` (member, dimension), centred, in units of the distance; ``spread``; ``stress``, 0 where the map keeps
        all distances; ``variance_explained`` (dimension), eigenvalues over the sum of the positive ones. Members
        without distances have NaN. The attributes of the distances are kept.

    Raises:
        ConfigurationError: an analysis that finds no distances, or options it does not have. NotApplicableError: fewer
            than two members with distances between them.

    References: Torgerson, Multidimensional scaling: I. theory and method, Psychometrika 1952; Kruskal, Multidimensional
    scaling by optimizing goodness of fit to a nonmetric hypothesis, Psychometrika 1964 (stress).

    >>> import poprnn as pr
    >>> run = pr.fit("n_parity", pr.cells.LeakyRNN(n_units=6), members=3, epochs=1, steps_per_epoch=1, batch=4)
    >>> found = pr.measure("embedding", run, members="all", of="representational_similarity").data
    >>> found["point"].shape, bool(found["stress"] < 0.1)
    ((3, 2), True)
    """
    chosen = dict(options or {})
    if "seed" in chosen:
        raise ConfigurationError(f"embedding: options.seed = {chosen['seed']!r}: must be given as seed")
    analysis = catalogue.find("analyses", of)
    if of == "embedding" or "seed" not in contract.defaults(analysis):
        raise ConfigurationError(f"embedding: of = {of!r}: must be an analysis that finds distances between members")
    found = analysis(run, **contract.check_options(analysis, chosen | {"seed": seed}))
    if "distance" not in found or found["distance"].dims != ("member", "other"):
        raise ConfigurationError(f"embedding: of = {of!r}: must be an analysis that finds distances between members")
    data = scaled_points(found["distance"].values, n_dimensions)
    return data.assign_coords(member=run.member_index).assign_attrs({"of": of, **found.attrs})


def scaled_points(
    distance: Float[np.ndarray, "member other"], n_dimensions: int = 2, *, population: Any = None
) -> xr.Dataset:
    """As :func:`embedding`, of any symmetric matrix of distances.

    ``population``: one label for each row, where members of several populations are put on one map; ``spread`` then has
    the axis ``population``, each about its own centroid.

    >>> distance = np.abs(np.subtract.outer([0.0, 2, 7, 9], [0.0, 2, 7, 9]))              # on a line
    >>> found = scaled_points(distance, 1, population=["a", "a", "b", "b"])
    >>> found["spread"].values.round(6).tolist(), found["stress"].round(6).item()
    ([1.0, 1.0], 0.0)
    """
    distance = np.asarray(distance, np.float64)
    there = np.isfinite(distance).any(axis=1)
    if there.sum() < 2:
        raise NotApplicableError("embedding: fewer than two members have distances between them")
    kept = distance[np.ix_(there, there)]
    points, explained = _classical(kept, n_dimensions)
    between = np.linalg.norm(points[:, None] - points[None], axis=-1)
    with np.errstate(invalid="ignore"):  # all distances 0
        stress = np.sqrt(((kept - between) ** 2).sum() / (kept**2).sum())
    everyone = np.full((len(distance), n_dimensions), np.nan)
    everyone[there] = points
    variables = {
        "point": (("member", "dimension"), everyone),
        "stress": stress if (kept > 0).any() else 0.0,
        "variance_explained": ("dimension", explained),
    }
    coordinates: dict[str, Any] = {"dimension": np.arange(1, n_dimensions + 1)}
    if population is None:
        return xr.Dataset(variables | {"spread": _spread(points)}, coordinates)
    labels = np.asarray(population)
    names = list(dict.fromkeys(labels.tolist()))
    spreads = [_spread(everyone[(labels == name) & there]) for name in names]
    return xr.Dataset(variables | {"spread": ("population", spreads)}, coordinates | {"population": names})


def _classical(distance: Float[np.ndarray, "member other"], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Points, and the share of each dimension; signs such that each dimension's largest entry is positive."""
    squared = distance**2
    rows, columns = squared.mean(axis=0, keepdims=True), squared.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(-(squared - rows - columns + squared.mean()) / 2)
    total = np.maximum(values, 0).sum()
    values, vectors = np.maximum(values[::-1][:n], 0), vectors[:, ::-1][:, :n]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    points = vectors * np.where(largest < 0, -1, 1) * np.sqrt(values)
    missing = n - points.shape[1]  # fewer members than dimensions
    explained = values / total if total > 0 else np.zeros_like(values)
    return np.pad(points, ((0, 0), (0, missing))), np.pad(explained, (0, missing))


def _spread(points: Float[np.ndarray, "member dimension"]) -> float:
    """Mean distance from the centroid; NaN without points."""
    return float(np.linalg.norm(points - points.mean(axis=0), axis=1).mean()) if len(points) else np.nan
