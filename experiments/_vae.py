"""A variational autoencoder of sequences, given their class: a recurrent encoder and a recurrent decoder.

    q(z | x, y) = N(μ, σ²), from the encoder's last state           p(z) = N(0, I)
    p(x | z, y) = Π_t p(x_t | z, y, x_{t−1}), from the decoder's outputs
    ELBO = E_q log p(x | z, y) − KL(q ‖ p) ≤ log p(x | y)           Kingma & Welling 2014, eq. 3

The decoder that sees x_{t−1} may need no z: the posterior collapses onto the prior and KL falls to 0 (Bowman et al.
2016, §3). Their two cures are numbers here: the weight of KL rises linearly from 0 to 1 over `VAE.anneal` updates,
and x_{t−1} is withheld in training with probability 1 − `VAE.history`.

    L_k = E log 1/k Σ_i p(x, z_i | y) / q(z_i | x, y),  z_i ~ q     Burda, Grosse & Salakhutdinov 2016, eq. 8

is the ELBO at k = 1 and rises with k to log p(x | y).
"""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import seqdyn as sd
from experiments import _generative as generative
from experiments._generative import Kind, Scale, affine, beside, dense, label, mask_in
from seqdyn import backend
from seqdyn.data.batches import Batch
from seqdyn.data.cache import cached
from seqdyn.data.text import Examples
from seqdyn.nets.bptt import where_valid
from seqdyn.nets.cells import Cell, gru, step
from seqdyn.parts import describe
from seqdyn.runs.checkpoint import digest
from seqdyn.types import Array, Bool, Float, Int, Key

LOG_2PI = float(np.log(2 * np.pi))


class Parts(NamedTuple):
    """Of the ELBO of each example, in nats."""

    log_density: Float[Array, " b"]
    kl: Float[Array, " b"]


