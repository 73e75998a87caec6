"""Film reviews in other words: what `augmentation.py` shows of them and trains on.

Methods: deletion, swap, insertion and neighbours act in the compiled step (`data.wording`, Wei & Zou 2019); synonyms
from WordNet and back-translation by Apertium come from banks (`data.banks`), made once and cached: of 2,000 reviews of
80 words in half a processor-minute or less each.
"""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.backend import compiled
from seqdyn.data import banks, wording
from seqdyn.data.batches import Batch
from seqdyn.data.datasets import imdb, imdb_reviews
from seqdyn.data.splits import beginning
from seqdyn.data.tasks import BANK, NEIGHBOURS
from seqdyn.data.text import PAD, START, Text, last_words, tokenize
from seqdyn.data.vectors import Matched, match, neighbour_table, read_vectors
from seqdyn.types import ConfigError

IN_STEP: dict[str, Callable[..., Batch]] = {
    "delete": wording.delete,
    "swap": wording.swap,
    "insert": wording.insert,
    "neighbours": wording.neighbours,
}
IN_BANK = ("synonyms", "back_translation")
METHODS = (*IN_STEP, *IN_BANK)
STRENGTH = dict.fromkeys(IN_STEP, 0.1) | dict.fromkeys(IN_BANK, 0.5)
"""The share of words changed, α = 0.1 of Wei & Zou; of a bank, of reviews that come from it."""
TABLED = ("insert", "neighbours")
"""The methods that need word vectors."""
SEED = 0
"""Of which reviews are in a smaller training set, and of synonyms."""


class Reviews(NamedTuple):
    """Reviews as ids and, those of the training split, as what they say."""

    text: Text
    said: dict[str, list[str]]
    """The last words of each review of 'train' and 'validation'."""
    vectors: Matched | None
    """Word vectors of the vocabulary."""
    table: np.ndarray | None
    """[vocabulary, k], the neighbours of words that carry content."""


def read(
    data_dir: Path | None, vectors: Path | None, vocabulary: int = 10_000, length: int = 80, limit: int | None = None
) -> Reviews:
    """The last `length` words of each review, of `limit` reviews of each half if it is given; ten neighbours of each
    word if there is a file of `vectors`."""
    text = imdb(data_dir, vocabulary=vocabulary, length=length, limit=limit)
    whole = imdb_reviews(data_dir, limit=limit)
    said = {name: [last_words(review, length) for review in whole[name][0]] for name in ("train", "validation")}
    matched = None if vectors is None else match(text.vocabulary, read_vectors(vectors))
    table = None if matched is None else neighbour_table(matched, 10, wording.content(text.vocabulary))
    return Reviews(text, said, matched, table)


def methods(reviews: Reviews) -> tuple[str, ...]:
    """Those that these reviews allow: without vectors there are no neighbours."""
    return tuple(m for m in METHODS if reviews.table is not None or m not in TABLED)


# --- what is trained on -------------------------------------------------------------------------------------


def rows_of(reviews: Reviews, size: int) -> np.ndarray:
    """Which training reviews a set of `size` has, both labels in proportion; a smaller set is part of a larger."""
    return beginning(reviews.text.splits["train"].ys, size, SEED)


def variants(reviews: Reviews, method: str, rows: np.ndarray, k: int = 4, split: str = "train") -> list[list[str]]:
    """The bank's variants of some reviews: k with synonyms, or one that was translated."""
    said = [reviews.said[split][i] for i in rows]
    if method == "synonyms":
        return banks.synonyms(said, k, STRENGTH["delete"], SEED)
    return [[text] for text in banks.back_translation(said, banks.apertium("eng-spa"), banks.apertium("spa-eng"))]


def data(reviews: Reviews, size: int, method: str = "none", test: int | None = 5000) -> dict[str, Any]:
    """A data set with `size` training reviews and what a method needs beside them, the same held-out ones for all;
    `test` takes so many of the test reviews, both labels in proportion."""
    splits = reviews.text.splits
    rows = rows_of(reviews, size)

    out: dict[str, Any] = dict(splits)
    out["train"] = splits["train"].take(rows)
    out["test"] = splits["test"].take(beginning(splits["test"].ys, test, SEED))
    if method in TABLED:
        out[NEIGHBOURS] = reviews.table
    if method in IN_BANK:
        made = variants(reviews, method, rows)
        out[BANK] = banks.bank(made, out["train"].ys, reviews.text.vocabulary, length=splits["train"].xs.shape[1])
    return out


def augment(method: str) -> tuple[Any, ...]:
    """`Spec.augment` of a method."""
    return () if method == "none" else (BANK,) if method in IN_BANK else (method,)


# --- what is shown ------------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """A review before and after, the words that differ [in brackets]."""

    method: str
    label: int
    before: str
    after: str


def changed(reviews: Reviews, method: str, split: str, rows: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Some reviews of a split, [n, s], as a method in the step changes them."""
    xs = jnp.asarray(reviews.text.splits[split].xs[rows].T)
    table = {} if reviews.table is None else {NEIGHBOURS: jnp.asarray(reviews.table)}
    new = compiled(IN_STEP[method])(jax.random.key(seed), Batch(xs, jnp.zeros(len(rows))), strength, table)
    return np.asarray(new.xs).T


def possible(reviews: Reviews) -> tuple[str, ...]:
    """Of `methods` those that this machine has a dictionary or a translator for."""
    found = []
    for method in methods(reviews):
        try:
            if method in IN_BANK:
                variants(reviews, method, rows_of(reviews, 1), 1)
        except ConfigError:
            continue
        found.append(method)
    return tuple(found)


def examples(reviews: Reviews, count: int = 2, strength: float = 0.1, words: int = 30, seed: int = 0) -> list[Shown]:
    """For each possible method the ends of the same `count` training reviews, half of them positive, before and
    after."""
    rows = rows_of(reviews, count)
    labels = reviews.text.splits["train"].ys[rows]
    shown = []
    for method in possible(reviews):
        if method in IN_STEP:
            before = [_spoken(reviews, ids) for ids in reviews.text.splits["train"].xs[rows]]
            after = [_spoken(reviews, ids) for ids in changed(reviews, method, "train", rows, strength, seed)]
        else:
            before = [tokenize(reviews.said["train"][i]) for i in rows]
            after = [tokenize(of[0]) for of in variants(reviews, method, rows)]
        for label, old, new in zip(labels, before, after, strict=True):
            shown.append(Shown(method, int(label), *marked(old, new, words)))
    return shown


def _spoken(reviews: Reviews, ids: np.ndarray) -> list[str]:
    return [reviews.text.vocabulary[i] for i in ids if i not in (PAD, START)]


def marked(before: Sequence[str], after: Sequence[str], words: int = 30) -> tuple[str, str]:
    """Two texts from about the last `words` words of the first on, with the words in [brackets] that only one has."""
    begin = max(0, len(before) - words)
    old, new = [], []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if j <= begin and not i == j == begin:
            continue
        if kind == "equal" and i < begin:
            k, i = k + begin - i, begin
        same = kind == "equal"
        old += before[i:j] if same or i == j else [f"[{' '.join(before[i:j])}]"]
        new += after[k:m] if same or k == m else [f"[{' '.join(after[k:m])}]"]
    return " ".join(old), " ".join(new)
