"""Laws of `seqdyn.data.text`: words, vocabulary, ids and back, padding, and what order is worth."""

import inspect
import unicodedata

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from _refusals import refusal

from seqdyn.data.text import (
    SPECIAL,
    Examples,
    build_vocabulary,
    decode,
    encode,
    labelled_text,
    last_words,
    pad_to,
    shuffled,
    tokenize,
)
from seqdyn.nets.bptt import valid_steps


def index_of(vocabulary):
    return {word: i for i, word in enumerate(vocabulary)}


def test_tokens_are_lower_case_words_with_inner_apostrophes():
    words = "don't stop tis a well made film noir 10 10 était l'été".split()
    assert tokenize("Don't<br /><br />stop: 'tis a well-made film_noir! 10/10 'Était' L'ÉTÉ''") == words
    assert tokenize("good<br />bad") == ["good", "bad"]
    assert tokenize(" … <br />'") == []


def test_vocabulary_is_ordered_by_frequency_then_alphabet():
    lists = [["b", "a", "c"], ["c", "d", "b"], ["c"]]
    assert build_vocabulary(lists, 100) == (*SPECIAL, "c", "b", "a", "d")
    assert build_vocabulary(reversed(lists), 6) == (*SPECIAL, "c", "b", "a")


def test_special_words_of_a_corpus_are_the_special_ids():
    vocabulary = build_vocabulary([["<unk>", "a", "<pad>", "<unk>"]], 10)
    assert vocabulary == (*SPECIAL, "a")
    assert encode(["<unk>", "a"], index_of(vocabulary)) == [1, 2, 3]


def test_decode_inverts_encode_for_known_words():
    words = tokenize("The film isn't bad, the film is good.")
    vocabulary = build_vocabulary([words], 100)
    ids, _ = pad_to([encode(words, index_of(vocabulary))], 20)
    assert decode(ids[0], vocabulary) == words


def test_ids_are_read_in_any_list_of_whole_numbers():
    words = (*SPECIAL, "a", "b")
    for given in ([1, 3, 4, 0], (1.0, 3.0, 4.0), np.array([3, 4], np.uint8), jnp.array([3, 4]), iter([3, 4])):
        assert decode(given, words) == ["a", "b"]
    assert decode([], words) == []


def test_unknown_words_become_one_visible_id():
    vocabulary = build_vocabulary([["film"]], 10)
    ids = encode(["a", "film", "b"], index_of(vocabulary))
    assert ids == [1, 2, 3, 2]
    assert decode(ids, vocabulary) == ["<unk>", "film", "<unk>"]


def test_a_row_of_no_words_has_length_one():
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
    for given in (map(np.array, rows), [tuple(row) for row in rows], [np.array(row, ">f8") for row in rows]):
        assert pad_to(given, 3)[0].tolist() == ids.tolist()
    assert pad_to(rows, 3, pad="after")[0].tolist() == [[1, 0, 0], [1, 7, 0], [1, 7, 8], [7, 8, 9]]


@pytest.mark.parametrize("pad", ["before", "after"])
@pytest.mark.parametrize("d", [None, 3])
def test_shuffling_keeps_each_sequences_steps_and_its_padding(pad, d):
    rng, lengths = np.random.default_rng(0), np.array([1, 2, 7, 12, 12], np.int32)
    step = np.arange(12)[None]
    mask = step >= 12 - lengths[:, None] if pad == "before" else step < lengths[:, None]
    xs = np.where(mask, rng.permuted(np.tile(1 + np.arange(12), (5, 1)), axis=1), 0).astype(np.int32)
    xs = xs if d is None else (xs[..., None] * np.arange(1, d + 1)).astype(np.float32)
    examples = Examples(xs, lengths, np.arange(5, dtype=np.int32))
    moved = shuffled(examples, 0, pad)
    np.testing.assert_array_equal(np.sort(moved.xs, axis=1), np.sort(xs, axis=1))
    of = moved.xs if d is None else moved.xs[..., 0]
    np.testing.assert_array_equal(of != 0, mask)
    assert not np.array_equal(moved.xs[3], xs[3]) and moved.ys is examples.ys
    if d:
        np.testing.assert_array_equal(moved.xs, of[..., None] * np.arange(1, d + 1))  # a step stays whole
    np.testing.assert_array_equal(shuffled(examples, 0, pad).xs, moved.xs)
    assert not np.array_equal(shuffled(examples, 1, pad).xs, moved.xs)
    orders = np.argsort(moved.xs[3:].reshape(2, 12, -1)[..., 0], axis=1), np.argsort(xs[3:].reshape(2, 12, -1)[..., 0])
    assert not np.array_equal(orders[0][0], orders[0][1])


