"""Laws of `seqdyn.data.datasets`: of its pieces, of the whole on a small set of IMDB's layout, and on IMDB."""

import inspect
import io
import os
import shutil
import tarfile
import urllib.error
from collections import Counter

import numpy as np
import pytest

from seqdyn.data import datasets
from seqdyn.data.datasets import (
    SPECIAL,
    balanced_order,
    build_vocabulary,
    decode,
    encode,
    imdb,
    pad_to,
    stratified_split,
    tokenize,
)
from seqdyn.types import ConfigError

TINY = 40  # reviews in each half of the small copy


def index_of(vocabulary):
    return {word: i for i, word in enumerate(vocabulary)}


def refusal(call, *args, **kwargs):
    """The sentence of the ConfigError that a call must raise."""
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


# The pieces


def test_tokens_are_lower_case_words_with_inner_apostrophes():
    words = "don't stop tis a well made film noir 10 10 était l'été".split()
    assert tokenize("Don't<br /><br />stop: 'tis a well-made film_noir! 10/10 'Était' L'ÉTÉ''") == words
    assert tokenize("good<br />bad") == ["good", "bad"]
    assert tokenize(" … <br />'") == []


def test_vocabulary_is_ordered_by_frequency_then_alphabet():
    lists = [["b", "a", "c"], ["c", "d", "b"], ["c"]]
    assert build_vocabulary(lists, 100) == (*SPECIAL, "c", "b", "a", "d")
    assert build_vocabulary(reversed(lists), 6) == (*SPECIAL, "c", "b", "a")


def test_decode_inverts_encode_for_known_words():
    words = tokenize("The film isn't bad, the film is good.")
    vocabulary = build_vocabulary([words], 100)
    ids, _ = pad_to([encode(words, index_of(vocabulary))], 20)
    assert decode(ids[0], vocabulary) == words


def test_unknown_words_become_one_visible_id():
    vocabulary = build_vocabulary([["film"]], 10)
    ids = encode(["a", "film", "b"], index_of(vocabulary))
    assert ids == [1, 2, 3, 2]
    assert decode(ids, vocabulary) == ["<unk>", "film", "<unk>"]


def test_an_empty_review_has_length_one():
    ids, lengths = pad_to([encode([], {})], 3)
    assert ids.tolist() == [[0, 0, 1]] and lengths.tolist() == [1]


@pytest.mark.parametrize(("truncate", "kept"), [("last", [4, 5, 6]), ("first", [1, 4, 5])])
def test_truncation_keeps_the_words_asked_for(truncate, kept):
    for pad in ("before", "after"):
        ids, lengths = pad_to([[1, 4, 5, 6]], 3, truncate, pad)
        assert ids.tolist() == [kept] and lengths.tolist() == [3]


def test_padding_goes_in_front_and_lengths_count_the_rest():
    rows = [[1], [1, 7], [1, 7, 8], [1, 7, 8, 9]]
    ids, lengths = pad_to(rows, 3)
    assert ids.tolist() == [[0, 0, 1], [0, 1, 7], [1, 7, 8], [7, 8, 9]]
    assert lengths.tolist() == [1, 2, 3, 3] and ids.dtype == lengths.dtype == np.int32
    assert pad_to(rows, 3, pad="after")[0].tolist() == [[1, 0, 0], [1, 7, 0], [1, 7, 8], [7, 8, 9]]


def test_split_is_disjoint_complete_stratified_and_a_function_of_the_seed():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [100, 50, 25]))
    rest, held_out = stratified_split(labels, 0.2, seed=3)
    assert np.array_equal(np.sort(np.concatenate([rest, held_out])), np.arange(175))
    assert np.bincount(labels[held_out]).tolist() == [20, 10, 5]
    assert np.array_equal(stratified_split(labels, 0.2, seed=3)[1], held_out)
    assert not np.array_equal(stratified_split(labels, 0.2, seed=4)[1], held_out)


