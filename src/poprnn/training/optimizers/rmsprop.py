"""RMSProp."""

from typing import Any

import optax

from poprnn.core.blueprint import Fraction, Positive
from poprnn.training.optimizers.contract import Optimizer


class RMSProp(Optimizer):
    """RMSProp (Tieleman & Hinton, 2012).

    >>> RMSProp(learning_rate=0.01, clip_norm=1.0).build().init({}) is not None
    True
    """

    static = frozenset({"momentum"})

    decay: Fraction = 0.9
    """Decay of the mean square."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    momentum: Fraction | None = None
    """Share of the last step that is kept; ``None``: none."""

    def rule(self, learning_rate: Any) -> optax.GradientTransformation:
        """Optax's transformation."""
        return optax.rmsprop(learning_rate, self.decay, self.eps, momentum=self.momentum)
