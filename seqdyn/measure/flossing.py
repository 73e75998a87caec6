"""Gradient flossing: before training, the Lyapunov exponents of the recurrence are pulled towards 0.

    L = Σ_{i ≤ k} λ_i²        in (nats per step)², descended by Adam                                     Engelken 2023

with λ_i the k largest exponents of one recurrent layer driven by the task's own sequences. Where they are 0, k
directions of the state, and of the adjoint on its way back, neither grow nor shrink.

They are differentiated as `lyapunov` finds them, through a QR at every step, as the author's code does: within five
steps directions whose exponents lie 2 nats apart would part by four of the seven digits of float32. One fresh sequence
a step of flossing, over its whole length: with 80 units and k = 75 that is 0.7 ms of one core for each of its steps.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from seqdyn.data.tasks import task_of
from seqdyn.learn import model, precision, stopping, train
from seqdyn.learn.model import Model
from seqdyn.learn.own_cells import known, levels
from seqdyn.learn.spec import Spec
from seqdyn.learn.train import TrainState
from seqdyn.measure.lyapunov import lyapunov_spectrum
from seqdyn.nets.cells import Cell
from seqdyn.nets.levels import LSTM, RNN, Dense
from seqdyn.nets.wrappers import Wrapper
from seqdyn.types import Array, Bool, ConfigError, Float, Key

RATE = 1e-3
"""Adam's learning rate, whatever `Numbers.lr` is."""


def exponents_square(
    cell: Cell,
    params: Any,
    xs: Float[Array, "t b d"],
    key: Key[Array, ""],
    k: int,
    mask: Bool[Array, "t b"] | None = None,
) -> Float[Array, ""]:
    """Σ_{i ≤ k} λ_i², mean over the sequences, from rest; the first tenth of each one's steps aligns the tangents.

    Infinite, with a gradient of NaN, where a direction dies, as behind a ReLU at 0.
    """
    on = jnp.ones(xs.shape[:2], bool) if mask is None else mask
    burn = jnp.sum(on, axis=0, dtype=jnp.int32) // 10
    found = lyapunov_spectrum(cell, params, cell.initial_carry(xs.shape[1:2]), xs, key, k, burn, mask=mask)
    return jnp.mean(jnp.sum(jnp.square(found.exponents), axis=-1))


def floss(
    spec: Spec, params: Model, data: Any = None, *, k: int, steps: int, lr: float = RATE
) -> tuple[Model, Float[Array, " steps"]]:
    """(the model after `steps` steps of Adam on its one recurrent layer, L before each).

    One fresh sequence of the task a step; sequences and first tangents are drawn by keys of their own.
    """
    import optax

    (cell,), task = model.layers(spec), task_of(spec)
    k_data, k_frame = jax.random.split(train.keys(spec).floss)
    indices, rule = task.batch_indices(data, k_data, jnp.arange(steps)), optax.adam(lr)

    def body(kept: Any, drawn: Any) -> tuple[Any, Array]:
        (layer, moments), (index, n) = kept, drawn
        batch = task.batch(data, "train", index)
        xs = model.embedded(spec, model.acting_params(spec, params), batch.xs[:, :1])
        mask = None if batch.mask is None else batch.mask[:, :1]
        frame = jax.random.fold_in(k_frame, n)

        def square(p: Any) -> Array:
            acting = model.acting_params(spec, params._replace(layers=(p,))).layers[0]
            return exponents_square(cell, acting, xs, frame, k, mask)

        loss, grads = jax.value_and_grad(square)(layer)
        with jax.numpy_dtype_promotion("standard"):
            updates, moments = rule.update(grads, moments)
        return (jax.tree.map(jnp.add, layer, updates), moments), loss

    start = params.layers[0], rule.init(params.layers[0])
    (layer, _), losses = jax.lax.scan(body, start, (indices, jnp.arange(steps)))
    return params._replace(layers=(layer,)), losses


def init(spec: Spec, data: Any = None, given: Mapping[str, Array] | None = None) -> TrainState:
    """`train.init`, its layer flossed as `Spec.floss` asks: the state before the first update."""
    state = train.init(spec, data, given)
    if not spec.floss:
        return state
    exact = precision.exact(spec)
    params = floss(exact, state.params, data, k=spec.floss, steps=spec.floss_steps)[0]
    return state._replace(params=params, stopping=stopping.init(spec, params))


def check(spec: Spec) -> None:
    """Raises ConfigError for a network that cannot be flossed."""
    if not spec.floss:
        return
    (level, *others), two = levels(spec), spec.bidirectional
    if isinstance(level, Dense | Wrapper) or not known(level) or others or two or spec.normalise != "none":
        raise ConfigError(f"floss is {spec.floss} for {spec.label}; it takes one rnn, lstm or gru, not normalised.")
    size = spec.hidden[0] * (2 if isinstance(level, LSTM) else 1)
    if spec.floss > size:
        raise ConfigError(f"floss is {spec.floss}; it must be at most {size}, the size of the state.")
    if isinstance(level, RNN) and level.activation in ("relu", "hard_tanh"):
        raise ConfigError(f"floss is {spec.floss} for {level.activation}, whose exponents are −inf; take a smooth one.")
