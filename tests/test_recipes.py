"""Judges on planted answers: each must pass what shows the claim and fail what does not."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import poprnn as pr
from poprnn.core import catalogue, recipe_files
from poprnn.recipes._timescales import answered, at_stages, interval_of, largest_n, tau_by_n, tau_rows
from poprnn.recipes.contract import Questions, bootstrap, reproduce, scale_of
from poprnn.recipes.temporal_patterns import waves_learned
from poprnn.training.run import History, Run, Snapshot

RNG = np.random.default_rng(0)


def judged(name, answers, **rule):
    """Verdicts of a recipe by claim id; ``T5={"saturation_n": 10}`` changes a rule."""
    about = recipe_files.read(name)
    for claim in about["claims"]:
        claim.update(rule.get(claim["id"], {}))
    return {c.id: c for c in catalogue.find("recipes", name).judge(answers, about)}


def over_n(memories, members=4, noise=0.02, **variables):
    """Answers over (n, member): each variable a function of N, with noise."""
    memories = np.asarray(memories)
    return xr.Dataset(
        {
            name: (
                ("n", "member"),
                np.asarray(f(memories), float)[:, None] + noise * RNG.normal(size=(len(memories), members)),
            )
            for name, f in variables.items()
        },
        {"n": memories, "member": np.arange(members)},
    )


# --- questions at every N -------------------------------------------------------------------------------------------

TAU = np.array([[0.5, 2.0, 3.5], [1.0, 4.0, 4.0], [6.0, 6.0, 6.0]])


def populated(task, curriculum, snapshots, **vary):
    """Three members without training, with snapshots: name to who has got there."""
    training = pr.Training(curriculum=curriculum)
    run = pr.from_arrays(task, pr.cells.LeakyRNN(n_units=3), {"tau": TAU}, training=training)
    population = pr.Population(members=3, vary={k.replace("__", "."): v for k, v in vary.items()})
    kept = {name: Snapshot(np.array(who), np.zeros(3, int), run.parameters) for name, who in snapshots.items()}
    setup = dataclasses.replace(run.setup, population=population)
    return dataclasses.replace(run, setup=setup, snapshots=kept)


def test_tau_by_n_has_a_row_for_each_time_that_a_member_solved_an_n():
    task = pr.tasks.NParity(n_max=6)
    stages = {"stage_000": [True, True, False], "stage_002": [True, False, False], "epoch_00001": [True] * 3}
    rows = tau_rows(tau_by_n(populated(task, pr.curricula.MultiHead(), stages)), "mean")
    # tau is held at dt = 1 from below
    np.testing.assert_allclose(rows, [[2, 0, (1 + 2 + 3.5) / 3], [2, 1, 3], [4, 0, (1 + 2 + 3.5) / 3]], rtol=1e-6)
    # from scratch every member has an N of its own, also when others are left out
    scratch = populated(
        task, pr.curricula.None_(head=1), {"stage_000": [True, False, True]}, training__curriculum__head=(1, 3, 4)
    )
    assert tau_rows(tau_by_n(scratch), "sd")[:, :2].tolist() == [[3, 0], [6, 2]]
    assert tau_rows(tau_by_n(scratch.select([1, 2])), "mean").tolist() == [[6, 2, 6]]
    # without memories, heads are counted
    waves = populated(pr.tasks.TemporalPattern(n_max=3), pr.curricula.MultiHead(), stages)
    assert tau_rows(tau_by_n(waves), "mean")[:, 0].tolist() == [1, 1, 3]
    assert tau_rows(tau_by_n(populated(task, pr.curricula.MultiHead(), {})), "mean").shape == (0, 3)


@pytest.mark.parametrize(
    ("task", "question", "expected"),
    [
        (pr.tasks.NParity(n_max=6), lambda run: largest_n(run, threshold=0.9)["largest_n"], [4, 2, 0]),
        (pr.tasks.TemporalPattern(n_max=3), lambda run: waves_learned(run)["waves"], [3, 1, 0]),
    ],
    ids=["memories", "waves"],
)
def test_the_largest_n_is_that_of_the_last_stage_passed_once_more(monkeypatch, task, question, expected):
    """Against planted scores of the newest head and of the others, by stage and member.

    First member: all are good. Second: its newest head is too low at the last stage, and the stage before it was not
    reached. Third: either the newest head or the mean is too low.
    """
    scores = {"stage_000": [0.99, 0.92, 0.5], "stage_001": [0.99, 0.99, 0.99], "stage_002": [0.95, 0.89, 0.99]}
    rest = {"stage_000": [0.99, 0.99, 0.99], "stage_001": [0.99, 0.99, 0.5], "stage_002": [0.95, 0.95, 0.7]}

    def evaluated(run, *, heads, n_trials):
        (active,) = heads
        (name,) = (name for name, stage in zip(scores, range(3), strict=True) if active.sum() == stage + 1)
        found = np.full((3, 1, len(active)), np.nan)
        found[:, 0, active] = np.array(rest[name])[:, None]
        found[:, 0, active.sum() - 1] = scores[name]
        return {task.score: found}

    monkeypatch.setattr("poprnn.recipes._timescales.evaluate", evaluated)
    who = {"stage_000": [True] * 3, "stage_001": [True, False, True], "stage_002": [True, True, True]}
    run = populated(task, pr.curricula.MultiHead(threshold=0.9), who)
    assert question(run).values.tolist() == expected


@pytest.mark.parametrize("every", [1, 2, 5])
def test_questions_at_stages_are_put_to_every_so_many_and_the_last(every):
    who = [[True] * 3, [True, True, False], [False, True, False], [False, True, False]]
    run = populated(
        pr.tasks.NDMS(n_max=6), pr.curricula.SingleHead(), {f"stage_{k:03d}": there for k, there in enumerate(who)}
    )
    found = at_stages(run, analysis="timescales_single", options={}, keep=["mean"], every=every)
    assert found["n"].values.tolist() == {1: [2, 3, 4, 5], 2: [2, 4, 5], 5: [2, 5]}[every]
    mean = np.maximum(TAU, 1).mean(axis=1)
    np.testing.assert_allclose(found["mean"].values, [np.where(who[int(n) - 2], mean, np.nan) for n in found["n"]])


def network_questions():
    """Those about timescales within the network: label, and options without ``analysis`` and ``every``."""
    net = ["mean", "std", "population_tau", "aic_bic_agreement", "r_squared"]
    by = lambda steps, **more: {"n_steps": steps, "n_trials": 2, **more}
    both = ("single_head", "multi_head")
    tasks = [f"{task}-{c}" for task in ("n_parity", "n_dms") for c in both]
    variants = [f"{variant}-{task}" for variant in ("relu", "tanh", "leaky_relu", "outside") for task in tasks]
    windows = [*both, "window_2", "window_3", "window_5"]
    return {
        "network_timescales": {f"{t}/{c}": (by(500, criterion=c), net) for t in tasks for c in ("aic", "trials")},
        "activation_functions": dict.fromkeys(variants, (by(300), net)),
        "sliding_windows": dict.fromkeys(windows, (by(500), net[:-1])),
    }


@pytest.mark.parametrize("name", network_questions())
def test_answers_that_were_kept_are_found_again(name):
    """An answer on disk is found by its label, the question's name and its options, whatever else changes here."""
    module, scale, asked = catalogue.find("recipes", name), scale_of(name, "smoke"), {}

    def ask(label, question, run, **options):
        if question.__name__ == "at_stages":
            asked[label] = options
        return xr.Dataset({"largest_n": ("member", np.zeros(3))}, {"member": np.arange(3)})

    run = populated(pr.tasks.NParity(), pr.curricula.SingleHead(), {})
    module.answers(dict.fromkeys(module.experiments(scale), run), scale, ask)
    assert asked == {
        label: {"analysis": "autocorrelation_timescales", "options": options, "keep": keep, "every": 1}
        for label, (options, keep) in network_questions()[name].items()
    }


