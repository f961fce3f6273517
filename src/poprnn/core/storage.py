"""Trees of arrays, JSON and TOML on disk: safetensors, never pickle; written aside, then renamed."""

import contextlib
import json
import os
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
import tomli_w

from poprnn.core.errors import ConfigurationError, StorageError

Tree = Any


def names_and_leaves(tree: Tree) -> dict[str, np.ndarray]:
    """Every array of a tree under its path, ``parameters/trainable/W``.

    >>> list(names_and_leaves({"a": {"b": np.ones(2)}}))
    ['a/b']
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    named = [(jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf)) for path, leaf in flat]
    out: dict[str, np.ndarray] = {}
    for name, leaf in named:
        if name in out:
            raise StorageError(f"two arrays of a tree have the path '{name}'; names must not contain '/'")
        out[name] = leaf
    return out


def save_tree(path: Path, tree: Tree) -> None:
    """Write a tree of arrays as one safetensors file, atomically."""
    arrays = {name: np.ascontiguousarray(leaf).reshape(leaf.shape) for name, leaf in names_and_leaves(tree).items()}
    with atomic_file(path) as aside:
        safetensors.numpy.save_file(arrays, aside)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name; ``StorageError`` if it is missing or damaged."""
    try:
        return safetensors.numpy.load_file(path)
    except FileNotFoundError:
        raise StorageError(f"no such file: {path}") from None
    except (safetensors.SafetensorError, OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise StorageError(f"{path} is damaged or not a safetensors file: {error}") from None


def load_tree(path: Path, like: Tree) -> Tree:
    """A tree shaped as ``like``, filled from a file; ``StorageError`` naming the first array that does not fit."""
    arrays = load_arrays(path)
    flat, structure = jax.tree_util.tree_flatten_with_path(like)
    leaves = []
    for keys, leaf in flat:
        name = jax.tree_util.keystr(keys, simple=True, separator="/")
        if name not in arrays:
            raise StorageError(f"{path}: array '{name}' is missing")
        array = arrays.pop(name)
        if array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise StorageError(
                f"{path}: '{name}' is {array.dtype}{list(array.shape)}, expected {leaf.dtype}{list(leaf.shape)}"
            )
        leaves.append(array)
    return jax.tree_util.tree_unflatten(structure, leaves)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A path to write to; it takes its real name only when the block ends well."""
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        os.replace(aside, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it takes its real name only when the block ends well."""
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        for remains in path.parent.glob(f".{path.name}.*.part"):  # of a process that was killed while writing
            shutil.rmtree(remains, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        if path.exists():
            shutil.rmtree(path)
        os.rename(aside, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def save_json(path: Path, value: Any) -> None:
    """Write JSON, atomically; NumPy numbers and arrays become plain ones, non-finite numbers null."""
    with atomic_file(path) as aside:
        aside.write_text(to_json(value) + "\n")


def to_json(value: Any, indent: int | None = 2) -> str:
    """JSON text of plain data, NumPy numbers and arrays; NaN and infinities become null.

    >>> to_json({"a": np.float32(1), "b": float("nan")}, indent=None)
    '{"a": 1.0, "b": null}'
    """
    return json.dumps(_jsonable(value), indent=indent, allow_nan=False)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _jsonable(np.asarray(value).tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def load_json(path: Path) -> Any:
    """Read a JSON file; ``StorageError`` if it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise StorageError(f"no such file: {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"{path} is damaged: {error}") from None


def save_toml(path: Path, value: Mapping[str, Any]) -> None:
    """Write TOML, atomically."""
    with atomic_file(path) as aside:
        aside.write_text(tomli_w.dumps(value))


def load_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; a missing or broken one is a ``ConfigurationError`` with the line."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is one; absurd numbers and nesting are others
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from None
