"""Curricula, one file each, imported on demand; ``dir(curricula)`` lists what there is."""

from poprnn.core import catalogue as _catalogue

__getattr__, __dir__ = _catalogue.lazy("curricula", {"Curriculum": "poprnn.training.curricula.contract"})
