"""Word vectors: the text formats of GloVe and word2vec, matched to a vocabulary; which words are near each other."""

import difflib
import gzip
import io
import json
import lzma
import os
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32

from seqdyn.data.text import PAD, SPECIAL, Examples
from seqdyn.types import ConfigError, whole


class Vectors(NamedTuple):
    """Words and a vector for each."""

    words: tuple[str, ...]
    table: Float32[np.ndarray, "v n"]


class Matched(NamedTuple):
    """A row for every id of a vocabulary, and which of them had a vector; `found.mean()` is the share of words."""

    table: Float32[np.ndarray, "v n"]
    found: Bool[np.ndarray, " v"]


def read_vectors(path: str | Path, limit: int | None = None) -> Vectors:
    """Vectors from a text file, plain, .gz or .zip: a line is a word and its n numbers, separated by single spaces or
    tabs (Pennington, Socher & Manning 2014); a first line of two whole numbers, word2vec's, says how many words and n.

    Of a .zip with several texts name one, as `glove.6B.zip/glove.6B.50d.txt`. Without word2vec's line the first line
    fixes n; a word may itself hold spaces, as a few of glove.840B do. `limit` reads so many words only. Of a word that
    stands twice the first counts, and a warning names both lines. A byte-order mark, Windows's line ends and empty
    lines at the end are no part of it. ConfigError, naming file and line, for a file that is missing, empty, damaged or
    not such a text, a line of another width, and a number that is none, not finite or too large for 32 bits.
    """
    limit = None if limit is None else whole("limit", limit)
    words: dict[str, int] = {}
    """To the line of each."""
    rows: list[np.ndarray] = []
    twice: list[tuple[int, str]] = []
    width, promised, empty = 0, 0, 0
    path = Path(path)
    with _lines(path) as lines:
        for number, line in enumerate(lines, 1):
            if len(words) == limit:
                break
            line = line.rstrip("\r\n").rstrip(" \t")
            if not line:
                empty = empty or number
                continue
            if empty:
                raise _wrong(path, empty, "has 0 fields", "a word and its numbers, as later lines have")
            fields = re.split("[ \t]", line)
            if number == 1 and len(fields) == 2 and all(f.isdecimal() for f in fields):
                promised, width = int(fields[0]), int(fields[1])
                continue
            width = width or len(fields) - 1
            word, values = " ".join(fields[: len(fields) - width]), fields[len(fields) - width :]
            row = _numbers(values)
            if len(fields) < width + 1 or width < 1 or row is None:
                raise _wrong(
                    path, number, f"has {len(fields) - 1} fields after a word", f"a word and {width or 'n'} numbers"
                )
            if len(fields) > width + 1 and _numbers([fields[-width - 1]]) is not None:
                raise _wrong(path, number, f"has {len(fields) - 1} numbers", f"a word and {width} numbers")
            if not np.isfinite(row).all():
                odd = values[int(np.argmin(np.isfinite(row)))]
                raise _wrong(path, number, f"has the number {odd}, which is Inf or NaN", "finite numbers of 32 bits")
            if not word:
                raise _wrong(path, number, "begins with a space", "a word and its numbers")
            if word in words:
                twice.append((number, word))
                continue
            words[word] = number
            rows.append(row)
    if not words:
        raise ConfigError(f"{path} is empty, but must be a text of a word and its numbers a line.")
    if len(words) != limit and len(words) + len(twice) < promised:
        found = len(words) + len(twice)
        raise ConfigError(f"{path} ends after {found} words, but must have the {promised} that its first line says.")
    if twice:
        number, word = twice[0]
        others = f", and {len(twice) - 1} more lines repeat a word" if len(twice) > 1 else ""
        warnings.warn(
            f"line {number} of {path} has the word {word!r} of line {words[word]} again, which counts{others}",
            stacklevel=2,
        )
    return Vectors(tuple(words), np.stack(rows))