@sd.part
class VAE:
    """−ELBO, of a batch that is judged at the full weight of KL and with one draw of z, the same every time."""

    features: int
    classes: int
    trials: int = 0
    """As `Kind.trials`."""
    hidden: int = 48
    latent: int = 8
    history: sd.Number = sd.number(0.5, low=0.0, high=1.0)
    """In training, how often the decoder is given x_{t−1}; at 0 it is never given, in evaluation neither."""
    anneal: sd.Number = sd.number(0.0, low=0.0)
    """Updates over which the weight of KL rises to 1; 0: it is 1 from the start."""

    variables = {
        "kl": sd.Variable((), "KL(q ‖ p)", "nats"),
        "log_density": sd.Variable((), "log p(x | z, y)", "nats"),
    }

    def cells(self, dtype: Any = jnp.float32) -> tuple[Cell, Cell]:
        """(encoder, decoder)"""
        given = self.features + self.classes
        return gru(given, self.hidden, dtype=dtype), gru(self.latent + given + 1, self.hidden, dtype=dtype)

    def init(self, key: Key[Array, ""]) -> dict[str, Any]:
        """Glorot and orthogonal weights. `posterior` makes μ and log σ² of the encoder's last state, `output` of the
        decoder's what p(x_t) is about: a mean, beside `log_scale`, log of each feature's deviation; or a logit."""
        k = jax.random.split(key, 4)
        encoder, decoder = self.cells()
        params = {
            "encoder": encoder.init(k[0]),
            "posterior": dense(k[1], self.hidden, 2 * self.latent),
            "decoder": decoder.init(k[2]),
            "output": dense(k[3], self.hidden, self.features),
        }
        return params if self.trials else params | {"log_scale": jnp.zeros((self.features,))}

    def loss(self, params: Any, batch: Batch, key: Any) -> tuple[Array, dict[str, Array]]:
        """β KL − log p(x | z, y), β = min(1, updates done / anneal)."""
        beta = jnp.ones(())
        if batch.step is not None:
            risen = batch.step.astype(jnp.float32) / jnp.maximum(self.anneal, 1)
            beta = jnp.where(self.anneal > 0, jnp.minimum(risen, 1), 1)
        found = self.parts(params, batch, key, watched=True)
        kl, log_density = batch.mean(found.kl), batch.mean(found.log_density)
        return beta.astype(kl.dtype) * kl - log_density, {"kl": kl, "log_density": log_density}

    def parts(self, params: Any, batch: Batch, key: Any, watched: bool = False) -> Parts:
        """With one draw of z, by reparametrisation; the key is that of training, or None."""
        mask = mask_in(batch)
        if key is None:
            k_z, given = jax.random.key(0), jnp.broadcast_to(self.history > 0, mask.shape)
        else:
            k_z, k_given = jax.random.split(key)
            given = jax.random.uniform(k_given, mask.shape) < self.history
        mean, log_variance = self.encode(params, batch, watched)
        z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(k_z, mean.shape, mean.dtype)
        outputs = self.decode(params, z, batch, given, watched)
        return Parts(self.log_density(params, outputs, batch), jnp.sum(divergence(mean, log_variance), axis=-1))

    # --- the two networks ---

    def encode(self, params: Any, batch: Batch, watched: bool = False) -> tuple[Float[Array, "b z"], ...]:
        """(μ, log σ²) of q(z | x, y)."""
        xs = beside(len(batch.xs), batch.xs, label(batch.ys, self.classes, batch.xs.dtype))
        cell = self.cells(xs.dtype)[0]
        hs = generative.outputs(cell, params["encoder"], xs, mask_in(batch), "encoder" if watched else None)
        mean, log_variance = jnp.split(affine(params["posterior"], hs[-1]), 2, axis=-1)
        return mean, log_variance

    def decode(
        self, params: Any, z: Float[Array, "b z"], batch: Batch, given: Bool[Array, "t b"], watched: bool = False
    ) -> Float[Array, "t b d"]:
        """What p(x_t | z, y, x_{t−1}) is about at every step; x_{t−1} where it is `given`."""
        before = jnp.concatenate([jnp.zeros_like(batch.xs[:1]), batch.xs[:-1]])
        xs = self.inputs(z, batch.ys, before, given)
        cell = self.cells(z.dtype)[1]
        hs = generative.outputs(cell, params["decoder"], xs, mask_in(batch), "decoder" if watched else None)
        return affine(params["output"], hs)

    def inputs(self, z: Float[Array, "b z"], ys: Array, before: Array, given: Array) -> Float[Array, "... d"]:
        """What the decoder is given at one step, or at all: z, the class, x_{t−1} or 0 in its place, and which of
        them."""
        steps = (before.shape[0],) if before.ndim == 3 else ()
        z, y = (jnp.broadcast_to(p, (*steps, *p.shape)) for p in (z, label(ys, self.classes, z.dtype)))
        seen = given[..., None].astype(z.dtype)
        return jnp.concatenate([z, y, before * jnp.broadcast_to(seen, before.shape), seen], axis=-1)

    def log_density(self, params: Any, outputs: Array, batch: Batch) -> Float[Array, " b"]:
        """log p(x | z, y) of each sequence, in nats, over its valid steps: Gaussian or, of shares, binomial."""
        xs = batch.xs
        if self.trials:
            n = jnp.asarray(self.trials, xs.dtype)
            k = xs * n
            ways = jax.lax.lgamma(n + 1) - jax.lax.lgamma(k + 1) - jax.lax.lgamma(n - k + 1)
            each = ways + k * outputs - n * jax.nn.softplus(outputs)
        else:
            log_scale = jnp.broadcast_to(params["log_scale"], xs.shape)
            each = -0.5 * (jnp.square((xs - outputs) * jnp.exp(-log_scale)) + LOG_2PI) - log_scale
        return jnp.sum(jnp.where(mask_in(batch), jnp.sum(each, axis=-1), 0), axis=0)

    # --- what has been learnt ---

    def log_weights(self, params: Any, batch: Batch, key: Key[Array, ""], samples: int) -> Float[Array, "k b"]:
        """log p(x, z | y) − log q(z | x, y) of so many draws of z for each example."""
        mean, log_variance = self.encode(params, batch)
        given = jnp.broadcast_to(self.history > 0, mask_in(batch).shape)

        def one(key: Key[Array, ""]) -> Float[Array, " b"]:
            noise = jax.random.normal(key, mean.shape, mean.dtype)
            z = mean + jnp.exp(0.5 * log_variance) * noise
            prior, posterior = -0.5 * jnp.square(z), -0.5 * (jnp.square(noise) + log_variance)
            outputs = self.decode(params, z, batch, given)
            return self.log_density(params, outputs, batch) + jnp.sum(prior - posterior, axis=-1)

        return jax.lax.map(one, jax.random.split(key, samples))

    def sample(
        self, params: Any, key: Key[Array, ""], ys: Int[Array, " b"], mask: Bool[Array, "t b"]
    ) -> Float[Array, "t b d"]:
        """z from the prior, and x_t from p(x_t | …), one step after the other; 0 on padding."""
        k_z, k_x = jax.random.split(key)
        z, cell = jax.random.normal(k_z, (len(ys), self.latent)), self.cells()[1]
        given = jnp.broadcast_to(self.history > 0, ys.shape)

        def body(at: Any, inputs: Any) -> Any:
            carry, before = at
            key, on = inputs
            carry = where_valid(on, step(cell, params["decoder"], carry, self.inputs(z, ys, before, given)), carry)
            x = self.sample_output(params, affine(params["output"], carry.h), key)
            x = where_valid(on, x, jnp.zeros_like(x))
            return (carry, x), x

        first = (cell.initial_carry(ys.shape), jnp.zeros((len(ys), self.features)))
        return jax.lax.scan(body, first, (jax.random.split(k_x, len(mask)), mask))[1]

    def sample_output(self, params: Any, outputs: Array, key: Key[Array, ""]) -> Array:
        """x_t from p(x_t | …)."""
        if not self.trials:
            deviation = jnp.broadcast_to(jnp.exp(params["log_scale"]), outputs.shape)
            return outputs + deviation * jax.random.normal(key, outputs.shape)
        u = jax.random.uniform(key, (self.trials, *outputs.shape))
        return jnp.mean((u < jnp.broadcast_to(jax.nn.sigmoid(outputs), u.shape)).astype(outputs.dtype), axis=0)


