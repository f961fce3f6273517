"""Judges of the recipes about stable assemblies, on planted answers."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

import poprnn as pr
from poprnn.core import catalogue
from poprnn.recipes._certificate_cases import THEOREMS, alone, coupled, distances, excess
from poprnn.recipes.certified_training import certified
from poprnn.recipes.contract import scale_of
from test_recipes import judged

pytestmark = pytest.mark.usefixtures("few_resamples")
MODULES, SPARSE, FREE = "modules_of_assemblies", "sparse_modules", "unconstrained_couplings"
COST, CERTIFICATES, TRAINING = "cost_of_stability", "certificates", "certified_training"
SPREAD = np.array([-0.01, 0.0, 0.01])


def network(accuracy, *, validation=None, last=None, images=54_000, diverged=0, spread=SPREAD, **attributes):
    """What ``learned`` returns of a population of this mean accuracy."""
    values = accuracy + spread
    values[:diverged] = np.nan
    curve = np.linspace(0.1, accuracy if validation is None else validation, 4)
    return xr.Dataset(
        {
            "accuracy": ("member", values),
            "last": ("member", values - 0.01 if last is None else np.full(len(values), last)),
            "validation": (("epoch", "member"), curve[:, None] + 0.1 * spread),
        },
        {"member": np.arange(len(values)), "epoch": np.arange(1, 5)},
        {"images": images, "tested": 10_000, "data": "mnist, permuted, 28 × 28 pixels", "diverged": diverged,
         "broken": 0, **attributes},
    )  # fmt: skip


# --- A4, A5, A8, A10 ------------------------------------------------------------------------------------------------

SIZES = (1, 2, 4, 12, 24)
BY_SIZE = {"sparse": (0.37, 0.89, 0.93, 0.965, 0.97), "svd": (0.62, 0.93, 0.94, 0.95, 0.953)}
EQUAL = {1: 0.7, 4: 0.8, 16: 0.9, 32: 0.75}


def assemblies(
    sparse=BY_SIZE["sparse"], svd=BY_SIZE["svd"], equal=None, few=(0.9, 0.96), best=None, sizes=SIZES, **options
):
    out = {}

    def add(part, kind, n, accuracy, units=32, dataset="mnist", permuted=1, **more):
        name = f"{part}-{kind}-{n}-{dataset}-{permuted}"
        attributes = dict(part=part, kind=kind, modules=n, units=units, dataset=dataset, permuted=permuted)
        out[name] = network(accuracy, **attributes, **options | more)

    for kind, values in (("sparse", sparse), ("svd", svd)):
        for n, accuracy in zip(sizes, values, strict=False):
            add("modules", kind, n, accuracy)
    for n, accuracy in (EQUAL if equal is None else equal).items():
        add("equal", "sparse", n, accuracy, 32 // n)
    for n, accuracy in zip((12, 24), few, strict=False):
        add("couplings", "sparse", n, accuracy)
    paper = {("mnist", 0): 0.98, ("mnist", 1): 0.965, ("cifar10", 0): 0.65, "svd": 0.53}
    for at, accuracy in (paper | (best or {})).items():
        if at == "svd":
            add("best", "svd", 16, accuracy, dataset="cifar10", permuted=0)
        else:
            add("best", "sparse", 16, accuracy, dataset=at[0], permuted=at[1])
    return out


def test_planted_assemblies_pass():
    found = judged(MODULES, assemblies())
    assert {k: c.passed for k, c in found.items()} == dict.fromkeys(["A4", "A5", "A8", "A10"], True)
    assert found["A4"].n == 30 and found["A4"].interval[0] > 0
    assert all("trained on 54000 images" in c.note and "stand-in" not in c.note for c in found.values())


@pytest.mark.parametrize(
    ("claim", "planted"),
    [
        ("A4", dict(sparse=BY_SIZE["sparse"][::-1])),
        ("A4", dict(svd=(0.9, 0.9, 0.9, 0.9, 0.9))),  # no rise in one kind
        ("A4", dict(sparse=(0.3, 0.6, 0.8, 0.94, 0.96))),  # no saturation: 2 points more with 24 than with 12
        ("A4", dict(sparse=(0.63, 0.89, 0.93, 0.965, 0.97))),  # ahead from the beginning
        ("A4", dict(sparse=(0.3, 0.7, 0.8, 0.94, 0.945))),  # never overtakes
        ("A5", dict(equal={1: 0.7, 4: 0.8, 16: 0.9, 32: 0.95})),
        ("A5", dict(equal={1: 0.9, 4: 0.8, 16: 0.7, 32: 0.6})),
        ("A5", dict(equal={1: 0.8, 4: 0.8, 16: 0.8, 32: 0.8})),
        ("A8", dict(best={("mnist", 1): 0.93})),
        ("A8", dict(best={("mnist", 0): 0.95})),
        ("A8", dict(best={("cifar10", 0): 0.6})),
        ("A8", dict(best={"svd": 0.56})),
        ("A10", dict(few=(0.9, 0.9))),
        ("A10", dict(few=(0.95, 0.9))),
    ],
)
def test_planted_failures_of_assemblies(claim, planted):
    assert judged(MODULES, assemblies(**planted))[claim].passed is False


def test_shuffled_numbers_of_modules_do_not_pass():
    rng = np.random.default_rng(0)
    for _ in range(2):
        order = rng.permutation(5)
        while np.corrcoef(order, np.arange(5))[0, 1] > 0.5:
            order = rng.permutation(5)
        shuffled = assemblies(sparse=np.array(BY_SIZE["sparse"])[order])
        assert judged(MODULES, shuffled)["A4"].passed is False


def test_a_small_scale_says_what_it_leaves_out():
    small = assemblies(sizes=(1, 2, 4), images=9_000, few=(0.5,))
    found = judged(MODULES, small)
    assert found["A4"].passed is True and "saturation not judged" in found["A4"].note
    assert "stand-in: trained on 9000 images" in found["A4"].note and "who is ahead not judged" in found["A4"].note
    assert found["A8"].passed is None and "not trained on the whole set" in found["A8"].note
    assert found["A10"].passed is None
    alone = {name: a for name, a in small.items() if a.attrs["part"] == "modules" and a.attrs["modules"] == 1}
    assert all(c.passed is None and c.note for c in judged(MODULES, alone).values())


def test_the_middle_is_chosen_by_validation_images():
    lucky = assemblies()
    for name, a in lucky.items():
        if a.attrs["part"] == "equal" and a.attrs["modules"] == 16:  # best on the test set only
            lucky[name] = network(0.9, validation=0.5, **{k: a.attrs[k] for k in ("part", "kind", "modules", "units")})
    assert "4 modules against 1" in judged(MODULES, lucky)["A5"].measured


def test_members_that_diverged_count_as_chance():
    planted = assemblies(diverged=2, few=(0.9, 0.9))
    found = judged(MODULES, planted)
    assert "2 of 3 members" not in found["A4"].note and "20 of 30 members diverged" in found["A4"].note
    assert found["A10"].passed is False


def test_populations_of_modules():
    scale = scale_of(MODULES, "paper")
    made = catalogue.find("recipes", MODULES).experiments(scale)
    best = made["best-sparse-16x32-mnist-True"]
    assert best.cell.n_units == 512 and best.population.members == 4 and best.task.capacity == 784
    assert {s.cell.n_units for k, s in made.items() if k.startswith("equal")} == {352}
    assert made["couplings-sparse-24x32"].replace("cell.coupling_density", 1.0) == made["modules-sparse-24x32"]
    laptop = catalogue.find("recipes", MODULES).experiments(scale_of(MODULES, "laptop"))
    assert {(s.task.capacity, s.task.dataset) for s in laptop.values()} == {(196, "mnist_10k")}
    assert pytest.approx(784 * 0.03) == 196 * 0.12, "as long in units of tau"
    free = catalogue.find("recipes", FREE).experiments(scale_of(FREE, "laptop"))
    assert free["feedback"] == laptop["modules-sparse-8x32"], "one population for both"
    assert free["unconstrained"].replace("cell.coupling", "feedback") == free["feedback"]
    sparse = catalogue.find("recipes", SPARSE).experiments(scale_of(SPARSE, "laptop"))
    assert laptop["modules-sparse-4x32"] in sparse.values() and len(set(map(repr, sparse.values()))) == 6


def test_assemblies_are_drawn():
    figures = catalogue.find("recipes", MODULES).draw({}, assemblies())
    names = [d.name for drawings in figures.values() for d in drawings]
    assert names == ["by_modules", "training_sparse", "training_svd", "equal_units"]
    assert catalogue.find("recipes", MODULES).draw({}, {}) == {}


# --- A6, A7 ---------------------------------------------------------------------------------------------------------


def densities(dense=(0.85, 0.92), sparse=(0.93, 0.94, 0.96, 0.91), small=0.9):
    out = {}

    def add(part, n, density, bound, accuracy):
        out[f"{part}-{density}-{bound}"] = network(
            accuracy, part=part, n_modules=n, density=density, bound=bound, scaled=float(density > 0.2)
        )

    for density, bound, accuracy in zip((0.265, 0.1), (0.4, 1.0), dense, strict=True):
        add("dense", 11, density, bound, accuracy)
    for density, accuracy in zip((0.1, 0.05, 0.033, 0.01), sparse, strict=True):
        add("sparse", 16, density, 1.0, accuracy)
    add("entries", 16, 0.033, 0.3, small)
    return out


@pytest.mark.parametrize(
    ("planted", "passed"),
    [
        ({}, True),
        (dict(dense=(0.85, 0.89)), False),  # under five points
        (dict(dense=(0.92, 0.85)), False),
        (dict(sparse=(0.93, 0.97, 0.96, 0.91)), False),
        (dict(sparse=(0.91, 0.96, 0.94, 0.93)), False),
        (dict(small=0.96), False),
        (dict(small=0.99), False),
    ],
)
def test_planted_densities(planted, passed):
    claim = judged(SPARSE, densities(**planted))["A6"]
    assert claim.passed is passed and "100 % of modules scaled" in claim.measured


def test_densities_that_are_missing_leave_a6_open():
    some = {k: v for k, v in densities().items() if v.attrs["part"] == "sparse"}
    claim = judged(SPARSE, some)["A6"]
    assert claim.passed is False and "figure 5" in claim.note and "no smaller entries" in claim.note
    assert judged(SPARSE, {})["A6"].passed is None


@pytest.mark.parametrize(
    ("stable", "free", "passed"), [(0.967, 0.47, True), (0.967, 0.8, False), (0.47, 0.967, False), (0.5, 0.5, False)]
)
def test_planted_couplings(stable, free, passed):
    answers = {name: network(a, modules=24) for name, a in (("feedback", stable), ("unconstrained", free))}
    assert judged(FREE, answers)["A7"].passed is passed
    diverged = answers | {"unconstrained": network(0.967, modules=24, diverged=3)}
    assert judged(FREE, diverged)["A7"].passed is (stable > 0.4)


def test_sparse_and_unconstrained_are_drawn():
    figures = catalogue.find("recipes", SPARSE).draw({}, densities())
    assert [d.name for d in figures["accuracy"]] == ["figure_5", "figure_s2a", "figure_s2b"]
    answers = {name: network(0.9, modules=24) for name in ("feedback", "unconstrained")}
    assert [d.name for d in catalogue.find("recipes", FREE).draw({}, answers)["accuracy"]] == ["control"]


# --- A9 -------------------------------------------------------------------------------------------------------------

TASKS = ("go", "anti", "dm1", "flip_flop")


def learning(score, steps=100, task="go", kind="leaky", **attributes):
    """A population that ends at ``score`` and meets the criterion after so many steps."""
    times = np.arange(50, 1050, 50)
    course = np.where(times[:, None] >= steps, max(score, 0.9), 0.3) * np.ones(3)
    data = {
        "score": ("member", score + SPREAD),
        "course": (("evaluation", "member"), course),
        "steps": ("evaluation", times),
    }
    return xr.Dataset(
        data, {"member": np.arange(3)},
        {"task": task, "kind": kind, "units": "4 × 16", "diverged": 0, "certificate_broken": 0, **attributes},
    )  # fmt: skip


def costs(tasks=TASKS, **changed):
    """Free networks at 0.95 after 100 steps, certified ones at 0.93 after 150, but for ``changed`` tasks."""
    out = {}
    for task in tasks:
        mine = {"leaky": (0.95, 100), "sparse": (0.93, 150), "svd": (0.8, 5000)} | changed.get(task, {})
        for kind, (score, steps) in mine.items():
            out[f"{task}-{kind}"] = learning(score, steps, task, kind)
    return out


@pytest.mark.parametrize(
    ("changed", "passed"),
    [
        ({}, True),
        (dict(go={"sparse": (0.8, 5000), "svd": (0.94, 150)}), True),  # the other kind will do
        (dict(go={"sparse": (0.89, 150)}), False),  # six points lost
        (dict(go={"sparse": (0.95, 250)}), False),  # more than twice as long
        (dict(go={"sparse": (0.95, 5000)}), False),  # never
        (dict(go={"leaky": (0.95, 5000), "sparse": (0.92, 5000)}), True),  # neither gets there: the score decides
        (dict(go={"sparse": (0.8, 100), "svd": (0.95, 5000)}), False),  # each keeps one of both bounds
        (dict(flip_flop={"leaky": (0.5, 5000)}), False),  # not learned at all: not judged
    ],
)
def test_planted_costs(changed, passed):
    claim = judged(COST, costs(**changed))["A9"]
    assert claim.passed is passed and claim.n == 9 * len(TASKS) and "future work" in claim.note


def test_few_tasks_are_no_answer():
    assert judged(COST, costs(tasks=TASKS[:3]))["A9"].passed is False
    assert judged(COST, {})["A9"].passed is None


def test_all_kinds_are_alike_but_for_the_constraint():
    scale = scale_of(COST, "laptop")
    made = catalogue.find("recipes", COST).experiments(scale)
    assert len(scale["tasks"]) >= 4 and len(made) == 3 * len(scale["tasks"])
    for task in scale["tasks"]:
        three = [made[f"{task}-{kind}"] for kind in ("leaky", "sparse", "svd")]
        assert len({(s.cell.n_units, s.cell.dt, s.cell.tau, s.cell.activation) for s in three}) == 1
        assert len({(s.task, s.training) for s in three}) == 1
        assert [s.cell.is_certified for s in three] == [False, True, True]


def test_costs_are_drawn():
    figures = catalogue.find("recipes", COST).draw({}, costs(tasks=TASKS[:1]))
    assert [d.name for d in figures["at the end"]] == ["final"] and len(figures["in the course of training"]) == 1


# --- A1, A2 ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cases():
    """Real answers about few and small cases."""
    return catalogue.find("recipes", CERTIFICATES).answers({}, scale_of(CERTIFICATES, "smoke", ["cases=3"]), None)


def changed(cases, theorem, **values):
    found = cases[theorem].copy(deep=True)
    for name, change in values.items():
        found[name][...] = change(found[name].values)
    return cases | {theorem: found}


def first(value):
    return lambda a: np.where(np.arange(a.size).reshape(a.shape) == 0, value, a)


def test_true_certificates_pass(cases):
    pytest.importorskip("cvxpy")
    found = judged(CERTIFICATES, cases)
    assert found["A1"].passed is True and found["A2"].passed is True and found["A1"].n == 6 * 2 * 3


@pytest.mark.parametrize(
    ("theorem", "values"),
    [
        ("1", dict(accepted=first(False))),
        ("3", dict(refused=first(False))),
        ("5", dict(excess=first(0.01))),
        ("6", dict(accepted=first(False))),
        ("6", dict(refused=first(False))),
        ("6", dict(corrected=first(False))),
        ("6", dict(printed=np.ones_like)),
    ],
)
def test_planted_failures_of_certificates(cases, theorem, values):
    assert judged(CERTIFICATES, changed(cases, theorem, **values))["A1"].passed is False


@pytest.mark.parametrize(
    "values",
    [
        dict(margin=first(-0.1)),
        dict(rate=lambda a: np.full_like(a, 0.1)),  # a metric at c = 2
        dict(rate=lambda a: np.full_like(a, np.nan)),  # none where there is one
        dict(excluded=np.zeros_like),
        dict(excluded=np.ones_like),
    ],
)
def test_planted_failures_of_the_counterexample(cases, values):
    pytest.importorskip("cvxpy")
    assert judged(CERTIFICATES, changed(cases, "7", **values))["A2"].passed is False


def test_the_counterexample_wants_a_solver_and_both_sides(cases, monkeypatch):
    assert judged(CERTIFICATES, cases | {"7": xr.Dataset()})["A2"].passed is None
    if "c" in cases["7"].dims:
        assert judged(CERTIFICATES, cases | {"7": cases["7"].isel(c=[1])})["A2"].passed is None


def test_a_wrong_rate_is_seen_in_simulation():
    """Weights at the wrong side of the boundary, with the certificate of the right one."""
    rng = np.random.default_rng(0)
    good = [THEOREMS["1"](rng, 4, 0.6) for _ in range(4)]
    systems = alone(good)
    apart = distances(rng, systems, "relu")
    assert apart.shape == (201, 4) and excess(apart, systems.rate).max() < 1e-3
    assert excess(apart, systems.rate + 0.5).max() > 1e-3
    pairs = coupled(rng, good, 5.0)
    assert excess(distances(rng, pairs, "tanh"), pairs.rate).max() < 1e-3
    wrong = pairs._replace(L=np.abs(pairs.L))
    assert excess(distances(rng, wrong, "tanh"), wrong.rate).max() > 0.1


def test_certificates_are_drawn(cases):
    names = [d.name for d in catalogue.find("recipes", CERTIFICATES).draw({}, cases)["certificates"]]
    assert names[0] == "distances"


# --- A3 -------------------------------------------------------------------------------------------------------------


def kept_assembly(name, change=None, **attributes):
    """What is measured of an assembly of three members, or of the control."""
    data = {
        "certified": ("member", np.full(3, name != "unconstrained")),
        "step_certified": ("member", np.array([True, True, False])),
        "worst_factor": ("member", np.array([0.99, 1.0, 1.7])),  # steps that are not certified may lead apart
        "pair_rate": (("member", "pair"), np.full((3, 2), 0.05)),
        "step": ("member", np.full(3, 0.12)),
    }
    if name != "unconstrained":
        data |= {
            "before": ("member", np.ones(3, bool)),
            "after": ("member", np.ones(3, bool)),
            "rate": (("member", "moment"), np.full((3, 2), 0.1)),
            "drawn": (("member", "size", "draw"), np.ones((3, 2, 2), bool)),
            "kept": (("epoch", "member"), np.ones((4, 3), bool)),
            "rates": (("epoch", "member"), np.full((4, 3), 0.1)),
        }
    for key, value in (change or {}).items():
        data[key][1].flat[-1] = value
    attributes = {"name": name, "members": 3, "diverged": 0, "certificate_broken": 0} | attributes
    return xr.Dataset(data, {"member": np.arange(3)}, attributes)


@pytest.mark.parametrize(
    ("name", "change", "attributes", "passed"),
    [
        ("nested", {}, {}, True),
        ("nested", dict(before=False), {}, False),
        ("nested", dict(kept=False), {}, False),
        ("nested", dict(after=False), {}, False),
        ("nested", dict(drawn=False), {}, False),
        ("nested", dict(certified=False), {}, False),
        ("nested", dict(rate=-0.1), {}, False),
        ("nested", dict(step_certified=True), {}, False),  # a certified step leads apart
        ("nested", {}, dict(certificate_broken=1), False),
        ("unconstrained", dict(certified=True), {}, False),
    ],
)
def test_planted_certificates_in_training(name, change, attributes, passed):
    answers = {n: kept_assembly(n) for n in ("feedback", "nested", "unconstrained")}
    answers[name] = kept_assembly(name, change, **attributes)
    claim = judged(TRAINING, answers)["A3"]
    assert claim.passed is passed and claim.n == 9
    assert "12 of 12" in claim.measured


def test_an_assembly_of_which_nobody_is_left_is_not_judged():
    lost = xr.Dataset(coords={"member": np.zeros(0, int)}, attrs=kept_assembly("nested", diverged=3).attrs)
    claim = judged(TRAINING, {"feedback": kept_assembly("feedback"), "nested": lost})["A3"]
    assert claim.passed is False and "3 of 3 members diverged" in claim.note and "nobody is left" in claim.note


def test_certificates_are_asked_of_what_is_stored():
    """A module that training left uncertified is seen, at the moment it happened and with any B."""
    cell = pr.cells.Assembly(modules=(pr.modules.AbsoluteValue(n_units=3, count=2, density=0.3),))
    run = pr.from_arrays(pr.tasks.SequentialImages(pool=4), cell, {})
    found = certified(run, n_draws=1, sizes=(1.0, 100.0))
    assert found["before"].all() and found["after"].all() and found["drawn"].all() and found["drawn"].shape == (1, 2, 1)
    fixed = run.parameters.fixed | {"W_0": np.full_like(run.parameters.fixed["W_0"], 2.0)}
    later = dataclasses.replace(run, parameters=run.parameters._replace(fixed=fixed))
    found = certified(later, n_draws=1, sizes=(1.0,))
    assert found["before"].all() and not found["after"].any() and not found["drawn"].any()


def test_assemblies_to_be_certified():
    scale = scale_of(TRAINING, "laptop")
    made = catalogue.find("recipes", TRAINING).experiments(scale)
    assert {n: s.cell.is_certified for n, s in made.items()} == dict.fromkeys(scale["assemblies"], True) | {
        "unconstrained": False
    }
    assert {s.cell.n_units for s in made.values()} <= {32, 40} and scale["gains"] == sorted(scale["gains"])
    with pytest.raises(pr.ConfigurationError, match="assemblies: 'nestd'; did you mean 'nested'"):
        catalogue.find("recipes", TRAINING).experiments(scale | {"assemblies": ["nestd"]})


def test_certified_training_is_drawn():
    answers = {n: kept_assembly(n) for n in ("feedback", "unconstrained")}
    figures = catalogue.find("recipes", TRAINING).draw({}, answers)
    assert [d.name for d in figures["assemblies"]] == ["rates", "pairs"]
