"""Laws that a compiler might break, in a module whose other laws compile quickly."""

from contextlib import contextmanager

import jax


@contextmanager
def optimised():
    """Programs compiled within, or within a test that has it as decorator, are compiled as a run compiles them."""
    quick = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", quick)
