"""Distributions of static inputs, one file each, imported on demand; ``dir(distributions)`` lists what there is."""

from poprnn.core import catalogue as _catalogue

__getattr__, __dir__ = _catalogue.lazy("distributions", {"Distribution": "poprnn.tasks.distributions.contract"})
