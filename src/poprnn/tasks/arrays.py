"""Your own arrays as a task."""

import functools
import hashlib
import zipfile
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from poprnn.core import storage
from poprnn.core.arrays import Array, Float, PRNGKey, Scalar, Tree
from poprnn.core.blueprint import NonNegativeInt
from poprnn.core.errors import ConfigurationError
from poprnn.tasks.contract import Setting, Stage, Task, Trial, mean_squared_error, step_weights

_in_memory: dict[str, dict[str, np.ndarray]] = {}


class Arrays(Task):
    """Trials given as arrays: ``inputs [trial, time, input]``, ``targets``, optionally ``weights [trial, time]``.

    ``targets`` are ``[trial, time, output]`` (mean squared error) or integers ``[trial, time]`` (classes, cross-entropy
    over ``n_classes`` outputs). Each batch draws trials at random; the last ``held_out`` trials are used for evaluation
    only. From Python: ``Arrays.of(inputs, targets)``; from a file: ``path`` to a safetensors or npz file with these
    names.

    >>> task = Arrays.of(np.zeros((10, 5, 2)), np.zeros((10, 5, 1)), held_out=2)
    >>> task.n_inputs, task.n_outputs, task.capacity
    (2, 1, 5)
    """

    path: str | None = None
    """File with the arrays; ``None`` for arrays in memory."""
    digest: str = ""
    """SHA-256 of the arrays, filled in by :meth:`of`; a run knows by it whether it got the same data."""
    held_out: NonNegativeInt = 0
    """Number of trials, from the end, kept for evaluation; 0: evaluation uses the same trials as training."""
    loss_kind: Literal["mean_squared_error", "cross_entropy"] | None = None
    """``None``: cross-entropy for integer targets, mean squared error otherwise."""
    n_classes: NonNegativeInt = 0
    """Number of classes; 0: one more than the largest target."""

    def __post_init__(self) -> None:
        if self.path is None and not self.digest:
            raise ConfigurationError("Arrays: give a path, or make it with Arrays.of(inputs, targets)")
        if self.path is None and self.digest not in _in_memory:
            return  # a stored description; using it will say that its data are missing
        data = self._data()
        n, targets = data["inputs"].shape[0], data["targets"]
        if self.held_out >= n:
            raise ConfigurationError(f"Arrays: held_out = {self.held_out}: there are only {n} trials")
        if targets.ndim == 2 and self.loss_kind == "mean_squared_error":
            raise ConfigurationError(
                "Arrays: loss_kind = 'mean_squared_error' needs targets [trial, time, output], not classes"
            )
        if targets.ndim == 2 and 0 < self.n_classes <= targets.max():
            raise ConfigurationError(f"Arrays: n_classes = {self.n_classes}, but the largest class is {targets.max()}")
        digest = _digest(data)
        if self.digest and self.digest != digest:
            raise ConfigurationError("Arrays: these are not the arrays the task was made with (another digest)")
        object.__setattr__(self, "digest", digest)  # by it a resumed run knows its data

    @classmethod
    def of(cls, inputs: Any, targets: Any, weights: Any = None, **options: Any) -> "Arrays":
        """A task from arrays in memory; a run folder keeps its own copy of them."""
        given = {"inputs": np.asarray(inputs, np.float32), "targets": _target(targets)}
        if weights is not None:
            given["weights"] = np.asarray(weights, np.float32)
        _check(given, "Arrays")
        digest = cls.remember(given)
        return cls(digest=digest, **options)

    @staticmethod
    def remember(arrays: dict[str, np.ndarray]) -> str:
        """Keep arrays in memory under their digest."""
        digest = _digest(arrays)
        _in_memory[digest] = arrays
        return digest

    def _data(self) -> dict[str, np.ndarray]:
        if self.path is not None:
            return _read(self.path, _stamp(self.path))
        if self.digest not in _in_memory:
            raise ConfigurationError("Arrays: the arrays of this task are not in memory; make it again with Arrays.of")
        return _in_memory[self.digest]

    @property
    def is_classes(self) -> bool:
        """Whether targets are classes."""
        kind = self.loss_kind or ("cross_entropy" if self._data()["targets"].dtype.kind == "i" else "")
        return kind == "cross_entropy"

    @property
    def keeps_arrays(self) -> bool:  # type: ignore[override]
        """Arrays without a file are copied into the run folder."""
        return self.path is None

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Last axis of ``inputs``."""
        return self._data()["inputs"].shape[-1]

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        """Last axis of ``targets``, or the number of classes."""
        targets = self._data()["targets"]
        return targets.shape[-1] if targets.ndim == 3 else self.n_classes or int(targets.max()) + 1

    @property
    def capacity(self) -> int:  # type: ignore[override]
        """Steps of a trial."""
        return self._data()["inputs"].shape[1]

    def arrays(self) -> Tree:
        """All of them, passed to the compiled program as an argument."""
        return self._data()

    def draw(self, stage: Stage, *, key: PRNGKey) -> Setting:
        """Which trials may be drawn."""
        n = self._data()["inputs"].shape[0]
        bounds = (n - self.held_out, n) if stage.split == "evaluate" and self.held_out else (0, n - self.held_out)
        return Setting(self.capacity, extra={"bounds": bounds})

    def sample(self, setting: Setting, arrays: Tree, *, key: PRNGKey) -> Trial:
        """One of them."""
        i = jax.random.randint(key, (), *setting.extra["bounds"])
        weights = arrays["weights"][i] if "weights" in arrays else jnp.ones(self.capacity)
        return Trial(arrays["inputs"][i], arrays["targets"][i], weights, condition=i)

    def loss(self, outputs: Float[Array, "time output"], trial: Trial, setting: Setting) -> Scalar:
        """Mean squared error or cross-entropy, weighted."""
        if not self.is_classes:
            return mean_squared_error(self, outputs, trial, setting)
        weights = step_weights(self, trial, setting)[:, 0]
        log_p = jax.nn.log_softmax(outputs)
        classes = trial.targets if trial.targets.ndim == 1 else jnp.argmax(trial.targets, axis=-1)
        chosen = jnp.take_along_axis(log_p, classes[:, None], axis=1)[:, 0]
        return -jnp.sum(weights * chosen) / jnp.maximum(jnp.sum(weights), 1e-9)

    def scores(self, outputs: Float[Array, "time output"], trial: Trial, setting: Setting) -> dict[str, Array]:
        """Weighted accuracy for classes, explained variance otherwise; under the name ``score``."""
        if not self.is_classes:
            return super().scores(outputs, trial, setting)
        weights = step_weights(self, trial, setting)[:, 0]
        classes = trial.targets if trial.targets.ndim == 1 else jnp.argmax(trial.targets, axis=-1)
        right = (jnp.argmax(outputs, axis=-1) == classes).astype(jnp.float32)
        return {"score": jnp.sum(weights * right) / jnp.maximum(jnp.sum(weights), 1e-9)}


def _digest(arrays: dict[str, np.ndarray]) -> str:
    return hashlib.sha256(
        b"".join(
            name.encode() + str(a.shape).encode() + np.ascontiguousarray(a).tobytes()
            for name, a in sorted(arrays.items())
        )
    ).hexdigest()


def _target(targets: Any) -> np.ndarray:
    targets = np.asarray(targets)
    return targets.astype(np.int32 if targets.dtype.kind in "iub" and targets.ndim == 2 else np.float32)


def _check(arrays: dict[str, np.ndarray], where: str) -> None:
    if "inputs" not in arrays or "targets" not in arrays:
        raise ConfigurationError(f"{where}: needs 'inputs' and 'targets', has {sorted(arrays)}")
    inputs, targets = arrays["inputs"], arrays["targets"]
    if inputs.ndim != 3 or targets.ndim not in (2, 3) or targets.shape[:2] != inputs.shape[:2]:
        raise ConfigurationError(
            f"{where}: inputs {list(inputs.shape)} must be [trial, time, input] and targets "
            f"{list(targets.shape)} [trial, time, output] or, for classes, [trial, time]"
        )
    if "weights" in arrays and arrays["weights"].shape != inputs.shape[:2]:
        raise ConfigurationError(
            f"{where}: weights {list(arrays['weights'].shape)} must be [trial, time] = {list(inputs.shape[:2])}"
        )
    if targets.ndim == 2 and targets.dtype.kind != "i":
        raise ConfigurationError(
            f"{where}: targets [trial, time] are classes and must be integers; numbers need an output "
            "axis, [trial, time, 1]"
        )
    if targets.dtype.kind == "i" and targets.min() < 0:
        raise ConfigurationError(f"{where}: classes must not be negative")
    if not all(np.isfinite(a).all() for a in arrays.values()):
        raise ConfigurationError(f"{where}: the arrays hold values that are not finite")


def _stamp(path: str) -> tuple[int, int]:
    try:
        about = Path(path).stat()
    except OSError as error:
        raise ConfigurationError(f"Arrays: cannot read {path}: {str(error.strerror).lower()}") from None
    return about.st_mtime_ns, about.st_size


@functools.lru_cache(maxsize=8)
def _read(path: str, stamp: tuple[int, int]) -> dict[str, np.ndarray]:
    del stamp  # part of the cache's key: a file that was rewritten is read again
    if Path(path).suffix == ".npz":
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
                arrays = dict(data)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ConfigurationError(f"Arrays: cannot read {path}: {error}") from None
    else:
        try:
            arrays = storage.load_arrays(Path(path))
        except storage.StorageError as error:
            raise ConfigurationError(f"Arrays: {error}") from None
    arrays = {k: v for k, v in arrays.items() if k in ("inputs", "targets", "weights")}
    arrays = {k: _target(v) if k == "targets" else np.asarray(v, np.float32) for k, v in arrays.items()}
    _check(arrays, f"Arrays: {path}")
    return arrays
