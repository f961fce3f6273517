"""Most of the time of a test goes into compiling programs too small to need optimisation, so they are not optimised.

Tests marked ``optimised`` get programs as users do: those about bits that must not change, and a few against oracles.
"""

import contextlib
import gc
import os
import sys
import time
from pathlib import Path

import jax
import pytest
from jax._src import compiler

QUICK = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
"""Options of XLA's that halve the time to compile small programs: fused operations skip a compiler of their own, and
what is left goes through the next one in one piece."""
MAPS, MOST_MAPS = Path("/proc/self/maps"), 15_000
looked, last = time.monotonic(), False

gc.collect()
gc.freeze()  # what was imported stays: the collector need not walk it again and again
gc.set_threshold(50_000, 20, 20)


@contextlib.contextmanager
def unoptimised():
    """Inside, programs are compiled without optimisation."""
    options = compiler.get_compile_options

    def quick(*arguments, **named):
        given = options(*arguments, **named)
        given.env_option_overrides = [*given.env_option_overrides, *QUICK.items()]
        return given

    jax.config.update("jax_disable_most_optimizations", True)
    compiler.get_compile_options = quick
    try:
        yield
    finally:
        compiler.get_compile_options = options
        jax.config.update("jax_disable_most_optimizations", False)


def pytest_configure(config):
    """Declare the marker."""
    config.addinivalue_line("markers", "optimised: programs are compiled as users get them")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A test with its fixtures, whatever their scope, and room for its programs."""
    global last
    optimised = item.get_closest_marker("optimised") is not None
    trainer = sys.modules.get("poprnn.training.trainer")
    if optimised != last and trainer:
        trainer.compiled.cache_clear()  # programs that ``fit`` would use again for the same setup
    last = optimised
    with contextlib.nullcontext() if optimised else unoptimised():
        result = yield
    make_room()
    return result


@pytest.fixture(scope="session")
def quick_environment():
    """For processes that a test starts: they compile without optimisation, too."""
    flags = [f"--{name}={str(value).lower()}" for name, value in QUICK.items()]
    return os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": " ".join(flags)}


def make_room():
    """Let compiled programs go before there are too many.

    Every kernel of a compiled program is a piece of mapped memory, of which Linux gives a process 65,530 at most.
    Beyond it XLA crashes; a session compiles thousands of programs. Counting takes some milliseconds, in a second
    come some hundred.
    """
    global looked
    if time.monotonic() - looked > 1 and MAPS.exists():
        looked = time.monotonic()
        if MAPS.read_bytes().count(b"\n") > MOST_MAPS:
            jax.clear_caches()
            gc.collect()
