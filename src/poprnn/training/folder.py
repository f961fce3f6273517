"""The run folder: what is written where, and reading it back."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from poprnn.cells.contract import Parameters
from poprnn.core import storage
from poprnn.core.arrays import Tree
from poprnn.core.errors import StorageError
from poprnn.training.run import History, Snapshot
from poprnn.training.settings import Setup

_KEPT_CHECKPOINTS = 2


class RunFolder:
    """``experiment.toml``, ``manifest.json``, weights, snapshots, history and checkpoints below one path."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def experiment(self) -> Path:
        """The resolved experiment."""
        return self.path / "experiment.toml"

    def create(self) -> None:
        """Make the folder; one that already holds something is an error."""
        try:
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise StorageError(f"{self.path} already exists and is not empty; choose another folder, or resume it")
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StorageError(f"cannot write to {self.path}: {error.strerror or error}") from None

    def save_setup(self, setup: Setup) -> None:
        """``experiment.toml``, every option spelled out; data that stands in no file of the user's beside it."""
        storage.save_toml(self.experiment, setup.to_dict())
        if setup.task.keeps_arrays:
            storage.save_tree(self.path / "data.safetensors", setup.task.arrays())

    def is_finished(self) -> bool:
        """Whether weights and manifest have been written."""
        return (self.path / "manifest.json").is_file() and (self.path / "weights.safetensors").is_file()

    def require(self) -> None:
        """An existing run, or an error."""
        if not self.experiment.is_file():
            raise StorageError(f"{self.path} is not a run folder: it has no experiment.toml")

    # --- checkpoints -------------------------------------------------------------------------------------------

    def save_checkpoint(self, state: Tree, history: History, meta: dict[str, Any]) -> None:
        """Write one, then drop all but the two newest."""
        name = f"{meta['n_steps']:010d}"
        with storage.atomic_folder(self.path / "checkpoint" / name) as aside:
            storage.save_tree(aside / "state.safetensors", state)
            storage.save_tree(aside / "history.safetensors", history.arrays())
            storage.save_json(aside / "meta.json", meta)
        for old in self._checkpoints()[_KEPT_CHECKPOINTS:]:
            shutil.rmtree(old, ignore_errors=True)
        for remains in (self.path / "checkpoint").glob(".*.part"):  # of a process that was killed while writing
            shutil.rmtree(remains, ignore_errors=True)

    def _checkpoints(self) -> list[Path]:
        folder = self.path / "checkpoint"
        found = [p for p in folder.iterdir() if p.is_dir() and p.name.isdigit()] if folder.is_dir() else []
        return sorted(found, reverse=True)

    def load_checkpoint(self, like: Tree) -> tuple[Tree, History, dict[str, Any], list[str]]:
        """The newest readable one, and a warning for each that was not."""
        warnings: list[str] = []
        for path in self._checkpoints():
            try:
                state = storage.load_tree(path / "state.safetensors", like)
                history = History(storage.load_arrays(path / "history.safetensors"))
                return state, history, _meta(path / "meta.json"), warnings
            except StorageError as error:
                warnings.append(f"checkpoint {path.name} cannot be used ({error}); falling back to the one before")
        raise StorageError("; ".join(warnings) or f"{self.path} has no checkpoint to resume from")

    # --- weights, snapshots, history ---------------------------------------------------------------------------

    def save_weights(self, name: str, parameters: Parameters) -> None:
        """``initial`` or ``weights``."""
        storage.save_tree(self.path / f"{name}.safetensors", parameters)

    def load_weights(self, name: str, like: Parameters) -> Parameters:
        """Stacked parameters; a file of another shape is an error that names the array."""
        return storage.load_tree(self.path / f"{name}.safetensors", like)

    def save_snapshot(self, name: str, snapshot: Snapshot) -> None:
        """One file a snapshot, rewritten when further members reach it."""
        tree = {"reached": snapshot.reached, "epoch": snapshot.epoch, "parameters": snapshot.parameters}
        storage.save_tree(self.path / "snapshots" / f"{name}.safetensors", tree)

    def load_snapshots(self, like: Parameters, epochs: np.ndarray | None = None) -> dict[str, Snapshot]:
        """All snapshots; with ``epochs`` given, rows from later than that are dropped (they will come again)."""
        out = {}
        for path in sorted((self.path / "snapshots").glob("*.safetensors")):
            n = np.shape(next(iter({**like.trainable, **like.fixed}.values())))[0]
            empty = {"reached": np.zeros(n, bool), "epoch": np.zeros(n, np.int32), "parameters": like}
            tree = storage.load_tree(path, empty)
            reached = tree["reached"] if epochs is None else tree["reached"] & (tree["epoch"] <= epochs)
            if reached.any():
                out[path.stem] = Snapshot(reached, np.where(reached, tree["epoch"], -1), tree["parameters"])
        return out

    def save_history(self, history: History) -> None:
        """``history.parquet``, for reading with anything; resuming uses the checkpoint's own copy."""
        import pyarrow.parquet

        with storage.atomic_file(self.path / "history.parquet") as aside:
            pyarrow.parquet.write_table(history.table(), aside)

    def load_history(self) -> History:
        """From the newest readable checkpoint."""
        for path in self._checkpoints():
            try:
                return History(storage.load_arrays(path / "history.safetensors"))
            except StorageError:
                continue
        return History()

    def save_manifest(self, manifest: dict[str, Any]) -> None:
        """``manifest.json``."""
        storage.save_json(self.path / "manifest.json", manifest)

    def load_manifest(self) -> dict[str, Any]:
        """``manifest.json``."""
        return storage.load_json(self.path / "manifest.json")


def _meta(path: Path) -> dict[str, Any]:
    meta = storage.load_json(path)
    if (
        not isinstance(meta, dict)
        or not isinstance(meta.get("seconds"), int | float)
        or not isinstance(meta.get("machine"), dict)
    ):
        raise StorageError(f"{path} lacks what it should hold")
    return meta
