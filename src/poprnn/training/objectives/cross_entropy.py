"""Cross-entropy over classes."""

import jax
import jax.numpy as jnp

from poprnn.core.arrays import Array, Float, Scalar
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Setting, Task, Trial, in_steps, step_weights
from poprnn.training.objectives.contract import Objective


class CrossEntropy(Objective):
    """``-sum_t w_t log softmax(y_t)[class_t] / sum_t w_t``, for integer targets or one-hot ones.

    >>> CrossEntropy().name()
    'cross_entropy'
    """

    def loss(self, task: Task, outputs: Float[Array, "..."], trial: Trial, setting: Setting) -> Scalar:
        """Weighted mean over the steps that exist."""
        log_p = jax.nn.log_softmax(outputs)
        targets = in_steps(trial.targets, task.capacity)
        if jnp.issubdtype(targets.dtype, jnp.integer):
            if targets.ndim != outputs.ndim - 1:
                raise ConfigurationError(
                    f"objective 'cross_entropy' needs one class a step or one-hot targets; this "
                    f"task's targets are {list(targets.shape)}"
                )
            targets = jax.nn.one_hot(targets, outputs.shape[-1])
        loss = -jnp.sum(targets * log_p, axis=-1)
        weights = step_weights(task, trial, setting)
        weights = jnp.broadcast_to(weights.reshape(loss.shape) if weights.ndim > loss.ndim else weights, loss.shape)
        return jnp.sum(jnp.where(weights > 0, weights * loss, 0.0)) / jnp.maximum(jnp.sum(weights), 1e-9)
