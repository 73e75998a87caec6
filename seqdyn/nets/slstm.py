"""The sLSTM of xLSTM: exponential gates and a normaliser. Beck et al. 2024, arXiv 2405.04517."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.backend import optimization_barrier, side_by_side
from seqdyn.nets.cells import Cell, Memory, Partials, _affine, split
from seqdyn.nets.inits import GlorotUniform, Orthogonal
from seqdyn.parts import Number, number, part
from seqdyn.types import Array, ConfigError, Float, Key, whole

GATES = ("i", "f", "o", "z")


class SLSTMWeights(NamedTuple):
    """What it learns."""

    w: Float[Array, "d k"]
    u: Float[Array, "heads s j"]
    """A block of its own for each head, s units wide, j = 4s"""
    b: Float[Array, " k"]


@part
class SLSTM:
    """A memory c with a normaliser n. Beck et al. 2024, eqs. 8–17; ĩ, f̃, õ, z̃ are W x_t + U h_{t−1} + b, a block each.

    i = exp(ĩ)    f = σ(f̃) or exp(f̃)    o = σ(õ)    z = tanh(z̃)
    c_t = f ⊙ c_{t−1} + i ⊙ z    n_t = f ⊙ n_{t−1} + i    h_t = o ⊙ c_t / n_t

    What is carried is e^{−m_t} times c and n, with m_t = max(log f + m_{t−1}, ĩ), so that no exponential overflows; h
    is the same whatever m is, which has no gradient therefore. x [*b, d], h [*b, hidden]; `Memory.c` is [c, n, m], so
    ‖∂L/∂c_t‖ is of c and n in units of e^{m_t}.

    `heads` blocks of hidden / heads units, between which U is 0. W is Glorot's, each block of U orthogonal, b_f is
    `forget_bias`, the other biases 0, as in the library's LSTM. (The paper's code spreads b_f over the units.)
    """

    hidden: int
    heads: int = 1
    """A divisor of hidden"""
    forget: Literal["sigmoid", "exp"] = "sigmoid"
    """What f is of f̃"""
    forget_bias: Number = number(1.0)
    """b_f"""

    def check(self) -> None:
        """Raises ConfigError for a width that is none, or heads that do not divide it."""
        whole("SLSTM.hidden", self.hidden)
        whole("SLSTM.heads", self.heads)
        if self.hidden % self.heads:
            raise ConfigError(f"SLSTM.heads is {self.heads}; it must divide hidden, {self.hidden}.")

    def build(self, inputs: int) -> Cell:
        """A cell of the pointwise step, which JAX differentiates."""
        width = self.hidden // self.heads

        def init(key: Key[Array, ""]) -> SLSTMWeights:
            kind = jnp.result_type(float)
            k_w, k_u = jax.random.split(key)
            w = [GlorotUniform()(k, (inputs, self.hidden), kind) for k in jax.random.split(k_w, 4)]
            u = [Orthogonal()(k, (width, width), kind) for k in jax.random.split(k_u, 4 * self.heads)]
            blocks = [jnp.concatenate(u[4 * k : 4 * k + 4], axis=1) for k in range(self.heads)]
            biases = [jnp.full((self.hidden,), self.forget_bias if g == "f" else 0.0, kind) for g in GATES]
            return SLSTMWeights(jnp.concatenate(w, axis=1), jnp.stack(blocks), jnp.concatenate(biases))

        def recurrent_projection(params: SLSTMWeights, h: Float[Array, "*b h"]) -> Array:
            if self.heads == 1:
                return h @ params.u[0]
            z = jnp.einsum("...nw,nwk->...nk", h.reshape(*h.shape[:-1], self.heads, width), params.u)
            z = jnp.swapaxes(z.reshape(*h.shape[:-1], self.heads, 4, width), -2, -3)
            return z.reshape(*h.shape[:-1], 4 * self.hidden)

        def nonlinearity(params: Any, carry: Memory, zx: Array, zh: Array) -> tuple[Memory, Partials]:
            i, f, o, z = split(zx + zh, 4)
            c, n, m = split(carry.c, 3)
            log_f = optimization_barrier(jax.nn.log_sigmoid(f) if self.forget == "sigmoid" else f)
            # Where nothing has been stored (n = 0), m_{t−1} is of nothing.
            kept = optimization_barrier(log_f + jax.lax.stop_gradient(m))
            m = jax.lax.stop_gradient(jnp.where(n == 0, i, jnp.maximum(kept, i)))
            taken = optimization_barrier(jnp.exp(i - m))
            keep = optimization_barrier(jnp.exp(jnp.where(n == 0, -jnp.ones_like(kept), kept - m)))
            c, n = optimization_barrier((keep * c + taken * jnp.tanh(z), keep * n + taken))
            return Memory(side_by_side(c, n, m), jax.nn.sigmoid(o) * c / n), ()

        def initial_carry(batch: tuple[int, ...]) -> Memory:
            return Memory(jnp.zeros((*batch, 3 * self.hidden)), jnp.zeros((*batch, self.hidden)))

        return Cell(
            gates=GATES,
            init=init,
            initial_carry=initial_carry,
            input_projection=_affine,
            recurrent_projection=recurrent_projection,
            nonlinearity=nonlinearity,
        )
