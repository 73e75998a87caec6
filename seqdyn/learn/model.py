"""The networks that are trained: embedding → stacked cells → readout → loss, all from a spec."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.building import called
from seqdyn.data.losses import Loss, applied
from seqdyn.data.tasks import Batch, draws_ids, task_of
from seqdyn.learn import dropout, precision
from seqdyn.learn.layers import gates as gates
from seqdyn.learn.layers import is_reversed as is_reversed
from seqdyn.learn.layers import layers
from seqdyn.learn.network import Forward
from seqdyn.learn.spec import Spec
from seqdyn.nets import hard_concrete, statistics
from seqdyn.nets.bptt import Backprop, Tap, unroll, window
from seqdyn.nets.inits import INITS
from seqdyn.nets.segments import checkpointed, in_segments
from seqdyn.nets.stack import Layer, Stacked, unroll_stack
from seqdyn.types import Array, ConfigError, Float, Key, Tree


class Dense(NamedTuple):
    """y = h w + b."""

    w: Float[Array, "h k"]
    b: Float[Array, " k"]


class Model(NamedTuple):
    """Everything that is trained."""

    embedding: Float[Array, "v d"] | None
    layers: tuple[Any, ...]
    readout: Dense
    log_alpha: dict[str, Array] | None = None
    """Under the penalty l0, of the gate of each weight of `matrices`, by their names: see `nets.hard_concrete`."""


def init(spec: Spec, key: Key[Array, ""], vectors: Float[Array, "v d"] | None = None) -> Model:
    """Embedding N(0, 1/d) (row norms near 1) or `vectors`, cells and readout by their initialisers; gates open."""
    k_embed, k_cells, k_readout = jax.random.split(key, 3)
    stack, real = layers(spec), precision.trained(spec.dtype)
    embedding = None
    if spec.embedding:
        shape = (spec.vocabulary, spec.embedding)
        embedding = jax.random.normal(k_embed, shape, real) * spec.embedding**-0.5
        if spec.pretrained:
            if vectors is None or vectors.shape != shape:
                found = "missing" if vectors is None else f"of the shape {vectors.shape}"
                raise ConfigError(f'data["vectors"] is {found}; pretrained asks for [vocabulary, embedding], {shape}.')
            embedding = vectors.astype(embedding.dtype)
    read = spec.hidden[-1] * (2 if spec.bidirectional else 1), task_of(spec).outputs
    model = Model(
        embedding=embedding,
        layers=tuple(c.init(k) for c, k in zip(stack, jax.random.split(k_cells, len(stack)), strict=True)),
        readout=Dense(
            INITS[spec.readout_init](spec.numbers.readout_gain)(k_readout, read, real), jnp.zeros((read[1],), real)
        ),
    )
    if "l0" not in spec.penalties:
        return model
    gated = matrices(spec, model)
    drawn = jax.random.split(jax.random.fold_in(key, GATES), len(gated))
    begun = {name: hard_concrete.init(k, w.shape) for k, (name, w) in zip(drawn, gated.items(), strict=True)}
    return model._replace(log_alpha=begun)


GATES = 2**31 - 1
"""Folded into a key, it gives that of the gates: far from the small numbers that others fold in."""


def matrices(spec: Spec, model: Model) -> dict[str, Array]:
    """The weight matrices of `Spec.penalised`, by name: 'layer0/w', 'layer0/u', …, 'readout/w', 'embedding'."""
    parts = [(name, of) for name, of in (("w", "input"), ("u", "recurrent")) if of in spec.penalised]
    found = {
        f"layer{i}/{name}": getattr(layer, name)
        for i, layer in enumerate(model.layers)
        for name, _ in parts
        if hasattr(layer, name)
    }
    found |= {"readout/w": model.readout.w} if "readout" in spec.penalised else {}
    if model.embedding is not None and "embedding" in spec.penalised:
        found["embedding"] = model.embedding
    return found


def with_matrices(model: Model, found: Mapping[str, Any]) -> Model:
    """The model with these in the places of those of `matrices` that have their names."""
    layers = [
        layer._replace(**{name: found[f"layer{i}/{name}"] for name in "wu" if f"layer{i}/{name}" in found})
        for i, layer in enumerate(model.layers)
    ]
    readout = model.readout._replace(w=found.get("readout/w", model.readout.w))
    return model._replace(embedding=found.get("embedding", model.embedding), layers=tuple(layers), readout=readout)


def acting_params(spec: Spec, model: Model, noise: Key[Array, ""] | None = None) -> Model:
    """The network as it computes: each gated weight times its gate, drawn from `noise` in training, else the
    deterministic one. Itself where there are no gates."""
    if model.log_alpha is None:
        return model
    names = sorted(model.log_alpha)
    drawn = [None] * len(names) if noise is None else jax.random.split(jax.random.fold_in(noise, GATES), len(names))
    raw = matrices(spec, model)
    gated = {
        name: raw[name] * hard_concrete.gate(model.log_alpha[name], k) for name, k in zip(names, drawn, strict=True)
    }
    return with_matrices(model, gated)._replace(log_alpha=None)


def groups(model: Model | Tree) -> dict[str, Tree]:
    """The parameters by the names under which their norms are recorded: 'embedding', 'layer0/u', …, 'readout' and, of
    gates, 'log_alpha'. Of a cell of one's own, and of a network that is no stack, each branch of its parameters."""
    if not isinstance(model, Model):
        found = _branches(model)
        if statistics.of(model) is not None:
            found.pop(statistics.NAME)
        while len(found) == 1 and len(_branches(*found.values())) > 1:  # as of Flax, whose root is {"params": …}
            found = _branches(*found.values())
        return found
    named: dict[str, Tree] = {} if model.embedding is None else {"embedding": model.embedding}
    for i, layer in enumerate(model.layers):
        if type(layer).__module__.startswith("seqdyn."):
            parts = layer._asdict()
            parts.pop(statistics.NAME, None)  # of batches: kept, not trained
            named |= {f"layer{i}/{k}": parts.pop(k) for k in "wu" if k in parts} | {f"layer{i}/b": parts}
        else:
            parts = _branches(layer)
            if statistics.of(layer) is not None:
                parts.pop(statistics.NAME)
            named |= {f"layer{i}/{name}": part for name, part in parts.items()}
    named["readout"] = model.readout
    return named if model.log_alpha is None else named | {"log_alpha": model.log_alpha}


