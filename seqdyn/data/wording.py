"""Reviews in other words, inside the compiled step: words deleted, swapped, inserted, or replaced by their neighbours.

Wei & Zou 2019, "EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification Tasks", §2, with
the neighbours of word vectors where they take WordNet's synonyms (`banks` has those); `insert_random` has no meaning.

Each is pure, `(key, batch, strength, data, pad) -> batch`: `strength` is the share of words changed, α there (they
advise 0.05 to 0.1), and at 0 the batch comes back bit for bit. Labels are kept, padding stays padding, on the side that
`pad` names, and `batch.mask` follows the words. `<start>` is no word and stays.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.data.tasks import NEIGHBOURS, Batch
from seqdyn.data.text import PAD, START
from seqdyn.types import Array, Bool, ConfigError, Float, Int, Key, Pad


def delete(key: Key[Array, ""], batch: Batch, strength: Any, data: Any, pad: Pad = "before") -> Batch:
    """Random deletion: each word is left out with probability `strength`; one word, a random one, is always kept."""
    word = _words(batch.xs)
    drawn = jnp.where(word, _uniform(key, word.shape), -1.0)
    spared = drawn == jnp.max(drawn, axis=0, keepdims=True)
    kept = (batch.xs != PAD) & (~word | spared | (drawn >= _share(strength)))
    return _reading(batch, _packed(batch.xs, kept, batch.xs.shape[0], pad))


def swap(key: Key[Array, ""], batch: Batch, strength: Any, data: Any, pad: Pad = "before") -> Batch:
    """Random swap: each word is chosen with probability `strength`, the chosen ones of a review are paired at random,
    and those of a pair change places; where their number is odd, one stays."""
    choosing, pairing = jax.random.split(key)
    word = _words(batch.xs)
    chosen = word & (_uniform(choosing, word.shape) < _share(strength))
    # The chosen ones first, in random order; then the first changes places with the second, the third with the fourth.
    order = jnp.argsort(jnp.where(chosen, _uniform(pairing, word.shape), 2.0), axis=0)
    rank = jnp.argsort(order, axis=0)
    other = rank ^ 1
    paired = chosen & (jnp.maximum(rank, other) < jnp.sum(chosen, axis=0, keepdims=True))
    source = jnp.take_along_axis(order, jnp.minimum(other, word.shape[0] - 1), axis=0)
    moved = jnp.take_along_axis(batch.xs, source, axis=0)
    return batch._replace(xs=jnp.where(paired, moved, batch.xs))


def insert(key: Key[Array, ""], batch: Batch, strength: Any, data: Any, pad: Pad = "before") -> Batch:
    """Random insertion: behind each word, with probability `strength`, comes a neighbour of a random one of the
    review's words that have neighbours; a review that becomes too long keeps its last words."""
    inserting, finding, choosing = jax.random.split(key, 3)
    xs, word = batch.xs, _words(batch.xs)
    steps = xs.shape[0]
    # A word without neighbours is its own, in every column of the table.
    known = word & (_table(data, "insert")[xs, 0] != xs)
    count = jnp.sum(known, axis=0, keepdims=True)
    which = jnp.floor(_uniform(finding, xs.shape) * count.astype(jnp.float32)).astype(jnp.int32)
    source = jnp.take_along_axis(jnp.argsort(~known, axis=0), jnp.minimum(which, steps - 1), axis=0)
    fresh = _neighbour(choosing, jnp.take_along_axis(xs, source, axis=0), _table(data, "insert"))
    added = word & (count > 0) & (_uniform(inserting, xs.shape) < _share(strength))
    return _with(batch, fresh, added, pad)


def insert_random(key: Key[Array, ""], batch: Batch, strength: Any, data: Any, pad: Pad = "before") -> Batch:
    """Behind each word, with probability `strength`, comes a random word of a random review of `data["train"]`. A
    review that becomes too long keeps its last words."""
    if "train" not in data:
        raise ConfigError("augment has 'insert_random', but data has no 'train', whose words it draws.")
    inserting, finding, choosing = jax.random.split(key, 3)
    ids, lengths = jnp.asarray(data["train"].xs), jnp.asarray(data["train"].lengths)
    row = jax.random.randint(finding, batch.xs.shape, 0, len(ids))
    end = lengths[row] if pad == "after" else ids.shape[1]
    count = lengths[row] - (ids[row, end - lengths[row]] == START).astype(lengths.dtype)
    back = jnp.floor(_uniform(choosing, row.shape) * count.astype(jnp.float32)).astype(jnp.int32)
    fresh = ids[row, end - 1 - back].astype(batch.xs.dtype)
    added = _words(batch.xs) & _words(fresh) & (_uniform(inserting, batch.xs.shape) < _share(strength))
    return _with(batch, fresh, added, pad)


