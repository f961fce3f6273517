"""The ``poprnn`` command as a user meets it: what it prints, what it writes, and how it refuses."""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import call
from poprnn import experiment
from poprnn.core import catalogue

COMMAND = Path(sys.executable).with_name("poprnn")
EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.toml"))
GOOD = """
[population]
members = 2
[task]
kind = "n_parity"
n_max = 4
[cell]
kind = "leaky_rnn"
n_units = 6
[training]
batch = 4
epochs = 1
steps_per_epoch = 10
evaluation_batches = 1
curriculum = "multi_head"
[[analysis]]
kind = "connectivity"
members = "all"
"""
HAS_PAGE = importlib.util.find_spec("poprnn.report.page") is not None


def refused(*arguments, says=()):
    """The command refuses: code 2, nothing on stdout, one or two lines on stderr that say certain things."""
    code, out, err = call(*arguments)
    assert code == 2, (code, out, err)
    assert out == ""
    assert 1 <= len(err.strip().splitlines()) <= 2, err
    assert err.startswith("poprnn: ")
    assert "Traceback" not in err
    for words in says:
        assert words in err, err
    return err


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """One run through the command, and what it printed with --json."""
    folder = tmp_path_factory.mktemp("command")
    (folder / "good.toml").write_text(GOOD)
    code, out, err = call("run", folder / "good.toml", "--out", folder / "run", "--json")
    assert (code, err) == (0, "")
    return folder / "run", out


# --- refusals before anything is written ------------------------------------------------------------------------

EDITS = {
    "unknown key": ("n_max = 4", "n_mx = 4", ["n_mx", "did you mean 'n_max'"]),
    "unknown section": ("[training]", "[tranining]", ["unknown section 'tranining'", "did you mean 'training'"]),
    "missing section": ("[cell]\n", "[population.vary]\n", []),
    "wrong type": ("n_units = 6", "n_units = 'six'", ["n_units = 'six'", "integer"]),
    "fraction for a count": ("n_units = 6", "n_units = 6.5", ["n_units = 6.5", "integer"]),
    "truth value for a count": ("members = 2", "members = true", ["members = True", "integer"]),
    "negative size": ("n_units = 6", "n_units = -5", ["n_units = -5", "greater than 0"]),
    "no members": ("members = 2", "members = 0", ["members = 0", "greater than 0"]),
    "too many units": ("n_units = 6", "n_units = 1000000000", ["needs about", "are available"]),
    "far too many units": ("n_units = 6", "n_units = 99999999999999999999", []),
    "too many members": ("members = 2", "members = 1000000000", ["needs about", "are available"]),
    "too large a batch": ("batch = 4", "batch = 1000000000000", []),
    "too many evaluation batches": ("evaluation_batches = 1", "evaluation_batches = 99999999999", []),
    "too large a seed": ("members = 2", "seed = 4294967296", ["seed", "less than"]),
    "too long": ("n_max = 4", "n_max = 1000000000", []),
    "broken TOML": ("[cell]", "[cell", ["not valid TOML", "line"]),
    "unknown task": ('"n_parity"', '"n_party"', ["n_party", "did you mean 'n_parity'"]),
    "unknown cell": ('"leaky_rnn"', '"leeky_rnn"', ["leeky_rnn", "did you mean 'leaky_rnn'"]),
    "unknown curriculum": ('"multi_head"', '"mutli_head"', ["mutli_head", "did you mean 'multi_head'"]),
    "unknown analysis": ('"connectivity"', '"conectivity"', ["conectivity", "did you mean 'connectivity'"]),
    "unknown option of an analysis": ('members = "all"', "n_trails = 3", ["n_trails"]),
    "analysis without kind": ('kind = "connectivity"', "", ["'kind' is missing"]),
    "analysis of bad members": ('members = "all"', 'members = "best"', ["members"]),
    "analysis of members of a wrong type": ('members = "all"', "members = 5", ["members"]),
    "analysis of unknown members": ('members = "all"', "members = [0, 7]", ["7"]),
}


@pytest.mark.parametrize(("old", "new", "says"), EDITS.values(), ids=EDITS)
def test_bad_experiment_file(tmp_path, good, old, new, says):
    assert old in GOOD
    good.write_text(GOOD.replace(old, new))
    refused("run", good, "--out", tmp_path / "out", says=says)
    assert not (tmp_path / "out").exists()


