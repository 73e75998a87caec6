"""Networks of a user's own: a residual stack, and one with two inputs of other lengths."""

import jax
import jax.numpy as jnp

import seqdyn as sd
from seqdyn import watch

H = 3


def rnn(params, hs, xs, name):
    def step(h, x):
        h = jnp.tanh(x @ params["w"] + h @ params["u"])
        return h, h

    return watch.scan(step, hs, xs, name=name)[1]


def matrices(key, inputs):
    w, u = jax.random.split(key)
    return {"w": jax.random.normal(w, (inputs, H)), "u": jax.random.normal(u, (H, H)) / 2}


@sd.part
class Residual:
    """Two levels; the squares of the readout come beside its loss."""

    scale: sd.Number = sd.number(1.0, low=0.0)
    noise: float = 0.0

    variables = {"square": sd.Variable((), "sum of the readout's squares")}

    def init(self, key):
        one, two, three = jax.random.split(key, 3)
        return {
            "first": jax.random.normal(one, (2, H)),
            "levels": [matrices(two, H), matrices(three, H)],
            "readout": jnp.ones(H),
        }

    def loss(self, params, batch, key):
        hs = batch.xs @ params["first"]
        if self.noise and key is not None:
            hs = hs + self.noise * jax.random.normal(key, hs.shape)
        for i, level in enumerate(params["levels"]):
            hs = hs + self.scale * rnn(level, jnp.zeros_like(hs[0]), hs, f"level{i}")
        loss = batch.mean((hs[-1] @ params["readout"] - batch.ys) ** 2)
        return loss, {"square": jnp.sum(params["readout"] ** 2)}


@sd.part
class Clocks:
    """Two inputs of other lengths; the sum of their first numbers."""

    def build(self):
        def draw(key, batch):
            fast, slow = jax.random.uniform(key, (6, batch, 1)), jax.random.uniform(key, (4, batch, 1))
            return {"fast": fast, "slow": slow}, fast[0, :, 0] + slow[0, :, 0]

        return sd.task(draw)


@sd.part
class TwoInputs:
    def init(self, key):
        return {"fast": matrices(key, 1), "slow": matrices(key, 1)}

    def loss(self, params, batch, key):
        last = [rnn(params[name], jnp.zeros((xs.shape[1], H)), xs, name)[-1] for name, xs in batch.xs.items()]
        return batch.mean((jnp.sum(last[0] + last[1], axis=-1) - batch.ys) ** 2)


RESIDUAL = sd.Spec("adding", steps=6, batch=4, holdout=8, network=Residual())
