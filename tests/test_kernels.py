"""Compiled kernels against XLA: every option they serve, in value and gradient, and what they do not serve."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import poprnn as pr
import toys
from conftest import usually
from poprnn.cells.contract import Context
from poprnn.core import backend, keys, native
from poprnn.tasks.contract import Piecewise
from poprnn.training import unroll as unrolling
from poprnn.training.dynamics import Dynamics
from poprnn.training.kernel_steps import kernel_serves
from poprnn.training.methods.aligned_skip import AlignedSkip
from poprnn.training.methods.control import Control
from poprnn.training.methods.skip import Skip

needs_kernels = pytest.mark.skipif(native.instructions() is None, reason="installed without a compiler")
N_TRIALS, N_STEPS, N_INPUTS, N_OUTPUTS = 7, 11, 3, 2
BLOCKS, SEGMENTS = unrolling.Plan(4, 3, 3, True), unrolling.Plan(2, 6, 2, False)


@pytest.fixture
def without(monkeypatch):
    """Call a function with the kernels off."""

    def call(function, *arguments):
        with monkeypatch.context() as change:
            change.setenv(native.VARIABLE, "0")
            assert native.instructions() is None
            return function(*arguments)

    return call


def of(cell, plan, length=9, pieces=False, warm_up=None, method=Control(), weight=0.3, first=0):
    """Value and gradient of some number that depends on everything, compiled anew at every call."""
    with backend.precision(32):
        key = jax.random.key(1)
        parameters = cell.init(N_INPUTS, N_OUTPUTS, key=key)
        context, dynamics = Context(training=True, schedule={"weight": weight}), Dynamics(cell, method)
        step_keys = jax.random.split(key, N_TRIALS)
        inputs = jax.random.normal(key, (N_STEPS, N_TRIALS, N_INPUTS))
        if pieces:
            inputs = Piecewise(inputs[:4].swapaxes(0, 1), jnp.tile(jnp.array([0, 3, 5, 8]), (N_TRIALS, 1)))
        trials = timed_trials() if method.reads_trial else None
        sequence = unrolling.Sequence(inputs, step_keys, length, context, trials, first, no_gradient=warm_up)
        prepared = cell.prepare(parameters, context)
        carry = jax.vmap(lambda k: dynamics.start(prepared, None, N_OUTPUTS, key=k))(step_keys)

        assert kernel_serves(dynamics, prepared, carry) == (native.instructions() is not None)

        def loss(trainable, state):
            prepared = cell.prepare(parameters._replace(trainable=trainable), context)
            last, emitted, _ = unrolling.unroll(
                dynamics, prepared, carry._replace(state=state, method=jax.vmap(method.init)(state)), sequence,
                emit=dynamics.output, accumulate=lambda q, c: jnp.sum(c.state**2), n_steps=N_STEPS, plan_=plan
            )  # fmt: skip
            weights = jnp.cos(jnp.arange(emitted.outputs.size)).reshape(emitted.outputs.shape)
            return jnp.sum(weights * emitted.outputs) + 0.1 * jnp.sum(emitted.sums) + jnp.sum(jnp.sin(last.state))

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(parameters.trainable, carry.state)


def timed_trials():
    """Periods that differ between trials, of which some do not exist, and two skips, which some trials do not have."""
    middle, one = jnp.arange(N_TRIALS) % 5 + 1, jnp.ones(N_TRIALS, int)
    ends = lambda a, b: jnp.stack([a * one, b * one], axis=-1)
    periods = {"early": ends(0, middle), "none": ends(3, 3), "middle": ends(middle, 6), "late": ends(6, N_STEPS)}
    skips = jnp.stack([ends(middle, 6), ends(6, jnp.where(middle < 3, 9, 5))], axis=1)
    return pr.Trial(None, None, None, periods, None, skips)


COMMON = dict(negative_slope=0.3, tau_start=(1.5, 3.0))
CASES = {
    f"{where} {activation}": (
        pr.cells.LeakyRNN(n_units=19, activation=activation, self_interaction=where, **COMMON),
        BLOCKS if i % 2 else SEGMENTS,
        {},
    )
    for i, where in enumerate(("inside", "outside"))
    for activation in native.ACTIVATIONS
} | {
    "vanilla": (pr.cells.VanillaRNN(n_units=33), BLOCKS, {}),
    "white noise": (pr.cells.LeakyRNN(n_units=5, noise=0.2), SEGMENTS, {}),
    "noise with a memory": (pr.cells.LeakyRNN(n_units=5, noise=0.2, noise_tau=3.0, tau=4.0), BLOCKS, {}),
    "pieces and a warm-up": (
        pr.cells.LeakyRNN(n_units=5, self_interaction="outside", activation="relu", noise=0.1, noise_tau=3.0),
        BLOCKS,
        dict(pieces=True, warm_up=5),
    ),
    "a warm-up in another segment": (pr.cells.LeakyRNN(n_units=130, tau=2.0), SEGMENTS, dict(warm_up=6)),
    "negative slope": (pr.cells.LeakyRNN(n_units=16, negative_slope=-0.5), BLOCKS, dict(length=11)),
}  # fmt: skip


@needs_kernels
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_xla(name, without):
    cell, plan, more = CASES[name]
    (value, gradient), (value_, gradient_) = of(cell, plan, **more), without(lambda: of(cell, plan, **more))
    np.testing.assert_allclose(value, value_, rtol=2e-5, atol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), gradient, gradient_)


OUTSIDE = pr.cells.LeakyRNN(
    n_units=5, self_interaction="outside", noise=0.1, noise_tau=3.0, tau=4.0, tau_start=(2.0, 6.0)
)
SKIPS = {
    "of the state": (OUTSIDE, BLOCKS, dict(method=Skip(span=2))),
    "without a leak": (pr.cells.VanillaRNN(n_units=19), SEGMENTS, dict(method=Skip(span=3, strategic="task"))),
    "every step": (OUTSIDE, BLOCKS, dict(method=Skip(span=1), pieces=True)),
    "longer than blocks": (OUTSIDE, BLOCKS, dict(method=AlignedSkip(span=5, strategic="task"), length=11)),
    "across segments": (OUTSIDE, SEGMENTS, dict(method=AlignedSkip(span=3, strategic=((1.0, 6.0), (6.0, 9.0))))),
    "by the task alone": (OUTSIDE, BLOCKS, dict(method=Skip(span=40, strategic="task"))),
    "after a warm-up": (OUTSIDE, BLOCKS, dict(method=AlignedSkip(span=2, strategic="task"), warm_up=6)),
    "after a warm-up, in segments": (OUTSIDE, SEGMENTS, dict(method=AlignedSkip(span=4), warm_up=5)),
    "in the middle of a sequence": (OUTSIDE, BLOCKS, dict(method=Skip(span=3, strategic="task"), first=2)),
    "alone": (OUTSIDE, SEGMENTS, dict(method=AlignedSkip(span=3, strategic="task"), weight=0.0)),
}  # fmt: skip


@needs_kernels
@pytest.mark.parametrize("name", usually(SKIPS, "across segments", "after a warm-up", "without a leak"))
def test_skips_are_those_of_xla(name, without):
    cell, plan, more = SKIPS[name]
    (value, gradient), (value_, gradient_) = of(cell, plan, **more), without(lambda: of(cell, plan, **more))
    np.testing.assert_allclose(value, value_, rtol=2e-5, atol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), gradient, gradient_)
    ended = {name: option for name, option in more.items() if name != "method"}
    plain, of_weight_1 = of(cell, plan, **ended), of(cell, plan, **more | {"weight": 1.0})
    jax.tree.map(np.testing.assert_array_equal, plain, of_weight_1)
    assert plain[0] != value


@needs_kernels
@pytest.mark.parametrize("option", usually(["span", "base_weight", "annealing_steps"], "annealing_steps"))
def test_members_may_differ_in_their_skips(option, without):
    """Two members of a population, side by side."""
    values = {"span": [2, 5], "base_weight": [0.1, 0.9], "annealing_steps": [0, 100]}[option]

    def losses():
        run = pr.fit(
            pr.tasks.NParity(n_max=3), OUTSIDE, members=2, batch=4, steps_per_epoch=3, epochs=1, evaluation_batches=1,
            method=AlignedSkip(span=3), vary={f"training.method.{option}": values}
        )  # fmt: skip
        return [np.asarray(member.W) for member in run.members]

    ours, theirs = losses(), without(losses)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@needs_kernels
@pytest.mark.parametrize("shape", [(1, 1), (7, 4), (20, 50), (33, 70), (6, 130)])
@pytest.mark.parametrize("leaks", [False, True])
def test_a_block_is_the_recurrence(shape, leaks):
    """Every way a product can be cut in tiles; in float64 by NumPy, the gradient by its definition."""
    (trials, n), steps, slope = shape, 5, 0.2
    rng = np.random.default_rng(0)
    M, external = rng.normal(size=(n, n)) / n**0.5, rng.normal(size=(steps, trials, n))
    leak = rng.uniform(0.1, 0.9, n) if leaks else None
    h, drives, states = rng.normal(size=(trials, n)), [], []
    for e in external:
        states.append(h)
        drives.append(e + h @ M.T)
        f = np.where(drives[-1] > 0, drives[-1], slope * drives[-1])
        h = f if leak is None else h + leak * (f - h)
    states.append(h)
    after, g, g_M, g_leak = rng.normal(size=(steps, trials, n)), rng.normal(size=(trials, n)), 0, np.zeros(n)
    first_g = g
    for d, old, more in reversed(list(zip(drives, states[:-1], after, strict=True))):
        g = g + more
        slopes, f = np.where(d > 0, 1.0, slope), np.where(d > 0, d, slope * d)
        g_drive = g * slopes if leak is None else g * leak * slopes
        g_leak = g_leak if leak is None else g_leak + np.sum(g * (f - old), 0)
        g_M = g_M + g_drive.T @ old
        g = g_drive @ M if leak is None else g * (1 - leak) + g_drive @ M
    with backend.precision(32):
        cast = lambda a: jnp.asarray(a, jnp.float32)
        form = native.Form("leaky_relu", slope, None if leak is None else cast(leak))
        room = cast(np.zeros((steps + 1, trials, n))).at[0].set(cast(states[0]))
        packed = native.pack(cast(M), transposed=True)
        got, kept, _ = native.forward(form, packed, cast(external), room, room[1:], 0, steps)
        np.testing.assert_allclose(got, states, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(kept, drives, rtol=1e-4, atol=1e-5)
        packed, zero = native.pack(cast(M), transposed=False), cast(np.zeros((n, n)))
        back = native.backward(
            form, packed, (got, 0), (kept, 0), cast(after), cast(first_g), zero,
            None if leak is None else cast(np.zeros(n)), (jnp.int32(0), jnp.int32(steps))
        )  # fmt: skip
    np.testing.assert_allclose(back[0], g, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(back[1], g_M, rtol=1e-3, atol=1e-4)
    if leaks:
        np.testing.assert_allclose(back[2], g_leak, rtol=1e-3, atol=1e-4)


@needs_kernels
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (20, 50), (60, 70)])
@pytest.mark.parametrize("leaks", [False, True])
def test_skips_in_a_block_are_the_recurrence(shape, leaks):
    """Marks at random in both lanes, against a plain loop in float64 and its automatic differentiation."""
    (trials, n), steps, weight, reach = shape, 6, 0.3, 4 if leaks else 0
    rng = np.random.default_rng(1)
    M, external, after = rng.normal(size=(n, n)) / n**0.5, *rng.normal(size=(2, steps, trials, n))
    leak, start, *anchors = rng.uniform(0.1, 0.4, n), *rng.normal(size=(3, trials, n))
    marks = rng.integers(0, 4, (2, steps, trials)).astype(np.uint8)
    g_last, *g_anchors = rng.normal(size=(3, trials, n))

    def plain(M, external, leak, h, *anchors):
        leak, states, drives, anchors = leak if leaks else 1.0, [h], [], list(anchors)
        for t in range(steps):
            d = external[t] + h @ M.T
            new = h + leak * (jnp.tanh(d) - h)
            for lane, departure in enumerate((h + reach * leak * (jnp.tanh(d) - h), h)):
                begins, arrives = ((marks[lane, t] & bit > 0)[:, None] for bit in (1, 2))
                anchors[lane] = jnp.where(begins, departure, anchors[lane])
                new = jnp.where(arrives, weight * new + (1 - weight) * anchors[lane], new)
            h = new
            states, drives = [*states, h], [*drives, d]
        total = jnp.sum(after * jnp.stack(states[1:])) + jnp.sum(g_last * h)
        total += sum(jnp.sum(g * a) for g, a in zip(g_anchors, anchors, strict=True))
        return total, (jnp.stack(states), jnp.stack(drives), anchors)

    with backend.precision(64):
        differentiate = jax.jit(jax.value_and_grad(plain, argnums=range(6), has_aux=True))
        (_, (states, drives, ends)), gradient = differentiate(M, external, leak, start, *anchors)
        states, drives, ends, gradient = jax.tree.map(np.asarray, (states, drives, ends, gradient))
    with backend.precision(32):
        cast = lambda a: jnp.asarray(a, jnp.float32)
        form = native.Form("tanh", 0.0, cast(leak) if leaks else None)
        skips = lambda a: native.Skips(jnp.asarray(marks), cast(weight), reach, tuple(map(cast, a)))
        room = cast(np.zeros((steps + 1, trials, n))).at[0].set(cast(start))
        got = native.forward(
            form, native.pack(cast(M), transposed=True), cast(external), room, room[1:], 0, steps, skips(anchors)
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, (states, drives, (*ends,))
        )
        g, g_M, g_leak, g_drives, g_starts = native.backward(
            form, native.pack(cast(M), transposed=False), (got[0], 0), (got[1], 0), cast(after), cast(g_last),
            cast(np.zeros((n, n))), cast(np.zeros(n)) if leaks else None, (jnp.int32(0), jnp.int32(steps)),
            skips(g_anchors)
        )  # fmt: skip
    expected = gradient if leaks else (*gradient[:2], None, *gradient[3:])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3),
        (g_M, g_drives, g_leak, g, *g_starts),
        expected,
    )


@needs_kernels
@pytest.mark.parametrize("name", native.ACTIVATIONS)
def test_activations_are_exact_to_rounding_and_let_what_is_not_a_number_pass(name):
    """The step of a network without connections is its activation function."""
    x = np.concatenate([np.linspace(-100, 100, 4001), np.linspace(-1e-3, 1e-3, 200), [0.0]]).astype("f4").astype(float)
    exact = {
        "relu": np.maximum(x, 0),
        "leaky_relu": np.where(x > 0, x, 0.1 * x),
        "tanh": np.tanh(x),
        "softplus": np.logaddexp(x, 0),
        "sigmoid": special.expit(x),
        "identity": x,
    }[name]
    with backend.precision(32):
        packed = native.pack(jnp.zeros((1, 1)), transposed=True)
        step = lambda x: native.forward(
            native.Form(name, 0.1, None), packed, jnp.asarray(x, jnp.float32)[None, :, None],
            jnp.zeros((2, len(x), 1)), None, 0, jnp.int32(1)
        )[0][1, :, 0]  # fmt: skip
        np.testing.assert_allclose(step(x), exact, rtol=5e-7, atol=1e-37)
        assert np.isnan(step(np.array([np.nan]))).all()
        assert step(np.array([np.inf])) == (1.0 if name in ("tanh", "sigmoid") else np.inf)


@needs_kernels
def test_normal_numbers_are_made_of_the_same_bits(without):
    many = jax.random.split(jax.random.key(2), 60)
    draw = lambda: jax.jit(lambda k: keys.step_normals(k, jnp.int32(7), 40, 50))(many)
    ours, theirs = np.asarray(draw()), np.asarray(without(draw))
    np.testing.assert_allclose(ours, theirs, rtol=5e-7, atol=0)
    bits = np.asarray(jax.vmap(lambda t: keys.step_bits(jax.random.key(2), t, 50))(jnp.arange(3)))
    words = jax.random.key_data(jax.random.key(2))[None]
    np.testing.assert_allclose(native.normals(words, 0, 3, 50)[:, 0], keys.normal_from(jnp.asarray(bits)), rtol=5e-7)


@needs_kernels
def test_who_is_served():
    """Base dynamics and skips of cells that say so, in float32; nobody else, and nothing that is only inherited."""

    class Other(pr.cells.LeakyRNN):
        """An update of its own."""

        def update(self, prepared, state, drive, *, key, context):
            """Half as much."""
            return 0.5 * super().update(prepared, state, drive, key=key, context=context)

    class Flow(pr.cells.LeakyRNN):
        """A derivative of its own, which is not what the kernel's step adds."""

        def derivative(self, prepared, state, drive):
            """Half as fast."""
            return 0.5 * super().derivative(prepared, state, drive)

    class Half(Skip):
        """A departure of its own."""

        def departure(self, cell, prepared, state, drive):
            """Half of the state."""
            return 0.5 * super().departure(cell, prepared, state, drive)

    def serves(cell, method=Control(), task=None, dtype=jnp.float32):
        dynamics = Dynamics(cell, method, task)
        prepared = cell.prepare(cell.init(2, 1, key=jax.random.key(0)), Context(schedule={"weight": 1.0}))
        prepared = jax.tree.map(lambda a: jnp.asarray(a, dtype), prepared)
        carry = dynamics.start(prepared, None, 1, key=jax.random.key(0))
        return kernel_serves(dynamics, prepared, carry)

    leaky = pr.cells.LeakyRNN(n_units=3)
    assert serves(leaky) and serves(pr.cells.VanillaRNN(n_units=3))
    for cell in (pr.cells.GRU(n_units=3), toys.Antisymmetric(n_units=3), Other(n_units=3), Flow(n_units=3)):
        assert not serves(cell)
    assert serves(leaky, method=Skip()) and serves(OUTSIDE, method=AlignedSkip(strategic="task"))
    assert not serves(leaky, method=AlignedSkip())  # not an Euler step
    assert not serves(leaky, method=Half())
    with backend.precision(64):
        assert not serves(leaky, dtype=jnp.float64)


