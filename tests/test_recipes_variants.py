"""Judges on planted answers of the recipes about fixed time constants, other cells and longer inputs."""

import numpy as np
import pytest
import xarray as xr

from poprnn.core import catalogue, recipe_files
from poprnn.recipes.contract import scale_of

pytestmark = pytest.mark.usefixtures("few_resamples")

TASKS = ("n_parity", "n_dms")


def judged(name, answers, **changes):
    """The one verdict of a recipe; keywords change its rule."""
    about = recipe_files.read(name)
    (about["claims"][0]).update(changes)
    (claim,) = catalogue.find("recipes", name).judge(answers, about)
    return claim


def largest(values, tau=np.nan, **attributes):
    """An answer of ``ask_largest_n``."""
    values = np.atleast_1d(values)
    return xr.Dataset(
        {
            "largest_n": ("member", values),
            "tau": ("member", np.broadcast_to(np.asarray(tau, float), values.shape).copy()),
        },
        {"member": np.arange(len(values))},
        attributes,
    )


# --- fixed_timescales -----------------------------------------------------------------------------------------------


def fixed_answers(task="n_parity", single=(5, 6, 4), multi=(20, 12), trained=(10, 20), **attributes):
    """Largest N by fixed tau, and with trained tau under single-head and multi-head, for four members each."""
    wobble = np.array([-1, 0, 0, 1])
    out = {}
    for curriculum, means, best in (("single_head", single, trained[0]), ("multi_head", multi, trained[1])):
        out[f"{task}-{curriculum}"] = largest(best + wobble, **attributes)
        # as in the population: member k has the (k mod number)-th tau
        tau = np.tile(np.arange(1, len(means) + 1), 4)
        out[f"{task}-{curriculum}-fixed"] = largest(
            np.asarray(means)[tau - 1] + np.repeat(wobble, len(means)), tau, **attributes
        )
    return out


def both_tasks(**planted):
    return fixed_answers("n_parity") | fixed_answers("n_dms") | fixed_answers("n_dms", **planted)


def test_fixed_timescales_pass_where_planted():
    claim = judged("fixed_timescales", both_tasks())
    assert claim.passed is True and claim.note == ""
    assert "n_parity single_head, best fixed over trained: 0.60" in claim.measured
    low, high = claim.interval
    assert 0.5 < low < 0.6 < high < 0.7
    assert claim.n == 2 * (4 + 12 + 4 + 8)


@pytest.mark.parametrize(
    "planted",
    [
        {"single": (5, 9, 4)},
        {"single": (10, 10, 10)},
        {"multi": (17, 12)},
        {"multi": (23, 12)},
        {"multi": (20, 17)},
        {"multi": (12, 20)},
        {"trained": (20, 10)},
    ],
    ids=["one tau as good", "no tau matters", "1 worse", "1 better", "2 no worse", "swapped tau", "swapped curricula"],
)
@pytest.mark.parametrize("task", TASKS)
def test_fixed_timescales_fail_where_planted(task, planted):
    answers = both_tasks() | fixed_answers(task, **planted)
    assert judged("fixed_timescales", answers).passed is False


def test_fixed_timescales_fail_with_shuffled_labels():
    """The same values, given to conditions at random."""
    rng, passed = np.random.default_rng(0), 0
    for _ in range(20):
        answers = both_tasks()
        pool = rng.permutation(np.concatenate([a["largest_n"].values for a in answers.values()]))
        for label, a in answers.items():
            mine, pool = pool[: a.sizes["member"]], pool[a.sizes["member"] :]
            answers[label] = a.assign(largest_n=("member", mine))
        passed += judged("fixed_timescales", answers).passed
    assert passed == 0


def test_fixed_timescales_at_the_bounds():
    """0.8 and 1.1 are within the rule, whatever rounding says."""
    edge = {"single": (8, 8, 8), "multi": (22, 16)}
    assert judged("fixed_timescales", fixed_answers("n_parity", **edge) | fixed_answers("n_dms", **edge)).passed


