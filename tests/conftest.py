"""Fixtures shared by all tests. Settings are made small enough that a test takes seconds, most of them compiling."""

import pytest

import poprnn as pr
from poprnn.core import backend

backend.devices()  # one device per core, before any test touches JAX

TINY = dict(epochs=2, steps_per_epoch=4, evaluation_batches=1, batch=4)


@pytest.fixture(scope="session")
def tiny_run():
    """Three small networks after a few steps."""
    return pr.fit(pr.tasks.NParity(n_max=4), pr.cells.LeakyRNN(n_units=8), members=3, curriculum="multi_head", **TINY)
