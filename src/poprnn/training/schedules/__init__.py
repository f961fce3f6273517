"""Schedules, one file each, imported on demand; ``dir(schedules)`` lists what there is."""

from poprnn.core import catalogue as _catalogue

__getattr__, __dir__ = _catalogue.lazy("schedules", {"Schedule": "poprnn.training.schedules.contract"})
