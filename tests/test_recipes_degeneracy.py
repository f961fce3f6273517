"""Judges on planted answers of the recipes about solution degeneracy, and the statistics they share."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import spearmanr

from poprnn.core import catalogue, recipe_files
from poprnn.recipes import _degeneracy as shared
from poprnn.recipes.contract import scale_of

pytestmark = pytest.mark.usefixtures("few_resamples")

K = 10
"""Members of a planted population."""


def judged(name, answers, **rule):
    """Verdicts of a recipe by claim id; ``D11={"share": 1.0}`` changes a rule."""
    about = recipe_files.read(name)
    for claim in about["claims"]:
        claim.update(rule.get(claim["id"], {}))
    return {c.id: c for c in catalogue.find("recipes", name).judge(answers, about)}


# --- planted populations --------------------------------------------------------------------------------------------


def between(mean, seed):
    """Distances of ten members with a mean, and a tenth of it as their spread."""
    values = mean * (1 + 0.1 * np.random.default_rng(seed).normal(size=(K, K)))
    return (values + values.T) / 2 * (1 - np.eye(K))


def of_each(mean, seed, spread=0.05):
    return mean * (1 + spread * np.random.default_rng(seed).normal(size=K))


def population(seed, *, dynamics=1.0, weights=1.0, better=None, start=1.0, dimensions=10.0, still=0.1, variation=0.05,
               entropy=(1.0, 1.0), spread=1.0, solved=K, **attributes):  # fmt: skip
    """What ``ask_all`` returns of a population with these means."""
    better = weights if better is None else better
    if solved < 3:
        return xr.Dataset(attrs={"members": K, "solved": solved, **attributes})
    error = np.linspace(1 - np.sqrt(3) * variation, 1 + np.sqrt(3) * variation, K)
    pairs = {"dynamics": dynamics, "identity": 2 * weights, "independent": weights, "conjugate": better}
    members = {"start": start, "dimensions": dimensions, "attractorness": still}
    found = {name: (("member", "other"), between(v, seed + i)) for i, (name, v) in enumerate(pairs.items())}
    found |= {name: ("member", of_each(v, seed + 10 + i)) for i, (name, v) in enumerate(members.items())}
    return xr.Dataset(
        {
            **found,
            "error_out": ("member", np.random.default_rng(seed).permutation(error)),
            "embedding": (("member", "dimension"), spread * np.random.default_rng(seed).normal(size=(K, 2))),
            "spread": spread,
            "input_entropy": entropy[0],
            "output_entropy": entropy[1],
        },
        {"member": np.arange(K)},
        {"members": K, "solved": solved, **attributes},
    )


LEVELS = {
    # family: means of input and output entropy, DSA distance, attractorness
    "flip_flop": ("flip_flop", 8.0, 8.0, 0.3, 0.1),
    "delayed_discrimination": ("delayed_discrimination", 6.0, 1.0, 0.9, 0.2),
    "sine_wave": ("sine_wave", 1.0, 5.0, 0.55, 0.3),
    "sine_wave_frequencies": ("sine_wave", 1.0, 5.0, 0.55, 0.3),
    "path_integration": ("path_integration", 6.0, 6.0, 0.45, 0.4),
}


def as_claimed(change=lambda family, level, options: options):
    """Three levels of every family, as the paper says they are; ``change`` plants a failure."""
    out = {}
    for place, (family, (task, x, y, dynamics, still)) in enumerate(LEVELS.items()):
        for level in range(3):
            share = 0.8 + 0.2 * level
            options = {
                "dynamics": dynamics / share,
                "weights": 1 + level,
                "better": 1 + level,
                "start": 1 + level,
                "dimensions": 5.0 + 5 * level,
                "still": still * (1 + 0.02 * level),
                "variation": 0.5 * dynamics / 3**level,
                "entropy": (x * share, y * share),
                "spread": dynamics / share,
            }
            options = change(family, level, options)
            label = f"{family}-{level + 1}"
            out[label] = population(100 * place + 20 * level, family=family, level=str(level), task=task, **options)
    return out


def test_what_the_paper_says_passes():
    for name, claim in judged("degeneracy_by_complexity", as_claimed()).items():
        assert claim.passed is True, (name, claim.measured)
        assert claim.n == 15 * K


def flat(what, where="sine_wave"):
    """One family without a trend in one measure."""

    def change(family, level, options):
        return options | ({what: as_options(family, 1)[what]} if family == where else {})

    return change


def as_options(family, level):
    kept = {}
    as_claimed(lambda f, k, options: kept.update({(f, k): options}) or options)
    return kept[family, level]


@pytest.mark.parametrize(
    ("claim", "what"),
    [
        ("D2", "dimensions"),
        ("D3", "dynamics"),
        ("D3", "spread"),
        ("D4", "weights"),
        ("D5", "start"),
        ("D6", "variation"),
    ],
)
def test_one_family_without_the_trend_fails(claim, what):
    found = judged("degeneracy_by_complexity", as_claimed(flat(what)))
    assert found[claim].passed is False
    assert [name for name, c in found.items() if c.passed is False] == [claim]


def test_the_weights_are_judged_by_the_papers_estimator():
    found = judged("degeneracy_by_complexity", as_claimed(flat("better")))["D4"]
    assert found.passed is True and "does not rise everywhere" in found.measured


def test_shuffled_levels_pass_nothing():
    order = {0: 1, 1: 2, 2: 0}
    shuffled = as_claimed(lambda family, level, options: as_options(family, order[level]))
    found = judged("degeneracy_by_complexity", shuffled)
    assert [found[claim].passed for claim in ("D2", "D3", "D4", "D5", "D6")] == 5 * [False]


def test_entropies_that_do_not_rise_or_stand_elsewhere_fail():
    alike = as_claimed(
        lambda f, k, o: o | {"entropy": as_options(f, 1)["entropy"] if f == "flip_flop" else o["entropy"]}
    )
    swapped = as_claimed(lambda f, k, o: o | {"entropy": o["entropy"][::-1]})
    for answers in (alike, swapped):
        assert judged("degeneracy_by_complexity", answers)["D1"].passed is False


def test_tasks_in_another_order_fail():
    """Delayed discrimination the most alike: D3 and, with it, the trend over output entropy."""
    lowered = as_claimed(
        lambda f, k, o: o | ({"dynamics": 0.3 * o["dynamics"]} if f == "delayed_discrimination" else {})
    )
    assert judged("degeneracy_by_complexity", lowered)["D3"].passed is False


def test_attractorness_that_explains_everything_fails():
    """D12: the distance follows attractorness alone; and flip-flop between the others."""
    explains = as_claimed(lambda f, k, o: o | {"dynamics": 5 * o["still"]})
    assert judged("degeneracy_by_complexity", explains)["D12"].passed is False
    between_ = as_claimed(lambda f, k, o: o | ({"still": 0.25} if f == "flip_flop" else {}))
    assert judged("degeneracy_by_complexity", between_)["D12"].passed is False


@pytest.mark.parametrize("name", ["degeneracy_by_complexity", "degeneracy_controls", "degeneracy_invariance"])
def test_nothing_is_judged_without_members(name):
    answers = {
        "degeneracy_by_complexity": as_claimed,
        "degeneracy_controls": controls,
        "degeneracy_invariance": unchanged,
    }[name]()
    for label in list(answers):
        answers[label] = xr.Dataset(attrs=answers[label].attrs | {"solved": 2})
    for claim in judged(name, answers).values():
        assert claim.passed is None and "2 of 10 members reached the loss" in claim.note


def test_a_missing_family_leaves_it_open():
    answers = {k: a for k, a in as_claimed().items() if a.attrs["family"] != "sine_wave"}
    for claim in judged("degeneracy_by_complexity", answers).values():
        assert claim.passed is None and "sine_wave" in claim.note


# --- controls -------------------------------------------------------------------------------------------------------


def controls(**changes):
    """What the paper says of D7 to D10; ``changes`` by label take the place of options."""
    plain = {"dynamics": 1.0, "weights": 2.0, "start": 3.0}
    planned = {
        "plain": plain,
        "auxiliary": plain | {"dynamics": 0.7, "weights": 2.6},
        "size-32": {"dynamics": 0.5, "weights": 32.0**2 * 0.5},
        "size-64": {"dynamics": 0.8, "weights": 64.0**2 * 0.8},
        "size-128": {"dynamics": 1.1, "weights": 128.0**2 * 1.1},
    }
    for place, strength in enumerate((1e-5, 1e-4, 1e-3)):
        lower = {name: v * (0.8 - 0.2 * place) for name, v in plain.items()}
        planned |= {f"nuclear_norm-{strength:g}": lower, f"l1-{strength:g}": lower}
    out = {}
    for place, (label, options) in enumerate(planned.items()):
        kind, _, amount = label.partition("-")
        units = int(amount) if kind == "size" else 128
        how = {"kind": kind, "amount": float(amount or 0), "n_units": units}
        out[label] = population(50 * place, **options | changes.get(label, {}), **how)
    out["auxiliary"] = out["auxiliary"].assign(
        slow_line=("member", np.full(K, 0.97)), slow_correlation=("member", np.full(K, 0.99))
    )
    return out


def test_controls_as_the_paper_says_pass():
    for name, claim in judged("degeneracy_controls", controls()).items():
        assert claim.passed is True, (name, claim.measured)


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("D7", {"auxiliary": {"dynamics": 1.3}}),
        ("D7", {"auxiliary": {"weights": 1.5}}),
        ("D8", {"size-32": {"dynamics": 1.5}}),
        ("D8", {"size-32": {"weights": 32.0**2 * 1.5}}),
        ("D9", {"nuclear_norm-0.001": {"start": 9.0}}),
        ("D9", {"nuclear_norm-0.001": {"weights": 9.0}}),
        ("D10", {"l1-0.001": {"dynamics": 9.0}}),
        ("D10", {"l1-0.001": {"weights": 9.0}}),
    ],
)
def test_a_control_that_works_the_other_way_fails(claim, changes):
    found = judged("degeneracy_controls", controls(**changes))
    assert [name for name, c in found.items() if c.passed is False] == [claim]


def test_slow_points_off_the_line_fail():
    for name, value in (("slow_line", 0.6), ("slow_correlation", 0.5), ("slow_line", np.nan)):
        answers = controls()
        answers["auxiliary"][name][:2] = value  # two of ten: below the share asked for
        assert judged("degeneracy_controls", answers)["D7"].passed is False


# --- what changes nothing -------------------------------------------------------------------------------------------


def unchanged(**changes):
    labels = ("delay-plain", "delay-2", "arena-plain", "arena-0.8", "arena-1.5")
    return {
        label: population(30 * place, **changes.get(label, {}), kind=label.partition("-")[0])
        for place, label in enumerate(labels)
    }


def test_invariance_is_an_interval_within_the_margin():
    assert judged("degeneracy_invariance", unchanged())["D13"].passed is True
    for changes in ({"delay-2": {"dynamics": 1.2}}, {"arena-0.8": {"weights": 0.8}}):
        assert judged("degeneracy_invariance", unchanged(**changes))["D13"].passed is False
    # no difference is not enough where there is too little to say so: a margin narrower than the interval
    assert judged("degeneracy_invariance", unchanged(), D13={"within": 1e-4})["D13"].passed is False


# --- fixed points ---------------------------------------------------------------------------------------------------


def settled(**changes):
    """What D11 says, of ten members each."""
    each = lambda value: ("member", np.full(K, value))
    where = {"member": np.arange(K)}
    values = {
        "flip_flop": {"n_stable": each(8), "n_corners": each(8), "from_corner": each(0.05)},
        "delayed_discrimination": {"n_stable": each(5), "n_slow": each(9)},
        "sine_wave": {
            "cycling": (("member", "frequency"), np.ones((K, 3))),
            "period": (("member", "frequency"), np.tile([100.0, 6.5, 3.4], (K, 1))),
            "wanted": ("frequency", np.array([100.0, 6.45, 3.33])),
        },
        "path_integration": {"plane": each(0.95), "fit": each(0.97), "span": each(0.8), "n_slow": each(300)},
    }
    expected = {"flip_flop": {"expected": 8}, "delayed_discrimination": {"expected": 5}}
    out = {k: xr.Dataset(v, where, {"members": K, "solved": K, **expected.get(k, {})}) for k, v in values.items()}
    for label, (name, value, n) in changes.items():
        out[label][name].values[:n] = value
    return out


def test_fixed_points_as_claimed_pass():
    (claim,) = judged("fixed_points_by_task", settled()).values()
    assert claim.passed is True and claim.n == 4 * K
    assert claim.interval[0] == pytest.approx(0.722, abs=1e-3)  # Wilson's of 10 of 10
    # one member in ten may differ
    assert judged("fixed_points_by_task", settled(flip_flop=("n_stable", 7, 1)))["D11"].passed is True


@pytest.mark.parametrize(
    "change",
    [
        {"flip_flop": ("n_stable", 7, 2)},
        {"flip_flop": ("n_corners", 7, 2)},
        {"flip_flop": ("from_corner", 0.3, 2)},
        {"flip_flop": ("from_corner", np.nan, 2)},
        {"delayed_discrimination": ("n_stable", 4, 2)},
        {"sine_wave": ("cycling", 0.5, 2)},
        {"sine_wave": ("period", 50.0, 2)},
        {"sine_wave": ("period", np.nan, 2)},
        {"path_integration": ("plane", 0.8, 2)},
        {"path_integration": ("fit", np.nan, 2)},
        {"path_integration": ("span", 0.1, 2)},
    ],
)
def test_two_members_in_ten_that_settle_elsewhere_fail(change):
    assert judged("fixed_points_by_task", settled(**change))["D11"].passed is False


def test_a_task_that_nobody_solved_leaves_it_open():
    answers = settled()
    answers["sine_wave"] = xr.Dataset(attrs={"members": K, "solved": 0})
    claim = judged("fixed_points_by_task", answers)["D11"]
    assert claim.passed is None and "sine_wave" in claim.note


# --- ways of training -----------------------------------------------------------------------------------------------


def trained(**changes):
    names = {"curriculum": ("single_head", "multi_head", "none"), "method": ("control", "CD10", "SCTT40", "DASC40")}
    return {
        f"{kind}-{name}": population(10 * i + 1000 * len(kind), **changes.get(name, {}), kind=kind, name=name)
        for kind, mine in names.items()
        for i, name in enumerate(mine)
    }


def test_ways_of_training_differ_where_they_do():
    same = judged("degeneracy_across_training", trained())
    assert [same[k].passed for k in ("X1", "X2")] == [False, False]
    found = judged("degeneracy_across_training", trained(multi_head={"dynamics": 0.6}, DASC40={"dynamics": 1.5}))
    assert [found[k].passed for k in ("X1", "X2")] == [True, True]
    assert found["X1"].interval[1] < 0 < found["X2"].interval[0]
    # another measure does not decide
    other = judged("degeneracy_across_training", trained(multi_head={"weights": 0.1}))
    assert other["X1"].passed is False


def test_without_the_plain_way_nothing_is_compared():
    found = judged("degeneracy_across_training", trained(single_head={"solved": 1}, none={"solved": 0}))
    assert found["X1"].passed is None and "curriculum single_head: 1 of 10" in found["X1"].note
    assert found["X2"].passed is False


# --- statistics -----------------------------------------------------------------------------------------------------


def test_means_over_pairs_leave_out_a_member_and_itself():
    a = population(0, dynamics=2.0)
    places = np.array([0, 0, 3, 5])
    values = a["dynamics"].values
    wanted = np.mean([values[i, j] for i in places for j in places if i != j])
    assert shared.mean_of("dynamics")(a, places) == pytest.approx(wanted)
    assert shared.mean_of("dynamics")(a, np.array([2, 2])) == pytest.approx(values[2].sum() / (K - 1))


def test_partial_correlation_is_that_of_residuals_of_ranks():
    random = np.random.default_rng(0)
    z = random.permutation(12) + 0.0
    x, y = random.permutation(z + 3 * random.normal(size=12)), z + 3 * random.normal(size=12)
    ranks = [np.argsort(np.argsort(v)) + 0.0 for v in (x, y, z)]
    design = np.column_stack([ranks[2], np.ones(12)])
    left = [r - design @ np.linalg.lstsq(design, r, rcond=None)[0] for r in ranks[:2]]
    assert shared._partial(x, y, z) == pytest.approx(np.corrcoef(*left)[0, 1])
    assert shared.spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert shared.spearman(x, np.ones(12)) == 0


def test_conditions_of_a_scale_are_the_papers():
    scale = scale_of("degeneracy_by_complexity", "paper")
    found = shared.conditions(scale)
    assert len(found) == 15
    assert [found[f"flip_flop-{k}"].task.n_channels for k in (1, 2, 3)] == [2, 3, 4]
    assert [found[f"sine_wave_frequencies-{k}"].task.n_frequencies for k in (1, 2, 3)] == [3, 10, 30]
    made = shared.setup(scale, found["delayed_discrimination-1"].task)
    assert (made.cell.n_units, made.training.batch, made.training.epochs) == (128, 256, 500)
    assert made.training.optimizer.learning_rate.peak == 1e-3
    (monitor,) = made.training.monitors
    assert (monitor.loss, monitor.patience) == (0.05, 3)
    made = shared.setup(scale, found["path_integration-2"].task)
    assert made.training.monitors[0].loss == 0.3 and made.task.n_dimensions == 3
