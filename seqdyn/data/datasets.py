"""Data sets as arrays: IMDB reviews and MNIST through TFDS (without TensorFlow), piano rolls and characters from files.

Each is read once, split by a seed, and kept by `cache`; `read_tfds` serves any TFDS data set of array_record files.
"""

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import numpy as np
from jaxtyping import Float32, Int32

from seqdyn.data.cache import Arrays, cached
from seqdyn.data.splits import beginning, stratified_split
from seqdyn.data.text import Examples, Text, Truncate, check_settings, labelled_text
from seqdyn.parts import listed
from seqdyn.types import ConfigError, Pad, as_path, real, whole

_IMDB = "imdb_reviews/plain_text/1.0.0"
_MNIST = "mnist/3.0.1"
_ORIGINS = {_IMDB: "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"}  # as in TFDS's builder
LOWEST, NOTES = 21, 88
"""A piano's notes: MIDI pitches 21 … 108."""


def _wrong(field: str, value: object, rule: str, cause: Exception | None = None) -> ConfigError:
    why = f" ({type(cause).__name__}: {' '.join(str(cause).split())})" if cause else ""
    return ConfigError(f"{field} is {value!r}, but must be {rule}{why}.")


def _require(right: bool, field: str, value: object, rule: str) -> None:
    if not right:
        raise _wrong(field, value, rule)


# --- TFDS ---------------------------------------------------------------------------------------------------


