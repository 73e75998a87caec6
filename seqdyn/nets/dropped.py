"""Dropout inside the recurrence, as cells that read their masks beside their inputs: [x_t, m_t, …], one row a step.

    recurrent    U (m_t ⊙ h_{t−1}): h is dropped where it enters the product, with one mask for all gates, new at each
                 step or the same at all                                        Gal & Ghahramani 2016, §4
    candidate    LSTM: c_t = f ⊙ c_{t−1} + i ⊙ (m_t ⊙ g)    GRU: h_t = (1 − z) ⊙ (m_t ⊙ n) + z ⊙ h_{t−1}
                 what is dropped is not written; what is remembered stays       Semeniuta, Severyn & Barth 2016, §3
    zoneout      c_t = m ⊙ new c + (1 − m) ⊙ c_{t−1} and h_t alike, with masks of their own: a unit keeps its old value
                 where m is 0; the new h is read from the new c                 Krueger et al. 2017, §3

In training m comes from the inputs, so that a step stays a function of (params, carry, x) and its gradient is written
down as every cell's is; masks receive none. Zoneout's evaluation takes the expectation of every step, 1 − rate for m,
which is not the network without it: `expected`. A GRU that resets before the product reads r ⊙ m_t ⊙ h_{t−1} in U_n; it
has no `vjp`, dropped or not, and JAX differentiates its nonlinearity.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.backend import optimization_barrier
from seqdyn.nets.cells import Carry, Cell, Hidden, Memory, Partials, split
from seqdyn.types import Array, Float


class Masked(NamedTuple):
    """The input's part of a step, and the masks that act in it."""

    zx: Float[Array, "*b k"]
    masks: tuple[Float[Array, "*b h"], ...]


def recurrent(cell: Cell) -> Cell:
    """`cell` with h_{t−1} times m_t where it enters U; x is [x, m_t]. What a GRU keeps of h by its gate is whole."""
    made = _reading(cell, 1)._replace(dropout_mask=lambda zx: zx.masks[0])
    if cell.vjp is not None:
        return made
    return made._replace(
        nonlinearity=lambda params, carry, zx, zh: _reset_before(params, carry, zx.zx, zh, enters=carry.h * zx.masks[0])
    )


def candidate(cell: Cell) -> Cell:
    """`cell`, an LSTM or a GRU, with its candidate (g or n) times m_t; x is [x, m_t]."""
    if cell.vjp is None:
        return _reading(cell, 1)._replace(
            nonlinearity=lambda params, carry, zx, zh: _reset_before(params, carry, zx.zx, zh, written=zx.masks[0])
        )
    nonlinearity = {4: _lstm, 3: _gru}[len(cell.gates)]
    return _reading(cell, 1)._replace(
        nonlinearity=lambda params, carry, zx, zh: nonlinearity(params, carry, zx.zx, zh, zx.masks[0])
    )


def zoneout(cell: Cell) -> Cell:
    """`cell` whose units keep their old values where m_t is 0 (and take the new where it is 1); x is [x, m_t] of an rnn
    or a GRU, [x, m_t of c, m_t of h] of an LSTM."""
    return _zoned(_reading(cell, 2 if len(cell.gates) == 4 else 1), lambda carry, zx: zx.masks)


def expected(cell: Cell, rate: Any) -> Cell:
    """Zoneout's step in expectation: (1 − rate) of the new value and rate of the old. Krueger et al. 2017, §3."""
    return _zoned(cell, lambda carry, zx: tuple(jnp.full_like(leaf, 1 - rate) for leaf in carry))


def _zoned(cell: Cell, shares: Callable[[Carry, Any], tuple[Array, ...]]) -> Cell:
    """`cell` with m ⊙ new + (1 − m) ⊙ old for each part of its carry, m = shares(carry, zx)."""
    plain_nonlinearity, plain_vjp = cell.nonlinearity, cell.vjp
    gru = len(cell.gates) == 3

    def nonlinearity(params: Any, carry: Carry, zx: Any, zh: Array) -> tuple[Carry, Partials]:
        new, partials = plain_nonlinearity(params, carry, zx, zh)
        m = shares(carry, zx)
        kept = type(new)(*map(_blend, m, optimization_barrier(new), carry))
        if plain_vjp is None:
            return kept, ()
        if not gru:
            return kept, (*partials, *m)
        # A GRU's old h comes in by z: what is kept is more of the same, and the vjp is the GRU's.
        (share,), (z, h_n, h_z, *others) = m, partials
        nothing = jnp.zeros_like(z)
        scaled = _blend(share, z, nothing + 1), _blend(share, h_n, nothing), _blend(share, h_z, nothing)
        return kept, (*scaled, *others)

    def vjp(adjoint: Carry, partials: Partials) -> tuple[Carry, Any, Any]:
        assert plain_vjp is not None
        parts = len(adjoint)
        m, nothing = partials[-parts:], jax.tree.map(jnp.zeros_like, adjoint)
        new, old = type(adjoint)(*map(_blend, m, adjoint, nothing)), type(adjoint)(*map(_blend, m, nothing, adjoint))
        earlier, dzx, dzh = plain_vjp(optimization_barrier(new), partials[:-parts])
        return jax.tree.map(jnp.add, earlier, old), dzx, dzh

    return cell._replace(nonlinearity=nonlinearity, vjp=plain_vjp if gru or plain_vjp is None else vjp)


