"""What a prediction costs: the losses of the library's tasks, and of users' parts."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.building import built, called, known_at_run_time, takes
from seqdyn.parts import lenient
from seqdyn.types import Array, ConfigError, Float


class Loss(NamedTuple):
    """Functions of predictions [*s, k] and what they should be, ys [*s] or [*s, k]."""

    each: Callable[[Any, Any], Any]
    """(predictions, ys) -> the loss of each prediction, [*s]"""
    correct: Callable[[Any, Any], Any] | None = None
    """(predictions, ys) -> how right each is, [*s], 0 … 1: its mean is the accuracy. None: nobody can say"""
    mean: Callable[[Any], Any] | None = None
    """predictions [n, *s, k] of n samples -> the prediction [*s, k] that stands for them all. None: nobody can say"""
    probability: Callable[[Any], Any] | None = None
    """predictions [*s, k] -> the probabilities that they mean. None: they mean what they are"""


def _logs(logs: Float[Array, "n ..."]) -> Float[Array, "..."]:
    """log mean exp"""
    return jax.nn.logsumexp(logs, axis=0) - jnp.log(jnp.asarray(logs.shape[0], logs.dtype))


def _squares(predictions: Float[Array, "*s k"], ys: Array) -> Float[Array, "*s"]:
    return jnp.sum(jnp.square(predictions - ys.reshape(predictions.shape)), axis=-1)


def _bits(predictions: Float[Array, "*s k"], ys: Array) -> Float[Array, "*s"]:
    return jnp.sum(jax.nn.softplus((1 - 2 * ys.reshape(predictions.shape)) * predictions), axis=-1)


def _right_bits(predictions: Float[Array, "*s k"], ys: Array) -> Float[Array, "*s"]:
    right = (predictions > 0) == (ys.reshape(predictions.shape) > 0.5)
    return jnp.mean(right.astype(predictions.dtype), axis=-1)


def _mean_bits(predictions: Float[Array, "n *s k"]) -> Float[Array, "*s k"]:
    return _logs(jax.nn.log_sigmoid(predictions)) - _logs(jax.nn.log_sigmoid(-predictions))


def _class(predictions: Float[Array, "*s k"], ys: Array) -> Float[Array, "*s"]:
    chosen = jnp.take_along_axis(predictions, ys[..., None].astype(jnp.int32), axis=-1)[..., 0]
    return jax.nn.logsumexp(predictions, axis=-1) - chosen


mse = Loss(_squares, None, lambda predictions: jnp.mean(predictions, axis=0))
"""Σ_k (p_k − y_k)²; the mean of samples is their mean."""
binary = Loss(_bits, _right_bits, _mean_bits, jax.nn.sigmoid)
"""Σ_k log(1 + exp((1 − 2 y_k) p_k)), p a logit, y in {0, 1}, in nats; right is the share of the k bits on the right
side of 0; the mean of samples is the logit of their mean probability."""
categorical = Loss(
    _class,
    lambda predictions, ys: jnp.argmax(predictions, axis=-1) == ys,
    lambda predictions: _logs(jax.nn.log_softmax(predictions, axis=-1)),
    jax.nn.softmax,
)
"""log Σ_k exp p_k − p_y, y a class, in nats; right is the largest p; the mean of samples is log of their mean
probabilities."""


def made_loss(where: str, part: Any) -> Loss:
    """The loss of a user's part: `build() -> (predictions, ys) -> [*s]`, and its methods `correct(predictions, ys)` and
    `mean(predictions)`, if it has them: see `Loss`."""
    right = "a function of (predictions, ys)"
    each = built(where, part, Callable, right)
    name = f"{where} is {called(part)}"
    if not takes(each, None, None):
        raise ConfigError(f"{name}, which does not take these two; it must be {right}, or build one.")
    for method, given in (("correct", (None, None)), ("mean", (None,))):
        function = getattr(part, method, None)
        if function is not None and not (callable(function) and takes(function, *given)):
            raise ConfigError(f"{name}, whose {method} is {function!r:.60}; it must be a function of {len(given)}.")
    return Loss(each, getattr(part, "correct", None), getattr(part, "mean", None))


def applied(
    name: str, function: Callable[..., Any], shape: tuple[int, ...], *given: Any, descended: bool = False
) -> Array:
    """`function(*given)`, of predictions and perhaps ys, in the type of the former. Raises ConfigError, calling it
    `name`, where it has not this shape, or is no number that can be `descended`."""
    with lenient(), known_at_run_time(name):
        found = function(*given)
        if getattr(found, "shape", None) != shape:
            what = f"has the shape {found.shape}" if hasattr(found, "shape") else f"is a {type(found).__name__}"
            of = " and ".join(f"{of} {one.shape}" for of, one in zip(("predictions", "ys"), given, strict=False))
            raise ConfigError(f"{name} {what}, of {of}; it must have one number for each prediction, {shape}.")
        if jnp.iscomplexobj(found):
            raise ConfigError(f"{name} is complex; it must be real numbers.")
        found = jnp.asarray(found)
        if descended and not jnp.issubdtype(found.dtype, jnp.floating):
            raise ConfigError(f"{name} is {found.dtype}, whose gradient is 0; it must be floats.")
        return found.astype(given[0].dtype)
