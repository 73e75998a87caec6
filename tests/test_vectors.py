"""Laws of `seqdyn.data.vectors`: the files word vectors come in, a vocabulary's share of them, and neighbours."""

import gzip
import os
import zipfile

import numpy as np
import pytest
from _refusals import refusal

from seqdyn.data.text import SPECIAL, Examples
from seqdyn.data.vectors import (
    Vectors,
    cosine_similarity,
    coverage,
    load_vocabulary,
    match,
    nearest,
    neighbour_table,
    read_vectors,
    save_vocabulary,
)

TEXT = "the 0.1 -2 3e-1\nfilm 1 0 0\nété 0 0.5 -0.25\n"
WORDS = ("the", "film", "été")
TABLE = np.float32([[0.1, -2, 0.3], [1, 0, 0], [0, 0.5, -0.25]])


def written(folder, kind, text=TEXT):
    path = folder / f"vectors.{kind}"
    if kind == "gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.md", "no vectors")
            archive.writestr("anything.txt", text)
    else:
        path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["txt", "gz", "zip"])
@pytest.mark.parametrize("head", ["", "3 3\n"], ids=["glove", "word2vec"])
def test_a_file_reads_the_same_in_every_format_it_comes_in(kind, head, tmp_path):
    words, table = read_vectors(written(tmp_path, kind, head + TEXT))
    assert words == WORDS and table.dtype == np.float32
    np.testing.assert_array_equal(table, TABLE)
    assert read_vectors(written(tmp_path, kind, head + TEXT), limit=2).words == WORDS[:2]


def test_a_word_may_hold_spaces_and_a_line_may_end_in_one(tmp_path):
    assert read_vectors(written(tmp_path, "txt", "the 1 2 3\n. . . 4 5 6\na 7 8 9 \n")).words == ("the", ". . .", "a")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("film 1 2", ["2 fields"]),
        ("film 1 2 3 4", ["4 numbers", "3 numbers"]),
        ("film 1 2 x", ["3 numbers"]),
        ("film 1 2 inf", ["Inf or NaN"]),
        ("film 1 nan 2", ["Inf or NaN"]),
        ("film 1 1e39 2", ["1e39", "32 bits"]),
        (" 1 2 3", ["begins with a space"]),
        ("film\t1\t2", ["2 fields"]),
        ("", ["0 fields"]),
    ],
)
def test_a_malformed_line_is_named_with_file_and_number(line, words, tmp_path):
    path = written(tmp_path, "txt", f"the 0 0 0\nété 0 0 0\n{line}\nfilm 0 0 0\n")
    sentence = refusal(read_vectors, path)
    assert f"line 3 of {path}" in sentence and all(word in sentence for word in words), sentence


def test_a_file_that_is_no_text_of_vectors_is_one_sentence(tmp_path):
    assert "does not exist" in refusal(read_vectors, tmp_path / "none.txt")
    assert "is empty" in refusal(read_vectors, written(tmp_path, "txt", ""))
    (tmp_path / "b.txt").write_bytes(b"the \xff\xfe 1 2\n")
    assert "UTF-8" in refusal(read_vectors, tmp_path / "b.txt")
    for name in ("c.zip", "c.gz"):
        (tmp_path / name).write_bytes(b"no archive")
        assert name in refusal(read_vectors, tmp_path / name)
    whole = written(tmp_path, "gz", TEXT * 1)
    whole.write_bytes(whole.read_bytes()[:-12])
    assert "vectors.gz" in refusal(read_vectors, whole)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("glove.50d.txt", TEXT)
        archive.writestr("glove.100d.txt", TEXT)
    assert "glove.50d.txt, glove.100d.txt" in refusal(read_vectors, tmp_path / "two.zip")


