"""Judges of the recipes about the bottlenecked autoencoder, on planted answers."""

import numpy as np
import pytest
import xarray as xr

import poprnn as pr
from poprnn.core import catalogue
from poprnn.recipes.adapting_codes import practice, steps_needed
from poprnn.recipes.contract import scale_of
from poprnn.recipes.serial_and_parallel import label
from test_recipes import judged

pytestmark = pytest.mark.usefixtures("few_resamples")
MEMBERS = 8
SERIAL, CODE, ADAPTING = "serial_and_parallel", "sequential_code", "adapting_codes"


def noisy(values, scale=0.003, seed=0):
    values = np.asarray(values, float)
    return values + scale * np.random.default_rng(seed).normal(size=(MEMBERS, *values.shape))


def errors(error, reference=None, seed=0):
    error = noisy(error, seed=seed)
    time = np.arange(1, error.shape[1] + 1)
    variables = {"error": (("member", "time"), error)}
    if reference is not None:
        variables["reference"] = (("line", "time"), np.array([reference]))
    return xr.Dataset(variables, {"member": np.arange(MEMBERS), "time": time, "line": ["linear"]})


def column(d=8, n_steps=8, error=None, index=None, forward=None):
    """Answers about widths 1 … d; each function changes what the widths should give."""
    out = {}
    for k in range(1, d + 1):
        left = 1 - np.minimum(k * np.arange(1, n_steps + 1), d) / d
        gain = np.diff(np.minimum(k * np.arange(n_steps + 1), d))
        expected = gain.sum() ** 2 / (gain**2).sum()
        name = label(d, k, n_steps)
        out[f"{name}/errors"] = errors(error(k, left) if error else left, left, seed=k)
        found = noisy(index(k, expected) if index else expected, 0.02, seed=k)
        out[f"{name}/index"] = xr.Dataset({"index": ("member", found), "expected": expected})
        base = [1 - k / d]
        out[f"{label(d, k, 1, False)}/errors"] = errors(forward(k, base) if forward else base, seed=k + 50)
    return out


def test_planted_columns_pass():
    found = judged(SERIAL, column())
    assert [found[i].passed for i in ("B1", "B2", "B4")] == [True] * 3
    assert found["B1"].n == 7 * MEMBERS and found["B2"].n == found["B4"].n == 8 * MEMBERS
    assert found["B1"].interval[0] > 0


@pytest.mark.parametrize(
    ("claim", "planted"),
    [
        ("B1", dict(forward=lambda k, base: [0.0])),  # recurrence is of no use
        ("B1", dict(error=lambda k, left: np.where(np.arange(8) > 1, left, left[0]))),  # the second step brings nothing
        ("B1", dict(error=lambda k, left: left[0] + 0 * left)),  # neither does any later one
        ("B2", dict(error=lambda k, left: left + 0.031 * (np.arange(8) == 3))),
        ("B2", dict(error=lambda k, left: left - 0.04)),
        ("B4", dict(index=lambda k, expected: 9 - expected)),  # turned round
        ("B4", dict(index=lambda k, expected: 2.0)),
        ("B4", dict(index=lambda k, expected: expected + 0.6 * (k == 3))),
    ],
)
def test_planted_failures_of_columns(claim, planted):
    assert judged(SERIAL, column(**planted))[claim].passed is False


def test_shuffled_widths_do_not_pass():
    answers, rng = column(), np.random.default_rng(0)
    names = [name for name in answers if name.endswith("/index")]
    for _ in range(5):
        shuffled = answers | dict(zip(names, [answers[n] for n in rng.permutation(names)], strict=True))
        for name in names:  # the expectation stays with its width
            shuffled[name] = shuffled[name].assign(expected=answers[name]["expected"])
        assert judged(SERIAL, shuffled)["B4"].passed is False


def test_short_columns_are_open():
    claims = judged(SERIAL, column(n_steps=4))
    assert claims["B4"].passed is None and "T >= d" in claims["B4"].note and claims["B1"].passed is True
    few = {k: v for k, v in column().items() if "-k1-" in k or "-k2-" in k}
    assert judged(SERIAL, few)["B4"].passed is None


def test_the_map_is_every_width_and_step_that_makes_sense():
    scale = scale_of(SERIAL, "laptop", ["n_steps=[1,2]", "dimensions=[2,4]", "widths=[1,2,3]"])
    made = catalogue.find("recipes", SERIAL).experiments(scale)
    assert len(made) == (2 + 3) * 3
    one, forward = made["d4-k3-T2"], made["d4-k3-forward"]
    assert (one.cell.width, one.task.n_steps, one.task.n_inputs) == (3, 2, 4)
    assert (forward.task.n_steps, forward.cell.feedback, forward.cell.width) == (1, False, 3)
    assert one.training == forward.training and one.population == forward.population
    whole = catalogue.find("recipes", SERIAL).experiments(scale_of(SERIAL, "laptop", ["n_steps=[1,2,3,4,5,6,7,8]"]))
    assert len(whole) == 72 and {s.population.members for s in whole.values()} == {8}


