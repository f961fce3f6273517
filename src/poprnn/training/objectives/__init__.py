"""Objectives, one file each, imported on demand; ``dir(objectives)`` lists what there is."""

from poprnn.core import catalogue as _catalogue

__getattr__, __dir__ = _catalogue.lazy("objectives", {"Objective": "poprnn.training.objectives.contract"})
