"""Laws of `experiments._augmented_text`: marks of what was changed, and data that trains."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments import _augmented_text as texts
from seqdyn.data.check import check
from seqdyn.learn.config import Spec

X64 = False
OLD = "it was a good film and the plot is fine".split()


@pytest.mark.parametrize(
    ("after", "shown"),
    [
        (OLD, ("it was a good film and the plot is fine",) * 2),
        (OLD[:3] + OLD[4:], ("it was a [good] film and the plot is fine", "it was a film and the plot is fine")),
        (
            [*OLD, "indeed", "so"],
            ("it was a good film and the plot is fine", "it was a good film and the plot is fine [indeed so]"),
        ),
        (
            "it was a fine film and the plot is fine".split(),
            ("it was a [good] film and the plot is fine", "it was a [fine] film and the plot is fine"),
        ),
    ],
)
def test_what_only_one_of_two_texts_has_is_marked(after, shown):
    assert texts.marked(OLD, after) == shown


def test_only_the_last_words_are_shown():
    assert texts.marked(OLD, [*OLD[:-1], "poor"], 4) == ("the plot is [fine]", "the plot is [poor]")
    assert texts.marked(OLD, ["so", *OLD], 4) == ("the plot is fine",) * 2


@pytest.fixture(scope="module")
def reviews(imdb_dir):
    vectors = os.environ.get("SEQDYN_GLOVE")
    if not vectors:
        pytest.skip("needs vectors: set SEQDYN_GLOVE to a file of GloVe's 50-dimensional vectors")
    return texts.read(Path(imdb_dir), Path(vectors), vocabulary=500, length=20, limit=200)


@pytest.mark.parametrize(
    "method", ["none", *(pytest.param(m, marks=pytest.mark.slow) if m == "synonyms" else m for m in texts.METHODS)]
)
def test_every_method_has_the_data_it_needs(method, reviews, tmp_path, monkeypatch):
    monkeypatch.setenv("SEQDYN_CACHE", str(tmp_path))
    if method == "synonyms" and not os.environ.get("NLTK_DATA"):
        pytest.skip("needs WordNet: set NLTK_DATA to a folder that holds corpora/wordnet")
    if method == "back_translation" and shutil.which("apertium") is None:
        pytest.skip("needs Apertium: apt-get install apertium-eng-spa")
    data = texts.data(reviews, 40, method, test=30)
    spec = Spec("labelled", 20, 8, vocabulary=len(reviews.text.vocabulary), augment=texts.augment(method))
    check(spec, data)
    assert len(data["train"].ys) == 40 and data["train"].ys.sum() == 20 and len(data["test"].ys) == 30
    np.testing.assert_array_equal(texts.data(reviews, 20)["train"].xs[:, -1], data["train"].xs[:, -1][smaller(reviews)])
    assert method == "none" or texts.STRENGTH[method] > 0


def smaller(reviews):
    """Where in the rows of 40 those of 20 are."""
    return np.isin(texts.rows_of(reviews, 40), texts.rows_of(reviews, 20))
