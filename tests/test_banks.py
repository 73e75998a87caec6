"""Laws of `seqdyn.data.banks`: variants as ids, synonyms that are WordNet's, translation there and back, the cache."""

import inspect
import re
import shutil
import subprocess

import numpy as np
import pytest
from _refusals import refusal

from seqdyn.data import banks
from seqdyn.data.banks import apertium, back_translation, bank, synonyms, wordnet_antonyms, wordnet_synonyms
from seqdyn.data.text import SPECIAL, UNKNOWN, decode, labelled_text, last_words, tokenize

FILM = 'A "GREAT" film<br />and the plot is not bad. I watched it in Paris with Bill, it was a boring afternoon.'


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQDYN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def dictionary():
    """WordNet, where NLTK finds it."""
    nltk = pytest.importorskip("nltk", reason="needs nltk: install seqdyn[text]")
    try:
        nltk.data.find("corpora/wordnet")
    except LookupError:
        pytest.skip("needs WordNet: set NLTK_DATA to a folder that holds corpora/wordnet")


@pytest.fixture
def translator():
    """Apertium with both its modes for Spanish."""
    if shutil.which("apertium") is None or "eng-spa" not in subprocess.check_output(["apertium", "-l"], text=True):
        pytest.skip("needs Apertium: apt-get install apertium-eng-spa")


# --- banks


@pytest.mark.parametrize("pad", ["before", "after"])
def test_a_bank_of_the_texts_themselves_is_the_data_set(pad):
    reviews = {"train": (["A fine film", "a dull, dull and long film", "fine"], [1, 0, 1])}
    text = labelled_text(reviews, vocabulary=100, length=5, pad=pad)
    made = bank([[t, t] for t in reviews["train"][0]], [1, 0, 1], text.vocabulary, length=5, pad=pad)
    train = text.splits["train"]
    for k in range(2):
        np.testing.assert_array_equal(made.xs[:, k], train.xs)
        np.testing.assert_array_equal(made.lengths[:, k], train.lengths)
    np.testing.assert_array_equal(made.ys, train.ys)
    assert made.xs.dtype == made.lengths.dtype == made.ys.dtype == np.int32


def test_a_word_that_the_vocabulary_lacks_is_unknown():
    vocabulary = (*SPECIAL, "fine", "film")
    made = bank([["fine film"], ["splendid film"]], [1, 1], vocabulary, length=4)
    assert decode(made.xs[1, 0], vocabulary) == ["<unk>", "film"] and made.xs[1, 0, 2] == UNKNOWN


@pytest.mark.parametrize(
    ("variants", "labels", "said"),
    [
        ([], [], ["0 texts"]),
        ([["a"], ["b"]], [1], ["2 texts", "labels are 1"]),
        ([["a", "b"], ["c"]], [1, 0], ["text 1 has 1 variants", "2"]),
        ([["a"], ["…"]], [1, 0], ["text 1", "without a word"]),
    ],
)
def test_a_bank_that_cannot_be_is_named(variants, labels, said):
    sentence = refusal(bank, variants, labels, (*SPECIAL, "a"))
    assert all(part in sentence for part in said), sentence


def test_the_last_words_are_those_that_are_read():
    assert last_words(FILM, 4) == "was a boring afternoon." and last_words(FILM, 90) == FILM.replace("<br />", " ")
    for n in range(1, 24):
        assert tokenize(last_words(FILM, n)) == tokenize(FILM)[-n:]


# --- synonyms


@pytest.mark.slow
@pytest.mark.usefixtures("dictionary")
def test_synonyms_stand_in_one_of_wordnets_synsets_with_the_word():
    from nltk.corpus import wordnet

    for word in ("film", "great", "terrible", "boring", "watch"):
        found = wordnet_synonyms(word)
        assert found and word not in found
        shared = [{name.replace("_", " ") for name in s.lemma_names()} for s in wordnet.synsets(word)]
        assert any({word, *found} == names for names in shared)
    assert "movie" in wordnet_synonyms("film") and wordnet_synonyms("films") == ()  # in this very form
    assert wordnet_synonyms("not") == wordnet_synonyms("a") == wordnet_synonyms("zzz") == ()
    assert "bad" in wordnet_antonyms("good") and not wordnet_antonyms("film")


@pytest.mark.usefixtures("dictionary")
def test_only_a_share_of_the_words_becomes_synonyms_and_nothing_else_changes():
    words = re.findall(r"[A-Za-z]+", FILM.replace("<br />", "<>"))
    synonym = {w: wordnet_synonyms(w.lower()) for w in words if w.islower() or w == "GREAT"}
    gaps = re.split(r"[A-Za-z]+", FILM.replace("<br />", "<>"))
    pattern = "".join(
        re.escape(gap) + "({})".format("|".join(re.escape(o) for o in (word, *synonym.get(word, ()))))
        for gap, word in zip(gaps, words, strict=False)
    ) + re.escape(gaps[-1])
    for share, count in ((0.0, 0), (0.05, 1), (0.1, 2), (1.0, sum(map(bool, synonym.values())))):
        for new in synonyms([FILM], 8, share)[0]:
            match = re.fullmatch(pattern, new.replace("<br />", "<>"), re.IGNORECASE)
            assert match, new
            changed = [word for word, now in zip(words, match.groups(), strict=True) if now != word]
            assert len(changed) == count and not {"not", "Paris", "Bill", "I", "the"} & set(changed)


