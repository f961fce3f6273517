"""Judges on planted answers of the recipes about skip connections through time, and what they share."""

import itertools
import json
import re

import numpy as np
import pytest
import xarray as xr
from scipy.stats import binom

import poprnn as pr
from conftest import call
from poprnn.analysis.contract import load_result
from poprnn.core import catalogue, recipe_files
from poprnn.recipes import _long_dependencies as shared
from poprnn.recipes.contract import reproduce, scale_of
from poprnn.recipes.skip_connections import populations
from poprnn.tasks._cognitive_rules import RULES

pytestmark = pytest.mark.usefixtures("few_resamples")

INF = float("inf")
METHODS = ("control", "CD10", "SCTT10", "SCTT40", "DASC10", "DASC40")
PAPER = {
    "dmc": (0.196, 0.251, 1.089, 0.907, 0.244, 0.343),
    "dnmc": (0.203, 0.282, 1.089, 0.916, 0.252, 0.558),
    "dnms": (1.167, 1.311, 1.269, 1.299, 0.993, 1.065),
    "dms": (1.324, 1.079, 1.293, 1.282, 1.469, 1.041),
    "ctxdlydm1": (1.900, 1.465, 1.270, 1.018, 1.757, 1.059),
    "dlydm1": (2.413, 2.030, 1.283, 1.088, 2.129, 1.055),
    "multsendlydm": (3.434, 2.096, 1.269, 1.071, 2.196, 1.121),
    "dlyanti": (INF, INF, 1.268, 1.088, INF, 1.005),
    "dlygo": (INF, INF, 1.106, 1.268, INF, 1.003),
}
"""The paper's table 1, steps in 10,000."""
BUDGET = 40_000


def judged(name, answers, **rule):
    """Verdicts of a recipe by claim id; ``L2={"flat": 1}`` changes a rule."""
    about = recipe_files.read(name)
    for claim in about["claims"]:
        claim.update(rule.get(claim["id"], {}))
    return {c.id: c for c in catalogue.find("recipes", name).judge(answers, about)}


# --- curves ---------------------------------------------------------------------------------------------------------


def curve(steps, *, members=100, level=0.85, rise=0.0, budget=BUDGET, price=1.0, **attributes):
    """A learning curve that reaches 0.99 at ``steps`` (infinite: stays at ``level``, rising by ``rise`` at the end)."""
    end = budget if np.isinf(steps) else steps
    # rounded up: the last evaluation is the one at the criterion
    at = end * np.arange(1, 41) / 40
    base = np.full(40, level)
    base[30:] += rise * np.arange(10) / 9
    if np.isfinite(steps):
        base[-1] = 0.999
    attributes = {"part": "table", "n_increments": 1, "base_weight": 0.5, "dt": 5.0, **attributes}
    return xr.Dataset(
        {
            "performance": (("evaluation", "member"), np.repeat(base[:, None], members, 1)),
            "n_steps": ("evaluation", at),
        },
        {"member": np.arange(members)},
        {
            "members": members,
            "diverged": 0,
            "budget": budget,
            "seconds": price * end,
            "operations": price * end,
            "machine": "one",
            **attributes,
        },
    )


def table(changes=(), prices=(), tasks=PAPER, methods=METHODS, **options):
    """The paper's table as answers; ``changes`` and ``prices`` (of a step) by (task, method)."""
    out = {}
    for task, (place, name) in itertools.product(tasks, enumerate(METHODS)):
        if name in methods:
            steps = dict(changes).get((task, name), PAPER[task][place] * 1e4)
            price = dict(prices).get((task, name), 1.0)
            out[f"{task}-{name}"] = curve(steps, price=price, task=task, method=name, **options)
    return out


SHORT = dict.fromkeys(shared.SHORT, 500.0)
DELAYED = {t: PAPER[t][0] * 1e4 for t in PAPER}


def by_rule(steps=None, **options):
    """Answers about all rules, trained with control."""
    options = {"method": "control", **options}
    return {
        f"{task}-rules": curve(value, task=task, part="rules", **options)
        for task, value in (SHORT | DELAYED | (steps or {})).items()
        if value is not None
    }


def everything(**options):
    return table(**options) | by_rule(**options)


# --- what they share ------------------------------------------------------------------------------------------------


def test_the_network_and_its_training_are_the_released_ones():
    """Every number of the base network, from the science of the paper and its code."""
    made = shared.setup(
        scale_of("skip_connections", "paper"),
        pr.tasks.Cognitive(rule="dlygo", dt=5.0),
        shared.method("control", {"dt": 5.0, "annealing_steps": 20_000}),
    )
    cell, training = made.cell, made.training
    assert (cell.n_units, cell.tau, cell.dt, cell.activation, cell.output_activation) == (50, 100, 5, "relu", "sigmoid")
    assert (cell.input_units, cell.output_units) == ((0, 20), (20, 40))
    assert (cell.noise, cell.noise_tau, cell.state_start, cell.output_bias) == (0.1, 100, 0, False)
    assert training.optimizer == pr.optimizers.Adam(learning_rate=0.002)
    assert training.batch == 20 and training.steps_per_epoch == 10 and training.epochs == 4000
    assert training.batch * training.evaluation_batches == 200
    assert made.population.members == 100
    # the start: W ~ N(0, 1) / n, and all else ~ N(0, 1)
    import jax

    start = cell.init(85, 33, key=jax.random.key(0)).trainable
    assert float(start["W"].std() * 50) == pytest.approx(1, rel=0.05)
    for name in ("W_in", "W_out"):
        assert float(start[name].std()) == pytest.approx(1, rel=0.05)
    # the penalties are 1e-5 times the means of |r| and |W|
    activity, weights = training.penalties
    W = np.random.default_rng(0).normal(size=(50, 50)).astype(np.float32)
    assert float(activity.strength * activity.on_activity(W[0])) == pytest.approx(1e-5 * np.abs(W[0]).mean(), rel=1e-5)
    assert float(weights.strength * weights.on_array(W)) == pytest.approx(1e-5 * np.abs(W).mean(), rel=1e-5)
    assert weights.arrays == ("W",)


