"""Penalties, one file each, imported on demand; ``dir(penalties)`` lists what there is."""

from poprnn.core import catalogue as _catalogue

__getattr__, __dir__ = _catalogue.lazy("penalties", {"Penalty": "poprnn.training.penalties.contract"})
