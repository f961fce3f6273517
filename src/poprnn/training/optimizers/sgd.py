"""Stochastic gradient descent."""

from typing import Any

import optax

from poprnn.core.blueprint import Fraction
from poprnn.training.optimizers.contract import Optimizer


class Sgd(Optimizer):
    """Stochastic gradient descent with optional (Nesterov) momentum.

    Learning rate 0.05, Nesterov momentum 0.1 and clipping at norm 2.0 are those of Khajehabdollahi et al., ICLR 2024.

    >>> Sgd(learning_rate=0.01, clip_norm=1.0).build().init({}) is not None
    True
    """

    momentum: Fraction | None = None
    """Share of the last step that is kept; ``None``: none."""
    nesterov: bool = False
    """Whether to look ahead (Nesterov)."""

    def rule(self, learning_rate: Any) -> optax.GradientTransformation:
        """Optax's transformation."""
        return optax.sgd(learning_rate, self.momentum, self.nesterov)
