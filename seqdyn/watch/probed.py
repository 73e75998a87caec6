"""A scan's own function under the probes of `seqdyn.measure`: step Jacobians, windows, Lyapunov exponents."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seqdyn.backend import side_by_side, split_at_widths
from seqdyn.nets.cells import Cell, Hidden
from seqdyn.nets.from_step import cell
from seqdyn.types import Array, ConfigError, Float


def probed(
    f: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Float[Array, "t *b d"], batch: int | None = 0
) -> tuple[Cell, tuple[()], Hidden, Float[Array, "t b d"]]:
    """(cell, params, carry, xs), with which every probe begins, of `jax.lax.scan(f, init, xs)`.

    `step_jacobians(*probed(f, init, xs))` are ∂carry_t/∂carry_{t−1} [t, b, n, n], the carry's leaves side by side, each
    flattened, in the order of `jax.tree.leaves`. The first axis of leaves and of x is the batch, of independent
    examples; `batch=None` is for f, init and xs of one example, which comes out as a batch of 1.

    Raises ConfigError for a carry of anything but floats of one dtype with such an axis, and for another `batch`.
    """
    if isinstance(batch, bool) or batch not in (0, None):
        raise ConfigError(f"batch is {batch!r}; it must be 0, or None for one example.")
    if not hasattr(xs, "shape"):
        raise ConfigError(f"xs is a {type(xs).__name__}; it must be one array [t, b, d], an input for each step.")
    if batch is None:
        return probed(jax.vmap(f), jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], init), jnp.asarray(xs)[:, None])
    init, xs = jax.tree.map(jnp.asarray, (init, xs))
    leaves, tree = jax.tree.flatten(init)
    dtypes = {leaf.dtype for leaf in leaves}
    if len(dtypes) != 1 or not jnp.issubdtype(leaves[0].dtype, jnp.floating) or {*map(_rows, leaves)} != {xs.shape[1]}:
        given = [(str(leaf.dtype), leaf.shape) for leaf in leaves]
        raise ConfigError(f"init has {given}; it must be floats of one dtype [b, …], with the b of xs {xs.shape}.")

    def flat(carry: Any) -> Array:
        return side_by_side(*[leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(carry)])

    def step(params: tuple[()], state: Array, x: Array) -> Array:
        parts = split_at_widths(state, *[leaf.size // leaf.shape[0] for leaf in leaves])
        parts = [part.reshape(-1, *leaf.shape[1:]) for part, leaf in zip(parts, leaves, strict=True)]
        return flat(f(jax.tree.unflatten(tree, parts), x)[0])

    state = flat(init)
    made = cell(lambda key: (), step, lambda batch: jnp.zeros((*batch, state.shape[-1]), state.dtype))
    return made, (), Hidden(state), xs


def _rows(leaf: Array) -> int:
    return leaf.shape[0] if leaf.ndim else -1