def _branches(tree: Tree) -> dict[str, Tree]:
    """What a tree has next to its root; of an array itself."""
    found = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda branch: branch is not tree)
    return {jax.tree_util.keystr(path, simple=True) or "params": branch for path, branch in found}


def cut(spec: Spec, batch: Batch) -> Backprop:
    """Padding, truncation and adjoint clipping of this run. Losses are batch means, hence the 1/b."""
    return Backprop(
        mask=batch.mask,
        keep=window(spec.steps, spec.numbers.window) if spec.truncate else None,
        clip=jnp.asarray(spec.numbers.clip / batch.xs.shape[1], spec.dtype) if spec.clip == "adjoint" else None,
    )


class Output(NamedTuple):
    """What a network makes of a batch."""

    predictions: Float[Array, "*s k"]
    """One row a sequence, or a step and sequence."""
    stacked: Stacked


def embedded(spec: Spec, model: Model, xs: Array) -> Float[Array, "t b d"]:
    """Numbers as they are; of ids the rows of the embedding, which are their one-hot vectors times it, or those.

    An id that a user's task draws and that is not of the vocabulary is NaN, not the last row, or none.
    """
    if not spec.vocabulary:
        return xs
    ids = jnp.asarray(xs, jnp.int32)  # one_hot counts in the type of its ids, and 255 may be less than the vocabulary
    rows = jax.nn.one_hot(ids, spec.vocabulary) if model.embedding is None else model.embedding[ids]
    known = ((ids >= 0) & (ids < spec.vocabulary))[..., None]
    return jnp.where(known, rows, jnp.nan) if draws_ids(spec) else rows


