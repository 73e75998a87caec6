"""Cells whose pre-activations are normalised, N(x; γ) = γ ⊙ (x − mean) / √(variance + ε), so that how large the weights
are no longer decides how far the gradient reaches.

    layer         mean and variance over the units of an example, at each step       Ba, Kiros & Hinton 2016, eq. 3–4
    batch_drive   of W x alone, over all examples and all steps                      Laurent et al. 2016, eq. 7–9
    batch         of W x, U h and an LSTM's c over the examples, each step its own   Cooijmans et al. 2017, eq. 6–8

A batch's own mean and variance are used in training; beside it their running averages are kept, with which an example
is judged alone. They ride in the parameters: see `nets.statistics`. Under 'batch' and 'layer' the step is no
longer elementwise, so these cells have no `vjp`: JAX differentiates it step by step, at autodiff's speed.
In training under 'batch' an example's adjoint counts what it does to the others through the shared mean and variance.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.backend import optimization_barrier
from seqdyn.nets.activations import ACTIVATIONS
from seqdyn.nets.cells import Carry, Cell, GRUWeights, Hidden, Memory, Weights
from seqdyn.nets.stack import Layer, scan_forward
from seqdyn.types import Array, Float

EPSILON = 1e-5
"""ε, added to the variance."""
RENEWED = 1 - 0.9  # to the last bit, also in float64
"""The share of a running average that an update replaces by its batch's."""


class Moments(NamedTuple):
    """Running mean and variance of every unit: [k], or of every step's, [t, k]."""

    mean: Float[Array, "*t k"]
    variance: Float[Array, "*t k"]


class Statistics(NamedTuple):
    """What is normalised over a batch; None where it is not."""

    x: Moments
    h: Moments | None = None
    c: Moments | None = None


class Normalised(NamedTuple):
    """What a normalised cell learns, and the statistics that it keeps. None where the cell has no such part."""

    w: Float[Array, "d k"]
    u: Float[Array, "h k"]
    b: Float[Array, " k"]
    gain_x: Float[Array, " k"]
    """γ of W x; of an rnn under 'layer', of W x + U h."""
    gain_h: Any
    """γ of U h, [k]."""
    gain_c: Any
    """γ and β of c, [h]."""
    shift_c: Any
    bn: Any
    """The b_hn of a GRU under 'batch_drive', [h]."""
    statistics: Any
    """`Statistics`, which no gradient reaches; None under 'layer'."""


class Driven(NamedTuple):
    """W x of a step as 'batch' judges it alone, with what its other two normalisations need."""

    z: Array
    h: Moments
    c: Moments | None


def normalised(
    cell: Cell,
    kind: str,
    steps: int,
    gain: Any = 1.0,
    activation: str = "tanh",
    training: bool = False,
    renewed: Any = RENEWED,
) -> Cell:
    """`cell`, an rnn, LSTM or GRU (with either reset) of `cells`, with its pre-activations normalised by `kind`.

    `gain` is the initial γ; `activation` is the rnn's. `training` takes mean and variance from the batch, else from the
    running averages, of `steps` steps under 'batch', of which an update replaces `renewed`. Padding would be counted
    by a batch's, so sequences must be whole.

        rnn    h = φ(N(W x) + N(U h₋) + b);  under 'layer' φ(N(W x + U h₋) + b)
        LSTM   z = N(W x) + N(U h₋) + b,  c = f ⊙ c₋ + i ⊙ g,  h = o ⊙ tanh(N(c) + β)
        GRU    r and z from N(W x) + N(U h₋) + b,  n = tanh(N(W_n x) + b_n + r ⊙ N(U_n h₋))
               or, reset before the product, n = tanh(N(W_n x) + b_n + N(U_n (r ⊙ h₋)))
    """
    name = {1: "rnn", 3: "gru" if cell.vjp else "gru_reset_before", 4: "lstm"}[len(cell.gates)]
    if kind == "batch_drive":
        return _batch_drive(cell, name, gain, training, renewed)
    return _recurrent(cell, name, kind, steps, gain, activation, training, renewed)


def _begin(cell: Cell, name: str, kind: str, steps: int, gain: Any, key: Any) -> Normalised:
    base = cell.init(key)
    k, h = base.b.shape[0], base.u.shape[0]
    gamma = jnp.asarray(gain, base.w.dtype)

    def full(n: int) -> Array:
        return jnp.full((n,), gamma, base.w.dtype)

    def moments(*shape: int) -> Moments:
        return Moments(jnp.zeros(shape, base.w.dtype), jnp.ones(shape, base.w.dtype))

    inside, lstm = kind != "batch_drive", name == "lstm"
    statistics = None
    if kind == "batch":
        statistics = Statistics(moments(steps, k), moments(steps, k), moments(steps, h) if lstm else None)
    elif kind == "batch_drive":
        statistics = Statistics(moments(k))
    return Normalised(
        w=base.w,
        u=base.u,
        b=base.b,
        gain_x=full(k),
        gain_h=full(k) if inside and not (kind == "layer" and name == "rnn") else None,
        gain_c=full(h) if inside and lstm else None,
        shift_c=jnp.zeros((h,), base.w.dtype) if inside and lstm else None,
        bn=base.bn if not inside and name == "gru" else None,
        statistics=statistics,
    )


