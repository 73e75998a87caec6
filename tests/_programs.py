"""How tests compile: what JAX would compile besides, and laws that a compiler might break."""

from contextlib import contextmanager

import jax
import numpy as np

from seqdyn.backend import compiled


def program(function):
    """`compiled`, with NumPy's arrays as results: JAX would compile every slice of its own."""
    ran = compiled(function)
    return lambda *given, **named: jax.tree.map(np.asarray, ran(*given, **named))


@contextmanager
def optimised():
    """In a module that compiles quickly: programs compiled within, or within a test that has it as decorator, are
    compiled as a run compiles them."""
    quick = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", quick)
