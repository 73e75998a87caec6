"""Where does the gradient go in a network that is no stack? Five of them, each a part of ten to twenty lines.

    python experiments/own/networks.py OUT [--updates N]

A network has `init(key) -> params` and `loss(params, batch, key)`. What stands in `watch.scan` instead of
`jax.lax.scan` is recorded as a layer of that name. Copy one. A minute on two cores.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import tyro

import seqdyn as sd
from seqdyn import watch

KINDS, HIDDEN = 8, 24


def normal(key, *shape):
    """N(0, 1 / rows)"""
    return jax.random.normal(key, shape) * shape[0] ** -0.5


def rnn(params, hs, xs, name):
    """h_t = tanh(W x_t + U h_{t−1}) from `hs`, every one of them."""

    def step(h, x):
        h = jnp.tanh(x @ params["w"] + h @ params["u"])
        return h, h

    return watch.scan(step, hs, xs, name=name)[1]


def rnn_init(key, inputs):
    """W, and an orthogonal U."""
    w, u = jax.random.split(key)
    return {"w": normal(w, inputs, HIDDEN), "u": jax.random.orthogonal(u, HIDDEN)}


def rest(xs):
    """h_0"""
    return jnp.zeros((xs.shape[1], HIDDEN))


@sd.part
class Residual:
    """h^{l+1}_t = h^l_t + s · rnn(h^l)_t; s is swept."""

    depth: int = 3
    scale: sd.Number = sd.number(1.0, low=0.0)

    def init(self, key):
        first, *levels = jax.random.split(key, self.depth + 1)
        return {
            "input": normal(first, 2, HIDDEN),
            "levels": [rnn_init(k, HIDDEN) for k in levels],
            "readout": jnp.full(HIDDEN, HIDDEN**-0.5),
        }

    def loss(self, params, batch, key):
        hs = batch.xs @ params["input"]
        for i, level in enumerate(params["levels"]):
            hs = hs + self.scale * rnn(level, rest(hs), hs, f"level {i}")
        return batch.mean((hs[-1] @ params["readout"] - batch.ys) ** 2)


@sd.part
class Attention:
    """The prediction reads Σ_t a_t h_t with a = softmax(v · h) over the steps (Bahdanau, Cho & Bengio 2015)."""

    def init(self, key):
        cell, v = jax.random.split(key)
        return {"rnn": rnn_init(cell, 2), "v": normal(v, HIDDEN, 1)[:, 0], "readout": jnp.full(HIDDEN, HIDDEN**-0.5)}

    def loss(self, params, batch, key):
        hs = rnn(params["rnn"], rest(batch.xs), batch.xs, "rnn")
        pooled = jnp.einsum("tb,tbh->bh", jax.nn.softmax(hs @ params["v"], axis=0), hs)
        return batch.mean((pooled @ params["readout"] - batch.ys) ** 2)


@sd.part
class Reversed:
    """Symbols, and the same from the last to the first."""

    steps: int = 10

    def build(self):
        def draw(key, batch):
            xs = jax.random.randint(key, (self.steps, batch), 0, KINDS)
            return xs, xs[::-1]

        return sd.task(draw)


@sd.part
class EncoderDecoder:
    """One rnn reads, a second writes, given the symbol before that it should have written (Sutskever et al. 2014)."""

    def init(self, key):
        reads, writes, out = jax.random.split(key, 3)
        return {
            "encoder": rnn_init(reads, KINDS),
            "decoder": rnn_init(writes, KINDS),
            "out": normal(out, HIDDEN, KINDS),
        }

    def loss(self, params, batch, key):
        xs, ys = jax.nn.one_hot(batch.xs, KINDS), jax.nn.one_hot(batch.ys, KINDS)
        read = rnn(params["encoder"], rest(xs), xs, "encoder")[-1]
        before = jnp.concatenate([jnp.zeros_like(ys[:1]), ys[:-1]])
        logits = rnn(params["decoder"], read, before, "decoder") @ params["out"]
        right = jnp.argmax(logits, axis=-1) == batch.ys
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch.ys)
        return batch.mean(loss), {"accuracy": batch.mean(right * 1.0)}


@sd.part
class Chain:
    """What comes next in a walk over a ring of symbols that turns back where it meets the first of them."""

    steps: int = 20

    def build(self):
        def draw(key, batch):
            start, turn = jax.random.randint(key, (2, batch), 0, KINDS)
            walk = (start + jnp.where(turn % 2 == 0, 1, -1) * jnp.arange(self.steps + 1)[:, None]) % KINDS
            return walk[:-1], walk[1:]

        return sd.task(draw)


@sd.part
class Tied:
    """What reads a symbol writes it: logits h Eᵀ with the embedding E (Press & Wolf 2017)."""

    def init(self, key):
        cell, table = jax.random.split(key)
        return {"embedding": jax.random.normal(table, (KINDS, HIDDEN)) * 0.1, "rnn": rnn_init(cell, HIDDEN)}

    def loss(self, params, batch, key):
        xs = params["embedding"][batch.xs]
        logits = rnn(params["rnn"], rest(xs), xs, "rnn") @ params["embedding"].T
        return batch.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch.ys))


@sd.part
class Clocks:
    """Two inputs of other lengths, and the sum of the first number of each."""

    def build(self):
        def draw(key, batch):
            fast, slow = (
                jax.random.uniform(k, (t, batch, 1)) for k, t in zip(jax.random.split(key), (30, 6), strict=True)
            )
            return {"fast": fast, "slow": slow}, fast[0, :, 0] + slow[0, :, 0]

        return sd.task(draw)


@sd.part
class TwoInputs:
    """A recurrence for each input; the prediction reads both."""

    def init(self, key):
        fast, slow = jax.random.split(key)
        return {"fast": rnn_init(fast, 1), "slow": rnn_init(slow, 1), "readout": jnp.full(2 * HIDDEN, HIDDEN**-0.5)}

    def loss(self, params, batch, key):
        last = [rnn(params[name], rest(xs), xs, name)[-1] for name, xs in sorted(batch.xs.items())]
        return batch.mean((jnp.concatenate(last, axis=-1) @ params["readout"] - batch.ys) ** 2)


NETWORKS = {
    "residual": (sd.Spec("adding", steps=30, network=Residual()), {"scale": [0.1, 1.0]}),
    "attention": (sd.Spec("adding", steps=30, network=Attention()), {}),
    "encoder_decoder": (sd.Spec(Reversed(), network=EncoderDecoder()), {}),
    "tied": (sd.Spec(Chain(), network=Tied()), {}),
    "two_inputs": (sd.Spec(Clocks(), network=TwoInputs()), {}),
}


def main(out: Path, updates: int = 1000) -> None:
    """Trains three seeds of each and prints, of medians over seeds, what reaches the first step of each scan."""
    for name, (spec, axes) in NETWORKS.items():
        runs = sd.grid(spec, seeds=3, lr=3e-3, clip=1.0, **axes)
        ds = sd.load(sd.run(sd.Experiment(name, runs, updates=updates), out / name))
        for setting, of in ds.groupby("scale") if axes else [("", ds)]:
            loss = of.test_loss.median("run")
            print(f"{name} {setting}: test loss {float(loss[0]):.3f}, after {updates} updates {float(loss[-1]):.3f}")
            for layer in of.layer.values:
                norms = of.adjoint_norm.sel(layer=layer, step=[0, updates - 1]).dropna("time", how="all")
                first, last = (norms.isel(time=0) / norms.isel(time=-1)).median("run").values
                print(f"    {layer}: ‖∂L/∂h_1‖ / ‖∂L/∂h_T‖ {first:.1e} at first, {last:.1e} at the end")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, config=(tyro.conf.PositionalRequiredArgs,))
