"""How gradients become updates: clip, then a rule from optax, at a scheduled learning rate.

All numbers come from `Hypers` inside the trace, so sweeping them recompiles nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from seqdyn.learn.config import Hypers, Spec
from seqdyn.norms import tree_norm
from seqdyn.types import Array, Float, Int, Tree


class Clipped(NamedTuple):
    """What clipping did to one gradient."""

    grads: Tree
    scale: Float[Array, ""]
    """‖after‖ / ‖before‖, 1 where it did not bite."""
    fraction: Float[Array, ""]
    """By norm: 1 if it bit, else 0. By value: the fraction of entries it changed."""


def clip_by_norm(grads: Tree, bound: Float[Array, ""], size: Float[Array, ""]) -> Clipped:
    """g · min(1, bound / ‖g‖), ‖g‖ = `size` over all parameters. Pascanu, Mikolov & Bengio 2013, algorithm 1."""
    over = size > bound
    scale = jnp.where(over, bound / jnp.where(over, size, 1), 1)
    return Clipped(jax.tree.map(lambda g: g * scale, grads), scale, over.astype(scale.dtype))


def clip_by_value(grads: Tree, bound: Float[Array, ""], size: Float[Array, ""]) -> Clipped:
    """Every entry into [−bound, bound]; turns the gradient as well as shortening it. Mikolov 2012, §3.2.2."""
    clipped = jax.tree.map(lambda g: jnp.clip(g, -bound, bound), grads)
    entries = sum(g.size for g in jax.tree.leaves(grads))
    changed = sum(jnp.sum(jnp.abs(g) > bound) for g in jax.tree.leaves(grads))
    scale = jnp.where(size > 0, tree_norm(clipped) / jnp.where(size > 0, size, 1), 1)
    return Clipped(clipped, scale, jnp.float32(changed) / entries)


def learning_rate(spec: Spec, hypers: Hypers, n: Int[Array, ""]) -> Float[Array, ""]:
    """The rate of update n: linear warm-up from lr / warmup, then with s = n − warmup (updates)

    constant      lr
    cosine        lr · ½ (1 + cos(π min(1, s / decay_steps)))         Loshchilov & Hutter 2017, eq. 5
    exponential   lr · decay_rate^(s / decay_steps)
    inverse       lr / (1 + s / decay_steps)                          1/t: Robbins & Monro 1951

    (Written out because optax's schedules compare their numbers in Python, and ours are traced.)
    """
    n = n.astype(jnp.float32)
    s = jnp.maximum(n - hypers.warmup, 0) / hypers.decay_steps
    decay = {
        "constant": jnp.ones(()),
        "cosine": 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(s, 1))),
        "exponential": hypers.decay_rate**s,
        "inverse": 1 / (1 + s),
    }[spec.schedule]
    return hypers.lr * decay * jnp.minimum(1, (n + 1) / jnp.maximum(hypers.warmup, 1))


def rule(spec: Spec, hypers: Hypers, decayed: Callable[[Tree], Tree] | None = None) -> Any:
    """The update rule, without its learning rate. Call it under `jax.numpy_dtype_promotion("standard")`.

    `decayed` says of each parameter whether 'adamw' decays it (Loshchilov & Hutter 2019, algorithm 2); None: all.
    """
    match spec.optimizer:
        case "sgd":
            return optax.identity()
        case "momentum":
            return optax.trace(decay=hypers.momentum)
        case "rmsprop":
            return optax.scale_by_rms(decay=hypers.momentum)
        case "adam":
            return optax.scale_by_adam()
        case "adamw":
            return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(hypers.weight_decay, decayed))
    raise ValueError(f"optimizer is {spec.optimizer!r}")