def test_every_id_has_a_row_its_own_vector_if_there_is_one_and_padding_none():
    vocabulary = (*SPECIAL, "film", "unheard", "the")
    table, found = match(vocabulary, Vectors(WORDS, TABLE), seed=1)
    assert found.tolist() == [False, False, False, True, False, True] and table.dtype == np.float32
    np.testing.assert_array_equal(table[[3, 5]], TABLE[[1, 0]])
    assert not table[0].any() and table[4].any()
    np.testing.assert_array_equal(match(vocabulary, Vectors(WORDS, TABLE), seed=1).table, table)
    assert not np.array_equal(match(vocabulary, Vectors(WORDS, TABLE), seed=2).table[4], table[4])
    many = match(tuple(map(str, range(20_000))), Vectors(WORDS, TABLE)).table
    np.testing.assert_allclose(many[1:].std(), TABLE.std(), rtol=0.02)


def test_coverage_is_the_share_of_words_read_without_padding():
    matched = match((*SPECIAL, "film", "unheard"), Vectors(WORDS, TABLE))
    examples = Examples(np.int32([[0, 1, 3, 3], [1, 4, 2, 3]]), np.int32([3, 4]), np.int32([0, 1]))
    assert coverage(matched, examples) == 3 / 5


def test_cosine_similarity_is_that_of_directions():
    a = np.array([[1.0, 2, 2], [0, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(cosine_similarity(a, 5 * a), [1, 0, 1])
    np.testing.assert_allclose(cosine_similarity(a, -a), [-1, 0, -1])
    np.testing.assert_allclose(cosine_similarity(a[:1], np.array([[2.0, -2, 1]])), [0], atol=1e-12)


def test_neighbours_are_the_words_of_like_direction_without_the_word_itself_and_the_special_ids():
    words = (*SPECIAL, "good", "great", "bad", "chair")
    table = np.array([[1, 0], [1, 0], [1, 0], [1.0, 0.1], [2, 0.3], [-1, 0], [0, 1]])
    found = nearest("good", words, table, k=9)
    assert [word for word, _ in found] == ["great", "chair", "bad"]
    np.testing.assert_allclose(found[0][1], cosine_similarity(table[3], table[4]))
    assert len(nearest("good", words, table, k=1)) == 1
    assert "'gret'" in refusal(nearest, "gret", words, table) and "great" in refusal(nearest, "gret", words, table)
    assert "k is 0" in refusal(nearest, "good", words, table, k=0)


def test_the_table_of_neighbours_is_that_of_each_word_for_itself():
    rng = np.random.default_rng(0)
    words = (*SPECIAL, *map(str, range(1200)))  # more than are compared at once
    matched = match(words, Vectors(words[9:], rng.normal(size=(1194, 6)).astype(np.float32)))
    within = np.arange(len(words)) % 5 > 0
    table = neighbour_table(matched, 4, within)
    assert table.dtype == np.int32 and table.shape == (len(words), 4)
    own = np.arange(len(words))[:, None]
    lone = ~(matched.found & within)
    assert lone[:9].all() and lone[10] and np.all(table[lone] == own[lone]) and np.all(table[~lone] != own[~lone])
    some = matched.found & within
    of = tuple(np.array(words)[some])
    for i in (11, 12, 1201):
        assert [words[j] for j in table[i]] == [word for word, _ in nearest(words[i], of, matched.table[some], 4)]
    assert np.all(neighbour_table(matched, 1)[9:] == neighbour_table(matched, 3)[9:, :1])
    for k in (0, 1194):
        assert f"k is {k}" in refusal(neighbour_table, matched, k)


def test_a_vocabulary_comes_back_from_its_file(tmp_path):
    words = (*SPECIAL, "don't", "été", "\u2028"[:0] + "x")
    save_vocabulary(tmp_path / "vocabulary.txt", words)
    assert load_vocabulary(tmp_path / "vocabulary.txt") == words
    assert [p.name for p in tmp_path.iterdir()] == ["vocabulary.txt"]
    assert "does not exist" in refusal(load_vocabulary, tmp_path / "none.txt")


def test_real_vectors_know_like_words():
    if not os.environ.get("SEQDYN_GLOVE"):
        pytest.skip("needs vectors: set SEQDYN_GLOVE to a file of GloVe's 50-dimensional vectors")
    words, table = read_vectors(os.environ["SEQDYN_GLOVE"], limit=20_000)
    assert table.shape == (20_000, 50)
    near = [word for word, _ in nearest("great", words, table, 10)]
    assert {"good", "little", "well"} & set(near)