@pytest.mark.usefixtures("dictionary")
def test_capitals_are_kept_and_names_stay():
    for new in synonyms([FILM], 8, 1.0)[0]:
        assert any(f'"{other.upper()}"' in new for other in wordnet_synonyms("great")), new
    assert synonyms(["Bill"], 1, 1.0) == [["Bill"]]


@pytest.mark.usefixtures("dictionary")
def test_the_variants_of_a_text_are_its_own_whatever_stands_beside_it():
    alone = synonyms([FILM], 4, 0.3)[0]
    assert synonyms(["A great film", FILM], 4, 0.3)[1] == alone
    assert len(set(alone)) > 1 and synonyms([FILM], 2, 0.3)[0] == alone[:2]
    assert synonyms([FILM], 4, 0.3, seed=1)[0] != alone
    assert synonyms([], 4) == []


def test_settings_of_synonyms_that_cannot_be_are_named():
    assert "variants is 0" in refusal(synonyms, [FILM], 0)
    assert "share is 1.5" in refusal(synonyms, [FILM], 1, 1.5)
    assert "share is 'x'" in refusal(inspect.unwrap(synonyms), [FILM], 1, "x")
    assert "variants is 'x'" in refusal(inspect.unwrap(synonyms), [FILM], "x")
    assert "seed is -1" in refusal(synonyms, [FILM], 1, 0.5, -1)


def test_a_missing_dictionary_is_one_sentence_that_says_where_to_get_it(monkeypatch):
    nltk = pytest.importorskip("nltk", reason="needs nltk: install seqdyn[text]")
    from nltk.corpus.util import LazyCorpusLoader

    missing = LazyCorpusLoader("wordnet_that_is_not_there", nltk.corpus.reader.WordNetCorpusReader, None)
    monkeypatch.setattr(nltk.corpus, "wordnet", missing)
    for function in (banks._wordnet, wordnet_synonyms):
        function.cache_clear()
    try:
        sentence = refusal(synonyms, [FILM])
    finally:
        for function in (banks._wordnet, wordnet_synonyms):
            function.cache_clear()
    assert "nltk.download('wordnet')" in sentence and "NLTK_DATA" in sentence


# --- translation


def test_back_translation_goes_there_and_then_back_in_one_call_each():
    calls = []

    def there(texts):
        calls.append(len(texts))
        return [text[::-1] for text in texts]

    assert back_translation([FILM, "fine"], list, list) == [FILM, "fine"]
    assert back_translation([FILM, "fine"], there, there) == [FILM, "fine"] and calls == [2, 2]
    assert back_translation(["fine"], lambda ts: [t + " uno" for t in ts], lambda ts: [t + " two" for t in ts]) == [
        "fine uno two"
    ]
    assert back_translation(["fine", "dull"], lambda ts: ["…", ts[1]], list) == ["fine", "dull"]
    assert "returned 1 texts for 2" in refusal(back_translation, ["a", "b"], list, lambda ts: ts[:1])


@pytest.mark.usefixtures("translator")
def test_apertium_translates_and_comes_back_to_the_sense():
    there = apertium("eng-spa")(["This is a good film."])
    assert "película" in there[0] and "buena" in there[0]
    assert tokenize(apertium("spa-eng")(there)[0]) == tokenize("This is a good film")


@pytest.mark.usefixtures("translator")
def test_texts_stay_apart_in_apertiums_one_process():
    """Each of these would run into its neighbours if a line's end were all that stood between them."""
    texts = [
        "I have a red",
        "car",
        "",
        "the very\ngood film",
        "^[x]$ <b>{\\ 10/10 ***",
        "zqxv Zqxvs",
        "great<br />film",
    ]
    there = apertium("eng-spa")(texts)
    assert there[:3] == ["Tengo un rojo", "Coche", ""] or (len(there) == 7 and there[2] == "" and "rojo" in there[0])
    assert there[5] == "zqxv Zqxvs" and "\n" not in "".join(there)  # unknown words bear no marks
    for text, translated in zip(texts, there, strict=True):
        assert apertium("eng-spa")([text]) == [translated]


@pytest.mark.usefixtures("translator")
def test_what_apertium_has_not_is_named():
    sentence = refusal(apertium("eng-xyz"), ["fine"])
    assert "mode is 'eng-xyz'" in sentence and "eng-spa" in sentence and "apt-get install" in sentence


def test_a_missing_translator_is_one_sentence_that_names_the_package(monkeypatch):
    monkeypatch.setattr(banks.shutil, "which", lambda name: None)
    assert "apt-get install apertium-eng-spa" in refusal(apertium("eng-spa"), ["fine"])


def test_what_was_made_once_is_read_from_the_cache(monkeypatch, tmp_path):
    calls = []

    def made(texts, mode):
        calls.append(mode)
        return [f"{mode} {text} é" for text in texts]

    monkeypatch.setattr(banks, "_apertium", made)
    first = apertium("eng-spa")(["fine", "", "dull"])
    assert first == ["eng-spa fine é", "eng-spa  é", "eng-spa dull é"]
    assert apertium("eng-spa")(["fine", "", "dull"]) == first and calls == ["eng-spa"]
    assert apertium("spa-eng")(["fine", "", "dull"]) != first and calls == ["eng-spa", "spa-eng"]
    apertium("eng-spa")(["fine", "dull", ""])
    apertium("eng-spa", tmp_path / "elsewhere")(["fine", "", "dull"])
    assert len(calls) == 4
    assert apertium("eng-spa")([]) == []