def test_fixed_timescales_say_what_they_could_not_judge():
    nothing = {k: a.assign(largest_n=0 * a["largest_n"]) for k, a in both_tasks().items()}
    claim = judged("fixed_timescales", nothing)
    assert claim.passed is None and "nothing was solved with trained tau" in claim.note
    one = {k: a if k.startswith("n_parity") else nothing[k] for k, a in both_tasks().items()}
    assert judged("fixed_timescales", one).passed is False
    gone = both_tasks()
    gone["n_dms-single_head-fixed"] = gone["n_dms-single_head-fixed"].isel(member=slice(0, 0)).assign_attrs(members=12)
    claim = judged("fixed_timescales", gone)
    assert claim.passed is False
    assert "n_dms-single_head-fixed: 12 of 12 members diverged" in claim.note


def test_fixed_timescales_say_that_they_are_a_stand_in():
    short = both_tasks(epochs=25, largest_possible=26)
    assert "stand-in: 25 epochs instead of 1000, N at most 26" in judged("fixed_timescales", short).note
    parity = judged("fixed_timescales", fixed_answers("n_parity"))
    assert parity.passed and "stand-in: n_parity only" in parity.note
    top = fixed_answers("n_parity", epochs=1000, largest_possible=20)
    for label in ("n_parity-multi_head", "n_parity-multi_head-fixed"):
        top[label] = top[label].assign(largest_n=top[label]["largest_n"].where(top[label]["tau"] == 2, 20))
    assert "all members are at the largest N possible, 20" in judged("fixed_timescales", top).note


def test_members_have_the_fixed_tau_they_are_said_to_have():
    setups = catalogue.find("recipes", "fixed_timescales").experiments(scale_of("fixed_timescales", "smoke"))
    assert len(setups) == 8
    for label, setup in setups.items():
        taus = [setup.population.values(k).get("cell.tau") for k in range(setup.population.members)]
        expected = {"single_head-fixed": [1, 2, 3] * 2, "multi_head-fixed": [1, 2] * 2}
        assert taus == expected.get(label.split("-", 1)[1], [None] * 2), label
        assert (setup.cell.tau is not None) == label.endswith("fixed")


# --- activation_functions -------------------------------------------------------------------------------------------

VARIANTS = ("relu", "tanh", "leaky_relu", "outside")
GROWS, FALLS, FLAT = (lambda n: 1 + 0.1 * n), (lambda n: 2 - 0.05 * n), (lambda n: 0 * n + 0.4)


def moments(memories, mean, sd, members=4, spread=0.004):
    """An answer of ``tau_by_n``: members differ in their slopes over N, to both sides of what is planted."""
    n, who = (a.ravel().astype(float) for a in np.meshgrid(memories, np.arange(members), indexing="ij"))
    own = spread * (who - (members - 1) / 2) * n
    return xr.Dataset(
        {"n": ("moment", n), "who": ("moment", who), "mean": ("moment", mean(n) + own), "sd": ("moment", sd(n) + own)}
    )


def activity(memories, mean, sd, members=4):
    """An answer of ``at_stages`` on timescales within the network."""
    rng = np.random.default_rng(2)
    noise = 0.01 * rng.normal(size=(2, len(memories), members))
    variables = {
        name: (("n", "member"), f(np.asarray(memories, float))[:, None] + e)
        for name, f, e in (("mean", mean, noise[0]), ("std", sd, noise[1]))
    }
    return xr.Dataset(variables, {"n": memories, "member": np.arange(members)})