# --- intervals ------------------------------------------------------------------------------------------------------

ONE, OTHER = np.array([1.0, 2.0, 4.0, 8.0]), np.array([0.5, 0.6, 3.0])


def every_resample(sample):
    return [np.array(drawn) for drawn in itertools.product(sample, repeat=len(sample))]


@pytest.mark.parametrize(
    ("statistic", "samples"),
    [
        (np.mean, [ONE]),
        (lambda a, b: a.mean() - b.mean(), [ONE, OTHER]),
        (lambda a, b: b.mean() / a.max(), [OTHER, ONE]),
    ],
    ids=["mean", "difference", "ratio"],
)
def test_intervals_against_all_resamples_there_are(statistic, samples):
    """Of so few members every resample can be listed; 2.5 % of them lie beyond either end."""
    values = np.array([statistic(*drawn) for drawn in itertools.product(*map(every_resample, samples))])
    low, high = bootstrap(statistic, *samples)
    assert (values < low).mean() < 0.035 and (values > high).mean() < 0.035
    assert (values <= low).mean() > 0.015 and (values >= high).mean() > 0.015


def test_the_seed_of_resamples():
    sample = RNG.normal(size=20)
    assert bootstrap(np.mean, sample) == bootstrap(np.mean, sample) != bootstrap(np.mean, sample, seed=1)