SETS = {
    "nothing.x=1": ["unknown section 'nothing'"],
    "task.n_mx=3": ["n_mx", "did you mean 'n_max'"],
    "task.n_max.x=3": ["--set task.n_max.x=3", "'n_max'"],
    "abc": ["--set abc", "section.option=value"],
    "=3": ["--set =3"],
    "task.n_max=": ["n_max", "integer"],
    "task..n_max=3": [],
    ".=3": [],
    "population=3": ["population = 3"],
    "training=true": ["training"],
    "task=5": ["task = 5"],
    "cell=[1]": ["cell"],
    "analysis=3": ["[[analysis]]"],
    "analysis=[3]": ["analysis"],
    "analysis=[{kind = 3}]": ["analyses"],
    "task.kind={}": ["tasks"],
    "training.monitors=[{}]": ["'kind' is missing"],
    "training.optimizer=3": ["optimizer = 3"],
    "training.penalties=3": ["penalties = 3"],
    "population.vary={'training.optimizer.lerning_rate' = [1]}": ["did you mean 'training.optimizer.learning_rate'"],
    "population.vary={'training.optimizer.learning_rate' = [-1.0]}": ["learning_rate = -1.0"],
    "population.vary={'training.optimizer.learning_rate' = []}": ["no values"],
    "task.n_max=3\ncell.n_units=5": [],
}


@pytest.mark.parametrize("text", SETS)
def test_bad_override(tmp_path, good, text):
    refused("run", good, "--out", tmp_path / "out", "--set", text, says=SETS[text])
    assert not (tmp_path / "out").exists()


