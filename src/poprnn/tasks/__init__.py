"""Trial generators, one file each. ``tasks.NParity`` imports on demand; ``dir(tasks)`` lists what there is."""

from poprnn.core import catalogue as _catalogue

_CONTRACT = dict.fromkeys(("Task", "Trial", "Setting", "Stage"), "poprnn.tasks.contract")
__getattr__, __dir__ = _catalogue.lazy("tasks", _CONTRACT)
