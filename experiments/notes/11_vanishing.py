"""Notes: vanishing and exploding gradients. See products of one matrix, which grow or die by its eigenvalue; the same
of ‖∂L/∂h_t‖ in a recurrent network; that clipping bounds the step and brings nothing back from the past; and what
activation, initialisation, normalisation and gates do to the gradient before training.

    python experiments/notes/11_vanishing.py

Learning rate, penalties and clipping act in training. Each cause and cure trained with, a script each:
experiments/README.md#the-cures.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import seqdyn as sd
from analysis import style
from seqdyn import watch
from seqdyn.nets.bptt import unroll
from seqdyn.nets.normalised import normalised
from seqdyn.runs.script import script

STEPS, HIDDEN = 80, 64
GAINS = (0.5, 0.9, 1.2, 2.0)


@dataclass(frozen=True)
class Config:
    """Where it is drawn."""

    out: Path = Path("runs/notes")


def loss(params, xs):
    """½ ‖h_T‖² / H of a tanh network, the mean over 4 sequences."""

    def f(h, x):
        h = jnp.tanh(x @ params["w"] + h @ params["u"])
        return h, None

    h = watch.scan(f, jnp.zeros((4, HIDDEN)), xs, name="rnn")[0]
    return 0.5 * jnp.mean(h**2)


CELLS = {
    "tanh, U Gaussian, gain 0.7": sd.RNN(HIDDEN, u=sd.Gaussian(0.7)),
    "sigmoid": sd.RNN(HIDDEN, activation="sigmoid", u=sd.Gaussian(0.7)),
    "ReLU, U the identity": sd.RNN(HIDDEN, activation="relu", u=sd.Identity(1.0)),
    "tanh, U orthogonal": sd.RNN(HIDDEN, u=sd.Orthogonal(1.0)),
    "GRU": sd.GRU(HIDDEN),
    "LSTM, forget bias 1": sd.LSTM(HIDDEN),
    "LSTM, chrono's biases": sd.LSTM(HIDDEN, chrono=float(STEPS)),
}
"""Causes and cures that act before training."""


def reach(cell, xs):
    """‖∂L/∂state_0‖ / ‖∂L/∂h_T‖ of an untrained cell, L = ½ ‖h_T‖². The state of an LSTM is (c, h)."""
    params = cell.init(jax.random.key(1))

    def both(carry):
        last, back = jax.vjp(lambda carry: unroll(cell, params, carry, xs)[0][-1], carry)
        return last, back(last)[0]

    norms = [
        np.sqrt(sum(float(np.sum(np.square(np.asarray(leaf, float)))) for leaf in jax.tree.leaves(tree)))
        for tree in sd.compiled(both)(cell.initial_carry((4,)))
    ]
    return norms[1] / norms[0]


def main(config: Config) -> None:
    """Prints norms and draws them."""
    powers = {}
    for c in (0.4, 0.5, 0.8):
        w = np.full((2, 2), c)  # its eigenvalues are 2c and 0
        powers[2 * c] = [float(np.linalg.norm(np.linalg.matrix_power(w, k))) for k in range(1, 21)]
        print(f"eigenvalue {2 * c:.1f}: ‖W‖ {powers[2 * c][0]:.2f}, ‖W²⁰‖ {powers[2 * c][-1]:.3g}")

    rng = np.random.default_rng(0)
    w, u, xs = (rng.normal(size=shape).astype(np.float32) for shape in ((8, HIDDEN), (HIDDEN, HIDDEN), (STEPS, 4, 8)))
    look = sd.compiled(watch.value_and_grad(loss))
    reached = {}
    for gain in GAINS:
        _, grads, seen = look({"w": 0.1 * w, "u": np.float32(gain / HIDDEN**0.5) * u}, xs)
        reached[gain] = np.asarray(seen["rnn"].rms)
        norm = np.sqrt(sum(float(np.sum(np.square(g))) for g in grads.values()))
        factor = min(1.0, 0.01 / norm)  # optax.clip_by_global_norm(0.01)
        print(
            f"gain {gain}: ‖∂L/∂h_1‖ / ‖∂L/∂h_T‖ {reached[gain][0] / reached[gain][-1]:.1e}; clipping by the global "
            f"norm multiplies every step's share of ∂L/∂U by {factor:.2g}"
        )

    print("\nuntrained, over 40 steps, ‖∂L/∂state_0‖ / ‖∂L/∂h_40‖:")
    cells = {name: part.build(8) for name, part in CELLS.items()}
    plain = cells["tanh, U Gaussian, gain 0.7"]
    for name, cell in (cells | {"the first, layers normalised": normalised(plain, "layer", 40)}).items():
        print(f"  {name:28} {reach(cell, 0.1 * xs[:40]):.0e}")

    with style.look():
        fig, axes = style.panels(1, 2, 1.9)
        for color, (eigenvalue, norms) in zip(style.shades(3), powers.items(), strict=True):
            axes[0, 0].plot(range(1, 21), norms, color=color, label=f"eigenvalue {eigenvalue:.1f}")
        for color, (gain, norms) in zip(style.shades(4), reached.items(), strict=True):
            axes[0, 1].plot(np.arange(STEPS)[::-1], norms, color=color, label=f"gain {gain}")
        for ax, title, x, y in zip(
            axes[0],
            ("powers of a 2 × 2 matrix", "a tanh network"),
            ("k", "lag T − t"),
            ("‖Wᵏ‖", "‖∂L/∂h_t‖"),
            strict=True,
        ):
            ax.set(title=title, xlabel=x, ylabel=y, yscale="log")
            ax.legend()
        print(style.save(fig, config.out / "vanishing"))


if __name__ == "__main__":
    script(Config, main, __doc__)
