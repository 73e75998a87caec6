"""`unroll` of sequences so long that what its backward pass keeps of every step has no room.

The forward pass keeps the carry before each segment of s steps; the backward pass, as it comes to a segment, makes its
steps again from there (Chen, Xu, Zhang & Guestrin 2016, 'Training deep nets with sublinear memory cost'). Of T steps
T/s carries and the partials of s steps are kept: at s = √T, O(√T) of them, for one more forward pass. Inputs, outputs
(where a loss reads them) and readings stay [T, …]. λ_t is what `unroll` has; ∂L/∂params, a sum over all steps, is
summed segment by segment, in another order.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from seqdyn.nets.bptt import (
    Backprop,
    Tap,
    arrived,
    arriving,
    asked,
    check_given,
    first_norms,
    in_direction,
    pulled,
    scan,
)
from seqdyn.nets.cells import Carry, Cell
from seqdyn.types import Array, ConfigError, Float, Tree


def in_segments(length: int) -> Callable[..., tuple[Float[Array, "t *b h"], Carry]]:
    """An `unroll` in segments of so many steps, its arguments and results the same.

    Raises ConfigError where `length` does not divide the steps of a sequence, and for a cell whose input projection is
    of all steps together, as under batch normalisation over time.
    """

    def unroll(
        cell: Cell,
        params: Any,
        carry: Carry,
        xs: Float[Array, "t *b d"],
        cut: Backprop = Backprop(),
        watch: Tap = Tap(),
        reverse: bool = False,
    ) -> tuple[Float[Array, "t *b h"], Carry]:
        check_given(carry, xs, watch)
        if xs.shape[0] % length:
            raise ConfigError(f"segment is {length}; it must divide the {xs.shape[0]} steps of a sequence.")
        if not cell.memory or cell.update_batch_stats is not None:
            raise ConfigError(f"segment is {length} for a cell that sees all steps at once; leave it out.")
        return in_direction(partial(_unroll, length=length), reverse, cell, params, carry, xs, cut, watch)

    return unroll


def checkpointed(by: Any, length: int) -> Callable[..., tuple[Float[Array, "t *b h"], Carry]]:
    """`by`, as `stack.unroll_autodiff`, in segments that JAX makes again where it differentiates them: the oracle of
    `in_segments` where there is no room for one that keeps every step."""

    def unroll(
        cell: Cell,
        params: Any,
        carry: Carry,
        xs: Float[Array, "t *b d"],
        cut: Backprop = Backprop(),
        watch: Tap = Tap(),
    ) -> tuple[Float[Array, "t *b h"], Carry]:
        @jax.checkpoint
        def of_segment(params: Any, carry: Carry, xs: Array, mask: Array | None, zeros: Any) -> tuple[Array, Carry]:
            return by(cell, params, carry, xs, Backprop(mask), Tap(adjoint=zeros))

        def body(carry: Carry, segment: Any) -> tuple[Carry, Array]:
            hs, last = of_segment(params, carry, *segment)
            return last, hs

        last, hs = jax.lax.scan(body, carry, _split((xs, cut.mask, watch.adjoint), length))
        return _joined(hs), last

    return unroll


def _unroll(
    cell: Cell, params: Any, carry: Carry, xs: Array, cut: Backprop, watch: Tap, length: int
) -> tuple[Array, Carry]:
    return _in_segments(cell, length, params, carry, xs, cut, watch)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _in_segments(
    cell: Cell, length: int, params: Any, carry: Carry, xs: Array, cut: Backprop, watch: Tap
) -> tuple[Array, Carry]:
    return _walked(cell, length, params, carry, xs, cut)[0]


def _walked(cell: Cell, length: int, params: Any, first: Carry, xs: Array, cut: Backprop) -> tuple[Any, Carry]:
    """((hs, last carry), the carries before each segment)"""

    def body(carry: Carry, segment: Any) -> tuple[Carry, Any]:
        xs, mask = segment
        (hs, last), _ = scan(cell, params, carry, xs, Backprop(mask))
        return last, (hs, carry)

    last, (hs, starts) = jax.lax.scan(body, first, _split((xs, cut.mask), length))
    return (_joined(hs), last), starts


def _forward(cell: Cell, length: int, *primals: Any) -> Any:
    params, first, xs, cut, watch = jax.tree.map(lambda primal: primal.value, primals)
    outputs, starts = _walked(cell, length, params, first, xs, cut)
    return outputs, (params, starts, xs, cut, watch)


def _backward(cell: Cell, length: int, residuals: Any, cotangents: Any) -> Any:
    params, starts, xs, cut, watch = residuals
    local, final = arriving(cotangents)
    near, e, sizes = first_norms(watch, final, local)

    def body(carry: Any, segment: Any) -> tuple[Any, Any]:
        state, total = carry
        first, (xs, mask, keep, local, sizes) = segment
        within = Backprop(mask, keep, cut.clip)
        (hs, _), kept = scan(cell, params, first, xs, within)
        state, d_params, d_xs, readings = pulled(cell, params, first, xs, hs, kept, within, watch, state, local, sizes)
        return (state, jax.tree.map(jnp.add, total, d_params)), (d_xs, readings)

    zeros = jax.tree.map(jnp.zeros_like, params)
    segments = starts, _split((xs, cut.mask, cut.keep, local, sizes), length)
    (state, d_params), found = jax.lax.scan(body, ((final, near, e), zeros), segments, reverse=True)
    d_xs, readings = _joined(found)
    return d_params, arrived(state), d_xs, None, asked(watch, readings, cut.mask)


_in_segments.defvjp(_forward, _backward, symbolic_zeros=True)


def _split(tree: Tree, length: int) -> Tree:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, length, *leaf.shape[1:]), tree)


def _joined(tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)