@pytest.mark.parametrize("dt", [5.0, 10.0, 20.0, 50.0])
def test_skips_span_the_same_time_at_every_step(dt):
    scale = {"dt": dt, "annealing_steps": 20_000}
    assert shared.method("SCTT40", scale).span * dt == 200
    assert shared.method("DASC40", scale).span * dt == 200
    assert shared.method("CD20", scale).factor * dt == 100
    assert shared.method("CD10", scale | {"dt": 100.0}).factor == 1


def test_annealing_follows_the_papers_example():
    """DASC, 5 steps, beta_0 = 0.5: 0.5, 0.6 … 1.0 over 20,000 steps."""
    made = shared.method("DASC40", {"dt": 5.0, "annealing_steps": 20_000}, n_increments=5, base_weight=0.5)
    seen = [float(made.schedule(n)["weight"]) for n in range(1700, 20_000, 3400)]
    np.testing.assert_allclose(seen, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0], rtol=1e-6)


@pytest.mark.parametrize("name", ["dasc", "DASC", "DASC0", "CD", "XX10", "SCTT4O"])
def test_unknown_methods_are_refused(name):
    with pytest.raises(pr.ConfigurationError, match="must be control, or CD, SCTT or DASC"):
        shared.kind_of(name)


def test_control_with_strategic_skips_has_these_alone():
    scale = {"dt": 5.0, "annealing_steps": 5000}
    made = shared.method("control", scale, strategic=True)
    assert made.strategic == "task" and made.span > 10**6 and float(made.schedule(0)["weight"]) == 0.5
    assert shared.method("control", scale) == pr.methods.Control()
    with pytest.raises(pr.ConfigurationError, match="cannot be had together"):
        shared.method("CD10", scale, strategic=True)


def test_the_mean_curve_is_the_criterions():
    """Against sorting by hand: of ten members the first and the last are left out; who diverged counts as 0."""
    values = np.random.default_rng(1).uniform(0.5, 1, (7, 10))
    values[3:, 4] = np.nan
    answer = curve(INF, members=10).isel(evaluation=slice(7)).assign(performance=(("evaluation", "member"), values))
    by_hand = [sum(sorted(0 if np.isnan(v) else v for v in row)[1:9]) / 8 for row in values]
    np.testing.assert_allclose(shared.mean_curve(answer), by_hand)


@pytest.mark.parametrize(("lowest", "highest"), [(0.1, 0.9), (0.0, 1.0), (0.25, 0.3), (0.3, 0.7)])
def test_middle_members_are_those_that_reach_between_the_percentiles(lowest, highest):
    """Member i of n takes the share from i / n to (i + 1) / n, in whole numbers: no rounding error moves an end."""
    monitor = pr.monitors.TrimmedMean(lowest=lowest, highest=highest)
    low, high = round(100 * lowest), round(100 * highest)
    for n in range(1, 200):
        wanted = [i for i in range(n) if 100 * (i + 1) > low * n and 100 * i < high * n]
        assert list(range(n))[monitor.middle(n)] == wanted


def test_steps_needed_are_those_of_the_first_evaluation_at_the_criterion():
    answer = curve(12_000.0, members=10)
    assert shared.steps_needed(answer) == 12_000
    later = answer.assign(performance=answer["performance"] * 0.9)
    assert shared.steps_needed(later) == INF
    early = answer["performance"].copy()
    early[4] = 0.99
    assert shared.steps_needed(answer.assign(performance=early)) == 12_000 * 5 / 40


def test_rise_at_the_end_is_that_of_a_line():
    assert shared.rise_at_the_end(curve(INF, rise=0.05)) == pytest.approx(0.05)
    assert shared.rise_at_the_end(curve(INF, rise=-0.05)) == pytest.approx(-0.05)
    assert shared.rise_at_the_end(curve(INF)) == pytest.approx(0, abs=1e-12)
    assert np.isnan(shared.rise_at_the_end(curve(INF).isel(evaluation=slice(1))))


def test_three_valued_logic_is_that_of_all_ways_to_fill_in():
    """What is open is what depends on how the open clauses come out."""
    for n, clauses in itertools.product((1, 2, 3), itertools.product((True, False, None), repeat=4)):
        filled = list(itertools.product(*[(c,) if c is not None else (True, False) for c in clauses]))
        outcomes = {sum(f) >= n for f in filled}
        assert shared.at_least(clauses, n) is (outcomes.pop() if len(outcomes) == 1 else None)
        outcomes = {all(f) for f in filled}
        assert shared.all_of(clauses) is (outcomes.pop() if len(outcomes) == 1 else None)


# --- skip_connections -----------------------------------------------------------------------------------------------


def test_populations_are_the_cells_asked_for():
    laptop = {p.label: p for p in populations(scale_of("skip_connections", "laptop"))}
    cells = {(p.task, p.method) for p in laptop.values() if p.part == "table"}
    assert cells == {
        *(("dlygo", m) for m in ("control", "SCTT40", "DASC40")),
        *(("dlydm1", m) for m in ("control", "DASC40")),
        ("all", "DASC40"),
    }
    rules = [p for p in laptop.values() if p.part == "rules"]
    assert len({p.task for p in rules}) == 20 and {(p.method, p.members) for p in rules} == {("control", 4)}
    paper = [p for p in populations(scale_of("skip_connections", "paper")) if p.part == "table"]
    assert len(paper) == (9 + 1) * (1 + 3 + 4 * 9)
    assert {p.members for p in paper if p.task != "all"} == {100}


