"""Recurrent cells, each split into what is linear and what is not, so that `bptt.unroll` can write backward down.

    zx_t = W x_t + b           `input_projection`, all steps in one product before the scan
    zh_t = U h_{t−1}           `recurrent_projection`, the only product inside the scan
    carry_t = nonlinearity(carry_{t−1}, zx_t, zh_t)      elementwise; hands out its partial derivatives
    (λ before it, ∂L/∂zx_t, ∂L/∂zh_t) = vjp(λ_t, partials)     its transpose
    λ_{t−1} += Uᵀ ∂L/∂zh_t     `transposed`

`nonlinearity` and `vjp` are the two halves of the equations of backpropagation through time as papers print them; the
law between them is that `vjp` equals `jax.vjp` of `nonlinearity`. The partials are those of the step Jacobian,
J_t = D_c + D_z U.

Arrays act from the right, `x @ w`, and a cell's gates lie side by side in the last axis, in the order of `gates`.
Every function takes any leading batch axes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.backend import optimization_barrier, side_by_side, split_at_widths
from seqdyn.nets.activations import ACTIVATIONS
from seqdyn.nets.inits import Gain, GlorotUniform, Inits, Orthogonal, blocks, chrono, constant
from seqdyn.types import Array, Float, Key

Carry = Any
"""What travels from step to step: `Hidden` or `Memory`."""
Partials = tuple[Array, ...]


class Hidden(NamedTuple):
    """The state of an rnn or a GRU."""

    h: Float[Array, "*b h"]


class Memory(NamedTuple):
    """The state of an LSTM: the cell c and the output h."""

    c: Float[Array, "*b h"]
    h: Float[Array, "*b h"]


class Weights(NamedTuple):
    """What an rnn or an LSTM learns."""

    w: Float[Array, "d k"]
    u: Float[Array, "h k"]
    b: Float[Array, " k"]


class GRUWeights(NamedTuple):
    """What a GRU learns; `bn` is the candidate's recurrent bias b_hn."""

    w: Float[Array, "d k"]
    u: Float[Array, "h k"]
    b: Float[Array, " k"]
    bn: Float[Array, " h"]


class Cell(NamedTuple):
    """Pure functions. A user's own cell may leave out `vjp` and `weight_gradients`: JAX then differentiates it."""

    gates: tuple[str, ...]
    """Names of the blocks of w, u and b, in order."""
    init: Callable[[Key[Array, ""]], Any]
    """key -> params"""
    initial_carry: Callable[[tuple[int, ...]], Carry]
    """batch shape -> the carry before the first step, zeros"""
    input_projection: Callable[[Any, Float[Array, "*b d"]], Any]
    """(params, x) -> zx"""
    recurrent_projection: Callable[[Any, Float[Array, "*b h"]], Any]
    """(params, h) -> zh"""
    nonlinearity: Callable[[Any, Carry, Any, Any], tuple[Carry, Partials]]
    """(params, carry, zx, zh) -> (carry, partials)"""
    vjp: Callable[[Carry, Partials], tuple[Carry, Any, Any]] | None = None
    """(adjoint, partials) -> (adjoint before, ∂L/∂zx, ∂L/∂zh); the last is None where it equals ∂L/∂zx"""
    transposed: Callable[[Any], Callable[[Any], Float[Array, "*b h"]]] | None = None
    """params -> (∂L/∂zh -> ∂L/∂h): Uᵀ, formed once before the scan; None: `jax.vjp` of `recurrent_projection`"""
    weight_gradients: Callable[[Any, Array, Array, Array, Array | None, Array | None], Any] | None = None
    """(params, xs, h before each step, dzx, dzh, power) -> ∂L/∂params, the steps' terms times power [t, *b] (None: 1);
    None: `jax.vjp` of `input_projection` and `recurrent_projection`"""
    units: Callable[[Any, Carry, Any, Any], dict[str, tuple[Array, Array]]] | None = None
    """(params, carry, zx, zh) -> gate name -> (v = φ(z), φ'(z)) of one step, to look at; training does not run it"""
    update_batch_stats: Callable[[Any], Any] | None = None
    """the `stack.Layer` as it ran on a batch -> its `statistics` moved by the batch; see `nets.statistics`"""
    memory: bool = True
    """Does a step depend on the carry? False: `recurrent_projection` gives None; there is no U, nothing comes back."""
    dropout_mask: Callable[[Any], Float[Array, "*b h"]] | None = None
    """zx -> what multiplies h_{t−1} where it enters `recurrent_projection`, a constant; None: nothing does"""


