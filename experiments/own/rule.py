"""Does a clip that sees the parameters learn the adding problem? The rule, task and cell are the library's.

    python experiments/own/rule.py OUT [--smoke]

A clip, a schedule and a loss of one's own stand where a word stands; `bound` and `delta` are axes of the grid.
"""

from pathlib import Path

import jax.numpy as jnp
import optax
import tyro

import seqdyn as sd


@sd.part
class Adaptive:
    """Each unit's gradient to at most `bound` times its weights' norm (Brock et al. 2021, eq. 3)."""

    bound: sd.Number = sd.number(0.01, above=0.0)

    def build(self) -> optax.GradientTransformation:
        return optax.adaptive_grad_clip(self.bound)


@sd.part
class Rise:
    """A rise over a tenth of the updates, then a cosine. Optax compares its numbers in Python: no `sd.number`."""

    updates: int

    def build(self):
        return optax.warmup_cosine_decay_schedule(0.0, 1.0, self.updates // 10, self.updates)


@sd.part
class Huber:
    """½ e² for |e| ≤ δ, δ (|e| − δ / 2) beyond (Huber 1964)."""

    delta: sd.Number = sd.number(0.5, above=0.0)

    def build(self):
        return lambda predictions, ys: optax.huber_loss(predictions[..., 0], ys, delta=self.delta)

    def correct(self, predictions, ys):
        return jnp.abs(predictions[..., 0] - ys) < 0.1


def main(out: Path, smoke: bool = False) -> None:
    """Trains six runs and prints a line for each bound."""
    updates = 20 if smoke else 2000
    spec = sd.Spec("adding", steps=40, cell="gru", clip=Adaptive(), schedule=Rise(updates), loss=Huber())
    runs = sd.grid(spec, seeds=3, bound=[0.001, 0.1], lr=0.01)
    for bound, of in sd.load(sd.run(sd.Experiment("rule", runs, updates=updates), out)).groupby("bound"):
        left, right = float(of.clip_scale.median()), float(of.test_accuracy.isel(probe=-1).median())
        print(f"bound {bound:g}: {left:.1%} of the gradient's norm left, {right:.0%} of the sums within 0.1")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, config=(tyro.conf.PositionalRequiredArgs,))