def test_cells_are_found_by_their_aliases_and_misspellings_are_named():
    scale = scale_of("skip_connections", "laptop", ['tasks=["dgo"]', "leave_out=[]", "rules=[]", 'methods=["CD10"]'])
    assert [p.label for p in populations(scale)] == ["dlygo-CD10-n1"]
    with pytest.raises(pr.ConfigurationError, match=re.escape("did you mean 'dlygo control'")):
        populations(scale | {"methods": ["control"], "leave_out": ["dlygo contrl"]})
    with pytest.raises(pr.ConfigurationError, match="must not repeat"):
        populations(scale | {"n_increments": [5, 5]})


def test_all_rules_may_be_learnt_by_one_network():
    scale = scale_of("skip_connections", "laptop", ['tasks=["all", "dgo"]', "leave_out=[]", "rules=[]"])
    made = catalogue.find("recipes", "skip_connections").experiments(scale)
    assert {k: s.population.members for k, s in made.items() if k.startswith("all")} == {
        "all-control": 4,
        "all-SCTT40-n1-b0.5": 4,
        "all-DASC40-n1-b0.5": 4,
    }
    one, other = (made[f"{task}-DASC40-n1-b0.5"] for task in ("all", "dlygo"))
    assert one.task.rules == pr.tasks.Cognitive(rule="all").rules and len(one.task.rules) == 20
    assert one.replace("task", other.task).replace("population.members", 10) == other


def test_no_claim_is_judged_by_the_network_of_all_rules():
    together = {f"all-{m}": curve(100.0, task="all", method=m, dt=10.0, members=3) for m in METHODS}
    assert judged("skip_connections", everything() | together) == judged("skip_connections", everything())


def test_the_performance_of_several_rules_is_their_mean():
    """Over the rules that an evaluation drew; NaN where a member has ended."""
    setup = catalogue.find("recipes", "skip_connections").experiments(scale_of("skip_connections", "smoke"))
    values = np.random.default_rng(0).uniform(size=(3, 2, 20))
    values[1, 0, 4:], values[2, 1] = np.nan, np.nan
    run = pr.Run(setup["all-DASC40-n1-b0.5"], None, None, ["budget_spent"] * 2, history={"scores/performance": values})
    found = shared.learning(run)["performance"].values
    wanted = [[row[~np.isnan(row)].mean() if not np.isnan(row).all() else np.nan for row in rows] for rows in values]
    np.testing.assert_allclose(found, wanted)


@pytest.mark.slow
def test_the_network_of_all_rules_is_carried_out(tmp_path):
    """Trained, and every rule scored on trials of its own."""
    module, entries = catalogue.find("recipes", "skip_connections"), ['tasks=["all"]', 'methods=["DASC40"]']
    reproduce(module, "smoke", tmp_path / "out", overrides=[*entries, "leave_out=[]", "rules=[]", "all_trials=400"])
    label = "all-DASC40-n1-b0.5"
    kept = load_result(tmp_path / "out" / "answers" / label / "performance.json").data["performance"]
    assert kept.dims == ("member", "head") and kept["head"].values.tolist() == list(RULES)
    assert kept.notnull().all() and ((kept >= 0) & (kept <= 1)).all()
    assert "performance_by_rule" in (tmp_path / "out" / "report.html").read_text()


def test_the_same_cell_of_two_calls_is_one_population(tmp_path):
    """What a call trains, the next one finds, whatever else either asks for."""
    from poprnn.recipes._populations import Populations

    module, store = catalogue.find("recipes", "skip_connections"), Populations(tmp_path)
    whole = module.experiments(scale_of("skip_connections", "laptop"))
    one = module.experiments(scale_of("skip_connections", "laptop", ['tasks=["dlygo"]', "leave_out=[]", "rules=[]"]))
    assert len({store.key(setup) for setup in whole.values()}) == len(whole)
    for label, setup in one.items():
        assert store.key(setup) == store.key(whole[label])


def test_the_papers_table_passes():
    found = judged("skip_connections", everything())
    assert [found[c].passed for c in ("L1", "L2", "L4")] == [True, True, True]
    assert "n_steps" not in found["L1"].measured and "steps: fewer than others on 7, not on 2" in found["L1"].measured
    assert "dlygo control failed" in found["L1"].measured and "dms DASC40 1.041" in found["L1"].measured
    assert found["L1"].n == 54 * 100 and not any("stand-in: 1" in c.note for c in found.values())


FASTER = {(t, "control"): 100.0 for t in ("dms", "dnms", "dlydm1")}
DEAR = {(t, m): 100.0 for t in ("dms", "dnms", "dlydm1") for m in METHODS[2:]}


@pytest.mark.parametrize(
    "changes",
    [
        {"changes": FASTER},
        {"prices": DEAR},
        {"changes": {(t, m): INF for t in PAPER for m in METHODS}},
        {"changes": {(t, m): 5000.0 for t in PAPER for m in METHODS}},
        {
            "changes": {
                (t, m): PAPER[t][i] * 1e4 for t in PAPER for m, i in zip(METHODS, (5, 3, 2, 1, 4, 0), strict=True)
            }
        },
    ],
    ids=["control faster on three more", "skips dearer a step", "all failed", "all alike", "methods swapped"],
)
def test_l1_fails_where_planted(changes):
    assert judged("skip_connections", table(**changes))["L1"].passed is False


@pytest.mark.parametrize("name", ["seconds", "operations"])
def test_l1_asks_for_time_and_for_operations(name):
    dear = table()
    for (task, m), price in DEAR.items():
        dear[f"{task}-{m}"].attrs[name] *= price
    assert judged("skip_connections", dear)["L1"].passed is False


