"""What the recipes about the bottlenecked autoencoder share."""

from typing import Any

from poprnn.cells.bottleneck_autoencoder import BottleneckAutoencoder
from poprnn.tasks.static_vectors import StaticVectors
from poprnn.training.optimizers.adam import Adam
from poprnn.training.schedules.cosine import Cosine
from poprnn.training.settings import Population, Setup, Training

GAINS = ("recurrent_gain", "feedback_gain", "bias_gain")


def gains(scale: dict[str, Any]) -> dict[str, float]:
    """Those a scale starts networks with that are to send one thing after another."""
    return {name: scale[name] for name in GAINS}


def population(
    scale: dict[str, Any],
    task: StaticVectors,
    cell: dict[str, Any],
    *,
    objective: str = "anytime",
    steps: int | None = None,
    **training: Any,
) -> Setup:
    """One population: the scale's seed, size, batch and learning rate, which falls to 0 in half a cosine unless given.

    Training steps are evaluated ``scale["evaluations"]`` times. No monitor ends a member: all have the same budget.
    """
    steps = scale["steps"] if steps is None else steps
    rate = Cosine(peak=scale["learning_rate"], decay_steps=steps)
    options: dict[str, Any] = {
        "batch": scale["batch"],
        "epochs": scale["evaluations"],
        "steps_per_epoch": -(-steps // scale["evaluations"]),
        "evaluation_batches": 4,
        "optimizer": Adam(learning_rate=rate),
        "objective": objective,
        "monitors": (),
        "snapshots": "none",
    }
    return Setup(
        population=Population(members=scale["members"], seed=scale["seed"]),
        task=task,
        cell=BottleneckAutoencoder(n_units=scale["n_units"], **cell),
        training=Training(**options | training),  # type: ignore[arg-type]
    )