def test_a_lone_member_has_no_interval():
    assert np.isnan(bootstrap(lambda a, b: a.mean() - b.mean(), ONE, OTHER[:1])).all()
    assert np.isnan(bootstrap(np.mean, ONE[:0])).all()


def test_members_are_resampled_with_all_their_moments():
    """The mean over moments of members with one and with three of them: 2, 1 or, of 4 moments, 5 / 4."""
    rows = np.array([[2, 0, 2.0], [2, 7, 1.0], [3, 7, 1.0], [4, 7, 1.0]])
    seen = set()
    interval_of(rows, lambda mine: seen.add(mine[:, 2].mean()) or mine[:, 2].mean())
    assert seen == {2, 1, 1.25}


# --- network_timescales ---------------------------------------------------------------------------------------------


def network_answers(multi=lambda n: 4 * np.log(n), single=lambda n: 0.5 * n, agreement=0.97, quality=0.999):
    common = {"aic_bic_agreement": lambda n: 0 * n + agreement, "r_squared": lambda n: 0 * n + quality}

    def one(memories, f):
        found = over_n(memories, mean=f, std=f, population_tau=f, **common)
        return found.assign(r_squared=found["r_squared"].clip(max=1))

    return {
        f"{task}-{c}/aic": one(np.arange(2, 12 if c == "single_head" else 46), single if c == "single_head" else multi)
        for task in ("n_parity", "n_dms")
        for c in ("single_head", "multi_head")
    }


def test_network_timescales_pass_where_planted():
    found = judged("network_timescales", network_answers())
    assert found["T5"].passed and "not judged" not in found["T5"].note
    assert found["T6"].passed


@pytest.mark.parametrize(
    ("claim", "answers"),
    [
        ("T5", network_answers(multi=lambda n: 0.3 * n)),
        ("T5", network_answers(single=lambda n: 0 * n + 3)),
        ("T5", network_answers(multi=lambda n: 10 - 0.1 * n)),
        ("T5", network_answers(agreement=0.9)),
        ("T5", network_answers(quality=0.9)),
        ("T6", network_answers(multi=lambda n: 30 * np.log(n))),
        ("T6", network_answers(single=lambda n: 5 - 0.2 * n)),
    ],
    ids=["no saturation", "flat", "falling", "criteria disagree", "bad fits", "not comparable", "tau_pop falls"],
)
def test_network_timescales_fail_where_planted(claim, answers):
    assert judged("network_timescales", answers)[claim].passed is False


def test_saturation_is_not_judged_from_small_memories():
    short = {k: a.sel(n=slice(2, 20)) for k, a in network_answers().items()}
    assert "saturation not judged, largest N = 20" in judged("network_timescales", short)["T5"].note


# --- curriculum_timescales ------------------------------------------------------------------------------------------


def moments(memories, mean, sd, members=4, noise=0.001):
    """What ``tau_by_n`` gives: rows of N, member, mean and SD of tau."""
    n, who = (a.reshape(-1).astype(float) for a in np.meshgrid(memories, np.arange(members), indexing="ij"))
    values = {"n": n, "who": who, "mean": mean(n), "sd": sd(n)}
    # members lean to either side, so that intervals of flat lines contain 0
    blur = lambda name: (noise * RNG.normal(size=n.shape) + 0.005 * n * (-1) ** who) * (name in ("mean", "sd"))
    return xr.Dataset({name: ("moment", a + blur(name)) for name, a in values.items()})


