"""Rule reversal: several trials in a row under a hidden rule that switches without a cue."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from poprnn.core.arrays import Array, Bool, Count, Float, Int, PRNGKey, Scalar
from poprnn.core.blueprint import NonNegative, Positive, PositiveInt, Tuple, is_zero
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Setting, Stage, Task, Trial

PERIODS = ("stimulus", "response", "feedback", "wait")
"""Periods of one trial of the sequence, in this order."""
SEQUENCES = ("00000", "01100", "00011", "01111")
"""Rule of each of five trials; the complements are drawn as often."""


class RuleReversal(Task):
    """``n_trials`` trials in one sequence: a stimulus (one of two), a response (one of two), feedback, a wait.

    A hidden rule r_k in {0, 1} says which response to which stimulus s_k in {0, 1} feedback calls right in trial k:
    s_k if r_k = 0, the other one if r_k = 1. Nothing announces a switch, so what can be asked for is the answer under
    the rule of the trial before:

        target_k = s_k xor r_{k-1},      r_{-1} = 0;          feedback_k: right if choice_k = s_k xor r_k, else wrong

    Targets and accuracy follow target_k. A network at accuracy 1 thus errs once at every switch and adapts within
    that one trial.

    Inputs: stimulus one-hot, during the stimulus only, then feedback one-hot (right, wrong), during the feedback only.
    Outputs: logits of the two responses, y = softmax(outputs). Feedback follows from the network's own choice within
    the same run (closed loop): the response whose y has the larger mean over the counted part of the response period,
    which is all of it but the first ``grace_ms``. No gradient goes through the choice.

    Every period's duration is ``…_ms`` + U(±``jitter_ms``), drawn for the batch and not for each trial, so that a
    batch has one length; evaluations are not jittered. Times are in ms, hence so are the cell's time constants. A
    period of T ms has round(T / dt) steps, at least one.

    Soo, Goudar, Wang, Training biologically plausible recurrent neural networks on cognitive tasks with long-term
    dependencies, NeurIPS 2023, section 4.1; the defaults are those of the code released with it. That code puts equal
    numbers of each rule sequence in every batch; here each sequence is drawn at random, with equal chances, because a
    task does not see a trial's place in the batch. Our choices where neither says: how the choice is formed, that the
    stimulus ends with its period, stimuli independent and equally frequent, uniform jitter, no jitter of the warm-up.

    Raises ``ConfigurationError`` where jitter could use up a period, or the grace a whole response, and for sequences
    of anything but 0 and 1.

    >>> import jax
    >>> from poprnn.tasks.contract import Stage
    >>> task = RuleReversal(n_trials=2, sequences=("01",))
    >>> setting = task.draw(Stage(jax.numpy.ones(1, bool), 0, 0, split="evaluate"), key=jax.random.key(0))
    >>> int(setting.length), int(setting.no_gradient)                    # of 5 ms each
    (1000, 200)
    >>> trial = task.sample(setting, (), key=jax.random.key(3))
    >>> trial.condition["rules"].tolist(), trial.skips.tolist(), trial.periods["response_1"].tolist()
    ([0, 1], [[200, 600]], [300, 400])
    """

    cites = ("soo2023",)
    # they all shape the program: through the capacity, or (grace, warm-up) by being compared with what does
    static = frozenset(
        {"dt", "stimulus_ms", "response_ms", "feedback_ms", "wait_ms", "jitter_ms", "warm_up_ms", "grace_ms"}
    )
    score: ClassVar[str] = "accuracy"
    closed_loop: ClassVar[bool] = True
    has_skips: ClassVar[bool] = True

    n_trials: PositiveInt = 5
    """Trials in one sequence."""
    dt: Positive = 5.0
    """Integration step in ms; it takes the place of the cell's own."""
    stimulus_ms: Positive = 500.0
    """Mean duration of a stimulus."""
    response_ms: Positive = 500.0
    """Mean duration of a response period."""
    feedback_ms: Positive = 500.0
    """Mean duration of the feedback."""
    wait_ms: Positive = 500.0
    """Mean duration of the wait before the next stimulus."""
    jitter_ms: NonNegative = 100.0
    """Largest deviation of each duration."""
    warm_up_ms: NonNegative = 1000.0
    """Time before the first stimulus, without input and without gradient."""
    grace_ms: NonNegative = 100.0
    """Beginning of each response period that counts neither for loss, nor for choice and accuracy."""
    sequences: Tuple[str] = SEQUENCES
    """Rules of successive trials, each sequence and its complement equally likely; cut after ``n_trials``, or begun
    again where there are more trials (our choice)."""

    n_inputs, n_outputs = 4, 2

    def __post_init__(self) -> None:
        who = type(self).__name__
        for name, mean in zip(PERIODS, self._means_ms(), strict=True):
            if mean <= self.jitter_ms:
                raise ConfigurationError(
                    f"{who}: {name}_ms = {mean:g}: must be longer than jitter_ms = {self.jitter_ms:g}"
                )
        if self.grace_ms >= self.response_ms - self.jitter_ms:
            raise ConfigurationError(
                f"{who}: grace_ms = {self.grace_ms:g}: must be less than response_ms - jitter_ms = "
                f"{self.response_ms - self.jitter_ms:g}, the shortest response"
            )
        if not self.sequences or any(not s or set(s) - {"0", "1"} for s in self.sequences):
            raise ConfigurationError(
                f"{who}: sequences = {list(self.sequences)}: must be one or more strings of 0 and 1, such as '01100'"
            )

    def _means_ms(self) -> tuple[float, ...]:
        return tuple(getattr(self, f"{name}_ms") for name in PERIODS)

    @property
    def capacity(self) -> int:  # type: ignore[override]
        """Steps of the longest sequence."""
        longest = sum(max(math.ceil((mean + self.jitter_ms) / self.dt), 1) for mean in self._means_ms())
        return math.ceil(self.warm_up_ms / self.dt) + self.n_trials * longest

    def rule_table(self) -> Int[np.ndarray, "sequence trial"]:
        """Rules of all sequences, the complements after the sequences themselves.

        >>> RuleReversal(n_trials=3, sequences=("01",)).rule_table().tolist()
        [[0, 1, 0], [1, 0, 1]]
        """
        rows = [[int(s[k % len(s)]) for k in range(self.n_trials)] for s in self.sequences]
        return np.array(rows + [[1 - r for r in row] for row in rows], np.int32)

    # --- time --------------------------------------------------------------------------------------------------

    def draw(self, stage: Stage, *, key: PRNGKey) -> Setting:
        """The durations, which all trials of a batch share; not jittered for an evaluation."""
        means = jnp.asarray(self._means_ms(), jnp.float32)
        jitter = self.jitter_ms * jax.random.uniform(key, (self.n_trials, len(PERIODS)), minval=-1.0, maxval=1.0)
        if stage.split == "evaluate":
            jitter = jnp.zeros_like(jitter)
        return self._discretised(self.dt, means + jitter)

    def coarsen(self, setting: Setting, factor: Scalar | float) -> Setting:
        """Steps ``factor`` times as long; the durations in ms stay, each rounded to whole steps."""
        return self._discretised(_dt(setting) * factor, setting.extra["durations_ms"])

    def _discretised(self, dt: Scalar | float, durations_ms: Float[Array, "trial period"]) -> Setting:
        warm_up = self._warm_up(dt)
        return Setting(warm_up + jnp.sum(_steps(durations_ms, dt)), dt, {"durations_ms": durations_ms}, warm_up)

    def _warm_up(self, dt: Scalar | float) -> Count:
        return 0 if is_zero(self.warm_up_ms) else _steps(self.warm_up_ms, dt)

    def _bounds(self, setting: Setting) -> Int[Array, "trial period 2"]:
        """First step of each period, and the one past its last."""
        steps = _steps(setting.extra["durations_ms"], _dt(setting))
        ends = self._warm_up(_dt(setting)) + jnp.cumsum(steps).reshape(steps.shape)
        return jnp.stack([ends - steps, ends], axis=-1)

    # --- trials ------------------------------------------------------------------------------------------------

    def sample(self, setting: Setting, arrays: tuple[()], *, key: PRNGKey) -> Trial:
        """Stimuli and rules of a sequence; the feedback's inputs stay 0, they come with :meth:`respond`.

        ``targets`` [time]: the class asked for in the trial that goes on; ``weights`` [time]: 1 where a response
        counts. ``periods``: warm_up, stimulus_1, response_1, feedback_1, wait_1, stimulus_2, …; ``skips``: from each
        trial's start to that of the next; ``condition``: stimuli, rules and targets [trial], and ``sequence``, the row
        of :meth:`rule_table`.
        """
        sequence_key, stimulus_key = jax.random.split(key)
        table = jnp.asarray(self.rule_table())
        sequence = jax.random.randint(sequence_key, (), 0, table.shape[0])
        rules = table[sequence]
        stimuli = jax.random.randint(stimulus_key, (self.n_trials,), 0, 2)
        targets = stimuli ^ jnp.concatenate([jnp.zeros(1, rules.dtype), rules[:-1]])

        bounds = self._bounds(setting)
        starts = bounds[:, 0, 0]
        time = jnp.arange(self.capacity)
        shown = _inside(bounds[:, 0], time)
        trial_now = jnp.clip(jnp.sum(time[:, None] >= starts, axis=1) - 1, 0)
        stimulus = shown.T.astype(jnp.float32) @ jax.nn.one_hot(stimuli, 2)
        periods = {"warm_up": jnp.stack([jnp.zeros_like(starts[0]), starts[0]])}
        for k in range(self.n_trials):
            periods |= {f"{name}_{k + 1}": bounds[k, i] for i, name in enumerate(PERIODS)}
        return Trial(
            jnp.concatenate([stimulus, jnp.zeros_like(stimulus)], axis=1),
            targets[trial_now],
            jnp.any(self._counted(bounds[:, 1], time, _dt(setting)), axis=0).astype(jnp.float32),
            periods,
            {"sequence": sequence, "stimuli": stimuli, "rules": rules, "targets": targets},
            jnp.stack([starts[:-1], starts[1:]], axis=1),
        )

    def _counted(
        self, responses: Int[Array, "trial 2"], time: Int[Array, "time"], dt: Scalar
    ) -> Bool[Array, "trial time"]:
        """Steps of each response but those of its grace; with very long steps the last one still counts."""
        grace = jnp.round(self.grace_ms / dt).astype(jnp.int32)
        first = jnp.minimum(responses[:, 0] + grace, responses[:, 1] - 1)
        return _inside(jnp.stack([first, responses[:, 1]], axis=1), time)

    # --- closed loop -------------------------------------------------------------------------------------------

    def begin(self, trial: Trial, *, key: PRNGKey) -> Scalar:
        """The evidence for response 1 over response 0 so far in the response that goes on: none."""
        del trial, key
        return jnp.zeros(())

    def respond(
        self, task_state: Scalar, trial: Trial, time: Count, output: Float[Array, "output"], *, key: PRNGKey
    ) -> tuple[Scalar, Float[Array, "input"]]:
        """Add to the evidence while a response counts; in the feedback, say whether the choice was right."""
        del key
        counts = trial.weights[jnp.maximum(time - 1, 0)] > 0  # the output is that of the step before
        evidence = task_state + jnp.where(counts, _preference(jax.lax.stop_gradient(output)), 0.0)
        starts, ends = self._of("feedback", trial)
        now = (starts <= time) & (time < ends)
        condition = trial.condition
        right = jnp.any(now & (_choice(evidence) == condition["stimuli"] ^ condition["rules"]))
        wrong = jnp.any(now) & ~right
        feedback = jnp.stack([right, wrong]).astype(jnp.float32)
        evidence = jnp.where(jnp.any(time == ends), 0.0, evidence)  # the next trial begins anew
        return evidence, trial.inputs[time] + jnp.concatenate([jnp.zeros(2), feedback])

    def _of(self, period: str, trial: Trial) -> tuple[Int[Array, "trial"], Int[Array, "trial"]]:
        """Starts and ends of one period in all trials of the sequence."""
        bounds = jnp.stack([trial.periods[f"{period}_{k + 1}"] for k in range(self.n_trials)])  # type: ignore[index]
        return bounds[:, 0], bounds[:, 1]

    # --- loss and scores ---------------------------------------------------------------------------------------

    def choices(self, outputs: Float[Array, "time output"], trial: Trial) -> Int[Array, "trial"]:
        """The response chosen in each trial of the sequence, as :meth:`respond` forms it; a tie is response 0."""
        starts, ends = self._of("response", trial)
        counted = _inside(jnp.stack([starts, ends], axis=1), jnp.arange(outputs.shape[0])) & (trial.weights > 0)
        return _choice(jnp.sum(jnp.where(counted, _preference(outputs), 0.0), axis=1))

    def loss(self, outputs: Float[Array, "time output"], trial: Trial, setting: Setting) -> Scalar:
        """Mean cross-entropy over the steps that count, ``-sum_t w_t log softmax(outputs_t)[target_t] / sum_t w_t``."""
        counts = trial.weights > 0
        # selected before the logarithm: an infinite output that does not count must not make the gradient NaN
        log_p = jax.nn.log_softmax(jnp.where(counts[:, None], outputs, 0.0))
        chosen = jnp.take_along_axis(log_p, trial.targets[:, None], axis=1)[:, 0]
        return -jnp.sum(trial.weights * chosen) / jnp.sum(trial.weights)

    def scores(self, outputs: Float[Array, "time output"], trial: Trial, setting: Setting) -> dict[str, Array]:
        """``accuracy``: the fraction of the sequence's trials whose choice is the target."""
        return {"accuracy": jnp.mean(self.choices(outputs, trial) == trial.condition["targets"])}


def _dt(setting: Setting) -> Scalar:
    return jnp.asarray(setting.dt, jnp.float32)


def _steps(duration_ms: Float[Array, "..."] | float, dt: Scalar | float) -> Int[Array, "..."]:
    return jnp.maximum(jnp.round(jnp.asarray(duration_ms) / dt), 1).astype(jnp.int32)


def _inside(bounds: Int[Array, "trial 2"], time: Int[Array, "time"]) -> Bool[Array, "trial time"]:
    return (bounds[:, :1] <= time) & (time < bounds[:, 1:])


def _preference(outputs: Float[Array, "... output"]) -> Float[Array, "..."]:
    """y_1 - y_0 for y = softmax(outputs)."""
    return jnp.tanh((outputs[..., 1] - outputs[..., 0]) / 2)


def _choice(evidence: Float[Array, "..."]) -> Int[Array, "..."]:
    return (evidence > 0).astype(jnp.int32)