def one_variant(
    label,
    *,
    n=((8, 9, 9, 10), (20, 21, 22, 22)),
    single=(GROWS, GROWS),
    multi=(FALLS, FLAT),
    net_single=(GROWS, GROWS),
    net_multi=(GROWS, GROWS),
):
    found = {}
    conditions = (("single_head", n[0], single, net_single), ("multi_head", n[1], multi, net_multi))
    for curriculum, values, tau, net in conditions:
        memories = np.arange(2, 2 + max(3, len(set(values)) * 3))
        found |= {
            f"{label}-{curriculum}/largest_n": largest(values),
            f"{label}-{curriculum}/tau": moments(memories, *tau),
            f"{label}-{curriculum}/tau_net": activity(memories, *net),
        }
    return found


def all_variants(label="relu-n_dms", **planted):
    """The claim holds everywhere, but for what is planted in one variant and task."""
    found = {}
    for name in (f"{v}-{t}" for v in VARIANTS for t in TASKS):
        found |= one_variant(name, **(planted if name == label else {}))
    return found


def test_activation_functions_pass_where_planted():
    claim = judged("activation_functions", all_variants())
    assert claim.passed is True
    assert "relu n_parity: T2 yes (N = 8 to 10 and N = 20 to 22), T4 yes" in claim.measured
    assert "no" not in claim.measured.replace("_", " ").split()
    assert "T3 not judged" in claim.note and "T4 without its part on networks without curriculum" in claim.note
    assert claim.n == 4 * 2 * 2 * 4


@pytest.mark.parametrize(
    ("part", "planted"),
    [
        ("T2", {"n": ((20, 21, 22, 22), (8, 9, 9, 10))}),
        ("T2", {"n": ((8, 9, 9, 20), (20, 21, 22, 22))}),
        ("T4", {"single": (FLAT, GROWS)}),
        ("T4", {"single": (GROWS, FALLS)}),
        ("T4", {"multi": (GROWS, FLAT)}),
        ("T4", {"multi": (FLAT, FLAT)}),
        ("T4", {"multi": (FALLS, GROWS)}),
        ("T4", {"multi": (FALLS, FALLS)}),
        ("T4", {"single": (FALLS, FLAT), "multi": (GROWS, GROWS)}),
        ("T5", {"net_single": (FLAT, GROWS)}),
        ("T5", {"net_single": (GROWS, FALLS)}),
        ("T5", {"net_multi": (FALLS, GROWS)}),
        ("T5", {"net_multi": (GROWS, FLAT)}),
    ],
)
def test_activation_functions_fail_where_planted(part, planted):
    label = "outside-n_parity" if "n" in planted or "multi" in planted else "relu-n_dms"
    claim = judged("activation_functions", all_variants(label, **planted))
    assert claim.passed is False
    failed = [w.split(":")[0] for w in claim.measured.split("; ") if " no (" in w]
    assert failed == [label.replace("-", " ")]
    assert [p for p in ("T2", "T4", "T5") if f"{p} no (" in claim.measured] == [part]


def with_fixed(**planted):
    found = all_variants()
    for label in (f"{v}-{t}" for v in VARIANTS for t in TASKS):
        mine = fixed_answers(label, **(planted if label == "tanh-n_parity" else {}))
        found |= {f"{k}/largest_n": a for k, a in mine.items()}
    return found


def test_activation_functions_judge_fixed_tau_where_it_was_trained():
    claim = judged("activation_functions", with_fixed())
    assert claim.passed is True and "T3 not judged" not in claim.note and "T3 yes (single_head" in claim.measured
    for planted in ({"single": (5, 9, 4)}, {"multi": (17, 12)}, {"multi": (20, 17)}):
        claim = judged("activation_functions", with_fixed(**planted))
        assert claim.passed is False and claim.measured.count("T3 no") == 1


