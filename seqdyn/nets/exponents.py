"""An exponent for the adjoint, so that it neither under- nor overflows.

λ = mantissa · 2^e with e per example, moved in strides so that the mantissa's norm stays near 1: products with powers
of two are exact, so gradients keep their bits, and what is read has the range of the integers.
"""

from functools import reduce

import jax
import jax.numpy as jnp

from seqdyn.nets.cells import Carry
from seqdyn.norms import power_of_two
from seqdyn.types import Array, Tree

STRIDE = 40
"""Binary orders by which e moves, a step late. Two steps may change a norm by 2^±80 and stay floats."""


def column(x: Array, like: Array) -> Array:
    """x[*b] spread over the trailing axis of `like` [*b, h]."""
    return jnp.broadcast_to(x[..., None], like.shape)


def times(tree: Tree, factor: Array | None) -> Tree:
    """Every leaf [*b, …] of a tree times a factor [*b]."""
    return tree if factor is None else jax.tree.map(lambda leaf: leaf * column(factor, leaf), tree)


def with_local(near: Carry | None, size: Array | None) -> Carry | None:
    """Bounds of the norms of what goes on from a step: of what came there from the next step and of its local error."""
    return near if near is None or size is None else near._replace(h=jnp.maximum(near.h, size))


def shift(
    near: Carry | None, e: Array | None, size_before: Array | None
) -> tuple[Array | None, Array | None, Carry | None]:
    """(2^(e − e₋), e₋, a guess at the norms of what goes on) for the step before, where `size_before` is local.

    e moves by a stride where the norms have left 2^±stride. A local error that dwarfs what came from the next step
    brings it back to 0: what is 2^64 times smaller than what arrives is beyond its last bit.
    """
    if e is None or near is None:
        return None, e, near
    size = reduce(jnp.maximum, near)
    up, down = size > 2.0**STRIDE, (size < 2.0**-STRIDE) & (size > 0)
    # A mantissa of 0 may begin anew at any exponent; one that is not finite says nothing more.
    before = jnp.where(up, e + STRIDE, jnp.where(down, e - STRIDE, jnp.where(size == 0, 0, e)))
    if size_before is not None:
        before = jnp.where((before < -64) & (size_before > 0), 0, before)
    # What was 0 in units of 2^e, or has underflown there, is so in units of 1.
    factor = power_of_two(jnp.where(size > 0, e - before, jnp.minimum(e, 0)), size.dtype)
    return factor, before, jax.tree.map(lambda n: n * factor, near)


def in_units(e: Array | None, local: Array) -> Array:
    """A local error [*b, h], or its norm [*b], in units of 2^e."""
    if e is None:
        return local
    # Where −e > 64 the local error is 0, and 0 · 2^2000 would be NaN.
    factor = power_of_two(jnp.minimum(-e, 64), local.dtype)
    return local * (factor if local.ndim == e.ndim else column(factor, local))
