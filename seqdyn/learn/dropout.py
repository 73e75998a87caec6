"""What is dropped in training, by the words of `Spec.dropout`, each with probability `Numbers.dropout`.

    words           every occurrence of a word of a sequence: its vector is 0 there     Gal & Ghahramani 2016, §4.2
    inputs          of every level, one mask for all steps                              Srivastava et al. 2014
    outputs         of the top level before the readout, one mask for all steps
    recurrent_step  h_{t−1} where it enters U, a new mask at each step
    recurrent       the same, one mask for all steps                                    Gal & Ghahramani 2016, §4
    variational     inputs, recurrent and outputs, each with one mask for all steps     Gal & Ghahramani 2016, §4
    candidate       g of an LSTM, n of a GRU, a new mask at each step                   Semeniuta et al. 2016, §3
    zoneout         each unit of h (and of c) keeps its old value, new masks each step  Krueger et al. 2017, §3

Every example has masks of its own. A mask is 0 where something is dropped and 1 / (1 − rate) elsewhere, so that its
mean is 1 and evaluation needs none; zoneout's is 0 where the old value stays and 1 elsewhere. What acts inside the
recurrence is the word for a part around each cell: see `nets.wrappers`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.building import called
from seqdyn.fields import Fields
from seqdyn.learn.own_cells import is_random, levels, noise, said
from seqdyn.nets.levels import RNN, Dense
from seqdyn.nets.wrappers import CandidateDropout, RecurrentDropout, Wrapper, Zoneout
from seqdyn.parts import Part
from seqdyn.types import Array, ConfigError, Float, Int, Key

INNER = ("recurrent_step", "recurrent", "variational", "candidate", "zoneout")
"""The kinds of dropout that act inside the recurrence."""


LEVELS = 2**31 - 2
"""Folded into a key, it gives that of the noise of one's own levels: far from the small numbers that others fold in."""


class Masks(NamedTuple):
    """Of one batch; None where nothing is dropped."""

    words: Float[Array, "t b"] | None = None
    inputs: tuple[Float[Array, "b d"], ...] | None = None
    """One a level."""
    inner: tuple[Float[Array, "t b m"] | None, ...] | None = None
    """One a layer, in the order in which it reads: what its cell reads beside its inputs; None: nothing."""
    outputs: Float[Array, "b h"] | None = None


def wrapped(spec: Fields, level: Part) -> Part:
    """A level with what this kind drops inside it."""
    rate = spec.numbers.dropout
    match spec.dropout:
        case "recurrent" | "variational" | "recurrent_step":
            return RecurrentDropout(level, rate, each_step=spec.dropout == "recurrent_step")
        case "candidate":
            return CandidateDropout(level, rate)
        case "zoneout":
            return Zoneout(level, rate)
    return level


def drops(spec: Fields) -> bool:
    """Is anything dropped in training, by a word or by a level of one's own?"""
    return spec.dropout != "none" or any(is_random(level) for level in spec.layers)


def draw(spec: Fields, key: Key[Array, ""], ids: Int[Array, "t b"] | None, shape: tuple[int, ...]) -> Masks:
    """The masks of a batch whose first level reads [t, b, d] = `shape`; `ids` are its words."""
    steps, size, inputs = shape
    kind, ways = spec.dropout, 2 if spec.bidirectional else 1
    widths = (inputs, *(ways * h for h in spec.hidden))
    k_inputs, k_inner, k_outputs = jax.random.split(key, 3) if kind == "variational" else (key, key, key)
    if kind in ("words", "inputs", "outputs"):  # a level's own noise is not that of its inputs
        k_inner = jax.random.fold_in(key, LEVELS)

    def masks(key: Key[Array, ""], shapes: list[tuple[int, ...]]) -> tuple[Array, ...]:
        keys = jax.random.split(key, len(shapes))
        return tuple(scaled(jax.random.uniform(k, s)) for k, s in zip(keys, shapes, strict=True))

    def scaled(u: Array) -> Array:
        keep = 1 - spec.numbers.dropout
        return jnp.where(u < keep, 1 / keep, jnp.zeros_like(u))

    inside = [wrapped(spec, level) for level in levels(spec) for _ in range(ways)]

    def inner() -> tuple[Array | None, ...]:
        keys = jax.random.split(k_inner, len(inside))
        return tuple(
            noise(one, k, steps, size) if is_random(one) else None for one, k in zip(inside, keys, strict=True)
        )

    return Masks(
        words=scaled(_by_word(key, ids)) if kind == "words" and ids is not None else None,
        inputs=masks(k_inputs, [(size, d) for d in widths[:-1]]) if kind in ("inputs", "variational") else None,
        inner=inner() if any(map(is_random, inside)) else None,
        outputs=masks(k_outputs, [(size, widths[-1])])[0] if kind in ("outputs", "variational") else None,
    )


def _by_word(key: Key[Array, ""], ids: Int[Array, "t b"]) -> Float[Array, "t b"]:
    """A uniform number for each word of each sequence, the same wherever the word occurs in it: drawn from (key,
    sequence, id), so that the vocabulary's size costs nothing."""
    keys = jax.random.split(key, ids.shape[1])

    def one(key: Key[Array, ""], id: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, id))

    return jax.vmap(jax.vmap(one), in_axes=(None, 0))(keys, ids)


def check(spec: Fields) -> None:
    """Raises ConfigError for dropout that does not fit the rest of a spec."""
    kind = spec.dropout
    if kind == "words" and not spec.vocabulary:
        raise ConfigError("dropout is 'words' and vocabulary is 0; only ids are words, so choose 'inputs'.")
    if kind in INNER and (dense := said(spec, Dense)):
        raise ConfigError(f"dropout is '{kind}' and {dense}; it takes rnn, lstm and gru.")
    if kind == "candidate" and said(spec, RNN):
        raise ConfigError("dropout is 'candidate' for an rnn, which has none; choose lstm or gru.")
    if kind in INNER and (inside := said(spec, Wrapper)):
        raise ConfigError(f"dropout is '{kind}' and {inside}; say it in layers alone, around each cell.")
    if kind in INNER and spec.normalise != "none":
        raise ConfigError(
            f"dropout is '{kind}' and normalise is '{spec.normalise}'; of normalised cells only words, inputs and "
            "outputs are dropped."
        )
    if kind in INNER and "omega" in spec.penalties:
        raise ConfigError(f"penalties has 'omega' and dropout is '{kind}'; Ω is of a recurrence that is whole.")
    if spec.monte_carlo and not drops(spec):
        raise ConfigError(f"monte_carlo is {spec.monte_carlo} and dropout is 'none'; it samples what dropout leaves.")
    if spec.monte_carlo and spec.loss is not None and not hasattr(spec.loss, "mean"):
        raise ConfigError(
            f"monte_carlo is {spec.monte_carlo} and loss is {called(spec.loss)}, which has no mean(); take 0."
        )
    if spec.monte_carlo and "l0" in spec.penalties:
        raise ConfigError(
            f"monte_carlo is {spec.monte_carlo} and penalties has 'l0', whose gates it would draw; take 0."
        )
    if spec.monte_carlo and spec.task == "stream":
        raise ConfigError(f"monte_carlo is {spec.monte_carlo} for the task 'stream', which carries one state; take 0.")
