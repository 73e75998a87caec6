"""A task from a function that draws its batches and one that says what a prediction costs."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.building import is_real
from seqdyn.data.batches import Task
from seqdyn.data.losses import Loss
from seqdyn.data.synthetic import sampled
from seqdyn.fields import Fields
from seqdyn.parts import lenient
from seqdyn.types import Array, ConfigError, Float, Key, Tree, whole


class Drawn(NamedTuple):
    """What a part for a task builds."""

    draw: Callable[[Key[Array, ""], int], tuple[Any, ...]]
    """(key, b) -> (xs, ys), xs [t, b, d], ys [b, …], or [t, b, …] of a task that asks at every step (`Spec.readout`);
    or (xs, ys, weight), weight [b] or, of such a task, [t, b], at least 0: see `Batch.weight`"""
    loss: Callable[[Float[Array, "*s k"], Array], Float[Array, "*s"]] | None
    """(predictions, ys) -> the loss of each prediction"""
    inputs: int
    """d"""
    outputs: int
    """k"""
    correct: Callable[[Float[Array, "*s k"], Array], Array] | None = None
    """(predictions, ys) -> which predictions are right, if that has a meaning: their share is `accuracy`"""


def task(draw: Any, *, loss: Any = None, inputs: Any = None, outputs: Any = None, correct: Any = None) -> Drawn:
    """A task that is sampled on the device: see `Drawn`. Batches are drawn anew at every update, from a key of it, and
    `Spec.holdout` sequences for the test split, the same for every run.

    For a network that is no stack (`learn.network`) `draw` is enough; its xs and ys may be any pytrees.
    """
    alone = (loss, inputs, outputs, correct) == (None,) * 4
    for name, function in {"draw": draw, "loss": draw if alone else loss, "correct": correct or draw}.items():
        if not callable(function):
            raise ConfigError(f"{name} of a task is {function!r:.80}; it must be a function.")
    if alone:
        return Drawn(draw, None, 0, 0)
    return Drawn(draw, loss, whole("inputs of a task", inputs), whole("outputs of a task", outputs), correct)


def whole_task(spec: Fields, drawn: Drawn) -> Task:
    """The task that a spec trains on. Nobody knows its chance level, nor when it counts as learned: NaN."""

    def sample(key: Key[Array, ""], lengths: Any) -> tuple[Tree, ...]:
        return batch_of(spec, drawn, key)

    return Task(
        inputs=drawn.inputs,
        outputs=drawn.outputs,
        loss=Loss(drawn.loss, drawn.correct) if drawn.loss else None,
        chance=math.nan,
        learned=("test_loss", math.nan),
        **sampled(spec, sample),
    )


def batch_of(spec: Fields, drawn: Drawn, key: Key[Array, ""]) -> tuple[Tree, ...]:
    """(xs, ys), or (xs, ys, weight), of one batch, in 32 bits."""
    with lenient():
        drew = _drew(type(spec.task).__name__, drawn, key, spec.batch)
        for leaf in jax.tree.leaves(drew):
            if not is_real(leaf):
                raise ConfigError(f"draw of a task returns {leaf!r:.60}; what it draws must be arrays of real numbers.")
        xs, ys, *weight = jax.tree.map(jnp.asarray, drew)
    if spec.network is None:
        xs = xs.astype(jnp.float32)
    return (*jax.tree.map(_in_32_bits, (xs, ys)), *(w.astype(jnp.float32) for w in weight))


def _drew(name: str, drawn: Drawn, key: Key[Array, ""], batch: int) -> tuple[Any, ...]:
    found = drawn.draw(key, batch)
    if not isinstance(found, tuple | list) or len(found) not in (2, 3):
        raise ConfigError(
            f"draw of {name} returns {type(found).__name__}; it must return (xs, ys) or (xs, ys, weight)."
        )
    return tuple(found)


def _in_32_bits(leaf: Array) -> Array:
    return leaf.astype(jnp.float32 if jnp.issubdtype(leaf.dtype, jnp.floating) else jnp.int32)


def shapes(spec: Fields, name: str, drawn: Drawn) -> int:
    """How many steps its sequences have. Raises ConfigError, calling the task `name`, where the shapes that it draws,
    or those of its loss, do not fit."""

    def must(what: str, found: Any, right: str) -> ConfigError:
        return ConfigError(f"{what} of {name} {found}; it must {right}.")

    with lenient():
        found = jax.eval_shape(lambda key: _drew(name, drawn, key, spec.batch), jax.random.key(0))
    if not all(hasattr(leaf, "shape") for leaf in found):
        raise must("draw", "returns trees", "return arrays, (xs, ys) or (xs, ys, weight)")
    xs, ys, *weight = found
    if xs.ndim != 3 or xs.shape[1:] != (spec.batch, drawn.inputs) or not xs.shape[0]:
        right = f"be [steps, batch, inputs], (…, {spec.batch}, {drawn.inputs})"
        raise must("xs", f"have the shape {xs.shape}", right)
    if not jnp.issubdtype(xs.dtype, jnp.floating) and not jnp.issubdtype(xs.dtype, jnp.integer):
        raise must("xs", f"have the type {xs.dtype}", "be numbers")
    each = xs.shape[:2] if spec.readout == "every" else xs.shape[1:2]
    if ys.shape[: len(each)] != each:
        raise must("ys", f"have the shape {ys.shape}", f"begin with {each} where readout is '{spec.readout}'")
    if weight and weight[0].shape not in (each, each[-1:]):
        right = " or ".join(map(str, dict.fromkeys((each, each[-1:]))))
        raise must("weight", f"has the shape {weight[0].shape}", f"be {right} where readout is '{spec.readout}'")
    predictions = jax.ShapeDtypeStruct((*each, drawn.outputs), jnp.float32)
    cast = jax.eval_shape(lambda: batch_of(spec, drawn, jax.random.key(0)))[1]
    for what, function in (("loss", drawn.loss), ("correct", drawn.correct)):
        if function is not None:
            with lenient():
                found = jax.eval_shape(function, predictions, cast)
            if getattr(found, "shape", None) != each:
                shape = getattr(found, "shape", type(found).__name__)
                raise must(what, f"has the shape {shape}", f"have one number for each prediction, {each}")
    return xs.shape[0]
