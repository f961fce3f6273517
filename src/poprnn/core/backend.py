"""The machine as poprnn sees it: devices, threads, memory, versions."""

import contextlib
import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import jax

from poprnn.core.errors import CapacityError

_LIBRARIES = ("poprnn", "jax", "jaxlib", "optax", "numpy")


def n_cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices() -> list[jax.Device]:
    """The devices members are spread over: every accelerator, or one CPU device per core.

    The first call asks JAX for one CPU device per core; if the backend is already up, what it has is used.
    """
    if getattr(jax.config, "jax_num_cpu_devices", 0) < 1:
        with contextlib.suppress(RuntimeError):  # the backend is already up
            jax.config.update("jax_num_cpu_devices", n_cores())
    return list(jax.local_devices())


def is_cpu() -> bool:
    """Whether members run on the CPU."""
    return devices()[0].platform == "cpu"


@contextlib.contextmanager
def precision(bits: int) -> Iterator[None]:
    """Float32 for training, float64 for analyses, whatever the user's global setting is, and only inside."""
    with jax.enable_x64(bits == 64):
        yield


def describe() -> dict[str, Any]:
    """What decides the bits of a result: versions, processor, devices and threads."""
    return {
        "versions": {name: version(name) for name in _LIBRARIES},
        "python": platform.python_version(),
        "processor": _processor(),
        "platform": devices()[0].platform,
        "n_devices": len(devices()),
        "n_threads": n_cores(),
    }


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def available_bytes() -> int | None:
    """Memory a run may use: the device's limit on an accelerator, the free main memory on the CPU; None if unknown."""
    if not is_cpu():
        stats = devices()[0].memory_stats() or {}
        return stats.get("bytes_limit")
    with contextlib.suppress(OSError, ValueError), open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return None


def require_memory(estimate: int, what: str) -> None:
    """Raise ``CapacityError`` with the estimate if it exceeds the memory there is."""
    limit = available_bytes()
    if limit is not None and estimate > 0.9 * limit:
        raise CapacityError(f"{what} needs about {_size(estimate)}, and {_size(limit)} are available")


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _size(n_bytes: float) -> str:
    for unit in ("B", "KB", "MB", "GB", "TB", "PB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} EB"
