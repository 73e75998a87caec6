"""Data sets on disk as arrays: text → words → vocabulary → padded ids, split once and cached.

The only module that reads data sets. `imdb` is the sum of the pieces above it, which serve any text.
"""

import hashlib
import json
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.request import Request, urlopen

import numpy as np
from jaxtyping import Int, Int32

from seqdyn.types import ConfigError

SPECIAL = ("<pad>", "<start>", "<unk>")
PAD, START, UNKNOWN = range(3)
TOKENIZER_VERSION = 1
"""Part of every cache's key: raise it when the code changes what the cached arrays hold."""

Truncate = Literal["first", "last"]
Pad = Literal["before", "after"]
SPLITS = ("train", "validation", "test")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_IMDB = "imdb_reviews/plain_text/1.0.0"
_DATA_DIR = f"a TFDS data directory that holds {_IMDB} as array_record files"
_IMDB_ORIGIN = "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"  # as in TFDS's builder


class Examples(NamedTuple):
    """Padded sequences of ids, how many ids of each are not padding (1 … s), and the class of each."""

    ids: Int32[np.ndarray, "n s"]
    lengths: Int32[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]


class Text(NamedTuple):
    """A vocabulary (id → word, `SPECIAL` first) and the splits `train`, `validation`, `test` in its ids."""

    vocabulary: tuple[str, ...]
    splits: dict[str, Examples]


def tokenize(text: str) -> list[str]:
    """The words of a text: `<br />` becomes a space, all is lower-cased, and a word is a longest run of
    Unicode letters and digits, with single apostrophes (') allowed inside; the rest separates and is dropped.

    "Don't<br />stop: 'tis a well-made film_noir!" → don't stop tis a well made film noir.
    """
    return _WORD.findall(text.replace("<br />", " ").lower())


def build_vocabulary(token_lists: Iterable[Iterable[str]], size: int) -> tuple[str, ...]:
    """`SPECIAL` and then the most frequent words, ties in alphabetical order: `size` entries in all, fewer if
    there are fewer words. Give it the training split only."""
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
    ids = np.full((len(rows), length), PAD, np.int32)
    lengths = np.array([min(len(row), length) for row in rows], np.int32)
    for out, row, n in zip(ids, rows, lengths, strict=True):
        start = length - n if pad == "before" else 0
        out[start : start + n] = row[:n] if truncate == "first" else row[len(row) - n :]
    return ids, lengths


def balanced_order(labels: Int[np.ndarray, " n"], seed: int) -> Int[np.ndarray, " n"]:
    """A random order of the examples in which every beginning holds the classes in their proportions.

    A function of labels and seed alone, so a shorter beginning is part of a longer one.
    """
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(place, kind="stable")


def stratified_split(
    labels: Int[np.ndarray, " n"], fraction: float, seed: int
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " k"]]:
    """`(rest, held_out)`: disjoint, complete, ascending indices; `held_out` has `fraction` of the examples,
    rounded, and of each class, and neither is empty. ConfigError for fewer than two examples or a fraction
    outside (0, 1)."""
    n = len(labels)
    _require(n >= 2, "labels", n, "at least 2 examples, one for each part")
    _require(0 < fraction < 1, "fraction", fraction, "between 0 and 1, both excluded")
    k = min(max(round(fraction * n), 1), n - 1)
    order = balanced_order(labels, seed)
    return np.sort(order[k:]), np.sort(order[:k])


def imdb(
    data_dir: str | Path | None = None,
    *,
    vocabulary: int = 10_000,
    length: int = 80,
    truncate: Truncate = "last",
    pad: Pad = "before",
    validation: float = 0.2,
    seed: int = 0,
    limit: int | None = None,
    cache_dir: str | Path | None = None,
) -> Text:
    """IMDB film reviews, label 1 = positive (Maas et al., ACL 2011; TFDS imdb_reviews/plain_text 1.0.0).

    At the defaults train has 20,000 and validation 5,000, the official training half split by label with
    `seed`, and test 25,000, the official one; rows keep TFDS's order. `vocabulary` counts `SPECIAL` too, so
    ids are below it; the words are train's. As in Keras's IMDB a review begins with `<start>`, which
    truncation to the last words drops from a long one. `limit` (for smoke tests) keeps that many reviews of
    each official half, classes in proportion, drawn with `seed` before validation is split off.

    `data_dir` is a TFDS data directory with array_record files, read only. None means TFDS's default
    (`TFDS_DATA_DIR`, else `~/tensorflow_datasets`), and TFDS downloads into it what is missing (84 MB).
    The result is cached, a file for each combination of settings (17 MB at the defaults), in `cache_dir`,
    else `SEQDYN_CACHE`, else `~/.cache/seqdyn`: damaged it is made again, and one that cannot be written
    costs a warning. ConfigError for a wrong argument, and for data missing, damaged or in another format.
    """
    _require(vocabulary >= 4, "vocabulary", vocabulary, "at least 4: the three special ids and a word")
    _require(length >= 1, "length", length, "at least 1")
    _require(truncate in ("first", "last"), "truncate", truncate, "'first' or 'last'")
    _require(pad in ("before", "after"), "pad", pad, "'before' or 'after'")
    _require(0 < validation < 1, "validation", validation, "between 0 and 1, both excluded")
    _require(seed >= 0, "seed", seed, "at least 0")
    _require(limit is None or limit >= 2, "limit", limit, "at least 2, or None for all reviews")
    folder = _imdb_folder(data_dir)
    key = _key(folder, (vocabulary, length, truncate, pad, validation, seed, limit))
    caches = Path(cache_dir or os.environ.get("SEQDYN_CACHE") or "~/.cache/seqdyn").expanduser()
    path = caches / f"imdb-{key[:16]}.npz"
    text = _load(path, key)
    if text is not None:
        return text

    reviews, labels = _read(folder, "train", limit, seed)
    rest, held_out = stratified_split(labels, validation, seed)
    # Train's words are made twice: keeping them takes a third of a gigabyte, making them a second.
    words = build_vocabulary((tokenize(reviews[i]) for i in rest), vocabulary)
    index = {word: i for i, word in enumerate(words)}

    def examples(reviews: Iterable[str], labels: np.ndarray) -> Examples:
        rows = [encode(tokenize(review), index) for review in reviews]
        return Examples(*pad_to(rows, length, truncate, pad), labels)

    train = examples((reviews[i] for i in rest), labels[rest])
    held = examples((reviews[i] for i in held_out), labels[held_out])
    test = examples(*_read(folder, "test", limit, seed))
    text = Text(words, dict(zip(SPLITS, (train, held, test), strict=True)))
    _save(path, key, text)
    return text


