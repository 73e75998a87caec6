"""Notes: LSTM and GRU, as the notes write them: one W for each gate that acts on [h_{t−1}, x_t], and a GRU whose reset
gate multiplies h before the product. See that they are the library's `lstm` and `gru_reset_before`, number by number.

    python experiments/notes/12_gates.py

`cell="gru"` resets after the product, as cuDNN and PyTorch do, and is another network. Dropout and normalisation are
words of a `seqdyn.Spec` for both. Without biases: `nets.without_biases`, in a part of `Spec.layers`.
"""

import jax
import numpy as np

from seqdyn.nets.cells import gru, gru_reset_before, lstm, rnn, step

D, H = 4, 3


def sigmoid(z):
    """σ"""
    return 1 / (1 + np.exp(-z))


def lstm_step(w, b, c, h, x):
    """Forget gate, input gate, new memory, output gate."""
    hx = np.concatenate([h, x], axis=-1)
    forget, put, new = sigmoid(hx @ w["f"] + b["f"]), sigmoid(hx @ w["i"] + b["i"]), np.tanh(hx @ w["g"] + b["g"])
    c = forget * c + put * new
    return c, sigmoid(hx @ w["o"] + b["o"]) * np.tanh(c)


def gru_step(w, b, h, x):
    """Reset gate, update gate, candidate. (The notes' z takes the candidate, here it keeps the old: z ↔ 1 − z.)"""
    hx = np.concatenate([h, x], axis=-1)
    reset, keep = sigmoid(hx @ w["r"] + b["r"]), sigmoid(hx @ w["z"] + b["z"])
    candidate = np.tanh(np.concatenate([reset * h, x], axis=-1) @ w["n"] + b["n"])
    return (1 - keep) * candidate + keep * h


def by_gate(cell, params):
    """W of [h, x] and b of each gate: U above the library's W."""
    both = np.concatenate([params.u, params.w])
    halves = zip(np.split(both, len(cell.gates), axis=1), np.split(params.b, len(cell.gates)), strict=True)
    named = dict(zip(cell.gates, halves, strict=True))
    return {gate: w for gate, (w, _) in named.items()}, {gate: b for gate, (_, b) in named.items()}


def main() -> None:
    """Prints shapes, counts and differences."""
    x = np.random.default_rng(0).normal(size=(5, 2, D)).astype(np.float32)  # 5 steps of 2 sequences
    found = {}
    for name, make in {"rnn": rnn, "lstm": lstm, "gru_reset_before": gru_reset_before, "gru": gru}.items():
        cell = make(D, H)
        params = cell.init(jax.random.key(1))
        w, b = by_gate(cell, jax.tree.map(np.asarray, params))
        carry, h, c = cell.initial_carry((2,)), np.zeros((2, H)), np.zeros((2, H))
        for x_t in x:
            carry = step(cell, params, carry, x_t)
            if name == "lstm":
                c, h = lstm_step(w, b, c, h, x_t)
            elif name == "rnn":
                h = np.tanh(np.concatenate([h, x_t], axis=-1) @ w["h"] + b["h"])
            else:
                h = gru_step(w, b, h, x_t)
        found[name] = np.abs(np.asarray(carry.h) - h).max()
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        shapes = {gate: list(matrix.shape) for gate, matrix in w.items()}
        print(f"{name:17}{count:4} parameters; W of [h, x] {shapes}")
        print(f"{'':17}after 5 steps {found[name]:.0e} from the equations of the notes")


if __name__ == "__main__":
    main()
