"""Trials of the cognitive battery, made on the device from the tables of rules and variants: no branch over a rule."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from poprnn.core.arrays import Array, Bool, Count, Float, Int, Scalar, Tree
from poprnn.tasks import _rings
from poprnn.tasks._cognitive_rules import CATEGORY, COLUMNS, RULES, Rule
from poprnn.tasks._cognitive_variants import DELAY, PERIODS, RESPONSE, Variant, between

N_INPUTS = 1 + 2 * _rings.N_RING + len(RULES)
N_OUTPUTS = 1 + _rings.N_RING
LOW = 0.05
"""Target of an output that is to be silent."""
DECISIONS_APART = between(np.pi / 2, 3 * np.pi / 2)
"""By how much the two directions of a decision differ; the sign ± that yang gives it is nothing modulo 2 pi."""
FIRST_AND_SECOND = np.array([1, -1], np.float32)
N_DIRECTION_CHANCES, N_STRENGTH_CHANCES = 6, 6
N_CHANCES = N_DIRECTION_CHANCES + 2 * N_STRENGTH_CHANCES
"""Random numbers that a trial's stimuli are made from."""


class Timing(NamedTuple):
    """When a trial's periods begin and end."""

    ms: Float[Array, "period"]
    starts: Int[Array, "period"]
    ends: Int[Array, "period"]


class Stimuli(NamedTuple):
    """What a trial shows and asks for."""

    directions: Float[Array, "stimulus"]
    strengths: Float[Array, "stimulus ring"]
    match: Bool[Array, ""]
    category: Int[Array, "stimulus"]
    coherence: Scalar
    response: Scalar
    """Direction of the right answer."""
    hold: Bool[Array, ""]
    """Whether the right answer is none."""


class Pieces(NamedTuple):
    """What does not change within a period."""

    inputs: Float[Array, "period input"]
    targets: Float[Array, "period output"]
    weights: Float[Array, "period"]
    grace: Int[Array, "period"]
    """Steps at its beginning that do not count."""


def _row(table: Tree, row: Rule) -> Tree:
    """What a table ``[schedule, …]`` holds for the rule's schedule."""
    return jax.tree.map(lambda a: jnp.asarray(a)[row.schedule], table)


def pick(active: Bool[Array, "head"], chance: Scalar) -> Count:
    """One of the heads that are active, from a number in U(0, 1).

    >>> [int(pick(jnp.array([False, True, True]), u)) for u in (0.49, 0.51)]
    [1, 2]
    """
    rank = jnp.minimum(jnp.floor(chance * jnp.sum(active)), jnp.sum(active) - 1)
    return jnp.argmax(jnp.cumsum(active) > rank)


def row_of(rule: Count) -> Rule:
    """The rule's row of the table."""
    return Rule(*(jnp.asarray(column)[rule] for column in COLUMNS))


def steps_of(ms: Float[Array, "... period"], dt: Scalar | float) -> Int[Array, "... period"]:
    """``round(ms / dt)``, at least 1 where there is such a period at all.

    >>> steps_of(jnp.asarray([0.0, 10.0, 512.0]), 50.0).tolist()
    [0, 1, 10]
    """
    return jnp.where(ms > 0, jnp.maximum(jnp.round(ms / dt), 1), 0).astype(jnp.int32)


def timing_of(variant: Variant, row: Rule, chances: Float[Array, "period"], dt: Scalar | float) -> Timing:
    """Durations from numbers in U(0, 1), and the steps they come to."""
    ms = _row(variant.durations, row).draw(chances)
    steps = steps_of(ms, dt)
    ends = jnp.cumsum(steps)
    return Timing(ms, ends - steps, ends)


def stimuli_of(variant: Variant, row: Rule, chances: Float[Array, "chance"]) -> Stimuli:
    """Directions and strengths of both stimuli (one that a rule lacks has strength 0), and the answer to them.

    From :data:`N_CHANCES` numbers in U(0, 1).
    """
    directions, match, category = _directions(variant, row, chances[:N_DIRECTION_CHANCES])
    strengths = _strengths(variant, row, chances[N_DIRECTION_CHANCES:].reshape(N_STRENGTH_CHANCES, 2))
    by_stimulus = strengths @ row.decisive / jnp.sum(row.decisive)
    coherence = by_stimulus[0] - by_stimulus[1]
    answer = jnp.where(
        row.matches | (row.decides & (coherence < 0)), directions[1], directions[0] + jnp.where(row.anti, np.pi, 0.0)
    )
    hold = row.matches & (match != row.go_if_match)
    return Stimuli(directions, strengths, match, category, coherence, jnp.mod(answer, 2 * np.pi), hold)


