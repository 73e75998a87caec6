"""Notes: three networks that read a sentence. Network 1 has weights of its own for each position, network 2 shares
them, network 3 has a memory. See how many parameters each needs, and which of them can tell a shuffled sentence.

    python experiments/notes/06_networks.py
"""

import jax
import jax.numpy as jnp
import numpy as np

import seqdyn as sd
from seqdyn.nets.bptt import unroll
from seqdyn.nets.cells import rnn
from seqdyn.nets.memoryless import dense, dense_per_position

STEPS, WIDTH, HIDDEN = 5, 10, 3


def main() -> None:
    """Prints a line for each network."""
    sentence = jax.random.normal(jax.random.key(0), (STEPS, 1, WIDTH))  # [s, b, n]: I hate this boring movie
    shuffled = sentence[np.array([3, 0, 4, 1, 2])]
    print(f"{STEPS} words of {WIDTH} numbers, {HIDDEN} outputs a word, summed: what a shuffled sentence changes")
    for name, cell in (
        ("1 dense, own weights", dense_per_position(STEPS, WIDTH, HIDDEN)),
        ("2 dense, shared     ", dense(WIDTH, HIDDEN)),
        ("3 with a memory     ", rnn(WIDTH, HIDDEN)),
    ):
        params = cell.init(jax.random.key(1))
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        longer = count * 16 if "own" in name else count  # at 80 words
        pooled = sd.compiled(
            lambda xs, cell=cell, params=params: jnp.sum(unroll(cell, params, cell.rest((1,)), xs)[0], 0)
        )
        moved = float(jnp.abs(pooled(sentence) - pooled(shuffled)).max())
        told = "blind to order" if moved < 1e-5 else f"differs by {moved:.2f}"
        print(f"  {name}  {count:4} parameters, {longer:5} for 80 words; {told}")


if __name__ == "__main__":
    main()