GROWS, FALLS, FLAT = (lambda n: 1 + 0.1 * n), (lambda n: 2 - 0.05 * n), (lambda n: 0 * n + 0.3)


def curriculum_answers(single=(9, 10), multi=(14, 15), single_tau=(GROWS, GROWS), multi_tau=(FALLS, FLAT)):
    out = {}
    for task in ("n_parity", "n_dms"):
        for curriculum, largest, tau in (("single_head", single, single_tau), ("multi_head", multi, multi_tau)):
            out[f"{task}-{curriculum}/largest_n"] = xr.Dataset({"largest_n": ("member", np.resize(largest, 4))})
            out[f"{task}-{curriculum}/tau"] = moments(np.arange(2, max(largest) + 1), *tau)
        out[f"{task}-none/tau"] = moments(np.arange(2, 9), GROWS, GROWS)
    return out


def test_curriculum_timescales_pass_where_planted():
    found = judged("curriculum_timescales", curriculum_answers())
    assert found["T2"].passed and found["T4"].passed
    assert found["T4"].interval[1] < 0


@pytest.mark.parametrize(
    ("claim", "answers"),
    [
        ("T2", curriculum_answers(single=(9, 14))),
        ("T2", curriculum_answers(single=(14, 15), multi=(9, 10))),
        ("T4", curriculum_answers(single_tau=(FALLS, GROWS))),
        ("T4", curriculum_answers(single_tau=(GROWS, FALLS))),
        ("T4", curriculum_answers(multi_tau=(GROWS, FLAT))),
        ("T4", curriculum_answers(multi_tau=(FALLS, GROWS))),
        ("T4", curriculum_answers() | {"n_dms-none/tau": moments(np.arange(2, 9), FALLS, GROWS)}),
        ("T4", curriculum_answers() | {"n_dms-none/tau": moments([2, 3], GROWS, GROWS)}),
    ],
    ids=["tie", "swapped", "falls", "SD falls", "multi grows", "multi SD grows", "none falls", "too few"],
)
def test_curriculum_timescales_fail_where_planted(claim, answers):
    assert judged("curriculum_timescales", answers)[claim].passed is False


# --- integration_step -----------------------------------------------------------------------------------------------


def step_answers(below=0.95, above=0.55, alone=0.6, multi_tau=(FALLS, FLAT), single_tau=(GROWS, GROWS)):
    out = {"steps": xr.Dataset({"trained": ("steps", [7, 8, 9, 10])}).assign_attrs(alone=10)}
    steps = np.array([2, 3, 5, 6, 7, 8, 9, 10, 12, 15])
    for task in ("n_parity", "n_dms"):
        for curriculum, tau in (("single_head", single_tau), ("multi_head", multi_tau)):
            for kind in ("several", "alone"):
                level = np.where(steps > 10, below, np.where(steps < 7, above, 0.99)).astype(float)
                if kind == "alone":
                    level = np.where((steps > 10) | (steps < 7), alone, level)
                accuracy = level + 0.002 * RNG.normal(size=(4, len(steps)))
                label = f"{task}-{curriculum}-{kind}"
                out[f"{label}/tau"] = moments(np.arange(2, 9), *tau)
                out[f"{label}/accuracy"] = xr.Dataset(
                    {"accuracy": (("member", "steps"), accuracy)}, {"member": np.arange(4), "steps": steps}, {"n": 8}
                )
    return out


def test_integration_step_passes_where_planted():
    claim = judged("integration_step", step_answers())["T12"]
    assert claim.passed and not claim.note


@pytest.mark.parametrize(
    "answers",
    [
        step_answers(below=0.55, above=0.95),
        step_answers(below=0.8),
        step_answers(above=0.93),
        step_answers(alone=0.9),
        step_answers(single_tau=(FLAT, GROWS)),
        step_answers(multi_tau=(FALLS, GROWS)),
        {k: a for k, a in step_answers().items() if not k.endswith("accuracy")},
    ],
    ids=["swapped", "lost below", "kept above", "better alone", "flat", "SD grows", "nobody"],
)
def test_integration_step_fails_where_planted(answers):
    assert judged("integration_step", answers)["T12"].passed is False


