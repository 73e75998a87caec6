"""Laws of `seqdyn.data.datasets` and `cache`: on a small set of IMDB's layout, files by hand, and the real sets."""

import inspect
import io
import json
import os
import shutil
import tarfile
import urllib.error
from collections import Counter

import numpy as np
import pytest
from _refusals import refusal

from seqdyn.data import cache as caching
from seqdyn.data import datasets
from seqdyn.data.datasets import characters, imdb, mnist, music
from seqdyn.data.splits import beginning, stratified_split
from seqdyn.data.text import SPECIAL, decode, tokenize
from seqdyn.types import ConfigError

TINY = 40  # reviews in each half of the small copy


# The whole, on a small copy that TFDS prepares from an archive laid out like the original


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A TFDS data directory that `imdb` itself prepared, only the network replaced."""
    import tensorflow_datasets as tfds
    from etils import epath

    folder = tmp_path_factory.mktemp("imdb")
    archive = folder / "aclImdb_v1.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for half in ("train", "test"):
            for i in range(TINY + (half == "train")):
                label = ("neg", "pos", "unsup")[2 if half == "train" and i >= TINY else i % 2]
                text = f"Said of {label}: {half}{i} <br />" + "dull " * i + "The end"
                member = tarfile.TarInfo(f"aclImdb/{half}/{label}/{i}_1.txt")
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(folder / "data"))
        patch.setattr(datasets, "urlopen", lambda *args, **kwargs: io.BytesIO())
        patch.setattr(tfds.download.DownloadManager, "download", lambda self, url: epath.Path(archive))
        imdb(cache_dir=folder / "cache")
    return folder / "data"


@pytest.fixture
def tiny_copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "data")


@pytest.fixture
def no_reading(monkeypatch):
    def read(*args):
        raise AssertionError("read the data set")

    return lambda: monkeypatch.setattr(datasets, "read_tfds", read)


def equal(a, b):
    return a.vocabulary == b.vocabulary and all(
        np.array_equal(x, y) and x.dtype == y.dtype == np.int32
        for split in ("train", "validation", "test")
        for x, y in zip(a.splits[split], b.splits[split], strict=True)
    )


def test_missing_data_is_downloaded_and_prepared_without_tensorflow(tiny, tmp_path):
    text = imdb(tiny, cache_dir=tmp_path)
    assert {split: len(e.ys) for split, e in text.splits.items()} == dict(train=32, validation=8, test=40)
    for examples in text.splits.values():
        for ids, n, label in zip(*examples, strict=True):
            words = decode(ids, text.vocabulary)
            assert np.all(ids[-n:] != 0) and np.all(ids[:-n] == 0) and ids.max() < len(text.vocabulary)
            assert words[:3] == ["said", "of", ("neg", "pos")[label]] and words[-2:] == ["the", "end"]


def test_vocabulary_counts_only_training_words(tiny, tmp_path):
    text = imdb(tiny, cache_dir=tmp_path, length=200)
    names = {word for word in text.vocabulary if word.startswith(("train", "test"))}
    train, validation, test = (text.splits[s].xs for s in ("train", "validation", "test"))
    assert len(names) == 32 == len({word for row in train for word in decode(row, text.vocabulary)} & names)
    assert np.all(np.sum(train == 2, 1) == 0)
    assert np.all(np.sum(validation == 2, 1) == 1) and np.all(np.sum(test == 2, 1) == 1)


def test_ids_stay_below_the_vocabulary_asked_for(tiny, tmp_path):
    text = imdb(tiny, cache_dir=tmp_path, vocabulary=5)
    assert text.vocabulary == (*SPECIAL, "dull", "end")
    assert max(examples.xs.max() for examples in text.splits.values()) == 4


def test_a_limit_keeps_a_balanced_part_of_what_a_larger_limit_keeps(tiny, tmp_path):
    def reviews(limit, half):
        text = imdb(tiny, cache_dir=tmp_path, limit=limit, length=200, vocabulary=1000)
        splits = ("test",) if half == "test" else ("train", "validation")
        assert abs(np.diff(np.bincount(np.concatenate([text.splits[s].ys for s in splits])))) <= 1
        # The number of times it says 'dull' tells a review from the others.
        dull = text.vocabulary.index("dull")
        return {n for s in splits for n in np.sum(text.splits[s].xs == dull, 1)}

    for half in ("train", "test"):
        assert [len(reviews(limit, half)) for limit in (2, 11, 20, 1000)] == [2, 11, 20, TINY]
        assert reviews(11, half) < reviews(20, half)


def test_the_seed_moves_validation_and_leaves_test(tiny, tmp_path):
    a, b = (imdb(tiny, cache_dir=tmp_path, seed=seed, vocabulary=10) for seed in (0, 1))
    assert a.vocabulary == b.vocabulary
    assert not np.array_equal(a.splits["validation"].xs, b.splits["validation"].xs)
    assert np.array_equal(a.splits["test"].xs, b.splits["test"].xs)


# The cache


def test_without_validation_all_of_the_training_half_is_trained_on(tiny, tmp_path):
    text = imdb(tiny, validation=0, cache_dir=tmp_path)
    assert {split: len(e.ys) for split, e in text.splits.items()} == dict(train=40, test=40)
    assert Counter(text.splits["train"].ys.tolist()) == {0: 20, 1: 20}


def test_a_cache_is_read_in_place_of_the_data(tiny, tmp_path, monkeypatch, no_reading):
    monkeypatch.setenv("SEQDYN_CACHE", str(tmp_path))
    built = imdb(tiny)
    assert len(list(tmp_path.iterdir())) == 1
    no_reading()
    cached = imdb(tiny)
    assert equal(built, cached) and list(built.splits) == list(cached.splits)


def test_every_setting_has_its_own_cache(tiny, tmp_path):
    changes = [{}, dict(vocabulary=9), dict(length=9), dict(truncate="first"), dict(pad="after")]
    changes += [dict(validation=0.5), dict(seed=1), dict(limit=30)]
    for n, change in enumerate(changes, start=1):
        imdb(tiny, cache_dir=tmp_path, **change)
        assert len(list(tmp_path.iterdir())) == n


def test_other_data_and_another_version_have_their_own_cache(tiny_copy, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    imdb(tiny_copy, cache_dir=cache)
    info = next(tiny_copy.rglob("dataset_info.json"))
    info.write_text(info.read_text() + "\n")
    imdb(tiny_copy, cache_dir=cache)
    shard = next(tiny_copy.rglob("*unsupervised.array_record*"))
    shard.write_bytes(shard.read_bytes() + b"\0")
    imdb(tiny_copy, cache_dir=cache)
    monkeypatch.setattr(caching, "VERSION", -1)
    imdb(tiny_copy, cache_dir=cache)
    assert len(list(cache.iterdir())) == 4


def truncated(file, other):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flipped(file, other):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(file, other):
    file.write_bytes(b"")


def foreign(file, other):
    np.savez(file, words=np.arange(3))


def pickled(file, other):
    np.save(file.with_suffix(".npy"), np.array([{}], object), allow_pickle=True)
    file.with_suffix(".npy").replace(file)


def of_other_settings(file, other):
    shutil.copy(other, file)


def edited(file, other):
    with np.load(file) as old:
        arrays = {name: old[name] for name in old.files}
    arrays["test.ys"] = 1 - arrays["test.ys"]
    np.savez(file, **arrays)


@pytest.mark.parametrize("harm", [truncated, flipped, empty, foreign, pickled, of_other_settings, edited])
def test_a_harmed_cache_is_rebuilt(harm, tiny, tmp_path, no_reading):
    imdb(tiny, cache_dir=tmp_path / "other", length=7)
    built = imdb(tiny, cache_dir=tmp_path / "mine")
    (file,), (other,) = (list((tmp_path / name).iterdir()) for name in ("mine", "other"))
    harm(file, other)
    assert equal(imdb(tiny, cache_dir=tmp_path / "mine"), built)
    no_reading()
    assert equal(imdb(tiny, cache_dir=tmp_path / "mine"), built)


def test_a_cache_that_cannot_be_written_costs_only_a_warning(tiny, tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="not cached"):
        assert len(imdb(tiny, cache_dir=tmp_path / "file" / "cache").splits["test"].ys) == TINY


# Refusals


@pytest.mark.parametrize(
    ("field", "value"),
    [("vocabulary", 3), ("length", 0), ("truncate", "middle"), ("pad", "front"), ("validation", -0.1)]
    + [("validation", 1.0), ("validation", float("nan")), ("validation", "0.2"), ("validation", None)]
    + [("seed", -1), ("seed", None), ("seed", "1"), ("limit", 1), ("limit", 2.5), ("limit", "all")],
)
def test_a_wrong_argument_is_one_sentence_before_anything_is_read(field, value, tmp_path):
    # Unwrapped, because the tests' own type checker refuses a wrong Literal before `imdb` sees it.
    sentence = refusal(inspect.unwrap(imdb), tmp_path / "nothing here", **{field: value})
    assert sentence.startswith((f"{field} is {value!r}, but must be ", f"{field} is {value!r}; it must be "))


def test_a_wrong_data_dir_is_one_sentence(tmp_path):
    sentence = refusal(imdb, tmp_path)
    assert sentence.startswith(f"data_dir is {str(tmp_path)!r}, but must be a TFDS data directory")
    assert str(tmp_path / "imdb_reviews" / "plain_text" / "1.0.0") in sentence


@pytest.mark.parametrize("named", ['"fileFormat": "tfrecord",', ""])
def test_another_file_format_is_one_sentence(named, tiny_copy):
    info = next(tiny_copy.rglob("dataset_info.json"))
    info.write_text(info.read_text().replace('"fileFormat": "array_record",', named))
    sentence = refusal(imdb, tiny_copy)
    assert "data_dir" in sentence and "here they are tfrecord" in sentence


@pytest.mark.parametrize("split", ["train", "test"])
def test_damaged_files_are_one_sentence(split, tiny_copy, tmp_path):
    shard = next(tiny_copy.rglob(f"*{split}.array_record*"))
    os.truncate(shard, shard.stat().st_size // 2)  # which TFDS reads as 40 examples of None
    assert f"split {split} are damaged" in refusal(imdb, tiny_copy, cache_dir=tmp_path / "cache")
    shard.unlink()
    assert f"split {split} are damaged" in refusal(imdb, tiny_copy, cache_dir=tmp_path / "cache")


def test_another_data_sets_columns_are_named(tiny):
    folder = tiny / "imdb_reviews" / "plain_text" / "1.0.0"
    assert len(datasets.read_tfds(folder, "train", ("text",))) == TINY
    sentence = refusal(datasets.read_tfds, folder, "train", ("image", "label"))
    assert "columns" in sentence and "text" in sentence and "must have image" in sentence


def test_a_damaged_description_is_one_sentence(tiny_copy, tmp_path):
    for damaged in (b'{"fileFormat": "array_record",', b'{"fileFormat": "array_record", "\xff'):
        next(tiny_copy.rglob("dataset_info.json")).write_bytes(damaged)
        assert "split train are damaged" in refusal(imdb, tiny_copy, cache_dir=tmp_path / "cache")


def test_no_network_is_one_sentence_that_says_what_to_pass(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(datasets, "urlopen", unreachable)
    sentence = refusal(imdb)
    assert "no network" in sentence and "--data-dir" in sentence and str(tmp_path / "data") in sentence
    assert not (tmp_path / "data").exists()


# IMDB itself


LIMIT = 5000
"""Reviews of each half whose words are counted: those of all take ten seconds."""


@pytest.fixture(scope="module")
def reviews():
    """All of them, as they are split."""
    if not os.environ.get("SEQDYN_DATA"):
        pytest.skip("needs IMDB: set SEQDYN_DATA to a TFDS data directory that holds imdb_reviews")
    return datasets.imdb_reviews(os.environ["SEQDYN_DATA"])


@pytest.fixture(scope="module")
def real(reviews, tmp_path_factory):
    return imdb(os.environ["SEQDYN_DATA"], limit=LIMIT, cache_dir=tmp_path_factory.mktemp("cache"))


def test_imdb_has_its_known_sizes_and_balanced_halves(reviews, real):
    sizes = {split: np.bincount(labels).tolist() for split, (_, labels) in reviews.items()}
    assert sizes == dict(train=[10_000, 10_000], validation=[2_500, 2_500], test=[12_500, 12_500])
    assert all(len(texts) == len(labels) for texts, labels in reviews.values())
    sizes = {split: np.bincount(examples.ys).tolist() for split, examples in real.splits.items()}
    assert sizes == dict(train=[2_000, 2_000], validation=[500, 500], test=[2_500, 2_500])
    for examples in real.splits.values():
        assert examples.xs.shape == (len(examples.ys), 80)


def test_imdb_ids_are_below_the_vocabulary_and_lengths_count_them(real):
    assert len(real.vocabulary) == len(set(real.vocabulary)) == 10_000
    assert real.vocabulary[:7] == (*SPECIAL, "the", "and", "a", "of")
    for ids, lengths, _ in real.splits.values():
        assert 0 <= ids.min() and ids.max() < 10_000
        assert np.array_equal(lengths, np.sum(ids != 0, 1)) and lengths.min() >= 1
        front = np.arange(80) < 80 - lengths[:, None]
        assert np.all((ids == 0) == front)


def test_imdb_reviews_round_trip_to_the_end_of_their_text(reviews, real):
    import tensorflow_datasets as tfds

    source = tfds.data_source("imdb_reviews", split="train", data_dir=os.environ["SEQDYN_DATA"], download=False)
    labels = np.array([row["label"] for row in source.__getitems__(range(25_000))])
    rest, _ = stratified_split(labels, 0.2, seed=0)
    for row in (0, 1, 9_999, 19_999):
        review, (texts, known) = source[int(rest[row])], reviews["train"]
        assert texts[row] == review["text"].decode() and known[row] == review["label"]
    kept = beginning(labels, LIMIT, 0)
    rest = kept[stratified_split(labels[kept], 0.2, seed=0)[0]]
    known = set(real.vocabulary)
    for row in (0, 1, 1_999, 3_999):
        review = source[int(rest[row])]
        words = tokenize(review["text"].decode())[-80:]
        ids = real.splits["train"].xs[row]
        assert decode(ids, real.vocabulary) == [word if word in known else "<unk>" for word in words]
        assert real.splits["train"].ys[row] == review["label"]


def test_imdb_labels_mean_what_they_say(real):
    ids, _, labels = real.splits["train"]
    counts = [Counter(ids[labels == label].ravel().tolist()) for label in (0, 1)]
    ratio = {word: counts[1][i] / counts[0][i] for i, word in enumerate(real.vocabulary) if word in CHARGED}
    assert ratio["worst"] < 0.2 and ratio["awful"] < 0.2 and ratio["wonderful"] > 3 and ratio["excellent"] > 3


CHARGED = ("worst", "awful", "wonderful", "excellent")


# MNIST


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    if not os.environ.get("SEQDYN_DATA"):
        pytest.skip("needs MNIST: set SEQDYN_DATA to a TFDS data directory that holds mnist")
    return tmp_path_factory.mktemp("mnist")


def test_mnist_pixels_are_read_in_rows_pooled_and_permuted_alike_for_all_images(digits, monkeypatch):
    """All of the test half, of the training half as many: decoding the rest takes four seconds."""
    decode = datasets.read_tfds
    few_of = {"train": "train[:10000]", "test": "test"}
    monkeypatch.setattr(datasets, "read_tfds", lambda folder, split, columns: decode(folder, few_of[split], columns))

    def read(**options):
        return mnist(os.environ["SEQDYN_DATA"], cache_dir=digits, **options)

    whole = read()
    assert {name: e.xs.shape for name, e in whole.items()} == {
        "train": (8_000, 784, 1),
        "validation": (2_000, 784, 1),
        "test": (10_000, 784, 1),
    }
    few, four, mixed = read(limit=60), read(limit=60, pool=4), read(limit=60, permuted=True)
    images = few["test"].xs.reshape(-1, 7, 4, 7, 4)
    np.testing.assert_allclose(four["test"].xs.reshape(-1, 7, 7), images.mean(axis=(2, 4)), atol=1e-6)
    assert 0.99 < few["train"].xs.max() <= 1 and few["train"].xs.min() == 0 and few["train"].xs.dtype == np.float32
    np.testing.assert_array_equal(np.sort(mixed["test"].xs, axis=1), np.sort(few["test"].xs, axis=1))
    order = np.random.default_rng(0).permutation(784)
    np.testing.assert_array_equal(mixed["train"].xs, few["train"].xs[:, order])
    assert set(np.bincount(few["test"].ys)) <= {5, 6, 7} and len(list(digits.iterdir())) == 1
    rows = read(limit=60, rows=True)["train"]
    assert rows.xs.shape == (48, 28, 28) and set(rows.lengths) == {28}
    np.testing.assert_array_equal(rows.xs.reshape(48, 784, 1), few["train"].xs)
    assert read(limit=60, rows=True, pool=2)["train"].xs.shape == (48, 14, 14)
    with pytest.raises(ConfigError, match="pool is 3"):
        read(pool=3)
    with pytest.raises(ConfigError, match="permuted is True"):
        read(rows=True, permuted=True)


# Piano rolls


def rolls(tmp_path, **changes):
    data = {"train": [[[60], [60, 64], [], [21, 108]], [[62]]], "valid": [[[60], [61]]], "test": [[[60]]]} | changes
    path = tmp_path / "music.json"
    path.write_text(json.dumps(data))
    return path


def test_piano_rolls_predict_each_chord_once_from_the_one_before(tmp_path):
    splits = music(rolls(tmp_path))
    assert list(splits) == ["train", "validation", "test"]
    train = splits["train"]
    assert train.xs.shape == train.ys.shape == (2, 4, 88) and train.lengths.tolist() == [4, 1]
    np.testing.assert_array_equal(train.xs[0], np.concatenate([np.zeros((1, 88)), train.ys[0, :-1]]))
    assert [np.flatnonzero(step).tolist() for step in train.ys[0]] == [[39], [39, 43], [], [0, 87]]
    assert not train.ys[1, :3].any() and np.flatnonzero(train.ys[1, 3]).tolist() == [41]


def test_pieces_of_a_sequence_lose_nothing_and_know_the_chord_before(tmp_path):
    path = rolls(tmp_path, train=[[[60 + t] for t in range(7)]])
    whole, cut = music(path)["train"], music(path, length=3)["train"]
    assert cut.lengths.tolist() == [3, 3, 1]
    joined = [np.concatenate([row[3 - n :] for row, n in zip(a, cut.lengths, strict=True)]) for a in (cut.xs, cut.ys)]
    np.testing.assert_array_equal(joined[0], whole.xs[0])
    np.testing.assert_array_equal(joined[1], whole.ys[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(train=[[[60], [109]]]), ["step 1", "train 0", "109", "21 to 108"]),
        (dict(test=[[[60]], []]), ["test 1", "list of steps"]),
        (dict(valid=[]), ["validation", "lists sequences"]),
        (dict(train=None), ["train", "lists sequences"]),
        (dict(test={"0": [[60]]}), ["test", "lists sequences"]),
        (dict(test=[[["C"]]]), ["step 0", "test 0", "MIDI"]),
    ],
)
def test_what_is_no_piano_roll_is_named(changes, words, tmp_path):
    sentence = refusal(music, rolls(tmp_path, **changes))
    assert all(word in sentence for word in words), sentence


def test_a_file_that_is_no_music_is_one_sentence(tmp_path):
    assert "does not" not in refusal(music, tmp_path / "none.json") and "none.json" in refusal(
        music, tmp_path / "none.json"
    )
    (tmp_path / "empty.json").touch()
    assert "JSON" in refusal(music, tmp_path / "empty.json")
    (tmp_path / "part.json").write_text('{"train": []}')
    assert "valid" in refusal(music, tmp_path / "part.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    assert "JSON" in refusal(music, tmp_path / "deep.json")
    for length in (1, "x", 2.5):
        assert f"length is {length!r}" in refusal(inspect.unwrap(music), rolls(tmp_path), length)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "marked"])
def test_a_byte_order_mark_is_no_part_of_a_text(mark, tmp_path):
    path = rolls(tmp_path)
    path.write_bytes(mark + path.read_bytes())
    assert music(path).keys() == {"train", "validation", "test"}
    (tmp_path / "text.txt").write_bytes(mark + b"ab" * 20)
    assert characters(tmp_path / "text.txt").symbols == ("a", "b", "<unk>")


def test_the_chorales_have_their_known_counts():
    if not os.environ.get("SEQDYN_MUSIC"):
        pytest.skip("needs piano rolls: set SEQDYN_MUSIC to a folder with jsb-chorales-quarter.json")
    splits = music(os.path.join(os.environ["SEQDYN_MUSIC"], "jsb-chorales-quarter.json"))
    assert [len(e.lengths) for e in splits.values()] == [229, 76, 77]
    assert 3.5 < splits["train"].ys.sum() / splits["train"].lengths.sum() < 4.2  # four voices


# Characters


def test_a_stream_is_cut_in_order_and_what_training_never_saw_is_unknown(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abab" * 4 + "cb" + "ba", encoding="utf-8")
    stream = characters(path, (0.8, 0.1, 0.1))
    assert stream.symbols == ("a", "b", "<unk>")
    assert [part.tolist() for part in stream.splits.values()] == [[0, 1] * 8, [2, 1], [1, 0]]


def test_a_text_that_is_no_stream_is_one_sentence(tmp_path):
    assert "none.txt" in refusal(characters, tmp_path / "none.txt")
    path = tmp_path / "text.txt"
    path.touch()
    assert "0 characters" in refusal(characters, path)
    path.write_bytes(b"\xff\xfe\x00a" * 50)
    assert "UTF-8" in refusal(characters, path)
    path.write_text("a" * 100)
    for ratios in ((0.5, 0.5, 0.5), ("a", "b", "c"), None, 1):
        assert f"ratios is {ratios!r}" in refusal(inspect.unwrap(characters), path, ratios)


def test_shakespeare_has_its_known_size():
    if not os.environ.get("SEQDYN_CHARACTERS"):
        pytest.skip("needs a text: set SEQDYN_CHARACTERS to tinyshakespeare.txt")
    stream = characters(os.environ["SEQDYN_CHARACTERS"])
    assert sum(map(len, stream.splits.values())) == 1_115_394 and len(stream.symbols) == 66
