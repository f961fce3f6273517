"""Adam."""

from typing import Any

import optax

from poprnn.core.blueprint import Fraction, Positive
from poprnn.training.optimizers.contract import Optimizer


class Adam(Optimizer):
    """Adam (Kingma & Ba, ICLR 2015).

    >>> Adam(learning_rate=0.01, clip_norm=1.0).build().init({}) is not None
    True
    """

    b1: Fraction = 0.9
    """Decay of the mean."""
    b2: Fraction = 0.999
    """Decay of the mean square."""
    eps: Positive = 1e-8
    """Added to the denominator."""

    def rule(self, learning_rate: Any) -> optax.GradientTransformation:
        """Optax's transformation."""
        return optax.adam(learning_rate, self.b1, self.b2, self.eps)