def _spread(x: Array, like: Array) -> Array:
    """[k] or [t, k] over the other axes of [t, *b, k]."""
    if x.ndim == 2:
        x = x.reshape(x.shape[0], *(1,) * (like.ndim - 2), x.shape[1])
    return jnp.broadcast_to(x if x.ndim > 1 else x.reshape((1,) * (like.ndim - 1) + x.shape), like.shape)


def _by(x: Array, mean: Array, variance: Array, gain: Array) -> Array:
    return _spread(gain, x) * (x - mean) * jax.lax.rsqrt(variance + EPSILON)


def _over(x: Array, gain: Array, axis: int | tuple[int, ...]) -> Array:
    mean, variance = (jnp.broadcast_to(m, x.shape) for m in _mean_variance(x, axis))
    return _by(x, mean, variance, gain)


def _mean_variance(x: Array, axis: int | tuple[int, ...]) -> tuple[Array, Array]:
    mean = jnp.mean(x, axis=axis, keepdims=True)
    return mean, jnp.mean(jnp.square(x - jnp.broadcast_to(mean, x.shape)), axis=axis, keepdims=True)


def _given(x: Array, moments: Moments, gain: Array) -> Array:
    return _by(x, _spread(moments.mean, x), _spread(moments.variance, x), gain)


def _moments(x: Array, axis: int | tuple[int, ...]) -> Moments:
    return Moments(*(jnp.squeeze(m, axis) for m in _mean_variance(x, axis)))


def _moved(old: Statistics, new: Statistics, renewed: Any) -> Statistics:
    return jax.tree.map(lambda a, b: (1 - renewed) * a + renewed * b, old, new)


# --- the input's part ---------------------------------------------------------------------------------------


def _batch_drive(cell: Cell, name: str, gain: Any, training: bool, renewed: Any) -> Cell:
    def input_projection(params: Normalised, x: Array) -> Array:
        z = x @ params.w
        if training:
            z = _over(z, params.gain_x, tuple(range(z.ndim - 1)))
        else:
            z = _given(z, jax.lax.stop_gradient(params.statistics).x, params.gain_x)
        return z + _spread(params.b, z)

    def update_batch_stats(layer: Layer) -> Statistics:
        z = layer.xs @ layer.params.w
        return _moved(layer.params.statistics, Statistics(_moments(z, tuple(range(z.ndim - 1)))), renewed)

    def plain(params: Normalised) -> Any:
        if name == "gru":
            return GRUWeights(params.w, params.u, params.b, params.bn)
        return Weights(params.w, params.u, params.b)

    def weight_gradients(
        params: Normalised, xs: Array, before: Array, dzx: Array, dzh: Array | None, power: Array | None = None
    ) -> Normalised:
        assert cell.weight_gradients is not None
        recurrent = cell.weight_gradients(plain(params), xs, before, dzx, dzh, power)
        dz = dzx if power is None else dzx * jnp.broadcast_to(power[..., None], dzx.shape)
        grads = jax.vjp(lambda p: input_projection(p, xs), params)[1](dz)[0]
        return grads._replace(u=recurrent.u, bn=recurrent.bn if name == "gru" else None)

    units = cell.units
    assert units is not None
    return cell._replace(
        init=lambda key: _begin(cell, name, "batch_drive", 0, gain, key),
        input_projection=input_projection,
        nonlinearity=lambda params, *given: cell.nonlinearity(plain(params), *given),
        weight_gradients=weight_gradients if cell.weight_gradients else None,
        units=lambda params, *given: units(plain(params), *given),
        update_batch_stats=update_batch_stats,
    )


# --- the recurrence -----------------------------------------------------------------------------------------


