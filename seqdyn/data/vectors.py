"""Word vectors: the formats of GloVe and word2vec, matched to a vocabulary; which words are near each other."""

import difflib
import gzip
import io
import json
import lzma
import re
import warnings
import zipfile
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32

from seqdyn.data.arrays import array
from seqdyn.data.text import PAD, SPECIAL, Examples
from seqdyn.files import in_one_step
from seqdyn.parts import is_many, listed
from seqdyn.types import ConfigError, as_path, whole

_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_SEPARATOR = re.compile("[ \t]")  # no other white space: a word may hold a non-breaking space
_DAMAGE = (
    *(UnicodeDecodeError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError),
    *(MemoryError, OverflowError),  # a first line that promises numbers beyond any memory
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
    """Vectors from a file, plain, .gz or .zip, in one of three formats, told apart by what is in it:

        GloVe             a line is a word and its n numbers, a space or tab between (Pennington et al. 2014)
        word2vec, text    the same behind a first line of two whole numbers: how many words, and n
        word2vec, binary  that first line, then each word, a space, n float32, lowest byte first (Mikolov et al. 2013)

    Of a .zip with several files name the one that is meant: `glove.6B.zip/glove.6B.50d.txt`. The first line fixes n; in
    a text format a word may itself hold spaces, as a few of glove.840B do. If a word stands twice, the first counts,
    with a warning. `limit` reads only so many words.

    Raises ConfigError, which names file and line or word, if the file is missing, empty, damaged, or in no such format;
    for a line of another width, a word that is cut off, and a number that is none or is not finite.
    """
    path = as_path("path", path, "that of a file of word vectors")
    limit = None if limit is None else whole("limit", limit)
    rows: dict[str, tuple[int, np.ndarray]] = {}  # with the line
    again: list[tuple[str, int]] = []
    try:
        promised, width, binary = _format(path)
        with (
            _binary(path) as file,
            closing((_binary_rows if binary else _text_rows)(path, file, promised, width)) as found,
        ):
            for number, word, row in found:
                if word in rows:
                    again.append((word, number))
                else:
                    rows[word] = number, row
                if limit is not None and len(rows) == limit:
                    break
    except _DAMAGE as error:
        raise ConfigError(
            f"{path} cannot be read ({str(error) or type(error).__name__}), but must be a UTF-8 text of word vectors."
        ) from None
    if not rows:
        raise ConfigError(f"{path} is empty, but must be a text of a word and its numbers a line.")
    if limit is None and len(rows) + len(again) < promised:
        warnings.warn(f"{path} has {len(rows) + len(again)} of the {promised} words of its first line", stacklevel=2)
    if again:
        word, number = again[0]
        unit, first = "word" if binary else "line", rows[word][0]
        others = f", and {len(again) - 1} more {unit}s repeat words" if len(again) > 1 else ""
        warnings.warn(
            f"{path}: the word {word!r} of {unit} {first} stands again in {unit} {number}{others}; the first counts",
            stacklevel=2,
        )
    return Vectors(tuple(rows), np.stack([row for _, row in rows.values()]))


Rows = Generator[tuple[int, str, np.ndarray], None, None]
"""(which line or word of the file, the word, its vector)"""


def _format(path: Path) -> tuple[int, int, bool]:
    """(words, n, is it word2vec's binary format?), 0 and 0 without word2vec's first line.

    In what follows that line is a control character, which no text holds; in a file whose name has .bin, a first word
    without n numbers behind it will do, for a few float32 may look like letters.
    """
    with _binary(path) as file:
        first = file.readline(100).decode("utf-8-sig", "replace").split()
        begin = file.read(4096)
    if len(first) != 2 or not all(f.isascii() and f.isdigit() for f in first):
        return 0, 0, False
    words, width = map(int, first)
    fields = _fields(begin.partition(b"\n")[0].decode("utf-8", "replace"))
    worded = len(fields) > width and _numbers(fields[len(fields) - width :]) is not None
    return (
        words,
        width,
        _CONTROL.search(begin) is not None
        or (".bin" in path.with_name(path.name.lower()).suffixes and begin != b"" and not worded),
    )


def _fields(line: str) -> list[str]:
    return _SEPARATOR.split(line.rstrip("\r\n \t"))


def _text_rows(path: Path, file: IO[bytes], promised: int, width: int) -> Rows:
    begin, blank = 2 if promised or width else 1, 0
    with io.TextIOWrapper(file, "utf-8-sig", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            fields = _fields(line)
            if number < begin:
                continue
            if fields == [""]:
                blank = blank or number  # right at the end of a file only
                continue
            width = width or len(fields) - 1
            word, values = " ".join(fields[: len(fields) - width]), fields[len(fields) - width :]
            right = f"a word and {width or 'n'} numbers"
            if blank:
                raise _wrong(path, f"line {blank}", "has 0 fields after a word", right)
            row = _numbers(values)
            if len(fields) < width + 1 or width < 1 or row is None:
                raise _wrong(path, f"line {number}", f"has {len(fields) - 1} fields after a word", right)
            if len(fields) > width + 1 and _numbers([fields[-width - 1]]) is not None:
                raise _wrong(path, f"line {number}", f"has {len(fields) - 1} numbers", right)
            _check(path, f"line {number}", word, row)
            yield number, word, row


def _binary_rows(path: Path, file: IO[bytes], promised: int, width: int) -> Rows:
    right = f"UTF-8, a space, and {width} float32"
    if not promised or not width:
        raise _wrong(path, "line 1", f"has {promised} words of {width} numbers", "at least one of each")
    file.readline()
    for number in range(1, promised + 1):
        name = bytearray()
        while (byte := file.read(1)) not in (b" ", b""):
            name += byte
        spoken = bytes(name).lstrip(b"\n")  # which some writers put behind each word's numbers
        if not byte and not spoken.strip():
            return
        numbers = file.read(4 * width)
        if not byte or len(numbers) < 4 * width:
            raise _wrong(path, f"word {number}", "is cut off", right)
        try:
            word = spoken.decode()
        except UnicodeDecodeError:
            raise _wrong(path, f"word {number}", f"is {spoken[:40]!r}", right) from None
        row = np.frombuffer(numbers, "<f4").astype(np.float32)
        _check(path, f"word {number}", word, row)
        yield number, word, row
    if file.read(4096).strip():
        raise ConfigError(f"{path} goes on behind its last word, but must have the {promised} of its first line.")


def _check(path: Path, where: str, word: str, row: np.ndarray) -> None:
    if not np.isfinite(row).all():
        raise _wrong(path, where, "has a number that is Inf or NaN, or beyond 32 bits", "finite numbers")
    if not word:
        raise _wrong(path, where, "has no word", f"a word and {len(row)} numbers")


def _numbers(fields: Sequence[str]) -> np.ndarray | None:
    try:
        with np.errstate(over="ignore"):
            return np.array(fields, dtype=np.float32)
    except ValueError:
        return None


def _wrong(path: Path, where: str, what: str, right: str) -> ConfigError:
    return ConfigError(f"{where} of {path} {what}, but must have {right}.")


@contextmanager
def _binary(path: Path) -> Iterator[IO[bytes]]:
    """A file's bytes, unpacked if need be."""
    inside = next((p for p in path.parents if p.suffix.lower() == ".zip" and p.is_file()), None)
    if inside is not None or (path.suffix.lower() == ".zip" and path.is_file()):
        with zipfile.ZipFile(inside or path) as archive, archive.open(_member(archive, path, inside)) as binary:
            yield binary
    elif not path.is_file():
        raise ConfigError(f"{path} does not exist, but must be a file of word vectors.")
    else:
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as binary:
            yield binary  # type: ignore[misc]


def _member(archive: zipfile.ZipFile, path: Path, inside: Path | None) -> str:
    """The file of an archive that a path means."""
    kinds = (".txt", ".bin")
    texts = [name for name in archive.namelist() if name.lower().endswith(kinds) and not name.startswith("__MACOSX/")]
    if inside is not None:
        chosen = [name for name in archive.namelist() if name == path.relative_to(inside).as_posix()]
    else:
        chosen = [name for name in texts if Path(name).stem == path.stem] or texts
    if len(chosen) != 1:
        example = f", as {inside or path}/{texts[0]}" if texts else ""
        raise ConfigError(
            f"{path} must be one file of an archive that holds {', '.join(texts) or 'no .txt or .bin'}; name it "
            f"behind the archive{example}."
        )
    return chosen[0]


def match(vocabulary: Sequence[str], vectors: Vectors, seed: int = 0) -> Matched:
    """The vector of every word of a vocabulary that has one; N(0, σ²) for the others, with σ that of all numbers in
    `vectors`, and 0 for `<pad>`. ConfigError for a vocabulary that is no list of words."""
    vocabulary = [] if isinstance(vocabulary, str) else listed(vocabulary)
    if not vocabulary or not all(isinstance(word, str) for word in vocabulary) or not isinstance(vectors, Vectors):
        raise ConfigError(
            f"vocabulary is {vocabulary!r:.60}, vectors a {type(vectors).__name__}; they must be a list of words and "
            "what read_vectors returns."
        )
    index = {word: i for i, word in enumerate(vectors.words)}
    at = np.array([index.get(word, -1) for word in vocabulary])
    found = at >= 0
    drawn = np.random.default_rng(whole("seed", seed, 0)).normal(
        0, vectors.table.std(), (len(vocabulary), vectors.table.shape[1])
    )
    table = np.where(found[:, None], vectors.table[at], drawn.astype(np.float32))
    if vocabulary[PAD] == SPECIAL[PAD]:
        table[PAD] = 0
    return Matched(table, found)


def coverage(matched: Matched, examples: Examples) -> float:
    """The share of a split's words, `SPECIAL` left out but for `<unk>`, that have a vector."""
    counts = np.bincount(examples.xs.ravel(), minlength=len(matched.found))
    if len(counts) > len(matched.found):
        raise ConfigError(
            f"examples has the id {len(counts) - 1}; the vocabulary matched has {len(matched.found)} words."
        )
    counts[[PAD, SPECIAL.index("<start>")]] = 0
    return float(counts[matched.found].sum() / counts.sum())


def cosine_similarity(a: Float[np.ndarray, "*b n"], b: Float[np.ndarray, "*b n"]) -> Float[np.ndarray, "*b"]:
    """a · b / (‖a‖ ‖b‖), 0 where either is 0."""
    sizes = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.sum(a * b, axis=-1) / np.where(sizes > 0, sizes, 1)


def nearest(word: str, words: Sequence[str], table: Any, k: int = 10) -> list[tuple[str, float]]:
    """The k other words whose vectors have the largest cosine similarity to that of `word`, largest first.

    ConfigError for a word that is not there, with those of a like spelling, for a k below 1, and for a table that has
    no row for each word.
    """
    k, words, table = whole("k", k), listed(words), array("table", table, "numbers")
    if table.ndim != 2 or len(table) != len(words) or table.dtype.kind not in "iuf":
        raise ConfigError(
            f"table is {table.dtype} of the shape {table.shape}; it must be numbers [{len(words)}, n], a row a word."
        )
    if word not in words or word in SPECIAL:
        like = ", ".join(difflib.get_close_matches(str(word), words, 3)) or "none"
        raise ConfigError(f"word is {word!r}, but must be one of the vocabulary's (of a like spelling: {like}).")
    at = words.index(word)
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
    if whole("k", k) >= max(len(ids), 2):
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


def word_list(vocabulary: Any, most: int = 0) -> tuple[str, ...]:
    """The word of each id, of a list in the order of ids or of a dict word -> id. ConfigError for anything but words,
    each once, and for more than `most`, if it is not 0."""
    right = "a list of words, each once, in the order of their ids, or a dict of word: id"
    if isinstance(vocabulary, Mapping):
        ids = [*vocabulary.values()]
        if not all(isinstance(i, int | np.integer) for i in ids) or sorted(ids) != [*range(len(ids))]:
            raise ConfigError(f"vocabulary is a dict whose ids are {ids!r:.60}; they must be 0, 1, …, each once.")
        vocabulary = sorted(vocabulary, key=vocabulary.__getitem__)
    given = listed(vocabulary) if is_many(vocabulary) else None
    if given is None or isinstance(vocabulary, set | frozenset):
        raise ConfigError(f"vocabulary is {vocabulary!r:.60}; it must be {right}.")
    seen: dict[Any, int] = {}
    for i, word in enumerate(given):
        if not isinstance(word, str):
            raise ConfigError(f"vocabulary has {word!r:.40} at place {i}; it must be {right}.")
        if seen.setdefault(word, i) != i:
            raise ConfigError(f"vocabulary has {word!r:.40} at places {seen[word]} and {i}; it must be {right}.")
    if not given or (most and len(given) > most):
        raise ConfigError(f"vocabulary has {len(given)} words; it must have 1 to {most or 'any number'}.")
    return tuple(given)


def save_vocabulary(path: str | Path, words: Sequence[str]) -> None:
    """Writes a word a line, as JSON, which has any symbol on one line; by renaming: a reader sees the old file or the
    whole new one."""
    path = as_path("path", path)
    lines = [json.dumps({_FORMAT: len(words)}), *(json.dumps(str(word), ensure_ascii=False) for word in words)]
    with in_one_step(path) as partial:
        partial.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"))


def load_vocabulary(path: str | Path) -> tuple[str, ...]:
    """The words of `save_vocabulary`, or of a file of an older version, a plain word a line; ConfigError if there is no
    such file, or it is damaged."""
    path = as_path("path", path)
    if not path.is_file():
        raise ConfigError(f"{path} does not exist, but must be the vocabulary of a run directory.")
    try:
        text = path.read_bytes().decode("utf-8", "surrogatepass")
        if not text:
            raise ValueError("it is empty")
        first, *lines = text.removesuffix("\n").split("\n")
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
