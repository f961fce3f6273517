"""The twenty cognitive tasks: fixate, see directions on two rings, remember, compare, and answer on a third."""

from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from poprnn.core.arrays import Array, Bool, Count, Float, Int, PRNGKey, Scalar
from poprnn.core.blueprint import NonNegative, Tuple, is_zero
from poprnn.core.errors import ConfigurationError
from poprnn.tasks import _cognitive_trials as trials
from poprnn.tasks import _rings
from poprnn.tasks._cognitive_rules import CATEGORY, COLUMNS, DELAYED_DECISION, DELAYED_GO, RULES, SAMPLE, find_rules
from poprnn.tasks._cognitive_variants import PERIODS, YANG, Variant, soo
from poprnn.tasks.contract import Piecewise, Setting, Stage, Task, Trial, in_steps, step_weights

JITTER = 100.0
TAU = 100.0
"""ms; the battery scales its input noise by the step over this time constant."""
RIGHT = 0.2 * np.pi
"""An answer within this of the right direction is right."""


class Cognitive(Task):
    """One or several of twenty tasks in which the answer is a direction or, after two stimuli, to hold still.

    Inputs (85): fixation; two rings of 32 units; the rule, one-hot among 20. Outputs (33), between 0 and 1: fixation;
    a ring of 32. A stimulus of direction psi and strength gamma is, on unit i of a ring, which prefers 2 pi i / 32,

        gamma · 0.8 exp(-(8 d_i / pi)² / 2),        d_i = |psi - 2 pi i / 32| around the circle,

    and so is an answer, plus 0.05. While the network is to fixate, the fixation output's target is 0.85 ("yang": 0.8)
    and the ring's 0.05; while it is to answer, the fixation output's is 0.05. Times are in ms, also the cell's
    tau; outputs are taken as the cell gives them (a sigmoid is the cell's affair).

    go, dlygo, rtgo: to the stimulus, at the end of fixation, after a delay, at once. anti, dlyanti, rtanti: away from
    it. dm1, dm2: to the stronger of two stimuli on ring 1 or 2. ctxdm1, ctxdm2: two on either ring, one ring decides.
    multsendm: both rings together decide. dlydm1, …, multsendlydm: as those, one stimulus after the other. dms: to the
    second stimulus if it matches the first, else hold; dnms: if it does not match. dmc, dnmc: the same by category,
    directions below and above pi. The paper's table writes dgo, danti, ddm (= dlydm1), ddmd (= ctxdlydm1), msddm,
    dmd (= ctxdm1) and msdm; these names work too.

    With several rules every trial draws one of those that the curriculum has active; a head is a rule, and
    ``performance`` is NaN but for the trial's own. A trial's ``periods`` are rule, fixation, stimulus, delay,
    second_stimulus, response ("yang": and second_delay, before the response). Its ``condition`` holds ``rule`` (of the
    20), ``head``, ``directions`` [stimulus], ``strengths`` [stimulus, ring], ``coherence`` (first minus second
    strength, averaged over the rings that decide), ``delay_ms``, ``match``, ``category`` [stimulus] (0: below pi),
    ``hold`` and ``response_direction``; NaN (category: -1, match: false) where a rule has no such thing.

    Args and defaults: Soo, Goudar & Wang, Training biologically plausible recurrent neural networks on cognitive tasks
    with long-term dependencies, NeurIPS 2023, and the code released with it ("soo"); Yang et al., Task representations
    in neural networks trained to perform many cognitive tasks, Nature Neuroscience 2019, and its code ("yang"). Slips
    in the former's code are not repeated: dnms and dnmc are the opposite of dms and dmc, trials of the category tasks
    that do not match go from either category to the other, and a held ring has the target 0.05.

    Our choices: everything but durations is drawn for each trial (the released "yang" draws the rings once a batch);
    durations are rounded to whole steps one by one; in "soo" rtgo and rtanti keep a stimulus period in which nothing is
    shown, as released (their stimulus comes with the response); a trial that ends before the longest of its batch
    keeps its last input, and what the network then does counts for nothing.

    Raises ``ConfigurationError`` for a rule that does not exist or stands there twice.

    >>> task = Cognitive(rule=["dlygo", "dms"])
    >>> task.head_name(1), task.n_inputs, task.n_outputs, task.capacity        # at most 880 steps of 5 ms
    ('dms', 85, 33, 880)
    >>> stage = Stage(jnp.array([True, False]), 0, 0, split="evaluate")
    >>> setting = task.draw(stage, key=jax.random.key(0))
    >>> int(setting.length), int(setting.no_gradient)
    (700, 200)
    >>> trial = task.sample(setting, (), key=jax.random.key(1))
    >>> trial.periods["delay"].tolist(), trial.periods["response"].tolist()
    ([400, 600], [600, 700])
    >>> task.scores(in_steps(trial.targets, task.capacity), trial, setting)["performance"].tolist()
    [1.0, nan]
    """

    cites = ("soo2023", "yang2019")
    static = frozenset({"dt", "jitter"})
    readout: ClassVar[Literal["last", "all"]] = "all"
    score: ClassVar[str] = "performance"
    n_inputs = trials.N_INPUTS
    n_outputs = trials.N_OUTPUTS

    rule: str | Tuple[str] = "dlygo"
    """One rule, a list of rules, or ``"all"``."""
    variant: Literal["soo", "yang"] = "soo"
    """Whose durations, strengths, targets, loss and performance."""
    dt: Annotated[float, Field(gt=0, le=100)] | None = None
    """Integration step in ms; ``None``: the variant's, 5 or 20."""
    jitter: Annotated[float, Field(ge=0, lt=300)] = JITTER
    """Most by which a period is longer or shorter in training, in ms; for "soo", whose evaluations have none."""
    timing: Literal["batch", "trial"] = "trial"
    """Whether each trial has durations of its own, or a batch has them in common, as released (no step is wasted)."""
    input_noise: NonNegative | None = None
    """White noise on every input, times sqrt(2 · 100 ms / dt); ``None``: the variant's, 0 or 0.01."""

    def __post_init__(self) -> None:
        find_rules(self.rule)
        if self.variant == "yang" and self.jitter != JITTER:
            raise ConfigurationError(
                f"Cognitive: jitter = {self.jitter:g}: has no effect in variant 'yang', whose durations vary anyhow"
            )

    @property
    def rules(self) -> tuple[str, ...]:
        """Names of the rules, as the battery writes them; one head each."""
        return find_rules(self.rule)

    @property
    def n_heads(self) -> int:  # type: ignore[override]
        """One head for each rule."""
        return len(self.rules)

    def head_name(self, head: int) -> str:
        """The rule's name."""
        return self.rules[head]

    @property
    def tables(self) -> Variant:
        """What the variant's trials are made from."""
        return soo(self.jitter) if self.variant == "soo" else YANG

    @property
    def step_ms(self) -> float:
        """The integration step."""
        return self.tables.dt if self.dt is None else self.dt

    @property
    def capacity(self) -> int:  # type: ignore[override]
        """Steps of the longest trial."""
        # a little more than half rounds up whatever the device's rounding error
        steps = np.floor(self._longest_ms() / self.step_ms + 0.5001)
        return int(np.maximum(steps, self._longest_ms() > 0).sum(axis=1).max())

    def _heads(self) -> Int[np.ndarray, "head"]:
        """Every head's rule, by its place among the twenty."""
        return np.array([list(RULES).index(name) for name in self.rules])

    def _longest_ms(self) -> Float[np.ndarray, "head period"]:
        return self.tables.durations.largest[COLUMNS.schedule[self._heads()]]

    def draw(self, stage: Stage, *, key: PRNGKey) -> Setting:
        """The active rules, the batch's durations unless each trial has its own, and the longest trial's length."""
        extra = {"active": stage.active}
        if self.variant == "soo" and stage.split == "evaluate":
            extra["chances"] = jnp.full(len(PERIODS), 0.5)  # every duration in its middle
        elif self.timing == "batch":
            extra["chances"] = jax.random.uniform(key, (len(PERIODS),))
        return self._timed(Setting(0, jnp.asarray(self.step_ms, jnp.float32), extra))

    def coarsen(self, setting: Setting, factor: Scalar | float) -> Setting:
        """Steps ``factor`` times as long: the same trials in about as many times fewer steps.

        Each period is rounded to whole steps by itself, so the length is counted anew rather than divided.
        """
        dt: Any = setting.dt
        return self._timed(setting._replace(dt=dt * factor))

    def _timed(self, setting: Setting) -> Setting:
        """The setting with the length of the longest of its trials, and of its warm-up, in its own steps."""
        schedules = COLUMNS.schedule[self._heads()]
        durations = jax.tree.map(lambda a: jnp.asarray(a)[schedules], self.tables.durations)
        dt: Any = setting.dt
        chances = setting.extra.get("chances")
        ms = jnp.asarray(self._longest_ms()) if chances is None else durations.draw(chances)
        steps = trials.steps_of(ms, dt)
        longest = jnp.max(jnp.where(setting.extra["active"], jnp.sum(steps, axis=1), 0))
        return setting._replace(length=longest, no_gradient=jnp.max(steps[:, PERIODS.index("rule")]))

    def sample(self, setting: Setting, arrays: tuple[()], *, key: PRNGKey) -> Trial:
        """A rule, its stimuli and durations, what that makes of every period, and last of every step."""
        key, noise_key = jax.random.split(key)
        # all at once: every call for random numbers costs a third of a second of compilation
        n = trials.N_CHANCES
        chances = jax.random.uniform(key, (n + 1 + len(PERIODS),))
        head = trials.pick(setting.extra["active"], chances[n])
        rule = jnp.asarray(self._heads())[head]
        row, tables = trials.row_of(rule), self.tables
        dt: Any = setting.dt
        timing = trials.timing_of(tables, row, setting.extra.get("chances", chances[n + 1 :]), dt)
        stimuli = trials.stimuli_of(tables, row, chances[:n])
        pieces = trials.pieces_of(tables, rule, row, stimuli, timing, dt)
        place, lasted = trials.places_of(timing, self.capacity)
        counts = (lasted >= pieces.grace[place]) & (jnp.arange(self.capacity) < timing.ends[-1])
        weights = jnp.where(counts, pieces.weights[place], 0.0)
        condition = trials.condition_of(rule, head, row, stimuli, timing)
        starts = jnp.concatenate([jnp.zeros(1, jnp.int32), timing.ends[:-1]])
        inputs = self._noisy(Piecewise(pieces.inputs, starts), dt, key=noise_key)
        return Trial(inputs, Piecewise(pieces.targets, starts), weights, self._periods(timing), condition)

    def _noisy(self, inputs: Piecewise, dt: Scalar, *, key: PRNGKey) -> Piecewise | Float[Array, "time input"]:
        """``inputs + input_noise sqrt(2 tau / dt) N(0, 1)``; by pieces where there is no noise."""
        amount = self.tables.input_noise if self.input_noise is None else self.input_noise
        if is_zero(amount):
            return inputs
        noise = jax.random.normal(key, (self.capacity, self.n_inputs))
        return in_steps(inputs, self.capacity) + amount * jnp.sqrt(2 * TAU / dt) * noise

    def _periods(self, timing: trials.Timing) -> dict[str, Int[Array, "2"]]:
        names = [p for p in PERIODS if self.variant == "yang" or p != "second_delay"]
        both = {p: (timing.starts[PERIODS.index(p)], timing.ends[PERIODS.index(p)]) for p in names}
        return {p: jnp.stack(edges).astype(jnp.int32) for p, edges in both.items()}

    # --- loss and performance ----------------------------------------------------------------------------------

    def loss(self, outputs: Float[Array, "time output"], trial: Trial, setting: Setting) -> Scalar:
        """Squared error, averaged over outputs.

        "soo": its mean over the steps before the response plus that over the response's, without the first 0.2 s of
        fixation and of response and what comes before fixation. "yang": the sum over steps of m² (error)², divided by
        the number of all steps, with m = 0 for 100 ms, 1 until the response, 0 for 100 ms and 5 from there on, twice
        as much for the fixation output.
        """
        weights = step_weights(self, trial, setting)
        # selected before squaring: an output that does not count may be infinite
        error = jnp.where(weights > 0, outputs - in_steps(trial.targets, self.capacity), 0.0) ** 2
        each = jnp.ones(self.n_outputs).at[0].set(self.tables.fixation_weight)
        by_step = weights[:, 0] * (error @ (each / self.n_outputs))  # a product: sums over a short axis are slow
        if self.variant == "yang":
            return jnp.sum(by_step) / jnp.minimum(_response(trial)[1], setting.length)
        before, after = self._counted(trial, setting)
        return _mean_where(by_step, before) + _mean_where(by_step, after)

    def _counted(self, trial: Trial, setting: Setting) -> tuple[Bool[Array, "time"], Bool[Array, "time"]]:
        """The steps that count, before the response and within it."""
        counts = step_weights(self, trial, setting)[:, 0] > 0
        answering = jnp.arange(counts.shape[0]) >= _response(trial)[0]
        return counts & ~answering, counts & answering

    def scores(self, outputs: Float[Array, "time output"], trial: Trial, setting: Setting) -> dict[str, Array]:
        """``performance`` of the trial's head, NaN for the others.

        "soo": ``q P(y_0 > 0.5 before the response) + (1 - q) P(y_0 < 0.5 within it) P(direction right within it)``,
        each P a fraction of the steps that count, q = 2/3, 4/5 or 5/6 without delay, with one, with two stimuli and a
        delay; where the right answer is to hold, ``q P + (1 - q) P(y_0 > 0.5 within the response)``. "yang": 1 or 0,
        by the trial's last step. The direction is that of the ring's population vector, right within 0.2 pi.
        """
        fixates, leaves = outputs[:, 0] > 0.5, outputs[:, 0] < 0.5
        direction = _rings.population_direction(outputs[:, 1:])
        right = _rings.distance(direction, trial.condition["response_direction"]) < RIGHT
        hold = trial.condition["hold"]
        if self.variant == "yang":
            last = jnp.minimum(_response(trial)[1], setting.length) - 1
            value = jnp.where(hold, fixates, ~fixates & right)[last].astype(jnp.float32)
        else:
            before, after = self._counted(trial, setting)
            fraction = lambda found, where: _mean_where(found.astype(jnp.float32), where)
            answered = jnp.where(hold, fraction(fixates, after), fraction(leaves, after) * fraction(right, after))
            share = _share_before(trial.condition["rule"])
            value = share * fraction(fixates, before) + (1 - share) * answered
        return {"performance": jnp.where(jnp.arange(self.n_heads) == trial.condition["head"], value, jnp.nan)}


def _response(trial: Trial) -> Int[Array, "2"]:
    """Its first step and the one past its last."""
    periods: Any = trial.periods
    return periods["response"]


def _mean_where(values: Float[Array, "time"], where: Bool[Array, "time"]) -> Scalar:
    return jnp.sum(jnp.where(where, values, 0.0)) / jnp.maximum(jnp.sum(where), 1)


def _share_before(rule: Count) -> Scalar:
    """Weight of fixation in the performance of soo: by its time in the trial, with delay 4/5, two stimuli 5/6."""
    shares = np.full(len(RULES), 2 / 3, np.float32)
    shares[COLUMNS.schedule == DELAYED_GO] = 4 / 5
    shares[np.isin(COLUMNS.schedule, (DELAYED_DECISION, SAMPLE, CATEGORY))] = 5 / 6
    return jnp.asarray(shares)[rule]
