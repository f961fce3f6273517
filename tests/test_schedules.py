"""Warm restarts against a walk through the cycles, plateaus against PyTorch's rule in plain Python and Optax's."""

import dataclasses
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import poprnn as pr
from poprnn.training.trainer import Trainer

Restarts, Plateau = pr.schedules.CosineRestarts, pr.schedules.ReduceOnPlateau

# --- warm restarts --------------------------------------------------------------------------------------------------


def walked(n_steps, peak, period, period_factor, end_fraction, every):
    """As PyTorch's scheduler counts: one step of its own every so often, and a new cycle when one is used up."""
    values, within, length = [], 0, period // every
    for step in range(n_steps):
        if step and step % every == 0:
            within += 1
            if within >= length:
                within, length = within - length, length * period_factor
        low = peak * end_fraction
        values.append(low + (peak - low) * (1 + math.cos(math.pi * within / length)) / 2)
    return values


RESTARTS = dict(peak=0.1, period=12, period_factor=3, end_fraction=0.2, every=4)


@pytest.mark.parametrize(
    "options",
    [
        RESTARTS,
        RESTARTS | {"period_factor": 1},
        RESTARTS | {"every": 1, "end_fraction": 0.0},
        dict(peak=1.0, period=1, period_factor=2, end_fraction=0.0, every=1),
    ],
    ids=str,
)
def test_warm_restarts_against_a_walk_through_the_cycles(options):
    found = jax.vmap(Restarts(**options).build())(jnp.arange(300))
    np.testing.assert_allclose(found, walked(300, **options), rtol=1e-4, atol=1e-6)


def test_cycles_are_counted_without_rounding():
    """A cycle begins at exactly its step, also where a logarithm would err: at 2^k - 1."""
    schedule = Restarts(peak=0.1, period=1, period_factor=2, end_fraction=0.5)
    starts = np.array([2**k - 1 for k in range(32)])
    np.testing.assert_array_equal(schedule.starts(), starts)
    np.testing.assert_allclose(jax.vmap(schedule.build())(jnp.asarray(starts)), 0.1, rtol=1e-6)
    assert Restarts(peak=0.1, period=1).starts().tolist() == [0]
    assert float(Restarts(peak=0.1, period=7).build()(7 * 10_000_001)) == pytest.approx(0.1)


def test_every_option_of_warm_restarts_changes_something():
    values = lambda **o: np.asarray(jax.vmap(Restarts(**o).build())(jnp.arange(100)))
    others = {"peak": 0.2, "period": 16, "period_factor": 2, "end_fraction": 0.1, "every": 2}
    assert set(others) == {f.name for f in dataclasses.fields(Restarts)}
    for name, other in others.items():
        assert (values(**RESTARTS) != values(**RESTARTS | {name: other})).any(), name
    with pytest.raises(pr.ConfigurationError, match="CosineRestarts: period = 10: must be a multiple of every = 4"):
        Restarts(peak=0.1, period=10, every=4)


# --- plateaus -------------------------------------------------------------------------------------------------------


def torch_rule(losses, start, factor, patience, min_change, end_fraction):
    """Learning rate after every evaluation, in plain Python."""
    rate, best, bad, out = start, math.inf, 0, []
    for loss in losses:
        if loss < best * (1 - min_change):
            best, bad = loss, 0
        else:
            bad += 1
        if bad > patience:
            rate, bad = max(rate * factor, start * end_fraction), 0
        out.append(rate)
    return out


def rates(schedule, losses):
    """The same by the schedule."""

    def seen(state, loss):
        state = schedule.observe(state, loss)
        return state, schedule.build()(0) * schedule.scale(state)

    return np.asarray(jax.lax.scan(seen, schedule.init(), jnp.asarray(losses, jnp.float32))[1])


PLATEAU = dict(start=0.1, factor=0.5, patience=3, min_change=0.01, end_fraction=0.0)


