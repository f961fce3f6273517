"""Compiling the kernels with the system's compiler when the package is installed.

``python -m poprnn.core.native.build`` does it again, against the headers of the jaxlib that is installed. This file
needs nothing but the standard library, because it runs while there is no poprnn yet.
"""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARY = HERE / "_kernels.so"
COMMON = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=fast", "-w"]
SETS = {
    "plain": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"],
}
"""Instruction sets, each compiled by its own options; which one runs is decided by the processor it runs on."""


def compiler() -> str | None:
    """The system's C++ compiler: ``CXX``, or one of the usual names."""
    named = os.environ.get("CXX")
    return next((found for name in (named, "c++", "g++", "clang++") if name and (found := shutil.which(name))), None)


def headers() -> Path:
    """Where jaxlib keeps the headers of XLA's foreign function interface."""
    spec = importlib.util.find_spec("jaxlib")
    if spec is None or spec.origin is None:
        raise OSError("there is no jaxlib with its headers")
    return Path(spec.origin).parent / "include"


def build(target: Path = LIBRARY) -> Path:
    """Compile and link; written aside, then renamed. Raises ``OSError`` where it cannot be done."""
    include = headers()
    command = compiler()
    if command is None:
        raise OSError("there is no C++ compiler")
    if sysconfig.get_platform().startswith("win"):
        raise OSError("kernels are not built on Windows")
    sets = SETS if platform.machine() in ("x86_64", "AMD64") else {"plain": []}
    with tempfile.TemporaryDirectory() as folder:

        def compiled(source: str, name: str, options: list[str]) -> str:
            out = f"{folder}/{name}.o"
            _run([command, *COMMON, *options, "-c", str(HERE / source), "-o", out])
            return out

        jobs = [("handlers.cc", "handlers", ["-isystem", str(include)])]
        jobs += [("instructions.cc", name, [*options, f"-DINSTRUCTIONS={name}"]) for name, options in sets.items()]
        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(lambda job: compiled(*job), jobs))
        _run([command, "-shared", *objects, "-o", f"{folder}/{target.name}"])
        aside = target.with_suffix(".new")
        shutil.copyfile(f"{folder}/{target.name}", aside)
        aside.replace(target)
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}\n{done.stderr[:2000]}")


if __name__ == "__main__":
    sys.stdout.write(f"{build()}\n")
