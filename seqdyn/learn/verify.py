"""A gradient is checked, not trusted: at a run's own shapes, ours against autodiff of a plain scan."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from seqdyn.backend import compiled
from seqdyn.data.tasks import draws_ids, task_of
from seqdyn.learn import model, network, objective, precision, terms, train
from seqdyn.learn.own_cells import own
from seqdyn.learn.spec import Spec
from seqdyn.nets.bptt import Tap, unroll
from seqdyn.nets.stack import unroll_autodiff
from seqdyn.norms import tree_norm
from seqdyn.types import ConfigError

TOLERANCE = 1e-3
NETWORKS = 32
"""So many are drawn afresh before a gradient of 0 is taken for the code's."""


def gradient_error(spec: Spec, data: Any, program: Any = None) -> float:
    """max over parameter groups of ‖g − g_autodiff‖ / ‖g_autodiff‖, on the first batch of one run.

    Taken without truncation and adjoint clipping, which autodiff does not know, and at recurrent gain 1: far above,
    the gradient itself is a chaotic function of rounding.

    NaN where autodiff's is not finite, as of a run that begins diverged: there is nothing to compare. ConfigError for
    an example that weighs less than nothing, and for ids that are not of the vocabulary.

    Two gradients that are exactly 0 agree, too, so where both are for some group, it is looked at whether anything can
    arrive there: see `unreached_groups`. ConfigError, naming the groups, where nothing can: what is trained there is
    nothing. And what `term_error` says of each of the users' terms, if that is more, or raises.

    Several runs of a spec share a `program`, which is `comparison()`.
    """
    spec = dataclasses.replace(precision.exact(spec), truncate=False, clip="norm").having(gain=1.0)
    worst, silent, least, ids, _ = (program or comparison())(spec.arrays(), data)
    if ids is not None and not 0 <= ids[0] <= ids[1] < spec.vocabulary:
        wrong = int(ids[0] if ids[0] < 0 else ids[1])
        raise ConfigError(
            f"xs of the task of {spec.label} has the id {wrong}; ids are from 0 to {spec.vocabulary - 1}."
        )
    if least is not None and not least >= 0:
        raise ConfigError(f"weight of the task of {spec.label} has {float(least):g}; it must be at least 0.")
    if silent and (found := unreached_groups(spec, data)):
        untrained = ""
        if spec.network:
            untrained = ": what is not to be trained must stand under 'statistics' in what init returns"
        elif own(spec) and any(name.startswith("layer") for name in found):
            untrained = ": weights that stay as drawn must be 'statistics' of their cell"
        raise ConfigError(
            f"the gradient of {', '.join(found)} of {spec.label} is exactly 0, as it is in {NETWORKS} networks drawn "
            f"afresh; the loss must depend on what is trained, so this network cannot be{untrained}."
        )
    found = [float(worst)]
    for term in terms.own(spec).values() if found[0] < TOLERANCE else ():
        found.append(term_error(term, spec, data))
    return max(found)


def comparison() -> Any:
    """What `gradient_error` compiles: (spec, data) -> how far apart, whether both are 0, the least weight, the least
    and the largest id that a user's task draws, readings."""

    def error(spec: Spec, data: Any) -> tuple[jax.Array, jax.Array, Any, Any, Any]:
        task = task_of(spec)
        params = train.init(spec, data).params
        batch = task.batch(data, "train", train.batch_index(spec, data, jnp.int32(0)))
        batch = batch._replace(noise=train.keys(spec).noise, step=jnp.int32(0))

        def loss(params: model.Model, watch: Any, by: Any) -> jax.Array:
            return model.loss(spec, params, batch, watch, by)

        # With its readings, as it trains: other outputs are another program to the compiler.
        if spec.network is None:
            ours, readings = jax.grad(partial(loss, by=unroll), argnums=(0, 1))(params, objective.watches(spec))
            theirs = jax.grad(partial(loss, watch=None, by=unroll_autodiff))(params)
        else:
            _, ours, readings = network.gradient(spec, params, batch)
            theirs = network.autodiff(spec, params, batch)
        ours, theirs = model.groups(ours), model.groups(theirs)
        apart = jax.tree.map(jnp.subtract, ours, theirs)
        tiny = float(jnp.finfo(jnp.float32).tiny)
        sizes = {k: tree_norm(theirs[k]) for k in theirs}
        worst = jnp.max(jnp.stack([tree_norm(apart[k]) / jnp.maximum(sizes[k], tiny) for k in ours]))
        worst = jnp.where(jnp.isnan(worst), jnp.inf, worst)  # of ours alone
        worst = jnp.where(jnp.all(jnp.isfinite(jnp.stack([*sizes.values()]))), worst, jnp.nan)
        least = None if batch.weight is None else jnp.min(batch.weight)
        ids = (jnp.min(batch.xs), jnp.max(batch.xs)) if draws_ids(spec) else None
        return worst, jnp.any(~_arrived(ours) & ~_arrived(theirs)), least, ids, readings

    return compiled(error)


FAINT = -100.0
"""log₂ of the adjoints that a float has no room for: terms are compared without them."""


