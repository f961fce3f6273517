"""Modules of assemblies, one file each, imported on demand; ``dir(modules)`` lists what there is."""

from poprnn.core import catalogue as _catalogue

_CONTRACT = "poprnn.cells.modules.contract"
__getattr__, __dir__ = _catalogue.lazy("modules", {"Module": _CONTRACT, "Leaf": _CONTRACT})
