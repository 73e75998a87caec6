"""Text as numbers: words → vocabulary → padded ids [n, s], and back."""

import contextlib
import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import regex
from jaxtyping import Float32, Int32

from seqdyn.data.arrays import array, step_counts, three, whole_numbers
from seqdyn.parts import is_many, listed
from seqdyn.types import ConfigError, Pad, one_of, whole

SPECIAL = ("<pad>", "<start>", "<unk>")
PAD, START, UNKNOWN = range(3)

Truncate = Literal["first", "last"]
_PIECE = r"(?:[\p{L}\p{N}]\p{M}*(?:[\u200c\u200d](?=[\p{L}\p{N}]))?)+"
_WORD = regex.compile(rf"{_PIECE}(?:'{_PIECE})*")


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
    classes: tuple[str, ...] = ()
    """The label of each class, where labels are words."""


def tokenize(text: Any) -> list[str]:
    """The words of a text, a string, in lower case and composed (NFC), however written.

    `<br />` becomes a space. A word is a longest run of Unicode letters and digits, each with its combining marks.
    Single apostrophes (') and the joiners of Indic and Persian scripts may stand inside a word. Everything else
    separates words and is dropped.

    "Don't<br />stop: 'tis a well-made film_noir!" → don't stop tis a well made film noir. ConfigError for what is no
    string.
    """
    if not isinstance(text, str):
        raise ConfigError(f"text is {text!r:.40}; it must be a string.")
    return _WORD.findall(unicodedata.normalize("NFC", text.replace("<br />", " ").lower()))


def last_words(text: str, n: int) -> str:
    """A text on one line, `<br />` and white space as single spaces, from its n-th last word on."""
    line = " ".join(text.replace("<br />", " ").split())
    words = list(_WORD.finditer(line))
    return line[words[-n].start() :] if len(words) > n else line


def build_vocabulary(token_lists: Any, size: Any) -> tuple[str, ...]:
    """`SPECIAL` and then the most frequent words of lists of them, ties in alphabetical order: `size` entries in all,
    fewer if there are fewer words. A token `<unk>`, as some corpora have, is the special one. Give it the training
    split only. ConfigError for a size without room for a word, and for what is no lists of words."""
    size = whole("size", size, len(SPECIAL) + 1)
    counts: Counter[str] = Counter()
    for tokens in token_lists if is_many(token_lists) else [token_lists]:
        counts.update(_words("token_lists has", tokens))
    ranked = sorted(counts.keys() - set(SPECIAL), key=lambda word: (-counts[word], word))
    return (*SPECIAL, *ranked[: size - len(SPECIAL)])


def encode(tokens: Any, index: Any) -> list[int]:
    """`START` and the id of each word, `UNKNOWN` for a word that `index` (word → id) lacks: never empty. ConfigError
    for an index that is no dict, and for what is no list of words, as a text that is not cut into them."""
    if not isinstance(index, Mapping):
        right = "a dict, {word: i for i, word in enumerate(vocabulary)}"
        raise ConfigError(f"index is a {type(index).__name__}; it must be {right}.")
    return [START, *(index.get(word, UNKNOWN) for word in _words("tokens is", tokens))]


def _words(what: str, tokens: Any) -> Iterable[str]:
    """ConfigError for what is no list of words: a text is one of letters."""
    odd = tokens
    if is_many(tokens):
        tokens = list(tokens)
        odd = next((word for word in tokens if not isinstance(word, str)), None)
        if odd is None and None not in tokens:
            return tokens
    raise ConfigError(f"{what} {odd!r:.40}; it must be a list of words, as tokenize makes it of a text.")


def decode(ids: Any, vocabulary: Sequence[str]) -> list[str]:
    """The words of some ids [s], without padding and start; unknown words stay visible as `<unk>`. ConfigError for what
    is no id of the vocabulary."""
    last = len(vocabulary) - 1
    found = whole_numbers("ids", listed(ids), 0, last, f"an id between 0 and {last}")
    if found.ndim != 1:
        raise ConfigError(f"ids has the shape {found.shape}; it must be those of one text.")
    numbers: list[int] = found.tolist()
    return [vocabulary[i] for i in numbers if i not in (PAD, START)]