def test_l1_with_shuffled_methods_passes_by_chance_only():
    """Four of the six methods are skips, so a shuffled row has its smallest among them in two cases of three."""
    rng, passed = np.random.default_rng(0), 0
    for _ in range(30):
        changes = {
            (task, m): row[i] * 1e4
            for task, row in PAPER.items()
            for m, i in zip(METHODS, rng.permutation(6), strict=True)
        }
        passed += judged("skip_connections", table(changes))["L1"].passed is True
    by_chance = 1 - binom.cdf(6, 9, 4 / 6)
    assert passed / 30 < by_chance + 0.15  # 0.38; time and operations make it fewer


def test_l1_is_open_where_cells_are_missing_and_says_which():
    claim = judged("skip_connections", table(tasks=["dlygo", "dlydm1"], methods=["control", "DASC40"]))["L1"]
    assert claim.passed is None and "not filled: dmc control, dmc CD10" in claim.note
    assert "seconds: fewer than control on 2, not on 0, open on 7" in claim.measured
    assert "steps: fewer than others on 0, not on 0, open on 9" in claim.measured
    assert judged("skip_connections", {})["L1"].passed is None


def test_l1_is_decided_as_soon_as_no_missing_cell_can_change_it():
    answers = table()
    for task in ("dmc", "dnmc"):
        del answers[f"{task}-DASC40"]
    assert judged("skip_connections", answers)["L1"].passed is True
    against = table(FASTER)
    del against["dlygo-CD10"]
    assert judged("skip_connections", against)["L1"].passed is False
    # a control that is missing from a third task leaves it open
    answers = {k: v for k, v in table().items() if k not in ("dms-control", "dnms-control", "dlydm1-control")}
    assert judged("skip_connections", answers)["L1"].passed is None


def test_l1_does_not_take_a_small_budget_for_a_failure():
    claim = judged("skip_connections", table({(t, "control"): INF for t in PAPER}, budget=400))["L1"]
    assert claim.passed is None and "fewer than 40000 steps: dmc control" in claim.note


def test_l1_says_what_is_smaller_and_what_was_chosen():
    note = judged("skip_connections", table(members=10, dt=10.0))["L1"].note
    assert "10 members instead of 100" in note and "a step of 10 ms instead of 5" in note
    assert "one setting of the hyperparameters (n_increments = 1, beta from 0.5)" in note
    slow = {f"{k}-slow": v for k, v in table({(t, "DASC40"): 39_000.0 for t in PAPER}, n_increments=5).items()}
    claim = judged("skip_connections", table() | slow)["L1"]
    assert claim.passed is True and "the best of up to 2 settings was chosen" in claim.note
    assert "dlygo DASC40 1.003" in claim.measured
    elsewhere = table()
    elsewhere["dms-control"].attrs["machine"] = "other"
    assert "2 kinds of machine" in judged("skip_connections", elsewhere)["L1"].note


@pytest.mark.parametrize("task", ["dlygo", "dlyanti"])
@pytest.mark.parametrize(
    ("name", "steps"),
    [("control", 39_000.0), ("CD10", 12_000.0), ("DASC10", 12_000.0)]
    + [(m, s) for m in ("SCTT10", "SCTT40", "DASC40") for s in (INF, 17_000.0, 2_000.0)],
)
def test_l2_fails_where_one_cell_is_wrong(task, name, steps):
    assert judged("skip_connections", table({(task, name): steps}))["L2"].passed is False


@pytest.mark.parametrize("rise", [0.05, -0.05, 0.011])
@pytest.mark.parametrize("name", ["control", "CD10", "DASC10"])
def test_l2_fails_where_a_network_still_gets_better_or_worse(name, rise):
    answers = table()
    answers[f"dlyanti-{name}"] = curve(INF, rise=rise, task="dlyanti", method=name)
    claim = judged("skip_connections", answers)["L2"]
    assert claim.passed is False and f"{rise:.3g}" in claim.measured


def test_l2_passes_at_its_bounds():
    edge = {("dlygo", "SCTT40"): 16_250.0, ("dlyanti", "DASC40"): 7_500.0}
    answers = table(edge)
    answers["dlyanti-control"] = curve(INF, rise=0.0099, task="dlyanti", method="control")
    assert judged("skip_connections", answers)["L2"].passed is True


def test_l2_is_open_with_missing_cells_unless_one_already_fails():
    some = table(tasks=["dlygo"], methods=["control", "SCTT40", "DASC40"])
    claim = judged("skip_connections", some)["L2"]
    assert claim.passed is None and "not filled: dlygo CD10, dlygo DASC10, dlygo SCTT10, dlyanti control" in claim.note
    some["dlygo-control"] = curve(9000.0, task="dlygo", method="control")
    assert judged("skip_connections", some)["L2"].passed is False
    short = table({("dlygo", "DASC40"): INF}, budget=400)
    claim = judged("skip_connections", short)["L2"]
    assert claim.passed is None and "fewer than 40000 steps" in claim.note
    longer = judged("skip_connections", table({("dlygo", "DASC40"): INF}, budget=20_000))["L2"]
    assert longer.passed is False and "dlygo DASC40" not in longer.note.partition("not judged")[2]


def test_l2_fails_with_swapped_methods():
    swapped = {"control": "DASC40", "CD10": "SCTT40", "DASC10": "SCTT10"}
    swapped |= {b: a for a, b in swapped.items()}
    answers = table({(t, m): PAPER[t][METHODS.index(swapped[m])] * 1e4 for t in PAPER for m in METHODS})
    assert judged("skip_connections", answers)["L2"].passed is False


