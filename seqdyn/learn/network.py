"""A network that is no stack: a part with `init` and `loss`, trained, recorded and resumed like any other.

    init(key) -> params                       any pytree of floats
    loss(params, batch, key) -> loss          the mean over the batch; or (loss, {name: number})

`batch` is what the task of the spec draws: xs and ys of a library's task, or whatever one's own `draw` returns.
`batch.mean(each)` is the mean over what counts: the last batch of a held-out split is filled up with examples that do
not. `key` is random in training and None where a batch is only evaluated, as `Batch.noise` is; so is `batch.step`, the
updates done before, for a loss that changes with them. What `loss` names beside the loss is `accuracy`, or one of the
part's own `variables`, a dict of `Variable`. What stands under `statistics` in params is not trained
(`nets.statistics`); new ones that the loss comes with in training, under that name, replace them after the update. Of
each `seqdyn.watch.scan` in it the norms of the adjoint are recorded, as those of a layer that has its name; the end of
every scan lies at the end of `time`, and `batch.mask` says which of its steps are padding, if it is over the batch's
steps and examples.
"""

import inspect
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.building import (
    check_part,
    check_repeats,
    is_real,
    kind_of,
    known_at_run_time,
    other_leaf,
    shapes_of,
    takes,
)
from seqdyn.data.batches import Batch
from seqdyn.data.tasks import DATA_SETS, task_of
from seqdyn.fields import Fields
from seqdyn.grids import as_shapes
from seqdyn.learn import precision
from seqdyn.learn.context import Variable, check_variables
from seqdyn.nets import stack, statistics
from seqdyn.nets.bptt import at_end
from seqdyn.norms import mean_log2
from seqdyn.parts import is_part, lenient
from seqdyn.types import Array, ConfigError, Float, Key, Metrics, Tree
from seqdyn.watch import Seen, value_and_grad


class Forward(NamedTuple):
    """A batch's loss and what comes with it."""

    loss: Float[Array, ""]
    """Mean over the batch, of a task that asks at every step over all steps of all sequences, weighted by
    `Batch.weight`."""
    accuracy: Float[Array, ""] | None
    """Share of the predictions that are right, where that has a meaning."""
    others: dict[str, Float[Array, ""]]
    """By the names of a network's own `variables`."""
    last: tuple[Any, ...] | None = None
    """The state the batch ended in; None of a network that is no stack, of which every batch begins at rest."""
    path: tuple[stack.Layer, ...] = ()
    """Every layer's way through the batch."""
    statistics: Any = None
    """What a network that is no stack keeps beside what is trained, as this batch leaves it."""


class Gradient(NamedTuple):
    """Of one batch, before clipping."""

    forward: Forward
    grads: Tree
    seen: dict[str, Seen]
    """Of each watched scan, by its name."""


def variables(spec: Fields) -> dict[str, Variable]:
    """What a network's loss comes with beside its accuracy, if there is a network."""
    return getattr(spec.network, "variables", {})


def init(spec: Fields, key: Key[Array, ""], vectors: Any = None) -> Tree:
    """The parameters that a network begins with, in the type in which they are trained."""
    name = f"network is {type(spec.network).__name__}"
    with lenient(), known_at_run_time(name):
        params = spec.network.init(key)
        odd = [leaf for leaf in jax.tree.leaves(params) if not isinstance(leaf, jax.Array) and not is_real(leaf)]
    if odd:
        raise ConfigError(f"{name}, whose init gives {kind_of(odd[0])}; parameters must be arrays of floats.")
    params = jax.tree.map(jnp.asarray, params)
    trained = params if statistics.of(params) is None else statistics.put(params, None)
    if not jax.tree.leaves(trained) or not all(leaf.size for leaf in jax.tree.leaves(params)):
        raise ConfigError(f"{name}, whose init gives parameters without numbers; there must be something to train.")
    if other := other_leaf(params, lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)):
        raise ConfigError(f"{name}, whose init gives {other}; parameters must be floats, as they are trained.")
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, precision.trained(spec.dtype)), params)


