"""A generative adversarial network of sequences, given their class: a recurrent generator that turns noise at every
step into a sequence, and a recurrent critic that tells it from a real one. Esteban, Hyland & Rätsch 2017, figure 1b.

    critic       E D(x̃) − E D(x) + λ E (‖∇_x̂ D(x̂)‖ − 1)²,  x̂ = ε x + (1 − ε) x̃,  ε ~ U(0, 1)
    generator    −E D(x̃)                                       Gulrajani et al. 2017, eq. 3, algorithm 1

D(x) is the mean over live steps of a linear readout of the critic's states. The third term is a norm of what the
hand-written backward pass returns, differentiated once more, through that pass.
"""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _generative as generative
from experiments._generative import Data, Job, Kind, Program, Scale, Sequences, Trained, affine, beside, dense, label
from seqdyn import backend
from seqdyn.data.text import Examples
from seqdyn.learn.model import Dense
from seqdyn.nets.bptt import Cut, Watch, live_steps, unroll, watching
from seqdyn.nets.cells import Cell, gru
from seqdyn.norms import norm
from seqdyn.types import Array, Bool, Float, Int, Key


class Size(NamedTuple):
    """Of the networks and the batch."""

    hidden: int = 48
    noise: int = 8
    """Random numbers that the generator is given at each step."""
    batch: int = 32
    critic: int = 5
    """Updates of the critic for each of the generator."""


class Numbers(NamedTuple):
    """What an update depends on beside the data: none of them recompiles."""

    seed: Any = 0
    size: Any = 0
    """How many of the training examples are used, the first."""
    lr: Any = 2e-3
    penalty: Any = 10.0
    """λ"""

    def arrays(self) -> "Numbers":
        """With NumPy leaves."""
        return Numbers(np.int32(self.seed), np.int32(self.size), np.float32(self.lr), np.float32(self.penalty))


class Player(NamedTuple):
    """A recurrent layer and what reads it."""

    cell: Any
    readout: Dense


class GAN(NamedTuple):
    """What is learnt."""

    generator: Player
    critic: Player


def cells(kind: Kind, size: Size, dtype: Any = jnp.float32) -> tuple[Cell, Cell]:
    """(generator, critic)"""
    k = kind.classes
    return gru(size.noise + k, size.hidden, dtype=dtype), gru(kind.features + k, size.hidden, dtype=dtype)


def init(kind: Kind, size: Size, key: Key[Array, ""], dtype: Any = jnp.float32) -> GAN:
    """Glorot and orthogonal weights."""
    k = jax.random.split(key, 4)
    generator, critic = cells(kind, size, dtype)
    return GAN(
        Player(generator.init(k[0]), dense(k[1], size.hidden, kind.features, dtype)),
        Player(critic.init(k[2]), dense(k[3], size.hidden, 1, dtype)),
    )


# --- the two networks -----------------------------------------------------------------------------------------


def generate(
    kind: Kind,
    size: Size,
    generator: Player,
    noise: Float[Array, "t b z"],
    ys: Int[Array, " b"],
    live: Bool[Array, "t b"],
    watch: Watch = Watch(),
    by: Any = unroll,
) -> Float[Array, "t b d"]:
    """x̃, in [0, 1] if it is a share; 0 on padding."""
    cell = cells(kind, size, noise.dtype)[0]
    given = beside(kind.steps, (noise, label(kind, ys, noise.dtype)))
    hs, _ = by(cell, generator.cell, cell.rest(ys.shape), given, Cut(live=live), watch)
    xs = affine(generator.readout, hs)
    xs = jax.nn.sigmoid(xs) if kind.trials else xs
    return xs * jnp.broadcast_to(live[..., None], xs.shape).astype(xs.dtype)


def score(
    kind: Kind, size: Size, critic: Player, batch: Sequences, watch: Watch = Watch(), by: Any = unroll
) -> Float[Array, " b"]:
    """D(x) of each sequence."""
    dtype = batch.xs.dtype
    cell = cells(kind, size, dtype)[1]
    xs = beside(kind.steps, (batch.xs, label(kind, batch.ys, dtype)))
    hs, _ = by(cell, critic.cell, cell.rest(batch.ys.shape), xs, Cut(live=batch.live), watch)
    live = batch.live.astype(dtype)
    return jnp.sum(live * affine(critic.readout, hs)[..., 0], axis=0) / jnp.sum(live, axis=0)


class Slope(NamedTuple):
    """∇_x D of each example."""

    penalty: Float[Array, " b"]
    """(‖∇_x D‖ − 1)²"""
    by_step: Float[Array, "t b"]
    """Its norm at each step."""
    reading: Watch
    """What `watch` read on the way."""


def slope(kind: Kind, size: Size, critic: Player, batch: Sequences, watch: Watch = Watch(), by: Any = unroll) -> Slope:
    """At these sequences: the gradient penalty and what it is made of."""

    def total(xs: Array, watch: Watch) -> Array:
        return jnp.sum(score(kind, size, critic, batch._replace(xs=xs), watch, by))

    gradient, reading = jax.grad(total, argnums=(0, 1))(batch.xs, watch)
    whole = norm(jnp.moveaxis(gradient, 1, 0).reshape(batch.ys.shape[0], -1))
    return Slope(jnp.square(whole - 1), jax.lax.stop_gradient(norm(gradient)), reading)


class Loss(NamedTuple):
    """Of the critic."""

    distance: Float[Array, ""]
    """E D(x) − E D(x̃), an estimate of Wasserstein's distance as far as D is 1-Lipschitz."""
    slope: Slope


