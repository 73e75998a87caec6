"""Word vectors: the text formats of GloVe and word2vec, matched to a vocabulary; which words are near each other."""

import difflib
import gzip
import io
import json
import lzma
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32

from seqdyn.data.text import PAD, SPECIAL, Examples
from seqdyn.types import ConfigError

_SEPARATOR = re.compile("[ \t]")  # no other white space: a word may hold a non-breaking space
_DAMAGE = (
    *(UnicodeDecodeError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError),
    *(NotImplementedError, RuntimeError),  # an archive packed in a way that Python does not know, or encrypted
)
_FORMAT = "seqdyn vocabulary of so many words, each a JSON string"
"""The key of the first line of a vocabulary's file, which no older file began with."""


class Vectors(NamedTuple):
    """Words and a vector for each."""

    words: tuple[str, ...]
    table: Float32[np.ndarray, "v n"]


class Matched(NamedTuple):
    """A row for every id of a vocabulary, and which of them had a vector; `found.mean()` is the share of words."""

    table: Float32[np.ndarray, "v n"]
    found: Bool[np.ndarray, " v"]


def read_vectors(path: str | Path, limit: int | None = None) -> Vectors:
    """Vectors from a text file, plain, .gz or .zip: a line is a word and its n numbers, a space or tab between
    (Pennington, Socher & Manning 2014); a first line of two whole numbers, word2vec's, says how many words and n.

    A .zip with several texts is named with the one that is meant: `glove.6B.zip/glove.6B.50d.txt`. The first line fixes
    n; a word may itself hold spaces, as a few of glove.840B do. Of a word that stands twice the first counts, with a
    warning. `limit` reads so many words only. ConfigError, naming file and line, for a file that is missing, empty,
    damaged, or not such a text, a line of another width, and a number that is none or is not finite.
    """
    path = Path(path)
    rows: dict[str, tuple[int, np.ndarray]] = {}  # with the line
    again: list[tuple[str, int]] = []
    promised = width = blank = 0
    with _lines(path) as lines:
        for number, line in enumerate(lines, 1):
            if limit is not None and len(rows) == limit:
                break
            fields = _SEPARATOR.split(line.rstrip("\r\n \t"))
            if number == 1 and len(fields) == 2 and all(f.isascii() and f.isdigit() for f in fields):
                promised, width = int(fields[0]), int(fields[1])
                continue
            if fields == [""]:
                blank = blank or number  # right at the end of a file only
                continue
            width = width or len(fields) - 1
            word, values = " ".join(fields[: len(fields) - width]), fields[len(fields) - width :]
            right = f"a word and {width or 'n'} numbers"
            if blank:
                raise _wrong(path, blank, "has 0 fields after a word", right)
            row = _numbers(values)
            if len(fields) < width + 1 or width < 1 or row is None:
                raise _wrong(path, number, f"has {len(fields) - 1} fields after a word", right)
            if len(fields) > width + 1 and _numbers([fields[-width - 1]]) is not None:
                raise _wrong(path, number, f"has {len(fields) - 1} numbers", right)
            if not np.isfinite(row).all():
                raise _wrong(path, number, "has a number that is Inf or NaN, or beyond 32 bits", "finite numbers")
            if not word:
                raise _wrong(path, number, "has no word", right)
            if word in rows:
                again.append((word, number))
                continue
            rows[word] = number, row
    if not rows:
        raise ConfigError(f"{path} is empty, but must be a text of a word and its numbers a line.")
    if limit is None and len(rows) + len(again) < promised:
        warnings.warn(f"{path} has {len(rows) + len(again)} of the {promised} words of its first line", stacklevel=2)
    if again:
        word, number = again[0]
        first = rows[word][0]
        others = f", and {len(again) - 1} more lines repeat words" if len(again) > 1 else ""
        warnings.warn(
            f"{path}: the word {word!r} of line {first} stands again in line {number}{others}; the first counts",
            stacklevel=2,
        )
    return Vectors(tuple(rows), np.stack([row for _, row in rows.values()]))


def _numbers(fields: Sequence[str]) -> np.ndarray | None:
    try:
        with np.errstate(over="ignore"):
            return np.array(fields, dtype=np.float32)
    except ValueError:
        return None


