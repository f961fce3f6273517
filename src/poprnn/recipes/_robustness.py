"""What the recipes that take networks apart share: who has solved which N, and how groups compare."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from poprnn.analysis._population import stage_snapshots
from poprnn.analysis._statistics import group_tests
from poprnn.recipes._timescales import TASKS
from poprnn.training.run import Run


def solved(run: Run) -> dict[int, np.ndarray]:
    """Each N that somebody has solved, with who has: the members of its stage snapshot.

    Members that diverged later are not asked anything, so they do not count.
    """
    left = np.array([word != "diverged" for word in run.outcome])
    return {int(stage.n[0]): who for stage in stage_snapshots(run) if (who := stage.reached & left).any()}


def largest_common(runs: Iterable[Run], members: int = 2) -> int | None:
    """The largest N that at least so many members of every population have solved; ``None`` if there is none."""
    there = [{n for n, who in solved(run).items() if who.sum() >= members} for run in runs]
    return max(set.intersection(*there), default=None)


def tasks_in(answers: Iterable[str]) -> list[str]:
    """The tasks that answers named ``TASK-CURRICULUM/…`` are about, in their usual order."""
    there = {name.split("-")[0] for name in answers}
    return [task for task in TASKS if task in there]


def there_are(answer: xr.Dataset | None, name: str = "base_accuracy") -> int:
    """Number of members with a value; 0 where nothing was asked because nobody got there."""
    return 0 if answer is None else int(np.isfinite(answer[name]).sum())


def compared(groups: Mapping[str, Any], samples: Sequence[str] = ("member",)) -> xr.Dataset:
    """Two groups' t-test. Networks that nothing harms all score 1 exactly, which is no reason to warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        return group_tests(groups, samples=samples).isel(pair=0)
