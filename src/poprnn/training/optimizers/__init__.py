"""Optimizers, one file each, imported on demand; ``dir(optimizers)`` lists what there is."""

from poprnn.core import catalogue as _catalogue

__getattr__, __dir__ = _catalogue.lazy("optimizers", {"Optimizer": "poprnn.training.optimizers.contract"})
