"""Does a slower unit carry the gradient further? Asked with a cell, a task, an optimiser and a record of one's own.

Nothing of the library is edited: each is a dataclass under `@sd.part` here, whose numbers a grid sweeps. Copy it.

    python experiments/own/leaky.py OUT [--updates N]

A leaky unit (leaky-integrator units: Jaeger et al. 2007) keeps 1 − 1/τ of its state at a step, and the adjoint that
much on its way back. At initialisation a thousandth of it reaches the first of 40 steps with τ = 2, half with τ = 50.
20 s on two cores.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import tyro

import seqdyn as sd


@sd.part
class Leaky:
    """h_t = h_{t−1} + (tanh(W x_t + U h_{t−1} + b) − h_{t−1}) / τ"""

    hidden: int
    tau: sd.Number = sd.number(10.0, low=1.0)

    def build(self, inputs: int) -> sd.Cell:
        def init(key):
            w, u = jax.random.split(key)
            return {
                "w": jax.random.normal(w, (inputs, self.hidden)) / inputs**0.5,
                "u": jax.random.normal(u, (self.hidden, self.hidden)) / self.hidden**0.5,
                "b": jnp.zeros(self.hidden),
            }

        def step(params, h, x):
            return h + (jnp.tanh(x @ params["w"] + h @ params["u"] + params["b"]) - h) / self.tau

        return sd.cell(init, step, lambda batch: jnp.zeros((*batch, self.hidden)))


@sd.part
class First:
    """What was the first number? Under Huber's loss."""

    steps: int = 40

    def build(self) -> sd.Task:
        def draw(key, batch):
            xs = jax.random.uniform(key, (self.steps, batch, 1), minval=-1.0)
            return xs, xs[0, :, 0]

        return sd.task(draw, loss=lambda p, y: optax.huber_loss(p[..., 0], y, delta=0.5), inputs=1, outputs=1)


@sd.part
class ClippedLion:
    """Adaptive clipping (Brock et al. 2021) before Lion (Chen et al. 2023)."""

    lr: sd.Number = sd.number(1e-3, low=0.0)

    def build(self) -> optax.GradientTransformation:
        return optax.chain(optax.adaptive_grad_clip(0.1), optax.lion(self.lr))


@sd.part
class Sparsity:
    """How much of the gradient is next to nothing?"""

    variables = {"small_share": sd.Variable((), "share of the gradient's entries below 1e-6 in size")}

    def record(self, context: sd.Context) -> dict:
        entries = jnp.concatenate([g.ravel() for g in jax.tree.leaves(context.grads)])
        return {"small_share": jnp.mean(jnp.abs(entries) < 1e-6)}


def main(out: Path, updates: int = 2000) -> None:
    """Trains nine runs and prints a line for each τ, of medians over seeds."""
    spec = sd.Spec(task=First(), layers=(Leaky(32),), optimizer=ClippedLion(), records=(Sparsity(),))
    runs = sd.grid(spec, seeds=3, tau=[2.0, 10.0, 50.0])
    ds = sd.load(sd.run(sd.Experiment("leaky", runs, updates=updates), out))
    for tau, of in ds.groupby("tau"):
        reach = (of.adjoint_norm.isel(layer=0, time=0) / of.adjoint_norm.isel(layer=0, time=-1)).median("run")
        share, loss = of.small_share.isel(step=-1).median(), of.test_loss.isel(probe=-1).median()
        print(
            f"τ {tau:4.0f}: ‖∂L/∂h_1‖ / ‖∂L/∂h_T‖ {float(reach[0]):.1e} at first, {float(reach[-1]):.1e} after "
            f"{updates} updates; {float(share):.0%} of the gradient below 1e-6; test loss {float(loss):.4f}"
        )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, config=(tyro.conf.PositionalRequiredArgs,))
