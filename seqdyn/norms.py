"""Euclidean norms over the whole range of floating point: no square overflows or underflows on the way."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.backend import traced_once
from seqdyn.types import Array, Float, Tree


class Extended(NamedTuple):
    """high + low: more digits than a float has. The device keeps the two apart, the host adds them in float64."""

    high: Array
    low: Array


def power_of_two(e: Float[Array, "*s"], dtype: Any) -> Float[Array, "*s"]:
    """2^e of whole numbers e, exactly (XLA's exp2 is not); 0 or ∞ outside the range of floats.

    By the bits of two factors, 2^⌊e/2⌋ and the rest: XLA's power is a call for every entry.
    """
    info = jnp.finfo(dtype)
    kind = jnp.dtype(f"int{info.bits}")
    whole = jnp.clip(e, 2 * info.minexp, 2 * info.maxexp).astype(kind)
    half = whole >> 1

    def normal(k: Array) -> Array:
        biased = k + jnp.array(info.maxexp - 1, kind)
        return jax.lax.bitcast_convert_type(biased << jnp.array(info.nmant, kind), dtype)

    return normal(half) * normal(whole - half)


def unit(scale: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`scale` where dividing by it is safe, else 1 (zero, subnormal, Inf or NaN); at most 1 / tiny, beyond which its
    own reciprocal is subnormal."""
    tiny = jnp.finfo(scale.dtype).tiny
    safe = jnp.isfinite(scale) & (scale >= tiny)
    return jnp.where(safe, jnp.minimum(scale, 1 / tiny), jnp.ones_like(scale))


def norm(x: Float[Array, "*s n"]) -> Float[Array, "*s"]:
    """‖x‖₂ over the last axis: m √Σ (x/m)² with m = max |x|; 0 over none."""
    if not x.shape[-1]:
        return jnp.sum(jnp.abs(x), axis=-1)
    m = jax.lax.stop_gradient(unit(jnp.max(jnp.abs(x), axis=-1)))  # cancels, so its derivative does, too
    square = jnp.sum(jnp.square(x / m[..., None]), axis=-1)
    some = square > 0  # the inner `where` keeps the derivative at x = 0 from being 0 · ∞
    return jnp.where(some, m * jnp.sqrt(jnp.where(some, square, jnp.ones_like(square))), square)


def norm_near(x: Float[Array, "*s n"], near: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """‖x‖₂ over the last axis given a guess within a factor of 10¹⁵ of it: one pass, no maximum.

    Summed by halves, which inside a scan on a CPU costs nothing where XLA's own reduction, not vectorised over the
    last axis, costs as much as an rnn's gate.
    """
    m = unit(near)
    y = jnp.square(x * jnp.broadcast_to((1 / m)[..., None], x.shape))
    while y.shape[-1] and y.shape[-1] % 2 == 0:
        half = y.shape[-1] // 2
        y = y[..., :half] + y[..., half:]
    return m * jnp.sqrt(jnp.sum(y, axis=-1))


_of_leaf = traced_once(norm)
"""An update has the norms of gradients, of updates and of weights: leaves of the same shapes."""


def tree_norm(tree: Tree) -> Float[Array, ""]:
    """‖·‖₂ of all leaves of a pytree together."""
    norms = [_of_leaf(leaf.reshape(-1)) for leaf in jax.tree.leaves(tree)]
    return _of_leaf(jnp.stack(norms)) if norms else jnp.zeros(())


def rms_ranged(
    mantissa: Float[Array, "t n"], exponent: Float[Array, "t n"], count: Float[Array, " t"]
) -> Float[Array, " t"]:
    """`rms` of mantissa · 2^exponent, which overflows or underflows only where the result does."""
    if not mantissa.shape[1]:
        return rms(mantissa, count)
    some = mantissa != 0
    top = jnp.max(jnp.where(some, exponent, -jnp.inf), axis=1)
    top = jnp.where(jnp.isfinite(top), top, 0)
    near = mantissa * power_of_two(jnp.where(some, exponent - top[:, None], 0), mantissa.dtype)
    return jnp.ldexp(rms(near, count), top.astype(jnp.int32))


def mean_log2(mantissa: Float[Array, "t n"], exponent: Float[Array, "t n"]) -> tuple[Extended, Float[Array, " t"]]:
    """(mean of log₂(mantissa · 2^exponent) over the entries that are not 0, how many those are); NaN over none."""
    some = mantissa != 0
    count = jnp.sum(some, axis=1, dtype=exponent.dtype)
    logs = jnp.log2(jnp.where(some, mantissa, jnp.ones_like(mantissa))).astype(exponent.dtype)
    high = jnp.sum(jnp.where(some, exponent, 0), axis=1) / count
    return Extended(high, jnp.sum(logs, axis=1) / count), count


def rms(x: Float[Array, "t n"], count: Float[Array, " t"]) -> Float[Array, " t"]:
    """√(Σ_n x² / count): root mean square over examples of which `count` are valid (0 where none is)."""
    return norm(x) / jnp.sqrt(jnp.maximum(count, 1))
