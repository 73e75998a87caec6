"""Notes: 'I hate this boring movie' as the input of a network. See words → ids [1, 5] → [b, s, n] = [1, 5, 10].

python experiments/notes/05_sentence.py
"""

import jax
import numpy as np

from seqdyn.data.text import build_vocabulary, decode, encode, tokenize


def main() -> None:
    """Prints each step."""
    words = tokenize("I hate this boring movie")
    vocabulary = build_vocabulary([words], size=100)
    index = {word: i for i, word in enumerate(vocabulary)}
    ids = np.array([encode(words, index)[1:]])  # without <start>
    table = jax.random.normal(jax.random.key(0), (len(vocabulary), 10))
    print("words      ", words)
    print("vocabulary ", vocabulary)
    print("ids        ", ids, list(ids.shape))
    print("embedded   ", list(table[ids].shape), "= [b, s, n]")
    print("and back   ", " ".join(decode(ids[0], vocabulary)))
    print("an unknown word is <unk>:", decode(encode(tokenize("I hate this dull movie"), index), vocabulary))


if __name__ == "__main__":
    main()
