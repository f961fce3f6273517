"""Path integration: follow one's position in an arena from direction and speed."""

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import lax

from poprnn.core.arrays import Array, Float, PRNGKey
from poprnn.core.blueprint import NonNegative, Positive, PositiveInt
from poprnn.tasks._fixed_length import FixedLength
from poprnn.tasks.contract import Setting, Trial, step_weights


class PathIntegration(FixedLength):
    """Where am I, if I began there and went at these speeds in these directions? In an arena with walls, in 2D or 3D.

        p_t = p_{t-1} + v_t e_t,        p_{-1} = start, uniform in [-side / 2, side / 2]^n_dimensions

    with v_t ~ U(0, max_speed) at every step and e_t of length 1 the direction of step t. A path that would leave the
    arena is reflected: the position is mirrored at the wall, and so are the directions of all later steps, so that the
    inputs always say how the agent moves. Directions turn at random from step to step by an angle of root mean square
    ``turn``, from a first one that is uniform: in 2D the angle is a random walk, in 3D yaw and pitch of the agent's
    own frame are, each with half of the variance.

    Inputs of an agent: the direction theta = atan2(e_y, e_x) in 2D, azimuth theta and elevation phi = asin(e_z) in 3D,
    in radians; the speed v; and the start's coordinates, at the first step only. Targets: the coordinates of p_t at
    every step t. Loss: squared error, mean over all steps and coordinates.

    Task and length are those of Huang, Singh, Rajan, Measuring and controlling solution degeneracy across task-trained
    recurrent neural networks (2024), section 2.2 and appendix A.4, in 2D and 3D. Our choices, where it says nothing:
    all else, that is the arena's size, random turns and speeds (with the defaults an agent ends, root mean square, 0.8
    from where it began, about half a side), reflection, and that N channels are N agents, each on its own way in an
    arena of its own. :meth:`out_of_distribution` lasts twice as long, as there.

    Of errors: a network that always says the centre has a loss of side² / 12, with the defaults 0.33; one that always
    says where it began, 0.16 in 2D and 0.11 in 3D.

    >>> import jax, jax.numpy as jnp
    >>> task = PathIntegration(n_steps=4)
    >>> trial = task.sample(task.draw(None, key=None), (), key=jax.random.key(1))
    >>> theta, speed = trial.inputs[:, 0], trial.inputs[:, 1]
    >>> steps = speed[:, None] * jnp.stack([jnp.cos(theta), jnp.sin(theta)], axis=1)
    >>> bool(jnp.allclose(trial.inputs[0, 2:] + jnp.cumsum(steps, axis=0), trial.targets, atol=1e-6))
    True
    """

    cites = ("huang2024",)
    score: ClassVar[str] = "variance_explained"

    n_dimensions: Literal[2, 3] = 2
    """Dimensions of the arena."""
    n_channels: PositiveInt = 1
    """Number N of agents (our choice)."""
    side: Positive = 2.0
    """Length of the arena's sides (our choice)."""
    max_speed: Positive = 0.05
    """Largest speed, in lengths a step (our choice)."""
    turn: NonNegative = 0.5
    """Root mean square of the angle, in radians, by which the direction turns from step to step (our choice)."""

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Angles, speed and start of every agent."""
        return 2 * self.n_dimensions * self.n_channels

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        """Coordinates of every agent."""
        return self.n_dimensions * self.n_channels

    def sample(self, setting: Setting, arrays: tuple[()], *, key: PRNGKey) -> Trial:
        """Inputs ``[time, input]`` and positions ``[time, output]``, agent after agent.

        ``periods``: trial. ``condition``: start [agent, coordinate], and length [agent] of the way gone.
        """
        start_key, speed_key, direction_key = jax.random.split(key, 3)
        n_agents, n_axes = self.n_channels, self.n_dimensions
        start = self.side * (jax.random.uniform(start_key, (n_agents, n_axes)) - 0.5)
        speed = self.max_speed * jax.random.uniform(speed_key, (self.capacity, n_agents))
        free = self._directions(key=direction_key)
        # without walls, and then folded back into the arena: the same as being reflected at each of them in turn
        unfolded = start + jnp.cumsum(speed[..., None] * free, axis=0)
        position, _ = fold(unfolded, self.side)
        before = jnp.concatenate([start[None], unfolded[:-1]])
        direction = fold(before, self.side)[1] * free
        angles = [jnp.arctan2(direction[..., 1], direction[..., 0])]
        if n_axes == 3:
            angles.append(jnp.arcsin(jnp.clip(direction[..., 2], -1, 1)))
        first = (jnp.arange(self.capacity) == 0)[:, None, None]
        inputs = jnp.concatenate([jnp.stack([*angles, speed], axis=-1), jnp.where(first, start, 0.0)], axis=-1)
        exists = jnp.arange(self.capacity)[:, None] < setting.length
        return Trial(
            inputs.reshape(self.capacity, self.n_inputs),
            position.reshape(self.capacity, self.n_outputs),
            periods={"trial": jnp.stack([jnp.asarray(0), jnp.asarray(setting.length)])},
            condition={"start": start, "length": jnp.sum(jnp.where(exists, speed, 0.0), axis=0)},
        )

    def _directions(self, *, key: PRNGKey) -> Float[Array, "time agent coordinate"]:
        """Unit vectors, as they would be without walls."""
        first_key, turn_key = jax.random.split(key)
        shape = (self.capacity, self.n_channels)
        if self.n_dimensions == 2:
            first = 2 * jnp.pi * jax.random.uniform(first_key, shape[1:])
            turns = self.turn * jax.random.normal(turn_key, shape)
            angle = first + jnp.cumsum(turns.at[0].set(0.0), axis=0)
            return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        # as rotations of the agent's own frame, by yaw and pitch, one after the other: products of quaternions
        yaw, pitch = self.turn / 2**0.5 * jax.random.normal(turn_key, (2, *shape)) / 2
        still = jnp.zeros(shape)
        turns = _product(
            jnp.stack([jnp.cos(yaw), still, still, jnp.sin(yaw)], axis=-1),
            jnp.stack([jnp.cos(pitch), still, jnp.sin(pitch), still], axis=-1),
        )
        first = jax.random.normal(first_key, (shape[1], 4))  # normalised below: a rotation as likely as any other
        w, x, y, z = jnp.moveaxis(lax.associative_scan(_product, turns.at[0].set(first)), -1, 0)
        forward = jnp.stack([w**2 + x**2 - y**2 - z**2, 2 * (x * y + w * z), 2 * (x * z - w * y)], axis=-1)
        return forward / jnp.linalg.norm(forward, axis=-1, keepdims=True)

    def scores(self, outputs: Float[Array, "time output"], trial: Trial, setting: Setting) -> dict[str, Array]:
        """``variance_explained``: ``1 - mean_t (y_t - target_t)^2 / (side^2 / 12)``, at least 0, mean over agents.

        side² / 12 is the variance of a coordinate that may be anywhere in the arena.
        """
        weights = step_weights(self, trial, setting)
        error = jnp.sum(jnp.where(weights > 0, outputs - trial.targets, 0.0) ** 2, axis=0) / jnp.sum(weights)
        by_agent = jnp.mean(error.reshape(self.n_channels, self.n_dimensions), axis=1)
        return {"variance_explained": jnp.mean(jnp.clip(1 - by_agent / (self.side**2 / 12), 0, 1))}


def fold(place: Float[Array, "..."], side: float) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Where a coordinate is after all its reflections at ±side / 2, and whether (1, -1) it has been turned round.

    >>> place, way = fold(jnp.array([0.5, 1.25, 3.25, -1.5]), 2.0)
    >>> place.tolist(), way.tolist()
    ([0.5, 0.75, -0.75, -0.5], [1.0, -1.0, 1.0, -1.0])
    """
    phase = jnp.mod(place + side / 2, 2 * side)
    out = phase < side
    # mod may round up to the period itself: clipped, so that nobody is ever outside
    folded = jnp.clip(jnp.where(out, phase, 2 * side - phase) - side / 2, -side / 2, side / 2)
    return folded, jnp.where(out, 1.0, -1.0)


def _product(a: Float[Array, "... 4"], b: Float[Array, "... 4"]) -> Float[Array, "... 4"]:
    """Quaternions multiplied: first rotation a, then b in the frame that a has turned."""
    (w, x, y, z), (p, q, r, s) = jnp.moveaxis(a, -1, 0), jnp.moveaxis(b, -1, 0)
    return jnp.stack(
        [
            w * p - x * q - y * r - z * s,
            w * q + x * p + y * s - z * r,
            w * r - x * s + y * p + z * q,
            w * s + x * r - y * q + z * p,
        ],
        axis=-1,
    )
