"""Which tasks, cells, methods, … exist, found by file name without importing any of them.

A family is a folder; every Python file in it (but ``contract`` and those that start with an underscore) is one entry.
Other packages add entries through entry points (group ``poprnn.<family>``), a session through :func:`register`.
Names are matched in lower case without underscores. An entry that fails to import raises its own error, always.
"""

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from poprnn.core.errors import ConfigurationError, canonical, nearest

FAMILIES = {
    "tasks": "tasks",
    "distributions": "tasks/distributions",
    "cells": "cells",
    "modules": "cells/modules",
    "methods": "training/methods",
    "curricula": "training/curricula",
    "objectives": "training/objectives",
    "penalties": "training/penalties",
    "monitors": "training/monitors",
    "optimizers": "training/optimizers",
    "schedules": "training/schedules",
    "analyses": "analysis",
    "recipes": "recipes",
}
ALIASES = {"methods": {"cd": "coarsened", "sctt": "skip", "dasc": "aligned_skip"}}
"""Names that papers use, by family; keys in canonical form."""
_PACKAGE = Path(__file__).parent.parent
_registered: dict[str, dict[str, Any]] = {}
T = TypeVar("T")


def _family(family: str) -> str:
    if family not in FAMILIES:
        raise ConfigurationError(f"unknown family '{family}'{nearest(family, FAMILIES)}")
    return family


def folder(family: str) -> Path:
    """The folder that holds the built-in entries of a family."""
    return _PACKAGE / FAMILIES[_family(family)]


def _built_in(family: str) -> list[str]:
    return sorted(p.stem for p in folder(family).glob("*.py") if p.stem != "contract" and not p.stem.startswith("_"))


def _plugins(family: str) -> dict[str, Any]:
    return _installed(family, tuple(sys.path))


@functools.cache
def _installed(family: str, path: tuple[str, ...]) -> dict[str, Any]:
    """Entry points; to find them, Python reads a file of every package on the path, which takes milliseconds."""
    del path  # another path may hold other packages
    return {point.name: point for point in entry_points(group=f"poprnn.{family}")}


def names(family: str) -> list[str]:
    """Every name of a family, sorted; nothing is imported.

    >>> "n_parity" in names("tasks")
    True
    """
    return sorted({*_built_in(family), *_plugins(family), *_registered.get(family, {})})


def find(family: str, name: str) -> Any:
    """The class (or, for analyses and recipes, the function or module) behind a name; imported now.

    Raises ``ConfigurationError`` with the nearest name when there is none.

    >>> find("tasks", "NDMS").__name__
    'NDMS'
    """
    wanted = canonical(str(name))
    wanted = canonical(ALIASES.get(family, {}).get(wanted, wanted))
    known = names(family)
    match = [n for n in known if canonical(n) == wanted]
    if not match:
        raise ConfigurationError(f"no {family} entry named {str(name)!r}{nearest(str(name), known)}")
    name = match[0]
    if name in _registered.get(family, {}):
        return _registered[family][name]
    if name in (plugins := _plugins(family)):
        return plugins[name].load()
    module = importlib.import_module(module_name(family, name))
    if family == "recipes":
        return module
    entry = _entry_of(module, name)
    if not isinstance(entry, type):
        # importing a submodule has put the module there; `analysis.connectivity` should always be the function
        setattr(sys.modules[module.__name__.rpartition(".")[0]], name, entry)
    return entry


def module_name(family: str, name: str) -> str:
    """Dotted name of the built-in module that holds an entry."""
    return ".".join(["poprnn", *FAMILIES[_family(family)].split("/"), name])


def _entry_of(module: Any, name: str) -> Any:
    for attribute, value in vars(module).items():
        if attribute.startswith("_"):
            continue
        if canonical(attribute) == canonical(name) and getattr(value, "__module__", None) == module.__name__:
            return value
    raise ConfigurationError(f"{module.__name__} defines nothing named like its file, '{name}'")


def register(family: str, name: str | None = None) -> Callable[[T], T]:
    """Class or function decorator that adds an entry to a family for this session.

    >>> @register("penalties")
    ... class Nothing: ...
    >>> find("penalties", "nothing") is Nothing
    True
    """
    _family(family)

    def add(item: T) -> T:
        key = name or snake(item.__name__)  # type: ignore[attr-defined]
        for built_in in {*_built_in(family), *_plugins(family)}:
            if canonical(built_in) == canonical(key):
                raise ConfigurationError(f"{family} already has an entry named '{built_in}'")
        _registered.setdefault(family, {})[key] = item
        return item

    return add


def snake(name: str) -> str:
    """``MultiHead`` to ``multi_head``.

    >>> snake("MultiHead"), snake("NDMS")
    ('multi_head', 'ndms')
    """
    out = ""
    for i, letter in enumerate(name):
        if i and letter.isupper() and not name[i - 1].isupper():
            out += "_"
        out += letter.lower()
    return out


def name_of(family: str, cls: type) -> str:
    """The catalogue name of a class: its file's name for built-in entries, else the name it was registered under."""
    for key, value in _registered.get(family, {}).items():
        if value is cls:
            return key
    stem = cls.__module__.rsplit(".", 1)[-1]
    return stem if canonical(stem) == canonical(cls.__name__) else snake(cls.__name__)


def lazy(family: str, extra: dict[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` for a family's package, so that ``tasks.NParity`` imports on demand.

    ``extra`` maps further public names (the family's contract) to the modules that define them.
    """

    def getattr_(name: str) -> Any:
        if name in extra:
            return getattr(importlib.import_module(extra[name]), name)
        known = {canonical(n) for n in (*names(family), *ALIASES.get(family, {}))}
        if name.startswith("_") or canonical(name) not in known:
            raise AttributeError(f"poprnn {family} has no '{name}'{nearest(name, names(family))}")
        return find(family, name)

    def dir_() -> list[str]:
        return sorted([*extra, *names(family)])

    return getattr_, dir_


def load_plugin(path: str | Path) -> None:
    """Run a user's Python file that registers its own entries (``poprnn run … --plugin my_cell.py``)."""
    path = Path(path)
    if not path.is_file():
        raise ConfigurationError(f"plugin '{path}' is not a file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"plugin '{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
