"""Nearly all the time of a doctest, and of many tests, is compiling a program so small that it needs no optimisation."""

import contextlib

import jax
import pytest


@contextlib.contextmanager
def unoptimised():
    """Inside, programs are compiled without optimisation, and not put into the cache of programs.

    Unoptimised programs consist of thousands of kernels, and loading as many from a cache may overflow XLA's stack.
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
