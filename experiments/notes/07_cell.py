"""Notes: `SimpleRNNCell`, one step and the loop over time. See its three variables, one step [4, 100] → [4, 64], and
what may be read of 80 outputs: the last, their sum, mean or concatenation.

    python experiments/notes/07_cell.py
"""

from functools import partial

import jax
import numpy as np

import seqdyn as sd
from seqdyn.nets.cells import rnn, step


def main() -> None:
    """Prints shapes."""
    small = rnn(inputs=4, hidden=3)
    for name, leaf in small.init(jax.random.key(0))._asdict().items():
        print(f"SimpleRNNCell(3) on 4 features: {name} {list(leaf.shape)}")

    cell = rnn(inputs=100, hidden=64)
    params, carry = cell.init(jax.random.key(1)), cell.initial_carry((4,))
    xs = np.random.default_rng(2).normal(size=(4, 80, 100)).astype(np.float32)
    once = sd.compiled(partial(step, cell))  # (params, carry, x_t) → the next carry
    carry = once(params, carry, xs[:, 0])
    print(f"\none step: x {list(xs[:, 0].shape)}, h_0 [4, 64] → h_1 {list(carry.h.shape)}")
    by_hand = np.tanh(xs[:, 0] @ params.w + np.zeros((4, 64)) @ params.u + params.b)
    print("as tanh(x W + h U + b):", np.allclose(carry.h, by_hand, atol=1e-5))

    hs, carry = [], cell.initial_carry((4,))
    for t in range(xs.shape[1]):
        carry = once(params, carry, xs[:, t])
        hs.append(np.asarray(carry.h))
    outputs = np.stack(hs, axis=1)
    print(f"\nall steps of x {list(xs.shape)}: {len(hs)} outputs, {list(outputs.shape)}")
    read = {"last": hs[-1], "sum": outputs.sum(1), "mean": outputs.mean(1), "concatenation": outputs.reshape(4, -1)}
    for name, of in read.items():
        print(f"  {name:13} {list(of.shape)}")
    print('in a `seqdyn.Spec`: readout="last", "sum" or "mean"; a concatenation would fix the length')


if __name__ == "__main__":
    main()