def divergence(mean: Float[Array, "b z"], log_variance: Float[Array, "b z"]) -> Float[Array, "b z"]:
    """KL(q ‖ p) of each latent number, in nats. Kingma & Welling 2014, appendix B."""
    return 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance)


def bound(log_w: Float[Array, "n b"], k: int) -> Float[Array, " b"]:
    """L_k of each example, the mean over n / k groups of its draws: no smaller k that divides k gives more."""
    groups = log_w.reshape(-1, k, log_w.shape[1])
    return jnp.mean(jax.nn.logsumexp(groups, axis=1), axis=0) - jnp.log(jnp.asarray(k, log_w.dtype))


class Forward(NamedTuple):
    """A trained VAE on held-out sequences: nats a sequence, means over them."""

    kl: float
    active: int
    """Latent numbers whose μ varies between sequences by more than 0.01. Burda et al. 2016, §5.1.1."""
    bounds: dict[int, float]
    """L_k"""


@cache
def _evaluation(ks: tuple[int, ...]) -> Any:
    def evaluate(vae: VAE, params: Any, batch: Batch, key: Key[Array, ""]) -> Any:
        mean, log_variance = vae.encode(params, batch)
        kl = jnp.mean(jnp.sum(divergence(mean, log_variance), axis=-1))
        log_w = vae.log_weights(params, batch, key, max(ks))
        return kl, jnp.var(mean, axis=0), [jnp.mean(bound(log_w, k)) for k in ks]

    return backend.compiled(evaluate)


def evaluate(
    kind: Kind, vae: VAE, params: Any, scale: Scale, examples: Examples, ks: tuple[int, ...], limit: int
) -> Forward:
    """On the first `limit` examples, with as many draws as the largest of `ks`. Densities are of the data as they are,
    not standardised."""
    few = examples.take(slice(limit))
    batch = generative.batch_of(kind, generative.scaled(kind, few, scale))
    kl, spread, found = _evaluation(ks)(vae, params, batch, jax.random.key(0))
    volume = float(np.mean(few.lengths)) * float(np.sum(np.log(scale.deviation)))
    bounds = {k: float(one) - volume for k, one in zip(ks, found, strict=True)}
    return Forward(float(kl), int(np.sum(np.asarray(spread) > 0.01)), bounds)


def augmented(
    data: dict[str, Examples],
    seed: int,
    share: float = 1.0,
    *,
    pad: Any = "before",
    trials: int = 0,
    hidden: int = 48,
    latent: int = 8,
    batch: int = 32,
    updates: int = 2000,
    cache_dir: str | Path | None = None,
) -> Examples:
    """`share` times as many synthetic sequences as `data["train"]` has, classes balanced, drawn from a VAE that was
    trained on that split alone; which of its updates draws is chosen on `data["validation"]`. A function of the two
    and the seed, cached on disk."""
    train = generative.ordered(data["train"], seed)
    n, s, d = train.xs.shape
    kind = Kind(s, d, int(np.max(train.ys)) + 1, trials, pad)
    vae = VAE(d, kind.classes, trials, hidden, latent, anneal=updates / 2)
    spec = kind.spec(vae, batch=min(batch, n), stop="loss")
    facts = [kind, describe(vae), spec.batch, seed, updates, share, digest((tuple(train), tuple(data["validation"])))]

    def make() -> dict[str, np.ndarray]:
        scale = generative.scaling(kind, train)
        splits = {"train": train, "validation": data["validation"]}
        splits = {name: generative.scaled(kind, split, scale) for name, split in splits.items()}
        chunk = max(k for k in range(1, 51) if updates % k == 0)
        experiment = sd.Experiment(
            "vae", sd.grid(spec, [seed], lr=2e-3), updates=updates, chunk=chunk, probe_every=chunk
        )
        with tempfile.TemporaryDirectory() as folder:
            params = sd.restore(sd.run(experiment, Path(folder) / "vae", splits, verify=False), 0, best=True)
        return generative.synthesise(kind, vae, params, scale, train, round(share * n), seed)._asdict()

    return Examples(**cached("vae", facts, make, cache_dir))
