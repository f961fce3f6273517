"""Monitors that look at members from the host, one by one or all together, and end them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from poprnn.core import trees
from poprnn.core.arrays import Bool
from poprnn.training.monitors.contract import Observation
from poprnn.training.program import Program
from poprnn.training.run import to_numpy
from poprnn.training.state import MemberState, Record, first_true


def _word(program: Program, outcome: str) -> int:
    return 1 + program.outcomes.index(outcome)


def ask_host(
    program: Program, state: MemberState, record: Record, active: Bool[np.ndarray, "member"], epoch: int, last: bool
) -> MemberState:
    """Monitors that want NumPy: one member at a time; a device monitor that already spoke keeps its word."""
    memories: list[Any] = []
    outcomes: Any = np.array(state.outcome)
    for k in range(len(active)):
        pick = lambda tree, k=k: jax.tree.map(lambda a: a[k], tree)
        mine = pick(state)
        varied = {name: value.item() for name, value in mine.varied.items()}
        seen = Observation(
            epoch, last, record.loss[k], pick(record.scores), mine.parameters, mine.progress.finished, mine.diverged,
            program.of(varied).cell,
        )  # fmt: skip
        memory, ends = program.ask(mine.monitors, seen, "host") if active[k] else (mine.monitors, [False])
        memories.append(to_numpy(memory))
        word = int(first_true([bool(e) for e in ends]))
        # the end of the budget comes last: anything more telling goes before it
        free = outcomes[k] in (0, _word(program, "budget_spent"))
        if active[k] and word and (free or program.monitors[word - 1].overrules):
            outcomes[k] = word
    return state._replace(monitors=jax.tree.map(lambda *a: np.stack(a), *memories), outcome=outcomes)


def ask_population(
    program: Program, state: MemberState, record: Record, active: Bool[np.ndarray, "member"], epoch: int, last: bool
) -> MemberState:
    """Monitors of the whole population: if they end somebody, everybody ends."""
    of_active: Any = lambda a: np.where(trees.like(jnp.asarray(active), a), a, np.nan)
    scores = {name: of_active(values) for name, values in record.scores.items()}
    seen = Observation(
        epoch, last, of_active(record.loss), scores, state.parameters, state.progress.finished, state.diverged
    )  # fmt: skip
    memories, ends = program.ask(state.monitors, seen, "population")
    ended: Any = np.asarray(state.outcome)
    still = active & np.isin(ended, (0, _word(program, "budget_spent")))
    word = np.zeros_like(ended)
    for place, end in reversed(list(enumerate(ends))):
        word = np.where(np.broadcast_to(end, word.shape), place + 1, word)
    if (still & (word > 0)).any():
        left = np.where(ended == 0, _word(program, "ended_with_population"), ended)
        ended = np.where(still, np.where(word > 0, word, left), ended)
    return state._replace(outcome=ended, monitors=memories)
