"""Backpropagation through time, written down once.

`unroll` runs a cell over a sequence with `jax.lax.scan` and is a `jax.custom_vjp`: the forward scan keeps each
step's partial derivatives, the backward scan is the linear recurrence

    λ_t = ∂L/∂h_t |local + from_next_t          from_next_{t−1} = vjp(λ_t) + Uᵀ ∂L/∂zh_t

(Werbos 1990; Pascanu, Mikolov & Bengio 2013, eq. 3–5). Since λ_t, the adjoint, passes through our hands, what is to
be known of it is read inside that scan and leaves as the cotangent of a dummy input, `watch`.
"""

from functools import partial
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from seqdyn.backend import unrolled
from seqdyn.nets.cells import Carry, Cell
from seqdyn.nets.exponents import column, in_units, shift, times, with_local
from seqdyn.norms import norm, norm_near, power_of_two
from seqdyn.types import Array, Bool, ConfigError, Float, Int, Pad, Tree, one_of


class Backprop(NamedTuple):
    """Where the sequence ends and the adjoint is stopped. All numbers may be traced; None costs nothing."""

    mask: Bool[Array, " t *b"] | None = None
    """False on padding: there the carry is held, outputs repeat it, and the adjoint passes through unchanged."""
    keep: Bool[Array, " t"] | None = None
    """May the adjoint travel from t to t − 1? Truncated backpropagation: see `window`."""
    clip: Float[Array, ""] | None = None
    """Bound on ‖λ_t‖ of each example, over all parts of its carry jointly, before it is pulled through step t."""


class Tap(NamedTuple):
    """What to read of the adjoint: zeros of the readings' shape, from `taps`; the gradient with respect to it
    is the reading. Readings are per example and 0 on padding. None reads nothing and costs nothing."""

    adjoint_norm: Carry | None = None
    """‖λ_t‖ for each part of the carry: what it receives from its local loss, the layer above, and step t + 1."""
    from_next_norm: Carry | None = None
    """The norm of what came from step t + 1 alone; 0 at an example's last valid step."""
    scale: Float[Array, " t *b"] | None = None
    """The factor that `Backprop.clip` applied, 1 where it did not bite; 0 on padding."""
    adjoint: Carry | None = None
    """λ_t itself, before clipping."""
    exponent: Float[Array, " t *b"] | None = None
    """e_t, a whole number: with it `adjoint_norm` and `adjoint` are mantissas. They stand for 2^e_t times what
    they say, so that they neither under- nor overflow. Always float32: e may be in the thousands."""


def window(steps: int, length: Int[Array, ""] | int) -> Bool[Array, " t"]:
    """`Backprop.keep` of truncated backpropagation in consecutive windows of `length` steps. Williams & Peng 1990.

    The adjoint crosses no multiple of `length`; a window that covers the sequence cuts nothing.
    """
    t = jnp.arange(steps)
    return (t % length != 0) | (t == 0)


def valid_steps(lengths: Int[Array, "*b"], steps: int, pad: str = "after") -> Bool[Array, " t *b"]:
    """`Backprop.mask` of sequences padded 'before' or 'after' their `lengths` steps; ConfigError for another word."""
    one_of("pad", pad, get_args(Pad))
    t = jax.lax.broadcasted_iota(jnp.int32, (steps, *lengths.shape), 0)
    lengths = jnp.broadcast_to(lengths.astype(jnp.int32), t.shape)
    return t < lengths if pad == "after" else t >= steps - lengths


def taps(
    cell: Cell,
    steps: int,
    batch: tuple[int, ...] = (),
    clipped: bool = False,
    ranged: bool = False,
    adjoint: bool = False,
) -> Tap:
    """A `Tap` that reads the norms of the adjoint and of what came from the next step (and the clip's scale).

    `ranged` reads the exponent, too: see `Tap.exponent`; `adjoint` the adjoint itself. Raises ConfigError for an
    exponent beside float16, whose range is smaller than an exponent's strides.
    """
    carry = jax.eval_shape(lambda: cell.initial_carry(batch))
    if ranged:
        _check_range(carry)
    zeros = jax.tree.map(lambda leaf: jnp.zeros((steps, *batch), leaf.dtype), carry)
    exponent = jnp.zeros((steps, *batch), jnp.float32) if ranged else None
    every = jax.tree.map(lambda leaf: jnp.zeros((steps, *leaf.shape), leaf.dtype), carry) if adjoint else None
    return Tap(zeros, zeros, zeros.h if clipped else None, every, exponent)


