"""Laws of `seqdyn.data.vectors`: the files word vectors come in, a vocabulary's share of them, and neighbours."""

import gzip
import inspect
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


@pytest.mark.parametrize("kind", ["GZ", "Zip"])
def test_an_ending_in_capitals_says_the_same(kind, tmp_path):
    path = written(tmp_path, kind.lower(), TEXT)
    if kind == "Zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("VECTORS.TXT", TEXT)
    assert read_vectors(path.rename(path.with_suffix(f".{kind}"))).words == WORDS


def binary(head="3 3\n", words=WORDS, table=TABLE, end=b"\n"):
    rows = (
        word.encode() + b" " + np.asarray(row, "<f4").tobytes() + end for word, row in zip(words, table, strict=True)
    )
    return head.encode() + b"".join(rows)


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["one after the other", "a line each"])
@pytest.mark.parametrize("kind", ["bin", "any", "bin.gz", "zip"])
def test_word2vec_s_binary_format_is_the_same_vectors(kind, end, tmp_path):
    path, raw = tmp_path / f"v.{kind}", binary(end=end)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("v.bin", raw)
    else:
        path.write_bytes(gzip.compress(raw) if kind == "bin.gz" else raw)
    words, table = read_vectors(path)
    assert words == WORDS and table.dtype == np.float32
    np.testing.assert_array_equal(table, TABLE)
    assert read_vectors(path, limit=2).words == WORDS[:2]


def test_numbers_that_look_like_letters_are_binary_where_the_name_says_so(tmp_path):
    letters = np.frombuffer(b"abcdefgh", "<f4").reshape(2, 1)
    (tmp_path / "v.bin").write_bytes(binary("2 1\n", WORDS[:2], letters))
    np.testing.assert_array_equal(read_vectors(tmp_path / "v.bin").table, letters)
    (tmp_path / "text.bin").write_text("3 3\n" + TEXT, encoding="utf-8")
    np.testing.assert_array_equal(read_vectors(tmp_path / "text.bin").table, TABLE)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (binary()[:-3], ["word 3", "cut off", "3 float32"]),
        (binary()[:-15], ["word 3", "cut off"]),
        (binary("2 3\n"), ["behind its last word", "2"]),
        (binary("3 0\n"), ["line 1", "0 numbers"]),
        (binary(f"3 {10**13}\n"), ["cannot be read (MemoryError)"]),
        (binary(f"3 {10**30}\n"), ["cannot be read"]),
        (binary(table=[*TABLE[:2], [np.nan, 0, 0]]), ["word 3", "NaN"]),
        (binary(words=("the", "", "film")), ["word 2", "no word"]),
        (binary().replace(b"film", b"f\xffm"), ["word 2", "UTF-8"]),
    ],
    ids=["a number", "a word", "more", "no numbers", "too many", "far too many", "NaN", "no word", "no text"],
)
def test_a_wrong_word_of_a_binary_file_is_named(raw, words, tmp_path):
    (tmp_path / "v.bin").write_bytes(raw)
    sentence = refusal(read_vectors, tmp_path / "v.bin")
    assert all(word in sentence for word in [*words, "v.bin"]), sentence


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
        ("film 1 2 1e39", ["beyond 32 bits"]),
        (" 1 2 3", ["no word"]),
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
    damaged = bytearray(gzip.compress("".join(f"w{i} 0.1 0.2\n" for i in range(5000)).encode()))
    damaged[300:320] = b"x" * 20
    (tmp_path / "d.gz").write_bytes(damaged)
    assert "d.gz" in refusal(read_vectors, tmp_path / "d.gz")
    (tmp_path / "utf16.txt").write_text("the 1 2\n", encoding="utf-16")
    assert "UTF-8" in refusal(read_vectors, tmp_path / "utf16.txt")
    packed = bytearray(written(tmp_path, "zip", "".join(f"w{i} 0.1 0.2\n" for i in range(50))).read_bytes())
    packed[packed.index(b"w30")] = ord("v")  # stored, not packed: only its checksum tells
    (tmp_path / "e.zip").write_bytes(packed)
    assert "e.zip" in refusal(read_vectors, tmp_path / "e.zip")


def test_one_text_of_an_archive_of_several_is_named_behind_it(tmp_path):
    path = tmp_path / "glove.6B.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for width in (50, 100, 200, 300):
            archive.writestr(f"glove.6B.{width}d.txt", "".join(f"{w} {'1 ' * width}\n" for w in ("the", "of")))
    assert read_vectors(path / "glove.6B.100d.txt").table.shape == (2, 100)
    for sentence in (refusal(read_vectors, path), refusal(read_vectors, path / "glove.6B.25d.txt")):
        assert "glove.6B.50d.txt, glove.6B.100d.txt" in sentence and f"as {path}/glove.6B.50d.txt" in sentence


@pytest.mark.parametrize(
    "raw",
    [
        "\ufeff" + TEXT,
        TEXT.replace("\n", "\r\n"),
        TEXT.replace(" ", "\t"),
        TEXT.replace("the ", "the\t"),
        TEXT + "\n \n",
    ],
    ids=["byte-order mark", "windows", "tabs", "a tab", "blank lines at the end"],
)
@pytest.mark.parametrize("head", ["", "3 3\n"], ids=["glove", "word2vec"])
def test_the_same_text_written_elsewhere_is_the_same_vectors(raw, head, tmp_path):
    mark, text = ("\ufeff", raw[1:]) if raw[0] == "\ufeff" else ("", raw)
    (tmp_path / "v.txt").write_bytes((mark + head + text).encode())
    words, table = read_vectors(tmp_path / "v.txt")
    assert words == WORDS and np.array_equal(table, TABLE)


