"""A gradient is checked, not trusted: at a run's own shapes, ours against autodiff of a plain scan."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from seqdyn.backend import compiled
from seqdyn.data.tasks import TASKS
from seqdyn.learn import model, train
from seqdyn.learn.config import Hypers, Spec
from seqdyn.nets.bptt import unroll
from seqdyn.nets.stack import unroll_autodiff
from seqdyn.norms import tree_norm

TOLERANCE = 1e-3


def gradient_error(spec: Spec, hypers: Hypers, data: Any) -> float:
    """max over parameter groups of ‖g − g_autodiff‖ / ‖g_autodiff‖, on the first batch of one run.

    Taken without truncation and adjoint clipping, which autodiff does not know, and at recurrent gain 1: far above,
    the gradient itself is a chaotic function of rounding.
    """
    spec = dataclasses.replace(spec, truncate=False, clip="norm")
    hypers = dataclasses.replace(hypers, gain=jnp.float32(1.0))
    task = TASKS[spec.task](spec)

    def error(hypers: Hypers, data: Any) -> tuple[jax.Array, Any]:
        params = train.init(spec, hypers, data).params
        ticket = jax.tree.map(lambda leaf: leaf[0], task.tickets(data, train.keys(hypers).data, jnp.arange(1)))
        batch = task.batch(data, "train", ticket)._replace(noise=train.keys(hypers).noise)

        def loss(params: model.Model, watch: Any, by: Any) -> jax.Array:
            return model.loss(spec, hypers, params, batch, watch, by)

        # With its readings, as it trains: other outputs are another program to the compiler.
        ours, readings = jax.grad(partial(loss, by=unroll), argnums=(0, 1))(params, train.watches(spec, hypers))
        ours, theirs = model.groups(ours), model.groups(jax.grad(partial(loss, watch=None, by=unroll_autodiff))(params))
        apart = jax.tree.map(jnp.subtract, ours, theirs)
        tiny = jnp.finfo(jnp.float32).tiny
        worst = jnp.max(jnp.stack([tree_norm(apart[k]) / jnp.maximum(tree_norm(theirs[k]), tiny) for k in ours]))
        return worst, readings

    return float(compiled(error)(hypers, data)[0])