def _blend(m: Array, new: Array, old: Array) -> Array:
    """m ⊙ new + (1 − m) ⊙ old, to the last bit `new` where m is 1: a product might be rounded with what comes after."""
    return jnp.where(m == 1, new, m * new + (1 - m) * old)


# --- masks among the inputs ---------------------------------------------------------------------------------


def _reading(cell: Cell, parts: int) -> Cell:
    """`cell` whose inputs end in `parts` masks of its width, which its step does not heed yet."""
    plain_vjp, plain_transposed, plain_weight_gradients = cell.vjp, cell.transposed, cell.weight_gradients

    def input_projection(params: Any, x: Array) -> Masked:
        d = params.w.shape[0]
        return Masked(cell.input_projection(params, x[..., :d]), tuple(split(x[..., d:], parts)))

    def nonlinearity(params: Any, carry: Carry, zx: Masked, zh: Array) -> tuple[Carry, Partials]:
        return cell.nonlinearity(params, carry, zx.zx, zh)

    if (
        plain_vjp is None or plain_transposed is None or plain_weight_gradients is None
    ):  # JAX's transpose would reach the masks
        stopped = jax.lax.stop_gradient
        return cell._replace(
            input_projection=lambda params, x: (d := input_projection(params, x))._replace(masks=stopped(d.masks)),
            nonlinearity=nonlinearity,
        )

    def vjp(adjoint: Carry, partials: Partials) -> tuple[Carry, Masked, Any]:
        earlier, dzx, dzh = plain_vjp(adjoint, partials)
        return earlier, Masked(dzx, (jnp.zeros_like(adjoint.h),) * parts), dzh  # masks are constants

    def transposed(params: Any) -> Any:
        product = plain_transposed(params)
        return lambda dz: product(dz.zx if isinstance(dz, Masked) else dz)

    def weight_gradients(
        params: Any, xs: Array, before: Array, dzx: Masked, dzh: Any, power: Array | None = None
    ) -> Any:
        return plain_weight_gradients(params, xs[..., : params.w.shape[0]], before, dzx.zx, dzh, power)

    return cell._replace(
        input_projection=input_projection,
        nonlinearity=nonlinearity,
        vjp=vjp,
        transposed=transposed,
        weight_gradients=weight_gradients,
    )


# --- the candidate's gates ----------------------------------------------------------------------------------
# Those of `cells` with m ⊙ g for g, m ⊙ n for n; their vjps are the same.


def _lstm(params: Any, carry: Memory, zx: Array, zh: Array, m: Array) -> tuple[Memory, Partials]:
    z = zx + zh
    h3 = 3 * carry.h.shape[-1]
    i, f, o = split(optimization_barrier(jax.nn.sigmoid(z[..., :h3])), 3)
    g = optimization_barrier(jnp.tanh(z[..., h3:]))
    written = optimization_barrier(m * g)
    c = optimization_barrier(f * carry.c + i * written)
    s = optimization_barrier(jnp.tanh(c))
    partials = (
        o * (1 - s * s),
        f,
        written * i * (1 - i),
        carry.c * f * (1 - f),
        s * o * (1 - o),
        m * (i * (1 - g * g)),
    )
    return Memory(c, o * s), optimization_barrier(partials)


def _gru(params: Any, carry: Hidden, zx: Array, zh: Array, m: Array) -> tuple[Hidden, Partials]:
    h2 = 2 * carry.h.shape[-1]
    r, z = split(optimization_barrier(jax.nn.sigmoid(zx[..., :h2] + zh[..., :h2])), 2)
    un = zh[..., h2:] + jax.lax.broadcast_in_dim(params.bn, zh[..., h2:].shape, (zh.ndim - 1,))
    n = optimization_barrier(jnp.tanh(zx[..., h2:] + r * un))
    written = optimization_barrier(m * n)
    partials = (z, m * ((1 - z) * (1 - n * n)), (carry.h - written) * z * (1 - z), un * r * (1 - r), r)
    return Hidden((1 - z) * written + z * carry.h), optimization_barrier(partials)


def _reset_before(
    params: Any, carry: Hidden, zx: Array, zh: Array, enters: Array | None = None, written: Array | None = None
) -> tuple[Hidden, Partials]:
    """`enters` is what U_n reads of h before the reset, `written` multiplies n."""
    h2 = 2 * carry.h.shape[-1]
    r, z = split(optimization_barrier(jax.nn.sigmoid(zx[..., :h2] + zh)), 2)
    n = jnp.tanh(zx[..., h2:] + (r * (carry.h if enters is None else enters)) @ params.u[:, h2:])
    n = optimization_barrier(n if written is None else written * n)
    return Hidden((1 - z) * n + z * carry.h), ()
