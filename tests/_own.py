"""A user's script: a cell, a task, an optimiser and a record of one's own. `python _own.py OUT` trains it."""

import sys

import jax
import jax.numpy as jnp
import optax

import seqdyn as sd


@sd.part
class Leaky:
    """h' = h + (tanh(x W + h U + b) - h) / tau, and how often it was called, which nobody reads."""

    hidden: int
    tau: sd.Number = sd.number(10.0, low=1.0)
    counted: bool = False

    def build(self, inputs: int) -> sd.Cell:
        def init(key):
            w, u = jax.random.split(key)
            return {
                "w": jax.random.normal(w, (inputs, self.hidden)) / inputs**0.5,
                "u": jax.random.normal(u, (self.hidden, self.hidden)) / self.hidden**0.5,
                "b": jnp.zeros(self.hidden),
            }

        def step(params, carry, x):
            h = carry["h"] if self.counted else carry
            new = h + (jnp.tanh(x @ params["w"] + h @ params["u"] + params["b"]) - h) / self.tau
            return {"slow": (carry["slow"] + h[:, :, None]) / 2, "n": carry["n"] + 1, "h": new} if self.counted else new

        def initial_carry(batch):
            h = jnp.zeros((*batch, self.hidden))
            return {"slow": h[..., None], "n": jnp.zeros(batch, jnp.int32), "h": h} if self.counted else h

        return sd.cell(init, step, initial_carry)


@sd.part
class First:
    """The first number, times `scale`, under Huber's loss; it is right if it is near."""

    steps: int = 6
    scale: sd.Number = sd.number(1.0)

    def build(self) -> sd.Task:
        def draw(key, batch):
            x = jax.random.uniform(key, (self.steps, batch, 2))
            return x, self.scale * x[0, :, 0]

        return sd.task(
            draw,
            loss=lambda prediction, y: optax.huber_loss(prediction[..., 0], y),
            correct=lambda prediction, y: abs(prediction[..., 0] - y) < 0.1,
            inputs=2,
            outputs=1,
        )


@sd.part
class Lion:
    lr: sd.Number = sd.number(1e-3, low=0.0)
    b1: sd.Number = sd.number(0.9, low=0.0, high=1.0)

    def build(self) -> optax.GradientTransformation:
        return optax.chain(optax.adaptive_grad_clip(0.01), optax.lion(self.lr, b1=self.b1))


@sd.part
class Descent:
    lr: sd.Number = sd.number(1e-3, low=0.0)

    def build(self) -> optax.GradientTransformation:
        return optax.sgd(self.lr)


@sd.part
class Reach:
    """The squares of the gradient, and of each layer's."""

    variables = {
        "square": sd.Variable((), "sum of the gradient's squares", "loss²"),
        "layer_square": sd.Variable(("layer",), "sum of a layer's squares"),
        "leaf_square": sd.Variable(("layer", "leaf"), "sum of an array's squares", axes={"leaf": ["w", "u", "b"]}),
    }

    def record(self, context: sd.Context) -> dict:
        def square(tree):
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))

        layers = context.grads.layers
        return {
            "square": square(context.grads),
            "layer_square": jnp.stack([square(g) for g in layers]),
            "leaf_square": jnp.stack([jnp.stack([square(g[leaf]) for leaf in "wub"]) for g in layers]),
        }


SPEC = sd.Spec(task=First(), layers=(Leaky(3),), optimizer=Lion(), records=(Reach(),), batch=4, holdout=4)


def experiment(updates=4, spec=SPEC, **axes):
    """Four runs, if no axes are named."""
    return sd.Experiment(
        "own", sd.grid(spec, **(axes or {"seeds": 2, "tau": [2.0, 20.0]})), updates=updates, chunk=2, tile=2
    )


if __name__ == "__main__":
    print(sd.run(experiment(), sys.argv[1]))
