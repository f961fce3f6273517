"""What the later papers need, each as a toy of at most 30 lines that changes nothing in core/ or training/."""

import jax
import jax.numpy as jnp
import numpy as np

import poprnn as pr
from poprnn.training.methods.contract import mix


@pr.register("tasks")
class EchoChamber(pr.Task):
    """Closed loop: the next input is the sign of the network's own answer; it should say 1, 0, 1, 0, …"""

    n_inputs, n_outputs, capacity, closed_loop = 2, 1, 12, True

    def sample(self, setting, arrays, *, key):
        time = jnp.arange(self.capacity)
        return pr.Trial(
            jnp.zeros((self.capacity, 2)),
            (time % 2 == 0)[:, None].astype(jnp.float32),
            condition=jax.random.randint(key, (), 0, 2),
        )

    def begin(self, trial, *, key):
        return {"n_right": jnp.asarray(0), "rule": trial.condition}

    def respond(self, task_state, trial, time, output, *, key):
        right = (output[0] > 0.5) == (trial.targets[jnp.maximum(time - 1, 0), 0] > 0.5)
        state = task_state | {"n_right": task_state["n_right"] + right}
        return state, jnp.stack([jnp.sign(output[0]), right.astype(jnp.float32)])


@pr.register("cells")
class Dice(pr.Cell):
    """Several state arrays, and binary random units with a straight-through gradient and an annealed temperature."""

    n_units: int = 6

    def init(self, n_inputs, n_outputs, *, key):
        a, b, c = jax.random.split(key, 3)
        return pr.Parameters(
            {
                "W": jax.random.normal(a, (self.n_units, self.n_units)) / 3,
                "W_in": jax.random.normal(b, (self.n_units, n_inputs)),
                "W_out": jax.random.normal(c, (n_outputs, self.n_units)) / 3,
            },
            {},
        )

    def initial_state(self, prepared, *, key):
        return {"rate": jnp.zeros(self.n_units), "trace": jnp.zeros(self.n_units), "count": jnp.asarray(0)}

    def step(self, prepared, state, input, *, key, context):
        p = jax.nn.sigmoid(prepared["W"] @ state["trace"] + prepared["W_in"] @ input)
        spike = (jax.random.uniform(key, p.shape) < p).astype(p.dtype)
        spike = p + jax.lax.stop_gradient(spike - p)
        return {"rate": spike, "trace": 0.8 * state["trace"] + 0.2 * spike, "count": state["count"] + 1}

    def readout(self, prepared, state):
        return prepared["W_out"] @ state["trace"]


@pr.register("cells")
class Antisymmetric(pr.Cell):
    """A frozen input layer, and a recurrent matrix tied to a constraint: W = B - B^T - decay I, whatever B becomes."""

    n_units: int = 6
    decay: float = 0.5

    def init(self, n_inputs, n_outputs, *, key):
        a, b, c = jax.random.split(key, 3)
        return pr.Parameters(
            {
                "B": jax.random.normal(a, (self.n_units, self.n_units)) / 3,
                "W_out": jax.random.normal(c, (n_outputs, self.n_units)) / 3,
            },
            {"W_in": jax.random.normal(b, (self.n_units, n_inputs))},
        )

    def prepare(self, parameters, context):
        p = super().prepare(parameters, context)
        return p | {"W": p["B"] - p["B"].T - self.decay * jnp.eye(self.n_units)}

    def initial_state(self, prepared, *, key):
        return jnp.zeros(self.n_units)

    def step(self, prepared, state, input, *, key, context):
        return state + 0.1 * (prepared["W"] @ jnp.tanh(state) + prepared["W_in"] @ input)

    def readout(self, prepared, state):
        return prepared["W_out"] @ state


@pr.register("methods")
class Leap(pr.Method):
    """Every theta steps the state is mixed with the one theta steps before; the coefficient grows to 1."""

    theta: int = 3
    anneal_steps: int = 4

    def schedule(self, n_step):
        return {"beta": jnp.minimum(0.5 + 0.5 * n_step / self.anneal_steps, 1.0)}

    def init(self, state):
        return state

    def update(self, cell, prepared, state, memory, drive, *, key, context):
        new = cell.update(prepared, state, drive, key=key, context=context)
        skips = (context.time + 1) % self.theta == 0
        mixed = mix(new, memory, context.schedule["beta"])
        pick = lambda a, b: jax.tree.map(lambda x, y: jnp.where(skips, x, y), a, b)
        return pick(mixed, new), pick(mixed, memory)


@pr.register("curricula")
class Shift(pr.Curriculum):
    """Stages are input distributions: from one to the next after every evaluation."""

    n: int = 3

    def update(self, task, progress, scores):
        return pr.Progress(jnp.minimum(progress.index + 1, self.n - 1), progress.finished)


@pr.register("tasks")
class Centred(pr.Task):
    """Repeat a number drawn around the centre that the stage says."""

    n_inputs, n_outputs, capacity = 1, 1, 5

    def draw(self, stage, *, key):
        return pr.Setting(5, extra={"centre": stage.index.astype(jnp.float32)})

    def sample(self, setting, arrays, *, key):
        x = setting.extra["centre"] + jax.random.normal(key, (5, 1))
        return pr.Trial(x, x)


@pr.register("monitors")
class TooHeavy(pr.Monitor):
    """An outcome of its own kind, checked on the host in float64 (as a certificate would be)."""

    outcome, on = "too_heavy", "host"
    limit: float = 1.0

    def update(self, state, observation):
        W = np.asarray(observation.parameters.trainable["W"], np.float64)
        return state, np.linalg.norm(W, 2) > self.limit
