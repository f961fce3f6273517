"""Success of a population as a whole."""

from typing import Any, ClassVar, Literal

import numpy as np

from poprnn.core.arrays import Bool, Float, Tree
from poprnn.core.blueprint import Fraction
from poprnn.core.errors import ConfigurationError
from poprnn.training.monitors.contract import Monitor, Observation


class TrimmedMean(Monitor):
    """The run is over once the middle members' mean score reaches ``threshold``.

    A member's score is the mean over heads of ``score``; the mean is taken over the members between the two
    percentiles, those that diverged counting as 0. Members that are at the threshold themselves end as ``solved``, the
    others as ``ended_with_population``. Defaults: Soo, Goudar & Wang, NeurIPS 2023 (10th to 90th percentile, 0.99).

    >>> scores = np.array([0.0, 0.9, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    >>> float(TrimmedMean(score="performance").mean(scores))
    0.9875
    """

    outcome: ClassVar[str] = "solved"
    on: ClassVar[Literal["device", "host", "population"]] = "population"

    score: str | None = None
    """Which of the task's scores; ``None``: the only one there is."""
    threshold: Fraction = 0.99
    """Mean score to reach."""
    lowest: Fraction = 0.1
    """Share of the members that is left out below."""
    highest: Fraction = 0.9
    """Share of the members above which the rest is left out."""

    def __post_init__(self) -> None:
        if self.lowest >= self.highest:
            raise ConfigurationError(f"TrimmedMean: lowest = {self.lowest} must be below highest = {self.highest}")

    def middle(self, n: int) -> slice:
        """Places, from the lowest score up, of the members between the percentiles; of very few, nobody is left out.

        >>> TrimmedMean().middle(10), TrimmedMean().middle(2)
        (slice(1, 9, None), slice(0, 2, None))
        """
        # shares of n that are whole numbers stay so whatever the rounding error
        first, last = int(np.floor(self.lowest * n + 1e-9)), int(np.ceil(self.highest * n - 1e-9))
        return slice(first, max(last, first + 1))

    def mean(self, scores: Float[np.ndarray, "... member"]) -> Any:
        """Mean of the members between the percentiles."""
        return np.mean(np.sort(scores)[..., self.middle(np.shape(scores)[-1])], axis=-1)

    def update(self, state: Tree, observation: Observation) -> tuple[Tree, Bool[np.ndarray, "member"]]:
        """Compare the mean with the threshold."""
        names = observation.scores
        if self.score is None and len(names) != 1:
            raise ConfigurationError(f"TrimmedMean: score must be one of {sorted(names)}")
        values = np.asarray(names[self.score or next(iter(names))], float)
        mine = np.nan_to_num(values.reshape(len(values), -1).mean(axis=1))
        return state, (mine >= self.threshold) & bool(self.mean(mine) >= self.threshold)
