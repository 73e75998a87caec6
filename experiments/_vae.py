"""A variational autoencoder of sequences, given their class: a recurrent encoder and a recurrent decoder.

    q(z | x, y) = N(μ, σ²), from the encoder's last state           p(z) = N(0, I)
    p(x | z, y) = Π_t p(x_t | z, y, x_{t−1}), from the decoder's outputs
    ELBO = E_q log p(x | z, y) − KL(q ‖ p) ≤ log p(x | y)           Kingma & Welling 2014, eq. 3

The decoder that sees x_{t−1} may need no z: the posterior collapses onto the prior and KL falls to 0 (Bowman et al.
2016, §3). Their two cures are numbers here: the weight of KL rises linearly from 0 to 1 over `Numbers.anneal` updates,
and x_{t−1} is withheld in training with probability 1 − `Numbers.history`.

    L_k = E log 1/k Σ_i p(x, z_i | y) / q(z_i | x, y),  z_i ~ q     Burda, Grosse & Salakhutdinov 2016, eq. 8

is the ELBO at k = 1 and rises with k to log p(x | y).
"""

from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _generative as generative
from experiments._generative import Data, Job, Kind, Program, Scale, Sequences, Trained, affine, beside, dense, label
from seqdyn import backend
from seqdyn.data.cache import cached
from seqdyn.data.text import Examples
from seqdyn.learn.model import Dense
from seqdyn.nets.bptt import Cut, Watch, hold, live_steps, unroll, watching
from seqdyn.nets.cells import Cell, gru, step
from seqdyn.runs.checkpoint import digest
from seqdyn.types import Array, Bool, Float, Int, Key

LOG_2PI = float(np.log(2 * np.pi))


class Size(NamedTuple):
    """Of the networks and the batch."""

    hidden: int = 48
    latent: int = 8
    batch: int = 32


class Numbers(NamedTuple):
    """What an update depends on beside the data: none of them recompiles."""

    seed: Any = 0
    size: Any = 0
    """How many of the training examples are used, the first."""
    anneal: Any = 1000.0
    """Updates over which the weight of KL rises to 1; 0: it is 1 from the start."""
    history: Any = 0.5
    """In training, how often the decoder is given x_{t−1}; at 0 it is never given, in evaluation neither."""
    lr: Any = 2e-3

    def arrays(self) -> "Numbers":
        """With NumPy leaves."""
        return Numbers(np.int32(self.seed), np.int32(self.size), *(np.float32(v) for v in self[2:]))


class VAE(NamedTuple):
    """What is learnt."""

    encoder: Any
    posterior: Dense
    """The encoder's last state → μ and log σ²."""
    decoder: Any
    output: Dense
    """The decoder's state → what p(x_t) is about: a mean, or a logit."""
    log_scale: Float[Array, " d"]
    """log of the deviation of each feature of a Gaussian likelihood."""


class Watches(NamedTuple):
    """One of each network."""

    encoder: Watch = Watch()
    decoder: Watch = Watch()


NOTHING, SIZE = Watches(), Size()


def cells(kind: Kind, size: Size, dtype: Any = jnp.float32) -> tuple[Cell, Cell]:
    """(encoder, decoder)"""
    given = kind.features + kind.classes
    return gru(given, size.hidden, dtype=dtype), gru(size.latent + given + 1, size.hidden, dtype=dtype)


def init(kind: Kind, size: Size, key: Key[Array, ""], dtype: Any = jnp.float32) -> VAE:
    """Glorot and orthogonal weights; unit deviation."""
    k = jax.random.split(key, 4)
    encoder, decoder = cells(kind, size, dtype)
    return VAE(
        encoder.init(k[0]),
        dense(k[1], size.hidden, 2 * size.latent, dtype),
        decoder.init(k[2]),
        dense(k[3], size.hidden, kind.features, dtype),
        jnp.zeros((kind.features,), dtype),
    )


def watches(kind: Kind, size: Size, dtype: Any = jnp.float32) -> Watches:
    """That read both networks."""
    return Watches(*(watching(cell, kind.steps, (size.batch,)) for cell in cells(kind, size, dtype)))


# --- the two networks -----------------------------------------------------------------------------------------


def encode(
    kind: Kind, size: Size, vae: VAE, batch: Sequences, watch: Watch = Watch(), by: Any = unroll
) -> tuple[Float[Array, "b z"], Float[Array, "b z"]]:
    """(μ, log σ²) of q(z | x, y)."""
    dtype, b = batch.xs.dtype, batch.ys.shape[0]
    cell = cells(kind, size, dtype)[0]
    xs = beside(kind.steps, (batch.xs, label(kind, batch.ys, dtype)))
    _, last = by(cell, vae.encoder, cell.rest((b,)), xs, Cut(live=batch.live), watch)
    mean, log_variance = jnp.split(affine(vae.posterior, last.h), 2, axis=-1)
    return mean, log_variance