def tfds_folder(name: str, data_dir: str | Path | None = None) -> Path:
    """The folder of the prepared data set `name`, say 'mnist/3.0.1', under `data_dir`; by default under TFDS's own
    (`TFDS_DATA_DIR`, else ~/tensorflow_datasets), into which TFDS downloads what is missing.

    ConfigError if it is not there or its files are not array_record: TFDS's own error would speak of TFRECORD, and
    its parquet files silently lose examples.
    """
    root = as_path("data_dir", data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets", "a folder")
    info = root / name / "dataset_info.json"
    if not info.is_file():
        _require(data_dir is None, "data_dir", str(data_dir), f"{_rule(name)}: {info} does not exist")
        _download(name, root)
    # A file that is no JSON is left to TFDS to refuse; one without a format is from the days of tfrecord.
    found = re.search(r'"fileFormat":\s*"(\w+)"', info.read_text(encoding="utf-8", errors="replace"))
    files = found[1] if found else "tfrecord"
    _require(files == "array_record", "data_dir", str(root), f"{_rule(name)}: here they are {files}")
    return info.parent


def read_tfds(folder: Path, split: str, columns: tuple[str, ...] = ("label",)) -> list[dict[str, Any]]:
    """All examples of a split in TFDS's order: text as bytes, labels as integers, images as uint8. ConfigError for
    files that are damaged or missing, and for a data set that lacks one of the `columns`."""
    import tensorflow_datasets as tfds  # here, because it takes a second

    try:
        builder: Any = tfds.builder_from_directory(folder)
        source = builder.as_data_source(split=split)
        rows = source.__getitems__(range(len(source)))
        if not rows or any(value is None for row in rows for value in row.values()):
            raise ValueError("some examples cannot be read")  # a shard that was cut short is read as None
    except Exception as error:
        rule = f"a folder of array_record files: those of the split {split} are damaged or missing"
        raise _wrong("data_dir", str(folder), rule, error) from error
    lacking = [name for name in columns if name not in rows[0]]
    if lacking:
        raise ConfigError(f"{folder} has the columns {', '.join(rows[0])}, but must have {lacking[0]}.")
    return rows


def _rule(name: str) -> str:
    return f"a TFDS data directory that holds {name} as array_record files"


def _download(name: str, root: Path) -> None:
    try:
        if name in _ORIGINS:  # without a network TFDS would try again for over three minutes before it says so
            urlopen(Request(_ORIGINS[name], method="HEAD"), timeout=30).close()
        from unittest import mock

        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.download import extractor

        # TFDS opens the archive with TensorFlow (tensorflow/datasets issue 11058); a plain file will do.
        with mock.patch.object(extractor, "_open_or_pass", lambda path: open(path, "rb")):
            builder = tfds.builder(":".join(name.rsplit("/", 1)), data_dir=root, file_format="array_record")
            builder.download_and_prepare()
    except Exception as error:
        rule = f"{_rule(name)} (pass --data-dir): {root} does not, and the download into it failed"
        raise _wrong("data_dir", None, rule, error) from error


def _facts(folder: Path, *settings: object) -> list[object]:
    """What the arrays made of a folder depend on."""
    sizes = sorted((file.name, file.stat().st_size) for file in folder.glob("*.array_record*"))
    return [(folder / "dataset_info.json").read_text(encoding="utf-8", errors="replace"), sizes, settings]


def _labels(folder: Path, rows: list[dict[str, Any]], classes: int) -> Int32[np.ndarray, " n"]:
    labels = np.array([row["label"] for row in rows], np.int32)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise ConfigError(f"{folder} has the label {labels[wrong[0]]}, but must have labels 0 to {classes - 1}.")
    return labels


def _flat(splits: dict[str, Examples]) -> Arrays:
    return {f"{split}.{field}": a for split, e in splits.items() for field, a in e._asdict().items()}


def _splits(arrays: Arrays) -> dict[str, Examples]:
    names = dict.fromkeys(name.partition(".")[0] for name in arrays if "." in name)
    return {split: Examples(*(arrays[f"{split}.{field}"] for field in Examples._fields)) for split in names}


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
    `seed`, and test 25,000, the official one; rows keep TFDS's order. `validation` 0 trains on all 25,000 and leaves no
    split to choose by; a run then needs another in its place. `vocabulary` counts `SPECIAL` too, so ids are below it;
    the words are train's. As in Keras's IMDB a review begins with `<start>`, which truncation to the last words drops
    from a long one. `limit` (for smoke tests) keeps that many reviews of each official half, classes in proportion,
    drawn with `seed` before validation is split off.

    `data_dir`: see `tfds_folder` (a download of 84 MB). Cached, a file for each combination of settings (17 MB at
    the defaults). ConfigError for a wrong argument, and for data missing, damaged or in another format.
    """
    check_settings(vocabulary, length, truncate, pad)
    _check_split(validation, seed, limit)
    folder = tfds_folder(_IMDB, data_dir)

    def make() -> Arrays:
        reviews = imdb_reviews(data_dir, validation=validation, seed=seed, limit=limit)
        text = labelled_text(reviews, vocabulary=vocabulary, length=length, truncate=truncate, pad=pad)
        return _flat(text.splits) | {"vocabulary": np.array(text.vocabulary)}

    facts = _facts(folder, vocabulary, length, truncate, pad, validation, seed, limit)
    arrays = cached("imdb", facts, make, cache_dir)
    return Text(tuple(arrays["vocabulary"].tolist()), _splits(arrays))


def imdb_reviews(
    data_dir: str | Path | None = None, *, validation: float = 0.2, seed: int = 0, limit: int | None = None
) -> dict[str, tuple[list[str], Int32[np.ndarray, " n"]]]:
    """The reviews themselves, as `imdb` splits them: split → (texts, labels)."""
    folder = tfds_folder(_IMDB, data_dir)

    def half(split: str) -> tuple[list[str], np.ndarray]:
        rows = read_tfds(folder, split, ("text", "label"))
        labels = _labels(folder, rows, 2)
        kept = beginning(labels, limit, seed)
        return [rows[i]["text"].decode() for i in kept], labels[kept]

    texts, labels = half("train")
    parts = _divided(labels, validation, seed)
    return {name: ([texts[i] for i in part], labels[part]) for name, part in parts.items()} | {"test": half("test")}


def _divided(labels: np.ndarray, validation: float, seed: int) -> dict[str, np.ndarray]:
    """Which examples of the official training split are 'train' and, unless its share is 0, 'validation'."""
    if not validation:
        return {"train": np.arange(len(labels))}
    return dict(zip(("train", "validation"), stratified_split(labels, validation, seed), strict=True))


def _check_split(validation: float, seed: int, limit: int | None) -> None:
    real("validation", validation, lambda share: 0 <= share < 1, "a number from 0 to below 1")
    whole("seed", seed, 0)
    if limit is not None:
        whole("limit", limit, 2)


def mnist(
    data_dir: str | Path | None = None,
    *,
    pool: int = 1,
    permuted: bool = False,
    rows: bool = False,
    validation: float = 0.2,
    seed: int = 0,
    limit: int | None = None,
    cache_dir: str | Path | None = None,
) -> dict[str, Examples]:
    """MNIST digits read pixel by pixel (LeCun et al. 1998; Le, Jaitly & Hinton 2015, §4.3): a number in [0, 1] a step,
    rows from the top, [n, 784, 1]; blocks of `pool` × `pool` pixels averaged, 2 or 4, give 196 or 49 steps. With
    `rows` a step is a row, from the top: [n, 28, 28], or 14 or 7 steps of as many.

    `permuted`: the steps of all images in one random order, that of `seed` 0 whatever `seed` is. Validation is split
    off the official 60,000 by label, unless it is 0; test is the official 10,000. `limit` keeps that many of each.
    Decoding takes 8 s and is cached. ConfigError as for `imdb`.
    """
    real("pool", pool, lambda side: side in (1, 2, 4), "1, 2 or 4, for 784, 196 or 49 steps")
    _require(not (rows and permuted), "permuted", permuted, "False where whole rows are read")
    _check_split(validation, seed, limit)
    folder = tfds_folder(_MNIST, data_dir)

    def make() -> Arrays:
        arrays: Arrays = {}
        for split in ("train", "test"):
            found = read_tfds(folder, split, ("image", "label"))
            arrays |= {f"{split}.images": np.stack([one["image"][..., 0] for one in found])}
            arrays |= {f"{split}.labels": _labels(folder, found, 10)}
        return arrays

    arrays = cached("mnist", _facts(folder), make, cache_dir)
    side = 28 // pool
    order = np.random.default_rng(0).permutation(side * side) if permuted else np.arange(side * side)

    def examples(split: str, of: np.ndarray) -> Examples:
        images = arrays[f"{split}.images"][of].reshape(-1, side, pool, side, pool)
        xs = images.mean(axis=(2, 4), dtype=np.float32) / np.float32(255)
        xs = xs if rows else xs.reshape(-1, side * side)[:, order, None]
        return Examples(xs, np.full(len(of), xs.shape[1], np.int32), arrays[f"{split}.labels"][of])

    kept = {s: beginning(arrays[f"{s}.labels"], limit, seed) for s in ("train", "test")}
    parts = _divided(arrays["train.labels"][kept["train"]], validation, seed)
    found = {name: examples("train", kept["train"][part]) for name, part in parts.items()}
    return found | {"test": examples("test", kept["test"])}


# --- files --------------------------------------------------------------------------------------------------


def music(path: str | Path, length: int | None = None) -> dict[str, Examples]:
    """Piano rolls for the prediction of the next step, in the splits of Boulanger-Lewandowski, Bengio & Vincent 2012.

    The file is JSON, {"train" | "valid" | "test": [sequence [step [MIDI pitch, …]]]}. xs_t is the chord before t,
    silence before the first, and ys_t that at t, 88 notes each as 0 or 1; padding is in front, up to the longest
    sequence. With `length`, sequences are cut into consecutive pieces of at most so many steps: each step is predicted
    once, the first of a piece from the chord before it. ConfigError, naming split, sequence and step, for what is
    none of this.
    """
    right = "a file of piano rolls as JSON"
    path = as_path("path", path, right)
    _require(path.is_file(), "path", str(path), right)
    length = None if length is None else whole("length", length, 2)
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
        sequences = {"validation" if s == "valid" else s: found[s] for s in ("train", "valid", "test")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        rule = 'JSON with the splits "train", "valid" and "test"'
        raise _wrong("path", str(path), rule, error) from None
    for split, found in sequences.items():
        _require(isinstance(found, list) and bool(found), "path", str(path), f"a file whose {split} lists sequences")
    pieces = {
        split: [piece for i, s in enumerate(found) for piece in _pieces(_roll(s, f"{split} {i} of {path}"), length)]
        for split, found in sequences.items()
    }
    steps = max(len(ys) for of_split in pieces.values() for _, ys in of_split)

    def padded(rolls: list[np.ndarray]) -> Float32[np.ndarray, "n s k"]:
        out = np.zeros((len(rolls), steps, NOTES), np.float32)
        for row, roll in zip(out, rolls, strict=True):
            row[steps - len(roll) :] = roll
        return out

    return {
        split: Examples(
            padded([xs for xs, _ in of_split]),
            np.array([len(ys) for _, ys in of_split], np.int32),
            padded([ys for _, ys in of_split]),
        )
        for split, of_split in pieces.items()
    }


def _roll(sequence: Any, where: str) -> Float32[np.ndarray, "s k"]:
    if not isinstance(sequence, list) or not sequence:
        raise ConfigError(f"sequence {where} is {str(sequence)[:40]}, but must be a list of steps.")
    roll = np.zeros((len(sequence), NOTES), np.float32)
    for t, chord in enumerate(sequence):
        if not isinstance(chord, list) or not all(isinstance(p, int) and 0 <= p - LOWEST < NOTES for p in chord):
            rule = f"a list of MIDI pitches from {LOWEST} to {LOWEST + NOTES - 1}"
            raise ConfigError(f"step {t} of sequence {where} is {str(chord)[:40]}, but must be {rule}.")
        roll[t, [p - LOWEST for p in chord]] = 1
    return roll


def _pieces(roll: np.ndarray, length: int | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """(xs, ys) of each piece."""
    before = np.concatenate([np.zeros_like(roll[:1]), roll[:-1]])
    stretch = length or len(roll)
    return [(before[t : t + stretch], roll[t : t + stretch]) for t in range(0, len(roll), stretch)]


class Stream(NamedTuple):
    """One long text in ids: the symbols (id → character, `<unk>` last) and consecutive parts of it."""

    symbols: tuple[str, ...]
    splits: dict[str, Int32[np.ndarray, " n"]]


def characters(path: str | Path, ratios: tuple[float, float, float] = (0.9, 0.05, 0.05)) -> Stream:
    """A text file as a stream of characters: the first part to train on, the next for validation, the last for test.

    The symbols are those of the training part, in order of code point; any other is `<unk>`. ConfigError for a file
    that is missing, not UTF-8, or too short for three parts, and for wrong ratios.
    """
    path = as_path("path", path, "a text file")
    _require(path.is_file(), "path", str(path), "a text file")
    shares = listed(ratios)
    right = len(shares) == 3 and all(isinstance(share, int | float) and share > 0 for share in shares)
    _require(right and abs(sum(shares) - 1) < 1e-6, "ratios", ratios, "three numbers above 0 that sum to 1")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _wrong("path", str(path), "a text in UTF-8", error) from None
    ends = [round(shares[0] * len(text)), round((shares[0] + shares[1]) * len(text))]
    parts = [text[: ends[0]], text[ends[0] : ends[1]], text[ends[1] :]]
    _require(all(parts), "path", str(path), f"a text long enough for three parts; it has {len(text)} characters")
    symbols = (*sorted(set(parts[0])), "<unk>")
    index = {symbol: i for i, symbol in enumerate(symbols)}
    coded = [np.array([index.get(c, len(symbols) - 1) for c in part], np.int32) for part in parts]
    return Stream(symbols, dict(zip(("train", "validation", "test"), coded, strict=True)))
