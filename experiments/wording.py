"""Film reviews in other words: what is nearest a word, and what do changes of words do to what a review says?

Three measurements. Word vectors (`--vectors`) are made from which words stand together, and opposites are used alike:
how often is a word's opposite, by WordNet, among its nearest neighbours? Translation to Spanish and back, by Apertium:
how many reviews lose a negation? And does a review's label survive each method: the accuracy on changed reviews of a
judge (logistic regression on which words occur) that saw plain ones alone?

    wording.py --data-dir DIR --vectors glove.6B.50d.txt

Cost: two minutes on two cores. It needs WordNet and Apertium (`apt-get install apertium-eng-spa`).
Expect an opposite among the ten nearest of about a third of the words that have one, and the label hurt more by
translation than by deleting, swapping or replacing a tenth of the words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from analysis import report
from experiments import _augmented_text as texts
from experiments._reviews import SMOKE
from seqdyn.data import banks, wording
from seqdyn.data.extras import needed
from seqdyn.data.text import START, tokenize
from seqdyn.data.vectors import cosine_similarity, neighbour_table
from seqdyn.runs.script import script
from seqdyn.types import ConfigError

NEGATIONS = frozenset("no not never nor neither none nothing nobody nowhere cannot".split())
"""What counts as a negation, and whatever ends in n't."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which reviews, which vectors."""

    data_dir: Path | None = None
    """TFDS data directory that holds imdb_reviews; by default TFDS's own, downloaded on first use."""
    vectors: Path
    """File of vectors, in GloVe's or word2vec's text format."""
    translated: int = 1000
    """Validation reviews that are translated and, for the label, changed by banks."""
    length: int = 80
    """Last words of each review."""
    smoke: bool = False
    """Few reviews."""


def negations(review: str) -> int:
    """How many negations a text has."""
    return sum(word in NEGATIONS or word.endswith("n't") for word in tokenize(review))


def lost(before: list[str], after: list[str]) -> tuple[int, int]:
    """(reviews that have fewer negations after than before, reviews that have one before)"""
    pairs = [(negations(a), negations(b)) for a, b in zip(before, after, strict=True)]
    return sum(b < a for a, b in pairs), sum(a > 0 for a, _ in pairs)


class Antonyms(NamedTuple):
    """How often a word's nearest neighbours are its opposites, as WordNet has them."""

    words: int
    """How many of the vocabulary have a vector, carry content, and have an antonym that has and does too."""
    ks: tuple[int, ...]
    among: tuple[float, ...]
    """The share of them with an antonym among their k nearest."""
    drawn: tuple[float, ...]
    """The share of replacements in training reviews, if each of those words were replaced by one of its k nearest, that
    give its opposite."""
    synonyms: tuple[float, ...]
    """For comparison, as `among`: those of the words with a synonym in the vocabulary that have it among k."""
    pairs: list[tuple[str, str]]
    """The most frequent words whose very nearest is their opposite, and that."""
    ranks: dict[str, int]
    """Which neighbour the opposite is, 1 the nearest, of words of judgement: 'good, bad' → 13."""


JUDGEMENT = (
    *(("good", "bad"), ("best", "worst"), ("better", "worse"), ("love", "hate"), ("right", "wrong")),
    *(("strong", "weak"), ("beautiful", "ugly"), ("interesting", "boring"), ("funny", "boring"), ("great", "terrible")),
)


def antonyms(reviews: texts.Reviews, ks: Sequence[int] = (1, 3, 5, 10, 20)) -> Antonyms:
    """The known fault of neighbours by word vectors: opposites are used alike, so they are near."""
    assert reviews.vectors is not None
    vocabulary = reviews.text.vocabulary
    some = reviews.vectors.found & wording.content(vocabulary)
    index = {word: i for i, word in enumerate(vocabulary) if some[i]}
    table = neighbour_table(reviews.vectors, max(ks), wording.content(vocabulary))
    counts = np.bincount(reviews.text.splits["train"].xs.ravel(), minlength=len(vocabulary))

    def hits(related: Any) -> tuple[np.ndarray, np.ndarray]:
        """(ids of the words that have such a one, where in their rows those stand)"""
        of = {i: [index[o] for o in related(word) if o in index] for word, i in index.items()}
        ids = np.array([i for i, others in of.items() if others])
        return ids, np.array([np.isin(table[i], of[i]) for i in ids])

    ids, opposite = hits(banks.wordnet_antonyms)
    _, alike = hits(banks.wordnet_synonyms)
    weight = counts[ids] / counts[ids].sum()
    first = [
        (vocabulary[i], vocabulary[table[i, 0]]) for i in ids[np.argsort(-counts[ids])] if i in ids[opposite[:, 0]]
    ]

    def rank(word: str, other: str) -> int:
        """Which neighbour the one is of the other."""
        near = cosine_similarity(np.broadcast_to(of_content[at[word]], of_content.shape), of_content)
        return int(np.sum(near > near[at[other]]))  # the word itself, too, is nearer

    of_content = reviews.vectors.table[some]
    at = {word: i for i, word in enumerate(index)}
    return Antonyms(
        len(ids),
        tuple(ks),
        tuple(float(opposite[:, :k].any(axis=1).mean()) for k in ks),
        tuple(float(weight @ opposite[:, :k].mean(axis=1)) for k in ks),
        tuple(float(alike[:, :k].any(axis=1).mean()) for k in ks),
        first[:12],
        {f"{a}, {b}": rank(a, b) for a, b in JUDGEMENT if a in index and b in index},
    )