@pytest.mark.parametrize(
    "steps",
    [
        {"go": 11_700.0},
        {"multsendm": INF},
        {"dnms": 400.0},
        dict.fromkeys([*SHORT, *DELAYED], 500.0),
        dict.fromkeys(DELAYED, 500.0) | dict.fromkeys(SHORT, 9000.0),
    ],
    ids=["one short is slow", "one short failed", "one with a delay is fast", "all alike", "swapped"],
)
def test_l4_fails_where_planted(steps):
    assert judged("skip_connections", by_rule(steps))["L4"].passed is False


def test_l4_does_not_compare_with_the_category_tasks():
    assert judged("skip_connections", by_rule({"dmc": 100.0, "dnmc": 100.0}))["L4"].passed is True


def test_l4_is_open_with_missing_rules_unless_one_already_fails():
    claim = judged("skip_connections", by_rule({"dlygo": None}))["L4"]
    assert claim.passed is None and "not filled: dlygo" in claim.note
    assert judged("skip_connections", by_rule({"go": None}))["L4"].passed is None
    assert judged("skip_connections", by_rule({"dlygo": None, "go": 30_000.0}))["L4"].passed is False
    assert judged("skip_connections", by_rule({"go": INF}, budget=4000))["L4"].passed is None
    assert judged("skip_connections", {})["L4"].passed is None


def test_l4_says_how_they_were_trained():
    note = judged("skip_connections", by_rule(members=4, method="DASC40"))["L4"].note
    assert "trained with DASC40 instead of control" in note and "4 members instead of 100" in note


def test_all_rules_are_drawn():
    """A dot for every rule and method at the mean over members, of the setting with the fewest steps."""
    rules, values = list(RULES), np.random.default_rng(0).uniform(0.2, 0.9, (3, 20))
    values[2], values[:, 7] = np.nan, np.nan  # a member that diverged, a rule that was not drawn
    by_rule = {"by_rule": (("member", "rule"), values)}
    slow = curve(39_000.0, task="all", method="DASC40", members=3)
    fast = curve(9000.0, task="all", method="DASC40", members=3).assign(by_rule).assign_coords(rule=rules)
    lost = curve(INF, task="all", method="control", members=3)
    figures = catalogue.find("recipes", "skip_connections").draw({}, {"a": slow, "b": fast, "c": lost})
    assert figures["all_rules"].name == "performance_by_rule"
    axes = figures["all_rules"].figure.axes[0]
    (dots,) = [line for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots.get_ydata(), np.delete(values[:2].mean(axis=0), 7))
    np.testing.assert_array_equal(dots.get_xdata(), np.delete(np.arange(20), 7))
    assert [t.get_text() for t in axes.get_xticklabels()] == rules
    assert "DASC40 (n = 2)" in [t.get_text() for t in figures["all_rules"].figure.legends[0].get_texts()]
    (lines,) = [c.get_segments() for c in axes.collections]
    np.testing.assert_allclose([s[:, 1] for s in lines], np.delete(np.sort(values[:2], axis=0).T, 7, axis=0))
    assert "all_rules" not in catalogue.find("recipes", "skip_connections").draw({}, {"c": lost})


def test_skip_connections_are_drawn():
    figures = catalogue.find("recipes", "skip_connections").draw({}, everything(members=3))
    assert list(figures) == ["table_1", "figure_1b", "figure_1c"]
    assert [d.name for d in figures["table_1"]] == ["table_n_steps", "table_seconds", "table_operations"]
    assert len(figures["figure_1b"]) == 9
    words = figures["table_1"][0].figure.axes[0].texts
    assert {"0.196", "failed", "3.43"} <= {t.get_text() for t in words}
    assert {t.get_text() for t in words if t.get_fontweight() == "bold"} >= {"0.196", "1", "1.02"}
    assert catalogue.find("recipes", "skip_connections").draw({}, {}) == {}


# --- skip_mismatch --------------------------------------------------------------------------------------------------

THETAS = np.array([5, 10, 20, 30, 40])
FAR = {"CD": [0.05, 0.1, 0.3, 0.8, 2.0], "SCTT": [0.4, 0.45, 0.5, 0.5, 0.45], "DASC": [0.01, 0.03, 0.1, 0.2, 0.3]}
OURS = {"CD": "coarsened", "SCTT": "skip", "DASC": "aligned_skip"}
SIXTEEN = [*shared.SHORT, *shared.DELAYED]


def mismatch(far=None, lost=None, *, members=20, trained=True, thetas=THETAS, steps=5000.0, noise=0.02, **attributes):
    """An answer about one task; values by method over theta, members scattered around them."""
    rng = np.random.default_rng(0)
    scatter = 1 + noise * rng.normal(size=(members, 1, 1))
    values = {"mismatch": FAR | (far or {}), "performance_lost": FAR | (lost or {})}
    return xr.Dataset(
        {
            name: (("member", "method", "span"), scatter * np.array([of[k] for k in OURS], float)[None])
            for name, of in values.items()
        }
        | {"trained": ("member", np.full(members, trained))},
        {"member": np.arange(members), "method": list(OURS.values()), "span": thetas},
        {"members": 100, "diverged": 0, "budget": BUDGET, "steps": steps, "dt": 5.0, "base_weight": 0.5, **attributes},
    )


def still(steps, until, budget=BUDGET, task="dmc"):
    about = {"members": 100, "diverged": 0, "budget": budget, "steps": steps, "until": until, "dt": 5.0}
    return xr.Dataset(attrs=about | {"task": task})


STILL = {
    "still-CD40": still(INF, 10_000.0),
    "still-SCTT40": still(9070.0, 16_667.0),
    "still-DASC40": still(3430.0, 16_667.0),
}


def l3(tasks=SIXTEEN, **planted):
    return {f"trained-{task}": mismatch(**planted) for task in tasks} | STILL


