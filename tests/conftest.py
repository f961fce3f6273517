"""Fixtures shared by all tests. Settings are made small enough that a test takes seconds, most of them compiling."""

import contextlib
import io
import sys
import tempfile

import jax
import pytest

import poprnn as pr
from poprnn import cli
from poprnn.core import backend

backend.devices()  # one device per core, before any test touches JAX
# many tests compile the same programs again; within one session they may share them
_cache = tempfile.TemporaryDirectory(prefix="poprnn-tests-")
jax.config.update("jax_compilation_cache_dir", _cache.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

collect_ignore = ["fixtures"]  # a script that needs PyTorch, and what it made

TINY = dict(epochs=2, steps_per_epoch=4, evaluation_batches=1, batch=4)


def usually(cases, *names):
    """Parameters of a test: the cases named, and as slow ones the others, whose code the named ones run too."""
    cases = list(cases)
    known = {case if isinstance(case, str) else "-".join(map(str, case)): case for case in cases}
    assert set(names) <= set(known), f"no such cases: {set(names) - set(known)}"
    slow = pytest.mark.slow
    return [
        pytest.param(*([case] if isinstance(case, str) else case), id=name, marks=() if name in names else slow)
        for name, case in known.items()
    ]


@pytest.fixture(scope="session")
def tiny_run():
    """Three small networks after a few steps."""
    return pr.fit(pr.tasks.NParity(n_max=4), pr.cells.LeakyRNN(n_units=8), members=3, curriculum="multi_head", **TINY)


@pytest.fixture
def few_resamples(monkeypatch):
    """For judges of planted results, which an interval from fewer resamples tells apart as well."""
    monkeypatch.setattr("poprnn.recipes.contract.N_RESAMPLES", 400)


def call(*arguments):
    """``poprnn …`` in this process: exit code, stdout, stderr. Any other exception than SystemExit is a failure."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["poprnn", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
        code = 0
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = before
    return code or 0, out.getvalue(), err.getvalue()
