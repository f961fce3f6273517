"""What the recipes of Soo, Goudar & Wang (NeurIPS 2023) share: their networks, training methods by name, curves."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from poprnn.analysis._conditional import mean_and_error
from poprnn.cells.leaky_rnn import LeakyRNN
from poprnn.core.errors import ConfigurationError, nearest
from poprnn.tasks.contract import Task
from poprnn.training.methods.aligned_skip import AlignedSkip
from poprnn.training.methods.coarsened import Coarsened
from poprnn.training.methods.contract import Method
from poprnn.training.methods.control import Control
from poprnn.training.methods.skip import Skip
from poprnn.training.monitors.contract import Monitor
from poprnn.training.monitors.trimmed_mean import TrimmedMean
from poprnn.training.optimizers.adam import Adam
from poprnn.training.penalties.activity import Activity
from poprnn.training.penalties.l1 import L1
from poprnn.training.run import Run
from poprnn.training.settings import Population, Setup, Training

METHODS = ("control", "CD10", "SCTT10", "SCTT40", "DASC10", "DASC40")
"""The columns of the paper's tables; the number is theta, in steps of ``BASE_DT``."""
BASE_DT = 5.0
"""ms; the step in which the paper counts theta."""
TAU = 100.0
"""ms; time constant of every unit."""
CRITERION = TrimmedMean(threshold=0.99)
"""Mean performance of the members from the 10th to the 90th percentile that ends a training."""
SHORT = ("go", "rtgo", "anti", "rtanti", "dm1", "ctxdm1", "multsendm")
"""The seven of the paper's 16 tasks without a delay."""
DELAYED = ("dlygo", "dlyanti", "dlydm1", "ctxdlydm1", "multsendlydm", "dms", "dnms", "dmc", "dnmc")
"""The nine with one; the battery's four others are the same as some of these on the second ring."""


# --- populations ---------------------------------------------------------------------------------------------------


def network(scale: Mapping[str, Any], **changes: Any) -> LeakyRNN:
    """The paper's network, of ``n_units`` units at a step of ``dt`` ms:

        tau dr/dt = -r + relu(W r + W_in x + b + 0.1 eta),    y = sigmoid(W_out r),    tau = 100 ms

    eta is Ornstein-Uhlenbeck noise of time constant tau. Two fifths of the units receive input, the next two fifths are
    read out (0 to 19 and 20 to 39 of 50), the rest does neither. Defaults: the code released with the paper, which
    starts W from N(0, 1) / n_units and all else from N(0, 1); the paper names neither the noise nor the start. No time
    constant is held above the step (coarse steps exceed it, which is what they are asked about).

    Args:
        scale: a scale's entries.
        changes: options of the leaky RNN that take another value.

    >>> network({"n_units": 50, "dt": 5.0}).output_units
    (20, 40)
    """
    n = scale["n_units"]
    group = 2 * n // 5
    return LeakyRNN(
        **{
            "n_units": n,
            "activation": "relu",
            "self_interaction": "outside",
            "self_connection": True,
            "dt": scale["dt"],
            "tau": TAU,
            "tau_min": 1.0,
            "noise": 0.1,
            "noise_tau": TAU,
            "input_units": (0, group),
            "output_units": (group, 2 * group),
            "output_bias": False,
            "output_activation": "sigmoid",
            "recurrent_init": "normal",
            "recurrent_gain": n**-0.5,
            "input_init": "normal",
            "readout_init": "normal",
            "state_start": 0.0,
        }
        | changes
    )