def _numbers(fields: Sequence[str]) -> np.ndarray | None:
    """As 32-bit floats, Inf where they are too large; None if they are none."""
    try:
        with np.errstate(over="ignore"):
            return np.array(fields, dtype=np.float64).astype(np.float32)
    except ValueError:
        return None


def _wrong(path: Path, line: int, what: str, right: str) -> ConfigError:
    return ConfigError(f"line {line} of {path} {what}, but must have {right}.")


DAMAGE = (OSError, EOFError, RuntimeError, UnicodeError, ValueError, zlib.error, lzma.LZMAError, struct.error)
"""How libraries say that an archive or a text is not whole; `zipfile.BadZipFile` is none of them."""


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a text, unpacked if need be."""
    archive = next((p for p in (path, *path.parents) if p.suffix.lower() == ".zip" and p.is_file()), None)
    if archive is None and not path.is_file():
        raise ConfigError(f"{path} does not exist, but must be a file of word vectors.")
    binary: IO[bytes] | Any
    try:
        with ExitStack() as opened:
            if archive is not None:
                packed = opened.enter_context(zipfile.ZipFile(archive))
                binary = packed.open(_member(packed, archive, path))
            else:
                binary = gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb")
            opened.enter_context(binary)
            yield iter(opened.enter_context(io.TextIOWrapper(binary, "utf-8-sig", newline="\n")))
    except ConfigError:
        raise
    except (zipfile.BadZipFile, *DAMAGE) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{path} cannot be read ({why}), but must be a whole UTF-8 text of word vectors.") from None


def _member(packed: zipfile.ZipFile, archive: Path, path: Path) -> str:
    """Which of its files is meant: the one that the path names, the only text, or the one of the archive's name."""
    files = [n for n in packed.namelist() if not n.endswith("/") and not n.startswith("__MACOSX/")]
    named = path.relative_to(archive).as_posix()
    if named in files:
        return named
    texts = [n for n in files if Path(n).suffix.lower() in (".txt", ".vec")] or files
    chosen = [n for n in texts if Path(n).stem == archive.stem] or texts
    if path == archive and len(chosen) == 1:
        return chosen[0]
    like = f"; name one, as {archive}/{texts[0]}" if texts else ""
    raise ConfigError(f"{path} is not one text: {archive} holds {', '.join(texts) or 'none'}{like}.")


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
    """Writes the word of each id as a list in JSON, a word a line, by renaming: a reader sees the old file or the whole
    new one. ConfigError, naming the id, for what is no string."""
    path, words = Path(path), list(words)
    for i, word in enumerate(words):
        if not isinstance(word, str):
            raise ConfigError(f"vocabulary has {word!r} for id {i}; it must be a string.")
    # What cannot be seen is written by its number: line breaks of any kind, half a surrogate pair.
    lines = ",\n".join(json.dumps(word, ensure_ascii=not word.isprintable()) for word in words)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(f"[\n{lines}\n]\n", encoding="utf-8", newline="\n")
    part.replace(path)


def load_vocabulary(path: str | Path) -> tuple[str, ...]:
    """The words of `save_vocabulary`, or of the plain word a line that older run directories have; ConfigError if there
    is no such file, or it is damaged."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path} does not exist, but must be the vocabulary of a run directory.")
    try:
        text = path.read_bytes().decode()
        if text.startswith(
            ('[\n"', "[\n\n]")
        ):  # no older file begins so: its first word is <pad>, or its symbols ascend
            words = json.loads(text)
            if not all(isinstance(word, str) for word in words):
                raise ValueError("a word is no string")
            return tuple(words)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is damaged ({error}); it must be the list of words that a run wrote.") from None
    words = text.removesuffix("\n").split("\n")
    if "" in words[:-1]:  # the symbol of a new line was written as it is
        at = words.index("")
        words[at : at + 2] = ["\n"]
    return tuple(words)