def _loss(spec: Fields, batch: Batch) -> Callable[[Tree], tuple[Array, Forward]]:
    """params -> (loss, `Forward`)"""
    name = f"network is {type(spec.network).__name__}"
    wanted = {"accuracy", *variables(spec)}

    def loss(params: Tree) -> tuple[Array, Forward]:
        before = statistics.of(params)
        # What it should give, and what each example weighs, are not rounded.
        params, xs = precision.computed(spec.dtype, (statistics.constant(params), batch.xs))
        with lenient(), known_at_run_time(name):
            found = spec.network.loss(params, batch._replace(xs=xs), batch.noise)
        value, others = found if isinstance(found, tuple | list) and len(found) == 2 else (found, {})
        after = before
        if isinstance(others, dict) and before is not None and statistics.NAME in others:
            after = _moved(name, spec, before, others[statistics.NAME])
            others = {key: other for key, other in others.items() if key != statistics.NAME}
        if not isinstance(others, dict) or not set(others) <= wanted or set(variables(spec)) - set(others):
            got = sorted(others) if isinstance(others, dict) else kind_of(others)
            raise ConfigError(f"{name}, whose loss comes with {got}; it must be a dict of {sorted(wanted)}.")
        numbers = {}
        for of, number in {"loss": value, **others}.items():
            if not is_real(number) or jnp.shape(number) != ():
                what = f"of the shape {jnp.shape(number)}" if is_real(number) else kind_of(number)
                raise ConfigError(f"{name}, whose {of} is {what}; it must be one number, of the batch.")
            number = jnp.asarray(number)
            if of == "loss" and not jnp.issubdtype(number.dtype, jnp.floating):
                raise ConfigError(f"{name}, whose loss is {number.dtype}, whose gradient is 0; it must be a float.")
            numbers[of] = number.astype(precision.trained(spec.dtype))
        value = numbers.pop("loss")
        return value, Forward(value, numbers.pop("accuracy", None), numbers, statistics=after)

    return loss


def _moved(name: str, spec: Fields, before: Tree, after: Any) -> Tree:
    """The statistics that a loss comes with; ConfigError where they are not such as init gave."""
    if spec.dtype == "bfloat16":
        raise ConfigError(f"{name}, whose loss moves statistics, and dtype is 'bfloat16', too few digits for a mean.")
    odd = [leaf for leaf in jax.tree.leaves(after) if not is_real(leaf)]
    if odd or shapes_of(after) != shapes_of(before):
        got = kind_of(odd[0]) if odd else shapes_of(after)
        raise ConfigError(
            f"{name}, whose loss comes with statistics {got}; they must be as init's, {shapes_of(before)}."
        )
    return jax.tree.map(lambda new, old: jax.lax.stop_gradient(jnp.asarray(new)).astype(old.dtype), after, before)


def forward(spec: Fields, params: Tree, batch: Batch, carries: Any = None) -> Forward:
    """The network held against what the batch should give."""
    return _loss(spec, batch)(params)[1]


def total_weight(spec: Fields, batch: Batch) -> Float[Array, ""]:
    """How many examples a batch's loss is the mean of."""
    real = precision.trained(spec.dtype)
    return real(spec.batch) if batch.weight is None else jnp.sum(batch.weight.astype(real))


def gradient(spec: Fields, params: Tree, batch: Batch) -> Gradient:
    """∂loss/∂params, with what is read of every watched scan."""
    name = f"network is {type(spec.network).__name__}"
    try:
        with known_at_run_time(name):
            (_, out), grads, seen = value_and_grad(_loss(spec, batch), has_aux=True)(params)
    except ConfigError as error:
        raise error if name in str(error) else ConfigError(f"{name}, in whose loss {error}") from error
    return Gradient(out, grads, seen)


