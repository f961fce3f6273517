"""Lion."""

from typing import Any

import optax

from poprnn.core.blueprint import Fraction, NonNegative
from poprnn.training.optimizers.contract import Optimizer


class Lion(Optimizer):
    """Lion, the sign of an interpolated momentum (Chen et al., NeurIPS 2023).

    >>> Lion(learning_rate=0.01, clip_norm=1.0).build().init({}) is not None
    True
    """

    b1: Fraction = 0.9
    """Interpolation for the update."""
    b2: Fraction = 0.99
    """Decay of the momentum."""
    weight_decay: NonNegative = 1e-3
    """Decay of every trained array a step, times the learning rate."""

    def rule(self, learning_rate: Any) -> optax.GradientTransformation:
        """Optax's transformation."""
        return optax.lion(learning_rate, self.b1, self.b2, weight_decay=self.weight_decay)
