"""The base dynamics."""

from poprnn.training.methods.contract import Method


class Control(Method):
    """Training unrolls the cell's own dynamics, step by step (backpropagation through time).

    >>> Control().schedule(0)
    {}
    """