def test_activation_functions_without_anything_solved_are_not_judged():
    nothing = {}
    for label in (f"{v}-{t}-{c}" for v in VARIANTS for t in TASKS for c in ("single_head", "multi_head")):
        nothing[f"{label}/largest_n"] = largest([0, 0], epochs=2, largest_possible=3)
        nothing[f"{label}/tau"] = moments([], GROWS, GROWS)
        nothing[f"{label}/tau_net"] = activity([], GROWS, GROWS)
    claim = judged("activation_functions", nothing)
    assert claim.passed is None and "stand-in: 2 epochs instead of 1000, N at most 3" in claim.note
    # a variant of which nobody is left does not pass, nor does one that was not asked about
    some = all_variants() | {k: a for k, a in nothing.items() if k.startswith("tanh")}
    assert judged("activation_functions", some).passed is False
    claim = judged("activation_functions", {k: a for k, a in all_variants().items() if not k.startswith("tanh")})
    assert claim.passed is False and "tanh: no answers" in claim.note


def test_activation_functions_share_populations_with_fixed_timescales():
    name = "activation_functions"
    recipe, scale = catalogue.find("recipes", name), scale_of(name, "laptop")
    mine = recipe.experiments(scale)
    theirs = catalogue.find("recipes", "fixed_timescales").experiments(scale_of("fixed_timescales", "laptop"))
    assert len(mine) == 16
    for label in ("n_parity-single_head", "n_dms-multi_head"):
        assert mine[f"leaky_relu-{label}"] == theirs[label]
    assert mine["outside-n_dms-multi_head"].cell.self_interaction == "outside"
    fixed = recipe.experiments({**scale, "fixed_tau": True})
    assert len(fixed) == 32 and fixed["tanh-n_dms-single_head-fixed"].cell.activation == "tanh"


# --- bit_duration ---------------------------------------------------------------------------------------------------

DURATIONS = (1, 2, 3, 5, 10)


def one_task(task, *, multi=None, single=None, n_single=None, n_multi=None, durations=DURATIONS):
    """The claim holds, but for what is planted: tau / k over N, or largest N, by duration."""
    multi = {k: (lambda n: 1.1 + 0.4 / n) for k in durations} | (multi or {})
    single = {k: (lambda n: 1 + 0.1 * n) for k in durations} | (single or {})
    n_single, n_multi = n_single or (12, 10, 9, 7, 5), n_multi or (30, 25, 20, 14, 9)
    found = {}
    for curriculum, tau, n in (("single_head", single, n_single), ("multi_head", multi, n_multi)):
        for k, largest_n in zip(durations, n, strict=False):
            label = f"{task}-{k}-{curriculum}"
            found[f"{label}/largest_n"] = largest(largest_n + np.array([-1, 0, 0, 1]))
            # spread over members that hides no trend
            planted = lambda n, f=tau[k], k=k: k * f(n)
            found[f"{label}/tau"] = moments(np.arange(2, max(largest_n, 4) + 1), planted, FLAT, spread=0.001)
    return found


def durations_of_both(task="n_dms", **planted):
    return one_task("n_parity") | one_task("n_dms") | one_task(task, **planted)


def test_bit_duration_passes_where_planted():
    claim = judged("bit_duration", durations_of_both())
    assert claim.passed is True and claim.note == ""
    assert "k = 10: 1.14 [" in claim.measured
    low, high = claim.interval
    assert low < 1.1 + 0.4 / 30 < high and high - low < 0.1
    assert claim.n == 2 * 2 * 5 * 4


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "planted",
    [
        {"multi": {5: lambda n: 0 * n + 1.3}},
        {"multi": {3: lambda n: 0 * n + 0.7}},
        {"multi": {k: (lambda n, k=k: 1.1 / k + 0 * n) for k in DURATIONS}},
        {"multi": {k: (lambda n: 1 + 0.1 * n) for k in DURATIONS}},
        {"single": {2: lambda n: 0 * n + 1.1}},
        {"single": {10: lambda n: 2 - 0.1 * n}},
        {"single": {k: (lambda n: 1.2 - 0.01 * n) for k in DURATIONS}},
        {"n_single": (5, 7, 9, 10, 12)},
        {"n_multi": (9, 14, 20, 25, 30)},
        {"n_single": (9, 9, 9, 9, 9)},
        {"n_multi": (9, 30, 14, 25, 20)},
    ],
    ids=[
        "one k above",
        "one k below",
        "tau does not follow k",
        "multi-head grows",
        "one k flat",
        "one k falls",
        "single-head flat",
        "single-head larger N",
        "multi-head larger N",
        "same N",
        "shuffled k",
    ],
)
def test_bit_duration_fails_where_planted(task, planted):
    assert judged("bit_duration", durations_of_both(task, **planted)).passed is False


