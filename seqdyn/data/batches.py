"""What a batch and a task are. The data of update n is a function of (data key, n): there is no iterator to save.

A task names the batches of a stretch of updates by *batch indices*, computed before the scan, and turns one of them
into a batch inside it. A synthetic task's batch index is a key, a data set's a row of numbers of examples.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from seqdyn.data.losses import Loss
from seqdyn.types import Array, Bool, ConfigError, Float, Int, Key


class Batch(NamedTuple):
    """Sequences and what they should give."""

    xs: Float[Array, "t b d"] | Int[Array, "t b"]
    ys: Array
    """[b] or [b, k]; [t, b] or [t, b, k] of a task that asks at every step."""
    mask: Bool[Array, "t b"] | None = None
    """None: every step counts."""
    weight: Float[Array, "..."] | None = None
    """How much an example [b], or each step of it [t, b], counts in the means of loss and accuracy, Σ w x / Σ w, so
    that adjoints are those of w over its mean times an example's loss; 0 marks one that only fills the last held-out
    batch. None: all count alike. Where all of a batch are 0 there is no mean, and the run diverges."""
    fresh: Bool[Array, ""] | None = None
    """Of a stateful task: does the state begin at rest here, or where the batch before left it?"""
    noise: Key[Array, ""] | None = None
    """In training, what dropout and the gates of l0 draw from. None, as in evaluation: nothing is dropped, gates are
    the deterministic ones, and a batch's normalisation uses its running averages."""
    rows: Int[Array, " b"] | None = None
    """Which examples of the training split these are; None where there is no list of them."""
    step: Int[Array, ""] | None = None
    """In training of a network that is no stack, the updates done before this one. None, as in evaluation: its loss is
    that of a network that is no longer trained."""

    def mean(self, each: Any) -> Float[Array, ""]:
        """The mean of what is told of each example, [b], or of each of its steps, [t, b], over those that count: by
        `weight`, and of steps by `mask`. Raises ConfigError where one of these does not fit another shape."""
        each = jnp.asarray(each)
        if not jnp.issubdtype(each.dtype, jnp.inexact):  # of whole numbers and bools a weight of 1/2 would be 0 or 1
            each = each.astype(jnp.float32)
        counts = jnp.ones(each.shape, each.dtype)
        for known in (self.weight, self.mask):
            if known is not None and not (each.shape[-1:] == known.shape[-1:] and known.ndim - 1 <= each.ndim <= 2):
                size = known.shape[-1]
                raise ConfigError(
                    f"mean of a batch is given the shape {each.shape}; it must be one number for each example, "
                    f"({size},), or for each of its steps, (steps, {size})."
                )
        if self.weight is not None:
            counts = counts * jnp.broadcast_to(self.weight.astype(each.dtype), each.shape)
        if self.mask is not None and each.shape == self.mask.shape:
            counts = counts * self.mask.astype(each.dtype)
        return jnp.sum(counts * each) / jnp.sum(counts)


class Task(NamedTuple):
    """A problem to learn. Its functions are pure and run inside the compiled step."""

    inputs: int
    """Width of x, or 0 where x is an id."""
    outputs: int
    """Numbers that the readout predicts of a sequence, or of each step."""
    loss: Loss | None
    """What a prediction costs, and whether it is right. None: the network has a loss of its own."""
    chance: float
    """The loss of the best constant prediction."""
    learned: tuple[str, float]
    """Metric of a held-out split and the value that counts as learned: below it for a loss, above for an accuracy."""
    splits: Callable[[Any], tuple[str, ...]]
    """data -> the names of its held-out splits"""
    batch_indices: Callable[[Any, Key[Array, ""], Int[Array, " n"]], Any]
    """(data, key, update numbers) -> one index an update"""
    eval_batches: Callable[[Any, str], Any]
    """(data, split) -> the indices that make up a held-out split"""
    batch: Callable[[Any, str, Any], Batch]
    """(data, 'train' or a held-out split, index) -> batch"""
    diagnostic: Callable[[Any, Key[Array, ""], str, int], Batch]
    """(data, key, 'holdout' or 'train', n) -> the same n sequences at every call: what the probes look at"""
    stateful: bool = False
    """Does a batch begin with the state in which the one before ended?"""