def inputs(
    kind: Kind, z: Float[Array, "b z"], ys: Int[Array, " b"], before: Array, given: Array
) -> Float[Array, "... d"]:
    """What the decoder is given at one step, or at all: z, the class, x_{t−1} or 0 in its place, and which of them."""
    steps = (before.shape[0],) if before.ndim == 3 else ()
    z, y = (jnp.broadcast_to(p, (*steps, *p.shape)) for p in (z, label(kind, ys, z.dtype)))
    seen = given[..., None].astype(z.dtype)
    return jnp.concatenate([z, y, before * jnp.broadcast_to(seen, before.shape), seen], axis=-1)


def decode(
    kind: Kind,
    size: Size,
    vae: VAE,
    z: Float[Array, "b z"],
    batch: Sequences,
    given: Bool[Array, "t b"],
    watch: Watch = Watch(),
    by: Any = unroll,
) -> Float[Array, "t b d"]:
    """What p(x_t | z, y, x_{t−1}) is about at every step; x_{t−1} where it is `given`."""
    cell = cells(kind, size, z.dtype)[1]
    before = jnp.concatenate([jnp.zeros_like(batch.xs[:1]), batch.xs[:-1]])
    xs = inputs(kind, z, batch.ys, before, given)
    return affine(vae.output, by(cell, vae.decoder, cell.rest(z.shape[:1]), xs, Cut(live=batch.live), watch)[0])


def log_density(kind: Kind, vae: VAE, outputs: Array, batch: Sequences) -> Float[Array, " b"]:
    """log p(x | z, y) of each sequence, in nats, over its live steps: Gaussian or, of shares, binomial."""
    xs = batch.xs
    if kind.trials:
        n = jnp.asarray(kind.trials, xs.dtype)
        k = xs * n
        ways = jax.lax.lgamma(n + 1) - jax.lax.lgamma(k + 1) - jax.lax.lgamma(n - k + 1)
        each = ways + k * outputs - n * jax.nn.softplus(outputs)
    else:
        log_scale = jnp.broadcast_to(vae.log_scale, xs.shape)
        each = -0.5 * (jnp.square((xs - outputs) * jnp.exp(-log_scale)) + LOG_2PI) - log_scale
    return jnp.sum(jnp.where(batch.live, jnp.sum(each, axis=-1), jnp.zeros(())), axis=0)


def divergence(mean: Float[Array, "b z"], log_variance: Float[Array, "b z"]) -> Float[Array, "b z"]:
    """KL(q ‖ p) of each latent number, in nats. Kingma & Welling 2014, appendix B."""
    return 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance)


# --- training -------------------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """Of the ELBO of each example, in nats."""

    log_density: Float[Array, " b"]
    kl: Float[Array, " b"]


def parts(
    kind: Kind,
    size: Size,
    vae: VAE,
    batch: Sequences,
    key: Key[Array, ""],
    given: Bool[Array, "t b"],
    watch: Watches = NOTHING,
    by: Any = unroll,
) -> Parts:
    """With one draw of z, by reparametrisation."""
    mean, log_variance = encode(kind, size, vae, batch, watch.encoder, by)
    z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape, mean.dtype)
    outputs = decode(kind, size, vae, z, batch, given, watch.decoder, by)
    return Parts(log_density(kind, vae, outputs, batch), jnp.sum(divergence(mean, log_variance), axis=-1))


class Splits(NamedTuple):
    """What is trained on, and what the update to keep is chosen by."""

    train: Data
    validation: Data


class State(NamedTuple):
    """What changes."""

    vae: VAE
    opt: Any
    best: VAE
    """The parameters with the best ELBO on the validation split, at weight 1 of KL, among those looked at."""
    elbo: Float[Array, ""]
    """That ELBO."""


def state(kind: Kind, size: Size, numbers: Numbers) -> State:
    """Before the first update."""
    vae = init(kind, size, jax.random.fold_in(jax.random.key(numbers.seed), 0))
    return State(vae, generative.adam_state(vae), vae, jnp.asarray(jnp.finfo(jnp.float32).min, jnp.float32))


