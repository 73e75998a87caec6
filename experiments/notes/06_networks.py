"""Notes: three networks that read a sentence. Network 1 has weights of its own for each position, network 2 shares
them, network 3 has a memory. See how many parameters each needs, and which of them can tell a shuffled sentence.

    python experiments/notes/06_networks.py
"""

from functools import partial

import jax
import numpy as np

import seqdyn as sd
from seqdyn.nets.bptt import unroll
from seqdyn.nets.cells import rnn
from seqdyn.nets.memoryless import dense, dense_per_position

STEPS, WIDTH, HIDDEN = 5, 10, 3


def main() -> None:
    """Prints a line for each network."""
    sentence = (
        np.random.default_rng(0).normal(size=(STEPS, 1, WIDTH)).astype(np.float32)
    )  # [s, b, n]: I hate this boring movie
    shuffled = sentence[[3, 0, 4, 1, 2]]
    print(f"{STEPS} words of {WIDTH} numbers, {HIDDEN} outputs a word, summed: what a shuffled sentence changes")
    for name, cell in (
        ("1 dense, own weights", dense_per_position(STEPS, WIDTH, HIDDEN)),
        ("2 dense, shared     ", dense(WIDTH, HIDDEN)),
        ("3 with a memory     ", rnn(WIDTH, HIDDEN)),
    ):
        params = cell.init(jax.random.key(1))
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        longer = count * 16 if "own" in name else count  # at 80 words
        run = sd.compiled(partial(unroll, cell))  # (params, carry, xs) → (hs, last carry)
        pooled = [np.asarray(run(params, cell.initial_carry((1,)), xs)[0]).sum(axis=0) for xs in (sentence, shuffled)]
        moved = np.abs(pooled[0] - pooled[1]).max()
        told = "blind to order" if moved < 1e-5 else f"differs by {moved:.2f}"
        print(f"  {name}  {count:4} parameters, {longer:5} for 80 words; {told}")


if __name__ == "__main__":
    main()
