"""One file per question put to a population. ``analysis.connectivity`` imports on demand."""

from poprnn.core import catalogue as _catalogue

_CONTRACT = dict.fromkeys(("Result", "measure"), "poprnn.analysis.contract")
__getattr__, __dir__ = _catalogue.lazy("analyses", _CONTRACT)