def test_no_part_of_a_split_is_empty():
    assert [len(part) for part in stratified_split(np.array([0, 1]), 0.01, seed=0)] == [1, 1]
    assert [len(part) for part in stratified_split(np.array([0, 1]), 0.99, seed=0)] == [1, 1]
    assert "labels is 1" in refusal(stratified_split, np.array([0]), 0.5, seed=0)
    assert "fraction is 1" in refusal(stratified_split, np.array([0, 1]), 1.0, seed=0)


def test_every_beginning_of_a_balanced_order_is_balanced():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1], [90, 30]))
    order = balanced_order(labels, seed=0)
    assert np.array_equal(np.sort(order), np.arange(120))
    share = np.cumsum(labels[order]) / np.arange(1, 121)
    assert np.all(np.abs(share - 0.25) <= 1 / np.arange(1, 121))


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

    return lambda: monkeypatch.setattr(datasets, "_read", read)


def equal(a, b):
    return a.vocabulary == b.vocabulary and all(
        np.array_equal(x, y) and x.dtype == y.dtype == np.int32
        for split in ("train", "validation", "test")
        for x, y in zip(a.splits[split], b.splits[split], strict=True)
    )


def test_missing_data_is_downloaded_and_prepared_without_tensorflow(tiny, tmp_path):
    text = imdb(tiny, cache_dir=tmp_path)
    assert {split: len(e.labels) for split, e in text.splits.items()} == dict(train=32, validation=8, test=40)
    for examples in text.splits.values():
        for ids, n, label in zip(*examples, strict=True):
            words = decode(ids, text.vocabulary)
            assert np.all(ids[-n:] != 0) and np.all(ids[:-n] == 0) and ids.max() < len(text.vocabulary)
            assert words[:3] == ["said", "of", ("neg", "pos")[label]] and words[-2:] == ["the", "end"]


def test_vocabulary_counts_only_training_words(tiny, tmp_path):
    text = imdb(tiny, cache_dir=tmp_path, length=200)
    names = {word for word in text.vocabulary if word.startswith(("train", "test"))}
    train, validation, test = (text.splits[s].ids for s in ("train", "validation", "test"))
    assert len(names) == 32 == len({word for row in train for word in decode(row, text.vocabulary)} & names)
    assert np.all(np.sum(train == 2, 1) == 0)
    assert np.all(np.sum(validation == 2, 1) == 1) and np.all(np.sum(test == 2, 1) == 1)


def test_ids_stay_below_the_vocabulary_asked_for(tiny, tmp_path):
    text = imdb(tiny, cache_dir=tmp_path, vocabulary=5)
    assert text.vocabulary == (*SPECIAL, "dull", "end")
    assert max(examples.ids.max() for examples in text.splits.values()) == 4


def test_a_limit_keeps_a_balanced_part_of_what_a_larger_limit_keeps(tiny, tmp_path):
    def reviews(limit, half):
        text = imdb(tiny, cache_dir=tmp_path, limit=limit, length=200, vocabulary=1000)
        splits = ("test",) if half == "test" else ("train", "validation")
        assert abs(np.diff(np.bincount(np.concatenate([text.splits[s].labels for s in splits])))) <= 1
        # The number of times it says 'dull' tells a review from the others.
        dull = text.vocabulary.index("dull")
        return {n for s in splits for n in np.sum(text.splits[s].ids == dull, 1)}

    for half in ("train", "test"):
        assert [len(reviews(limit, half)) for limit in (2, 11, 20, 1000)] == [2, 11, 20, TINY]
        assert reviews(11, half) < reviews(20, half)


def test_the_seed_moves_validation_and_leaves_test(tiny, tmp_path):
    a, b = (imdb(tiny, cache_dir=tmp_path, seed=seed, vocabulary=10) for seed in (0, 1))
    assert a.vocabulary == b.vocabulary
    assert not np.array_equal(a.splits["validation"].ids, b.splits["validation"].ids)
    assert np.array_equal(a.splits["test"].ids, b.splits["test"].ids)


# The cache


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


