"""What the RNNs of Flax's Linen and NNX have in common."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from seqdyn.types import Array
from seqdyn.watch.loss import scan


def _time_axis(rnn: Any, inputs: Array, time_major: bool) -> tuple[int, int]:
    """(the axis of time, how many batch axes there are)"""
    axes = inputs.ndim - rnn.cell.num_feature_axes - 1
    return 0 if time_major else axes, axes


def over_time(
    rnn: Any,
    flip: Callable[..., Array],
    step: Callable[[Any, Any, Array], tuple[Any, Any, Any]],
    carry: Any,
    state: Any,
    inputs: Array,
    seq_lengths: Array | None,
    name: str,
    options: dict[str, Any],
) -> tuple[Any, Any]:
    """(last state, what Flax's `rnn` returns under these `options`) by `watch.scan`, which reads the carry alone.

    `flip` is Flax's: it turns the steps of each sequence round. With `seq_lengths` the last carry is that of each
    example's last step. As in Flax, the cell runs on over the padding.
    """
    axis, batches = _time_axis(rnn, inputs, options["time_major"])
    turned = partial(flip, seq_lengths=seq_lengths, num_batch_dims=batches, time_major=options["time_major"])
    inputs = turned(inputs) if options["reverse"] else inputs
    ends = seq_lengths if options["return_carry"] else None

    def body(carry: Any, x: Array) -> tuple[Any, Any]:
        new, state, y = step(carry[0], carry[1], x)
        return (new, state), (None if ends is None else new, y)

    def picked(carry: Any) -> Any:
        return carry[0] if rnn.of is None else rnn.of(carry[0])

    read: dict[str, Any] = dict(name=name, of=picked, batch=rnn.batch, adjoint=rnn.adjoint)
    xs = jnp.moveaxis(inputs, axis, 0)
    (last, state), (carries, ys) = scan(body, (carry, state), xs, unroll=rnn.unroll, **read)
    outputs = jax.tree.map(lambda y: jnp.moveaxis(y, 0, axis), ys)
    if ends is not None:
        last = jax.tree.map(lambda leaf: leaf[ends - 1, jnp.arange(leaf.shape[1])], carries)
    if options["reverse"] and options["keep_order"]:
        outputs = jax.tree.map(turned, outputs)
    return state, (last, outputs) if options["return_carry"] else outputs


def one_step(rnn: Any, inputs: Array, time_major: bool) -> tuple[int, ...]:
    """The shape of one step's inputs."""
    axis, _ = _time_axis(rnn, inputs, time_major)
    return inputs.shape[:axis] + inputs.shape[axis + 1 :]


def chosen(rnn: Any, **given: bool | None) -> dict[str, Any]:
    """What a call was given, and for what it was not the `rnn`'s own."""
    return {name: getattr(rnn, name) if one is None else one for name, one in given.items()}