def _recurrent(
    cell: Cell, name: str, kind: str, steps: int, gain: Any, activation: str, training: bool, renewed: Any
) -> Cell:
    gates = len(cell.gates)
    units = {"rnn": (1,), "lstm": (4,), "gru": (2, 1), "gru_reset_before": (2, 1)}[name]
    """Over how many gates together a layer's mean and variance are taken: those that the paper computes at once."""

    def layer(x: Array, gain: Array) -> Array:
        h, parts, start = x.shape[-1] // gates, [], 0
        for n in units:
            at = slice(start * h, (start + n) * h)
            parts.append(_over(x[..., at], gain[at], -1))
            start += n
        return jnp.concatenate(parts, axis=-1)

    def input_projection(params: Normalised, x: Array) -> Any:
        z = x @ params.w
        if kind == "layer":
            return z if name == "rnn" else layer(z, params.gain_x) + _spread(params.b, z)
        if training:
            return _over(z, params.gain_x, -2) + _spread(params.b, z)
        kept = jax.lax.stop_gradient(params.statistics)
        z = _given(z, kept.x, params.gain_x) + _spread(params.b, z)

        def spread(m: Moments) -> Moments:
            like = jnp.zeros((*z.shape[:-1], m.mean.shape[-1]), z.dtype)
            return Moments(_spread(m.mean, like), _spread(m.variance, like))

        return Driven(z, spread(kept.h), None if kept.c is None else spread(kept.c))

    def over(x: Array, gain: Array, moments: Moments | None) -> Array:
        return _over(x, gain, -2) if moments is None else _by(x, *moments, gain)

    def split(params: Normalised, zx: Any, zh: Array) -> tuple[Array, Array]:
        """(W x's, U h's) part of the pre-activations, normalised."""
        if kind == "batch":
            z, moments = (zx.z, zx.h) if isinstance(zx, Driven) else (zx, None)
            return z, over(zh, params.gain_h, moments)
        if name == "rnn":
            return layer(zx + zh, params.gain_x) + _spread(params.b, zh), jnp.zeros_like(zh)
        return zx, layer(zh, params.gain_h)

    def product(params: Normalised, zx: Any, x: Array, at: slice) -> Array:
        """N(U h) of some gates of a GRU that resets before the product; x is theirs."""
        if kind == "layer":
            return _over(x, params.gain_h[at], -1)
        moments = Moments(*(m[..., at] for m in zx.h)) if isinstance(zx, Driven) else None
        return over(x, params.gain_h[at], moments)

    def reset(params: Normalised, h: Array, zx: Any, zh: Array) -> dict[str, tuple[Array, Array]]:
        """`look` of that GRU, whose zh is that of r and z alone."""
        sigmoid, tanh = ACTIVATIONS["sigmoid"], ACTIVATIONS["tanh"]
        h2 = 2 * h.shape[-1]
        xr, xz, xn = jnp.split(zx.z if isinstance(zx, Driven) else zx, 3, axis=-1)
        hr, hz = jnp.split(product(params, zx, zh, slice(0, h2)), 2, axis=-1)
        r = sigmoid(xr + hr)
        hn = product(params, zx, (r[0] * h) @ params.u[:, h2:], slice(h2, None))
        return {"r": r, "z": sigmoid(xz + hz), "n": tanh(xn + hn)}

    def inner(params: Normalised, zx: Any, c: Array) -> Array:
        moments = zx.c if isinstance(zx, Driven) else None
        normal = _over(c, params.gain_c, -1) if kind == "layer" else over(c, params.gain_c, moments)
        return normal + _spread(params.shift_c, c)

    def look(params: Normalised, carry: Carry, zx: Any, zh: Array) -> dict[str, tuple[Array, Array]]:
        if name == "gru_reset_before":
            return reset(params, carry.h, zx, zh)
        sigmoid, tanh = ACTIVATIONS["sigmoid"], ACTIVATIONS["tanh"]
        x, h = split(params, zx, zh)
        if name == "rnn":
            return {"h": ACTIVATIONS[activation](x + h)}
        if name == "lstm":
            i, f, o, g = jnp.split(x + h, 4, axis=-1)
            return {"i": sigmoid(i), "f": sigmoid(f), "o": sigmoid(o), "g": tanh(g)}
        (xr, xz, xn), (hr, hz, hn) = jnp.split(x, 3, axis=-1), jnp.split(h, 3, axis=-1)
        r = sigmoid(xr + hr)
        return {"r": r, "z": sigmoid(xz + hz), "n": tanh(xn + r[0] * hn)}

    def nonlinearity(params: Normalised, carry: Carry, zx: Any, zh: Array) -> tuple[Carry, tuple[Array, ...]]:
        v = {gate: optimization_barrier(value) for gate, (value, _) in look(params, carry, zx, zh).items()}
        if name == "rnn":
            return Hidden(v["h"]), ()
        if name != "lstm":
            return Hidden((1 - v["z"]) * v["n"] + v["z"] * carry.h), ()
        c = v["f"] * carry.c + v["i"] * v["g"]
        return Memory(c, v["o"] * jnp.tanh(inner(params, zx, c))), ()

    def update_batch_stats(layer: Layer) -> Statistics:
        params, c = layer.params, None
        if name == "lstm":  # the one part of the path that a layer's outputs do not show
            c = _moments(scan_forward(made, params, layer.carry, layer.xs)[1].c, 1)
        uh = layer.before @ params.u
        if name == "gru_reset_before":
            zx, h2 = input_projection(params, layer.xs), 2 * layer.hs.shape[-1]
            r = reset(params, layer.before, zx, uh[..., :h2])["r"][0]
            uh = jnp.concatenate([uh[..., :h2], (r * layer.before) @ params.u[:, h2:]], axis=-1)
        x, h = _moments(layer.xs @ params.w, 1), _moments(uh, 1)
        return _moved(params.statistics, Statistics(x, h, c), renewed)

    made = cell._replace(
        init=lambda key: _begin(cell, name, kind, steps, gain, key),
        input_projection=input_projection,
        nonlinearity=nonlinearity,
        vjp=None,
        weight_gradients=None,
        units=look,
        update_batch_stats=update_batch_stats if kind == "batch" else None,
    )
    return made