def test_other_data_and_another_tokenizer_have_their_own_cache(tiny_copy, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    imdb(tiny_copy, cache_dir=cache)
    info = next(tiny_copy.rglob("dataset_info.json"))
    info.write_text(info.read_text() + "\n")
    imdb(tiny_copy, cache_dir=cache)
    shard = next(tiny_copy.rglob("*unsupervised.array_record*"))
    shard.write_bytes(shard.read_bytes() + b"\0")
    imdb(tiny_copy, cache_dir=cache)
    monkeypatch.setattr(datasets, "TOKENIZER_VERSION", -1)
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
    arrays["test.labels"] = 1 - arrays["test.labels"]
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
        assert len(imdb(tiny, cache_dir=tmp_path / "file" / "cache").splits["test"].labels) == TINY


# Refusals


@pytest.mark.parametrize(
    ("field", "value"),
    [("vocabulary", 3), ("length", 0), ("truncate", "middle"), ("pad", "front"), ("validation", 0.0)]
    + [("validation", 1.0), ("validation", float("nan")), ("seed", -1), ("limit", 1)],
)
def test_a_wrong_argument_is_one_sentence_before_anything_is_read(field, value, tmp_path):
    # Unwrapped, because the tests' own type checker refuses a wrong Literal before `imdb` sees it.
    sentence = refusal(inspect.unwrap(imdb), tmp_path / "nothing here", **{field: value})
    assert sentence.startswith(f"{field} is {value!r}, but must be ")


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


def test_a_damaged_description_is_one_sentence(tiny_copy, tmp_path):
    next(tiny_copy.rglob("dataset_info.json")).write_text('{"fileFormat": "array_record",')
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


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not os.environ.get("SEQDYN_DATA"):
        pytest.skip("needs IMDB: set SEQDYN_DATA to a TFDS data directory that holds imdb_reviews")
    return imdb(os.environ["SEQDYN_DATA"], cache_dir=tmp_path_factory.mktemp("cache"))


def test_imdb_has_its_known_sizes_and_balanced_halves(real):
    sizes = {split: np.bincount(examples.labels).tolist() for split, examples in real.splits.items()}
    assert sizes == dict(train=[10_000, 10_000], validation=[2_500, 2_500], test=[12_500, 12_500])
    for examples in real.splits.values():
        assert examples.ids.shape == (len(examples.labels), 80)


def test_imdb_ids_are_below_the_vocabulary_and_lengths_count_them(real):
    assert len(real.vocabulary) == len(set(real.vocabulary)) == 10_000
    assert real.vocabulary[:7] == (*SPECIAL, "the", "and", "a", "of")
    for ids, lengths, _ in real.splits.values():
        assert 0 <= ids.min() and ids.max() < 10_000
        assert np.array_equal(lengths, np.sum(ids != 0, 1)) and lengths.min() >= 1
        front = np.arange(80) < 80 - lengths[:, None]
        assert np.all((ids == 0) == front)


def test_imdb_reviews_round_trip_to_the_end_of_their_text(real):
    import tensorflow_datasets as tfds

    source = tfds.data_source("imdb_reviews", split="train", data_dir=os.environ["SEQDYN_DATA"], download=False)
    labels = np.array([row["label"] for row in source.__getitems__(range(25_000))])
    rest, _ = stratified_split(labels, 0.2, seed=0)
    known = set(real.vocabulary)
    for row in (0, 1, 9_999, 19_999):
        review = source[int(rest[row])]
        words = tokenize(review["text"].decode())[-80:]
        ids = real.splits["train"].ids[row]
        assert decode(ids, real.vocabulary) == [word if word in known else "<unk>" for word in words]
        assert real.splits["train"].labels[row] == review["label"]


def test_imdb_labels_mean_what_they_say(real):
    ids, _, labels = real.splits["train"]
    counts = [Counter(ids[labels == label].ravel().tolist()) for label in (0, 1)]
    ratio = {word: counts[1][i] / counts[0][i] for i, word in enumerate(real.vocabulary) if word in CHARGED}
    assert ratio["worst"] < 0.2 and ratio["awful"] < 0.2 and ratio["wonderful"] > 3 and ratio["excellent"] > 3


CHARGED = ("worst", "awful", "wonderful", "excellent")