def pad_to(
    rows: Any, length: Any, truncate: Truncate = "last", pad: Pad = "before"
) -> tuple[Int32[np.ndarray, "n s"], Int32[np.ndarray, " n"]]:
    """`(ids, lengths)` with s = `length`: the first or last ids of each row, a list of any kind, `PAD` before or after
    them, and how many were kept (0 for an empty row, which `encode` never makes). ConfigError for another word or
    length, and for rows that are not whole numbers of 32 bits."""
    one_of("truncate", truncate, get_args(Truncate))
    one_of("pad", pad, get_args(Pad))
    length = whole("length", length)
    if not is_many(rows):
        raise ConfigError(f"rows is {rows!r:.60}; it must be a list of lists of ids.")
    rows = _ids([*rows])
    ids = np.full((len(rows), length), PAD, np.int32)
    lengths = np.array([min(len(row), length) for row in rows], np.int32)
    for out, row, n in zip(ids, rows, lengths, strict=True):
        start = length - n if pad == "before" else 0
        out[start : start + n] = row[:n] if truncate == "first" else row[len(row) - n :]
    return ids, lengths


def _ids(rows: list[Any]) -> list[Int32[np.ndarray, " _"]]:
    """Of each row; of plain lists all at once, which is several times faster."""
    if rows and all(type(row) is list for row in rows):
        with contextlib.suppress(ConfigError):  # which row it is is said below
            ends = np.cumsum([len(row) for row in rows])
            return np.split(_ids_of(0, list(itertools.chain.from_iterable(rows))), ends[:-1])
    return [_ids_of(i, row) for i, row in enumerate(rows)]


def _ids_of(i: int, row: Any) -> Int32[np.ndarray, " _"]:
    found = whole_numbers(f"row {i}", row, -(2**31), 2**31 - 1, "ids, whole numbers of 32 bits")
    if found.ndim != 1:
        raise ConfigError(f"row {i} has the shape {found.shape}; it must be a list of ids.")
    return found


def shuffled(examples: Any, seed: Any, pad: Pad = "before") -> Examples:
    """The same sequences, the steps of each in a random order of its own, padding where it was: what a network
    loses on them is what order was worth to it. ConfigError for another `pad` or seed, for what is no `Examples`, a
    tuple or lists of its three, and for labels of every step, which would stay where they are."""
    one_of("pad", pad, get_args(Pad))
    rows, given, ys = three("examples", examples)
    rows, ys = array("xs of examples", rows, "an array"), array("ys of examples", ys, "an array")
    if rows.ndim < 2:
        raise ConfigError(f"xs of examples has the shape {rows.shape}; it must be [n, s], or [n, s, d].")
    n, s = rows.shape[:2]
    if ys.shape[:2] == (n, s) and s > 1:
        raise ConfigError(f"ys of examples has the shape {ys.shape}, a label of every step; each must have one alone.")
    given = step_counts("of examples", given, s)
    if given.shape != (n,):
        raise ConfigError(f"lengths of examples has the shape {given.shape}; it must be {(n,)}.")
    step = np.arange(s)[None]
    lengths = given[:, None]
    mask = step >= s - lengths if pad == "before" else step < lengths
    # Padding keeps its place: its key is its position, and valid steps draw theirs from their own range.
    draw = np.random.default_rng(whole("seed", seed, 0)).random((n, s))
    first = s - lengths if pad == "before" else np.zeros_like(lengths)
    order = np.argsort(np.where(mask, first + draw * lengths, step), axis=1, kind="stable")
    xs = np.take_along_axis(rows, order.reshape(order.shape + (1,) * (rows.ndim - 2)), axis=1)
    return Examples(xs, given, ys)


