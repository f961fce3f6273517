"""Verdicts of several clauses."""

from collections.abc import Iterable
from typing import Any

from poprnn.recipes.contract import Claim


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
