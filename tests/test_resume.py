"""A run that was killed, interrupted or damaged ends as if nothing had happened, or says why it cannot."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from conftest import call
from poprnn import experiment
from poprnn.cells.leaky_rnn import LeakyRNN
from poprnn.core import storage
from poprnn.core.errors import StorageError
from poprnn.tasks.n_parity import NParity
from poprnn.training import trainer
from poprnn.training.settings import Setup

pytestmark = pytest.mark.optimised  # the promise is about the bits of the programs that users get

COMMAND = Path(sys.executable).with_name("poprnn")
TEXT = """
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
epochs = 3
steps_per_epoch = 10
evaluation_batches = 1
curriculum = "multi_head"
[[analysis]]
kind = "connectivity"
members = "all"
"""
KILLER = """
import os, pathlib, signal, sys
from poprnn import experiment
from poprnn.cells.leaky_rnn import LeakyRNN
from poprnn.core import storage
from poprnn.tasks.n_parity import NParity
from poprnn.training import trainer
from poprnn.training.settings import Setup

trainer.CHECKPOINT_SECONDS = 0
save = storage.save_json

def save_json(path, value):
    if path.name == "meta.json" and value["n_steps"] > 20:  # a whole epoch and some steps since the last checkpoints
        path.write_text("{")
        os.kill(os.getpid(), signal.SIGKILL)
    save(path, value)

storage.save_json = save_json
experiment.run(experiment.read(sys.argv[1]), sys.argv[2])
"""


def listing(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def checkpoints(folder):
    return sorted(p for p in (folder / "checkpoint").iterdir() if p.name.isdigit())


class Place:
    """An empty home and working directory for a subprocess, and the experiment file outside of both."""

    def __init__(self, folder, programs):
        self.folder, self.run = folder, folder / "run"
        (folder / "home").mkdir()
        (folder / "cwd").mkdir()
        (folder / "tmp").mkdir()
        (folder / "file.toml").write_text(TEXT)
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "MPL"))}
        # what the first process compiles, the second need not; the tests' own process compiles for itself
        programs = {"JAX_COMPILATION_CACHE_DIR": str(programs), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3"}
        self.environment = keep | programs | {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}

    def start(self, *command):
        return subprocess.Popen(
            list(map(str, command)),
            cwd=self.folder / "cwd",
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def wrote_outside(self):
        return [name for inner in ("home", "cwd", "tmp") for name in listing(self.folder / inner)]


def wait_for(path, process):
    until = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="session")
def stopped(tmp_path_factory):
    """One process that gets Ctrl-C, then one that kills itself while it writes a checkpoint."""
    programs = tmp_path_factory.mktemp("programs")
    killed, interrupted = (Place(tmp_path_factory.mktemp(name), programs) for name in ("killed", "interrupted"))
    b = interrupted.start(COMMAND, "run", interrupted.folder / "file.toml", "--out", interrupted.run)
    with ended(b):
        wait_for(interrupted.run / "checkpoint" / "0000000000", b)  # training begins; now it compiles
        b.send_signal(signal.SIGINT)
        interrupted.said = (*b.communicate(timeout=120), b.returncode)
    (killed.folder / "killer.py").write_text(KILLER)
    a = killed.start(sys.executable, killed.folder / "killer.py", killed.folder / "file.toml", killed.run)
    with ended(a):
        killed.said = (*a.communicate(timeout=120), a.returncode)
    return killed, interrupted


@contextlib.contextmanager
def ended(process):
    """Nothing goes on after a test that failed."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def killed(stopped):
    return stopped[0]


@pytest.fixture(scope="session")
def interrupted(stopped):
    return stopped[1]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "file.toml").write_text(TEXT)
    return experiment.run(experiment.read(folder / "file.toml"), folder / "run")


@pytest.fixture
def copied(killed, tmp_path):
    return Path(shutil.copytree(killed.run, tmp_path / "run"))


def bits(tree):
    return {
        name: (a.dtype.str, a.shape, np.ascontiguousarray(a).tobytes())
        for name, a in storage.names_and_leaves(tree).items()
    }


def assert_same(a, b):
    """Weights, history, outcomes, stages and snapshots, bit for bit."""
    assert bits(a.parameters) == bits(b.parameters)
    assert bits(a.initial) == bits(b.initial)
    assert bits(a.progress) == bits(b.progress)
    assert bits(a.history.arrays()) == bits(b.history.arrays())
    assert a.outcome == b.outcome
    assert list(a.snapshots) == list(b.snapshots)
    for name, snapshot in a.snapshots.items():
        other = b.snapshots[name]
        assert bits((snapshot.reached, snapshot.epoch, snapshot.parameters)) == bits(
            (other.reached, other.epoch, other.parameters)
        )