def test_bad_files(tmp_path, good):
    out = tmp_path / "out"
    refused("run", tmp_path / "none.toml", "--out", out, says=["no such file", "none.toml"])
    refused("run", tmp_path, "--out", out, says=["cannot read"])
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    refused("run", tmp_path / "binary.toml", "--out", out, says=["binary.toml"])
    refused("run", good, "--out", out, "--plugin", tmp_path / "none.py", says=["none.py", "not a file"])
    refused("run", good, "--out", out, "--plugin", good, says=["not a Python file"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["binary.toml", "good.toml"]


def test_output_folder_that_cannot_be(tmp_path, good):
    refused("run", good, "--out", good / "below", says=["cannot write", "below"])  # holds for root too
    refused("run", good, "--out", good, says=["already exists"])
    used = tmp_path / "used"
    used.mkdir()
    (used / "notes.txt").write_text("mine")
    refused("run", good, "--out", used, says=["already exists and is not empty"])
    assert [p.name for p in used.iterdir()] == ["notes.txt"]
    assert good.read_text() == GOOD


@pytest.mark.parametrize(
    "command",
    [
        "resume",
        "cite",
        pytest.param("report", marks=pytest.mark.skipif(not HAS_PAGE, reason="the page is being written")),
        "measure",
    ],
)
def test_folder_that_is_no_run(tmp_path, command):
    more = ["connectivity"] if command == "measure" else []
    refused(command, tmp_path, *more, says=["is not a run folder"])
    refused(command, tmp_path / "none", *more, says=["is not a run folder"])
    assert not list(tmp_path.iterdir())


def test_unknown_names(tmp_path):
    refused("list", "taks", says=["did you mean 'tasks'"])
    refused("show", "parityy", says=["did you mean 'n_parity'"])
    refused("show", "nope/n_parity", says=["unknown family"])
    refused("reproduce", "curiculum_timescales", "--out", tmp_path / "r", says=["did you mean 'curriculum_timescales'"])
    refused("reproduce", "curriculum_timescales", "--scale", "lptop", "--dry-run", says=["did you mean 'laptop'"])
    assert not (tmp_path / "r").exists()


@pytest.mark.skipif(not HAS_PAGE, reason="the page is being written")
def test_unknown_scale_writes_nothing(tmp_path):
    refused("reproduce", "curriculum_timescales", "--scale", "huge", "--out", tmp_path / "r", says=["scale 'huge'"])
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("arguments", [["frobnicate"], ["run"], ["run", "--bogus"], ["measure"]])
def test_wrong_usage(arguments):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("poprnn: ") and len(err.splitlines()) == 1


def test_refusal_in_a_process(tmp_path, good):
    good.write_text(GOOD.replace("n_units = 6", "n_units = 1000000000"))
    done = subprocess.run(
        [COMMAND, "run", good, "--out", tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("poprnn: ")
    assert len(done.stderr.splitlines()) <= 2
    assert not (tmp_path / "out").exists()


# --- what works -------------------------------------------------------------------------------------------------


def test_run_prints_json_and_fills_its_folder(finished):
    folder, out = finished
    answer = json.loads(out)
    assert answer["folder"] == str(folder)
    assert len(answer["outcome"]) == len(answer["stages_passed"]) == 2
    assert answer["manifest"]["flops"] > 0
    present = {p.name for p in folder.iterdir()}
    assert present >= {
        "experiment.toml",
        "manifest.json",
        "initial.safetensors",
        "weights.safetensors",
        "history.parquet",
        "checkpoint",
        "results",
    }
    assert not list(folder.rglob(".*"))
    stored = experiment.read(folder / "experiment.toml")  # resolved, and itself an experiment file
    assert stored.setup == experiment.load(folder).setup
    assert [r.name for r in experiment.results(folder)] == ["connectivity"]


def test_used_folder_is_refused_and_left_alone(finished, good):
    folder, _ = finished
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    refused("run", good, "--out", folder, says=["already exists"])
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_default_folder_is_a_free_one(tmp_path, good, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "good").mkdir(parents=True)
    code, out, _ = call("run", good, "--set", "population.members=2", "--set", "analysis=[]", "--quiet")
    assert code == 0
    assert out.startswith("runs/good-2: 2 ")
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["good", "good-2"]
    assert not list((tmp_path / "runs" / "good").iterdir())


def test_override_reaches_the_run(good):
    read = experiment.read(good, ["cell.n_units=9", "training.curriculum.threshold=0.9", "training.optimizer=sgd"])
    assert read.setup.cell.n_units == 9
    assert read.setup.training.curriculum.threshold == 0.9
    assert read.setup.training.curriculum.name() == "multi_head"
    assert read.setup.training.optimizer.name() == "sgd"


def test_measure(finished):
    folder, _ = finished
    code, out, err = call("measure", folder, "connectivity", "--members", "0", "--json")
    assert (code, err) == (0, "")
    (answer,) = json.loads(out)
    assert answer["analysis"] == "connectivity"
    assert answer["data"]["coords"]["member"]["data"] == [0]
    assert np.shape(answer["data"]["data_vars"]["mean"]["data"]) == (1, 6)
    assert answer["left_out"] == {"1": "not asked for"}
    code, out, _ = call("measure", folder, "connectivity", "--members", "all")
    assert code == 0
    assert "connectivity" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["connectivity", "--members", "0,7"], "no member 7"),
        (["connectivity", "--members", "-1"], "no member -1"),
        (["connectivity", "--members", "a"], "--members a"),
        (["connectivity", "--members", ""], "--members"),
        (["conectivity"], "did you mean 'connectivity'"),
        (["connectivity", "--members", "0", "--set", "x=1"], "unknown option 'x'"),
        (["connectivity", "--members", "0", "--set", "x"], "--set x"),
        (["connectivity", "--set", "members=5"], "members"),
        (["connectivity", "--members", "0", "--set", "kind=5"], "kind"),
    ],
)
def test_measure_refuses(finished, arguments, says):
    folder, _ = finished
    kept = sorted(p.name for p in (folder / "results").iterdir())
    refused("measure", folder, *arguments, says=[says])
    assert sorted(p.name for p in (folder / "results").iterdir()) == kept


def test_cite(finished):
    folder, _ = finished
    code, out, _ = call("cite", folder)
    assert code == 0
    assert out.startswith("@software{poprnn,")
    assert "@inproceedings{khajehabdollahi2024," in out
    assert out.count("{") == out.count("}")


@pytest.mark.skipif(not HAS_PAGE, reason="the page is being written")
def test_report(finished, tmp_path):
    pytest.importorskip("poprnn.report.page")
    folder, _ = finished
    code, out, _ = call("report", folder, "--out", tmp_path / "report.html")
    assert code == 0
    assert str(tmp_path / "report.html") in out
    page = (tmp_path / "report.html").read_text()
    assert "<html" in page
    assert "</html>" in page


@pytest.mark.parametrize("family", catalogue.FAMILIES)
def test_list_and_show_a_family(family):
    code, out, _ = call("list", family)
    assert code == 0
    code, as_json, _ = call("list", family, "--json")
    assert code == 0
    listed = json.loads(as_json)
    names = [entry["name"] for entry in listed] if family == "recipes" else listed
    assert names == catalogue.names(family)
    for name in catalogue._built_in(family):
        assert name in out
        code, text, _ = call("show", f"{family}/{name}")
        assert code == 0
        assert text.startswith(f"{name}  ({family})")
        assert len(text.splitlines()) > 2
        code, about, _ = call("show", f"{family}/{name}", "--json")
        assert code == 0
        about = json.loads(about)
        assert about["text"]
        assert Path(about["path"]).is_file()


def test_list_everything():
    code, out, _ = call("list", "--json")
    assert code == 0
    assert list(json.loads(out)) == list(catalogue.FAMILIES)
    code, out, _ = call("list")
    assert code == 0
    assert len(out.splitlines()) == len(catalogue.FAMILIES)


def test_dry_run():
    code, out, _ = call("reproduce", "curriculum_timescales", "--scale", "smoke", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["members"] > 0


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_can_be_read(path):
    experiment.read(path, [] if catalogue.names("analyses") else ["analysis=[]"])


def test_there_are_examples():
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("arguments", [["--help"], ["list"]])
def test_answers_at_once(arguments):
    took = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=True)
        took.append(time.perf_counter() - began)
    assert "curricula" in done.stdout or "resume" in done.stdout
    assert statistics.median(took) < 1.0, took  # half a second on a machine that does nothing else


def test_help_and_list_do_not_import_jax():
    code = (
        "import sys; sys.argv = ['poprnn', 'list']\n"
        "from poprnn import cli\ntry:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "sys.exit(3 if {'jax', 'numpy'} & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_debug_shows_the_users_line(tmp_path, good):
    (tmp_path / "faulty.py").write_text("""
import poprnn as pr
from poprnn.cells.vanilla_rnn import VanillaRNN

@pr.register("cells")
class Faulty(VanillaRNN):
    '''Raises in its step.'''

    def step(self, prepared, state, input, *, key, context):
        raise ValueError("the user's own mistake")
""")
    text = GOOD.replace('"leaky_rnn"', '"faulty"').replace("members = 2", "members = 1")
    good.write_text(text.replace("batch = 4", "batch = 1").replace("n_max = 4", "n_max = 3"))
    command = [COMMAND, "run", good, "--out", tmp_path / "out", "--plugin", tmp_path / "faulty.py", "--debug"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "JAX_PLATFORMS": "cpu"}
    )
    assert done.returncode == 1
    assert 'raise ValueError("the user\'s own mistake")' in done.stderr
    assert "faulty.py" in done.stderr


# --- claims ---------------------------------------------------------------------------------------------------------


def test_claims_of_several_folders_make_one_table(tmp_path):
    for place, (identifier, passed) in enumerate((("T10", True), ("T2", False), ("T3", None))):
        folder = tmp_path / f"recipe{place}"
        folder.mkdir()
        claim = {"id": identifier, "claim": "a | b", "paper": 1, "measured": "2", "interval": [0, 1], "n": 4}
        (folder / "claims.json").write_text(json.dumps([claim | {"passed": passed, "note": "stand-in"}]))
        about = {"recipe": f"r{place}", "scale": "smoke", "training_seconds": {"x": 120}, "answer_seconds": {"y": 60}}
        (folder / "recipe.json").write_text(json.dumps(about))
    folders = sorted(tmp_path.iterdir())
    code, out, _ = call("claims", *folders)
    rows = out.splitlines()[2:]
    assert code == 0 and [row.split(":")[0] for row in rows] == ["| T2", "| T3", "| T10"]
    assert "**failed**" in rows[0] and "not judged" in rows[1] and "passed" in rows[2]
    assert "a \\| b" in rows[0] and "2 + 1" in rows[0] and "`r1`, smoke" in rows[0]
    code, out, _ = call("claims", *folders, "--json")
    assert json.loads(out)[0]["training_minutes"] == 2
    code, _, err = call("claims", tmp_path)
    assert code == 2 and "no such file" in err