def test_bit_duration_takes_each_member_at_its_own_last_memory():
    """A fifth member has solved only N = 2, where its tau was 2.8: the mean with four of 1.1 is too much."""
    answers = durations_of_both()
    tau = answers["n_dms-1-multi_head/tau"]
    early = tau.isel(moment=[0]).assign(who=("moment", [7.0]), mean=("moment", [2.8]))
    answers["n_dms-1-multi_head/tau"] = xr.concat([tau, early], "moment")
    claim = judged("bit_duration", answers)
    assert claim.passed is False and "n_dms multi-head tau / k at the last N, k = 1: 1.45" in claim.measured


def test_bit_duration_one_exchange_of_four_is_at_the_bound():
    """Spearman of four durations with two neighbours exchanged is 0.8."""
    few = dict(durations=(1, 2, 3, 5), n_multi=(30, 20, 25, 14))
    claim = judged("bit_duration", one_task("n_parity", **few))
    assert claim.passed is True
    assert "stand-in: n_parity with k = 1, 2, 3, 5 only; stand-in: n_parity only" in claim.note
    few["n_multi"] = (25, 14, 30, 20)
    assert judged("bit_duration", one_task("n_parity", **few)).passed is False


def test_bit_duration_says_what_it_could_not_judge():
    labels = [f"n_parity-{k}-{c}" for k in (1, 2, 3) for c in ("single_head", "multi_head")]
    nothing = {f"{label}/largest_n": largest([0, 0]) for label in labels}
    nothing |= {f"{label}/tau": moments([], GROWS, FLAT) for label in labels}
    claim = judged("bit_duration", nothing)
    assert claim.passed is None and "n_parity multi-head, k = 2: nothing was solved" in claim.note
    # nobody left for one k
    gone = durations_of_both()
    del gone["n_dms-10-single_head/tau"]
    gone["n_dms-10-single_head/largest_n"] = largest(np.zeros(0, int), members=4)
    claim = judged("bit_duration", gone)
    assert claim.passed is False
    assert "n_dms-10-single_head: 4 of 4 members diverged" in claim.note
    assert "n_dms single-head, k = 10: fewer than three N" in claim.note


def test_bit_duration_shares_populations_with_fixed_timescales():
    mine = catalogue.find("recipes", "bit_duration").experiments(scale_of("bit_duration", "laptop"))
    theirs = catalogue.find("recipes", "fixed_timescales").experiments(scale_of("fixed_timescales", "laptop"))
    assert len(mine) == 8
    assert mine["n_parity-1-multi_head"] == theirs["n_parity-multi_head"]
    assert mine["n_parity-5-single_head"].task.bit_duration == 5


# --- figures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "answers", "names"),
    [
        ("fixed_timescales", both_tasks(epochs=25, largest_possible=26), {"fixed_tau"}),
        ("activation_functions", with_fixed(), {"largest", "tau_net_sd_multi_head", "fixed_tau_outside"}),
        ("bit_duration", durations_of_both(), {"tau_by_k_single_head", "tau_by_k_multi_head", "largest_by_k"}),
    ],
)
def test_figures_are_drawn_for_both_tasks_and_for_nothing(name, answers, names):
    module = catalogue.find("recipes", name)
    figures = module.draw({}, answers)
    assert list(figures) == list(TASKS)
    drawn = [d.name for d in figures["n_dms"]]
    assert names <= set(drawn) and len(set(drawn)) == len(drawn)
    assert module.draw({}, {}) == {}