def term_error(term: Any, spec: Spec, data: Any) -> float:
    """‖g − g_autodiff‖ / ‖g_autodiff‖ of a user's term, over all parameters, on the first batch of one run.

    Autodiff's adjoints are those of zeros added to the states of a plain scan. Where both gradients are 0, as that of
    max(x, 0) may be, they agree; of a detached term, and of one that reads weights alone, both are autodiff's.
    ConfigError for a term that by its code depends on nothing that is trained, and for a gradient that is not finite;
    RuntimeError for one that is wrong.
    """
    name = f"penalties has {type(term).__name__}"

    def of(grad: Any, data: Any, *by: Any) -> Any:
        params = train.init(spec, data).params
        batch = task_of(spec).batch(data, "train", train.batch_index(spec, data, jnp.int32(0)))
        batch = batch._replace(noise=train.keys(spec).noise)
        return grad(objective.of_pass(term, spec, batch, None, *by), params)

    if not jax.tree.leaves(jax.eval_shape(partial(of, objective.value_and_arrived), data)[1]):
        raise ConfigError(
            f"{name}, whose value depends by its code on nothing that is trained; norms of the records, comparisons "
            "and what went through jax.lax.stop_gradient are constants."
        )

    def gradient(data: Any, *by: Any) -> Any:
        return of(lambda value, params: jax.grad(value)(params), data, *by)

    def error(data: Any) -> tuple[jax.Array, jax.Array]:
        ours = gradient(data, unroll, None, FAINT)
        size = tree_norm(ours)
        if terms.detached(term):
            return jnp.zeros_like(size), size
        carries = jax.eval_shape(lambda: model.initial_carries(spec))
        zeros = jax.tree.map(lambda leaf: jnp.zeros((spec.steps, *leaf.shape), leaf.dtype), carries)
        theirs = gradient(data, unroll_autodiff, tuple(Tap(adjoint=of_layer) for of_layer in zeros), FAINT)
        apart = tree_norm(jax.tree.map(jnp.subtract, ours, theirs))
        return apart / jnp.maximum(tree_norm(theirs), jnp.finfo(size.dtype).tiny), size

    worst, size = compiled(error)(data)
    if not jnp.isfinite(size):
        raise ConfigError(
            f"{name}, whose gradient is not finite on the first batch; where jnp.where leaves a division or a log out, "
            "what is divided by must be left out, too."
        )
    if not worst < TOLERANCE:
        raise RuntimeError(
            f"{name}, whose gradient is {worst:.1e} away from autodiff's (at most {TOLERANCE:g} is right)."
        )
    return float(worst)


def unreached_groups(spec: Spec, data: Any) -> list[str]:
    """The groups of parameters that no gradient reaches, whatever the weights and the inputs.

    A gradient may be 0 for a reason that ends: a readout or a drive that begins at 0, units that are dead, inputs that
    are 0, a factor below 1e-38. So it is taken of `NETWORKS` networks of other seeds, all gains 1 and nothing dropped,
    on random inputs without padding (of a network that is no stack, near its own parameters on its own inputs); what
    is exactly 0 in all of them is 0 by the code. U is left out where there is
    one step, before which the state is at rest.
    """
    task, drawn = task_of(spec), dataclasses.replace(spec, pretrained=False)
    one = precision.trained(spec.dtype)(1.0)
    gains = dict(gain=one, input_gain=one, readout_gain=one, norm_gain=one, dropout=one - 1)

    def arrived(data: Any, seed: jax.Array) -> jax.Array:
        of = drawn.having(seed=seed, **gains)
        keys, params = train.keys(of), train.init(of).params
        batch = task.batch(data, "train", train.batch_index(of, data, jnp.int32(0)))
        if spec.network is not None:
            params = jax.tree.map(jnp.add, params, network.noise(params, keys.augment))
            batch = batch._replace(noise=keys.noise, step=jnp.int32(0))
            return _arrived(model.groups(network.autodiff(spec, params, batch)))
        if spec.vocabulary:
            xs = jax.random.randint(keys.augment, batch.xs.shape, 0, spec.vocabulary, jnp.int32)
        else:
            xs = jax.random.normal(keys.augment, batch.xs.shape, jnp.float32)
        batch = batch._replace(xs=xs, mask=None, noise=keys.noise)
        return _arrived(model.groups(jax.grad(lambda params: model.loss(of, params, batch))(params)))

    seeds = jnp.arange(NETWORKS, dtype=jnp.int32)
    some = compiled(lambda data: jnp.any(jax.lax.map(partial(arrived, data), seeds), axis=0))(data)
    names = model.groups(jax.eval_shape(lambda: train.init(drawn).params))
    silent = [name for name, one in zip(names, some, strict=True) if not one]
    return [name for name in silent if spec.steps > 1 or not name.endswith("/u")]


def _arrived(groups: dict[str, Any]) -> jax.Array:
    """Of each group, is any of its gradient not 0, or has it no numbers?"""
    leaves = [[leaf for leaf in jax.tree.leaves(group) if leaf.size] for group in groups.values()]
    return jnp.stack([jnp.any(jnp.stack([jnp.any(leaf != 0) for leaf in of])) if of else jnp.bool_(1) for of in leaves])
