"""A generative adversarial network of sequences, given their class: a recurrent generator that turns noise at every
step into a sequence, and a recurrent critic that tells it from a real one. Esteban, Hyland & Rätsch 2017, figure 1b.

    critic       E D(x̃) − E D(x) + λ E (‖∇_x̂ D(x̂)‖ − 1)²,  x̂ = ε x + (1 − ε) x̃,  ε ~ U(0, 1)
    generator    −E D(x̃)                                       Gulrajani et al. 2017, eq. 3, algorithm 1

D(x) is the mean over valid steps of a linear readout of the critic's states. The third term is a norm of what the
hand-written backward pass returns, differentiated once more, through that pass.

The loss is the critic's. On its way back to the generator the gradient turns round (`against`; Ganin & Lempitsky 2015),
so that one gradient is that of both players, each of its own loss, and one optimiser moves both: `Players`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import seqdyn as sd
from experiments import _generative as generative
from experiments._generative import affine, beside, dense, label, mask_in
from seqdyn.data.batches import Batch
from seqdyn.learn.model import Dense
from seqdyn.nets.cells import Cell, gru
from seqdyn.norms import norm
from seqdyn.types import Array, Bool, Float, Int, Key


@sd.part
class Players:
    """Adam for each of the two (b₁ = 0, b₂ = 0.9: Gulrajani et al. 2017, algorithm 1). The generator moves once in
    `critic` updates, by the mean of its gradients since it last did."""

    lr: sd.Number = sd.number(2e-3, above=0.0)
    critic: int = 3
    """Updates of the critic for each of the generator."""

    def build(self) -> optax.GradientTransformation:
        """Of parameters with the branches 'critic' and 'generator'."""
        adam = optax.adam(self.lr, b1=0.0, b2=0.9)
        rarer = optax.MultiSteps(adam, self.critic).gradient_transformation()
        return optax.multi_transform(
            {"critic": adam, "generator": rarer}, {"critic": "critic", "generator": "generator"}
        )


class Player(NamedTuple):
    """A recurrent layer and what reads it."""

    cell: Any
    readout: Dense


class Slope(NamedTuple):
    """∇_x D of each example."""

    penalty: Float[Array, " b"]
    """(‖∇_x D‖ − 1)²"""
    by_step: Float[Array, "t b"]
    """Its norm at each step."""


def against(x: Array) -> Array:
    """x, through which a gradient comes back with a minus."""
    return 2 * jax.lax.stop_gradient(x) - x


@sd.part
class GAN:
    """λ penalty − distance, the critic's loss."""

    features: int
    classes: int
    trials: int = 0
    """As `Kind.trials`."""
    hidden: int = 48
    noise: int = 8
    """Random numbers that the generator is given at each step."""
    penalty: sd.Number = sd.number(10.0, low=0.0)
    """λ"""

    variables = {
        "distance": sd.Variable((), "E D(x) − E D(x̃), Wasserstein's distance as far as D is 1-Lipschitz"),
        "gradient_penalty": sd.Variable((), "E (‖∇_x̂ D(x̂)‖ − 1)²"),
    }

    def cells(self, dtype: Any = jnp.float32) -> tuple[Cell, Cell]:
        """(generator, critic)"""
        inputs = self.noise + self.classes, self.features + self.classes
        return gru(inputs[0], self.hidden, dtype=dtype), gru(inputs[1], self.hidden, dtype=dtype)

    def init(self, key: Key[Array, ""]) -> dict[str, Player]:
        """Glorot and orthogonal weights."""
        k = jax.random.split(key, 4)
        generator, critic = self.cells()
        return {
            "generator": Player(generator.init(k[0]), dense(k[1], self.hidden, self.features)),
            "critic": Player(critic.init(k[2]), dense(k[3], self.hidden, 1)),
        }

    def loss(self, params: Any, batch: Batch, key: Any) -> tuple[Array, dict[str, Array]]:
        """Its gradient is that of the critic's loss with respect to the critic, and of −E D(x̃), the generator's, with
        respect to the generator. A batch that is judged has always the same noise."""
        k_noise, k_mix = jax.random.split(jax.random.key(0) if key is None else key)
        dtype, mask = batch.xs.dtype, mask_in(batch)
        noise = jax.random.normal(k_noise, (*mask.shape, self.noise), dtype)
        fake = self.generate(params["generator"], noise, batch.ys, mask, "generator")
        mix = jax.random.uniform(k_mix, batch.ys.shape, dtype)
        return self.critic_loss(params["critic"], batch, against(fake), mix)

    def critic_loss(
        self, critic: Player, batch: Batch, fake: Float[Array, "t b d"], mix: Float[Array, " b"]
    ) -> tuple[Array, dict[str, Array]]:
        """With ε = `mix`; what the penalty is of is no concern of the generator's."""
        theirs = self.score(critic, batch._replace(xs=fake), "critic")
        distance = batch.mean(self.score(critic, batch)) - batch.mean(theirs)
        mix = jnp.broadcast_to(mix[None, :, None], fake.shape)
        between = mix * batch.xs + (1 - mix) * jax.lax.stop_gradient(fake)
        penalty = batch.mean(self.slope(critic, batch._replace(xs=between)).penalty)
        return self.penalty * penalty - distance, {"distance": distance, "gradient_penalty": penalty}

    # --- the two networks ---

    def generate(
        self,
        generator: Player,
        noise: Float[Array, "t b z"],
        ys: Int[Array, " b"],
        mask: Bool[Array, "t b"],
        name: str | None = None,
    ) -> Float[Array, "t b d"]:
        """x̃, in [0, 1] if it is a share; 0 on padding."""
        given = beside(len(noise), noise, label(ys, self.classes, noise.dtype))
        xs = affine(
            generator.readout, generative.outputs(self.cells(noise.dtype)[0], generator.cell, given, mask, name)
        )
        xs = jax.nn.sigmoid(xs) if self.trials else xs
        return xs * jnp.broadcast_to(mask[..., None], xs.shape).astype(xs.dtype)

    def score(self, critic: Player, batch: Batch, name: str | None = None) -> Float[Array, " b"]:
        """D(x) of each sequence."""
        dtype = batch.xs.dtype
        xs = beside(len(batch.xs), batch.xs, label(batch.ys, self.classes, dtype))
        hs = generative.outputs(self.cells(dtype)[1], critic.cell, xs, mask_in(batch), name)
        mask = mask_in(batch).astype(dtype)
        return jnp.sum(mask * affine(critic.readout, hs)[..., 0], axis=0) / jnp.sum(mask, axis=0)

    def slope(self, critic: Player, batch: Batch) -> Slope:
        """At these sequences: the gradient penalty and what it is made of."""
        gradient = jax.grad(lambda xs: jnp.sum(self.score(critic, batch._replace(xs=xs))))(batch.xs)
        whole = norm(jnp.moveaxis(gradient, 1, 0).reshape(len(batch.ys), -1))
        return Slope(jnp.square(whole - 1), jax.lax.stop_gradient(norm(gradient)))

    def sample(
        self, params: Any, key: Key[Array, ""], ys: Int[Array, " b"], mask: Bool[Array, "t b"]
    ) -> Float[Array, "t b d"]:
        """From noise."""
        return self.generate(params["generator"], jax.random.normal(key, (*mask.shape, self.noise)), ys, mask)