def test_any_three_lists_are_shuffled_as_examples_are():
    examples = Examples(np.arange(20).reshape(4, 5), np.int32([5, 3, 2, 4]), np.int32([0, 1, 2, 3]))
    right = shuffled(examples, 3)
    series = examples._replace(lengths=pd.Series([5.0, 3, 2, 4]))
    for given in (tuple(examples), [leaf.tolist() for leaf in examples], series):
        for found, leaf in zip(shuffled(given, np.int64(3)), right, strict=True):
            np.testing.assert_array_equal(found, leaf)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: shuffled([[1, 2], [3, 4]], 0), "examples is a list of 2"),
        (lambda: shuffled(None, 0), "examples is a NoneType"),
        (lambda: shuffled(([1, 2], [1, 1], [0, 0]), 0), "xs of examples has the shape (2,)"),
        (lambda: shuffled(([[1, 2]], [3], [0]), 0), "lengths of examples has 3"),
        (lambda: shuffled(([[1, 2]], [1, 1], [0]), 0), "lengths of examples has the shape (2,)"),
        (lambda: shuffled(([[1, 2]], [2], [0]), -1), "seed is -1"),
        (lambda: decode([1, 5], (*SPECIAL, "a")), "ids has 5"),
        (lambda: decode([1, -1], (*SPECIAL, "a")), "ids has -1"),
        (lambda: decode([1, 3.5], (*SPECIAL, "a")), "ids has 3.5"),
        (lambda: decode(["a"], (*SPECIAL, "a")), "ids has the type"),
        (lambda: decode([[1, 3]], (*SPECIAL, "a")), "ids has the shape (1, 2)"),
        (lambda: shuffled((np.ones((2, 3)), [3, 3], np.ones((2, 3))), 0), "ys of examples has the shape (2, 3)"),
        (lambda: pad_to([[1], np.array([2**32 + 1])], 3), "row 1 has 4294967297 in example 0"),
        (lambda: pad_to([np.array([2**31], np.uint32)], 3), "row 0 has 2147483648"),
        (lambda: pad_to([[1, 1.5]], 1), "row 0 has 1.5"),
        (lambda: pad_to([[1, np.nan]], 3), "row 0 has nan"),
        (lambda: pad_to(["123"], 3), "row 0 is a str"),
        (lambda: pad_to([["1", "2"]], 3), "row 0 has the type"),
        (lambda: pad_to([np.ones((2, 2))], 3), "row 0 has the shape (2, 2)"),
        (lambda: pad_to([1, 2], 3), "row 0 has the shape ()"),
        (lambda: pad_to("123", 3), "rows is '123'"),
        (lambda: pad_to(None, 3), "rows is None"),
        (lambda: build_vocabulary([list("abcd")], 2), "size is 2"),
        (lambda: build_vocabulary([["a"]], None), "size is None"),
        (lambda: build_vocabulary([["a", None]], 9), "token_lists has None; it must be a list of words"),
        (lambda: build_vocabulary([["a", "a", 1]], 9), "token_lists has 1; it must be a list of words"),
        (lambda: build_vocabulary([None], 9), "token_lists has None; it must be a list of words"),
        (lambda: build_vocabulary([[b"a"]], 9), "token_lists has b'a'; it must be a list of words"),
        (lambda: build_vocabulary(["a film", "dull"], 9), "token_lists has 'a film'; it must be a list of words"),
        (lambda: build_vocabulary("a film", 9), "token_lists has 'a film'; it must be a list of words"),
        (lambda: encode("a film", {"a": 3}), "tokens is 'a film'; it must be a list of words, as tokenize"),
        (lambda: encode(None, {"a": 3}), "tokens is None; it must be a list of words"),
        (lambda: encode(["a", None], {"a": 3}), "tokens is None; it must be a list of words"),
        (lambda: pad_to([[1], [2, 2**40]], 3), "row 1 has 1099511627776"),
        (lambda: encode(["a"], (*SPECIAL, "a")), "index is a tuple"),
        (lambda: tokenize(b"a"), "text is b'a'"),
        (lambda: tokenize(None), "text is None"),
    ],
)
def test_what_is_no_text_ids_or_examples_is_one_sentence(call, words):
    assert words in refusal(call)