def test_the_map_is_drawn():
    answers = column(d=3, n_steps=3) | column(d=3, n_steps=4)
    figures = catalogue.find("recipes", SERIAL).draw({}, answers)
    assert [drawing.name for drawing in figures["d = 3"]] == ["errors_d3", "serial_index_d3", "map_d3"]
    assert catalogue.find("recipes", SERIAL).draw({}, {}) == {}


# --- B3 -------------------------------------------------------------------------------------------------------------


def codes(share, rate, error=0.004, choice=None):
    """Answers about both ways; ``share``, ``rate`` of the relaxed members."""
    out = {}
    for name in ("relaxed", "straight_through"):
        mine = np.asarray(share if name == "relaxed" else np.full(MEMBERS, 0.3), float)
        rates = np.asarray(rate if name == "relaxed" else np.full(MEMBERS, 0.93), float)
        steps = np.array([1, 0.99, 0.98, 1.0])
        out[f"{name}/code"] = xr.Dataset(
            {
                "expansion": (("member", "time"), mine[:, None] * steps),
                "symbol": (("member", "word_place", "time"), np.zeros((MEMBERS, 2, 4), int)),
                "word": (("member", "trial"), np.zeros((MEMBERS, 30), int)),
                "input": ("trial", np.linspace(-1, 1, 30)),
            },
            {"time": np.arange(1, 5)},
        )
        chosen = mine if choice is None else np.asarray(choice, float)
        out[f"{name}/choice"] = xr.Dataset({"expansion": (("member", "time"), chosen[:, None] * steps)})
        out[f"{name}/information"] = xr.Dataset({"rate": ("member", rates)})
        path = error * np.array([64.0, 16.0, 4.0, 1.0])
        out[f"{name}/errors"] = errors(np.maximum(path, 1e-3), 4.0 ** -np.arange(1, 5))
    return out


ONE = np.r_[0.97, np.full(7, 0.3)]


@pytest.mark.parametrize(
    ("planted", "passed"),
    [
        (codes(ONE, np.full(MEMBERS, 0.99)), True),
        (codes(ONE, np.full(MEMBERS, 0.9)), True),
        (codes(ONE - 0.03, np.full(MEMBERS, 0.99)), False),  # no member codes so
        (codes(ONE, np.r_[0.89, np.full(7, 1.0)]), False),  # it sends too little, others' rates do not count
        (codes(ONE, np.full(MEMBERS, 0.99), choice=ONE[::-1]), False),  # chosen by luck, and not so good again
    ],
)
def test_b3_is_about_the_member_that_was_chosen(planted, passed):
    claim = judged(CODE, planted)["B3"]
    assert claim.passed is passed and "straight through" in claim.measured and claim.n == MEMBERS


def test_both_ways_differ_in_what_is_sent_alone():
    made = catalogue.find("recipes", CODE).experiments(scale_of(CODE, "laptop"))
    relaxed, plain = made["relaxed"], made["straight_through"]
    assert relaxed.replace("cell.relaxed_steps", 0) == plain and relaxed.cell.relaxed_steps == 12000
    assert relaxed.task.inputs == pr.distributions.Uniform(n_dimensions=1) and relaxed.task.n_steps == 4


def test_codes_are_drawn():
    figures = catalogue.find("recipes", CODE).draw({}, codes(ONE, np.full(MEMBERS, 0.99)))
    assert [d.name for d in (figures["errors"], figures["expansion"], *figures["codes"])] == [
        "errors", "expansion", "code_relaxed", "code_straight_through",
    ]  # fmt: skip


# --- B5, B6, B7 -----------------------------------------------------------------------------------------------------


