"""Notes: words as numbers. See that one-hot vectors know no likeness (every cosine is 0) and what they cost.

python experiments/notes/02_one_hot.py
"""

import jax
import numpy as np

from seqdyn.data.vectors import cosine_similarity

WORDS = ("Rome", "Paris", "Italy", "France")


def main() -> None:
    """Prints vectors, cosines and sizes."""
    one_hot = np.asarray(jax.nn.one_hot(np.arange(4), 4))
    for word, row in zip(WORDS, one_hot, strict=True):
        print(f"{word:6}", row.astype(int), end="   ")
        print("cosine to each:", cosine_similarity(np.broadcast_to(row, one_hot.shape), one_hot).astype(int))
    table = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    print(
        "\nAn embedding is a product with a one-hot vector: row 2 of the table,",
        np.array_equal(one_hot[2] @ table, table[2]),
    )

    words, steps, width, hidden = 10_000, 80, 100, 64
    print(f"\nA review of {steps} words, {words:,} words in all, read by {hidden} units:")
    print(f"  one-hot    {steps * words:9,} numbers a review, {words * hidden:9,} input weights")
    print(f"  embedded   {steps * width:9,} numbers a review, {width * hidden:9,} input weights", end="")
    print(f" and a table of {words * width:,}")


if __name__ == "__main__":
    main()
