"""What the RNNs of Flax's Linen and NNX have in common."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seqdyn.types import Array
from seqdyn.watch.loss import scan


def over_time(
    step: Callable[[Any, Any, Array], tuple[Any, Any, Any]],
    carry: Any,
    state: Any,
    inputs: Array,
    time_axis: int,
    flip: Callable[..., Array] | None,
    keep_order: bool,
    seq_lengths: Array | None,
    of: Callable[[Any], Any] | None,
    **options: Any,
) -> tuple[Any, Any, Any]:
    """(last carry, last state, outputs) of Flax's RNN by `watch.scan`, which reads the carry, not the state.

    `flip` turns the inputs round; with `seq_lengths` the last carry is that of each example's last step. As in Flax,
    the cell runs on over the padding.
    """
    inputs = flip(inputs) if flip else inputs

    def body(carry: Any, x: Array) -> tuple[Any, Any]:
        new, state, y = step(carry[0], carry[1], x)
        return (new, state), (None if seq_lengths is None else new, y)

    def picked(carry: Any) -> Any:
        return carry[0] if of is None else of(carry[0])

    (last, state), (carries, ys) = scan(body, (carry, state), jnp.moveaxis(inputs, time_axis, 0), of=picked, **options)
    outputs = jax.tree.map(lambda y: jnp.moveaxis(y, 0, time_axis), ys)
    if seq_lengths is not None:
        last = jax.tree.map(lambda leaf: leaf[seq_lengths - 1, jnp.arange(leaf.shape[1])], carries)
    return last, state, jax.tree.map(flip, outputs) if flip and keep_order else outputs


def time_axis(inputs: Array, features: int, time_major: bool) -> tuple[int, int]:
    """(the axis of time, how many batch axes there are) where `features` axes belong to one input of a cell."""
    axes = inputs.ndim - features - 1
    return 0 if time_major else axes, axes
