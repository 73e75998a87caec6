"""The shared vocabulary: axis letters, type aliases, and the one error that means 'your input is wrong'.

Axes, everywhere in the library:

    t   time step within a sequence, 0 … T − 1 (arrays are time-major: the scan runs over axis 0)
    *b  any leading batch axes, none included
    d   input width        h   hidden width       k   width of a pre-activation (gates × h)
    v   vocabulary size    r   run of a grid
"""

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Array, Bool, Float, Int, Key

Device = Any
"""A `jax.Device`, which type checkers take for a variable."""
Tree = Any
"""A pytree of arrays."""
Params = Tree
"""Trained arrays: a NamedTuple per cell, of NamedTuples per model."""
Metrics = dict[str, Any]
"""What one training step reports of itself, by name of the record: arrays, or `norms.Extended`."""
Initializer = Callable[[Key[Array, ""], Sequence[int], Any], Array]
"""`(key, shape, dtype) -> array`, the signature of `jax.nn.initializers`."""

__all__ = ["Array", "Bool", "ConfigError", "Device", "Float", "Initializer", "Int", "Key", "Metrics", "Params", "Tree"]


class ConfigError(ValueError):
    """Wrong input, said in one sentence: the field, its value, and what would be right.

    Scripts print the sentence and leave with exit code 2; it is raised before anything is compiled or written.
    """
