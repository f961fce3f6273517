"""poprnn's side of the benchmark: one workload in one process, one JSON line. Same arguments as torch_baseline.py.

python benchmarks/poprnn_side.py step --members 100 --batch 20 --steps 500 --units 50
python benchmarks/poprnn_side.py parity --members 1 --n-to 12
python benchmarks/poprnn_side.py peak
"""

import argparse
import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

import poprnn as pr
from poprnn.core import backend
from poprnn.training.fit import make_trainer


def step(options: argparse.Namespace) -> dict:
    """Seconds for one training step of all members: forward, backward, Adam, on given data."""
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(options.batch, options.steps, options.inputs))
    targets = generator.normal(size=(options.batch, options.steps, options.outputs))
    task = pr.tasks.Arrays.of(inputs, targets)
    trainer = make_trainer(
        task,
        pr.cells.LeakyRNN(n_units=options.units),
        members=options.members,
        batch=options.batch,
        optimizer={"kind": "adam", "learning_rate": 1e-3},
    )
    began = time.perf_counter()
    trainer._train(1)
    compiled = time.perf_counter() - began
    seconds = []
    for _ in range(options.repeats):
        before = time.perf_counter()
        trainer._train(options.steps_per_call)
        seconds.append((time.perf_counter() - before) / options.steps_per_call)
    flops = 6.0 * options.members * options.batch * options.steps * options.units**2
    return {
        "workload": "step",
        "seconds_median": statistics.median(seconds),
        "seconds_min": min(seconds),
        "seconds_all": seconds,
        "compile_seconds": compiled,
        "gflops": flops / statistics.median(seconds) / 1e9,
        "peak_mb": backend.peak_bytes() / 1e6,
    }


@pr.register("tasks")
class _Pixels(pr.Task):
    """Sequences with a class each, read at the last step: the same trials at every step, as the other side has them."""

    n_steps: int = 784
    readout = "last"
    n_inputs, n_outputs = 1, 10

    @property
    def capacity(self):
        """Steps of a trial."""
        return self.n_steps

    def sample(self, setting, arrays, *, key):
        """One of them."""
        pixels, label = jax.random.split(key)
        return pr.Trial(jax.random.uniform(pixels, (self.n_steps, 1)), jax.random.randint(label, (), 0, 10))

    def loss(self, outputs, trial, setting):
        """Cross-entropy."""
        return -jax.nn.log_softmax(outputs)[trial.targets]

    def scores(self, outputs, trial, setting):
        """Right or wrong."""
        return {"accuracy": (jnp.argmax(outputs) == trial.targets).astype(jnp.float32)}


def assembly(options: argparse.Namespace) -> dict:
    """Seconds for one training step of a Sparse Combo Net, and for one check of its certificate."""
    cell = pr.cells.SparseComboNet(n_modules=options.modules, n_module_units=options.module_units)
    task = _Pixels(n_steps=options.steps)
    adam = {"kind": "adam", "learning_rate": 1e-3}
    trainer = make_trainer(task, cell, members=options.members, batch=options.batch, optimizer=adam)
    trainer._train(1)
    seconds, processor = [], time.process_time()
    for _ in range(options.repeats):
        before = time.perf_counter()
        trainer._train(1)
        seconds.append(time.perf_counter() - before)
    processor = (time.process_time() - processor) / options.repeats
    parameters = jax.tree.map(lambda a: np.asarray(a)[0], trainer.state.parameters)
    cell.certificate(parameters)
    before = time.perf_counter()
    cell.certificate(parameters)
    return {
        "workload": "assembly",
        "seconds_median": statistics.median(seconds),
        "seconds_all": seconds,
        "cpu_seconds_mean": processor,
        "certificate_seconds": time.perf_counter() - before,
        "peak_mb": backend.peak_bytes() / 1e6,
    }


def cognitive(options: argparse.Namespace) -> dict:
    """Seconds for one training step on dm1 by each method: task, noise and penalties included."""
    from poprnn.recipes._long_dependencies import network

    methods = {"control": pr.methods.Control(), "skip": pr.methods.Skip(), "aligned_skip": pr.methods.AlignedSkip()}
    trainers = {
        name: make_trainer(
            pr.tasks.Cognitive(rule="dm1", timing="batch"),
            network({"n_units": 50, "dt": 5.0}),
            members=options.members,
            batch=options.batch,
            optimizer={"kind": "adam", "learning_rate": 0.002},
            penalties=(pr.penalties.Activity(power=1, strength=1e-5), pr.penalties.L1(strength=1e-5 / 50**2)),
            method=method,
            monitors=(),
        )
        for name, method in methods.items()
    }
    for trainer in trainers.values():
        trainer._train(1)
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(options.repeats):
        for name, trainer in trainers.items():
            before = time.perf_counter()
            trainer._train(options.steps_per_call)
            seconds[name].append((time.perf_counter() - before) / options.steps_per_call)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {"workload": "cognitive", "seconds_median": medians, "peak_mb": backend.peak_bytes() / 1e6}


def flip_flop(options: argparse.Namespace) -> dict:
    """Seconds for one training step of 64 tanh units on three bits, trials drawn anew each step."""
    trainer = make_trainer(
        pr.tasks.FlipFlop(n_channels=3),
        pr.cells.VanillaRNN(n_units=64, activation="tanh"),
        members=options.members,
        batch=options.batch,
        optimizer={"kind": "adam", "learning_rate": 1e-3},
    )
    trainer._train(1)
    seconds = []
    for _ in range(options.repeats):
        before = time.perf_counter()
        trainer._train(options.steps_per_call)
        seconds.append((time.perf_counter() - before) / options.steps_per_call)
    return {"workload": "flip_flop", "seconds_median": statistics.median(seconds)}


