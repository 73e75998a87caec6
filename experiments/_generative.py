"""What the two generators of sequences share: the sequences they learn and draw, and a recurrent layer that is read.

A generator is a network that is no stack (`seqdyn.learn.network`) with `sample(params, key, ys, mask)` beside.
"""

from functools import cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn import backend, watch
from seqdyn.data.batches import Batch
from seqdyn.data.splits import balanced_order
from seqdyn.data.text import Examples
from seqdyn.learn.model import Dense
from seqdyn.learn.spec import Spec
from seqdyn.nets.bptt import Backprop, unroll, where_valid
from seqdyn.nets.cells import Cell, advance
from seqdyn.nets.inits import GlorotUniform
from seqdyn.types import Array, Bool, ConfigError, Float, Int, Key


class Kind(NamedTuple):
    """What the sequences are: decides shapes and the likelihood."""

    steps: int
    features: int
    classes: int
    trials: int = 0
    """Each number is a share of so many trials, in [0, 1] (a pixel of scikit-learn's digits: of 16 dots); 0: it is a
    real number, seen standardised."""
    pad: Literal["before", "after"] = "before"

    def spec(self, network: Any, **others: Any) -> Spec:
        """A network that learns such sequences."""
        given = dict(steps=self.steps, features=self.features, classes=self.classes, pad=self.pad)
        return Spec("labelled", network=network, **(given | others))


class Scale(NamedTuple):
    """Mean and deviation of each feature over the valid steps of what was trained on."""

    mean: Float[np.ndarray, " d"]
    deviation: Float[np.ndarray, " d"]


def ordered(examples: Examples, seed: int) -> Examples:
    """In `balanced_order`: the first n are a smaller training set with the same classes."""
    return examples.take(balanced_order(np.asarray(examples.ys), seed))


def repeated(examples: Examples, n: int) -> Examples:
    """Again and again, up to n: training sets of all sizes have one shape, and so one program."""
    return Examples(*(np.resize(leaf, (n, *leaf.shape[1:])) for leaf in examples))


def mask_of(kind: Kind, lengths: np.ndarray) -> Bool[np.ndarray, "n s"]:
    """Which steps are not padding."""
    t = np.arange(kind.steps)[None]
    lengths = np.asarray(lengths)[:, None]
    return t < lengths if kind.pad == "after" else t >= kind.steps - lengths


def scaling(kind: Kind, examples: Examples) -> Scale:
    """Of these examples; of shares, 0 and 1."""
    d = kind.features
    if kind.trials:
        return Scale(np.zeros(d, np.float32), np.ones(d, np.float32))
    steps = examples.xs[mask_of(kind, examples.lengths)]
    return Scale(steps.mean(axis=0), np.maximum(steps.std(axis=0), 1e-6))


def scaled(kind: Kind, examples: Examples, scale: Scale) -> Examples:
    """As the generators see them, 0 on padding."""
    xs = (examples.xs - scale.mean) / scale.deviation * mask_of(kind, examples.lengths)[..., None]
    return examples._replace(xs=xs.astype(np.float32))


def unscaled(kind: Kind, examples: Examples, scale: Scale) -> Examples:
    """The inverse."""
    xs = (np.asarray(examples.xs) * scale.deviation + scale.mean) * mask_of(kind, examples.lengths)[..., None]
    return examples._replace(xs=xs.astype(np.float32))


def batch_of(kind: Kind, examples: Examples) -> Batch:
    """All of them as one batch."""
    xs, mask = np.moveaxis(examples.xs, 1, 0), mask_of(kind, examples.lengths).T
    return Batch(jnp.asarray(xs), jnp.asarray(examples.ys), jnp.asarray(mask))


# --- parts of networks ----------------------------------------------------------------------------------------


def dense(key: Key[Array, ""], inputs: int, outputs: int) -> Dense:
    """Glorot's initialisation."""
    return Dense(GlorotUniform()(key, (inputs, outputs), jnp.float32), jnp.zeros((outputs,)))


def affine(layer: Dense, h: Float[Array, "*s h"]) -> Float[Array, "*s k"]:
    """y = h w + b."""
    y = h @ layer.w
    return y + jnp.broadcast_to(layer.b, y.shape)


def mask_in(batch: Batch) -> Bool[Array, "t b"]:
    """Which of its steps are not padding."""
    return jnp.ones(batch.xs.shape[:2], bool) if batch.mask is None else batch.mask


def label(ys: Array, classes: int, dtype: Any) -> Float[Array, "b k"]:
    """One-hot: the condition that every network here is given."""
    return jax.nn.one_hot(ys.astype(jnp.int32), classes, dtype=dtype)


def beside(steps: int, *parts: Array) -> Float[Array, "t b d"]:
    """The inputs of a cell: [t, b, ·] as they are, [b, ·] the same at every step."""
    full = [p if p.ndim == 3 else jnp.broadcast_to(p[None], (steps, *p.shape)) for p in parts]
    return jnp.concatenate(full, axis=-1)


def outputs(
    cell: Cell, params: Any, xs: Float[Array, "t b d"], mask: Bool[Array, "t b"], name: str | None = None
) -> Float[Array, "t b h"]:
    """h_1 … h_T from rest, held on padding. With a name the scan is watched; without, it is `bptt.unroll`, faster and
    to be differentiated within a loss."""
    rest = cell.initial_carry(mask.shape[1:])
    if name is None:
        return unroll(cell, params, rest, xs, Backprop(mask=mask))[0]

    def step(carry: Any, inputs: Any) -> tuple[Any, Array]:
        zx, on = inputs
        carry = where_valid(on, advance(cell, params, zx, carry), carry)
        return carry, carry.h

    return watch.scan(step, rest, (cell.input_projection(params, xs), mask), name=name)[1]


# --- samples --------------------------------------------------------------------------------------------------


def wanted(kind: Kind, examples: Examples, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels, lengths) of n sequences to draw: classes as equal as n allows, lengths as they are in each class."""
    rng, there = np.random.default_rng(seed), np.asarray(examples.ys)
    absent = set(range(kind.classes)) - set(there.tolist())
    if absent:
        raise ConfigError(f"the training split has no example of class {min(absent)}; a generator needs one of each.")
    ys = np.arange(n, dtype=np.int32) % kind.classes
    lengths = np.asarray(examples.lengths)
    return ys, np.array([rng.choice(lengths[there == y]) for y in ys], np.int32)


BLOCK = 100
"""Sequences that are drawn at once: any number is of one program."""


@cache
def _sampler() -> Any:
    def sample(network: Any, params: Any, key: Key[Array, ""], ys: Int[Array, " b"], mask: Bool[Array, "t b"]) -> Array:
        return jnp.moveaxis(network.sample(params, key, ys, mask), 0, 1)

    return backend.compiled(sample)


def synthesise(kind: Kind, network: Any, params: Any, scale: Scale, examples: Examples, n: int, seed: int) -> Examples:
    """n sequences of balanced classes drawn from a generator, each with a length that its class has in `examples`."""
    ys, lengths = wanted(kind, examples, n, seed)
    keys, drawn = jax.random.split(jax.random.key(seed), -(-n // BLOCK)), []
    for i, key in enumerate(keys):
        rows = np.minimum(np.arange(BLOCK) + i * BLOCK, n - 1)
        drawn.append(np.asarray(_sampler()(network, params, key, ys[rows], mask_of(kind, lengths[rows]).T)))
    return unscaled(kind, Examples(np.concatenate(drawn)[:n], lengths, ys), scale)
