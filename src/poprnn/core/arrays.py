"""Array types with named axes. The order is always ``member, trial, time, unit`` (or input, output, head)."""

from typing import Any

from jaxtyping import Array, Bool, Float, Int, Key, UInt8, UInt32

Tree = Any
"""A nested structure (dicts, tuples) of arrays."""

PRNGKey = Key[Array, ""]
Scalar = Float[Array, ""]
Count = Int[Array, ""] | int

__all__ = ["Array", "Bool", "Count", "Float", "Int", "Key", "PRNGKey", "Scalar", "Tree", "UInt8", "UInt32"]