def step(cell: Cell, params: Any, carry: Carry, x: Float[Array, "*b d"]) -> Carry:
    """carry_t = cell(params, carry_{t−1}, x_t), one step as the paper writes it."""
    return advance(cell, params, cell.input_projection(params, x), carry)


def advance(cell: Cell, params: Any, zx: Any, carry: Carry) -> Carry:
    """`step` with the input's part, `cell.input_projection`, already done."""
    h = carry.h if cell.dropout_mask is None else carry.h * cell.dropout_mask(zx)
    return cell.nonlinearity(params, carry, zx, cell.recurrent_projection(params, h))[0]


# --- the parts that cells share -----------------------------------------------------------------------------


def _affine(params: Any, x: Array) -> Array:
    """W x + b with the bias inside the product: a second pass over [t, b, k] would cost as much as a gate."""
    ones = jnp.ones((*x.shape[:-1], 1), x.dtype)
    return jnp.concatenate([x, ones], axis=-1) @ jnp.concatenate([params.w, params.b[None]])


def _transposed(params: Any) -> Callable[[Array], Array]:
    ut = optimization_barrier(params.u.T)
    return lambda dz: dz @ ut


def _weight_gradients(
    params: Any, xs: Array, before: Array, dz: Array, dzh: Array | None = None, power: Array | None = None
) -> Weights:
    """[x, h₋, 1]ᵀ dz: the gradients of W, U and b in one product over all steps."""
    d, h = xs.shape[-1], before.shape[-1]
    g = _outer([xs, before], dz, power)
    return Weights(g[:d], g[d : d + h], g[d + h])


def _outer(parts: list[Array], dz: Array, power: Array | None) -> Array:
    """[parts, 1]ᵀ dz · power summed over every leading axis."""
    one = jnp.ones((*dz.shape[:-1], 1), dz.dtype)
    if power is not None:  # each part apart: of a product with all of them side by side XLA makes a slow loop
        parts, one = [part * jnp.broadcast_to(power[..., None], part.shape) for part in parts], power[..., None]
    x = jnp.concatenate([*parts, one], axis=-1)
    return x.reshape(-1, x.shape[-1]).T @ dz.reshape(-1, dz.shape[-1])