def adapting(new=(0.5, 0.5, 0.6, 0.9, 0.98), scratch=1.0, shared=2.0, needs=None, even=None, ratio=(1.1, 1.4)):
    """Answers; by default all three claims hold."""
    step = np.array([-50, 0, 50, 100, 2000])
    new = noisy(new)
    shift = xr.Dataset(
        {
            "rate_new": (("member", "step"), new),
            "rate_old": (("member", "step"), np.ones((MEMBERS, 5))),
            "rate_before": ("member", np.ones(MEMBERS)),
            "steps_to_recover": ("member", np.r_[np.nan, np.full(MEMBERS - 1, 2000.0)]),
            "mutual_information": (("member", "step"), np.full((MEMBERS, 5), shared)),
            "word_entropy": (("member", "step"), np.full((MEMBERS, 5), 4.0)),
        },
        {"step": step, "member": np.arange(MEMBERS)},
    )
    out = {"shift": shift, "scratch": xr.Dataset({"rate": ("member", np.full(MEMBERS, scratch))})}
    flat = np.random.default_rng(0).permuted(np.tile(np.arange(8) % 5 + 1, (MEMBERS, 1)), axis=1)
    rising = np.tile(np.arange(8) // 2 + 1, (MEMBERS, 1)) + np.random.default_rng(1).integers(0, 2, (MEMBERS, 8))
    for name, steps in (
        ("zipf", rising if needs is None else needs(rising, flat)),
        ("even", flat if even is None else even(rising, flat)),
        ("zipf-early", np.full((MEMBERS, 8), 7)),
    ):
        small = np.arange(1, 7) >= steps[:, :, None]
        out[name] = xr.Dataset(
            {"error_by_kind": (("member", "pattern", "time"), np.where(small, 0.05, 0.5))}, {"pattern": np.arange(8)}
        )
    for name in ("continuous", "binary"):
        error = noisy(np.array([[0.5, 0.1], [0.5, 0.12]]))
        out[name] = xr.Dataset(
            {
                "error": (("member", "combinations", "time"), error),
                "mean_ratio": 1.2,
                "mean_ratio_low": ratio[0],
                "mean_ratio_high": ratio[1],
            },
            {"combinations": ["trained", "held out"], "member": np.arange(MEMBERS)},
        )
    return out


def test_planted_adaptation_passes():
    claims = judged(ADAPTING, adapting())
    assert [claims[i].passed for i in ("B5", "B6", "B7")] == [True] * 3
    assert (
        "7 of 8 members get back" in claims["B5"].measured and "in the median after 2000 steps" in claims["B5"].measured
    )
    assert claims["B6"].interval[0] > 0 and claims["B7"].interval == [1.1, 1.4]


@pytest.mark.parametrize(
    ("claim", "planted"),
    [
        ("B5", dict(new=(0.5, 0.85, 0.85, 0.85, 0.98))),  # no drop
        ("B5", dict(new=(0.5, 0.5, 0.6, 0.7, 0.9))),  # no recovery
        ("B5", dict(scratch=1.1)),  # others learn it better
        ("B5", dict(shared=3.9)),  # the words are the old ones
        ("B6", dict(needs=lambda rising, flat: rising[:, ::-1])),
        ("B6", dict(needs=lambda rising, flat: flat)),
        ("B6", dict(needs=lambda rising, flat: 0 * flat + 3)),
        ("B6", dict(even=lambda rising, flat: rising)),  # it is the patterns, not their frequencies
        ("B7", dict(ratio=(1.1, 2.1))),
    ],
)
def test_planted_failures_of_adaptation(claim, planted):
    assert judged(ADAPTING, adapting(**planted))[claim].passed is False


def test_b5_is_open_where_the_new_inputs_cannot_be_learned_at_all():
    claim = judged(ADAPTING, adapting(scratch=0.0))["B5"]
    assert claim.passed is None and "send nothing" in claim.note


def test_steps_needed_count_from_the_last_large_error():
    error = np.array([[[0.05, 0.5, 0.05, 0.01], [0.5, 0.5, 0.5, 0.5], [0.1, 0.1, 0.1, 0.1]]])
    found = xr.Dataset({"error_by_kind": (("member", "pattern", "time"), error)})
    assert steps_needed(found, 0.1).tolist() == [[3, 5, 1]]
    assert practice(found, 0.1)[0] == pytest.approx(-0.5)


def test_shift_and_scratch_have_the_same_time_on_the_new_inputs():
    scale = scale_of(ADAPTING, "laptop")
    made = catalogue.find("recipes", ADAPTING).experiments(scale)
    shift, alone = made["shift"], made["scratch"]
    assert shift.task.shifts == (alone.task.inputs,)
    trained = shift.training.epochs - shift.training.curriculum.epochs[0]
    assert trained * 50 == alone.training.epochs * alone.training.steps_per_epoch == scale["steps_after"]
    assert made["even"].task.inputs.exponent == 0 and made["zipf"].replace("task.inputs.exponent", 0.0) == made["even"]


def test_adaptation_is_drawn():
    figures = catalogue.find("recipes", ADAPTING).draw({}, adapting())
    assert set(figures) == {"shift", "practice", "combinations"}
