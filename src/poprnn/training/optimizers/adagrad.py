"""Adagrad."""

from typing import Any

import optax

from poprnn.core.blueprint import NonNegative, Positive
from poprnn.training.optimizers.contract import Optimizer


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan & Singer, JMLR 2011).

    >>> Adagrad(learning_rate=0.01, clip_norm=1.0).build().init({}) is not None
    True
    """

    initial_accumulator: NonNegative = 0.1
    """Start of the sum of squares."""
    eps: Positive = 1e-7
    """Added to the denominator."""

    def rule(self, learning_rate: Any) -> optax.GradientTransformation:
        """Optax's transformation."""
        return optax.adagrad(learning_rate, self.initial_accumulator, self.eps)