def test_every_order_of_a_short_sequence_comes_up_equally_often():
    n = 6000
    examples = Examples(np.tile(np.array([[0, 1, 2, 3]], np.int32), (n, 1)), np.full(n, 3, np.int32), np.zeros(n))
    counts = np.unique(shuffled(examples, 0).xs, axis=0, return_counts=True)[1]
    assert len(counts) == 6 and np.all(np.abs(counts - n / 6) < 5 * (n / 6) ** 0.5)


REVIEWS = {
    "train": (["A fine film", "a dull dull film", "fine"], [1, 0, 1]),
    "test": (["Fine, but unheard of"], [1]),
}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("हिन्दी में फ़िल्म", ["हिन्दी", "में", "फ़िल्म"]),  # vowel signs and viramas are marks
        ("un cafe\u0301, e\u0301te\u0301", ["un", "café", "été"]),
        ("Caf\u00e9", ["café"]),
        ("\u0915\u094d\u200d\u0937 می\u200cخواهم", ["\u0915\u094d\u200d\u0937", "می\u200cخواهم"]),
        ("\u0301a \u200db c\u200d", ["a", "b", "c"]),
        ("தமிழ் don't", ["தமிழ்", "don't"]),
        ("Don't<br />stop: 'tis a well-made film_noir!", "don't stop tis a well made film noir".split()),
    ],
)
def test_a_word_keeps_its_marks_and_joiners(text, words):
    assert tokenize(text) == [unicodedata.normalize("NFC", word) for word in words]
    assert tokenize(unicodedata.normalize("NFD", text)) == tokenize(text)
    assert len(tokenize(last_words(text, 1))) == 1


def test_labels_that_are_words_are_classes_in_alphabetical_order():
    texts = ["good", "bad", "so so"]
    words = {"train": (texts, ["pos", "neg", "mid"]), "test": (np.array(texts), np.array(["neg", "pos", "pos"]))}
    text = labelled_text(words, length=4)
    assert text.classes == ("mid", "neg", "pos")
    assert text.splits["train"].ys.tolist() == [2, 1, 0] and text.splits["test"].ys.tolist() == [1, 2, 2]
    assert labelled_text({"train": (texts, [0, 1, 0])}, length=4).classes == ()


class Column:
    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)


class Series(Column):
    """As a pandas one whose index does not begin at 0."""

    def tolist(self):
        return self.values


class Chunked(Column):
    """A column of pyarrow in chunks: its items are its own scalars, which only it makes Python's."""

    def to_pylist(self):
        return self.values

    def __iter__(self):
        return iter([object()] * len(self.values))


def column(values):
    """A table of one."""
    return pd.DataFrame({"text": values}, index=range(len(values), 0, -1))


@pytest.mark.parametrize("of", [list, tuple, Series, Chunked, np.array, lambda v: np.array(v, object), column])
def test_texts_and_labels_come_in_any_list(of):
    texts = ["good", "bad"]
    right = labelled_text({"train": (texts, [1, 0])}, length=4).splits["train"]
    for given in (texts, [t.encode() for t in texts]):
        for labels in ([1, 0], [True, False], [1.0, 0.0]):
            found = labelled_text({"train": (of(given), of(labels))}, length=4).splits["train"]
            assert all(np.array_equal(a, b) for a, b in zip(found, right, strict=True))


