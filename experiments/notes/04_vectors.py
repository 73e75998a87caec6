"""Notes: cosine similarity and pretrained vectors. See that the four words which one-hot vectors hold apart are near
each other, each capital nearest to its country; the vectors as an embedding's table; word2vec's two formats.

    python experiments/notes/04_vectors.py --vectors glove.6B.50d.txt
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis import style
from seqdyn.data.text import SPECIAL
from seqdyn.data.vectors import Vectors, cosine_similarity, match, nearest, read_vectors
from seqdyn.runs.script import script
from seqdyn.types import ConfigError

WORDS = ("rome", "paris", "italy", "france")


@dataclass(frozen=True)
class Config:
    """What is read and where it is drawn."""

    vectors: Path | None = None
    """File of word vectors, GloVe's or word2vec's."""
    out: Path = Path("runs/notes")


def cosines(table: np.ndarray) -> np.ndarray:
    """Of each pair of rows."""
    return cosine_similarity(table[:, None] + 0 * table, table[None] + 0 * table[:, None])


def again(vectors: Vectors, binary: bool) -> Vectors:
    """Written in one of word2vec's formats, and read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("v.bin" if binary else "v.txt")
        with path.open("wb") as file:
            file.write(f"{len(vectors.words)} {vectors.table.shape[1]}\n".encode())
            for word, row in zip(vectors.words, vectors.table, strict=True):
                numbers = row.astype("<f4").tobytes() if binary else " ".join(map(str, row)).encode()
                file.write(word.encode() + b" " + numbers + b"\n")
        return read_vectors(path)


def main(config: Config) -> None:
    """Prints tables, draws cosines."""
    if config.vectors is None:
        raise ConfigError("vectors is None; name a file of word vectors with --vectors, as glove.6B.50d.txt.")
    vectors = read_vectors(config.vectors)
    words, table = vectors
    near = [word for word, _ in nearest("good", words, table, 5)]
    print(f"{len(words):,} words of {table.shape[1]} numbers; good is near {', '.join(near)}")
    matched = match((*SPECIAL, *WORDS, "zxqv"), vectors)
    print("table of an embedding", list(matched.table.shape), "found", matched.found[3:], "(zxqv is drawn)")
    four = matched.table[3:7]
    both = {"one-hot": cosines(np.eye(4, dtype=np.float32)), "pretrained": cosines(four)}
    for word, row in zip(WORDS, both["pretrained"], strict=True):
        print(f"  {word:7}", " ".join(f"{other} {c:.2f}" for other, c in zip(WORDS, row, strict=True)))
    asked = Vectors(("paris − france + italy", *words), np.concatenate([[four[1] - four[3] + four[2]], table]))
    print("paris − france + italy is near", [word for word, _ in nearest(asked.words[0], *asked, 4)])
    some = Vectors(words[:1000], table[:1000])
    for name, binary in (("text", False), ("binary", True)):
        print(f"word2vec's {name} format: the same vectors", bool((again(some, binary).table == some.table).all()))

    with style.look():
        fig, axes = style.panels(1, 2, 1.6)
        for ax, (name, values) in zip(axes[0], both.items(), strict=True):
            shown = ax.imshow(values, vmin=-1, vmax=1, cmap="RdBu_r")
            for (i, j), value in np.ndenumerate(values):
                ax.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.7 else "black")
            ax.set_xticks(range(4), WORDS, rotation=45)
            ax.set_yticks(range(4), WORDS)
            ax.set_title(name)
        fig.colorbar(shown, ax=axes, label="cosine similarity")
        print(style.save(fig, config.out / "cosines"))


if __name__ == "__main__":
    script(Config, main, __doc__)
