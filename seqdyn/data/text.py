"""Text as numbers: words → vocabulary → padded ids [n, s], and back."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import regex
from jaxtyping import Float32, Int, Int32

from seqdyn.data.arrays import array, whole_numbers
from seqdyn.types import ConfigError, one_of, whole

SPECIAL = ("<pad>", "<start>", "<unk>")
PAD, START, UNKNOWN = range(3)

Truncate = Literal["first", "last"]
Pad = Literal["before", "after"]
_INSIDE = r"[[\p{L}\p{N}\p{Mn}\p{Mc}]--[\ufe00-\ufe0f]]"  # a mark that chooses an emoji's looks is no part of a word
_RUN = rf"[\p{{L}}\p{{N}}](?:{_INSIDE}|[\u200c\u200d](?={_INSIDE}))*"
WORD = regex.compile(f"{_RUN}(?:'{_RUN})*", regex.V1)
"""A longest run of letters and digits with the marks on them, joiners between them and single apostrophes inside."""


class Examples(NamedTuple):
    """Sequences of one length, padded on the side that `Spec.pad` names, and what each should give.

    In a bank (`tasks.BANK`) xs and lengths have a second axis, K variants of each.
    """

    xs: Int32[np.ndarray, "n s"] | Float32[np.ndarray, "n s d"]
    """Ids, or d numbers a step."""
    lengths: Int32[np.ndarray, " n"]
    """How many steps of each are not padding, 1 … s."""
    ys: Int32[np.ndarray, " n"] | Float32[np.ndarray, "..."]
    """The class of each; or a number; or, [n, s, k], numbers for each step."""

    def take(self, rows: Any) -> "Examples":
        """Those of some rows, or of a slice."""
        return Examples(*(np.asarray(leaf)[rows] for leaf in self))


class Text(NamedTuple):
    """A vocabulary (id → word, `SPECIAL` first) and splits in its ids."""

    vocabulary: tuple[str, ...]
    splits: dict[str, Examples]
    classes: tuple[Any, ...] = ()
    """What class 0, 1, … was called, where labels were words."""


def tokenize(text: str) -> list[str]:
    """The words of a text: `<br />` becomes a space, all is lower-cased and composed (Unicode's NFC: é is one letter
    however it was typed), and a word is a longest run of Unicode letters and digits, with the marks that stand on them
    (of Hindi, say), joiners between them, and single apostrophes (') inside; the rest separates and is dropped.

    "Don't<br />stop: 'tis a well-made film_noir!" → don't stop tis a well made film noir.
    """
    return WORD.findall(unicodedata.normalize("NFC", text.replace("<br />", " ").lower()))


def last_words(text: str, n: int) -> str:
    """A text on one line, `<br />` and white space as single spaces, from its n-th last word on."""
    n = whole("n", n)
    line = " ".join(text.replace("<br />", " ").split())
    words = list(WORD.finditer(line))
    return line[words[-n].start() :] if len(words) > n else line


def build_vocabulary(token_lists: Iterable[Iterable[str]], size: int) -> tuple[str, ...]:
    """`SPECIAL` and then the most frequent words, ties in alphabetical order: `size` entries in all, fewer if
    there are fewer words. Give it the training split only."""
    size = whole("size", size, len(SPECIAL))
    counts = Counter()
    for tokens in token_lists:
        counts.update(tokens)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return (*SPECIAL, *ranked[: size - len(SPECIAL)])


def encode(tokens: Iterable[str], index: Mapping[str, int]) -> list[int]:
    """`START` and the id of each word, `UNKNOWN` for a word that `index` (word → id) lacks: never empty."""
    return [START, *(index.get(word, UNKNOWN) for word in tokens)]


def decode(ids: Iterable[int] | Int[np.ndarray, " s"], vocabulary: Sequence[str]) -> list[str]:
    """The words of some ids, without padding and start; unknown words stay visible as `<unk>`."""
    return [vocabulary[i] for i in ids if i not in (PAD, START)]


def pad_to(
    rows: Sequence[Sequence[int]], length: int, truncate: Truncate = "last", pad: Pad = "before"
) -> tuple[Int32[np.ndarray, "n s"], Int32[np.ndarray, " n"]]:
    """`(ids, lengths)` with s = `length`: the first or last ids of each row, `PAD` before or after them, and
    how many were kept (0 for an empty row, which `encode` never makes)."""
    length = whole("length", length)
    one_of("truncate", truncate, get_args(Truncate))
    one_of("pad", pad, get_args(Pad))
    ids = np.full((len(rows), length), PAD, np.int32)
    lengths = np.array([min(len(row), length) for row in rows], np.int32)
    for out, row, n in zip(ids, rows, lengths, strict=True):
        start = length - n if pad == "before" else 0
        out[start : start + n] = row[:n] if truncate == "first" else row[len(row) - n :]
    return ids, lengths


def shuffled(examples: Examples, seed: int, pad: Pad = "before") -> Examples:
    """The same sequences, the steps of each in a random order of its own, padding where it was: what a network
    loses on them is what order was worth to it."""
    one_of("pad", pad, get_args(Pad))
    n, s = examples.xs.shape[:2]
    step = np.arange(s)[None]
    lengths = examples.lengths[:, None]
    live = step >= s - lengths if pad == "before" else step < lengths
    # Padding keeps its place: its key is its position, and live steps draw theirs from their own range.
    draw = np.random.default_rng(seed).random((n, s))
    first = s - lengths if pad == "before" else np.zeros_like(lengths)
    order = np.argsort(np.where(live, first + draw * lengths, step), axis=1, kind="stable")
    xs = np.take_along_axis(examples.xs, order.reshape(order.shape + (1,) * (examples.xs.ndim - 2)), axis=1)
    return examples._replace(xs=xs)


def labelled_text(
    reviews: Mapping[str, tuple[Sequence[str], Any]],
    *,
    vocabulary: int = 10_000,
    length: int = 80,
    truncate: Truncate = "last",
    pad: Pad = "before",
) -> Text:
    """Labelled texts, `reviews[split] = (texts, labels)`, as ids; the vocabulary is made of the split 'train' alone.

    `vocabulary` counts `SPECIAL` too, so ids are below it. A row begins with `<start>`, which truncation to the last
    words drops from a long one. Labels are classes 0 … k − 1, or words (or bytes): then the classes are train's, in
    alphabetical order, and `Text.classes` names them. ConfigError, naming split and example, for a split that is
    missing or empty, a text that is no string or has no word, a label that train does not have, and settings out of
    range.
    """
    check_settings(vocabulary, length, truncate, pad)
    if not isinstance(reviews, Mapping) or "train" not in reviews:
        there = (
            ", ".join(map(str, reviews)) if isinstance(reviews, Mapping) else f"no dict but {type(reviews).__name__}"
        )
        raise ConfigError(f"reviews has the splits {there or 'none'}, but must have train.")
    named = {name: _texts_and_labels(name, reviews[name]) for name in sorted(reviews, key=lambda n: n != "train")}
    classes: tuple[Any, ...] = ()
    ys = {}
    for name, (_, labels) in named.items():  # train first: it says what the classes are
        if named["train"][1].dtype.kind in "SU":
            classes = classes or tuple(np.unique(labels).tolist())
            index = {label: i for i, label in enumerate(classes)}
            for i, label in enumerate(labels.tolist()):
                if label not in index:
                    known = ", ".join(map(repr, classes[:20]))
                    raise ConfigError(f"label {i} of {name} is {label!r}, but must be one of train's, {known}.")
            ys[name] = np.array([index[label] for label in labels.tolist()], np.int32)
        else:
            most = int(ys["train"].max()) if ys else 2**31 - 1
            right = f"one of train's, 0 to {most}" if ys else "a class, counted from 0"
            for i, label in enumerate(labels.tolist()):
                if isinstance(label, str | bytes) or not 0 <= label <= most or label != int(label):
                    raise ConfigError(f"label {i} of {name} is {label!r}, but must be {right}.")
            ys[name] = whole_numbers(f"labels of {name}", labels, 0, most, right)
    # Words are made twice: keeping those of 25,000 reviews takes a third of a gigabyte, making them a second.
    words = build_vocabulary(map(tokenize, named["train"][0]), vocabulary)
    index = {word: i for i, word in enumerate(words)}

    def examples(name: str) -> Examples:
        texts = named[name][0]
        rows = [encode(tokenize(text), index) for text in texts]
        for i, row in enumerate(rows):
            if len(row) == 1:
                raise ConfigError(f"text {i} of {name} is {texts[i][:40]!r}, but must have a word.")
        return Examples(*pad_to(rows, length, truncate, pad), ys[name])

    return Text(words, {name: examples(name) for name in reviews}, classes)


def _texts_and_labels(name: str, split: Any) -> tuple[list[str], np.ndarray]:
    if not isinstance(split, tuple | list) or len(split) != 2 or isinstance(split[0], str):
        raise ConfigError(f"{name} is {split!r:.40}, but must be (texts, labels).")
    texts, labels = list(split[0]), split[1]
    labels = array(f"labels of {name}", labels, "classes, numbers or words")
    if not len(texts) or labels.shape != (len(texts),):
        count = len(labels) if labels.ndim == 1 else f"{labels.shape}"
        raise ConfigError(f"{name} has {len(texts)} texts and {count} labels, but must have one each, or more.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ConfigError(f"text {i} of {name} is {text!r:.40}, but must be a string.")
    return texts, labels


def check_settings(vocabulary: int, length: int, truncate: str, pad: str) -> None:
    """Raises ConfigError for a setting of `labelled_text` that cannot be."""
    whole("vocabulary", vocabulary, 4)  # the three special ids and a word
    whole("length", length)
    one_of("truncate", truncate, get_args(Truncate))
    one_of("pad", pad, get_args(Pad))
