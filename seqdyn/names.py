"""The names by which a manifest knows classes and functions."""

import inspect
import os
import sys
from typing import Any


def name_of(of: Any) -> str:
    """'module:Name' by which a manifest knows a class or function.

    A script's own module is called as its file is. What the library exports is 'seqdyn:Name', wherever it stands.
    """
    module = of.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        module = (
            main.__spec__.name
            if main.__spec__
            else os.path.basename(getattr(main, "__file__", None) or "__main__").removesuffix(".py")
        )
    if module.partition(".")[0] == "seqdyn":
        module = "seqdyn"
    return f"{_public(module, of)}:{of.__qualname__}"


def _public(module: str, of: Any) -> str:
    """The module that offers a function to the world, where the one that holds it is private: jax.nn of relu."""
    if not any(piece.startswith("_") for piece in module.split(".")) or module == "__main__":
        return module
    root = module.partition(".")[0]
    offers = [
        m
        for m, found in list(sys.modules.items())
        if m.partition(".")[0] == root and "._" not in m and getattr(found, of.__qualname__, None) is of
    ]
    return min(offers, key=lambda m: (m.count("."), m), default=module)


def is_found(function: Any) -> bool:
    """Has its module a function of its name, and is that it?"""
    found: Any = sys.modules.get(function.__module__ or "")
    for piece in function.__qualname__.split("."):
        found = getattr(found, piece, None)
    return found is function or (inspect.ismethod(found) and found == function)  # a class's own method is made anew