def noisy_descent(n=400, seed=0):
    """Losses that fall ever more slowly."""
    rng = np.random.default_rng(seed)
    return (np.exp(-np.arange(n) / 20) + 0.1 + 0.02 * rng.random(n)).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [
        PLATEAU,
        PLATEAU | {"patience": 0, "end_fraction": 0.07},
        PLATEAU | {"patience": 40, "min_change": 1e-4},
        PLATEAU | {"factor": 0.9, "min_change": 0.0},
    ],
    ids=str,
)
def test_plateaus_against_the_rule_in_plain_python(options):
    found = rates(Plateau(**options), noisy_descent())
    np.testing.assert_allclose(found, torch_rule(noisy_descent(), **options), rtol=1e-5)
    assert found[-1] < found[0], "the losses must make it fall"


def test_plateaus_against_optax():
    """Which counts one evaluation less, and has a floor of its own."""
    options = PLATEAU | {"min_change": 1e-3, "end_fraction": 0.01}
    theirs = optax.contrib.reduce_on_plateau(0.5, patience=4, rtol=1e-3, atol=0.0, min_scale=0.01)

    def seen(state, loss):
        state = theirs.update({"x": jnp.ones(1)}, state, value=loss)[1]
        return state, 0.1 * state.scale

    scales = jax.lax.scan(seen, theirs.init({"x": jnp.zeros(1)}), jnp.asarray(noisy_descent(120)))[1]
    np.testing.assert_allclose(rates(Plateau(**options), noisy_descent(120)), scales, rtol=1e-5)


def test_the_paper_halves_the_rate_after_forty_one_evaluations():
    found = rates(Plateau(start=1e-3), [1.0] + [1.0] * 82)
    assert np.flatnonzero(np.diff(found)).tolist() == [40, 81], "the first is the best itself"
    np.testing.assert_allclose(np.unique(found), [2.5e-4, 5e-4, 1e-3], rtol=1e-6)


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_not_better(loss):
    found = rates(Plateau(**PLATEAU | {"patience": 0}), [loss, 1.0, loss, 0.5])
    np.testing.assert_allclose(found, [0.05, 0.05, 0.025, 0.025])


def test_every_option_of_plateaus_changes_something():
    others = {"start": 0.2, "factor": 0.6, "patience": 4, "min_change": 0.1, "end_fraction": 0.3}
    assert set(others) == {f.name for f in dataclasses.fields(Plateau)}
    before = rates(Plateau(**PLATEAU), noisy_descent())
    for name, other in others.items():
        assert (rates(Plateau(**PLATEAU | {name: other}), noisy_descent()) != before).any(), name
    for name in ("factor", "min_change"):
        with pytest.raises(pr.ConfigurationError, match=f"ReduceOnPlateau: {name} = 1.0"):
            Plateau(**PLATEAU | {name: 1.0})


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw", "adagrad", "lion"])
def test_a_reduced_rate_is_a_smaller_rate(kind):
    """From the same memory, a step after two reductions is that of a rate a quarter as large."""
    x, gradient = jnp.asarray([3.0, -2.0, 0.5]), jnp.asarray([1.0, -4.0, 0.1])
    with_plateau = getattr(pr.optimizers, {"sgd": "Sgd", "adamw": "AdamW"}.get(kind, kind.title()))
    options = {"momentum": 0.5} if kind == "sgd" else {}
    ours = with_plateau(learning_rate=Plateau(**PLATEAU | {"patience": 0}), clip_norm=1.0, **options)
    small = with_plateau(learning_rate=0.025, clip_norm=1.0, **options)
    memory, other = ours.build().init(x), small.build().init(x)
    for loss in (1.0, 2.0, 3.0):
        memory = ours.observe(memory, jnp.asarray(loss))
    assert small.observe(other, jnp.asarray(1.0)) is other
    for _ in range(3):
        step, memory = ours.build().update(gradient, memory, x)
        expected, other = small.build().update(gradient, other, x)
        np.testing.assert_allclose(step, expected, rtol=1e-6)


# --- in training ----------------------------------------------------------------------------------------------------