def critic_loss(
    kind: Kind,
    size: Size,
    critic: Player,
    real: Sequences,
    fake: Float[Array, "t b d"],
    mix: Float[Array, " b"],
    weight: Array,
    watch: Watch = Watch(),
    by: Any = unroll,
) -> tuple[Float[Array, ""], Loss]:
    """With ε = `mix` and λ = `weight`."""
    both = [
        jnp.concatenate(pair, axis=-axis)
        for pair, axis in (((real.xs, fake), 2), ((real.ys,) * 2, 1), ((real.live,) * 2, 1))
    ]
    ours, theirs = jnp.split(score(kind, size, critic, Sequences(*both), by=by), 2)
    distance = jnp.mean(ours) - jnp.mean(theirs)
    mix = jnp.broadcast_to(mix[None, :, None], fake.shape)
    between = real._replace(xs=mix * real.xs + (1 - mix) * fake)
    found = slope(kind, size, critic, between, watch, by)
    return weight * jnp.mean(found.penalty) - distance, Loss(distance, found)


# --- training -------------------------------------------------------------------------------------------------


def state(kind: Kind, size: Size, numbers: Numbers) -> tuple[GAN, GAN]:
    """Before the first update: the networks and their optimisers."""
    gan = init(kind, size, jax.random.fold_in(jax.random.key(numbers.seed), 0))
    return gan, GAN(*(generative.adam_state(player) for player in gan))  # type: ignore[arg-type]


def update(kind: Kind, size: Size, numbers: Numbers, at: Any, data: Data, n: Int[Array, ""]) -> tuple[Any, Any]:
    """`Size.critic` updates of the critic and one of the generator, and what they say of themselves."""
    gan, opt = at
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(numbers.seed), 1), n)
    first, second = cells(kind, size)
    shape = (kind.steps, (size.batch,))
    adam = partial(generative.adam, lr=numbers.lr, b1=0.0, b2=0.9)  # Gulrajani et al. 2017, algorithm 1

    def draw(key: Key[Array, ""]) -> tuple[Sequences, Array, Array]:
        k_batch, k_noise, k_mix = jax.random.split(key, 3)
        real = generative.drawn(kind, data, k_batch, numbers.size, size.batch)
        noise = jax.random.normal(k_noise, (kind.steps, size.batch, size.noise))
        return real, noise, jax.random.uniform(k_mix, (size.batch,))

    def criticise(at: Any, key: Key[Array, ""]) -> Any:
        critic, opt = at
        real, noise, mix = draw(key)
        fake = generate(kind, size, gan.generator, noise, real.ys, real.live)

        def loss(critic: Player) -> Any:
            watch = watching(second, *shape)
            return critic_loss(kind, size, critic, real, fake, mix, numbers.penalty, watch)

        grads, found = jax.grad(loss, has_aux=True)(critic)
        return adam(grads, opt, critic), (found, real.live)

    keys = jax.random.split(key, size.critic + 1)
    (critic, critic_opt), seen = jax.lax.scan(criticise, (gan.critic, opt.critic), keys[1:])
    found, live = jax.tree.map(lambda leaf: leaf[0], seen)
    real, noise, _ = draw(keys[0])

    def loss(generator: Player, watches: tuple[Watch, Watch]) -> Array:
        fake = generate(kind, size, generator, noise, real.ys, real.live, watches[0])
        return -jnp.sum(score(kind, size, critic, real._replace(xs=fake), watches[1]))

    watches = (watching(first, *shape), watching(second, *shape))
    grads, (reading, _) = jax.grad(loss, argnums=(0, 1))(gan.generator, watches)
    generator, generator_opt = adam(jax.tree.map(lambda g: g / size.batch, grads), opt.generator, gan.generator)
    metrics = {"distance": found.distance, "penalty": jnp.mean(found.slope.penalty)}
    for name, watched, on in (("critic", found.slope.reading, live), ("generator", reading, real.live)):
        norms = generative.through_time(watched, on)
        metrics |= {f"{name}_{which}": value for which, value in norms.items()}
    return (GAN(generator, critic), GAN(generator_opt, critic_opt)), metrics


@cache
def program(kind: Kind, size: Size) -> Program:
    """Compiled once for all numbers."""
    return generative.program(partial(state, kind, size), partial(update, kind, size))


def job(kind: Kind, size: Size, numbers: Numbers, train: Examples, updates: int, chunk: int) -> tuple[Job, Scale]:
    """To be trained on the first `numbers.size` of the examples."""
    scale = generative.scaling(kind, train, int(numbers.size))
    data = generative.scaled(kind, train, scale)
    return Job(program(kind, size), numbers.arrays(), data, ["gan", kind, size], updates, chunk), scale


@cache
def _sample(kind: Kind, size: Size) -> Any:
    def sample(generator: Player, ys: Array, lengths: Array, key: Key[Array, ""]) -> Array:
        noise = jax.random.normal(key, (kind.steps, *ys.shape, size.noise))
        live = live_steps(lengths, kind.steps, kind.pad)
        return jnp.moveaxis(generate(kind, size, generator, noise, ys, live), 0, 1)

    return backend.compiled(sample)


def synthesise(
    kind: Kind, size: Size, trained: Trained, scale: Scale, examples: Examples, n: int, seed: int
) -> Examples:
    """n sequences of balanced classes drawn from the generator, each with a length that its class has in `examples`."""
    ys, lengths = generative.wanted(kind, examples, n, seed)
    xs = _sample(kind, size)(trained.state[0].generator, ys, lengths, jax.random.key(seed))
    return generative.unscaled(kind, scale, np.asarray(xs), lengths, ys)