@needs_kernels
@pytest.mark.parametrize("instructions", ["plain", "avx2"])
def test_other_processors(instructions):
    """The kernels of lesser processors, in a process that is told to use them."""
    program = (
        "from poprnn.core import native; import test_kernels as t\n"
        f"assert native.instructions() in ('{instructions}', 'plain'), native.instructions()\n"
        "for shape in ((20, 50), (7, 4)):\n    t.test_a_block_is_the_recurrence(shape, True)\n"
        "t.test_skips_in_a_block_are_the_recurrence((7, 5), True)\n"
        "for name in native.ACTIVATIONS:\n"
        "    t.test_activations_are_exact_to_rounding_and_let_what_is_not_a_number_pass(name)\n"
    )
    paths = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
    environment = os.environ | {native.VARIABLE: instructions, "PYTHONPATH": paths}
    command = [sys.executable, "-P", "-c", program]  # -P: not the conftest of the folder it is started in
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_runs_say_what_they_used(tmp_path, monkeypatch):
    """The manifest names the instruction set; going on with another one warns."""
    options = dict(members=1, batch=4, steps_per_epoch=2, evaluation_batches=1)
    task, cell = pr.tasks.NParity(n_max=3), pr.cells.LeakyRNN(n_units=4)
    run = pr.fit(task, cell, epochs=1, out=tmp_path / "run", **options)
    assert run.manifest["machine"]["kernels"] == native.instructions()
    gru = pr.fit(task, pr.cells.GRU(n_units=4), epochs=0, **options)
    assert gru.manifest["machine"]["kernels"] is None
    assert ("compiled kernels" in native.status()) == (native.instructions() is not None)
    if native.instructions() is not None:
        monkeypatch.setenv(native.VARIABLE, "0")
        with pytest.warns(UserWarning, match="kernels"):
            pr.resume(tmp_path / "run")