# --- killed -----------------------------------------------------------------------------------------------------


def test_killed_run_is_as_it_should_be(killed, undisturbed):
    """It was killed in the last epoch, in the middle of a checkpoint, and left two older ones."""
    out, err, code = killed.said
    assert code == -signal.SIGKILL, (out, err)
    assert not (killed.run / "weights.safetensors").exists()
    assert len(checkpoints(killed.run)) == 2
    assert 10 < int(checkpoints(killed.run)[-1].name) <= 20
    begun = experiment.load(killed.run)
    assert begun.outcome == ["training", "training"]
    assert 1 <= len(begun.history) < 3
    assert bits(begun.initial) == bits(undisturbed.initial)
    assert bits(begun.parameters) != bits(undisturbed.parameters)


def test_resumed_after_kill(copied, undisturbed):
    resumed = experiment.resume(copied)
    assert_same(resumed, undisturbed)
    assert_same(experiment.load(copied), undisturbed)
    assert len(checkpoints(copied)) == 2
    assert [bits({k: v.values for k, v in r.data.data_vars.items()}) for r in experiment.results(copied)] == [
        bits({k: v.values for k, v in r.data.data_vars.items()}) for r in experiment.results(undisturbed.path)
    ]


def test_remains_of_the_kill_are_cleared_away(copied):
    experiment.resume(copied)
    assert not [name for name in listing(copied) if ".part" in name]


@pytest.mark.parametrize("damaged", ["state.safetensors", "history.safetensors", "meta.json"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "missing"])
def test_damaged_checkpoint_falls_back(copied, undisturbed, damaged, damage):
    path = checkpoints(copied)[-1] / damaged
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    with pytest.warns(UserWarning, match=f"checkpoint {checkpoints(copied)[-1].name} cannot be used.*the one before"):
        resumed = experiment.resume(copied)
    assert_same(resumed, undisturbed)


@pytest.mark.parametrize(
    "content", ["{}", "[]", "null", '{"n_steps": 3, "seconds": 1.0}', '{"seconds": "x", "machine": 3}']
)
def test_checkpoint_with_strange_notes_falls_back(copied, undisturbed, content):
    (checkpoints(copied)[-1] / "meta.json").write_text(content)
    with pytest.warns(UserWarning, match="cannot be used"):
        resumed = experiment.resume(copied)
    assert_same(resumed, undisturbed)


def test_fallback_through_the_command(copied, undisturbed):
    newest = checkpoints(copied)[-1]
    (newest / "state.safetensors").write_bytes(b"damaged")
    code, out, err = call("resume", copied)
    assert code == 0
    assert out.startswith(f"{copied}: ")
    (line,) = err.splitlines()
    assert line.startswith(f"poprnn: checkpoint {newest.name} cannot be used")
    assert_same(experiment.load(copied), undisturbed)


def test_two_damaged_checkpoints(copied):
    for path in checkpoints(copied):
        content = (path / "state.safetensors").read_bytes()
        (path / "state.safetensors").write_bytes(content[:-1])
    before = listing(copied)
    with pytest.raises(StorageError, match="cannot be used"):
        experiment.resume(copied)
    code, out, err = call("resume", copied)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) <= 2
    assert listing(copied) == before


def test_no_checkpoint(copied):
    shutil.rmtree(copied / "checkpoint")
    with pytest.raises(StorageError, match="no checkpoint to resume from"):
        experiment.resume(copied)


