"""Most of the time of a doctest, and of many tests, goes into compiling programs too small to need optimisation."""

import contextlib
import gc
from pathlib import Path

import jax
import pytest


@contextlib.contextmanager
def unoptimised():
    """Inside, programs are compiled without optimisation, and not put into the cache of programs.

    Unoptimised programs consist of very many kernels; reading them from a cache is no gain.
    """
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


@pytest.fixture(autouse=True)
def doctests_compile_quickly(request):
    """For doctests only; tests choose it themselves."""
    with unoptimised() if isinstance(request.node, pytest.DoctestItem) else contextlib.nullcontext():
        yield


@pytest.fixture(scope="module")
def compile_quickly():
    """For tests that would do little but compile."""
    with unoptimised():
        yield


MAPS = Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """Every kernel of a compiled program is a piece of mapped memory, of which Linux gives a process 65,530 at most.

    Beyond it XLA crashes; a session compiles thousands of programs, so they are let go between files of tests.
    """
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 15_000:
        jax.clear_caches()
        gc.collect()