def test_a_first_word_of_several_pieces_is_read_where_a_header_says_the_width(tmp_path):
    (tmp_path / "v.txt").write_text("2 2\n. . . 1 2\na\u00a0b 3 4\n", encoding="utf-8")
    assert read_vectors(tmp_path / "v.txt").words == (". . .", "a\u00a0b")


def test_a_file_of_fewer_words_than_its_first_line_says_costs_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="has 3 of the 4 words"):
        assert read_vectors(written(tmp_path, "txt", "4 3\n" + TEXT)).words == WORDS


def test_a_binary_file_warns_as_a_text_does(tmp_path):
    (tmp_path / "v.bin").write_bytes(binary("4 3\n", ("the", "of", "the"), TABLE))
    with pytest.warns(UserWarning) as told:
        assert read_vectors(tmp_path / "v.bin").words == ("the", "of")
    assert "3 of the 4 words" in str(told[0].message) and "word 1 stands again in word 3" in str(told[1].message)


def test_of_a_word_that_stands_twice_the_first_counts_with_a_warning(tmp_path):
    (tmp_path / "v.txt").write_text("the 1 2\nof 3 4\nthe 7 8\nof 7 8\na 5 6\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="'the' of line 1 stands again in line 3, and 1 more line"):
        words, table = read_vectors(tmp_path / "v.txt")
    assert words == ("the", "of", "a") and table.tolist() == [[1, 2], [3, 4], [5, 6]]


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


def test_what_is_no_list_of_words_or_no_table_of_them_is_one_sentence():
    vectors = Vectors(("the", "of"), np.eye(2, dtype=np.float32))
    for wrong in ("the", [], [1, 2]):
        assert "they must be a list of words" in refusal(match, wrong, vectors)
    assert "what read_vectors returns" in refusal(match, ["the"], {"the": [1.0]})
    assert "seed is -1" in refusal(match, ["the"], vectors, seed=-1)
    assert "word is 3" in refusal(inspect.unwrap(nearest), 3, ["the", "of"], np.eye(2))
    for k in (0, 1.5, "x"):
        assert f"k is {k!r}" in refusal(inspect.unwrap(neighbour_table), match(["the", "of"], vectors), k)
    others = Examples(np.int32([[0, 7]]), np.int32([1]), np.int32([0]))
    assert "examples has the id 7" in refusal(coverage, match(["the", "of"], vectors), others)
    assert "table is float64 of the shape (2, 2)" in refusal(nearest, "the", ["the", "of", "a"], np.eye(2))
    assert nearest("the", ["the", "of"], [[1, 2], [2, 4]])[0][1] == pytest.approx(1.0)


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


def test_a_vocabulary_of_any_symbols_comes_back_from_its_file(tmp_path):
    path = tmp_path / "vocabulary.txt"
    odd = (
        "\n",
        "\r",
        "\r\n",
        "\t",
        " ",
        "",
        "\u2028",
        "\x85",
        "\x00",
        '"',
        "\\",
        "\\n",
        '"a"',
        "{",
        "\ufeff",
        "\ud800",
        "न",
    )
    for words in ((*SPECIAL, "don't", "été", *odd), odd, odd[::-1], ("\n",), ()):
        save_vocabulary(path, words)
        assert load_vocabulary(path) == words
    assert [p.name for p in tmp_path.iterdir()] == ["vocabulary.txt"]
    assert "does not exist" in refusal(load_vocabulary, tmp_path / "none.txt")


def test_an_old_vocabulary_is_read_and_a_damaged_one_is_a_sentence(tmp_path):
    path = tmp_path / "vocabulary.txt"
    path.write_text('<pad>\n<start>\n<unk>\nété\n"a"\n', encoding="utf-8", newline="\n")
    assert load_vocabulary(path) == (*SPECIAL, "été", '"a"')
    for words in [("\n", "a", "b"), ("a", "\n", "b"), ("a", "b", "\n")]:  # of characters
        path.write_bytes(("\n".join(words) + "\n").encode())
        assert load_vocabulary(path) == words
    save_vocabulary(path, SPECIAL)
    whole = path.read_bytes()
    for damaged in (
        b"",
        whole[:-5],
        whole[: whole.rindex(b'"<unk')],
        whole.replace(b'"<pad>"', b"7"),
        whole + b"\xff\n",
    ):
        path.write_bytes(damaged)
        assert "vocabulary.txt is damaged" in refusal(load_vocabulary, path)


def test_real_vectors_know_like_words():
    if not os.environ.get("SEQDYN_GLOVE"):
        pytest.skip("needs vectors: set SEQDYN_GLOVE to a file of GloVe's 50-dimensional vectors")
    words, table = read_vectors(os.environ["SEQDYN_GLOVE"], limit=20_000)
    assert table.shape == (20_000, 50)
    near = [word for word, _ in nearest("great", words, table, 10)]
    assert {"good", "little", "well"} & set(near)