def setup(
    scale: Mapping[str, Any],
    task: Task,
    method: Method,
    *,
    cell: LeakyRNN | None = None,
    members: int | None = None,
    monitors: tuple[Monitor, ...] = (CRITERION,),
    **training: Any,
) -> Setup:
    """One population trained as in the released code, by a scale's entries.

    Adam at 0.1 / n_units, ``batch`` trials a step, an evaluation every ``steps_per_epoch`` steps on
    ``evaluation_batches`` batches of fresh trials without jitter and on the base dynamics, ``steps`` steps at most, and
    1e-5 times the means of |r| and of |W| added to the loss. Each member has trials of its own (released: one batch
    for all). No weights are kept but the first and the last.
    """
    cell = cell or network(scale)
    n = cell.n_units
    return Setup(
        population=Population(members=scale["members"] if members is None else members),
        task=task,
        cell=cell,
        training=Training(
            **{
                "batch": scale["batch"],
                "epochs": scale["steps"] // scale["steps_per_epoch"],
                "steps_per_epoch": scale["steps_per_epoch"],
                "evaluation_batches": scale["evaluation_batches"],
                "optimizer": Adam(learning_rate=0.1 / n),
                "method": method,
                # "l1" sums over W
                "penalties": (Activity(power=1, strength=1e-5), L1(strength=1e-5 / n**2)),
                "monitors": monitors,
                "snapshots": "none",
            }
            | training
        ),
    )


def kind_of(name: str) -> tuple[str, int]:
    """A method's kind and theta, in steps of 5 ms.

    >>> kind_of("DASC40"), kind_of("control")
    (('DASC', 40), ('control', 1))
    """
    if name == "control":
        return name, 1
    found = re.fullmatch(r"(CD|SCTT|DASC)([1-9]\d*)", name)
    if not found:
        raise ConfigurationError(f"method '{name}': must be control, or CD, SCTT or DASC and theta{_hint(name)}")
    return found[1], int(found[2])


def _hint(name: str) -> str:
    return nearest(name, METHODS)


def method(
    name: str, scale: Mapping[str, Any], *, n_increments: int = 1, base_weight: float = 0.5, strategic: bool = False
) -> Method:
    """A training method by the name the paper's tables give it.

    Args:
        name: one of ``METHODS``, or with another theta (``"SCTT20"``).
        scale: a scale's entries; theta · 5 ms is held where ``dt`` is another step, as nearly as whole steps can.
        n_increments: changes on the way to the base dynamics, the paper's step count.
        base_weight: beta at the start; of no effect for control and CD.
        strategic: add the task's own skips. Control then has these alone, annealed like the others (in the released
            code they have no effect there).

    Raises:
        ConfigurationError: a name that is none; strategic skips with CD, which unrolls without skips.

    >>> method("DASC40", {"dt": 10.0, "annealing_steps": 20000}).span
    20
    """
    kind, theta = kind_of(name)
    annealing = {"n_increments": n_increments, "annealing_steps": scale["annealing_steps"]}
    if kind == "CD":
        if strategic:
            raise ConfigurationError(f"method '{name}': coarser steps and skips cannot be had together")
        return Coarsened(factor=max(theta * BASE_DT / scale["dt"], 1.0), **annealing)
    if kind == "control" and not strategic:
        return Control()
    skips = {"base_weight": base_weight, "strategic": "task" if strategic else None, **annealing}
    if kind == "control":
        return Skip(span=NEVER, **skips)
    return (Skip if kind == "SCTT" else AlignedSkip)(span=max(round(theta * BASE_DT / scale["dt"]), 1), **skips)


NEVER = 2**30
"""Steps of a skip that is longer than any trial."""


# --- learning curves -----------------------------------------------------------------------------------------------


def learning(run: Run) -> xr.Dataset:
    """``performance`` (evaluation, member) on the base dynamics and ``n_steps`` (evaluation), from a run's history.

    Of several rules it is the mean over those that the evaluation drew. Members that diverged have NaN from then on.
    Attributes: ``members``, those that ``diverged``, ``budget`` (steps), ``seconds`` (on the clock, with evaluations
    and compilation) and the ``machine``.
    """
    training = run.setup.training
    values = np.asarray(run.history[f"scores/{run.task.score}"], float)
    # a head for each rule, and blanks where a member has ended
    performance, _ = mean_and_error(values.reshape(len(values), run.n_members, -1))
    steps = training.steps_per_epoch * np.arange(1, len(values) + 1)
    machine = run.manifest.get("machine", {})
    return xr.Dataset(
        {"performance": (("evaluation", "member"), performance), "n_steps": ("evaluation", steps)},
        {"member": run.member_index},
        {
            "members": run.n_members,
            "diverged": run.outcome.count("diverged"),
            "budget": training.epochs * training.steps_per_epoch,
            "seconds": float(run.manifest.get("seconds") or np.nan),
            "machine": f"{machine.get('processor', '?')} x {machine.get('n_threads', '?')}",
        },
    )


