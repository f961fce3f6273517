"""What the recipes that take networks apart share: who has solved which N, and verdicts of several clauses."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from poprnn.analysis._population import stage_snapshots
from poprnn.analysis._statistics import group_tests
from poprnn.recipes._timescales import TASKS
from poprnn.recipes.contract import Claim
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


class Verdict:
    """A claim clause by clause: all must hold, and all must have been judged; none judged at all is no verdict."""

    def __init__(self, rule: dict[str, Any], notes: Iterable[str] = ()) -> None:
        self.rule, self.members = rule, 0
        self.interval: list[float] | None = None
        self._clauses: list[bool] = []
        self._words: list[str] = []
        self._notes = list(notes)
        self._unjudged = False

    def clause(self, holds: bool, words: str) -> None:
        """One that was judged."""
        self._clauses.append(bool(holds))
        self._words.append(words)

    def say(self, words: str) -> None:
        """Something measured that decides nothing."""
        self._words.append(words)

    def unjudged(self, why: str) -> None:
        """One that could not be judged."""
        self._unjudged = True
        self._notes.append(f"not judged: {why}")

    def note(self, words: str) -> None:
        """A remark."""
        if words not in self._notes:
            self._notes.append(words)

    def claim(self) -> Claim:
        """The verdict."""
        passed = None if not self._clauses else all(self._clauses) and not self._unjudged
        return Claim(
            self.rule["id"],
            self.rule["claim"],
            self.rule["paper"],
            "; ".join(self._words),
            self.interval,
            self.members,
            passed,
            "; ".join(self._notes),
        )