# --- nobody left ----------------------------------------------------------------------------------------------------


def diverged(setup):
    """A population as training leaves it when all members diverged after they had passed the first stage."""
    n, n_heads = setup.population.members, setup.task.n_heads
    blank = {name: np.full((1, n), np.nan) for name in ("loss", "training_loss")}
    blank |= {name: np.full((1, n), -1) for name in ("n_steps", "stage", "newest")}
    blank |= {"passed": np.zeros((1, n), bool), f"scores/{setup.task.score}": np.full((1, n, n_heads), np.nan)}
    nothing = pr.Parameters({}, {})
    snapshots = {"stage_000": Snapshot(np.ones(n, bool), np.ones(n, int), nothing)}
    return Run(setup, nothing, nothing, ["diverged"] * n, History(blank), snapshots)


def gone(members=4):
    """The answer of a population in which all members diverged."""
    run = dataclasses.replace(populated(pr.tasks.NParity(), "none", {}), outcome=["diverged"] * 3)
    return Questions(Path("nowhere"))("label", "connectivity", run).assign_attrs(members=members)


def test_nobody_is_left_to_be_asked(tmp_path):
    run = populated(pr.tasks.NParity(n_max=4), pr.curricula.MultiHead(), {})
    ask = Questions(tmp_path)
    late = dataclasses.replace(run, outcome=["brought_in", "diverged", "brought_in"])
    assert ask("some", "timescales_single", late)["member"].values.tolist() == [0, 2]
    found = ask("none", "timescales_single", dataclasses.replace(run, outcome=["diverged"] * 3))
    assert not found.data_vars and found.sizes == {"member": 0} and found.attrs == {"members": 3}
    assert not (tmp_path / "none").exists() and list(ask.seconds()) == ["some/timescales_single"]
    with pytest.raises(pr.ConfigurationError, match="unknown option"):
        ask("none", "timescales_single", dataclasses.replace(run, outcome=["diverged"] * 3), tau=1)


@pytest.mark.parametrize("name", sorted(catalogue.names("recipes")))
def test_a_claim_about_populations_that_diverged_does_not_pass(name, tmp_path):
    module = catalogue.find("recipes", name)
    scale = scale_of(name, "smoke")
    runs = {label: diverged(setup) for label, setup in module.experiments(scale).items()}
    if not runs:
        pytest.skip("trains nothing")
    found = module.answers(runs, scale, Questions(tmp_path))
    claims = module.judge(found, recipe_files.read(name))
    assert claims and not any(claim.passed for claim in claims) and all(claim.note for claim in claims)
    if name in ("curriculum_timescales", "network_timescales", "integration_step"):
        assert all(claim.passed is False for claim in claims)
        assert all("2 of 2 members diverged and are left out" in claim.note for claim in claims)
    assert not list(tmp_path.iterdir())
    assert isinstance(module.draw(runs, found), dict)


@pytest.mark.parametrize("label", ["n_parity-single_head", "n_dms-multi_head"])
def test_one_population_that_diverged_fails_the_claim_and_is_named(label):
    found = judged("network_timescales", network_answers() | {f"{label}/aic": gone()})
    assert found["T5"].passed is False and found["T6"].passed is False
    assert all(f"{label}: 4 of 4 members diverged" in claim.note for claim in found.values())
    lost = {f"{label}/tau": gone(), f"{label}/largest_n": answered(gone(), "largest_n")}
    found = judged("curriculum_timescales", curriculum_answers() | lost)
    assert found["T2"].passed is False and "nobody left" in found["T2"].measured
    assert found["T4"].passed is False
    assert all(f"{label}: 4 of 4 members diverged" in claim.note for claim in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["curriculum_timescales", "network_timescales"])
def test_a_recipe_whose_networks_all_diverge_is_carried_out(name, tmp_path, monkeypatch):
    monkeypatch.setattr("poprnn.recipes._timescales.SGD", pr.optimizers.Sgd(learning_rate=1e38))
    made = reproduce(catalogue.find("recipes", name), "smoke", tmp_path / name)
    assert all(claim["passed"] is False and "diverged" in claim["note"] for claim in made["claims"])
    assert (tmp_path / name / "report.html").is_file()
