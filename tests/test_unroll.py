"""The unroll against plain recurrences, automatic differentiation and central differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import poprnn as pr
import toys
from poprnn.cells.contract import Context, add_drives
from poprnn.core import backend, mapping
from poprnn.training import unroll as unrolling
from poprnn.training.dynamics import Dynamics
from poprnn.training.methods.control import Control

N_TRIALS, N_STEPS, N_INPUTS, N_OUTPUTS = 3, 11, 2, 2
SMALL, LARGE = (pr.modules.SingularValue(n_units=n, count=2) for n in (3, 25))
ASSEMBLY = pr.cells.Assembly(modules=(SMALL, pr.modules.Group(modules=(SMALL,), coupling="hierarchical")))
SYSTEMS = {
    "split": (pr.cells.LeakyRNN(n_units=5, noise=0.1), Control()),
    "outside": (pr.cells.LeakyRNN(n_units=5, self_interaction="outside", activation="tanh"), Control()),
    "assembly": (ASSEMBLY, Control()),
    "assembly, rates": (dataclasses.replace(ASSEMBLY, form="rate", activation="tanh", noise=0.1), Control()),
    "assembly in strips": (dataclasses.replace(ASSEMBLY, modules=(LARGE,) * 3, topology="chain"), Control()),
    "whole": (toys.Antisymmetric(n_units=5), Control()),
    "several states": (toys.Dice(n_units=5), Control()),
    "skipping": (pr.cells.VanillaRNN(n_units=5), toys.Leap(theta=4)),
}


def system(name, length, dtype=jnp.float64):
    """Parameters, start and sequence of a small batch."""
    cell, method = SYSTEMS[name]
    key = jax.random.key(1)
    parameters = cell.init(N_INPUTS, N_OUTPUTS, key=key)
    parameters = jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, parameters)
    dynamics = Dynamics(cell, method)
    context = Context(schedule={"beta": jnp.asarray(0.4, dtype)}, training=True)
    inputs = jax.random.normal(key, (N_STEPS, N_TRIALS, N_INPUTS), dtype)
    keys = jax.random.split(key, N_TRIALS)
    sequence = unrolling.Sequence(inputs, keys, length, context, None)
    prepared = cell.prepare(parameters, context)
    carry = jax.vmap(lambda k: dynamics.start(prepared, None, N_OUTPUTS, key=k))(keys)
    carry = jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, carry)
    return dynamics, parameters, context, carry, sequence


def by_hand(dynamics, prepared, carry, sequence, length):
    """The same in the plainest way: one scan over all steps, everything kept by automatic differentiation."""

    def all_trials(carry, given):
        t, inputs = given

        def step(c, x, k):
            context = sequence.context._replace(time=t)
            drive = dynamics.external(prepared, x, key=jax.random.fold_in(k, 2 * t), context=context)
            recurrent = dynamics.recurrent(prepared, c)
            drive = add_drives(drive, recurrent)
            return dynamics.update(prepared, c, drive, key=jax.random.fold_in(k, 2 * t + 1), context=context)

        new = jax.vmap(step)(carry, inputs, sequence.keys)
        carry = jax.tree.map(lambda a, b: jnp.where(t < length, a, b), new, carry)
        outputs = jax.vmap(lambda c: dynamics.output(prepared, c))(carry)
        squares = jax.vmap(lambda c: jnp.sum(dynamics.cell.activity(c.state) ** 2))(carry)
        return carry, jax.tree.map(lambda a: jnp.where(t < length, a, 0), (outputs, squares))

    _, (outputs, squares) = lax.scan(all_trials, carry, (jnp.arange(N_STEPS), sequence.inputs))
    return outputs, jnp.sum(squares, axis=0)


def scalar_of(outputs, total):
    """Some number that depends on everything."""
    weights = jnp.cos(jnp.arange(outputs.size, dtype=outputs.dtype)).reshape(outputs.shape)
    return jnp.sum(weights * jnp.tanh(outputs)) + 0.3 * jnp.sum(total)


def both(name, plan, dtype=jnp.float64):
    dynamics, parameters, context, carry, sequence = system(name, N_STEPS, dtype)

    def fast(trainable, carry_floats, length):
        prepared = dynamics.cell.prepare(parameters._replace(trainable=trainable), context)
        start = jax.tree.map(lambda a, b: b if a is None else a, carry_floats, carry, is_leaf=lambda a: a is None)
        _, emitted, _ = unrolling.unroll(
            dynamics,
            prepared,
            start,
            sequence._replace(length=length),
            emit=dynamics.output,
            plan_=plan,
            accumulate=lambda q, c: jnp.sum(dynamics.cell.activity(c.state) ** 2),
        )
        return scalar_of(emitted.outputs, emitted.sums)

    def slow(trainable, carry_floats, length):
        prepared = dynamics.cell.prepare(parameters._replace(trainable=trainable), context)
        start = jax.tree.map(lambda a, b: b if a is None else a, carry_floats, carry, is_leaf=lambda a: a is None)
        return scalar_of(*by_hand(dynamics, prepared, start, sequence, length))

    floats = jax.tree.map(lambda a: a if jnp.issubdtype(a.dtype, jnp.floating) else None, carry)
    return fast, slow, parameters.trainable, floats


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.optimised if name == "split" else ()) for name in SYSTEMS]
)
@pytest.mark.parametrize(
    "plan", [unrolling.Plan(4, 3, 3, True), unrolling.Plan(2, 6, 2, False)], ids=["blocks", "segments"]
)
def test_values_and_gradients_equal_the_plain_recurrence(name, plan):
    with backend.precision(64):
        fast, slow, *at = both(name, plan)
        fast, slow = (jax.jit(jax.value_and_grad(f, argnums=(0, 1))) for f in (fast, slow))
        for length in (N_STEPS, 6):
            (f, g), (f_, g_) = fast(*at, length), slow(*at, length)
            np.testing.assert_allclose(f, f_, rtol=1e-10)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10), g, g_)


@pytest.mark.optimised
def test_gradient_equals_central_differences():
    with backend.precision(64):
        fast, _, trainable, floats = both("outside", unrolling.Plan(4, 3, 3, True))
        fast = jax.jit(fast)
        gradient = jax.grad(fast)(trainable, floats, 7)
        for name in trainable:
            direction = jnp.asarray(np.random.default_rng(0).normal(size=trainable[name].shape))
            step = 1e-6
            up, down = (fast(trainable | {name: trainable[name] + s * direction}, floats, 7) for s in (step, -step))
            np.testing.assert_allclose(jnp.sum(gradient[name] * direction), (up - down) / (2 * step), rtol=1e-6)


def test_nothing_beyond_the_length_matters():
    """Inputs beyond the true length may be anything, NaN included, and outputs there are zero."""
    dynamics, parameters, context, carry, sequence = system("split", 6, jnp.float32)
    prepared = dynamics.cell.prepare(parameters, context)
    poisoned = sequence._replace(inputs=sequence.inputs.at[6:].set(jnp.nan))

    def loss(prepared, sequence):
        _, emitted, _ = unrolling.unroll(
            dynamics, prepared, carry, sequence, emit=dynamics.output, plan_=unrolling.Plan(4, 3, 3, True)
        )
        return jnp.sum(emitted.outputs**2), emitted.outputs

    (a, outputs), clean = jax.value_and_grad(loss, has_aux=True)(prepared, sequence)
    (b, _), dirty = jax.value_and_grad(loss, has_aux=True)(prepared, poisoned)
    assert a == b and np.all(np.asarray(outputs[6:]) == 0)
    for name in clean:
        assert np.isfinite(dirty[name]).all(), name
        np.testing.assert_array_equal(clean[name], dirty[name])


def test_lengths_and_stages_do_not_compile_again():
    """One compilation serves all lengths, stages and numbers of active members."""
    from poprnn.training.fit import make_trainer

    trainer = make_trainer(
        pr.tasks.NParity(n_max=5),
        pr.cells.LeakyRNN(n_units=6),
        members=3,
        batch=16,
        steps_per_epoch=3,
        epochs=4,
        evaluation_batches=2,
        curriculum={"kind": "multi_head", "threshold": 0.0},
    )  # passes a stage at every evaluation
    lengths = []
    for update in trainer.updates():
        lengths.append(int(np.asarray(trainer.state.n_time_steps)[0]))
        if update.evaluated and update.epoch == 1:
            counts = (trainer.train._jitted._cache_size(), trainer.evaluate._jitted._cache_size())
    assert len(set(np.diff(lengths))) > 1, "lengths never changed: the test shows nothing"
    assert trainer.run().stages_passed().tolist() == [4, 4, 4]
    assert counts == (1, 1)
    assert (trainer.train._jitted._cache_size(), trainer.evaluate._jitted._cache_size()) == counts


def test_vmapped_members_with_different_lengths_agree_with_mapped_ones():
    """The accelerators' way (members vmapped, one loop for all lengths) gives the CPU's numbers to rounding."""
    from poprnn.training.fit import make_trainer

    trainer = make_trainer(
        pr.tasks.NParity(n_max=5),
        pr.cells.LeakyRNN(n_units=6, noise=0.1),
        members=3,
        batch=4,
        steps_per_epoch=4,
        epochs=1,
        evaluation_batches=1,
        penalties=({"kind": "activity", "strength": 0.1},),
    )
    program = trainer.program
    with backend.precision(32):
        shared = trainer.shared._replace(n_steps=jnp.int32(4))
        a, _ = mapping.MemberMap(program.train, 3)(trainer.state, shared)
        b, _ = mapping.MemberMap(program.train, 3, mode="vmap", n_devices=1)(trainer.state, shared)
        c, _ = mapping.MemberMap(program.train, 3, mode="vmap")(trainer.state, shared, np.array([True, False, True]))
    assert len(set(np.asarray(a.n_time_steps).tolist())) > 1
    for name, x in a.parameters.trainable.items():
        np.testing.assert_allclose(x, b.parameters.trainable[name], rtol=2e-4, atol=2e-6, err_msg=name)
        np.testing.assert_allclose(
            x[np.array([0, 2])], c.parameters.trainable[name][np.array([0, 2])], rtol=2e-4, atol=2e-6
        )
        np.testing.assert_array_equal(c.parameters.trainable[name][1], trainer.state.parameters.trainable[name][1])


def test_scan_reference_has_no_cheaper_meaning():
    """The plain recurrence used above is itself checked against lax.scan, so that both cannot be wrong together."""
    with backend.precision(64):
        dynamics, parameters, context, carry, sequence = system("split", N_STEPS)
        prepared = dynamics.cell.prepare(parameters, context)
        outputs, _ = by_hand(dynamics, prepared, carry, sequence, N_STEPS)

        def step(h, x):
            t, x = x
            noise = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, 2 * t), (5,)))(sequence.keys)
            a = x @ prepared["W_in"].T + prepared["bias"] + 0.1 * noise + h @ prepared["W"].T
            z = (1 - prepared["alpha"]) * h + prepared["alpha"] * a
            h = jnp.where(z > 0, z, 0.1 * z)
            return h, h @ prepared["W_out"].T + prepared["b_out"]

        _, scanned = lax.scan(step, carry.state, (jnp.arange(N_STEPS), sequence.inputs))
        np.testing.assert_allclose(outputs, scanned, rtol=1e-10)