def _with(batch: Batch, fresh: Int[Array, "t b"], added: Bool[Array, "t b"], pad: Pad) -> Batch:
    """The batch with the fresh words behind those where one is added."""
    steps = batch.xs.shape[0]
    both = jnp.stack([batch.xs, fresh], axis=1).reshape(2 * steps, -1)
    there = jnp.stack([batch.xs != PAD, added], axis=1).reshape(2 * steps, -1)
    return _reading(batch, _packed(both, there, steps, pad))


def neighbours(key: Key[Array, ""], batch: Batch, strength: Any, data: Any, pad: Pad = "before") -> Batch:
    """Each word is replaced, with probability `strength`, by one of its k neighbours in `data["neighbours"]`, all
    equally likely; a word that has none is its own neighbour there, and stays."""
    choosing, finding = jax.random.split(key)
    chosen = _words(batch.xs) & (_uniform(choosing, batch.xs.shape) < _share(strength))
    fresh = _neighbour(finding, batch.xs, _table(data, "neighbours"))
    return batch._replace(xs=jnp.where(chosen, fresh, batch.xs))


def _table(data: Any, name: str) -> Int[Array, "v k"]:
    if NEIGHBOURS not in data:
        raise ConfigError(f"augment has {name!r}, but data has no {NEIGHBOURS!r}: give it vectors.neighbour_table.")
    return jnp.asarray(data[NEIGHBOURS])


def _neighbour(key: Key[Array, ""], xs: Int[Array, "t b"], table: Int[Array, "v k"]) -> Int[Array, "t b"]:
    return table[xs, jax.random.randint(key, xs.shape, 0, table.shape[1])].astype(xs.dtype)


def _words(xs: Int[Array, "t b"]) -> Bool[Array, "t b"]:
    return (xs != PAD) & (xs != START)


def _share(strength: Any) -> Float[Array, ""]:
    return jnp.asarray(strength, jnp.float32)


def _uniform(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "t b"]:
    return jax.random.uniform(key, shape, jnp.float32)


def _packed(ids: Int[Array, "e b"], there: Bool[Array, "e b"], steps: int, pad: Pad) -> Int[Array, "{steps} b"]:
    """The ids that are there, side by side in their order, padded to `steps`; of too many, the last."""
    total = jnp.sum(there, axis=0, keepdims=True)
    first = jnp.minimum(steps - total, 0) if pad == "after" else steps - total
    place = jnp.cumsum(there, axis=0) - 1 + first
    place = jnp.where(there & (place >= 0), place, steps)  # what has no place is dropped
    example = jnp.broadcast_to(jnp.arange(ids.shape[1])[None], ids.shape)
    return jnp.full((steps, ids.shape[1]), PAD, ids.dtype).at[place, example].set(ids, mode="drop")


def _reading(batch: Batch, xs: Int[Array, "t b"]) -> Batch:
    return batch._replace(xs=xs, mask=None if batch.mask is None else xs != PAD)


_FUNCTION = """
a an the this that these those each every either neither some any all both few many much more most other another such
own same i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves one ones who whom whose which what whoever whatever
somebody someone something somewhere anybody anyone anything anywhere everybody everyone everything everywhere
am is are was were be been being have has had having do does did doing done will would shall should can could may might
must ought cannot let get gets got go goes going dont didnt isnt and but or nor if because as until while than like
though although whether unless since so of at by for with without about against between into through during before after
above below to from up down in out on off over under upon within along across behind beyond toward towards around away
again further then once here there when where why how no not never none nothing nobody nowhere only too very just also
even still yet ever always often already almost quite rather really s t d m o re ve ll etc
"""
FUNCTION_WORDS = frozenset(_FUNCTION.split())
"""Words of English grammar, negations among them: what is replaced by its like is never one of these, nor a word with
an apostrophe."""


def content(words: tuple[str, ...]) -> Bool[np.ndarray, " v"]:
    """Which words carry meaning of their own: neither `FUNCTION_WORDS` nor with an apostrophe nor special ids."""
    return np.array([w not in FUNCTION_WORDS and "'" not in w and not w.startswith("<") for w in words], bool)