def test_stopped_before_its_members_were_drawn_a_run_has_not_begun(tmp_path, monkeypatch):
    """What it leaves is an empty folder, which the same call takes again; not a run that cannot be resumed."""
    setup = Setup(task=NParity(), cell=LeakyRNN(n_units=3))

    def stop(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(trainer.Trainer, "_begin", stop)
        with pytest.raises(KeyboardInterrupt):
            trainer.Trainer(setup, out=tmp_path / "run")
    assert not listing(tmp_path / "run")
    assert trainer.Trainer(setup, out=tmp_path / "run").folder.experiment.is_file()


def _reshape(path, name):
    arrays = storage.load_arrays(path)
    arrays[name] = arrays[name][..., :-1]
    storage.save_tree(path, arrays)


def test_weights_of_another_shape_are_named(copied):
    name = next(n for n in storage.load_arrays(copied / "initial.safetensors") if n.endswith("W"))
    _reshape(copied / "initial.safetensors", name)
    for read in (experiment.load, experiment.resume):
        with pytest.raises(StorageError, match=f"'{name}' is float32"):
            read(copied)
    code, _, err = call("resume", copied)
    assert code == 2
    assert name in err


def test_final_weights_of_another_shape_are_named(undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed.path, tmp_path / "run")
    name = next(n for n in storage.load_arrays(folder / "weights.safetensors") if n.endswith("W"))
    _reshape(folder / "weights.safetensors", name)
    with pytest.raises(StorageError, match=f"'{name}' is float32"):
        experiment.load(folder)


def test_state_of_another_shape_is_named(copied):
    for path in checkpoints(copied):
        name = next(n for n in storage.load_arrays(path / "state.safetensors") if n.endswith("W"))
        _reshape(path / "state.safetensors", name)
    with pytest.raises(StorageError, match=f"'{name}' is float32"):
        experiment.resume(copied)


@pytest.mark.parametrize(
    ("what", "value"), [("n_threads", 97), ("processor", "abacus"), ("versions", {"jax": "0.0.1"})]
)
def test_another_machine_warns(copied, what, value):
    path = checkpoints(copied)[-1] / "meta.json"
    meta = json.loads(path.read_text())
    meta["machine"][what] = value
    path.write_text(json.dumps(meta))
    with pytest.warns(UserWarning, match=f"another {what} .*not with the same bits"):
        experiment.resume(copied)


# --- finished ---------------------------------------------------------------------------------------------------


def test_resuming_a_finished_run_changes_nothing(undisturbed, tmp_path):
    folder = Path(shutil.copytree(undisturbed.path, tmp_path / "run"))
    clocks = ("meta.json", "manifest.json", "history.parquet")  # hold seconds; the table has a test of its own
    content = lambda: {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name not in clocks}
    before, names = content(), listing(folder)
    assert_same(experiment.resume(folder), undisturbed)
    assert listing(folder) == names
    assert content() == before


def test_finished_run_keeps_its_manifest(undisturbed, tmp_path):
    folder = Path(shutil.copytree(undisturbed.path, tmp_path / "run"))
    old = storage.load_json(folder / "manifest.json")
    experiment.resume(folder)
    new = storage.load_json(folder / "manifest.json")
    assert {k: v for k, v in new.items() if k not in ("seconds", "peak_bytes")} == {
        k: v for k, v in old.items() if k not in ("seconds", "peak_bytes")
    }
    assert new["seconds"] == pytest.approx(old["seconds"], abs=5)


def test_history_table_keeps_its_columns(undisturbed, tmp_path):
    """In the same order too, before and after: scripts read columns by place."""
    folder = Path(shutil.copytree(undisturbed.path, tmp_path / "run"))
    before = pq.read_table(folder / "history.parquet")
    assert before.column_names[:2] == ["epoch", "member"]
    assert before.num_rows == 3 * 2
    resumed = experiment.resume(folder)
    after = pq.read_table(folder / "history.parquet")
    assert sorted(after.column_names) == sorted(before.column_names)
    for name in before.column_names:
        np.testing.assert_array_equal(after[name].to_numpy(), before[name].to_numpy())
    assert after.column_names == before.column_names
    assert resumed.history.names() == undisturbed.history.names()


def test_only_two_checkpoints_are_kept(tmp_path, undisturbed, monkeypatch):
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
    most = []
    run = experiment.run(
        experiment.Experiment(undisturbed.setup),
        tmp_path / "run",
        watch=lambda update: most.append(len(checkpoints(tmp_path / "run"))),
    )
    assert max(most) == 2
    assert [int(p.name) for p in checkpoints(tmp_path / "run")][-1] == 30
    assert len(checkpoints(tmp_path / "run")) == 2
    assert_same(run, undisturbed)  # how often a checkpoint is written decides nothing


# --- Ctrl-C -----------------------------------------------------------------------------------------------------


def test_interrupted_run_ends_cleanly(interrupted):
    out, err, code = interrupted.said
    assert code in (0, 130)
    assert err == ""
    assert "2 training" in out
    assert f"poprnn resume {interrupted.run}" in out
    assert not [name for name in listing(interrupted.run) if ".part" in name]
    assert experiment.load(interrupted.run).outcome == ["training", "training"]
    assert not (interrupted.run / "results").exists()


def test_interrupted_run_resumes(interrupted, undisturbed, tmp_path):
    folder = Path(shutil.copytree(interrupted.run, tmp_path / "run"))
    assert 0 < int(checkpoints(folder)[-1].name) < 30
    code, out, err = call("resume", folder, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["outcome"] == undisturbed.outcome
    assert_same(experiment.load(folder), undisturbed)
    assert [r.name for r in experiment.results(folder)] == ["connectivity"]


def test_nothing_is_written_outside_the_folder(killed, interrupted):
    assert killed.wrote_outside() == []
    assert interrupted.wrote_outside() == []
    assert sorted(p.name for p in interrupted.folder.iterdir()) == ["cwd", "file.toml", "home", "run", "tmp"]
    assert sorted(p.name for p in killed.folder.iterdir()) == ["cwd", "file.toml", "home", "killer.py", "run", "tmp"]
