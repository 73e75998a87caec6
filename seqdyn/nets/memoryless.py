"""The two ways to read a sequence without a memory: a dense layer of its own at each position, and one for all.

They are `Cell`s whose step ignores the carry, so that they train and are measured by the loop that trains recurrent
networks: every h_t receives its gradient straight from the readout, and none travels from step to step.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.backend import optimization_barrier
from seqdyn.nets.activations import ACTIVATIONS
from seqdyn.nets.cells import Cell, Hidden, Partials, _affine, _outer
from seqdyn.nets.inits import GlorotUniform, constant
from seqdyn.types import Array, Float, Initializer, Key


class Shared(NamedTuple):
    """What `dense` learns."""

    w: Float[Array, "d h"]
    b: Float[Array, " h"]


class PerPosition(NamedTuple):
    """What `dense_per_position` learns."""

    w: Float[Array, "t d h"]
    b: Float[Array, "t h"]


def dense(
    inputs: int,
    hidden: int,
    activation: str = "tanh",
    *,
    w: Initializer = GlorotUniform(),
    b: Initializer = constant(0.0),
    dtype: Any = jnp.float32,
) -> Cell:
    """h_t = φ(W x_t + b), the same W and b at every step.

    Pooled over the steps it is blind to order: a permutation of the steps changes the order of a sum.
    """

    def init(key: Key[Array, ""]) -> Shared:
        k_w, k_b = jax.random.split(key)
        return Shared(w(k_w, (inputs, hidden), dtype), b(k_b, (hidden,), dtype))

    def weight_gradients(
        params: Shared, xs: Array, before: Array, dzx: Array, dzh: Array | None = None, power: Array | None = None
    ) -> Shared:
        g = _outer([xs], dzx, power)
        return Shared(g[:-1], g[-1])

    return _cell(hidden, activation, init, _affine, weight_gradients, dtype)


def dense_per_position(
    steps: int,
    inputs: int,
    hidden: int,
    activation: str = "tanh",
    *,
    w: Initializer = GlorotUniform(),
    b: Initializer = constant(0.0),
    dtype: Any = jnp.float32,
) -> Cell:
    """h_t = φ(W_t x_t + b_t), with weights for each of `steps` positions: (d + 1) h T numbers, and no sequence may be
    longer than T."""

    def init(key: Key[Array, ""]) -> PerPosition:
        def one(key: Key[Array, ""]) -> PerPosition:
            k_w, k_b = jax.random.split(key)
            return PerPosition(w(k_w, (inputs, hidden), dtype), b(k_b, (hidden,), dtype))

        return jax.vmap(one)(jax.random.split(key, steps))

    def input_projection(params: PerPosition, xs: Array) -> Array:
        z = jnp.einsum("t...d,tdh->t...h", xs, params.w)
        return z + jnp.broadcast_to(params.b.reshape(steps, *(1,) * (z.ndim - 2), hidden), z.shape)

    def weight_gradients(
        params: PerPosition, xs: Array, before: Array, dzx: Array, dzh: Array | None = None, power: Array | None = None
    ) -> PerPosition:
        if power is not None:
            dzx = dzx * jnp.broadcast_to(power[..., None], dzx.shape)
        x, dz = (leaf.reshape(steps, -1, leaf.shape[-1]) for leaf in (xs, dzx))
        return PerPosition(jnp.einsum("tbd,tbh->tdh", x, dz), jnp.sum(dz, axis=1))

    return _cell(hidden, activation, init, input_projection, weight_gradients, dtype)


def _cell(hidden: int, activation: str, init: Any, input_projection: Any, weight_gradients: Any, dtype: Any) -> Cell:
    phi = ACTIVATIONS[activation]

    def nonlinearity(params: Any, carry: Hidden, zx: Array, zh: None) -> tuple[Hidden, Partials]:
        h, slope = optimization_barrier(phi(zx))
        return Hidden(h), (slope,)

    def vjp(adjoint: Hidden, partials: Partials) -> tuple[Hidden, Array, None]:
        return Hidden(jnp.zeros_like(adjoint.h)), adjoint.h * partials[0], None

    return Cell(
        gates=(),
        init=init,
        initial_carry=lambda batch: Hidden(jnp.zeros((*batch, hidden), dtype)),
        input_projection=input_projection,
        recurrent_projection=lambda params, h: None,
        nonlinearity=nonlinearity,
        vjp=vjp,
        transposed=lambda params: jnp.zeros_like,
        weight_gradients=weight_gradients,
        memory=False,
    )
