"""Notes: what a sequence is as an array. See the shapes [s], [b, s], [b, s, n], and padding where lengths differ.

python experiments/notes/01_sequences.py
"""

import numpy as np

from seqdyn.data.text import pad_to


def main() -> None:
    """Prints each shape."""
    prices = np.array([2.1, 2.3, 2.2, 2.6, 2.9, 3.0], np.float32)
    print("one number a step, six months of a price   [s]       ", list(prices.shape))
    houses = np.stack([prices, 2 * prices, prices + 1])
    print("of three houses                            [b, s]    ", list(houses.shape))
    described = np.stack([houses, np.gradient(houses, axis=1)], axis=-1)
    print("two numbers a step, the price and its slope [b, s, n] ", list(described.shape))
    print("time first, as a network here reads it      [s, b, n] ", list(described.swapaxes(0, 1).shape))
    ids, lengths = pad_to([[7, 2], [5, 1, 3, 6, 4]], 4)
    print(f"\nids of 2 and 5 words as [b, s] = {list(ids.shape)}: padding in front, the last words of a long one")
    print(ids, "lengths", lengths)


if __name__ == "__main__":
    main()
