"""The monitor that ends members whose certificate no longer holds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import poprnn as pr
from conftest import TINY
from poprnn.cells._certified import certify
from poprnn.cells.modules.contract import Built, Leaf
from poprnn.core.contraction.theorems import singular_rate
from poprnn.training.folder import RunFolder

TASK = pr.tasks.NParity(n_max=3)
CELL = pr.cells.SVDComboNet(n_modules=2, n_module_units=4)


@pr.register("modules")
class Pretender(Leaf):
    """Weights without a constraint that claim theorem 5 in the identity: true at the start only."""

    theorem = "5"
    start: float = 0.0

    def init(self, slope, *, key):
        return pr.Parameters({"W": jnp.full((self.count, self.n_units, self.n_units), self.start)}, {})

    def build(self, arrays, slope):
        W = arrays["W"]
        eye = jnp.broadcast_to(jnp.eye(self.n_units, dtype=W.dtype), W.shape)
        return Built(W, eye, eye, jnp.ones(self.count, W.dtype), jnp.ones(self.count, W.dtype))

    def verify(self, weights, metric, slope):
        return singular_rate(weights, metric, slope), np.inf


PRETENDING = pr.cells.Assembly(modules=(Pretender(n_units=4, count=2),))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    return pr.fit(TASK, CELL, members=2, out=folder, **TINY | {"snapshots": 1}), folder


def test_the_history_keeps_what_was_certified(trained):
    run, folder = trained
    assert run.outcome == ["budget_spent"] * 2
    for epoch in (1, 2):
        for k in range(2):
            stored = jax.tree.map(lambda a, k=k: a[k], run.snapshots[f"epoch_{epoch:05d}"].parameters)
            answer = certify(CELL, stored)
            for name, value in (
                ("rate", answer.certificate.rate),
                ("rate_as_run", answer.rate_as_run),
                ("largest_step", answer.largest_step),
                ("holds", True),
            ):
                assert run.history[f"certificate/{name}"][epoch - 1, k] == pytest.approx(value, rel=1e-5), name
    again = pr.load(folder)
    np.testing.assert_array_equal(again.history["certificate/rate"], run.history["certificate/rate"])
    assert RunFolder(folder).is_finished()


def test_only_cells_that_claim_a_certificate_are_asked(tiny_run):
    assert not [name for name in tiny_run.history.names() if "certificate" in name]
    with pytest.raises(pr.NotApplicableError, match="claims no certificate"):
        tiny_run.cell.certificate(tiny_run.parameters)
    control = pr.fit(TASK, dataclasses.replace(CELL, coupling="unconstrained"), **TINY)
    assert not [name for name in control.history.names() if "certificate" in name]


def test_a_broken_certificate_ends_its_member_and_no_other():
    rates = {"training.optimizer.learning_rate": [1e-6, 1e4]}
    settings = TINY | {"epochs": 3, "optimizer": {"kind": "sgd", "learning_rate": 0.1}, "vary": rates}
    settings["trainable"] = ["modules"]
    run = pr.fit(TASK, PRETENDING, members=2, **settings)
    assert run.outcome == ["budget_spent", "certificate_broken"]
    holds = run.history["certificate/holds"]
    assert holds[:, 0].all() and not holds[:, 1].any()
    assert np.isnan(run.history["certificate/rate"][-1, 1]), "it had ended before"
    assert run.history["certificate/rate"][0, 1] <= 0
    alone = pr.fit(TASK, PRETENDING, **settings | {"vary": {}, "optimizer": {"kind": "sgd", "learning_rate": 1e-6}})
    np.testing.assert_array_equal(alone.parameters.trainable["W_0"][0], run.parameters.trainable["W_0"][0])


def test_a_broken_certificate_is_said_even_of_a_member_that_solved_its_task():
    broken = pr.cells.Assembly(modules=(Pretender(n_units=4, start=1.0),))
    solved = {"monitors": ({"kind": "solved", "loss": 1e9},)}
    assert pr.fit(TASK, broken, **TINY | solved).outcome == ["certificate_broken"]
    assert pr.fit(TASK, CELL, **TINY | solved).outcome == ["solved"]


def test_enforced_steps_are_part_of_what_is_checked():
    parts = (pr.modules.SingularValue(n_units=4, count=2),)
    cell = pr.cells.Assembly(modules=parts, gain=50.0, dt=0.5, certify="euler")
    run = pr.fit(TASK, cell, **TINY)
    assert run.outcome == ["budget_spent"]
    assert (run.history["certificate/largest_step"] >= 0.5).all()
    parameters = jax.tree.map(lambda a: a[0], run.parameters)
    answer = cell.certificate(parameters)
    assert answer.holds and answer.holds_for_steps
    assert not answer._replace(largest_step=0.4).holds
    free = dataclasses.replace(cell, certify="flow").certificate(parameters)
    assert free.holds and not free.holds_for_steps


def test_members_are_certified_with_their_own_hyperparameters():
    """Time constants differ: so do the steps in units of tau, and what is enforced of the couplings."""
    cell = pr.cells.Assembly(
        modules=(pr.modules.SingularValue(n_units=4, count=2),), gain=50.0, certify="euler", dt=0.5
    )
    run = pr.fit(TASK, cell, members=2, vary={"cell.tau": [1.0, 5.0]}, **TINY)
    steps = run.history["certificate/largest_step"][-1]
    assert steps[0] >= 0.5 and 0.1 <= steps[1] < 0.5