def mean_curve(answer: xr.Dataset) -> np.ndarray:
    """``[evaluation]``: mean performance from the 10th to the 90th percentile, those that diverged counting as 0."""
    values = np.nan_to_num(answer["performance"].values.astype(float))
    return np.asarray(CRITERION.mean(values))


def steps_needed(answer: xr.Dataset) -> float:
    """Steps to the first evaluation at the criterion, infinite where there is none."""
    reached = np.flatnonzero(mean_curve(answer) >= CRITERION.threshold)
    return float(answer["n_steps"].values[reached[0]]) if len(reached) else float("inf")


def rise_at_the_end(answer: xr.Dataset) -> float:
    """How much the line through the last quarter of :func:`mean_curve` rises over that quarter (by least squares).

    NaN for fewer than two evaluations.
    """
    curve = mean_curve(answer)
    last = curve[-max(len(curve) // 4, 2) :]
    if len(last) < 2:
        return float("nan")
    slope = np.polyfit(np.arange(len(last)), last, 1)[0]
    return float(slope * (len(last) - 1))


# --- verdicts ------------------------------------------------------------------------------------------------------


def all_of(clauses: Iterable[bool | None]) -> bool | None:
    """Whether all clauses hold: ``False`` as soon as one does not, else ``None`` while one is open.

    >>> all_of([True, True]), all_of([True, None]), all_of([None, False]), all_of([])
    (True, None, False, None)
    """
    clauses = list(clauses)
    if any(c is False for c in clauses):
        return False
    return None if not clauses or any(c is None for c in clauses) else True


def at_least(clauses: Iterable[bool | None], n: int) -> bool | None:
    """Whether at least ``n`` clauses hold, ``None`` while that is open.

    >>> at_least([True, True, None], 2), at_least([True, None, False], 2), at_least([None, False, False], 2)
    (True, None, False)
    """
    clauses = list(clauses)
    if sum(c is True for c in clauses) >= n:
        return True
    return False if sum(c is not False for c in clauses) < n else None


def ten_thousands(steps: float) -> str:
    """Steps in units of 10,000, as in the paper's table.

    >>> ten_thousands(11_670), ten_thousands(float("inf"))
    ('1.167', 'failed')
    """
    return f"{steps / 1e4:.3f}" if np.isfinite(steps) else "failed"


def stand_ins(
    answers: Iterable[xr.Dataset], rule: Mapping[str, Any], units: Mapping[str, str], of_diverged: str
) -> list[str]:
    """Notes on what was not as a rule has it, and on members that diverged.

    Args:
        answers: with attributes named as the rule's entries; those without one are passed over.
        rule: a claim's entries.
        units: the entries to be compared, and what is written after a value.
        of_diverged: what is said of members that diverged, after that word.

    >>> stand_ins([xr.Dataset(attrs={"dt": 20.0, "diverged": 2})], {"dt": 5.0}, {"dt": " ms"}, "in training")
    ['stand-in: dt = 20 ms instead of 5', '2 members diverged in training']
    """
    answers, notes = list(answers), []
    for name, unit in units.items():
        found = {a.attrs[name] for a in answers if a.attrs.get(name, rule[name]) != rule[name]}
        notes += [f"stand-in: {name} = {value:g}{unit} instead of {rule[name]:g}" for value in sorted(found)]
    if gone := sum(a.attrs.get("diverged", 0) for a in answers):
        notes.append(f"{gone} members diverged {of_diverged}")
    return notes