def autodiff(spec: Fields, params: Tree, batch: Batch) -> Tree:
    """The gradient by JAX alone: no scan is watched."""
    return jax.grad(_loss(spec, batch), has_aux=True)(params)[0]


def noise(params: Tree, key: Key[Array, ""]) -> Tree:
    """N(0, 0.01) for each parameter, 0 for statistics: near a network that begins with zeros lie those that do not."""
    leaves, tree = jax.tree.flatten(params)
    drawn = zip(leaves, jax.random.split(key, len(leaves)), strict=True)
    made = jax.tree.unflatten(tree, [0.1 * jax.random.normal(k, leaf.shape, leaf.dtype) for leaf, k in drawn])
    kept = statistics.of(params)
    return made if kept is None else statistics.put(made, jax.tree.map(jnp.zeros_like, kept))


def _aligned(one: Seen, mask: Any) -> tuple[Seen, Array]:
    """(readings without padding, each example's last valid step at the end; how many examples reach each time)"""
    if mask is None or one.mantissa.shape != mask.shape:
        return one, jnp.full(one.mantissa.shape[:-1], float(one.mantissa.shape[-1]))
    later = jnp.flip(jnp.cumsum(jnp.flip(mask, axis=0), axis=0), axis=0)  # valid steps from t on
    sizes = jnp.where(mask, one.mantissa, 0), jnp.where(mask & (later > 1), one.mantissa_from_next, 0)
    mantissa, exponent, from_next = (at_end(leaf, mask) for leaf in (sizes[0], one.exponent, sizes[1]))
    return Seen(mantissa, exponent, from_next), jnp.sum(at_end(mask.astype(jnp.float32), mask), axis=1)


def read(spec: Fields, batch: Batch, seen: dict[str, Seen]) -> Metrics:
    """The norms of `train.read` [layer, time], a layer for each watched scan: RMS over examples of λ_t = ∂L/∂carry_t of
    each one's own loss, of what came from the next step, and the mean log₂; NaN before a scan that is shorter. Of a
    scan over the batch's steps and examples padding is left out, as in `train.read`."""

    def ended(values: Array) -> Array:
        return jnp.pad(values.reshape(-1), (spec.steps - values.size, 0), constant_values=jnp.nan)

    each, counts = zip(*(_aligned(seen[name], batch.mask) for name in sorted(seen)), strict=True)

    def over(function: Callable[[Seen, Array], Array]) -> Array:
        more = [
            (one.mantissa.shape[-1] / count).astype(one.mantissa.dtype) for one, count in zip(each, counts, strict=True)
        ]
        return jnp.stack([ended(function(*pair).astype(jnp.float32)) for pair in zip(each, more, strict=True)])

    def logs(one: Seen) -> Any:
        flat = one.mantissa.reshape(-1, one.mantissa.shape[-1])
        return jax.tree.map(ended, mean_log2(flat, one.exponent.reshape(flat.shape).astype(flat.dtype))[0])

    count = jnp.full((spec.steps,), float(spec.batch))
    if batch.mask is not None:
        count = ended(jnp.sum(at_end(batch.mask.astype(jnp.float32), batch.mask), axis=1))
    return {
        "adjoint_norm": over(lambda one, more: jnp.where(more < jnp.inf, one.rms * jnp.sqrt(more), 0)),
        "carried_norm": over(lambda one, more: jnp.where(more < jnp.inf, one.from_next.rms * jnp.sqrt(more), 0)),
        "adjoint_nonzero": over(lambda one, more: one.nonzero * more),
        "adjoint_log_norm": jax.tree.map(lambda *layers: jnp.stack(layers), *map(logs, each)),
        "adjoint_count": count,
    }


def scans(spec: Fields) -> dict[str, int]:
    """The watched scans of a network's loss by name, in the alphabet's order, and how many steps each has."""
    numbers, tree = jax.tree.flatten(as_shapes(spec))
    return dict(_scans(tree, tuple(numbers)))