def test_l3_passes_where_planted():
    claim = judged("skip_mismatch", l3())["L3"]
    assert claim.passed is True and claim.note == "" and claim.n == 16 * 20
    low, high = claim.interval
    assert 0.039 < low < high < 0.041  # CD at theta = 5, 0.05, against DASC's 0.01
    exploded = [*FAR["CD"][:3], INF, np.nan]
    claim = judged("skip_mismatch", l3(far={"CD": exploded}))["L3"]
    assert claim.passed is True and claim.interval is None and "0.299, inf, inf" in claim.measured


@pytest.mark.parametrize(
    "planted",
    [
        {"far": {"DASC": [0.01, 0.03, 0.1, 0.2, 0.46]}},
        {"far": {"DASC": [0.06, 0.03, 0.1, 0.2, 0.3]}},
        {"far": {"CD": [0.05, 0.1, 0.3, 0.25, 2.0]}},
        {"far": {"CD": [0.05, 0.1, 0.3, 0.4, 0.59]}},
        {"far": {"SCTT": [0.3, 0.45, 0.5, 0.5, 0.61]}},
        {"far": {"SCTT": [0.4, 0.45, 0.5, 0.5, INF]}},
        {"lost": {"DASC": [0.06, 0.03, 0.1, 0.2, 0.3]}},
        {"lost": {"DASC": [0.01, 0.03, 0.1, 0.6, 0.3]}},
        {"far": {"CD": FAR["DASC"], "DASC": FAR["CD"]}},
        {"far": {"SCTT": FAR["DASC"], "DASC": FAR["SCTT"]}, "lost": {"SCTT": FAR["DASC"], "DASC": FAR["SCTT"]}},
        {"far": dict.fromkeys(FAR, [0.1] * 5), "lost": dict.fromkeys(FAR, [0.0] * 5)},
    ],
    ids=[
        "DASC above SCTT",
        "DASC above CD",
        "CD falls once",
        "CD does not break",
        "SCTT varies",
        "SCTT explodes",
        "DASC loses more than CD",
        "DASC loses more than SCTT",
        "swapped with CD",
        "swapped with SCTT",
        "flat",
    ],
)
def test_l3_fails_where_planted(planted):
    assert judged("skip_mismatch", l3(**planted))["L3"].passed is False


def test_l3_with_shuffled_methods_does_not_pass():
    rng, passed = np.random.default_rng(0), 0
    for _ in range(20):
        answers = l3()
        for label, answer in answers.items():
            if label.startswith("trained"):
                shuffled = answer["mismatch"].values.copy()
                for row in shuffled:
                    row[:] = row[rng.permutation(3)]
                answers[label] = answer.assign(mismatch=(answer["mismatch"].dims, shuffled))
        passed += judged("skip_mismatch", answers)["L3"].passed is True
    assert passed == 0


@pytest.mark.parametrize(
    ("name", "steps", "holds"),
    [
        ("CD40", 9000.0, False),
        ("CD40", 12_000.0, True),  # after its step had become shorter than tau
        ("SCTT40", INF, False),
        ("SCTT40", 17_000.0, False),  # after beta had become 1
        ("DASC40", INF, False),
        ("DASC40", 16_667.0, False),
    ],
)
def test_l3_asks_who_trains_at_twice_tau(name, steps, holds):
    answers = l3() | {f"still-{name}": still(steps, STILL[f"still-{name}"].attrs["until"])}
    assert judged("skip_mismatch", answers)["L3"].passed is holds


def test_l3_is_open_where_something_is_missing_unless_a_clause_fails():
    claim = judged("skip_mismatch", {k: v for k, v in l3().items() if k != "still-CD40"})["L3"]
    assert claim.passed is None and "not filled: training with CD40" in claim.note
    claim = judged("skip_mismatch", l3() | {"still-DASC40": still(INF, 16_667.0, 400)})["L3"]
    assert claim.passed is None and "DASC40 ended before the method did" in claim.note
    claim = judged("skip_mismatch", l3(trained=False))["L3"]
    assert claim.passed is None and "no population was trained to the criterion" in claim.note and claim.n == 0
    short = {k: v.isel(span=[0, 4]) if "span" in v.dims else v for k, v in l3().items()}
    assert judged("skip_mismatch", short)["L3"].passed is None
    assert judged("skip_mismatch", {})["L3"].passed is None
    assert judged("skip_mismatch", l3(base_weight=0.2))["L3"].passed is None
    elsewhere = l3() | {"still-CD40": still(200.0, 10_000.0, task="dlygo")}
    claim = judged("skip_mismatch", elsewhere)["L3"]
    assert claim.passed is None and "not filled: training with CD40 on dmc" in claim.note
    failed = l3(trained=False) | {"still-CD40": still(200.0, 10_000.0)}
    assert judged("skip_mismatch", failed)["L3"].passed is False


def test_l3_is_about_the_papers_tasks():
    """A task more, on which DASC is the worst, is measured and drawn but not judged by."""
    worst = mismatch(far={"DASC": [9.0] * 5}, lost={"DASC": [9.0] * 5})
    claim = judged("skip_mismatch", l3() | {"trained-dm2": worst})["L3"]
    assert claim == judged("skip_mismatch", l3())["L3"]
    assert judged("skip_mismatch", l3() | {"trained-dmc": worst})["L3"].passed is False


def test_l3_says_what_is_smaller():
    note = judged("skip_mismatch", l3(tasks=SIXTEEN[:14]))["L3"].note
    assert "without dmc, dnmc" in note or "without dms" in note
    note = judged("skip_mismatch", {k: v.assign_attrs(members=4, dt=10.0) for k, v in l3().items()})["L3"].note
    assert "members = 4 instead of 100" in note and "dt = 10 ms instead of 5" in note


