"""Dynamics, one file each. ``cells.LeakyRNN`` imports on demand; ``dir(cells)`` lists what there is."""

from poprnn.core import catalogue as _catalogue

_CONTRACT = dict.fromkeys(("Cell", "Parameters", "Context"), "poprnn.cells.contract")
__getattr__, __dir__ = _catalogue.lazy("cells", _CONTRACT)