def labelled_text(
    reviews: Any,
    *,
    vocabulary: int = 10_000,
    length: int = 80,
    truncate: Truncate = "last",
    pad: Pad = "before",
) -> Text:
    """Labelled texts, a mapping `reviews[split] = (texts, labels)`, as ids; the vocabulary is that of 'train' alone.

    Texts are strings (or UTF-8 bytes, as TFDS has them) in a list, array, Series or table of one column. Labels are
    classes 0 … k − 1, or words; words become classes in their alphabetical order: `Text.classes`. `vocabulary` counts
    `SPECIAL` too, so ids are below it. A row begins with `<start>`; a long text that keeps its last words loses it.

    ConfigError, which names split and example, for a split that is missing or empty, what is no text, a text without a
    word, labels that are no classes of train's, and settings out of range.
    """
    check_settings(vocabulary, length, truncate, pad)
    if not isinstance(reviews, Mapping):
        raise ConfigError(f"reviews is {reviews!r:.80}; it must be a dict, split -> (texts, labels).")
    if "train" not in reviews:
        raise ConfigError(f"reviews has the splits {', '.join(map(str, reviews)) or 'none'}, but must have train.")
    texts: dict[str, list[str]] = {}
    labels: dict[str, list[int]] = {}
    names: tuple[str, ...] = ()
    for name in sorted(reviews, key=lambda name: name != "train"):  # train first: it says what the classes are
        both = reviews[name]
        if not isinstance(both, tuple | list) or len(both) != 2:
            shown = " ".join(repr(both).split())  # a frame is many lines
            raise ConfigError(f"reviews[{name!r}] is {shown:.80}; it must be two lists, (texts, labels).")
        texts[name], given = _texts(name, both[0]), _decoded(f"the labels of {name}", both[1])
        if not texts[name] or len(texts[name]) != len(given):
            raise ConfigError(
                f"{name} has {len(texts[name])} texts and {len(given)} labels, but must have one each, or more."
            )
        if name == "train" and all(isinstance(label, str) or _missing(label) for label in given):
            names = tuple(sorted({label for label in given if not _missing(label)}))
        labels[name] = [_class(name, i, label, names) for i, label in enumerate(given)]
        classes = len(names) or max(labels["train"]) + 1
        for i, label in enumerate(labels[name]):
            if label >= classes:
                raise ConfigError(f"label {i} of {name} is {label!r}, but must be one of train's, 0 to {classes - 1}.")
    # Words are made twice: keeping those of 25,000 reviews takes a third of a gigabyte, making them a second.
    words = build_vocabulary(map(tokenize, texts["train"]), vocabulary)
    index = {word: i for i, word in enumerate(words)}

    def examples(name: str) -> Examples:
        rows = [encode(tokenize(text), index) for text in texts[name]]
        for i, row in enumerate(rows):
            if len(row) == 1:
                raise ConfigError(f"text {i} of {name} is {texts[name][i][:40]!r}, but must have a word.")
        return Examples(*pad_to(rows, length, truncate, pad), np.asarray(labels[name], np.int32))

    return Text(words, {name: examples(name) for name in reviews}, names)


def _decoded(where: str, values: Any) -> list[Any]:
    """A list of any kind as Python's, or a table of one column; bytes as words."""
    shape = getattr(values, "shape", ())
    if len(shape) > 1:
        if len(shape) > 2 or shape[1] != 1:
            raise ConfigError(f"{where} are a {type(values).__name__} of the shape {shape}; they must be a list.")
        values = np.asarray(values)[:, 0]
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in listed(values)]


def _texts(name: str, texts: Any) -> list[str]:
    if isinstance(texts, str | bytes):
        raise ConfigError(f"the texts of {name} are {texts[:40]!r}, but must be a list of texts.")
    found = _decoded(f"the texts of {name}", texts)
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise ConfigError(f"text {i} of {name} is {text!r:.40}, but must be a string.")
    return found


def _missing(label: Any) -> bool:
    return label is None or (isinstance(label, float) and label != label) or type(label).__name__ == "NAType"


def _class(name: str, i: int, label: Any, names: tuple[str, ...]) -> int:
    """The class of a label: its place among the words of train's, or itself."""
    if _missing(label):
        raise ConfigError(f"label {i} of {name} is {label!r}, but must not be missing.")
    if names and label in names:
        return names.index(label)
    if not names and isinstance(label, int | float) and float(label).is_integer() and 0 <= label < 2**31:
        return int(label)
    right = f"one of train's, {', '.join(names)}" if names else "a class 0, 1, …, or all labels words"
    raise ConfigError(f"label {i} of {name} is {label!r}, but must be {right}.")


def check_settings(vocabulary: int, length: int, truncate: str, pad: str) -> None:
    """Raises ConfigError for a setting of `labelled_text` that cannot be."""
    whole("vocabulary", vocabulary, len(SPECIAL) + 1)
    whole("length", length)
    one_of("truncate", truncate, get_args(Truncate))
    one_of("pad", pad, get_args(Pad))
