"""Every toy goes through fit, resume and measure."""

import inspect
import shutil

import jax
import numpy as np
import pytest
import xarray as xr

import poprnn as pr
import toys
from conftest import TINY
from poprnn import experiment
from poprnn.core import backend, native
from poprnn.training.program import Program

LIMIT = 0.75
"""Between the norms of the two networks of 6 units."""
CASES = {
    "closed loop": dict(task="echo_chamber", cell=pr.cells.LeakyRNN(n_units=6)),
    "random units, several states": dict(task="centred", cell="dice"),
    "random units in a closed loop": dict(task="echo_chamber", cell="dice"),
    "frozen and tied parameters": dict(task="centred", cell="antisymmetric"),
    "skips through time": dict(task="centred", cell=pr.cells.LeakyRNN(n_units=6), method="leap"),
    "skips with an unsplit cell": dict(task="centred", cell="dice", method="leap"),
    "shifting distribution": dict(task="centred", cell=pr.cells.LeakyRNN(n_units=6), curriculum="shift"),
    "members that differ": dict(
        task="centred",
        cell=pr.cells.LeakyRNN(n_units=6),
        method="leap",
        vary={"training.optimizer.learning_rate": [0.1, 0.01], "cell.noise": [0.0, 0.5]},
    ),
    "an outcome of its own": dict(
        task="centred", cell=pr.cells.VanillaRNN(n_units=6), monitors=({"kind": "too_heavy", "limit": LIMIT},)
    ),
}


def mean_weight(run):
    """A measure that applies to any population."""
    arrays = {**run.parameters.fixed, **run.parameters.trainable}
    return xr.Dataset({"mean": ("member", np.array([a.reshape(len(a), -1).mean(1) for a in arrays.values()]).mean(0))})


@pytest.mark.parametrize("case", CASES)
def test_toy_fits_resumes_and_is_measured(case, tmp_path):
    whole = pr.fit(**CASES[case], members=2, out=tmp_path / "whole", **TINY)
    assert np.isfinite(whole.history["loss"][0]).all()
    assert pr.measure(mean_weight, whole, members="all").data["mean"].shape == (2,)

    # the same run killed after its first epoch: drop everything later, resume, compare bit for bit
    part = tmp_path / "part"
    for update in pr.fit_iter(**CASES[case], members=2, out=part, **TINY):
        if update.evaluated:
            break
    shutil.rmtree(part / "results", ignore_errors=True)
    resumed = experiment.resume(part)
    for name, array in whole.parameters.trainable.items():
        np.testing.assert_array_equal(array, resumed.parameters.trainable[name])
    assert resumed.outcome == whole.outcome
    loaded = pr.load(part)
    np.testing.assert_array_equal(loaded.parameters.trainable["W_out"], whole.parameters.trainable["W_out"])


def test_toys_are_short():
    for name, item in vars(toys).items():
        if inspect.isclass(item) and item.__module__ == "toys":
            assert len(inspect.getsource(item).splitlines()) <= 30, name


def test_frozen_stays_and_tie_holds():
    run = pr.fit(**CASES["frozen and tied parameters"], members=2, **TINY)
    np.testing.assert_array_equal(run.parameters.fixed["W_in"], run.initial.fixed["W_in"])
    assert not np.array_equal(run.parameters.trainable["B"], run.initial.trainable["B"])


@native.without()
def test_method_is_the_base_dynamics_once_its_schedule_has_ended():
    """Loss and gradient at one step, bit for bit (by XLA alone); and before the schedule's end they differ."""

    def loss_and_gradient(method, n_step):
        setup = pr.Setup(task="centred", cell=pr.cells.LeakyRNN(n_units=6), training={"method": method, "batch": 4})
        program = Program(setup)
        with backend.precision(32):
            state = program.start(0, {}, 0)
            stage = setup.training.curriculum.stage(setup.task, state.progress)

            def loss(trainable):
                return program.batch_loss(
                    setup,
                    state.parameters._replace(trainable=trainable),
                    stage,
                    (),
                    n_step,
                    None,
                    key=jax.random.key(5),
                )[0]

            return jax.jit(jax.value_and_grad(loss))(state.parameters.trainable)

    skip = toys.Leap(theta=2, anneal_steps=4)
    control, ended, going = (loss_and_gradient(m, n) for m, n in ((pr.methods.Control(), 9), (skip, 9), (skip, 1)))
    assert control[0] == ended[0] != going[0]
    for name in control[1]:
        np.testing.assert_array_equal(control[1][name], ended[1][name], name)


def test_outcome_of_its_own():
    run = pr.fit(**CASES["an outcome of its own"], members=2, **TINY)
    norms = np.linalg.norm(run.parameters.trainable["W"], 2, axis=(1, 2))
    assert run.outcome == ["too_heavy" if norm > LIMIT else "budget_spent" for norm in norms]
    assert len(set(run.outcome)) == 2


def test_distribution_shifts():
    run = pr.fit("centred", pr.cells.LeakyRNN(n_units=6), curriculum="shift", **TINY | {"epochs": 4})
    assert run.history["stage"][:, 0].tolist() == [0, 1, 2, 2]
