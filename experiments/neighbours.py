"""Which words are near each other, by the cosine of their vectors: those of a file, or of a trained network?

A network that learns to judge reviews puts words of like judgement together; vectors made from which words stand
together (Pennington, Socher & Manning 2014) put words of like use together, antonyms among them.

    neighbours.py --vectors glove.6B.50d.txt            of a file
    neighbours.py --run runs/architectures-… --index 7  of run 7 of a run directory with a vocabulary
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from seqdyn.data.vectors import load_vocabulary, nearest, read_vectors
from seqdyn.runs.display import plain_console
from seqdyn.runs.restore import restore
from seqdyn.runs.run import VOCABULARY
from seqdyn.runs.script import script
from seqdyn.types import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Where the vectors come from, and which words to ask for."""

    vectors: Path | None = None
    """File of vectors, in GloVe's or word2vec's text format."""
    run: Path | None = None
    """Run directory of a network with an embedding."""
    index: int = 0
    """Which of its runs."""
    words: tuple[str, ...] = ("great", "terrible", "boring", "actor", "not")
    """Words to ask for."""
    k: int = 8
    """Neighbours of each."""


def main(config: Config) -> None:
    """Prints a table: a column a word, its neighbours and their cosines below."""
    if (config.vectors is None) == (config.run is None):
        raise ConfigError("vectors and run: name exactly one of the two.")
    if config.vectors is not None:
        words, table = read_vectors(config.vectors)
    else:
        assert config.run is not None
        words = load_vocabulary(config.run / VOCABULARY)
        embedding = restore(config.run, config.index).embedding
        if embedding is None:
            raise ConfigError(f"run is {config.run}, whose network has no embedding; choose one that reads words.")
        table = np.asarray(embedding)
    found = {word: nearest(word, words, table, config.k) for word in config.words}
    printed = Table(*found, box=None)
    for row in zip(*found.values(), strict=True):
        printed.add_row(*(f"{word} {cosine:.2f}" for word, cosine in row))
    plain_console().print(printed)


if __name__ == "__main__":
    script(Config, main, __doc__)
