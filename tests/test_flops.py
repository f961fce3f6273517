"""Operation counts: closed forms, the compiler's own analysis of the program without loops, the program itself."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import poprnn as pr
import toys
from conftest import call, usually
from poprnn.core import backend
from poprnn.training import flops
from poprnn.training.program import Program
from poprnn.training.run import History

N_STEPS, BATCH = 6, 8
CELL = {"self_interaction": "outside", "tau": 10.0, "activation": "tanh"}


class Waves(pr.Task):
    """Copy two of three sine waves; all steps but the last ones carry gradient."""

    n_inputs, n_outputs, capacity, has_skips = 3, 2, N_STEPS, True
    n_warm_up: int = 0

    def draw(self, stage, *, key):
        return pr.Setting(self.capacity, 1.0, no_gradient=self.n_warm_up)

    def coarsen(self, setting, factor):
        shorter = jnp.ceil(setting.length / factor).astype(jnp.int32)
        return setting._replace(length=shorter, dt=setting.dt * factor)

    def sample(self, setting, arrays, *, key):
        inputs = jnp.asarray(np.sin(np.arange(3.0 * self.capacity)).reshape(-1, 3), jnp.float32)
        periods = {"early": jnp.array([0, 3]), "late": jnp.array([3, self.capacity])}
        return pr.Trial(inputs, inputs[:, :2], periods=periods, skips=jnp.array([[0, 4]]))


class LastOnly(Waves):
    readout = "last"

    def sample(self, setting, arrays, *, key):
        return pr.Trial(jax.random.normal(key, (self.capacity, 3)), jnp.ones(2))

    def loss(self, outputs, trial, setting):
        return jnp.mean((outputs - trial.targets) ** 2)

    def scores(self, outputs, trial, setting):
        return {"score": jnp.exp(-self.loss(outputs, trial, setting))}


def setup_of(cell="leaky", method=None, n_units=32, task=None, **training):
    make = {"leaky": functools.partial(pr.cells.LeakyRNN, **CELL), "gru": pr.cells.GRU}
    cell = make[cell](n_units=n_units) if isinstance(cell, str) else cell
    return pr.Setup(
        task=task or Waves(), cell=cell, training={"method": method or "control", "batch": BATCH} | training
    )


# --- counting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "products", "elementwise"),
    [
        (lambda a: a @ a.T, 2 * 5 * 5 * 7, 0),
        (lambda a: jnp.einsum("ij,kj->ik", a, a) + 1, 2 * 5 * 5 * 7, 25),
        (lambda a: jnp.sum(jnp.exp(a)), 0, 35 + 35),
        (lambda a: lax.scan(lambda c, x: (c + x @ a, None), jnp.zeros(7), jnp.ones((4, 5)))[0], 4 * 70, 4 * 7),
        (lambda a: lax.fori_loop(0, 3, lambda i, x: 2 * x, a), 0, 3 * 35),
        (lambda a: lax.cond(a[0, 0] > 0, lambda: a * a * a, lambda: -a), 0, 70),
        (jax.jit(jax.nn.relu), 0, 35),
        (lambda a: jnp.where(a > 0, a, 0.0), 0, 35),
        (lambda a: a.at[jnp.array([0, 0])].add(1.0), 0, 14),
        (lambda a: jnp.concatenate([a, a]).T[::2], 0, 0),
        (lambda a: jnp.arange(9) * 3 + a.shape[0], 0, 0),
    ],
)
def test_operations_of_small_functions(function, products, elementwise):
    assert flops.count(jax.make_jaxpr(function)(jnp.ones((5, 7)))) == flops.Operations(products, elementwise)


def test_products_have_closed_forms():
    """Per trial and step: 2 (n n + n inputs + n outputs) forwards; backwards as much for the weights of all three,
    and once more for what the gradient goes through, which the inputs are not."""
    with backend.precision(32):
        found = flops.costs(setup_of(n_units=20))
    recurrent, inputs, outputs = (2.0 * BATCH * 20 * n for n in (20, 3, 2))
    assert found.forward_step.products == recurrent + inputs + outputs
    assert found.backward_step.products == 2 * recurrent + inputs + 2 * outputs
    # no gradient is asked for in the state before the first step
    assert [c.products for c in (found.forward_batch, found.backward_batch, found.update)] == [0, -recurrent, 0]


def test_without_gradient_through_time_there_is_none():
    setup = setup_of(task=LastOnly(), trainable=("readout",))
    with backend.precision(32):
        found = flops.costs(setup)
    assert found.backward_step.total == 0
    assert found.backward_batch.products == 2 * BATCH * 32 * 2  # of the readout's weights


# --- against the compiler --------------------------------------------------------------------------------------------

SYSTEMS = {
    "control": lambda n: setup_of(n_units=n),
    "skip": lambda n: setup_of(method=pr.methods.Skip(span=2), n_units=n),
    "aligned_skip": lambda n: setup_of(method=pr.methods.AlignedSkip(span=2), n_units=n),
    "gru": lambda n: setup_of("gru", n_units=n),
}


def lowered(setup, n_steps, gradient):
    """The straight-line program for the compiler."""
    parameters = Program(setup).start(0, {}, 0).parameters
    loss = functools.partial(flops.straight_line(setup, n_steps), fixed=parameters.fixed)
    return jax.jit(jax.value_and_grad(loss) if gradient else loss).lower(parameters.trainable)


def compiler_count(program):
    """Its count, which has tanh and the like apart."""
    counted = program.cost_analysis()
    return counted["flops"] + counted.get("transcendentals", 0)


@pytest.mark.parametrize("system", SYSTEMS)
def test_time_steps_agree_with_the_compilers_count(system):
    """Of a small network, where element-wise work is up to a fifth of all; before the compiler repeats any of it."""
    setup = SYSTEMS[system](32)
    with backend.precision(32):
        found = flops.costs(setup)
        forward, both = ([compiler_count(lowered(setup, n, g)) for n in (2, 5)] for g in (False, True))
    assert (forward[1] - forward[0]) / 3 == pytest.approx(found.forward_step.total, rel=0.05)
    assert (both[1] - both[0]) / 3 == pytest.approx((found.forward_step + found.backward_step).total, rel=0.05)


@pytest.mark.parametrize("system", SYSTEMS)
def test_whole_steps_agree_with_the_compiled_program(system):
    """Of a network of 200 units; the compiler works some element-wise operations out twice."""
    setup = SYSTEMS[system](200)
    with backend.precision(32):
        found = flops.costs(setup)
        forward, both = (compiler_count(lowered(setup, N_STEPS, g).compile()) for g in (False, True))
    mine = N_STEPS * found.forward_step + found.forward_batch
    assert forward == pytest.approx(mine.total, rel=0.1)
    mine += N_STEPS * found.backward_step + found.backward_batch
    assert both == pytest.approx(mine.total, rel=0.1)


# --- against the program ---------------------------------------------------------------------------------------------

PENALTIES = ({"kind": "activity_l1", "strength": 0.1}, {"kind": "weight_l1", "strength": 0.1})


def programs():
    noisy = pr.cells.LeakyRNN(n_units=5, noise=0.2, noise_tau=3.0, **CELL)
    return {
        "noise": setup_of(noisy),
        "skips": setup_of(noisy, pr.methods.Skip(span=2, strategic="task")),
        "aligned": setup_of(noisy, pr.methods.AlignedSkip(span=2)),
        "gru": setup_of("gru", n_units=5),
        "last": setup_of(n_units=5, task=LastOnly()),
        "readout": setup_of(n_units=5, task=LastOnly(), trainable=("readout",)),
        "simple cell": setup_of(toys.Dice()),
        "closed loop": setup_of(n_units=5, task=toys.EchoChamber()),
    }


@pytest.mark.parametrize("name", usually(programs(), "noise", "aligned", "last", "closed loop"))
def test_the_straight_line_is_the_program(name):
    """The same loss and gradient from the same key: what is counted is what is trained."""
    setup = programs()[name]
    with backend.precision(32):
        program = Program(setup)
        state = program.start(0, {}, 0)
        stage = setup.training.curriculum.stage(setup.task, state.progress)._replace(split="train")
        trainable, fixed = state.parameters
        counted = functools.partial(flops.straight_line(setup, setup.task.capacity, seed=3), fixed=fixed)

        def trained(trainable):
            parameters = state.parameters._replace(trainable=trainable)
            return program.batch_loss(setup, parameters, stage, (), 0, None, key=jax.random.key(3))[0]

        ours, theirs = (jax.jit(jax.value_and_grad(f))(trainable) for f in (counted, trained))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)


# --- the analysis ----------------------------------------------------------------------------------------------------

FIT = dict(epochs=2, steps_per_epoch=3, batch=BATCH, evaluation_batches=1, monitors=(), members=2)


def fitted(task=None, **options):
    return pr.fit(task or Waves(), pr.cells.LeakyRNN(n_units=7, **CELL), **FIT | options)


def products_of(n_forward, n_backward, n=7):
    """Of six batches with so many time steps together."""
    steps = n_forward * (n + 3 + 2) + n_backward * (2 * n + 3 + 2 * 2)
    return 2.0 * BATCH * n * (steps - 6 * n)  # no gradient is asked for in the first states


@pytest.mark.parametrize("n_warm_up", [0, 3])
def test_a_training_is_its_steps(n_warm_up):
    run = fitted(Waves(n_warm_up=n_warm_up))
    data = pr.measure("flops", run, members="all").data
    n_steps = 6 * N_STEPS
    wanted = products_of(n_steps, n_steps - 6 * n_warm_up)
    np.testing.assert_allclose(data["operations_in_products"], wanted, rtol=1e-12)
    with backend.precision(32):
        once = flops.costs(run.setup)
    elementwise = data["operations"] - data["operations_in_products"]
    per_step = data["time_step_operations"].sel(kind="element-wise").values * BATCH
    expected = per_step @ [n_steps, n_steps - 6 * n_warm_up] + 6 * sum(part.elementwise for part in once[2:])
    np.testing.assert_allclose(elementwise, expected, rtol=1e-6)
    assert data["n_steps"].values.tolist() == [6, 6]
    assert data["seconds"] == run.manifest["seconds"]
    # the optimiser is nobody's trial
    trial = data["trial_operations"].sum("direction")
    np.testing.assert_allclose(6 * (BATCH * trial + once.update.total), data["operations"], rtol=1e-6)
    np.testing.assert_array_equal(data["trial_steps"], N_STEPS)


def test_coarser_steps_are_fewer_operations():
    """Half of the steps at first: 3 optimiser steps of 3 time steps, then 3 of 6."""
    run = fitted(method=pr.methods.Coarsened(factor=2, n_increments=1, annealing_steps=6))
    data = pr.measure("flops", run, members="all").data
    np.testing.assert_allclose(data["operations_in_products"], products_of(27, 27))
    np.testing.assert_array_equal(data["trial_steps"], N_STEPS)  # of the base dynamics


def test_a_method_costs_what_it_does():
    one, two = (
        pr.measure("flops", fitted(method=m, members=1, epochs=1), members="all").data
        for m in ("control", pr.methods.AlignedSkip(span=2))
    )
    assert (two["operations"] > one["operations"]).all()
    np.testing.assert_array_equal(two["operations_in_products"], one["operations_in_products"])


def with_history(run, scores, n_steps):
    """A run that went through these scores; members that had ended are blank."""
    n_steps = np.asarray(n_steps)
    blank = lambda a: np.where(n_steps >= 0, a, -1).astype(np.int32)
    time_steps = dict.fromkeys(("n_time_steps", "n_gradient_steps"), blank(n_steps * N_STEPS))
    rows = {"n_steps": blank(n_steps), **time_steps, "scores/score": np.asarray(scores)}
    return dataclasses.replace(run, history=History(rows))


def test_the_criterion_is_the_first_evaluation_that_meets_it():
    run, nan = fitted(), np.nan
    scores = [[0.2, 0.1], [0.8, nan], [0.7, nan], [0.9, nan]]
    run = with_history(run, scores, [[3, 3], [6, -1], [9, -1], [12, -1]])
    data = pr.measure("flops", run, members="all", criterion=0.8).data
    assert data["n_steps"].values.tolist() == [12, 3]
    np.testing.assert_array_equal(data["n_steps_to_criterion"], [6, nan])
    np.testing.assert_allclose(data["operations_to_criterion"][0], data["operations"][0] / 2)
    assert np.isnan(data["operations_to_criterion"][1])
    assert pr.measure("flops", run, members=[0], criterion=0.85).data["n_steps_to_criterion"].item() == 12
    assert "operations_to_criterion" not in pr.measure("flops", run, members="all").data
    heads = with_history(run, [[[0.9, nan], [nan, nan]], [[1.0, 0.6], [0.9, 0.6]]], [[3, 3], [6, 6]])
    found = pr.measure("flops", heads, members="all", criterion=0.8).data["n_steps_to_criterion"].values
    np.testing.assert_array_equal(found, [3, nan])  # a mean over the heads that are active


def test_networks_from_elsewhere_have_taken_nothing():
    run = pr.from_arrays(Waves(), pr.cells.GRU(n_units=4), {"W": np.zeros((3, 12, 4))})
    data = pr.measure("flops", run, criterion=0.5).data
    assert data["operations"].values.tolist() == data["n_steps"].values.tolist() == [0, 0, 0]
    assert np.isnan(data["operations_to_criterion"]).all()
    assert np.isnan(data["seconds"])
    assert (data["trial_operations"] > 0).all()


def test_any_run_by_the_command(tmp_path):
    """Of a task with heads, bits and lengths that grow, under varied hyperparameters."""
    vary = {"training.optimizer.learning_rate": [0.1, 0.01]}
    run = pr.fit(
        pr.tasks.NParity(n_max=3), pr.cells.LeakyRNN(n_units=6), curriculum="multi_head", out=tmp_path / "run",
        **FIT | {"vary": vary},
    )  # fmt: skip
    code, out, _ = call("measure", tmp_path / "run", "flops", "--members", "all", "--set", "criterion=0.99", "--json")
    assert code == 0
    answer = json.loads(out)[0]
    assert answer["options"] == {"criterion": 0.99}
    got = answer["data"]["data_vars"]
    np.testing.assert_allclose(
        got["operations_in_products"]["data"],
        pr.measure("flops", run, members="all").data["operations_in_products"].values,
    )
    assert min(got["operations"]["data"]) > min(got["operations_in_products"]["data"]) > 0
    code, _, error = call("measure", tmp_path / "run", "flops", "--members", "all", "--set", "criterion=2.0")
    assert code == 2
    assert "criterion" in error