def _directions(
    variant: Variant, row: Rule, chances: Float[Array, "chance"]
) -> tuple[Float[Array, "stimulus"], Bool[Array, ""], Int[Array, "stimulus"]]:
    """Two directions, whether they match, and their categories (-1 where the rule has none)."""
    u_first, u_offset, u_match, u_category, *u_within = chances
    match = row.matches & (u_match < 0.5)
    sample_offset = jnp.where(match, (2 * u_offset - 1) * variant.tolerance, variant.apart.draw(u_offset))
    first = 2 * np.pi * u_first
    second = first + jnp.where(row.matches, sample_offset, DECISIONS_APART.draw(u_offset))
    category = (u_category < 0.5).astype(jnp.int32)
    categories = jnp.stack([category, jnp.where(match, category, 1 - category)])
    by_category = np.pi * categories + variant.in_category.draw(jnp.stack(u_within))
    is_category = row.schedule == CATEGORY
    directions = jnp.where(is_category, by_category, jnp.stack([first, second]))
    return jnp.mod(directions, 2 * np.pi), match, jnp.where(is_category, categories, -1)


def _strengths(variant: Variant, row: Rule, chances: Float[Array, "chance 2"]) -> Float[Array, "stimulus ring"]:
    """Decisions: mean ± half the difference, on each ring or split over both; other rules: 1 on one of the rings."""
    u_mean, u_half, u_order, u_split, u_side, u_ring = chances
    half = _row(variant.half_difference, row).draw(u_half) * jnp.where(u_order < 0.5, 1.0, -1.0)
    independent = 0.8 + 0.4 * u_mean + FIRST_AND_SECOND[:, None] * half
    excess = variant.split.draw(u_split) * jnp.where(u_side < 0.5, 1.0, -1.0)
    excess = jnp.broadcast_to(excess[0], (2,)) if variant.split_alike else excess
    split = independent[:, :1] * (1 + excess[:, None] * FIRST_AND_SECOND)
    exists = jnp.stack([jnp.asarray(True), row.matches])
    alone = exists[:, None] & ((u_ring < 0.5)[:, None] == jnp.array([True, False]))
    return jnp.where(row.decides, jnp.where(row.split, split, independent) * row.rings, alone)


def pieces_of(variant: Variant, rule: Count, row: Rule, stimuli: Stimuli, timing: Timing, dt: Scalar | float) -> Pieces:
    """Inputs (fixation, two rings, rules), targets (fixation, ring) and weights of every period."""
    shows = _row(variant.shows, row).astype(jnp.float32)
    rings = jnp.einsum("ps,sr,su->pru", shows, stimuli.strengths, _rings.bump(stimuli.directions))
    fixation = _row(variant.fixation, row)
    rules = jnp.broadcast_to(jnp.arange(len(RULES)) == rule, (len(PERIODS), len(RULES)))
    is_response = jnp.arange(len(PERIODS)) == RESPONSE
    answers = (is_response & ~stimuli.hold)[:, None]
    ring_target = LOW + jnp.where(answers, _rings.bump(stimuli.response), 0.0)
    # however coarse the steps are, the last of the response counts
    grace = jnp.minimum(jnp.round(variant.grace / dt).astype(jnp.int32), timing.ends - timing.starts - is_response)
    return Pieces(
        jnp.concatenate([fixation[:, None], rings.reshape(len(PERIODS), -1), rules], axis=1, dtype=jnp.float32),
        jnp.concatenate([jnp.where(answers, LOW, variant.fixation_target), ring_target], axis=1),
        jnp.asarray(variant.weights),
        grace,
    )


def places_of(timing: Timing, n_steps: int) -> tuple[Int[Array, "time"], Int[Array, "time"]]:
    """At every step the period's place in :data:`PERIODS` (beyond the end the last) and how long it has lasted.

    >>> ends = jnp.array([2, 2, 5, 5, 5, 5, 6])
    >>> places_of(Timing(None, jnp.array([0, 2, 2, 5, 5, 5, 5]), ends), 7)[0].tolist()
    [0, 0, 2, 2, 2, 6, 6]
    """
    time = jnp.arange(n_steps)
    place = jnp.minimum(jnp.sum(time[:, None] >= timing.ends, axis=1), len(PERIODS) - 1)
    return place, time - timing.starts[place]


def condition_of(rule: Count, head: Count, row: Rule, stimuli: Stimuli, timing: Timing) -> dict[str, Array]:
    """What made the trial what it is, for analyses."""
    nothing = jnp.nan
    has_two = row.decides | row.matches
    return {
        "rule": jnp.asarray(rule),
        "head": jnp.asarray(head),
        "directions": stimuli.directions.at[1].set(jnp.where(has_two, stimuli.directions[1], nothing)),
        "strengths": stimuli.strengths,
        "coherence": jnp.where(row.decides, stimuli.coherence, nothing),
        "delay_ms": timing.ms[DELAY],
        "match": stimuli.match,
        "category": stimuli.category,
        "hold": stimuli.hold,
        "response_direction": jnp.where(stimuli.hold, nothing, stimuli.response),
    }