@cache
def _scans(tree: Any, numbers: tuple[Any, ...]) -> dict[str, int]:
    """Of specs of one structure, whose loss need be traced but once."""

    def seen(numbers: Any, key: Any) -> dict[str, Seen]:
        of = jax.tree.unflatten(tree, numbers)
        check_repeats(f"init of {type(of.network).__name__}", partial(init, of), key)
        params, batch = init(of, key), _batch_like(of, key)._replace(step=jnp.int32(0))
        try:
            forward(of, params, batch._replace(noise=None, step=None))
        except ConfigError:
            raise
        except Exception as error:
            try:
                forward(of, params, batch)
            except Exception:  # it is wrong here, too
                raise error from None
            said = str(error).partition("\n")[0].rstrip(".")
            raise ConfigError(
                f"network is {type(of.network).__name__}, whose loss cannot do with a key of None or a batch.step of "
                f"None, as where a batch is only evaluated: {said}."
            ) from error
        return gradient(of, params, batch).seen

    found = jax.eval_shape(seen, numbers, jax.random.key(0))
    return {name: math.prod(one.mantissa.shape[:-1]) for name, one in sorted(found.items())}


def _batch_like(spec: Fields, key: Key[Array, ""]) -> Batch:
    """A training batch in shapes and types."""
    if spec.task not in DATA_SETS:
        batch = task_of(spec).batch(None, "train", key)._replace(noise=key)
        if batch.weight is not None and batch.weight.shape not in ((spec.batch,), (spec.steps, spec.batch)):
            raise ConfigError(
                f"weight of {type(spec.task).__name__} has the shape {batch.weight.shape}; it must be one number for "
                f"each sequence, ({spec.batch},), or step."
            )
        return batch
    t, b = spec.steps, spec.batch
    xs = jnp.zeros((t, b), jnp.int32) if spec.vocabulary else jnp.zeros((t, b, spec.features))
    ys = jnp.zeros((b,) if spec.targets == 1 else (b, spec.targets), jnp.int32 if spec.classes > 2 else jnp.float32)
    if spec.task == "next_step":
        ys = jnp.zeros((t, b, spec.features))
    return Batch(xs, ys, jnp.ones((t, b), bool) if spec.mask else None, jnp.ones(b), noise=key)


def check(where: str, network: Any) -> None:
    """Raises ConfigError for what is no network: `init`, `loss` and `variables` as said above."""
    name = f"{where} is {type(network).__name__}"
    check_part(where, network, "loss")
    for method, given, right in (("init", (None,), "a key"), ("loss", (None,) * 3, "params, a batch and a key")):
        function = getattr(network, method, None)
        if not callable(function):
            raise ConfigError(f"{name}, which has no {method}(); it must have one.")
        if not takes(function, *given):
            raise ConfigError(f"{name}, whose {method} takes {inspect.signature(function)}; it must take {right}.")
    if hasattr(network, "variables"):
        check_variables(where, network)
        for key, variable in network.variables.items():
            if key == statistics.NAME:
                raise ConfigError(f"{name}, whose variables have {key!r}, the name of what is kept; take another.")
            if variable.dims:
                raise ConfigError(f"{name}, whose '{key}' has the dims {variable.dims}; it is one number, so take ().")


def check_spec(spec: Fields) -> None:
    """Raises ConfigError for words of a spec that a network cannot heed, and for a scan with more steps than the
    sequences of a library's task have."""
    name = type(spec.network).__name__
    if spec.task == "stream":
        raise ConfigError(f"network is {name} for the task 'stream', which carries a state from batch to batch.")
    if spec.clip == "adjoint":
        raise ConfigError(f"clip is 'adjoint' and network is {name}, whose scans are its own; take another.")
    for scan, steps in () if is_part(spec.task) else scans(spec).items():
        if steps > spec.steps:
            raise ConfigError(
                f"network is {name}, whose scan {scan!r} has {steps} steps; it must be at most steps, {spec.steps}."
            )
