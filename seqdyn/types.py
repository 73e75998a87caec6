"""The shared vocabulary: axis letters, type aliases, and the one error that means 'your input is wrong'.

Axes, everywhere in the library:

    t   time step within a sequence, 0 … T − 1 (arrays are time-major: the scan runs over axis 0)
    *b  any leading batch axes, none included
    d   input width        h   hidden width       k   width of a pre-activation (gates × h)
    v   vocabulary size    r   run of a grid
"""

import contextlib
import operator
import os
import re
from collections.abc import Callable, Collection, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Array, Bool, Float, Int, Key

Device = Any
"""A `jax.Device`, which type checkers take for a variable."""
Tree = Any
"""A pytree of arrays."""
Params = Tree
"""Trained arrays: a NamedTuple per cell, of NamedTuples per model."""
Metrics = dict[str, Any]
"""What one training step reports of itself, by name of the record: arrays, or `norms.Extended`."""
Pad = Literal["before", "after"]
"""On which side of a sequence its padding lies."""
Initializer = Callable[[Key[Array, ""], Sequence[int], Any], Array]
"""`(key, shape, dtype) -> array`, the signature of `jax.nn.initializers`."""

__all__ = [
    "Array",
    "Bool",
    "ConfigError",
    "Device",
    "Float",
    "Initializer",
    "Int",
    "Key",
    "Metrics",
    "Pad",
    "Params",
    "Tree",
    "are_words",
    "as_path",
    "check_address",
    "one_of",
    "real",
    "whole",
]


class ConfigError(ValueError):
    """Wrong input, said in one sentence: the field, its value, and what would be right.

    Scripts print the sentence and leave with exit code 2; it is raised before anything is compiled or written. It is
    one line, though the value in it may print as many.
    """

    def __init__(self, said: str) -> None:
        super().__init__(re.sub(r"\s*\n\s*", " ", said))


def whole(field: str, value: Any, least: int = 1) -> int:
    """`value` as an int of Python: whole numbers of NumPy and of JAX are whole numbers, True and 2.0 are not.

    ConfigError for anything else, below `least`, or not below 2³¹.
    """
    try:  # an array of one number, also a DataArray, as a loop over it has, or a tensor
        plain = value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
        number = -1 if isinstance(plain, bool) else operator.index(plain)
    except (TypeError, RuntimeError):  # a tensor without data
        number = -1
    if not least <= number < 2**31:
        most = ", below 2³¹" if number >= 2**31 else ""
        shown = " ".join(repr(value).split())
        raise ConfigError(f"{field} is {shown:.80}; it must be a whole number of at least {least}{most}.")
    return number


def real(field: str, value: Any, right: Callable[[Any], bool], rule: str) -> None:
    """Raises ConfigError for what is no number, and for one that is not `right`, as the `rule` says in words."""
    if not isinstance(value, Real) or isinstance(value, bool) or not right(value):
        shown = " ".join(repr(value).split())
        raise ConfigError(f"{field} is {shown:.80}; it must be {rule}.")


def are_words(value: Any, words: Collection[str]) -> bool:
    """Is it a tuple of some of these words?"""
    return isinstance(value, tuple) and all(isinstance(word, str) and word in words for word in value)


def one_of(field: str, value: Any, words: Sequence[str]) -> None:
    """Raises ConfigError for a value that is none of these words."""
    if not isinstance(value, str) or value not in words:
        raise ConfigError(f"{field} is {value!r}; it must be one of {', '.join(words)}.")


def as_path(field: str, value: Any, right: str = "a path") -> Path:
    """`value` as a path, ~ as the home; nothing need lie there. ConfigError for what is no path, which must be `right`,
    for an address, as of a bucket, and for one that the file system refuses."""
    try:
        path = Path(value).expanduser()
        check_address(field, value)
        if not path.is_absolute():
            os.getcwd()  # which somebody may have removed
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.stat(path)
        return path
    except ConfigError:
        raise
    except (TypeError, ValueError, RuntimeError, OSError) as error:  # a 0 in it, no such home, a name too long, a loop
        why = "" if isinstance(error, TypeError) else f" ({getattr(error, 'strerror', error)})"
        raise ConfigError(f"{field} is {value!r:.80}; it must be {right}{why}.") from None


def check_address(field: str, path: str | Path) -> None:
    """Raises ConfigError for an address (s3://, gs://, file://): a folder of the name "s3:" would be made of it."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):  # of a Path one of the two is gone
        raise ConfigError(
            f"{field} is {str(path)!r:.80}, an address; it must be a path of this machine's files (mount the place, or "
            "copy the folder)."
        )
