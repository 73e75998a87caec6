"""The independently recurrent network: each unit sees itself alone. Li, Li, Cook, Zhu & Gao 2018, arXiv 1803.04831."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.backend import optimization_barrier
from seqdyn.nets.activations import ACTIVATIONS, Activation
from seqdyn.nets.cells import Cell, Hidden, Partials, _affine
from seqdyn.nets.inits import GlorotUniform
from seqdyn.nets.ranges import check_range
from seqdyn.parts import Number, number, part
from seqdyn.types import Array, Float, Key, whole


class IndWeights(NamedTuple):
    """What it learns."""

    w: Float[Array, "d h"]
    u: Float[Array, " h"]
    b: Float[Array, " h"]


@part
class IndRNN:
    """h_t = φ(W x_t + u ⊙ h_{t−1} + b), φ = ReLU unless said. Li et al. 2018, eq. 2.

    x [*b, d], h [*b, hidden]. The adjoint of a unit that is on is multiplied by its u at each step, so that |u| between
    ε^(1/T) and γ^(1/T) keeps it between ε and γ over T steps (§3.1). W is Glorot's, b 0, u ~ U(low, high).

    What acts is u within ±bound, as the paper keeps it; the gradient goes to u as if it were not bounded, so that a
    weight that has passed the bound finds its way back.
    """

    hidden: int
    activation: Activation = "relu"
    """φ"""
    low: Number = number(0.0)
    """Smallest u drawn"""
    high: Number = number(1.0)
    """Largest u drawn"""
    bound: Number = number(float("inf"), above=0.0, infinite=True)
    """Largest |u| that acts; the paper's is 2^(1/T)"""

    def check(self) -> None:
        """Raises ConfigError for a width that is none or an empty range."""
        whole("IndRNN.hidden", self.hidden)
        check_range(self, "low", "high")

    def build(self, inputs: int) -> Cell:
        """An rnn whose U is diagonal."""
        phi = ACTIVATIONS[self.activation]

        def init(key: Key[Array, ""]) -> IndWeights:
            k_w, k_u = jax.random.split(key)
            kind = jnp.result_type(float)
            low, high = jnp.asarray(self.low, kind), jnp.asarray(self.high, kind)
            u = low + (high - low) * jax.random.uniform(k_u, (self.hidden,), kind)
            return IndWeights(GlorotUniform()(k_w, (inputs, self.hidden), kind), u, jnp.zeros((self.hidden,), kind))

        def recurrent_projection(params: IndWeights, h: Float[Array, "*b h"]) -> Array:
            bound = jnp.asarray(self.bound, params.u.dtype)
            acting = params.u + jax.lax.stop_gradient(jnp.clip(params.u, -bound, bound) - params.u)
            return h * jnp.broadcast_to(acting, h.shape)

        def nonlinearity(params: IndWeights, carry: Hidden, zx: Array, zh: Array) -> tuple[Hidden, Partials]:
            h, slope = optimization_barrier(phi(zx + zh))
            return Hidden(h), (slope,)

        def vjp(adjoint: Hidden, partials: Partials) -> tuple[Hidden, Array, None]:
            (slope,) = partials
            return Hidden(jnp.zeros_like(adjoint.h)), adjoint.h * slope, None

        return Cell(
            gates=("h",),
            init=init,
            initial_carry=lambda batch: Hidden(jnp.zeros((*batch, self.hidden))),
            input_projection=_affine,
            recurrent_projection=recurrent_projection,
            nonlinearity=nonlinearity,
            vjp=vjp,
        )
