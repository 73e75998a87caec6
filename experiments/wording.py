"""Film reviews in other words: what is nearest a word, and what do changes of words do to what a review says?

Three measurements. Word vectors (`--vectors`) are made from which words stand together, and opposites are used alike:
how often is a word's opposite, by WordNet, among its nearest neighbours? Translation to Spanish and back, by Apertium:
how many reviews lose a negation? And does a review's label survive each method: the accuracy on changed reviews of a
judge (logistic regression on which words occur) that saw plain ones alone?

    wording.py --data-dir DIR --vectors glove.6B.50d.txt

Cost: two minutes on two cores. It needs WordNet and Apertium (`apt-get install apertium-eng-spa`). What you
should see: an opposite among the ten nearest of about a third of the words that have one, and the label hurt more by
translation than by deleting, swapping or replacing a tenth of the words.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis import report
from experiments import _augmented_text as texts
from seqdyn.data.text import tokenize
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


def main(config: Config) -> None:
    """Prints three tables."""
    if config.translated < 1:
        raise ConfigError(f"translated is {config.translated}; it must be at least 1.")
    reviews = texts.read(config.data_dir, config.vectors, length=config.length, smoke=config.smoke)
    found = texts.antonyms(reviews)
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
    survived = texts.survival(reviews, banked=len(rows))
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
