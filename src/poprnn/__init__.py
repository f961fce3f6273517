"""poprnn: train populations of recurrent networks, constrain them, take them apart, compare them."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Everything is imported when first asked for, so that `import poprnn` and the command's lists cost nothing.
_WHERE = {
    "fit": "training.fit",
    "fit_iter": "training.fit",
    "Update": "training.trainer",
    "Run": "training.run",
    "Setup": "training.settings",
    "Training": "training.settings",
    "Population": "training.settings",
    "rollout": "training.rollout",
    "rollout_iter": "training.rollout",
    "evaluate": "training.evaluate",
    "from_arrays": "training.bring_in",
    "load": "experiment",
    "resume": "experiment",
    "Experiment": "experiment",
    "measure": "analysis.contract",
    "group_tests": "analysis._statistics",
    "relative_accuracy": "analysis._statistics",
    "report": "report.page",
    "Task": "tasks.contract",
    "Trial": "tasks.contract",
    "Setting": "tasks.contract",
    "Stage": "tasks.contract",
    "Cell": "cells.contract",
    "Parameters": "cells.contract",
    "Module": "cells.modules.contract",
    "Context": "cells.contract",
    "Method": "training.methods.contract",
    "Curriculum": "training.curricula.contract",
    "Progress": "training.curricula.contract",
    "Objective": "training.objectives.contract",
    "Penalty": "training.penalties.contract",
    "Monitor": "training.monitors.contract",
    "Optimizer": "training.optimizers.contract",
    "register": "core.catalogue",
}
_PACKAGES = ("tasks", "cells", "analysis")
_FAMILIES = {
    family: f"training.{family}"
    for family in ("methods", "curricula", "objectives", "penalties", "monitors", "optimizers", "schedules")
} | {"distributions": "tasks.distributions"}
_ERRORS = ("PoprnnError", "ConfigurationError", "StorageError", "CapacityError", "NotApplicableError")

__all__ = [*_WHERE, *_PACKAGES, "modules", *_FAMILIES, *_ERRORS]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"poprnn.{_WHERE[name]}"), name)
    if name in _PACKAGES:
        return importlib.import_module(f"poprnn.{name}")
    if name == "modules":
        return importlib.import_module("poprnn.cells.modules")
    if name in _FAMILIES:
        return importlib.import_module(f"poprnn.{_FAMILIES[name]}")
    if name in _ERRORS:
        return getattr(importlib.import_module("poprnn.core.errors"), name)
    raise AttributeError(f"module 'poprnn' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