TASK, CELL = pr.tasks.FlipFlop(n_channels=2, n_steps=8), pr.cells.VanillaRNN(n_units=4)
SMALL = dict(batch=4, epochs=6, steps_per_epoch=3, evaluation_batches=1, monitors=())
IN_TRAINING = PLATEAU | {"patience": 0, "min_change": 0.02}


def setup_of(vary=None, **schedule):
    """Few programs are compiled: the populations below are as many members of the same shapes."""
    optimizer = pr.optimizers.Sgd(learning_rate=Plateau(**IN_TRAINING | schedule))
    training = pr.Training(**SMALL | {"optimizer": optimizer})
    return pr.Setup(
        population=pr.Population(members=3, vary=vary or {}, seed=3), task=TASK, cell=CELL, training=training
    )


def trained(setup, **options):
    trainer = Trainer(setup, **options)
    list(trainer.updates())
    return trainer


def scales_of(trainer):
    return np.asarray(trainer.state.optimizer[-1].scale)


def weights_of(trainer):
    return np.asarray(trainer.state.parameters.trainable["W"])


def test_each_member_has_its_own_rate_from_its_own_losses():
    trainer = trained(setup_of())
    losses = trainer.history["loss"]
    expected = [torch_rule(losses[:, k], **IN_TRAINING)[-1] for k in range(3)]
    np.testing.assert_allclose(0.1 * scales_of(trainer), expected, rtol=1e-6)
    assert len(set(expected)) > 1, "members must differ"


def test_its_options_may_differ_between_members():
    """Each member does what it does in a population in which all have its values, and another rate, another path."""
    options = {"start": [0.1, 0.2, 0.1], "factor": [0.5, 0.25, 0.5], "patience": [0, 1, 20]}
    together = trained(setup_of({f"training.optimizer.learning_rate.{k}": v for k, v in options.items()}))
    alone = [trained(setup_of(**{name: values[k] for name, values in options.items()})) for k in range(3)]
    for k in range(3):
        assert scales_of(together)[k] == scales_of(alone[k])[k]
        np.testing.assert_allclose(weights_of(together)[k], weights_of(alone[k])[k], rtol=1e-5, atol=1e-7)
    lowered, constant = alone[0], alone[2]
    assert (scales_of(lowered) < 1).all() and (scales_of(constant) == 1).all()
    np.testing.assert_allclose(lowered.history["loss"][0], constant.history["loss"][0], rtol=1e-6)
    assert (np.abs(weights_of(lowered) - weights_of(constant)).max(axis=(1, 2)) > 1e-4).all()


def test_a_resumed_run_goes_on_with_the_rate_it_had(tmp_path):
    """Bit for bit, from a checkpoint after the first reductions."""
    whole = Trainer(setup_of(), out=tmp_path / "whole")
    for update in whole.updates():
        if update.evaluated and update.epoch == 4:
            whole.checkpoint()
            assert (scales_of(whole) < 1).any()
            shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    resumed = Trainer(setup_of(), out=tmp_path / "killed", resume=True)
    assert resumed.n_steps() == 12
    list(resumed.updates())
    for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(resumed.state), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_solved_ends_a_member_whose_loss_stayed_low_three_times():
    """The paper's early stopping is ``Solved(loss=…, patience=3)``."""
    limit = 0.8
    monitors = (pr.monitors.Solved(loss=limit, patience=3),)
    run = pr.fit(TASK, CELL, members=6, **SMALL | {"epochs": 12, "monitors": monitors})
    losses = run.history["loss"]
    for k in range(6):
        lived = losses[np.isfinite(losses[:, k]), k]
        low = lived < limit
        ends = [i + 1 for i in range(2, len(low)) if low[i - 2 : i + 1].all()]
        assert run.outcome[k] == ("solved" if ends else "budget_spent")
        assert len(lived) == (ends[0] if ends else 12)
    assert set(run.outcome) == {"solved", "budget_spent"}, "else one of them would not be tested"
    assert len(run.history) == 12