def split(z: Array, gates: int) -> list[Array]:
    """The blocks of z, one for each gate."""
    return split_at_widths(z, *[z.shape[-1] // gates] * gates)


_sigmoid, _tanh = ACTIVATIONS["sigmoid"], ACTIVATIONS["tanh"]


def _weights(gates: tuple[str, ...], d: int, h: int, w: Inits, u: Inits, b: Inits, dtype: Any) -> Any:
    def init(key: Key[Array, ""]) -> Weights:
        k_w, k_u, k_b = jax.random.split(key, 3)
        return Weights(
            w=blocks(k_w, gates, (d, h), w, dtype),
            u=blocks(k_u, gates, (h, h), u, dtype),
            b=blocks(k_b, gates, (h,), b, dtype),
        )

    return init


# --- simple recurrent network -------------------------------------------------------------------------------


def rnn(
    inputs: int,
    hidden: int,
    activation: str = "tanh",
    *,
    w: Inits = GlorotUniform(),
    u: Inits = Orthogonal(),
    b: Inits = constant(0.0),
    dtype: Any = jnp.float32,
) -> Cell:
    """h_t = φ(W x_t + U h_{t−1} + b). Elman 1990.

    Backward: ∂L/∂z_t = λ_t ⊙ φ'(z_t), and λ_{t−1} receives Uᵀ ∂L/∂z_t (Pascanu, Mikolov & Bengio 2013, eq. 5).
    """
    phi = ACTIVATIONS[activation]

    def nonlinearity(params: Weights, carry: Hidden, zx: Array, zh: Array) -> tuple[Hidden, Partials]:
        h, slope = optimization_barrier(phi(zx + zh))
        return Hidden(h), (slope,)

    def vjp(adjoint: Hidden, partials: Partials) -> tuple[Hidden, Array, None]:
        (slope,) = partials
        return Hidden(jnp.zeros_like(adjoint.h)), adjoint.h * slope, None

    return Cell(
        gates=("h",),
        init=_weights(("h",), inputs, hidden, w, u, b, dtype),
        initial_carry=lambda batch: Hidden(jnp.zeros((*batch, hidden), dtype)),
        input_projection=_affine,
        recurrent_projection=lambda params, h: h @ params.u,
        nonlinearity=nonlinearity,
        vjp=vjp,
        transposed=_transposed,
        weight_gradients=_weight_gradients,
        units=lambda params, carry, zx, zh: {"h": phi(zx + zh)},
    )


# --- long short-term memory ---------------------------------------------------------------------------------


def lstm(
    inputs: int,
    hidden: int,
    *,
    w: Inits = GlorotUniform(),
    u: Inits = Orthogonal(),
    b: Inits | None = None,
    longest: Gain | None = None,
    dtype: Any = jnp.float32,
) -> Cell:
    """Long short-term memory. Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.

    i = σ(W_i x + U_i h + b_i)    f = σ(W_f x + U_f h + b_f)    o = σ(W_o x + U_o h + b_o)
    g = tanh(W_g x + U_g h + b_g)
    c_t = f ⊙ c_{t−1} + i ⊙ g     h_t = o ⊙ tanh(c_t)

    Backward, with δ = λ^c + λ^h ⊙ o ⊙ (1 − tanh² c_t), the total derivative of c_t:
    dz_i = δ ⊙ g i(1 − i)   dz_f = δ ⊙ c_{t−1} f(1 − f)   dz_g = δ ⊙ i(1 − g²)   dz_o = λ^h ⊙ tanh(c_t) o(1 − o)
    λ^c_{t−1} = δ ⊙ f       λ^h_{t−1} receives Uᵀ dz.

    Without `b` the forget bias is 1 (Jozefowicz et al. 2015) and the others 0. `longest` is the T_max of a chrono
    initialisation, b_f = log U(1, T_max − 1) and b_i = −b_f (Tallec & Ollivier 2018), which replaces `b`.
    """
    gates = ("i", "f", "o", "g")
    bias = b if b is not None else {"f": constant(1.0), **{g: constant(0.0) for g in "iog"}}
    weights = _weights(gates, inputs, hidden, w, u, bias, dtype)

    def init(key: Key[Array, ""]) -> Weights:
        if longest is None:
            return weights(key)
        forget = chrono(longest)(jax.random.split(key, 4)[3], (hidden,), dtype)  # 0 to 2 are w, u and b
        return weights(key)._replace(b=jnp.concatenate([-forget, forget, jnp.zeros((2 * hidden,), dtype)]))

    def nonlinearity(params: Weights, carry: Memory, zx: Array, zh: Array) -> tuple[Memory, Partials]:
        z = zx + zh
        h3 = 3 * hidden
        i, f, o = split(optimization_barrier(jax.nn.sigmoid(z[..., :h3])), 3)
        g = optimization_barrier(jnp.tanh(z[..., h3:]))
        c = optimization_barrier(f * carry.c + i * g)
        s = optimization_barrier(jnp.tanh(c))
        partials = optimization_barrier(
            (
                o * (1 - s * s),  # ∂h/∂c
                f,  # ∂c/∂c₋
                g * i * (1 - i),  # ∂c/∂z_i
                carry.c * f * (1 - f),  # ∂c/∂z_f
                s * o * (1 - o),  # ∂h/∂z_o
                i * (1 - g * g),  # ∂c/∂z_g
            )
        )
        return Memory(c, o * s), partials

    def vjp(adjoint: Memory, partials: Partials) -> tuple[Memory, Array, None]:
        dh_dc, f, c_i, c_f, h_o, c_g = partials
        delta = optimization_barrier(adjoint.c + adjoint.h * dh_dc)
        dz = side_by_side(delta * c_i, delta * c_f, adjoint.h * h_o, delta * c_g)
        return Memory(delta * f, jnp.zeros_like(adjoint.h)), dz, None

    def units(params: Weights, carry: Memory, zx: Array, zh: Array) -> dict[str, tuple[Array, Array]]:
        i, f, o, g = split(zx + zh, 4)
        return {"i": _sigmoid(i), "f": _sigmoid(f), "o": _sigmoid(o), "g": _tanh(g)}

    return Cell(
        gates=gates,
        init=init,
        initial_carry=lambda batch: Memory(jnp.zeros((*batch, hidden), dtype), jnp.zeros((*batch, hidden), dtype)),
        input_projection=_affine,
        recurrent_projection=lambda params, h: h @ params.u,
        nonlinearity=nonlinearity,
        vjp=vjp,
        transposed=_transposed,
        weight_gradients=_weight_gradients,
        units=units,
    )


# --- gated recurrent unit -----------------------------------------------------------------------------------


def gru(
    inputs: int,
    hidden: int,
    *,
    w: Inits = GlorotUniform(),
    u: Inits = Orthogonal(),
    b: Inits = constant(0.0),
    dtype: Any = jnp.float32,
) -> Cell:
    """Gated recurrent unit with the reset after the product, as cuDNN, PyTorch and Flax have it.

    r = σ(W_r x + U_r h + b_r)    z = σ(W_z x + U_z h + b_z)
    n = tanh(W_n x + b_n + r ⊙ (U_n h + b_hn))
    h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}

    Here z multiplies the old state (Cho et al. 2014, eq. 7; Chung et al. 2014 swap the two). Backward:
    dz_n = λ ⊙ (1 − z)(1 − n²)    dz_r = dz_n ⊙ (U_n h + b_hn) r(1 − r)    dz_z = λ ⊙ (h_{t−1} − n) z(1 − z)
    and λ_{t−1} receives λ ⊙ z + Uᵀ[dz_r, dz_z, r ⊙ dz_n].
    """
    gates = ("r", "z", "n")
    weights = _weights(gates, inputs, hidden, w, u, b, dtype)

    def nonlinearity(params: GRUWeights, carry: Hidden, zx: Array, zh: Array) -> tuple[Hidden, Partials]:
        h2 = 2 * hidden
        r, z = split(optimization_barrier(jax.nn.sigmoid(zx[..., :h2] + zh[..., :h2])), 2)
        un = zh[..., h2:] + jax.lax.broadcast_in_dim(params.bn, zh[..., h2:].shape, (zh.ndim - 1,))
        n = optimization_barrier(jnp.tanh(zx[..., h2:] + r * un))
        partials = optimization_barrier(
            (
                z,  # ∂h/∂h₋
                (1 - z) * (1 - n * n),  # ∂h/∂z_n
                (carry.h - n) * z * (1 - z),  # ∂h/∂z_z
                un * r * (1 - r),  # ∂z_n/∂z_r
                r,  # ∂z_n/∂(U_n h)
            )
        )
        return Hidden((1 - z) * n + z * carry.h), partials

    def vjp(adjoint: Hidden, partials: Partials) -> tuple[Hidden, Array, Array]:
        z, h_n, h_z, n_r, r = partials
        dn = optimization_barrier(adjoint.h * h_n)
        dr, dz = optimization_barrier((dn * n_r, adjoint.h * h_z))
        dzx = side_by_side(dr, dz, dn)
        dzh = side_by_side(dr, dz, dn * r)
        return Hidden(adjoint.h * z), dzx, dzh

    def weight_gradients(
        params: GRUWeights, xs: Array, before: Array, dzx: Array, dzh: Array | None, power: Array | None = None
    ) -> GRUWeights:
        gx = _outer([xs], dzx, power)
        gh = _outer([before], dzh if dzh is not None else dzx, power)
        return GRUWeights(w=gx[:-1], u=gh[:-1], b=gx[-1], bn=gh[-1, 2 * hidden :])

    def units(params: GRUWeights, carry: Hidden, zx: Array, zh: Array) -> dict[str, tuple[Array, Array]]:
        (xr, xz, xn), (hr, hz, hn) = split(zx, 3), split(zh, 3)
        r = _sigmoid(xr + hr)
        un = hn + jax.lax.broadcast_in_dim(params.bn, hn.shape, (hn.ndim - 1,))
        return {"r": r, "z": _sigmoid(xz + hz), "n": _tanh(xn + r[0] * un)}

    return Cell(
        gates=gates,
        init=lambda key: GRUWeights(*weights(key), bn=jnp.zeros((hidden,), dtype)),
        initial_carry=lambda batch: Hidden(jnp.zeros((*batch, hidden), dtype)),
        input_projection=_affine,
        recurrent_projection=lambda params, h: h @ params.u,
        nonlinearity=nonlinearity,
        vjp=vjp,
        transposed=_transposed,
        weight_gradients=weight_gradients,
        units=units,
    )


def gru_reset_before(
    inputs: int,
    hidden: int,
    *,
    w: Inits = GlorotUniform(),
    u: Inits = Orthogonal(),
    b: Inits = constant(0.0),
    dtype: Any = jnp.float32,
) -> Cell:
    """Gated recurrent unit with the reset before the product, as first published. Cho et al. 2014, eq. 5–8.

    r and z as in `gru`;    n = tanh(W_n x + b_n + U_n (r ⊙ h_{t−1}));    h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}

    U_n acts inside the nonlinearity, which is then not elementwise, so this cell has no `vjp`: JAX differentiates it.
    """
    gates = ("r", "z", "n")
    h2 = 2 * hidden

    def nonlinearity(params: Weights, carry: Hidden, zx: Array, zh: Array) -> tuple[Hidden, Partials]:
        r, z = split(optimization_barrier(jax.nn.sigmoid(zx[..., :h2] + zh)), 2)
        n = optimization_barrier(jnp.tanh(zx[..., h2:] + (r * carry.h) @ params.u[:, h2:]))
        return Hidden((1 - z) * n + z * carry.h), ()

    def units(params: Weights, carry: Hidden, zx: Array, zh: Array) -> dict[str, tuple[Array, Array]]:
        (xr, xz, xn), (hr, hz) = split(zx, 3), split(zh, 2)
        r = _sigmoid(xr + hr)
        return {"r": r, "z": _sigmoid(xz + hz), "n": _tanh(xn + (r[0] * carry.h) @ params.u[:, h2:])}

    return Cell(
        gates=gates,
        init=_weights(gates, inputs, hidden, w, u, b, dtype),
        initial_carry=lambda batch: Hidden(jnp.zeros((*batch, hidden), dtype)),
        input_projection=_affine,
        recurrent_projection=lambda params, h: h @ params.u[:, :h2],
        nonlinearity=nonlinearity,
        units=units,
    )
