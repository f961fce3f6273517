"""Nearly all the time of a doctest is compiling a program so small that it needs no optimisation."""

import jax
import pytest


@pytest.fixture(autouse=True)
def doctests_compile_quickly(request):
    """For doctests only; tests choose it themselves."""
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