def initial_carries(spec: Spec) -> tuple[Any, ...]:
    """Every layer's carry before a sequence."""
    return tuple(cell.initial_carry((spec.batch,)) for cell in layers(spec))


def run(
    spec: Spec,
    model: Model,
    batch: Batch,
    carries: tuple[Any, ...] | None = None,
    watches: tuple[Tap, ...] | None = None,
    by: Any = unroll,
) -> Output:
    """The network on a batch, from `carries` or from rest.

    A sequence is read out from its last output, from the mean or sum of its outputs over valid steps, or at every step.
    `by` unrolls a layer: `bptt.unroll`, in segments if the spec says so, or `unroll_autodiff` to hold it against.
    """
    if spec.segment:
        by = in_segments(spec.segment) if by is unroll else checkpointed(by, spec.segment)
    model = precision.computed(spec.dtype, acting_params(spec, model, batch.noise))
    xs = precision.computed(spec.dtype, embedded(spec, model, batch.xs))
    stack = layers(spec, training=batch.noise is not None)
    carries = carries or tuple(cell.initial_carry(xs.shape[1:-1]) for cell in stack)
    masks = dropout.Masks()
    if batch.noise is not None:
        masks = dropout.draw(spec, batch.noise, batch.xs if spec.vocabulary else None, xs.shape)
        masks = precision.computed(spec.dtype, masks)
    if masks.words is not None:
        xs = xs * jnp.broadcast_to(masks.words[..., None], xs.shape)
    given = (stack, model.layers, carries, xs, cut(spec, batch), watches, by, spec.bidirectional)
    stacked = unroll_stack(*given, masks.inputs, masks.inner)
    match spec.readout:
        case "every":
            h = stacked.hs
        case "last":
            ways = stacked.last[-2:] if spec.bidirectional else stacked.last[-1:]
            h = jnp.concatenate([carry.h for carry in ways], axis=-1)
        case "mean" | "sum":
            mask = jnp.ones(stacked.hs.shape[:2]) if batch.mask is None else batch.mask.astype(stacked.hs.dtype)
            h = jnp.einsum("tb,tbh->bh", mask, stacked.hs)
            h = h / jnp.sum(mask, axis=0)[:, None] if spec.readout == "mean" else h
        case _:
            raise ConfigError(f"readout is {spec.readout!r}; it must be one of every, last, mean, sum.")
    if masks.outputs is not None:
        h = h * jnp.broadcast_to(masks.outputs, h.shape)
    h, readout = precision.widened(spec.dtype, (h, model.readout))
    y = h @ readout.w
    return Output(y + jnp.broadcast_to(readout.b, y.shape), stacked)


def predict(spec: Spec, model: Model, batch: Batch, by: Any = unroll) -> Float[Array, "*s k"]:
    """`run`'s predictions, from rest."""
    return run(spec, model, batch, by=by).predictions


def per_layer(spec: Spec, model: Model, batch: Batch) -> tuple[Layer, ...]:
    """Every recurrent layer with its own inputs on this batch."""
    return run(spec, model, batch._replace(noise=None)).stacked.layers


def loss_of(spec: Spec) -> Loss:
    """What a prediction costs. ConfigError for a task whose loss is none."""
    found = task_of(spec).loss
    if not isinstance(found, Loss):
        raise ConfigError(f"loss of the task {spec.task!r:.60} is {found!r:.60}; it must be a losses.Loss.")
    return found


def _named(spec: Spec, what: str) -> str:
    if spec.loss is not None:
        return f"{what} of {called(spec.loss)}"
    return (
        f"{what} of the task {spec.task!r:.60}"
        if isinstance(spec.task, str)
        else f"{what} of {type(spec.task).__name__}"
    )