def _wrong(path: Path, line: int, what: str, right: str) -> ConfigError:
    return ConfigError(f"line {line} of {path} {what}, but must have {right}.")


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a text, unpacked if need be."""
    try:
        with _binary(path) as binary, io.TextIOWrapper(binary, "utf-8-sig", newline="\n") as text:
            yield iter(text)
    except _DAMAGE as error:
        raise ConfigError(f"{path} cannot be read ({error}), but must be a UTF-8 text of word vectors.") from None


@contextmanager
def _binary(path: Path) -> Iterator[IO[bytes]]:
    inside = next((p for p in path.parents if p.suffix == ".zip" and p.is_file()), None)
    if inside is not None or (path.suffix == ".zip" and path.is_file()):
        with zipfile.ZipFile(inside or path) as archive, archive.open(_member(archive, path, inside)) as binary:
            yield binary
    elif not path.is_file():
        raise ConfigError(f"{path} does not exist, but must be a file of word vectors.")
    else:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as binary:
            yield binary  # type: ignore[misc]


def _member(archive: zipfile.ZipFile, path: Path, inside: Path | None) -> str:
    """The text of an archive that a path means."""
    texts = [name for name in archive.namelist() if name.endswith(".txt") and not name.startswith("__MACOSX/")]
    if inside is not None:
        chosen = [name for name in archive.namelist() if name == path.relative_to(inside).as_posix()]
    else:
        chosen = [name for name in texts if Path(name).stem == path.stem] or texts
    if len(chosen) != 1:
        example = f", as {inside or path}/{texts[0]}" if texts else ""
        raise ConfigError(
            f"{path} must be one text of an archive that holds {', '.join(texts) or 'no .txt'}; name it behind the "
            f"archive{example}."
        )
    return chosen[0]


def match(vocabulary: Sequence[str], vectors: Vectors, seed: int = 0) -> Matched:
    """The vector of every word of a vocabulary that has one; N(0, σ²) for the others, with σ that of all numbers in
    `vectors`, and 0 for `<pad>`."""
    index = {word: i for i, word in enumerate(vectors.words)}
    at = np.array([index.get(word, -1) for word in vocabulary])
    found = at >= 0
    drawn = np.random.default_rng(seed).normal(0, vectors.table.std(), (len(vocabulary), vectors.table.shape[1]))
    table = np.where(found[:, None], vectors.table[at], drawn.astype(np.float32))
    if vocabulary[PAD] == SPECIAL[PAD]:
        table[PAD] = 0
    return Matched(table, found)


def coverage(matched: Matched, examples: Examples) -> float:
    """The share of a split's words, `SPECIAL` left out but for `<unk>`, that have a vector."""
    counts = np.bincount(examples.xs.ravel(), minlength=len(matched.found))
    counts[[PAD, SPECIAL.index("<start>")]] = 0
    return float(counts[matched.found].sum() / counts.sum())


def cosine_similarity(a: Float[np.ndarray, "*b n"], b: Float[np.ndarray, "*b n"]) -> Float[np.ndarray, "*b"]:
    """a · b / (‖a‖ ‖b‖), 0 where either is 0."""
    sizes = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.sum(a * b, axis=-1) / np.where(sizes > 0, sizes, 1)


def nearest(word: str, words: tuple[str, ...], table: Float[np.ndarray, "v n"], k: int = 10) -> list[tuple[str, float]]:
    """The k other words whose vectors have the largest cosine similarity to that of `word`, largest first.

    ConfigError for a word that is not there, with those of a like spelling, and for a k below 1.
    """
    if k < 1:
        raise ConfigError(f"k is {k}, but must be at least 1.")
    if word not in words or word in SPECIAL:
        like = ", ".join(difflib.get_close_matches(word, words, 3)) or "none"
        raise ConfigError(f"word is {word!r}, but must be one of the vocabulary's (of a like spelling: {like}).")
    at = list(words).index(word)
    similarity = cosine_similarity(np.broadcast_to(table[at], table.shape), table)
    order = [int(i) for i in np.argsort(-similarity, kind="stable") if i != at and words[i] not in SPECIAL]
    return [(str(words[i]), float(similarity[i])) for i in order[:k]]


def neighbour_table(
    matched: Matched, k: int = 10, within: Bool[np.ndarray, " v"] | None = None
) -> Int32[np.ndarray, "v k"]:
    """The ids of the k nearest other words of every id, by cosine, nearest first: of those that had a vector, and are
    `within`, among themselves. Any other id is its own neighbour, k times.

    ConfigError for a k below 1, or not below the number of those words.
    """
    some = matched.found if within is None else matched.found & within
    ids = np.flatnonzero(some)
    if not 1 <= k < max(len(ids), 2):
        raise ConfigError(f"k is {k}, but must be 1 to {len(ids) - 1}, one less than the words that have a vector.")
    out = np.repeat(np.arange(len(some), dtype=np.int32)[:, None], k, axis=1)
    table = matched.table[ids]
    unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    for start in range(0, len(ids), 1000):  # 80 MB at a time for 20,000 words
        near = unit[start : start + 1000] @ unit.T
        row = np.arange(len(near))
        near[row, start + row] = -np.inf
        some_order = np.argpartition(-near, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(near, some_order, axis=1), axis=1, kind="stable")
        out[ids[start + row]] = ids[np.take_along_axis(some_order, order, axis=1)]
    return out


def save_vocabulary(path: str | Path, words: Sequence[str]) -> None:
    """Writes a word a line, as JSON, which has any symbol on one line; by renaming: a reader sees the old file or the
    whole new one."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    lines = [json.dumps({_FORMAT: len(words)}), *(json.dumps(str(word), ensure_ascii=False) for word in words)]
    part.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"))
    part.replace(path)


def load_vocabulary(path: str | Path) -> tuple[str, ...]:
    """The words of `save_vocabulary`, or of a file of an older version, a plain word a line; ConfigError if there is no
    such file, or it is damaged."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path} does not exist, but must be the vocabulary of a run directory.")
    try:
        first, *lines = path.read_bytes().decode("utf-8", "surrogatepass").removesuffix("\n").split("\n")
        if not first.startswith(f'{{"{_FORMAT}"'):
            old = (first, *lines)
            if "" in old:  # a line break as a word made two empty lines there
                at = old.index("")
                old = (*old[:at], "\n", *old[at + 2 :])
            return old
        words = tuple(json.loads(line) for line in lines)
        if len(words) != json.loads(first)[_FORMAT] or not all(isinstance(word, str) for word in words):
            raise ValueError(f"it has {len(words)} lines")
        return words
    except ValueError as error:
        raise ConfigError(f"{path} is damaged ({error}), but must be the vocabulary of a run directory.") from None
