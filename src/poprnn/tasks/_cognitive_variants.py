"""Where the two published forms of the cognitive battery differ: durations, strengths, angles and weights, as tables.

Times in ms, angles in radians. "soo": Soo, Goudar & Wang, NeurIPS 2023, and the code released with it. "yang": Yang et
al., Nature Neuroscience 2019, and the code released with it.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from poprnn.core.arrays import Array, Bool, Float
from poprnn.tasks._cognitive_rules import SCHEDULES

PERIODS = ("rule", "fixation", "stimulus", "delay", "second_stimulus", "second_delay", "response")
"""In the order in which they follow one another; a trial lacks some of them."""
FIXATION, STIMULUS, DELAY, SECOND_STIMULUS, SECOND_DELAY, RESPONSE = range(1, len(PERIODS))
MAX_CHOICES = 5
Where = Mapping[str, tuple[int, ...]]
"""Periods by schedule."""


class Choices(NamedTuple):
    """One of ``n`` values (with n = 0 there is none, and 0 is drawn), spread evenly over ``width`` around it."""

    values: Any
    """``[…, MAX_CHOICES]``, the first n of them in use."""
    n: Any
    width: Any

    def draw(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """The value that a number from U(0, 1) stands for; 1/2 stands for the middle one, unspread if n = 1.

        >>> float(between(300, 700).draw(jnp.asarray(0.75))), float(one_of(200, 400).draw(jnp.asarray(0.75)))
        (600.0, 400.0)
        """
        place = jnp.minimum(jnp.floor(u * self.n), jnp.maximum(self.n - 1, 0))
        chosen = jnp.arange(MAX_CHOICES) == place[..., None]
        return jnp.sum(jnp.where(chosen, self.values, 0.0), axis=-1) + (u * self.n - place - 0.5) * self.width

    @property
    def largest(self) -> Float[np.ndarray, "..."]:
        """The largest value there can be."""
        return self.values.max(axis=-1) + self.width / 2


def one_of(*values: float) -> Choices:
    """Any of some values."""
    padded = [*values, *[0.0] * (MAX_CHOICES - len(values))]
    return Choices(np.array(padded, np.float32), np.int32(len(values)), np.float32(0))


def between(low: float, high: float) -> Choices:
    """Uniform."""
    return one_of((low + high) / 2)._replace(width=np.float32(high - low))


NONE = one_of()


class Variant(NamedTuple):
    """All that the trials of a variant are made from."""

    dt: float
    """Integration step of the paper."""
    input_noise: float
    """Standard deviation of the white input, before it is scaled by the step."""
    fixation_target: float
    """Target of the fixation output while fixating."""
    durations: Choices
    """``[schedule, period]``."""
    fixation: Bool[np.ndarray, "schedule period"]
    """Whether the fixation input is on."""
    shows: Bool[np.ndarray, "schedule period stimulus"]
    """Whether a stimulus is on."""
    weights: Float[np.ndarray, "period"]
    """Of every step in the loss."""
    grace: Float[np.ndarray, "period"]
    """Beginning of a period that does not count."""
    half_difference: Choices
    """``[schedule]``: half the difference between two strengths, whose mean is U(0.8, 1.2)."""
    split: Choices
    """Multisensory decisions: strengths on the two rings are ``s (1 ± e)``; e."""
    split_alike: bool
    """Whether e and the stronger ring are the same for both stimuli."""
    tolerance: float
    """The two directions of a matching sample differ by at most this."""
    apart: Choices
    """By how much directions that do not match differ."""
    in_category: Choices
    """Directions of the first category; those of the second lie pi further."""
    fixation_weight: float = 1.0
    """Of the fixation output's squared error against that of a ring output."""


def table(schedules: dict[str, dict[str, Choices]]) -> Choices:
    """``[schedule, period]`` from dictionaries of those that exist."""
    rows = [[schedules[s].get(p, NONE) for p in PERIODS] for s in SCHEDULES]
    return Choices(*(np.array([[getattr(c, f) for c in row] for row in rows]) for f in Choices._fields))


def by_schedule(usual: Choices, delayed: Choices) -> Choices:
    """``[schedule]``: one for decisions whose stimuli are apart in time, one for all others."""
    rows = [delayed if s == "delayed_decision" else usual for s in SCHEDULES]
    return Choices(*(np.array([getattr(c, f) for c in rows]) for f in Choices._fields))


def places(on: Where) -> Bool[np.ndarray, "schedule period"]:
    """Where something is on, from the periods of every schedule."""
    return np.array([[p in on.get(s, ()) for p in range(len(PERIODS))] for s in SCHEDULES])