def losses(spec: Spec, predictions: Float[Array, "*s k"], ys: Array) -> Float[Array, "*s"]:
    """Of each prediction: see `data.losses`."""
    each, shape = loss_of(spec).each, predictions.shape[:-1]
    return applied(_named(spec, "loss"), each, shape, predictions, ys, descended=True)


def is_correct(spec: Spec, predictions: Float[Array, "*s k"], ys: Array) -> Float[Array, "*s"] | None:
    """1 where a prediction is right, else 0, and of many bits at once the share that is; None where nobody can say."""
    correct = loss_of(spec).correct
    if correct is None:
        return None
    return applied(_named(spec, "correct"), correct, predictions.shape[:-1], predictions, ys)


def weights(spec: Spec, batch: Batch) -> Float[Array, "*s"]:
    """How much each prediction counts in a mean over a batch: its weight, 0 on padding and for examples without any."""
    count = jnp.ones(batch.xs.shape[1]) if batch.weight is None else batch.weight
    count = precision.widened(spec.dtype, count)
    if spec.readout != "every":
        return count
    count = jnp.broadcast_to(count if count.ndim == 2 else count[None], batch.xs.shape[:2])
    return count if batch.mask is None else count * batch.mask.astype(count.dtype)


def total_weight(spec: Spec, batch: Batch) -> Float[Array, ""]:
    """How many predictions a batch's loss is the mean of."""
    return jnp.sum(weights(spec, batch))


def forward(
    spec: Spec,
    model: Model,
    batch: Batch,
    carries: tuple[Any, ...] | None = None,
    watches: tuple[Tap, ...] | None = None,
    by: Any = unroll,
) -> Forward:
    """The network held against what the batch should give."""
    return metrics(spec, run(spec, model, batch, carries, watches, by), batch)


def metrics(spec: Spec, output: Output, batch: Batch) -> Forward:
    """What a network made of a batch, held against what the batch should give."""
    count, ys = weights(spec, batch), precision.widened(spec.dtype, batch.ys)
    total = jnp.sum(count)

    def mean(each: Array) -> Array:
        return jnp.sum(count * each) / total

    right = is_correct(spec, output.predictions, ys)
    loss = mean(losses(spec, output.predictions, ys))
    accuracy = None if right is None else mean(right)
    return Forward(loss, accuracy, {}, output.stacked.last, output.stacked.layers)


def mc_dropout(spec: Spec, model: Model, batch: Batch, keys: Key[Array, " n"]) -> Forward:
    """The mean prediction of n networks with dropout, one a key, held against what the batch should give: Monte Carlo
    dropout, the loss −log mean p. Gal & Ghahramani 2016, eq. 8; their 'Dropout as a Bayesian approximation', eq. 6."""

    def one(_: None, key: Key[Array, ""]) -> tuple[None, Array]:
        return None, predict(spec, model, batch._replace(noise=key))

    predictions = mean_prediction(spec, jax.lax.scan(one, None, keys)[1])
    return metrics(spec, Output(predictions, Stacked(predictions, (), ())), batch)


def mean_prediction(spec: Spec, predictions: Float[Array, "n *s k"]) -> Float[Array, "*s k"]:
    """The prediction (logits, if the task has classes) that stands for the mean of n predicted probabilities."""
    mean = loss_of(spec).mean
    if mean is None:
        raise ConfigError(f"monte_carlo is {spec.monte_carlo} and {_named(spec, 'the loss')} has no mean(); take 0.")
    return applied(_named(spec, "mean"), mean, predictions.shape[1:], predictions)


def loss(
    spec: Spec,
    model: Model,
    batch: Batch,
    watches: tuple[Tap, ...] | None = None,
    by: Any = unroll,
) -> Float[Array, ""]:
    """`forward`'s loss, from rest."""
    return forward(spec, model, batch, None, watches, by).loss
