"""Methods, one file each, imported on demand; ``dir(methods)`` lists what there is."""

from poprnn.core import catalogue as _catalogue

__getattr__, __dir__ = _catalogue.lazy("methods", {"Method": "poprnn.training.methods.contract"})