def _check_range(carry: Carry) -> None:
    for leaf in jax.tree.leaves(carry):
        if jnp.finfo(leaf.dtype).maxexp < 128:
            raise ConfigError(
                f"the cell's dtype is {leaf.dtype}; beside an exponent it must be bfloat16, float32 or float64, whose "
                "range its strides fit into."
            )


def log2_norm(mantissa: Float[Array, "*s"], exponent: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """log₂ ‖λ‖ of a reading with an exponent, −∞ where λ is 0. To 2⁻¹³ at 2^±2000: for more, keep the two apart."""
    return exponent + jnp.log2(mantissa.astype(exponent.dtype))


def at_end(reading: Float[Array, " t *b"], mask: Bool[Array, " t *b"] | None) -> Float[Array, " t *b"]:
    """Each example shifted so that its last valid step is the last entry of the time axis, zeros before its first."""
    if mask is None:
        return reading
    steps = mask.shape[0]
    t = jax.lax.broadcasted_iota(jnp.int32, mask.shape, 0)
    last = jnp.max(jnp.where(mask, t, -1), axis=0, keepdims=True)
    source = t - (steps - 1) + last
    moved = jnp.take_along_axis(reading, jnp.clip(source, 0, steps - 1), axis=0)
    return jnp.where(source >= 0, moved, jnp.zeros_like(moved))


def unroll(
    cell: Cell,
    params: Any,
    carry: Carry,
    xs: Float[Array, "t *b d"],
    cut: Backprop = Backprop(),
    watch: Tap = Tap(),
    reverse: bool = False,
) -> tuple[Float[Array, "t *b h"], Carry]:
    """The outputs h_1 … h_T and the last carry; xs must be finite on padding too.

    `reverse` reads from the last step to the first, each sequence from its own last valid step: outputs keep their
    positions, while readings and `cut.keep` count steps in the order in which they are read. Reverse mode
    differentiates it twice; forward mode over it raises TypeError. Take the gradient inside `vmap`: outside, runs would
    add their readings up in one shared watch.

    The cells of `cells` are right under any `jax.jit`; others, on a CPU, under `seqdyn.compiled` alone: see
    `backend.side_by_side`. Raises ConfigError for xs that do not fit the carry.
    """
    check_given(carry, xs, watch)
    return in_direction(_unroll, reverse, cell, params, carry, xs, cut, watch)


def check_given(carry: Carry, xs: Array, watch: Tap) -> None:
    """Raises ConfigError for xs that do not fit the carry, or a dtype that an exponent does not fit."""
    batch = jnp.shape(carry.h)[:-1]
    if jnp.ndim(xs) < 2 or jnp.shape(xs)[1:-1] != batch:
        raise ConfigError(
            f"xs has the shape {jnp.shape(xs)}; it must be [t, *b, d] with the carry's batch b = {batch}."
        )
    if not jnp.issubdtype(jnp.result_type(xs), jnp.floating):
        raise ConfigError(f"xs has the dtype {jnp.result_type(xs)}; it must be the cell's, {carry.h.dtype}.")
    if watch.exponent is not None:
        _check_range(carry)


def in_direction(
    by: Any, reverse: bool, cell: Cell, params: Any, carry: Carry, xs: Array, cut: Backprop, watch: Tap
) -> tuple[Float[Array, "t *b h"], Carry]:
    """`by` over a sequence, or over it turned round; `by` unrolls a cell forwards."""
    if not reverse:
        return by(cell, params, carry, xs, cut, watch)
    mask = None if cut.mask is None else jnp.flip(cut.mask, axis=0)
    hs, last = by(cell, params, carry, jnp.flip(xs, axis=0), cut._replace(mask=mask), watch)
    return jnp.flip(hs, axis=0), last


# --- the two passes -----------------------------------------------------------------------------------------


def where_valid(mask: Array | None, new: Tree, old: Tree) -> Tree:
    """`new` on valid steps and `old` on padding; leaves have axes beyond those of `mask`."""
    if mask is None:
        return new
    return jax.tree.map(lambda n, o: jnp.where(_like(mask, n), n, o), new, old)


def _dropped(h: Array, drop: Array | None) -> Array:
    return h if drop is None else h * drop


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _unroll(cell: Cell, params: Any, carry: Carry, xs: Array, cut: Backprop, watch: Tap) -> tuple[Array, Carry]:
    return scan(cell, params, carry, xs, cut)[0]


def scan(cell: Cell, params: Any, first: Carry, xs: Array, cut: Backprop) -> Any:
    """((hs, last carry), (what backward needs of each step, zx, drops of h before each step))."""
    zx = cell.input_projection(params, xs)
    drops = cell.dropout_mask(zx) if cell.dropout_mask else None

    def body(carry: Carry, inputs: Any) -> tuple[Carry, Any]:
        zx_t, drop, mask = inputs
        new, partials = cell.nonlinearity(
            params, carry, zx_t, cell.recurrent_projection(params, _dropped(carry.h, drop))
        )
        new = where_valid(mask, new, carry)
        # Without a vjp, backward differentiates the nonlinearity at the carry it started from.
        return new, (new.h, partials if cell.vjp else carry)

    last, (hs, kept) = jax.lax.scan(body, first, (zx, drops, cut.mask), unroll=unrolled())
    return (hs, last), (kept, zx if cell.vjp is None else None, drops)


def _forward(cell: Cell, *primals: Any) -> Any:
    params, first, xs, cut, watch = jax.tree.map(lambda primal: primal.value, primals)
    (hs, last), kept = scan(cell, params, first, xs, cut)
    return (hs, last), (params, first, xs, hs, kept, cut, watch)


def _backward(cell: Cell, residuals: Any, cotangents: Any) -> Any:
    params, first, xs, hs, kept, cut, watch = residuals
    local, final = arriving(cotangents)
    near, e, sizes = first_norms(watch, final, local)
    state, d_params, d_xs, readings = pulled(
        cell, params, first, xs, hs, kept, cut, watch, (final, near, e), local, sizes
    )
    return d_params, arrived(state), d_xs, None, asked(watch, readings, cut.mask)


def arriving(cotangents: Any) -> tuple[Array | None, Carry]:
    """(local errors, the adjoint of the last carry). A readout of the last step alone leaves no local error at the
    others: None, and neither is it added nor read."""
    local = None if isinstance(cotangents[0], SymbolicZero) else cotangents[0]
    return local, jax.tree.map(_instantiate, cotangents[1], is_leaf=lambda leaf: isinstance(leaf, SymbolicZero))


def pulled(
    cell: Cell,
    params: Any,
    first: Carry,
    xs: Array,
    hs: Array,
    kept: Any,
    cut: Backprop,
    watch: Tap,
    state: tuple[Carry, Carry | None, Array | None],
    local: Array | None,
    sizes: Any,
) -> tuple[Any, Any, Array, Tap]:
    """(the state before these steps, ∂L/∂params and ∂L/∂xs of them, all that is read); a state is the adjoint that
    arrives, its norms and its exponent."""
    kept, zx, drops = kept
    before = _dropped(jnp.concatenate([first.h[None], hs[:-1]]), drops)
    back = (
        cell.transposed(params)
        if cell.transposed
        else partial(_transpose, partial(cell.recurrent_projection, params), first.h)
    )

    def vjp(adjoint: Carry, kept_t: Any, zx_t: Any, drop: Any) -> tuple[Carry, Any, Any]:
        if cell.vjp:
            return cell.vjp(adjoint, kept_t)
        zh = cell.recurrent_projection(params, _dropped(kept_t.h, drop))
        _, transpose = jax.vjp(lambda c, zx, zh: cell.nonlinearity(params, c, zx, zh)[0], kept_t, zx_t, zh)
        return transpose(adjoint)

    def met(from_next: Carry, e: Array | None, t: Array | int) -> Carry:  # at step t the local error, if there is any
        if local is None:
            return from_next
        here = in_units(e, jax.lax.dynamic_index_in_dim(local, jnp.maximum(t, 0), keepdims=False))
        return from_next._replace(h=from_next.h + jnp.where(t < 0, jnp.zeros_like(here), here))

    def body(state: Any, inputs: Any) -> tuple[Any, Any]:
        # λ_t was added up where the step after it was left: added up here, each of its readers would do it again.
        adjoint, near, e = state
        t, sizes, kept_t, zx_t, drop, mask, keep = inputs
        size, size_before = (None, None) if sizes is None else (in_units(e, sizes[0]), sizes[1])
        read = near if near is None or local is None else near._replace(h=_norm_of_sum(adjoint.h, near.h, size))
        bounded, scale = _clip(adjoint, cut.clip, e)
        earlier, dzx, dzh = vjp(bounded, kept_t, zx_t, drop)
        earlier = earlier._replace(h=earlier.h + _dropped(back(dzx if dzh is None else dzh), drop))
        if mask is not None:  # padding did nothing forward: no gradient, and the adjoint passes
            dzx, dzh = where_valid(mask, (dzx, dzh), jax.tree.map(jnp.zeros_like, (dzx, dzh)))
            earlier = where_valid(mask, earlier, adjoint)
        if keep is not None:
            earlier = jax.tree.map(lambda leaf: jnp.where(keep, leaf, jnp.zeros_like(leaf)), earlier)
        # Scaled where it is stored: inside a sum of products it would change which of them the compiler rounds.
        factor, e_before, guess = shift(with_local(near, size), e, size_before)
        earlier = times(earlier, factor)
        # Read as soon as it has been made: read a step later, XLA would have to copy it.
        made = None if guess is None else jax.tree.map(norm_near, jax.lax.stop_gradient(earlier), guess)
        readings = Tap(read, near, scale, adjoint if watch.adjoint is not None else None, e)
        stored = (dzx, dzh, readings, bounded if cell.vjp is None else None)
        return (met(earlier, e_before, t - 1), made, e_before), stored

    from_next, near, e = state
    steps = jnp.arange(xs.shape[0], dtype=jnp.int32)
    state, (dzx, dzh, readings, bounded) = jax.lax.scan(
        body,
        (met(from_next, e, xs.shape[0] - 1), near, e),
        (steps, sizes, kept, zx, drops, cut.mask, cut.keep),
        length=xs.shape[0],
        reverse=True,
        unroll=unrolled(),
    )
    # What is below was linear in λ: multiplied back by 2^e on its smaller side, which changes no bit.
    power = None if readings.exponent is None else power_of_two(readings.exponent, xs.dtype)
    d_params = jax.tree.map(jnp.zeros_like, params)
    if cell.vjp is None:
        d_params = _of_nonlinearity(cell, params, kept, zx, drops, times(bounded, power), cut.mask)
    if cell.weight_gradients:
        d_params = cell.weight_gradients(params, xs, before, dzx, dzh, power)
    else:
        _, transpose = jax.vjp(lambda p: (cell.input_projection(p, xs), cell.recurrent_projection(p, before)), params)
        dz = times((dzx, dzx if dzh is None else dzh), power)
        d_params = jax.tree.map(jnp.add, d_params, *transpose(dz))
    d_xs = times(_transpose(partial(cell.input_projection, params), xs, dzx), power)
    return state, d_params, d_xs, readings


def arrived(state: tuple[Carry, Carry | None, Array | None]) -> Carry:
    """∂L/∂(first carry), of the state before the first step."""
    adjoint, _, e = state
    return adjoint if e is None else times(adjoint, power_of_two(e, adjoint.h.dtype))


_unroll.defvjp(_forward, _backward, symbolic_zeros=True)


def _instantiate(leaf: Any) -> Array:
    if not isinstance(leaf, SymbolicZero):
        return leaf
    aval: Any = leaf.aval
    return jnp.zeros(aval.shape, aval.dtype)


def _transpose(linear: Any, at: Array, cotangent: Any) -> Array:
    return jax.vjp(linear, at)[1](cotangent)[0]


def _of_nonlinearity(
    cell: Cell, params: Any, kept: Carry, zx: Any, drops: Any, bounded: Carry, mask: Array | None
) -> Any:
    """∂L/∂params of what the nonlinearity does with parameters of its own, all steps at once."""
    zh = cell.recurrent_projection(params, _dropped(kept.h, drops))
    if mask is not None:
        bounded = where_valid(mask, bounded, jax.tree.map(jnp.zeros_like, bounded))
    return jax.vjp(lambda p: cell.nonlinearity(p, kept, zx, zh)[0], params)[1](bounded)[0]


def _clip(adjoint: Carry, bound: Array | None, e: Array | None) -> tuple[Carry, Array | None]:
    """λ · min(1, bound / ‖λ‖) per example, ‖·‖ over all parts of the carry, λ = adjoint · 2^e."""
    if bound is None:
        return adjoint, None
    size = norm(jnp.stack([norm(leaf) for leaf in adjoint], axis=-1))
    if e is not None:
        bound = bound * power_of_two(jnp.clip(-e, -120, 120), size.dtype)  # 2^∞ · 0 and 2^−∞ · ∞ would be NaN
    over = size > bound
    # The inner `where` keeps a second reverse pass from meeting 0 · ∞ where the clip does not bite.
    scale = jnp.where(over, bound / jnp.where(over, size, jnp.ones_like(size)), jnp.ones_like(size))
    return jax.tree.map(lambda leaf: leaf * column(scale, leaf), adjoint), scale


# --- readings -----------------------------------------------------------------------------------------------


def first_norms(watch: Tap, final: Carry, local: Array | None) -> tuple[Carry | None, Array | None, Any]:
    """Of the adjoint that comes from outside: its norms, its exponent, and the norms of all local errors with those
    a step before each."""
    if watch.adjoint_norm is None and watch.from_next_norm is None and watch.exponent is None:
        return None, None, None
    final, local = jax.lax.stop_gradient((final, local))
    near = jax.tree.map(norm, final)
    e = None if watch.exponent is None else jnp.zeros(near.h.shape, jnp.float32)
    if local is None:
        return near, e, None
    sizes = norm(local)
    return near, e, (sizes, jnp.concatenate([jnp.zeros_like(sizes[:1]), sizes[:-1]]))


def _norm_of_sum(adjoint: Array, near: Array, size: Array | None) -> Array:
    """‖adjoint‖, a sum of two vectors with the norms `near` and `size`. (No loss reads c: only h has a local error.)"""
    guess = near if size is None else jnp.maximum(near, size)
    return norm_near(jax.lax.stop_gradient(adjoint), guess)


def asked(watch: Tap, made: Tap, mask: Array | None) -> Tap:
    """What `watch` asked for; 0 on padding, and nothing comes from a next step at an example's last valid one."""
    from_next = made.from_next_norm
    if made.exponent is not None and from_next is not None:
        power = power_of_two(made.exponent, from_next.h.dtype)  # 0 · 2^∞ is 0
        from_next = jax.tree.map(lambda r: jnp.where(r == 0, r, r * power), from_next)
    # Norms are constants; the adjoint itself can be differentiated again, by a term of the objective that reads it.
    made = jax.lax.stop_gradient(made._replace(from_next_norm=from_next, adjoint=None))._replace(adjoint=made.adjoint)
    readings = Tap(*(given if zeros is not None else None for zeros, given in zip(watch, made, strict=True)))
    from_next = readings.from_next_norm
    if mask is None:
        return readings._replace(from_next_norm=jax.tree.map(lambda r: r.at[-1].set(jnp.zeros_like(r[-1])), from_next))
    later = jnp.flip(jnp.cumsum(jnp.flip(mask, 0), axis=0), 0)  # valid steps from t on

    def where(on: Array, tree: Tree) -> Tree:
        return jax.tree.map(lambda r: jnp.where(_like(on, r), r, jnp.zeros_like(r)), tree)

    return where(mask, readings)._replace(from_next_norm=where(mask & (later > 1), from_next))


def _like(x: Array, y: Array) -> Array:
    return jnp.broadcast_to(x.reshape(x.shape + (1,) * (y.ndim - x.ndim)), y.shape)
