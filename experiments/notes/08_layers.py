"""Notes: two cells on top of each other, and layers. See that all layers at one step, then the next, is the same as one
layer over all steps, then the next; and what `return_sequences` returns.

    python experiments/notes/08_layers.py
"""

from functools import partial

import jax
import numpy as np

import seqdyn as sd
from seqdyn.nets.cells import rnn, step
from seqdyn.nets.stack import unroll_by_step, unroll_stack


def main() -> None:
    """Prints shapes and differences."""
    cells = rnn(inputs=100, hidden=64), rnn(inputs=64, hidden=64)
    params = tuple(cell.init(jax.random.key(i)) for i, cell in enumerate(cells))
    rest = tuple(cell.initial_carry((4,)) for cell in cells)
    xs = np.random.default_rng(2).normal(size=(80, 4, 100)).astype(np.float32)  # time first

    stacked = np.asarray(sd.compiled(lambda xs: unroll_stack(cells, params, rest, xs).hs)(xs))
    stepped = np.asarray(sd.compiled(lambda xs: unroll_by_step(cells, params, rest, xs)[0])(xs))
    print("two SimpleRNNCell(64): step by step and layer by layer differ by", f"{np.abs(stacked - stepped).max():.0e}")

    one = np.asarray(sd.compiled(lambda xs: unroll_stack(cells[:1], params[:1], rest[:1], xs).hs)(xs))
    once, carry, loop = sd.compiled(partial(step, cells[0], params[0])), rest[0], []
    for x in xs:
        carry = once(carry, x)
        loop.append(np.asarray(carry.h))
    print("SimpleRNN(64) and the loop over its cell differ by", f"{np.abs(one - np.stack(loop)).max():.0e}")
    print("\nSimpleRNN(64)                          ", list(one[-1].shape))
    print("SimpleRNN(64, return_sequences=True)   ", list(one.swapaxes(0, 1).shape))
    print("two of them, the first with sequences  ", list(stacked[-1].shape))
    print('in a `seqdyn.Spec`: cell="rnn", hidden=(64, 64), readout="last", or "every" for a prediction at each step')


if __name__ == "__main__":
    main()