def test_members_measured_are_those_that_the_criterion_means():
    """The middle members of planted performances: their mean is the criterion's."""
    from poprnn.recipes.skip_mismatch import _middle

    for n in (2, 4, 10, 25):
        values = np.random.default_rng(n).uniform(size=(3, n))
        answer = curve(INF, members=n).isel(evaluation=slice(3)).assign(performance=(("evaluation", "member"), values))
        assert values[-1][_middle(answer).values].mean() == pytest.approx(shared.mean_curve(answer)[-1])


def test_methods_are_on_until_theta_dt_is_tau_or_beta_is_1():
    from poprnn.recipes.skip_mismatch import on_until

    setups = catalogue.find("recipes", "skip_mismatch").experiments(scale_of("skip_mismatch", "paper"))
    found = {
        name: on_until(pr.Run(setups[f"still-{name}"], None, None, []), name) for name in ("CD40", "SCTT40", "DASC40")
    }
    # theta = 40, 32, 24, 16: the fourth of six stages; beta is 1 in the sixth
    assert found["CD40"] == 10_000 and found["SCTT40"] == found["DASC40"] == 16_667


def test_networks_to_be_measured_are_those_of_the_other_recipe():
    from poprnn.recipes._populations import Populations

    store = Populations("nowhere")
    for scale, part in (("laptop", "-rules"), ("paper", "")):
        mine = catalogue.find("recipes", "skip_mismatch").experiments(scale_of("skip_mismatch", scale))
        others = catalogue.find("recipes", "skip_connections").experiments(scale_of("skip_connections", scale))
        for task in ("go", "dms", "dmc"):
            suffix = part or ("-rules" if task == "go" else "")
            assert store.key(mine[f"trained-{task}"]) == store.key(others[f"{task}-control{suffix}"])
        assert mine["trained-dlygo"].training.method.name() == "aligned_skip"


def test_long_skips_are_tried_on_one_task_by_its_name():
    module, scale = catalogue.find("recipes", "skip_mismatch"), scale_of("skip_mismatch", "smoke")
    assert module.experiments(scale | {"training_task": "ddm"})["still-CD40"].task.rule == "dlydm1"
    with pytest.raises(pr.ConfigurationError, match="no such rule"):
        module.experiments(scale | {"training_task": "all"})


def test_mismatch_is_drawn():
    figures = catalogue.find("recipes", "skip_mismatch").draw({}, l3(far={"CD": [0.05, 0.1, 0.3, INF, INF]}))
    assert [d.name for d in figures["figure_3"]] == ["mismatch", "performance_lost"]
    (line,) = [x for x in figures["figure_3"][0].figure.axes[0].lines if "CD" in str(x.get_label())]
    np.testing.assert_allclose(line.get_ydata()[:3], [0.05, 0.1, 0.3], rtol=0.05)
    assert np.isnan(line.get_ydata()[3:]).all()
    assert catalogue.find("recipes", "skip_mismatch").draw({}, {}) == {}


# --- rule_reversal_training -----------------------------------------------------------------------------------------

TABLE_2 = {"control": (0.67, 0.76), "SCTT40": (0.71, 0.81), "DASC40": (0.71, 0.78)}


def reversal(shares=None, members=400, **attributes):
    """Answers about populations of which planted fractions are trained, without and with strategic skips."""
    out = {}
    for name, pair in (TABLE_2 | (shares or {})).items():
        for label, share in zip((name, f"{name}+skips"), pair, strict=True):
            accuracy = np.where(np.arange(members) < round(share * members), 1.0, 0.75)
            attributes = {"dt": 5.0, "steps": 10_000, "diverged": 0, **attributes}
            out[label] = xr.Dataset({"accuracy": ("member", accuracy)}, {"member": np.arange(members)}, attributes)
    return out


STRONG = {"control": (0.6, 0.76), "SCTT40": (0.71, 0.81), "DASC40": (0.6, 0.78)}


def test_two_proportions_are_those_of_the_formulas():
    """z and both intervals written out, and the examples of Newcombe's paper."""
    from scipy.stats import norm

    from poprnn.recipes.rule_reversal_training import two_proportions

    rng = np.random.default_rng(0)
    for _ in range(20):
        n, n0 = rng.integers(5, 200, 2)
        k, k0 = rng.integers(1, n), rng.integers(1, n0)
        difference, _, p = two_proportions(int(k), int(n), int(k0), int(n0))
        pooled = (k + k0) / (n + n0)
        z = (k / n - k0 / n0) / np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / n0))
        assert difference == pytest.approx(k / n - k0 / n0) and p == pytest.approx(2 * norm.sf(abs(z)))
    # Newcombe 1998, table II: 56/70 - 48/80, 9/10 - 3/10, 10/10 - 0/10
    for counts, low, high in (((56, 70, 48, 80), 0.0524, 0.3339), ((9, 10, 3, 10), 0.1705, 0.8090)):
        np.testing.assert_allclose(two_proportions(*counts)[1], [low, high], atol=1e-4)
    np.testing.assert_allclose(two_proportions(10, 10, 0, 10)[1], [0.6075, 1.0], atol=1e-4)
    assert two_proportions(0, 10, 0, 10)[2] == two_proportions(5, 5, 5, 5)[2] == 1


def test_l5_passes_where_planted():
    claim = judged("rule_reversal_training", reversal(STRONG))["L5"]
    assert claim.passed is True and claim.n == 6 * 400 and "stand-in: CD10" in claim.note
    assert "control: 240 of 400 trained, 0.60" in claim.measured
    assert claim.interval[0] < 0.16 < claim.interval[1]


@pytest.mark.parametrize("name", list(TABLE_2))
@pytest.mark.parametrize("pair", [(0.76, 0.6), (0.7, 0.7), (0.7, 0.74), (0.0, 0.0), (1.0, 1.0)])
def test_l5_fails_where_one_method_gains_nothing(name, pair):
    assert judged("rule_reversal_training", reversal(STRONG | {name: pair}))["L5"].passed is False


