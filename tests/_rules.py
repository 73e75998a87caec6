"""A user's clips, schedules and losses."""

import jax
import jax.numpy as jnp
import optax

import seqdyn as sd


@sd.part
class PerTensor:
    """g · min(1, bound ‖w‖ / ‖g‖) of each tensor, ‖w‖ at least 0.1: it sees the parameters."""

    bound: sd.Number = sd.number(0.01, above=0.0)

    def build(self) -> optax.GradientTransformation:
        def update(grads, state, params=None):
            def clipped(g, w):
                most = self.bound * jnp.maximum(jnp.linalg.norm(w), 0.1)
                return g * jnp.minimum(1.0, most / jnp.maximum(jnp.linalg.norm(g), 1e-30))

            return jax.tree.map(clipped, grads, params), state

        return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


@sd.part
class Whole:
    """The global norm, as optax has it."""

    bound: sd.Number = sd.number(1.0, above=0.0)

    def build(self) -> optax.GradientTransformation:
        return optax.clip_by_global_norm(self.bound)


@sd.part
class Gently:
    """An optax schedule as it is."""

    steps: int = 6
    peak: float = 1.0

    def build(self):
        return optax.warmup_cosine_decay_schedule(0.0, self.peak, 2, self.steps)


@sd.part
class Shaken:
    """A rule of one's own: it moves by noise alone, and reports its size as the rate."""

    def build(self) -> sd.Rule:
        def update(updates, memory, params, at):
            size = jax.random.uniform(at.key())
            return jax.tree.map(lambda g: size * jnp.ones_like(g), updates), memory, {"learning_rate": size}

        return sd.Rule(lambda params: (), update)


@sd.part
class Halves:
    """A rule of one's own: plain descent that halves its rate at each update, and says so."""

    lr: sd.Number = sd.number(0.1, above=0.0)

    def build(self) -> sd.Rule:
        def update(updates, rate, params, at):
            moves = jax.tree.map(lambda g: -rate * g, updates)
            return moves, rate / 2, {"learning_rate": rate}

        return sd.Rule(lambda params: jnp.asarray(self.lr, jnp.float32), update)


@sd.part
class Huber:
    """½ e² up to δ, δ (|e| − δ / 2) beyond."""

    delta: sd.Number = sd.number(1.0, above=0.0)

    def build(self):
        return lambda p, y: jnp.sum(optax.huber_loss(p, jnp.reshape(y, p.shape), delta=self.delta), axis=-1)


@sd.part
class Near(Huber):
    """It is right if it is nearer than δ, and many samples are their median."""

    def correct(self, p, y):
        return abs(p[..., 0] - y) < self.delta

    def mean(self, samples):
        return jnp.median(samples, axis=0)


@sd.part
class Weighted:
    """Parity's bits, whose last step counts, and of every example twice what the one before counts."""

    every: bool = False
    sign: float = 1.0

    def build(self) -> sd.Task:
        def draw(key, batch):
            xs = jax.random.normal(key, (6, batch, 1))
            weight = self.sign * 2.0 ** jnp.arange(batch)
            if self.every:
                return xs, xs[..., 0], jnp.zeros((6, batch)).at[-1].set(weight)
            return xs, xs[-1, :, 0], weight

        return sd.task(draw, loss=lambda p, y: (p[..., 0] - y) ** 2, inputs=1, outputs=1)


@sd.part
class Polyak:
    """Polyak's step, (f − f*) / ‖g‖² along −g with f* = 0: it asks for the value of the objective."""

    def build(self):
        return optax.polyak_sgd(max_learning_rate=1e6)


@sd.part
class Falling:
    """Descent at a rate of the loss itself, where it is told, at 1 where it is not."""

    def build(self):
        def update(updates, state, params=None, *, value=None):
            rate = 1.0 if value is None else value
            return jax.tree.map(lambda g: -rate * g, updates), state

        return optax.GradientTransformationExtraArgs(optax.sgd(1.0).init, update)


@sd.part
class Searching:
    """Descent with a line search, which asks for the objective itself."""

    def build(self):
        return optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(20))


@sd.part
class Every:
    """Descent along the mean of `k` gradients, every k-th update."""

    k: int = 2

    def build(self):
        return optax.MultiSteps(optax.sgd(0.1), self.k)


def absolute(predictions, ys):
    """|p − y|"""
    return jnp.abs(predictions[..., 0] - ys)


def falling(step):
    """1 / (1 + updates done)"""
    return 1 / (1 + step)
