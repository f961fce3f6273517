"""Adam with decoupled weight decay."""

from typing import Any

import optax

from poprnn.core.blueprint import Fraction, NonNegative, Positive
from poprnn.training.optimizers.contract import Optimizer


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019).

    >>> AdamW(learning_rate=0.01, clip_norm=1.0).build().init({}) is not None
    True
    """

    b1: Fraction = 0.9
    """Decay of the mean."""
    b2: Fraction = 0.999
    """Decay of the mean square."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    weight_decay: NonNegative = 1e-4
    """Decay of every trained array a step, times the learning rate."""

    def rule(self, learning_rate: Any) -> optax.GradientTransformation:
        """Optax's transformation."""
        return optax.adamw(learning_rate, self.b1, self.b2, self.eps, weight_decay=self.weight_decay)