def test_labelled_texts_become_ids_by_the_words_of_the_training_split():
    text = labelled_text(REVIEWS, vocabulary=100, length=5)
    assert text.vocabulary == (*SPECIAL, "dull", "film", "fine", "a") or set(text.vocabulary) == {
        *SPECIAL,
        "a",
        "dull",
        "film",
        "fine",
    }
    assert decode(text.splits["test"].xs[0], text.vocabulary) == ["fine", "<unk>", "<unk>", "<unk>"]
    assert text.splits["train"].lengths.tolist() == [4, 5, 2] and text.splits["train"].ys.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": ([], [])}, ["train", "0 texts", "0 labels"]),
        ({"test": (["a"], [1, 0])}, ["test", "1 texts", "2 labels"]),
        ({"test": (["a"], [2])}, ["label 0 of test is 2", "0 to 1"]),
        ({"test": (["a"], [-1])}, ["label 0 of test is -1"]),
        ({"test": pd.DataFrame({"text": ["a"], "label": [0]})}, ["reviews['test'] is", "two lists"]),
        ({"train": (["a", "b"], [0, 10**12])}, ["label 1 of train is 1000000000000"]),
        ({"test": (["a"], [0.5])}, ["label 0 of test is 0.5"]),
        ({"test": (["a"], [float("nan")])}, ["label 0 of test is nan"]),
        ({"test": (["a"], [None])}, ["label 0 of test is None"]),
        ({"train": (["a", "b"], ["pos", None])}, ["label 1 of train is None", "missing"]),
        ({"train": (["a", "b"], pd.Series(["pos", None], dtype="string"))}, ["label 1 of train is <NA>", "missing"]),
        ({"train": (["a", "b"], [float("nan"), "pos"])}, ["label 0 of train is nan", "missing"]),
        ({"train": (["a", "b"], [0, None])}, ["label 1 of train is None", "missing"]),
        ({"train": (["a"], [None])}, ["label 0 of train is None", "missing"]),
        ({"test": (pd.DataFrame({"a": ["a"], "b": ["c"]}), [0])}, ["texts of test are a DataFrame", "(1, 2)", "list"]),
        ({"test": (["a"], np.zeros((1, 2)))}, ["labels of test are a ndarray", "(1, 2)", "list"]),
        ({"test": (["a"], ["pos"])}, ["label 0 of test is 'pos'", "a class"]),
        ({"train": (["a", "b"], ["pos", 1])}, ["label 0 of train is 'pos'", "all labels words"]),
        ({"train": (["a", "b"], ["p", "n"]), "test": (["a"], ["q"])}, ["label 0 of test is 'q'", "n, p"]),
        ({"test": (["a", None], [0, 1])}, ["text 1 of test is None", "string"]),
        ({"test": ("ab", [0, 1])}, ["texts of test are 'ab'", "list"]),
        ({"test": (["fine", " … <br />"], [1, 0])}, ["text 1 of test", "…", "a word"]),
    ],
)
def test_labelled_texts_that_cannot_be_are_named(change, words):
    sentence = refusal(labelled_text, REVIEWS | change)
    assert all(word in sentence for word in words), sentence


def test_a_text_set_without_training_split_or_with_a_wrong_setting_is_named():
    assert "train" in refusal(labelled_text, {"test": REVIEWS["test"]})
    assert "the splits 0, test, but" in refusal(labelled_text, {0: REVIEWS["train"], "test": REVIEWS["test"]})
    call = inspect.unwrap(labelled_text)  # the tests' own type checker refuses a wrong Literal before it does
    for field, value in [("vocabulary", 3), ("length", 0)]:
        assert refusal(call, REVIEWS, **{field: value}).startswith(f"{field} is {value!r}; it must be ")


@pytest.mark.parametrize(
    "call, wrong, sentence",
    [
        (
            pad_to,
            dict(rows=[[1, 4]], length=3, truncate="middle"),
            "truncate is 'middle'; it must be one of first, last.",
        ),
        (pad_to, dict(rows=[[1, 4]], length=3, pad="front"), "pad is 'front'; it must be one of before, after."),
        (pad_to, dict(rows=[[1, 4]], length=3.5), "length is 3.5; it must be a whole number of at least 1."),
        (shuffled, dict(examples=None, seed=0, pad="front"), "pad is 'front'; it must be one of before, after."),
        (
            valid_steps,
            dict(lengths=jnp.array([2]), steps=3, pad="front"),
            "pad is 'front'; it must be one of before, after.",
        ),
    ],
)
def test_another_word_for_a_side_is_a_sentence(call, wrong, sentence):
    assert refusal(inspect.unwrap(call), **wrong) == sentence