def survival(
    reviews: texts.Reviews, strengths: Sequence[float] = (0.0, 0.1, 0.3, 0.5), banked: int = 1000, seed: int = 0
) -> dict[str, dict[float, float]]:
    """Does the label survive? The accuracy on changed validation reviews, by method and strength, of a judge who never
    saw a changed one: logistic regression on which words occur, trained on the plain training split.

    It cannot see swaps. Of banks: on the first `banked` validation reviews, as they are (0) and all changed (1).
    """
    from scipy import sparse

    linear = needed("sklearn.linear_model", "survival")

    def occur(xs: np.ndarray) -> Any:
        row, at = np.nonzero(xs > START)
        ones = np.ones(len(row), np.float32)
        found = sparse.csr_matrix((ones, (row, xs[row, at])), shape=(len(xs), len(reviews.text.vocabulary)))
        found.data[:] = 1
        return found

    train, held = reviews.text.splits["train"], reviews.text.splits["validation"]
    judge = linear.LogisticRegression(C=0.05, max_iter=200).fit(occur(train.xs), train.ys)

    def right(xs: np.ndarray) -> float:
        return float(np.mean(judge.predict(occur(xs)) == held.ys[: len(xs)]))

    rows = np.arange(len(held.ys))
    out = {
        method: {s: right(texts.changed(reviews, method, "validation", rows, s, seed)) for s in strengths}
        for method in texts.methods(reviews)
        if method in texts.IN_STEP
    }
    for method in texts.IN_BANK:
        made = texts.variants(reviews, method, rows[:banked], 1, "validation")
        bank = banks.bank(made, held.ys[:banked], reviews.text.vocabulary, length=held.xs.shape[1])
        out[method] = {0.0: right(held.xs[:banked]), 1.0: right(bank.xs[:, 0])}
    return out


def main(config: Config) -> None:
    """Prints three tables."""
    if config.translated < 1:
        raise ConfigError(f"translated is {config.translated}; it must be at least 1.")
    reviews = texts.read(config.data_dir, config.vectors, length=config.length, limit=SMOKE if config.smoke else None)
    found = antonyms(reviews)
    shares = zip(found.ks, found.among, found.drawn, found.synonyms, strict=True)
    report.show(
        [
            {"nearest": str(k), "opposite among them": f"{a:.0%}", "if replaced": f"{d:.1%}", "synonym": f"{s:.0%}"}
            for k, a, d, s in shares
        ],
        [],
    )
    print(f"of {found.words} words that have an opposite in the vocabulary; 'if replaced' weighs words by frequency.\n")
    report.show([{"word, opposite": pair, "which neighbour": str(rank)} for pair, rank in found.ranks.items()], [])
    rows = np.arange(min(config.translated, len(reviews.said["validation"])))
    before = [reviews.said["validation"][i] for i in rows]
    after = [one[0] for one in texts.variants(reviews, "back_translation", rows, 1, "validation")]
    fewer, some = lost(before, after)
    print(f"translated there and back: {fewer} of {some} reviews with a negation have fewer ({fewer / some:.0%}).\n")
    survived = survival(reviews, banked=len(rows))
    report.show(
        [
            {"method": method.replace("_", " "), "strength": f"{strength:g}", "label still seen": f"{accuracy:.1%}"}
            for method, by_strength in survived.items()
            for strength, accuracy in by_strength.items()
        ],
        [],
    )


if __name__ == "__main__":
    script(Config, main, __doc__)