def test_l5_needs_the_test_and_not_only_the_difference():
    """The paper's own fractions: at 400 members p = .005, .001, .02; at 100 nothing is decided."""
    assert judged("rule_reversal_training", reversal())["L5"].passed is True
    claim = judged("rule_reversal_training", reversal(members=100))["L5"]
    assert claim.passed is None and "control: 100 members do not tell; the test asks for 400" in claim.note
    assert "control, skips: +0.09 [-0.04, 0.21], p = 0.16" in claim.measured
    # few members may still be enough, either way
    assert judged("rule_reversal_training", reversal(dict.fromkeys(TABLE_2, (0.1, 0.9)), 20))["L5"].passed is True
    assert judged("rule_reversal_training", reversal({"control": (0.9, 0.1)}, 20))["L5"].passed is False


def test_l5_fails_with_shuffled_labels():
    rng, passed = np.random.default_rng(0), 0
    for _ in range(20):
        answers = reversal(STRONG)
        pool = rng.permutation(np.concatenate([a["accuracy"].values for a in answers.values()]))
        for label, part in zip(answers, np.split(pool, len(answers)), strict=True):
            answers[label] = answers[label].assign(accuracy=("member", part))
        passed += judged("rule_reversal_training", answers)["L5"].passed is True
    assert passed == 0


def test_l5_is_open_where_a_method_is_missing():
    answers = {k: v for k, v in reversal(STRONG).items() if not k.startswith("SCTT")}
    claim = judged("rule_reversal_training", answers)["L5"]
    assert claim.passed is None and "not filled: SCTT40" in claim.note
    assert judged("rule_reversal_training", {})["L5"].passed is None
    note = judged("rule_reversal_training", reversal(dt=20.0, steps=500, diverged=3))["L5"].note
    assert "dt = 20 ms instead of 5" in note and "steps = 500 instead of 10000" in note and "18 members" in note


def test_reversal_populations_differ_in_their_skips_alone():
    scale = scale_of("rule_reversal_training", "laptop")
    made = catalogue.find("recipes", "rule_reversal_training").experiments(scale)
    assert list(made) == ["control", "control+skips", "DASC40", "DASC40+skips"]
    assert made["DASC40+skips"].replace("training.method.strategic", None) == made["DASC40"]
    assert made["control+skips"].replace("training.method", pr.methods.Control()) == made["control"]
    assert made["DASC40"].training.method.span * 20 == 200
    assert {s.cell.input_units for s in made.values()} == {None}
    with pytest.raises(pr.ConfigurationError, match="not among the methods"):
        catalogue.find("recipes", "rule_reversal_training").experiments(scale | {"strategic": ["SCTT40"]})


def test_members_that_diverged_count_as_not_trained():
    module, run = catalogue.find("recipes", "rule_reversal_training"), pr.Run
    scale = scale_of("rule_reversal_training", "smoke")
    setups = {"control": module.experiments(scale)["control"]}
    runs = {k: run(s, None, None, ["budget_spent", "diverged"]) for k, s in setups.items()}
    one = xr.Dataset({"accuracy": ("member", [1.0])}, {"member": [0]})
    found = module.answers(runs, scale, lambda *a, **k: one)["control"]
    assert found["accuracy"].values.tolist() == [1.0, 0.0] and found.attrs["diverged"] == 1
    nobody = module.answers(runs, scale, lambda *a, **k: xr.Dataset(coords={"member": np.zeros(0, int)}))["control"]
    assert nobody["accuracy"].values.tolist() == [0.0, 0.0]


def test_fractions_are_drawn():
    figures = catalogue.find("recipes", "rule_reversal_training").draw({}, reversal())
    axes = figures["table_2"].figure.axes[0]
    assert [round(bar.get_height(), 2) for bar in axes.patches] == [0.67, 0.71, 0.71, 0.76, 0.81, 0.78]
    assert catalogue.find("recipes", "rule_reversal_training").draw({}, {}) == {}


# --- overriding a scale's entries -----------------------------------------------------------------------------------


def test_entries_of_a_scale_are_overridden():
    scale = scale_of("skip_connections", "smoke", ['tasks=["dms", "dmc"]', "members=3", "dt=25", "base_weight=[0.2]"])
    assert scale["tasks"] == ["dms", "dmc"] and scale["members"] == 3 and scale["dt"] == 25
    assert scale["rules"] == scale_of("skip_connections", "smoke")["rules"]


def test_the_command_overrides_entries():
    code, out, _ = call("reproduce", "skip_connections", "--scale", "laptop", "--dry-run", "--json")
    whole = json.loads(out)
    code, out, _ = call(
        *("reproduce", "skip_connections", "--scale", "laptop", "--dry-run", "--json"),
        *("--set", "rules=[]", "--set", "leave_out=[]", "--set", 'tasks=["dms"]', "--set", "members=7"),
    )
    assert code == 0 and json.loads(out)["members"] == 3 * 7 and whole["members"] == 5 * 10 + 4 + 20 * 4
    code, _, err = call("reproduce", "skip_connections", "--dry-run", "--set", "membrs=7")
    assert code == 2 and "did you mean 'members'" in err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("taks=[]", "did you mean 'tasks'"),
        ("minutes=1", "no entry"),
        ("tasks=dms", "must be like tasks = "),
        ("members=[3]", "must be like members = 2"),
        ("members=true", "must be like members = 2"),
        ("members.x=3", "must be like members = 2"),
        ("members", "section.option=value"),
    ],
)
def test_overrides_that_make_no_sense_are_refused(text, says):
    with pytest.raises(pr.ConfigurationError, match=re.escape(says)):
        scale_of("skip_connections", "smoke", [text])