def by_period(**values: float) -> Float[np.ndarray, "period"]:
    """0 but where a value is given."""
    return np.array([values.get(p, 0) for p in PERIODS], np.float32)


def both(first: Where, second: Where) -> Bool[np.ndarray, "..."]:
    """Where either stimulus is on."""
    return np.stack([places(first), places(second)], axis=-1)


BEFORE_RESPONSE: tuple[int, ...] = (FIXATION, STIMULUS, DELAY, SECOND_STIMULUS, SECOND_DELAY)
FIRST_STIMULUS: dict[str, tuple[int, ...]] = {s: (RESPONSE,) if s == "reaction" else (STIMULUS,) for s in SCHEDULES}


@functools.cache
def soo(jitter: float) -> Variant:
    """Epochs of half a second (delay: a second), each but the first and last spread evenly by ± ``jitter``."""
    short, long = between(500 - jitter, 500 + jitter), between(1000 - jitter, 1000 + jitter)
    direct = {"rule": one_of(1000), "fixation": short, "stimulus": short, "response": one_of(500)}
    delayed = direct | {"delay": long}
    twice = delayed | {"second_stimulus": short}
    kinds = {"delayed_go": delayed, "delayed_decision": twice, "sample": twice, "category": twice}
    return Variant(
        dt=5.0,
        input_noise=0.0,
        fixation_target=0.85,
        durations=table(dict.fromkeys(SCHEDULES, direct) | kinds),
        fixation=places(dict.fromkeys(SCHEDULES, BEFORE_RESPONSE) | {"reaction": (*BEFORE_RESPONSE, RESPONSE)}),
        shows=both(
            FIRST_STIMULUS,
            {
                "decision": (STIMULUS,),
                "delayed_decision": (SECOND_STIMULUS,),
                "sample": (SECOND_STIMULUS,),
                "category": (SECOND_STIMULUS,),
            },
        ),
        weights=by_period(fixation=1, stimulus=1, delay=1, second_stimulus=1, response=1),
        grace=by_period(fixation=200, response=200),
        half_difference=by_schedule(between(0.1, 0.2), between(0.1, 0.2)),
        split=between(0.2, 0.4),
        split_alike=True,
        tolerance=np.pi / 18,
        apart=between(np.pi / 2, 3 * np.pi / 2),
        in_category=between(0, np.pi / 2),
    )


def _yang() -> Variant:
    """The battery as first published."""
    on, off, gap = one_of(200, 400, 600), one_of(200, 400, 600), one_of(200, 400, 800, 1600)
    end = {"response": one_of(500)}
    pair = {"fixation": on, "stimulus": off, "delay": gap}
    choose = {"second_stimulus": off, "second_delay": between(100, 300)}
    always = dict.fromkeys(("reaction", "sample", "category"), (*BEFORE_RESPONSE, RESPONSE))
    return Variant(
        dt=20.0,
        input_noise=0.01,
        fixation_target=0.8,
        durations=table(
            {
                "go": end | {"fixation": between(300, 700), "stimulus": between(500, 1500)},
                "reaction": end | {"fixation": between(500, 2500)},
                "delayed_go": end | {"fixation": one_of(300, 500, 700), "stimulus": off, "delay": gap},
                "decision": end | {"fixation": between(100, 400), "stimulus": one_of(400, 800, 1600)},
                "delayed_decision": end | pair | choose,
                "sample": end | pair,
                "category": pair | {"response": one_of(200, 400, 600)},
            }
        ),
        fixation=places(dict.fromkeys(SCHEDULES, BEFORE_RESPONSE) | always),
        shows=both(
            FIRST_STIMULUS | {"go": (STIMULUS, RESPONSE)},
            {
                "decision": (STIMULUS,),
                "delayed_decision": (SECOND_STIMULUS,),
                "sample": (RESPONSE,),
                "category": (RESPONSE,),
            },
        ),
        # the published mask (1 before the response, 5 in it) multiplies the error before it is squared
        weights=by_period(fixation=1, stimulus=1, delay=1, second_stimulus=1, second_delay=1, response=25),
        grace=by_period(fixation=100, response=100),
        half_difference=by_schedule(one_of(0.01, 0.02, 0.04, 0.08), one_of(0.08, 0.16, 0.32)),
        split=between(0.1, 0.4),
        split_alike=False,
        tolerance=0.0,
        apart=between(np.pi / 9, 17 * np.pi / 9),
        in_category=one_of(*(np.pi * np.array([0.1, 0.3, 0.5, 0.7, 0.9]))),
        fixation_weight=4.0,
    )


YANG = _yang()