def _wrong(field: str, value: object, rule: str, cause: Exception | None = None) -> ConfigError:
    why = f" ({type(cause).__name__}: {' '.join(str(cause).split())})" if cause else ""
    return ConfigError(f"{field} is {value!r}, but must be {rule}{why}.")


def _require(right: bool, field: str, value: object, rule: str) -> None:
    if not right:
        raise _wrong(field, value, rule)


def _imdb_folder(data_dir: str | Path | None) -> Path:
    """The folder of the prepared data set, checked here: TFDS's own error would speak of TFRECORD."""
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    info = root / _IMDB / "dataset_info.json"
    if not info.is_file():
        _require(data_dir is None, "data_dir", str(data_dir), f"{_DATA_DIR}: {info} does not exist")
        _download_imdb(root)
    # A file that is no JSON is left to TFDS to refuse; one without a format is from the days of tfrecord.
    found = re.search(r'"fileFormat":\s*"(\w+)"', info.read_text())
    files = found[1] if found else "tfrecord"
    _require(files == "array_record", "data_dir", str(root), f"{_DATA_DIR}: here they are {files}")
    return info.parent


def _download_imdb(root: Path) -> None:
    try:
        # Without a network TFDS would try again for over three minutes before it says so.
        urlopen(Request(_IMDB_ORIGIN, method="HEAD"), timeout=30).close()
        from unittest import mock

        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.download import extractor

        # TFDS opens the archive with TensorFlow (tensorflow/datasets issue 11058); a plain file will do.
        with mock.patch.object(extractor, "_open_or_pass", lambda path: open(path, "rb")):
            name = ":".join(_IMDB.rsplit("/", 1))
            tfds.builder(name, data_dir=root, file_format="array_record").download_and_prepare()
    except Exception as error:
        rule = f"{_DATA_DIR} (pass --data-dir): {root} does not, and the download into it failed"
        raise _wrong("data_dir", None, rule, error) from error


def _read(folder: Path, split: str, limit: int | None, seed: int) -> tuple[list[str], np.ndarray]:
    """A split's reviews and labels, `limit` of them at most, in TFDS's order."""
    import tensorflow_datasets as tfds  # here, because it takes a second

    try:
        builder: Any = tfds.builder_from_directory(folder)
        source = builder.as_data_source(split=split)
        rows = source.__getitems__(range(len(source)))
        # TFDS reads a shard that was cut short as None, without an error: here it becomes one.
        labels = np.array([row["label"] for row in rows], np.int32)
        kept = np.sort(balanced_order(labels, seed)[:limit])
        return [rows[i]["text"].decode() for i in kept], labels[kept]
    except Exception as error:
        rule = f"{_DATA_DIR}: those of the split {split} are damaged or missing"
        raise _wrong("data_dir", str(folder.parents[2]), rule, error) from error


def _key(folder: Path, settings: tuple) -> str:
    sizes = sorted((file.name, file.stat().st_size) for file in folder.glob("*.array_record*"))
    facts = [TOKENIZER_VERSION, _IMDB, (folder / "dataset_info.json").read_text(), sizes, settings]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


def _digest(key: str, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(key.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _load(path: Path, key: str) -> Text | None:
    """What `_save` wrote for this key, or None if it is not there, not whole, or another key's."""
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if arrays.pop("digest").item() != _digest(key, arrays):
            return None
    except Exception:  # damage shows in a dozen ways, and the answer to each is to make the file again
        return None
    splits = {s: Examples(*(arrays[f"{s}.{field}"] for field in Examples._fields)) for s in SPLITS}
    return Text(tuple(arrays["vocabulary"].tolist()), splits)


def _save(path: Path, key: str, text: Text) -> None:
    arrays = {f"{split}.{field}": a for split, e in text.splits.items() for field, a in e._asdict().items()}
    arrays["vocabulary"] = np.array(text.vocabulary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # renamed when whole: never seen in part
            part = Path(folder, path.name)
            np.savez(part, digest=np.array(_digest(key, arrays)), **arrays)
            os.replace(part, path)
    except OSError as error:
        warnings.warn(f"{path} could not be written ({error}): the data set is not cached", stacklevel=3)