def update(kind: Kind, size: Size, numbers: Numbers, at: State, data: Splits, n: Int[Array, ""]) -> tuple[Any, Any]:
    """One update, and what it says of itself."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(numbers.seed), 1), n)
    k_batch, k_z, k_given = jax.random.split(key, 3)
    batch = generative.drawn(kind, data.train, k_batch, numbers.size, size.batch)
    given = jax.random.uniform(k_given, batch.live.shape) < numbers.history
    risen = n.astype(jnp.float32) / jnp.maximum(numbers.anneal, 1)
    beta = jnp.where(numbers.anneal > 0, jnp.minimum(risen, 1), jnp.ones_like(risen))

    def loss(vae: VAE, watch: Watches) -> tuple[Array, Parts]:
        found = parts(kind, size, vae, batch, k_z, given, watch)
        return jnp.sum(beta * found.kl - found.log_density), found

    (grads, readings), found = jax.grad(loss, argnums=(0, 1), has_aux=True)(at.vae, watches(kind, size))
    grads = jax.tree.map(lambda g: g / size.batch, grads)
    vae, opt = generative.adam(grads, at.opt, at.vae, numbers.lr)
    metrics = {"kl": jnp.mean(found.kl), "elbo": jnp.mean(found.log_density - found.kl), "beta": beta}
    for name, reading in readings._asdict().items():
        norms = generative.through_time(reading, batch.live)
        metrics |= {f"{name}_{which}": value for which, value in norms.items()}
    return at._replace(vae=vae, opt=opt), metrics


def look(kind: Kind, size: Size, numbers: Numbers, at: State, data: Splits) -> tuple[State, Any]:
    """The ELBO of the validation split, and the best parameters so far."""
    batch = generative.rows(kind, data.validation, jnp.arange(data.validation.ys.shape[0]))
    given = jnp.broadcast_to(numbers.history > 0, batch.live.shape)
    found = parts(kind, size, at.vae, batch, jax.random.key(0), given)
    elbo = jnp.mean(found.log_density - found.kl)
    better = elbo > at.elbo
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), at.vae, at.best)
    metrics = {"validation_elbo": elbo, "validation_kl": jnp.mean(found.kl)}
    return at._replace(best=best, elbo=jnp.where(better, elbo, at.elbo)), metrics


@cache
def program(kind: Kind, size: Size) -> Program:
    """Compiled once for all numbers."""
    return generative.program(*(partial(f, kind, size) for f in (state, update, look)))


def job(
    kind: Kind, size: Size, numbers: Numbers, train: Examples, validation: Examples, updates: int, chunk: int
) -> tuple[Job, Scale]:
    """To be trained on the first `numbers.size` of the examples."""
    scale = generative.scaling(kind, train, int(numbers.size))
    data = Splits(*(generative.scaled(kind, split, scale) for split in (train, validation)))
    return Job(program(kind, size), numbers.arrays(), data, ["vae", kind, size], updates, chunk), scale


# --- what has been learnt -------------------------------------------------------------------------------------


def log_weights(
    kind: Kind, size: Size, vae: VAE, batch: Sequences, key: Key[Array, ""], given: Any, samples: int
) -> Float[Array, "k b"]:
    """log p(x, z | y) − log q(z | x, y) of so many draws of z for each example."""
    mean, log_variance = encode(kind, size, vae, batch)
    given = jnp.broadcast_to(given, batch.live.shape)

    def one(key: Key[Array, ""]) -> Float[Array, " b"]:
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        z = mean + jnp.exp(0.5 * log_variance) * noise
        prior, posterior = -0.5 * jnp.square(z), -0.5 * (jnp.square(noise) + log_variance)
        outputs = decode(kind, size, vae, z, batch, given)
        return log_density(kind, vae, outputs, batch) + jnp.sum(prior - posterior, axis=-1)

    return jax.lax.map(one, jax.random.split(key, samples))


def bound(log_w: Float[Array, "n b"], k: int) -> Float[Array, " b"]:
    """L_k of each example, the mean over n / k groups of its draws: no smaller k that divides k gives more."""
    groups = log_w.reshape(-1, k, log_w.shape[1])
    return jnp.mean(jax.nn.logsumexp(groups, axis=1), axis=0) - jnp.log(jnp.asarray(k, log_w.dtype))


class Judged(NamedTuple):
    """A trained VAE on held-out sequences: nats a sequence, means over them."""

    kl: float
    active: int
    """Latent numbers whose μ varies between sequences by more than 0.01. Burda et al. 2016, §5.1.1."""
    bounds: dict[int, float]
    """L_k"""


@cache
def _judge(kind: Kind, size: Size, samples: int) -> Any:
    def judge(vae: VAE, data: Data, key: Key[Array, ""], given: Any) -> Any:
        batch = generative.rows(kind, data, jnp.arange(data.ys.shape[0]))
        mean, log_variance = encode(kind, size, vae, batch)
        return mean, divergence(mean, log_variance), log_weights(kind, size, vae, batch, key, given, samples)

    return backend.compiled(judge)


def judge(
    kind: Kind, size: Size, vae: VAE, scale: Scale, examples: Examples, given: bool, ks: tuple[int, ...], limit: int
) -> Judged:
    """On the first `limit` examples, with as many draws as the largest of `ks`. Densities are of the data as they are,
    not standardised."""
    few = examples.take(slice(limit))
    data = generative.scaled(kind, few, scale)
    mean, kl, log_w = _judge(kind, size, max(ks))(vae, data, jax.random.key(0), jnp.bool_(given))
    volume = float(np.mean(data.lengths)) * float(np.sum(np.log(scale.deviation)))
    bounds = {k: float(jnp.mean(bound(log_w, k))) - volume for k in ks}
    active = int(np.sum(np.var(np.asarray(mean), axis=0) > 0.01))
    return Judged(float(jnp.mean(jnp.sum(kl, axis=-1))), active, bounds)


@cache
def _sample(kind: Kind, size: Size) -> Any:
    cell = cells(kind, size)[1]

    def sample(vae: VAE, ys: Array, lengths: Array, key: Key[Array, ""], given: Array) -> Array:
        k_z, k_x = jax.random.split(key)
        z = jax.random.normal(k_z, (ys.shape[0], size.latent))
        live = live_steps(lengths, kind.steps, kind.pad)

        def body(at: Any, inputs_t: Any) -> Any:
            carry, before = at
            k, live_t = inputs_t
            new = step(cell, vae.decoder, carry, inputs(kind, z, ys, before, jnp.broadcast_to(given, ys.shape)))
            carry = hold(live_t, new, carry)
            x = _draw(kind, vae, affine(vae.output, carry.h), k)
            x = jnp.where(jnp.broadcast_to(live_t[:, None], x.shape), x, jnp.zeros_like(x))
            return (carry, x), x

        first = (cell.rest(ys.shape), jnp.zeros((*ys.shape, kind.features)))
        return jnp.moveaxis(jax.lax.scan(body, first, (jax.random.split(k_x, kind.steps), live))[1], 0, 1)

    return backend.compiled(sample)


def _draw(kind: Kind, vae: VAE, outputs: Array, key: Key[Array, ""]) -> Array:
    """x_t from p(x_t | …)."""
    if not kind.trials:
        return outputs + jnp.exp(jnp.broadcast_to(vae.log_scale, outputs.shape)) * jax.random.normal(key, outputs.shape)
    u = jax.random.uniform(key, (kind.trials, *outputs.shape))
    return jnp.mean((u < jnp.broadcast_to(jax.nn.sigmoid(outputs)[None], u.shape)).astype(outputs.dtype), axis=0)


def synthesise(
    kind: Kind, size: Size, trained: Trained, scale: Scale, given: bool, examples: Examples, n: int, seed: int
) -> Examples:
    """n sequences of balanced classes drawn from the model, each with a length that its class has in `examples`."""
    ys, lengths = generative.wanted(kind, examples, n, seed)
    xs = _sample(kind, size)(trained.state.best, ys, lengths, jax.random.key(seed), jnp.bool_(given))
    return generative.unscaled(kind, scale, np.asarray(xs), lengths, ys)


def augmented(
    data: dict[str, Examples],
    seed: int,
    share: float = 1.0,
    *,
    pad: Any = "before",
    trials: int = 0,
    size: Size = SIZE,
    updates: int = 2000,
    cache_dir: str | Path | None = None,
) -> Examples:
    """`share` times as many synthetic sequences as `data["train"]` has, classes balanced, drawn from a VAE that was
    trained on that split alone; which of its updates draws is chosen on `data["validation"]`. A function of the two
    and the seed, cached on disk."""
    train = generative.ordered(data["train"], seed)
    n, s, d = train.xs.shape
    kind = Kind(s, d, int(np.max(train.ys)) + 1, trials, pad)
    numbers = Numbers(seed, n, anneal=updates / 2)
    facts = [kind, size, numbers, updates, share, digest((tuple(train), tuple(data["validation"])))]

    def make() -> dict[str, np.ndarray]:
        chunk = max(n for n in range(1, 51) if updates % n == 0)
        todo, scale = job(kind, size, numbers, train, data["validation"], updates, chunk)
        return synthesise(kind, size, generative.train(todo), scale, True, train, round(share * n), seed)._asdict()

    return Examples(**cached("vae", facts, make, cache_dir))
