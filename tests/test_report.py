"""Figures have labelled axes and tell what the numbers say; the page is whole, safe and on its own."""

import dataclasses
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import jax
import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import poprnn as pr
from poprnn.analysis.contract import Result
from poprnn.core import storage
from poprnn.report import compare, curves, generic, marks, panels, results, style, words
from poprnn.report.figures import given, save_figures, unique
from poprnn.report.page import recipe_report, report
from poprnn.training.curricula.contract import Progress
from poprnn.training.run import History, Run, Snapshot
from poprnn.training.settings import Population, Setup, Training

CLAIMS = [
    {
        "id": "T2",
        "claim": "Multi > single",
        "paper": "about 35",
        "measured": 12.34567,
        "interval": [0.1, 0.25],
        "n": 8,
        "passed": True,
        "note": "stand-in",
    },
    {
        "id": "T4",
        "claim": "tau grows",
        "paper": ">= 0.8",
        "measured": float("nan"),
        "interval": None,
        "n": 4,
        "passed": False,
        "note": "<b>too few</b>",
    },
    {"id": "T5", "claim": "later", "paper": None, "measured": None, "interval": None, "n": 0, "passed": None},
]
VOID = {"meta", "link", "br", "img", "hr", "input", "use", "path", "image"}


def made_up(n_members, *, n_epochs=6, n_max=6, ended=(), diverged=(), vary=None, curriculum="multi_head"):
    """A run as training would leave it: ``ended`` members solve at epoch 3, ``diverged`` ones never have a loss."""
    task, cell = pr.tasks.NParity(n_max=n_max), pr.cells.LeakyRNN(n_units=5)
    setup = Setup(
        population=Population(members=n_members, vary=vary or {}),
        task=task,
        cell=cell,
        training=Training(curriculum=curriculum, epochs=n_epochs, steps_per_epoch=10),
    )
    random, shape, n_heads = np.random.default_rng(0), (n_epochs, n_members), task.n_heads
    stage = np.minimum(np.arange(n_epochs)[:, None] // (1 + np.arange(n_members) % 3), n_heads - 1)
    passed = np.vstack([np.diff(stage, axis=0) > 0, np.zeros((1, n_members), bool)])
    loss = np.exp(-np.arange(n_epochs))[:, None] + random.random(shape) / 10
    active = np.arange(n_heads) <= stage[..., None]
    rows = {
        "n_steps": np.broadcast_to(10 * np.arange(1, n_epochs + 1)[:, None], shape).copy(),
        "loss": loss,
        "training_loss": loss,
        "stage": stage,
        "newest": stage.copy(),
        "passed": passed,
        "scores/accuracy": np.where(active, 1 - loss[..., None] / 4, np.nan),
    }
    for member, last in [*((k, 3) for k in ended), *((k, 0) for k in diverged)]:
        for name, values in rows.items():
            values[last:, member] = False if name == "passed" else np.nan if values.dtype.kind == "f" else -1
    outcome = ["solved" if k in ended else "diverged" if k in diverged else "budget_spent" for k in range(n_members)]
    sizes = {"tau": (5,), "W": (5, 5), "W_in": (5, 1), "bias": (5,), "W_out": (2 * n_heads, 5), "b_out": (2 * n_heads,)}
    made = {name: random.random((n_members, *size)) + (name == "tau") for name, size in sizes.items()}
    arrays = pr.Parameters(made, {})
    snapshots = {
        f"stage_{s:03d}": Snapshot((passed & (stage == s)).any(0), np.zeros(n_members, int), arrays)
        for s in np.unique(stage[passed])
    }
    return Run(
        setup,
        arrays,
        arrays,
        outcome,
        History(rows),
        snapshots,
        Progress(passed.sum(0), np.isin(np.arange(n_members), ended)),
    )


def labelled(drawings):
    """Every figure has words on both axes and, where several things are drawn, a legend outside them."""
    assert drawings
    for drawing in drawings:
        axes = drawing.figure.axes[0]
        assert axes.get_xlabel(), drawing.name
        assert axes.get_ylabel(), drawing.name
        assert drawing.caption.endswith("."), drawing.name
        for legend in drawing.figure.legends:
            assert not legend.get_window_extent().overlaps(axes.get_window_extent()), drawing.name
            assert legend.get_window_extent().x0 >= 0, drawing.name
            assert legend.get_window_extent().x1 <= drawing.figure.bbox.x1, drawing.name


class Page(HTMLParser):
    """What a page fetches, its ids, its text and whether its elements are closed."""

    def __init__(self, path):
        super().__init__()
        self.fetched, self.ids, self.words, self.open, self.targets, self.tags = [], [], [], [], [], []
        self.source = Path(path).read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                (self.targets if value.startswith("#") else self.fetched).append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def check(self):
        assert not self.open
        assert [f for f in self.fetched if not f.startswith("data:image/png;base64,")] == []
        assert not re.findall(r"@import|url\((?!#)", self.source)
        assert len(set(self.ids)) == len(self.ids)
        assert {t.removeprefix("#") for t in self.targets} <= set(self.ids)
        assert not re.search(r"\$[a-z]", self.source)
        return self


# --- style ---------------------------------------------------------------------------------------------------------


def test_look_leaves_no_trace_and_ignores_the_users_settings():
    with matplotlib.rc_context({"font.size": 31, "axes.grid": False, "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        drawing = curves.loss(made_up(3))
        svg = drawing.svg()
        assert dict(matplotlib.rcParams) == before
    assert svg == curves.loss(made_up(3)).svg()
    with pytest.raises(ZeroDivisionError), style.look():
        1 / 0  # noqa: B018
    assert matplotlib.rcParams["font.size"] == matplotlib.rcParamsDefault["font.size"]


def test_no_pyplot():
    for path in Path(style.__file__).parent.glob("*.py"):
        assert "pyplot" not in path.read_text(), path.name


def test_svg_has_its_own_ids_and_exchangeable_colours():
    drawing = curves.loss(made_up(3))
    svg = drawing.svg()
    assert svg.startswith("<svg")
    assert "var(--blue)" in svg
    assert style.BLUE not in svg
    assert all(i.startswith("loss.") for i in re.findall(r'\bid="([^"]*)"', svg))
    assert "<metadata>" not in svg


def test_names_of_figures_and_long_labels():
    with style.look(), pytest.raises(pr.ConfigurationError, match="figure name"):
        style.finish("../loss", Figure(), "")
    name = "training.optimizer.an_option_with_a_name_that_goes_on_and_on_without_end $x$"
    runs = {name: made_up(3), name + " 2": made_up(3), "short": made_up(3)}
    labelled(compare.draw(runs))


# --- training curves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_members", [1, 4, 100])
def test_training_curves(n_members):
    run = made_up(n_members, ended=range(1, n_members, 4), diverged=range(3, n_members, 8))
    drawings = {d.name: d for d in curves.draw(run)}
    assert list(drawings) == ["loss", "score", "curriculum", *(["outcomes"] if n_members > 1 else [])]
    labelled(drawings.values())
    lines = [line for line in drawings["loss"].figure.axes[0].lines if len(line.get_xdata()) == 6]
    assert len(lines) == n_members + (n_members > 1)  # all members, and a median above several
    assert len(drawings["loss"].svg()) < 400_000
    if n_members == 100:
        assert all(line.get_linewidth() < 1 and line.get_alpha() < 0.5 for line in lines[:-1])


def test_members_that_ended_stop_and_keep_their_place_in_the_median():
    run = made_up(5, ended=(1, 4), diverged=(3,))
    axes = curves.loss(run).figure.axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 6]
    assert np.isfinite(lines[1].get_ydata()).sum() == 3
    assert not np.isfinite(lines[3].get_ydata()).any()
    held = run.history["loss"].copy()
    held[3:, [1, 4]] = held[2, [1, 4]]
    held[:, 3] = np.inf
    np.testing.assert_allclose(lines[-1].get_ydata(), np.median(held, axis=1))
    marked = {line.get_label(): line for line in axes.lines if line.get_label() in ("solved", "diverged")}
    assert marked["solved"].get_xdata().tolist() == [3, 3]
    assert marked["diverged"].get_ydata().tolist() == [pytest.approx(axes.get_ylim()[1], rel=0.2)]


def test_everyone_diverged():
    labelled(curves.draw(made_up(3, diverged=(0, 1, 2))))


def test_largest_solved_and_mean_score():
    run = made_up(2, ended=(1,))
    solved = curves.largest_solved(run)
    assert solved[:, 0].tolist() == [2, 3, 4, 5, 5, 5]
    assert solved[:, 1].tolist() == [1, 2, 2, 2, 2, 2]
    score = curves.mean_score(run)
    assert np.isnan(score[3:, 1]).all()
    np.testing.assert_allclose(score[0, 0], np.nanmean(run.history["scores/accuracy"][0, 0]))


def test_a_hyperparameter_that_differs_gets_colours():
    run = made_up(6, vary={"training.optimizer.learning_rate": [0.1, 0.2]})
    labels = [t.get_text() for t in curves.loss(run).figure.legends[0].get_texts()]
    assert labels == ["learning rate 0.1", "learning rate 0.2", "one member"]
    many = made_up(8, vary={"training.optimizer.learning_rate": [0.1 * k for k in range(1, 9)]})
    assert curves.loss(many).figure.legends[0].get_texts()[0].get_text() == "median"


def test_all_heads_from_the_start_are_counted():
    run = made_up(3, curriculum="all_heads")
    assert [d.name for d in curves.draw(run)] == ["loss", "score", "heads", "outcomes"]
    labelled(curves.draw(run))


class Remember(pr.Task):
    n_inputs, n_outputs, capacity = 1, 1, 4


def test_a_task_without_heads_or_memories(tmp_path):
    run = made_up(2)
    setup = Setup(population=run.setup.population, task=Remember(), cell=run.cell, training=Training(epochs=6))
    rows = run.history.arrays()
    scores = rows.pop("scores/accuracy")
    run = dataclasses.replace(run, setup=setup, history=History(rows | {"scores/score": np.nanmean(scores, axis=-1)}))
    assert curves.memories(run) is None
    assert curves.largest_solved(run)[-1].tolist() == [4, 2]
    assert [d.name for d in curves.draw(run)] == ["loss", "score", "outcomes"]
    labelled(curves.draw(run))
    assert "largest N" not in Page(report(run, tmp_path / "page.html")).check().text


def test_without_history():
    run = pr.from_arrays("n_parity", pr.cells.VanillaRNN(n_units=2), {})
    assert curves.draw(run) == []
    with pytest.raises(pr.NotApplicableError, match="no history"):
        curves.loss(run)
    with pytest.raises(pr.NotApplicableError, match="no history"):
        compare.progress({"a": run})


# --- results -------------------------------------------------------------------------------------------------------


def passing(**options):
    """Three untrained autoencoders with a binary bottleneck."""
    cell = pr.cells.BottleneckAutoencoder(n_units=4, **{"width": 1, "bottleneck": "binary"} | options)
    task = pr.tasks.StaticVectors(inputs=pr.distributions.Uniform(n_dimensions=1), n_steps=3)
    arrays = cell.init(1, 1, key=jax.random.key(0)).trainable
    return pr.from_arrays(task, cell, {k: np.stack([0.5 * n * v for n in (1, 2, 3)]) for k, v in arrays.items()})


@pytest.fixture(scope="module")
def measured(tiny_run):
    """The analyses that have figures of their own, asked of a run in which one member has passed a stage less."""
    reached = [Snapshot(np.arange(3) != 1, np.ones(3, int), tiny_run.parameters)] * 2
    run = dataclasses.replace(tiny_run, snapshots=dict(zip(("stage_000", "stage_001"), reached, strict=True)))
    short = {"n_trials": 4, "n_steps": 40, "burn_in": 2}
    options = {
        "accuracy_by_n": {"n_trials": 20},
        "dimensionality": short,
        "autocorrelation_timescales": short,
        "ablation": short,
        "weight_perturbation": short | {"strengths": [0.1, 1.0], "n_draws": 2},
        "inhibition_scaling": {"n_trials": 4, "n_steps": 40, "scales": [-0.5, 0.0, 0.5]},
        "dynamics_mismatch": {"methods": ["skip"], "spans": [2, 4], "n_trials": 4},
        "flops": {"criterion": 0.5},
        "fixed_points": {"n_trials": 4, "n_starts": 16},
    }
    made = ("timescale_perturbation", "retraining")  # the one is drawn as its twin, the other would take long to train
    bottleneck = ("rate_distortion", "transmitted_information", "code_book")  # asked of networks that have one
    runs = dict.fromkeys(bottleneck, passing())
    names = [n for n in results.OWN if n not in made]
    out = [pr.measure(n, runs.get(n, run), members="all", **options.get(n, {})) for n in names]
    twin = next(r for r in out if r.name == "weight_perturbation")
    accuracy = xr.Dataset({"accuracy": (("member", "to"), np.full((3, 2), 0.7))}, {"member": range(3), "to": [2, 3]})
    return [*out, dataclasses.replace(twin, name=made[0]), Result("retraining", accuracy, {"n": 2}, {})]


@pytest.fixture(params=[1, 3])
def answers(request, measured):
    """All three members, or one of them."""
    return [dataclasses.replace(r, data=r.data.isel(member=slice(request.param))) for r in measured]


def test_figures_of_the_analyses(answers):
    for result in answers:
        assert results.REQUIRED[result.name] <= set(result.data.data_vars), result.name
        labelled(results.draw(result))
    tau, dimensions = ([d.name for d in results.draw(answers[i])] for i in (1, 2))
    assert tau == ["timescales_single_mean", "timescales_single_std", "timescales_single"]
    assert len(dimensions) == (2 if answers[0].data.sizes["member"] > 1 else 1)


def test_lines_say_what_they_are():
    """A limit is not to be taken for a benchmark."""
    for options, word in (({}, "halving: a limit"), ({"bottleneck": "continuous"}, "linear: benchmark, no limit")):
        (drawing,) = results.draw(pr.measure("rate_distortion", passing(**options), n_trials=20))
        assert word in [line.get_label() for line in drawing.figure.axes[0].lines]
    (drawing,) = results.draw(pr.measure("transmitted_information", passing(), n_trials=200))
    assert "capacity: a limit" in [line.get_label() for line in drawing.figure.axes[0].lines]


def test_every_analysis_can_be_drawn_by_its_axes(answers):
    for result in answers:
        labelled(generic.draw(result))


def test_a_result_by_an_own_name_that_lacks_the_variables_is_drawn_by_its_axes():
    data = xr.Dataset({"other": ("member", np.arange(3.0))}, {"member": np.arange(3)})
    assert [d.name for d in results.draw(Result("connectivity", data, {}, {}))] == ["connectivity_other"]


def strange():
    random = np.random.default_rng(0)
    return Result(
        "strange",
        xr.Dataset(
            {
                "peak": ("member", random.normal(size=5)),
                "peak_standard_error": ("member", np.full(5, 0.2)),
                "low": ("member", np.ones(5)),
                "rate": (("time", "member"), random.normal(size=(9, 5)), {"units": "Hz"}),
                "unitwise": (("member", "unit"), random.normal(size=(5, 30))),
                "by_name": (("member", "condition"), random.normal(size=(5, 6))),
                "matrix": (("member", "row", "col"), random.normal(size=(5, 8, 12))),
                "distance": (("member", "other"), random.random((5, 5))),
                "map": (("lag", "row"), random.random((7, 8))),
                "word": ("member", np.array(list("abcde"))),
                "scalar": 3.2,
                "four": (("member", "row", "col", "lag"), np.zeros((5, 8, 12, 7))),
                "nothing": (("member", "unit"), np.full((5, 30), np.nan)),
                "same": (("member", "unit"), np.ones((5, 30))),
                "flag": ("member", np.array([True, False, True, False, True])),
            },
            {
                "member": np.array([0, 2, 3, 5, 9]),
                "time": ("time", np.arange(9) * 10.0, {"units": "ms"}),
                "condition": [f"a rather long condition {i}" for i in range(6)],
                "lag": np.linspace(0, 1, 7),
                "other": np.array([0, 2, 3, 5, 9]),
            },
        ),
        {"seed": 1, "dt": None},
        {1: "diverged", 4: "diverged"},
    )


def test_any_result_is_drawn_by_its_axes():
    drawings = {d.name.removeprefix("strange_"): d for d in generic.draw(strange())}
    labelled(drawings.values())
    assert set(drawings) == {"peak", "low", "rate", "unitwise", "by_name", "matrix", "distance", "map", "same", "flag"}
    axes = drawings["rate"].figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time (ms)", "rate (Hz)")
    assert drawings["distance"].figure.axes[0].images  # members against members: a map


def test_median_and_bins():
    assert marks.median(np.full((2, 1), np.nan))[0] != marks.median(np.full((2, 1), np.nan))[0]
    for values in (np.zeros(3), np.array([np.nan]), np.array([1.0]), np.arange(1e4), np.array([1, 1 + 1e-15])):
        edges = marks.bins(values)
        assert (np.diff(edges) > 0).all()
        assert len(edges) <= marks.MAX_BINS + 1


# --- comparisons ---------------------------------------------------------------------------------------------------


def test_compare():
    runs = {"multi-head": made_up(4), "single-head": made_up(3, ended=(0,), curriculum="single_head")}
    drawings = compare.draw(runs)
    assert [d.name for d in drawings] == ["compare_progress", "compare_largest", "compare_tau_mean", "compare_tau_std"]
    labelled(drawings)
    axes = drawings[0].figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "largest N solved")
    dots = [line for line in drawings[1].figure.axes[0].lines if line.get_marker() == "o"]
    assert sorted(dots[0].get_xdata()) == sorted(curves.largest_solved(runs["multi-head"])[-1])
    tau = pr.measure("timescales_single", runs["multi-head"], members="all")
    again = compare.timescales({"multi-head": tau})
    mean = np.nanmean(tau.data["mean_by_stage"].values, axis=1)
    np.testing.assert_allclose(again.figure.axes[0].lines[0].get_ydata()[0], mean[0])


def test_compare_says_what_is_wrong():
    for function in (compare.progress, compare.largest, compare.timescales):
        with pytest.raises(pr.ConfigurationError, match="at least one run"):
            function({})
    with pytest.raises(pr.ConfigurationError, match="must be 'mean' or 'std'"):
        compare.timescales({"a": made_up(1)}, statistic="median")
    with pytest.raises(pr.NotApplicableError, match="kept no weights"):
        compare.timescales({"a": dataclasses.replace(made_up(1), snapshots={})})
    with pytest.raises(pr.ConfigurationError, match="rows of"):
        compare.compare_curricula({"a": made_up(1)}, {"a": np.zeros((3, 2))})


def test_compare_curricula_leaves_out_what_has_no_moments():
    rows = np.array([[2, 0, 1.5, 0.3], [2, 1, 1.7, 0.3], [3, 0, 1.6, 0.4]])
    drawings = compare.compare_curricula({"a": made_up(2)}, {"a": rows, "b": np.zeros((0, 4))})
    labelled(drawings)
    first = drawings[2].figure.axes[0].lines[0]
    np.testing.assert_allclose(first.get_ydata(), [1.6, np.nan])
    assert first.get_label() == "a (n = 2)"


@pytest.mark.parametrize("column", [2, 3])
def test_rows_of_moments_as_a_matrix(column):
    """Against a look at every row, in any order; what nobody has a row for stays blank."""
    rng = np.random.default_rng(0)
    pairs = rng.permutation([(n, who) for n in (2, 3, 7) for who in (0, 4, 5) if (n, who) != (7, 4)])
    rows = np.column_stack([pairs, rng.normal(size=(len(pairs), 2))])
    x, values = panels.by_member(rows, column)
    assert x.tolist() == [2, 3, 7] and values.shape == (3, 3)
    for place, who in enumerate((0, 4, 5)):
        for at, n in enumerate(x):
            mine = [row[column] for row in rows if row[0] == n and row[1] == who]
            np.testing.assert_equal(values[place, at], mine[0] if mine else np.nan)
    x, values = panels.by_member(np.zeros((0, 4)), column)
    assert x.shape == (0,) and values.shape == (0, 0)


# --- the page ------------------------------------------------------------------------------------------------------


def test_page_holds_everything(tmp_path):
    run = made_up(100, ended=range(0, 100, 7), diverged=(3,))
    path = report(run, tmp_path / "deep" / "report.html", results=[strange()], claims=CLAIMS, title="A & <title>")
    page = Page(path).check()
    assert path == tmp_path / "deep" / "report.html"
    rows = re.findall(r'<td data-label="member"[^>]*>(\d+)</td>', page.source)
    assert [int(r) for r in rows] == list(range(100))
    for claim in CLAIMS:
        assert re.search(rf'data-label="id">{claim["id"]}<', page.source)
    for word in (
        "A & <title>",
        "Multi > single",
        "✓ passed",
        "✗ failed",
        "– not judged",
        "12.35",
        "[0.1, 0.25]",
        "not finite",
        "1 of 3 claims passed, 1 failed, 1 not judged",
        "<b>too few</b>",
        "diverged: 1, 4",
        "seed = 1",
        "@software{poprnn",
        "khajehabdollahi2024",
        'kind = "n_parity"',
        "15 solved",
        "84 budget spent",
    ):
        assert word in page.text, word
    assert "<b>too" not in page.source
    assert page.source.count("<figure") == page.source.count('<svg role="img"') + page.source.count("<svg aria-label")
    assert len(page.source) < 3_000_000


def test_a_failed_claim_is_shown_as_failed_only(tmp_path):
    page = Page(report(made_up(2), tmp_path / "report.html", claims=[CLAIMS[1]])).check()
    cell = re.search(r'data-label="verdict">(.*?)</td>', page.source).group(1)
    assert cell == '<span class="verdict failed">✗ failed</span>'
    assert "✓ passed" not in page.text
    assert "0 of 1 claim passed, 1 failed" in page.text
    falsy = Page(report(made_up(2), tmp_path / "report.html", claims=[CLAIMS[1] | {"passed": np.False_}]))
    assert "✗ failed" in falsy.text


def test_page_of_one_trained_member_without_results(tmp_path, tiny_run):
    page = Page(report(tiny_run.select([1]), tmp_path / "report.html")).check()
    for word in ("Summary", "Training", "Members", "Experiment", "jaxlib", "poprnn run experiment.toml", "FLOP/s"):
        assert word in page.text, word
    assert re.findall(r'<td data-label="member"[^>]*>(\d+)</td>', page.source) == ["1"]
    assert "Claims" not in page.text
    assert "Results" not in page.text


def test_page_of_networks_brought_in(tmp_path):
    run = pr.from_arrays("n_parity", pr.cells.VanillaRNN(n_units=2), {"W": np.zeros((2, 2, 2))})
    page = Page(report(run, tmp_path / "report.html")).check()
    assert "brought in from elsewhere" in page.text
    assert "2 brought in" in page.text


def test_the_package_itself_can_be_called(tmp_path):
    for _ in range(2):  # the second time the name is the package, not the function
        assert pr.report(made_up(1), tmp_path / "report.html").is_file()


def test_experiment_on_the_page_builds_the_same_setup(tmp_path):
    import tomllib

    from poprnn.experiment import from_dict

    run = made_up(2, vary={"training.optimizer.learning_rate": [0.1, 0.2]})
    page = Page(report(run, tmp_path / "report.html"))
    toml = next(w for w in page.words if "[population]" in w)
    assert from_dict(tomllib.loads(toml)).setup == run.setup


def test_page_of_a_folder_takes_results_and_claims_from_it(tmp_path):
    folder = tmp_path / "run"
    run = pr.fit(pr.tasks.NParity(n_max=3), pr.cells.LeakyRNN(n_units=5), members=2, epochs=0, out=folder)
    pr.measure("connectivity", run, members="all").save(folder / "results")
    storage.save_json(folder / "claims.json", CLAIMS)
    page = Page(report(folder, folder / "report.html")).check()
    assert "connectivity" in page.text
    assert "✗ failed" in page.text
    assert str(folder) in page.text
    with pytest.raises(pr.StorageError, match="not a run folder"):
        report(tmp_path / "nothing", tmp_path / "report.html")


def test_page_replaces_the_old_one_or_leaves_it(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(pr.ConfigurationError, match="must be a mapping"):
        report(made_up(1), path, claims=["T2"])
    assert path.read_text() == "old"
    report(made_up(1), path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(pr.StorageError, match="cannot write"):
        report(made_up(1), path / "below.html")


def test_own_figures_keep_their_colours_and_nothing_is_cut_off(tmp_path):
    figure = Figure(figsize=(9, 3))
    figure.add_subplot().set_xlabel("an own label", color=style.BLUE)
    page = Page(report(made_up(2), tmp_path / "report.html", figures={"My <own> figure.": figure})).check()
    own = re.search(r'<figure class="wide foreign">(.*?)</figure>', page.source, re.DOTALL).group(1)
    assert style.BLUE in own
    assert "My &lt;own&gt; figure." in own
    drawings = [curves.loss(made_up(2))] * 2
    assert [d.name for d in unique(given(drawings))] == ["loss", "loss_2"]
    Page(report(made_up(2), tmp_path / "report.html", figures=drawings)).check()


def test_recipe_page(tmp_path):
    about = {
        "title": "Title",
        "paper": "Some et al., 2024",
        "cites": ["khajehabdollahi2024", "unknown2020"],
        "claims": [{"id": "T2", "claim": "…", "rule": "min > max", "threshold": 0.98}],
    }
    runs = {"one <1>": made_up(2), "two": made_up(3, diverged=(0,))}
    figures = {"n_parity": compare.draw(runs)}
    path = recipe_report(about, "smoke", runs, CLAIMS, figures, tmp_path / "report.html", name="my_recipe")
    page = Page(path).check()
    for word in (
        "one <1>",
        "Scale: smoke",
        "min > max (threshold = 0.98)",
        "poprnn reproduce my_recipe --scale smoke",
        "unknown2020",
        "n_parity: Largest N solved",
        "✗ failed",
        "3 to 5",
        "none to 3",
    ):
        assert word in page.text, word


def test_figures_are_written_to_a_folder(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = save_figures(made_up(3), tmp_path / "figures", [strange()], {"Mine.": Figure()})
    names = {p.name for p in written}
    assert names == {p.name for p in (tmp_path / "figures").iterdir()}
    assert {"loss.png", "loss.svg", "strange_peak.png", "figure_1.svg"} <= names
    assert all(p.stat().st_size > 500 for p in written)
    first = (tmp_path / "figures" / "loss.svg").read_bytes()
    save_figures(made_up(3), tmp_path / "figures")
    assert (tmp_path / "figures" / "loss.svg").read_bytes() == first


def test_words_for_numbers():
    assert words.duration(3600) == "1 h 0 min"
    assert words.duration(59.7) == "60 s"
    assert words.size(999, "B") == "999 B"
    assert words.show(np.float32(0.5)) == "0.5"
    assert words.show({"a": [1, None]}) == "a: [1, ]"
    assert words.described(pr.cells.LeakyRNN()) == "leaky_rnn"
