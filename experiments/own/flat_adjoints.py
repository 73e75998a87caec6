"""Does the gradient keep its norm through time if the objective asks for it? A term of one's own.

    python experiments/own/flat_adjoints.py OUT [--smoke]

`Flat` reads the adjoints, so its gradient goes through the backward pass that made them; its weight is an axis of the
grid, and at 0 it is only measured. Over 100 steps of a tanh rnn the gradient is halved 49 times without the term and 5
times with it after 2,000 updates; neither has learned to add by then.
"""

from pathlib import Path

import jax.numpy as jnp
import tyro

import seqdyn as sd


@sd.part
class Flat:
    """Σ over layers of the mean over steps of (log₂ ‖λ_{t+1}‖ − log₂ ‖λ_t‖)², λ_t = ∂L/∂h_t."""

    weight: sd.Number = sd.number(0.1, low=0.0)
    reads = "adjoints"

    def value(self, seen: sd.Pass):
        total = 0.0
        for layer in seen.layers:
            both = layer.reached[1:] & layer.reached[:-1]
            total += jnp.sum((layer.log2[1:] - layer.log2[:-1]) ** 2, where=both) / jnp.maximum(jnp.sum(both), 1)
        return total


def main(out: Path, smoke: bool = False) -> None:
    """Trains six runs and prints a line for each weight, of medians over seeds."""
    updates = 20 if smoke else 2000
    spec = sd.Spec("adding", steps=100, u_init="gaussian", penalties=(Flat(),))
    runs = sd.grid(spec, seeds=3, weight=[0.0, 0.1], gain=0.9, clip=1.0)
    for weight, of in sd.load(sd.run(sd.Experiment("flat", runs, updates=updates), out)).groupby("weight"):
        log2 = of.adjoint_log_norm.isel(layer=0, step=-1)
        lost, uneven = (log2.isel(time=-1) - log2.isel(time=0)).median(), of.penalty_Flat.isel(step=-1).median()
        loss = of.test_loss.isel(probe=-1).median()
        print(
            f"weight {weight:g}: {float(lost):.1f} halvings of ‖∂L/∂h_t‖ on the way back, unevenness "
            f"{float(uneven):.2g}, test loss {float(loss):.4f}"
        )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, config=(tyro.conf.PositionalRequiredArgs,))
