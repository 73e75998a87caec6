"""What is descended: the loss and, each times its weight, the terms of `Spec.penalties`; and its gradient.

What a term adds to the gradient is added after that of the loss has been made, so adjoints are those of the loss alone,
and it follows from what the term reads. Weights: its own gradient. States: one more pull through the pass that the loss
has made. Adjoints: a pass of its own, whose backward pass is differentiated again. Where it is detached, its gradient
by `params` alone.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.data.tasks import Batch
from seqdyn.learn import model, network, precision
from seqdyn.learn.model import Model
from seqdyn.learn.network import Forward
from seqdyn.learn.penalties import plus, terms
from seqdyn.learn.spec import Spec
from seqdyn.learn.terms import LayerPass, Pass, called, detached, valued
from seqdyn.nets.bptt import Tap, taps, unroll
from seqdyn.types import Array, Float, Tree


class Gradient(NamedTuple):
    """Of one batch, before clipping of the gradient."""

    forward: Forward
    """The loss, penalties excluded, and what comes with it."""
    grads: Tree
    """Of loss and penalties together."""
    readings: Any
    """Of the adjoint of the loss alone: a `Tap` a layer, or of each watched scan what was `Seen`, by its name."""
    penalties: dict[str, Float[Array, ""]]
    """Value of each of `penalties.terms`, before its weight, by its name."""


def watches(spec: Spec, adjoint: bool = False) -> tuple[Tap, ...]:
    """One watch a layer, for a whole batch; of the adjoint itself, too, if that is asked for."""
    wanted = dict(clipped=spec.clip == "adjoint", ranged=True, adjoint=adjoint)
    return tuple(taps(cell, spec.steps, (spec.batch,), **wanted) for cell in model.layers(spec))


def kind(spec: Spec) -> Any:
    """The module of its network: `model`, or `network` of one that is no stack, whose `init`, `forward` and
    `total_weight` take and return the same."""
    return model if spec.network is None else network


def gradient(spec: Spec, params: Tree, batch: Batch, carries: Any = None) -> Gradient:
    """∂(loss + Σ weight · term)/∂params with all that is read on the way."""
    if spec.network is not None:
        out, grads, seen = network.gradient(spec, params, batch)
        found = {}
        for term in terms(spec):
            found[called(term)], extra = of_params(term, Pass(spec, params, batch))
            grads = plus(grads, extra, term.weight)
        return Gradient(out, grads, seen, found)
    cells = model.layers(spec, training=batch.noise is not None)
    every = terms(spec)
    of_states = [term for term in every if term.reads == "states" and not detached(term)]

    def objective(params: Model, watch: tuple[Tap, ...]) -> tuple[tuple[Array, ...], Any]:
        out = model.forward(spec, params, batch, carries, watch)
        path = tuple(precision.widened(spec.dtype, layer._replace(cell=None)) for layer in out.path)
        ran = (LayerPass(layer._replace(cell=cell)) for layer, cell in zip(path, cells, strict=True))
        seen = Pass(spec, params, batch, tuple(ran))
        return (out.loss, *(valued(term, seen) for term in of_states)), out._replace(
            path=path
        )  # functions cannot leave a trace

    asked = any(term.reads == "adjoints" and detached(term) for term in every)
    values, pull, out = jax.vjp(objective, params, watches(spec, asked), has_aux=True)
    zeros = tuple(map(jnp.zeros_like, values))
    grads, readings = pull((jnp.ones_like(values[0]), *zeros[1:]))
    path = [layer._replace(cell=cell) for layer, cell in zip(out.path, cells, strict=True)]
    seen = Pass(spec, params, batch, tuple(map(LayerPass, path, precision.widened(spec.dtype, readings))))
    pulls = iter(range(1, len(values)))
    found: dict[str, Array] = {}
    for term in every:
        if detached(term):
            value, extra = of_params(term, seen)
        elif term.reads == "states":
            i = next(pulls)
            value, extra = values[i], pull((*zeros[:i], jnp.ones_like(zeros[i]), *zeros[i + 1 :]))[0]
        else:
            value, extra = jax.value_and_grad(of_pass(term, spec, batch, carries))(params)
        found[called(term)], grads = value, plus(grads, extra, term.weight)
    return Gradient(out, grads, readings, found)


def value(spec: Spec, params: Tree, batch: Batch, carries: Any = None) -> Float[Array, ""]:
    """loss + Σ weight · term, of which `gradient` is the gradient."""
    loss = kind(spec).forward(spec, params, batch, carries).loss
    for term in terms(spec):
        loss += jnp.asarray(term.weight, loss.dtype) * of_pass(term, spec, batch, carries)(params)
    return loss


def of_params(term: Any, seen: Pass) -> tuple[Float[Array, ""], Tree]:
    """(value, gradient) of a term by `params` alone."""
    if term.reads == "weights":
        return jax.value_and_grad(lambda params: valued(term, replace(seen, params=params)))(seen.params)
    # Where nothing arrives nothing is added: beside a sum with 0 XLA would round the rest elsewhere.
    return value_and_arrived(lambda params: valued(term, replace(seen, params=params)), seen.params)


def value_and_arrived(function: Callable[[Tree], Float[Array, ""]], params: Tree) -> tuple[Float[Array, ""], Tree]:
    """(value, gradient), the latter None where by the code nothing arrives, whatever the numbers are."""
    leaves, tree = jax.tree.flatten(params)
    arrived: set[int] = set()

    def tap(i: int) -> Callable[[Array], Array]:
        @jax.custom_vjp
        def same(leaf: Array) -> Array:
            return leaf

        def back(_: None, cotangent: Array) -> tuple[Array]:
            arrived.add(i)  # which JAX only does where there is something to bring back
            return (cotangent,)

        same.defvjp(lambda leaf: (leaf, None), back)
        return same

    def tapped(leaves: list[Array]) -> Float[Array, ""]:
        return function(jax.tree.unflatten(tree, [tap(i)(leaf) for i, leaf in enumerate(leaves)]))

    value, pull = jax.vjp(tapped, leaves)
    (found,) = pull(jnp.ones_like(value))
    return value, jax.tree.unflatten(tree, [leaf if i in arrived else None for i, leaf in enumerate(found)])


def of_pass(
    term: Any,
    spec: Spec,
    batch: Batch,
    carries: Any = None,
    by: Any = unroll,
    watch: tuple[Tap, ...] | None = None,
    faint: float = -math.inf,
) -> Callable[[Tree], Float[Array, ""]]:
    """params -> the value of a term, by a pass of its own in which `by` runs each layer and is read by `watch`."""

    def value(params: Tree) -> Float[Array, ""]:
        if term.reads == "weights":
            return valued(term, Pass(spec, params, batch))
        read = None
        if term.reads == "adjoints":
            read = watches(spec, adjoint=True) if watch is None else watch
        ran = layer_passes(spec, params, batch, read, carries, by, faint, detached(term))
        return valued(term, Pass(spec, params, batch, ran))

    return value


def layer_passes(
    spec: Spec,
    params: Model,
    batch: Batch,
    watch: tuple[Tap, ...] | None,
    carries: Any = None,
    by: Any = unroll,
    faint: float = -math.inf,
    constant: bool = False,
) -> tuple[LayerPass, ...]:
    """Every layer's way through a batch and, with a `watch`, back; `constant` lets no gradient through either."""

    def loss(watch: tuple[Tap, ...] | None) -> tuple[Array, Any]:
        out = model.forward(spec, params, batch, carries, watch, by)
        path = tuple(layer._replace(cell=None) for layer in out.path)
        return out.loss, precision.widened(spec.dtype, path)

    cells = model.layers(spec, training=batch.noise is not None)
    seen = ([None] * len(cells), loss(None)[1]) if watch is None else jax.grad(loss, has_aux=True)(watch)
    readings, path = jax.lax.stop_gradient(seen) if constant else seen
    given = zip(path, cells, precision.widened(spec.dtype, readings), strict=True)
    return tuple(LayerPass(layer._replace(cell=cell), reading, faint) for layer, cell, reading in given)