def parity(options: argparse.Namespace) -> dict:
    """The N-parity job, from nothing to N solved: compilation included."""
    began = time.perf_counter()
    run = pr.fit(
        pr.tasks.NParity(n_max=options.n_to),
        pr.cells.LeakyRNN(n_units=options.units, negative_slope=options.negative_slope),
        members=options.members,
        seed=options.seed,
        batch=options.batch,
        epochs=options.epochs,
        steps_per_epoch=600,
        evaluation_batches=50,
        curriculum="multi_head",
        optimizer={"kind": "sgd", "learning_rate": 0.05, "momentum": 0.1, "nesterov": True, "clip_norm": 2.0},
    )
    seconds = time.perf_counter() - began
    return {
        "workload": "parity",
        "seconds": seconds,
        "outcome": run.outcome,
        "epochs": [int((run.history["n_steps"][:, k] >= 0).sum()) for k in range(run.n_members)],
        "solved_n": (run.stages_passed() + 1).tolist(),
        "time_steps": int(np.nanmax(run.history["n_time_steps"], axis=0).sum()),
        "gflops": run.manifest["flops"] / seconds / 1e9,
    }


def peak(options: argparse.Namespace) -> dict:
    """GFLOP/s of a large matrix product on all cores: what shares are measured against."""
    a = jnp.ones((options.size, options.size), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    seconds = []
    for _ in range(7):
        before = time.perf_counter()
        product(a).block_until_ready()
        seconds.append(time.perf_counter() - before)
    return {
        "workload": "peak",
        "gflops": 2 * options.size**3 / statistics.median(seconds) / 1e9,
        "gflops_best": 2 * options.size**3 / min(seconds) / 1e9,
    }


def length(options: argparse.Namespace) -> dict:
    """Seconds of a training step at true length 10 and at full length, both at a capacity of 404 steps."""
    out = {}
    for n_bits, n_steps in ((10, 10), (404, 2)):
        trainer = make_trainer(
            _Fixed(true_length=n_bits),
            pr.cells.LeakyRNN(n_units=200),
            batch=256,
            optimizer={"kind": "sgd", "learning_rate": 0.05, "clip_norm": 2.0},
        )
        trainer._train(2)
        seconds = []
        for _ in range(options.repeats):
            before = time.perf_counter()
            trainer._train(n_steps)
            seconds.append((time.perf_counter() - before) / n_steps)
        out[f"seconds_at_{n_bits}"] = statistics.median(seconds)
    return {"workload": "length", **out, "ratio": out["seconds_at_10"] / out["seconds_at_404"]}


@pr.register("tasks")
class _Fixed(type(pr.tasks.NParity())):
    """N-parity with room for 404 bits of which a fixed number is used."""

    n_min: int = 2
    n_max: int = 101
    true_length: int = 10

    def draw(self, stage, *, key):
        """The one length."""
        setting = super().draw(stage, key=key)
        return setting._replace(
            length=jnp.asarray(self.true_length), extra=setting.extra | {"n_bits": jnp.asarray(self.true_length)}
        )


def memory(options: argparse.Namespace) -> dict:
    """Peak memory of 100 members × 20 trials × 10,000 steps × 50 units beyond that after start-up."""
    inputs = np.random.default_rng(0).normal(size=(20, 10_000, 1))
    task = pr.tasks.Arrays.of(inputs, inputs)
    small = make_trainer(
        pr.tasks.Arrays.of(inputs[:, :10], inputs[:, :10]), pr.cells.LeakyRNN(n_units=50), members=100, batch=20
    )
    small._train(1)
    before = backend.peak_bytes()
    trainer = make_trainer(task, pr.cells.LeakyRNN(n_units=50), members=100, batch=20)
    trainer._train(1)
    return {
        "workload": "memory",
        "before_mb": before / 1e6,
        "peak_mb": backend.peak_bytes() / 1e6,
        "beyond_mb": (backend.peak_bytes() - before) / 1e6,
    }


def vary(options: argparse.Namespace) -> dict:
    """Sixteen learning rates as one population, and as sixteen runs one after another (fresh processes' programs)."""
    from poprnn.training import trainer as fitting

    rates = np.geomspace(0.001, 0.1, 16).tolist()
    common = dict(batch=64, epochs=1, steps_per_epoch=200, evaluation_batches=2, curriculum="multi_head")
    task, cell = pr.tasks.NParity(n_max=6), pr.cells.LeakyRNN(n_units=64)
    before = time.perf_counter()
    pr.fit(
        task,
        cell,
        members=16,
        vary={"training.optimizer.learning_rate": rates},
        optimizer={"kind": "sgd", "learning_rate": 0.05},
        **common,
    )
    together = time.perf_counter() - before
    before = time.perf_counter()
    for rate in rates:
        fitting.compiled.cache_clear()
        pr.fit(task, cell, optimizer={"kind": "sgd", "learning_rate": rate}, **common)
    apart = time.perf_counter() - before
    return {"workload": "vary", "seconds_together": together, "seconds_apart": apart, "ratio": apart / together}


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser()
    workloads = ["step", "assembly", "cognitive", "flip_flop", "parity", "peak", "length", "memory", "vary"]
    parser.add_argument("workload", choices=workloads)
    for name, default in dict(
        members=1,
        batch=256,
        steps=100,
        units=200,
        inputs=8,
        outputs=3,
        repeats=5,
        n_to=12,
        seed=0,
        epochs=40,
        size=4096,
        steps_per_call=3,
        modules=16,
        module_units=32,
    ).items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default)
    parser.add_argument("--negative-slope", type=float, default=0.1, help="0.01 in the code released with the paper")
    options = parser.parse_args()
    backend.devices()
    print(json.dumps(globals()[options.workload](options)))


if __name__ == "__main__":
    main()
