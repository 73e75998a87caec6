"""The networks that are trained: embedding → stacked cells → readout → loss, all from (spec, hypers)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.data.tasks import TASKS, Batch
from seqdyn.learn.config import Hypers, Spec
from seqdyn.nets import cells
from seqdyn.nets.bptt import Cut, Watch, unroll, unroll_stack, window
from seqdyn.nets.inits import INITS, chrono, constant, glorot_uniform
from seqdyn.types import Array, Float, Key, Tree


class Dense(NamedTuple):
    """y = h w + b."""

    w: Float[Array, "h k"]
    b: Float[Array, " k"]


class Model(NamedTuple):
    """Everything that is trained."""

    embedding: Float[Array, "v d"] | None
    layers: tuple[Any, ...]
    readout: Dense


def layers(spec: Spec, hypers: Hypers) -> tuple[cells.Cell, ...]:
    """The stack of cells, bottom first; their initialisers carry the run's gain and biases."""
    widths = (spec.embedding or TASKS[spec.task](spec).inputs, *spec.hidden)
    w, u = INITS[spec.w_init](hypers.input_gain), INITS[spec.u_init](hypers.gain)
    zero = constant(0.0)

    def cell(d: int, h: int) -> cells.Cell:
        match spec.cell:
            case "rnn":
                return cells.rnn(d, h, spec.activation, w=w, u=u)
            case "lstm":
                bias = {"i": zero, "f": constant(hypers.forget_bias), "o": zero, "g": zero}
                return cells.lstm(d, h, w=w, u=u, b=bias, longest=hypers.longest if spec.chrono else None)
            case "gru" | "gru_reset_before":
                make = cells.gru if spec.cell == "gru" else cells.gru_reset_before
                z = chrono(hypers.longest) if spec.chrono else zero
                return make(d, h, w=w, u=u, b={"r": zero, "z": z, "n": zero})
        raise ValueError(f"cell is {spec.cell!r}")

    return tuple(cell(d, h) for d, h in zip(widths, widths[1:], strict=False))


def init(spec: Spec, hypers: Hypers, key: Key[Array, ""]) -> Model:
    """Embedding N(0, 1/d) (row norms near 1), cells by their initialisers, readout Glorot uniform."""
    k_embed, k_cells, k_readout = jax.random.split(key, 3)
    stack = layers(spec, hypers)
    embedding = None
    if spec.vocabulary:
        embedding = jax.random.normal(k_embed, (spec.vocabulary, spec.embedding)) * spec.embedding**-0.5
    return Model(
        embedding=embedding,
        layers=tuple(c.init(k) for c, k in zip(stack, jax.random.split(k_cells, len(stack)), strict=True)),
        readout=Dense(glorot_uniform()(k_readout, (spec.hidden[-1], 1), jnp.float32), jnp.zeros((1,))),
    )


def groups(model: Model) -> dict[str, Tree]:
    """The parameters by the names under which their norms are recorded: 'embedding', 'layer0/u', …, 'readout'."""
    named: dict[str, Tree] = {} if model.embedding is None else {"embedding": model.embedding}
    for i, layer in enumerate(model.layers):
        named |= {f"layer{i}/w": layer.w, f"layer{i}/u": layer.u}
        named[f"layer{i}/b"] = {k: v for k, v in layer._asdict().items() if k not in "wu"}
    return named | {"readout": model.readout}


def cut(spec: Spec, hypers: Hypers, batch: Batch) -> Cut:
    """Padding, truncation and adjoint clipping of this run. Losses are batch means, hence the 1/b."""
    return Cut(
        live=batch.live,
        keep=window(spec.steps, hypers.window) if spec.truncate else None,
        clip=hypers.clip / batch.xs.shape[1] if spec.clip == "adjoint" else None,
    )


class Layer(NamedTuple):
    """One recurrent layer as it runs on a batch: what the instruments of `measure` take apart."""

    cell: cells.Cell
    params: Any
    carry: Any
    """Before the first step."""
    xs: Float[Array, "t b d"]
    """The network's inputs (embedded), or the outputs of the layer below."""


def per_layer(spec: Spec, hypers: Hypers, model: Model, batch: Batch) -> tuple[Layer, ...]:
    """Every layer with its own inputs on this batch, bottom first; padding holds the carry, as in training."""
    xs = batch.xs if model.embedding is None else model.embedding[batch.xs]
    found = []
    for cell, params in zip(layers(spec, hypers), model.layers, strict=True):
        found.append(Layer(cell, params, cell.rest(xs.shape[1:-1]), xs))
        xs, _ = unroll(cell, params, found[-1].carry, xs, Cut(live=batch.live))
    return tuple(found)


def predict(
    spec: Spec,
    hypers: Hypers,
    model: Model,
    batch: Batch,
    watches: tuple[Watch, ...] | None = None,
    by: Any = unroll,
) -> Float[Array, " b"]:
    """One number a sequence: the readout of the top layer's last output, or of their mean or sum over live steps."""
    xs = batch.xs if model.embedding is None else model.embedding[batch.xs]
    stack = layers(spec, hypers)
    rest = tuple(cell.rest(xs.shape[1:-1]) for cell in stack)
    hs, last = unroll_stack(stack, model.layers, rest, xs, cut(spec, hypers, batch), watches, by)
    if spec.readout == "last":
        h = last[-1].h
    else:
        live = jnp.ones(hs.shape[:2]) if batch.live is None else batch.live.astype(hs.dtype)
        h = jnp.einsum("tb,tbh->bh", live, hs)
        if spec.readout == "mean":
            h = h / jnp.sum(live, axis=0)[:, None]
    y = h @ model.readout.w
    return (y + jnp.broadcast_to(model.readout.b, y.shape))[:, 0]


def losses(spec: Spec, predictions: Float[Array, " b"], ys: Float[Array, " b"]) -> Float[Array, " b"]:
    """Of each example: (p − y)², or for a logit p and y in {0, 1} log(1 + exp((1 − 2y) p)), in nats."""
    if TASKS[spec.task](spec).loss == "mse":
        return jnp.square(predictions - ys)
    return jax.nn.softplus((1 - 2 * ys) * predictions)


def loss(
    spec: Spec,
    hypers: Hypers,
    model: Model,
    batch: Batch,
    watches: tuple[Watch, ...] | None = None,
    by: Any = unroll,
) -> Float[Array, ""]:
    """Mean over the batch. `by` unrolls one layer: `bptt.unroll`, or `unroll_autodiff` to hold it against."""
    return jnp.mean(losses(spec, predict(spec, hypers, model, batch, watches, by), batch.ys))
