"""Notes: IMDB's reviews become numbers, step by step: texts, words, the index, ids, arrays of 80 words. See how long
reviews are, which words are the most frequent, and that ids lead back to words.

    python experiments/notes/09_imdb.py --data-dir DIR

By default TFDS's own directory is used, and the data set is downloaded on first use.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seqdyn.data.datasets import imdb_reviews
from seqdyn.data.splits import stratified_split
from seqdyn.data.text import build_vocabulary, decode, encode, pad_to, tokenize
from seqdyn.runs.script import script


@dataclass(frozen=True)
class Config:
    """Which reviews."""

    data_dir: Path | None = None
    """TFDS data directory that holds imdb_reviews."""
    limit: int | None = None
    """Reviews of each half; None: all 25,000."""


def main(config: Config) -> None:
    """Prints each step."""
    reviews = imdb_reviews(config.data_dir, validation=0, limit=config.limit)
    texts, ys = reviews["train"]
    print(f"train {len(texts):,} reviews, test {len(reviews['test'][0]):,}; labels {np.bincount(ys)}")
    print("the first:", texts[0][:70], "… label", ys[0])

    words = [tokenize(text) for text in texts]
    lengths = np.array([len(row) for row in words])
    print(f"words: {words[0][:8]}; {lengths.min()} to {lengths.max()} a review, median {np.median(lengths):.0f}")
    vocabulary = build_vocabulary(words, 10_000)
    index = {word: i for i, word in enumerate(vocabulary)}
    print("index:", ", ".join(f"{word} {i}" for i, word in enumerate(vocabulary[:12])))

    rows = [encode(row, index) for row in words]
    print("ids:", rows[0][:9], "length", len(rows[0]))
    print("decoded:", " ".join(decode(rows[0][:12], vocabulary)), "…")
    unknown = np.mean([i == 2 for row in rows for i in row])
    xs, kept = pad_to(rows, 80)
    print(f"padded to the last 80 words: {list(xs.shape)}; {unknown:.1%} of the words are <unk>")
    print(f"  {np.mean(lengths + 1 > 80):.0%} of the reviews are cut, {np.mean(kept < 80):.0%} padded")
    rest, held = stratified_split(ys, 0.2, seed=0)
    print(f"20% held out to choose by: {len(rest):,} and {len(held):,}")


if __name__ == "__main__":
    script(Config, main, __doc__)
