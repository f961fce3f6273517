"""Monitors, one file each, imported on demand; ``dir(monitors)`` lists what there is."""

from poprnn.core import catalogue as _catalogue

__getattr__, __dir__ = _catalogue.lazy("monitors", {"Monitor": "poprnn.training.monitors.contract"})
