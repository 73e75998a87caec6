"""Lyapunov exponents of a recurrent layer: how fast nearby states part, direction by direction.

    Q_t R_t = J_t Q_{t−1}        λ_i = mean over t of log |R_t[i, i]|        per step, natural logarithm

with J_t = ∂state_t/∂state_{t−1} on the whole state ((c, h) of an LSTM) and the QR taken forward in time, step by step
(Benettin et al. 1980; for driven recurrent networks Engelken, Wolf & Abbott 2023). Exponents come largest first, up
to sampling errors among close ones. Of a finite sequence they are averages along it, of the state's way from where
it starts: only a burn-in, for the state and its tangents together, makes them the attractor's.

A direction that dies, as behind a ReLU at 0, has exponent −inf; a state that is not finite makes NaN.
For float64, run under `jax.enable_x64(True)` with parameters, carry and inputs in float64.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.backend import map_matrices
from seqdyn.learn.model import per_layer
from seqdyn.learn.spec import Spec
from seqdyn.learn.train import TrainState
from seqdyn.measure.jacobians import columns, linear, orthonormal, parts, vector
from seqdyn.measure.view import View
from seqdyn.nets.bptt import at_end, where_valid
from seqdyn.nets.cells import Cell, advance
from seqdyn.norms import norm
from seqdyn.types import Array, Bool, Float, Int, Key


class Spectrum(NamedTuple):
    """The exponents along one sequence (of each example)."""

    exponents: Float[Array, "*b k"]
    """Nats per step."""
    errors: Float[Array, "*b k"]
    """Standard errors from the means of blocks of steps, of which there are no more than steps are counted; NaN of a
    single one, and where an exponent is not finite."""
    local: Float[Array, "t *b k"]
    """log |R_t[i, i]| of every step, those burnt included; 0 on padding."""


def lyapunov_spectrum(
    cell: Cell,
    params: Any,
    carry: Any,
    xs: Float[Array, "t *b d"],
    key: Key[Array, ""],
    k: int | None = None,
    burn: int | Int[Array, "*b"] = 0,
    blocks: int = 10,
    mask: Bool[Array, " t *b"] | None = None,
) -> Spectrum:
    """The k largest exponents (all n of them if None) of `cell` driven by xs, by k tangents; no Jacobian is formed.

    Autonomous dynamics are those under xs = zeros [T, *b, d]. The first `burn` valid steps (one number, or one per
    example) align the state and the tangents and are not counted; padding is neither walked nor counted. Raises
    ValueError for a k that is out of range.
    """

    def body(kept: Any, inputs: Any) -> tuple[Any, Array]:
        carry, frame = kept
        z, on = inputs
        push, _ = linear(partial(advance, cell, params, z), carry)
        after = advance(cell, params, z, carry)
        turned, growth = _turn(columns(push, carry, frame))
        known = jnp.all(jnp.isfinite(vector(after)), axis=-1, keepdims=True)
        growth = jnp.where(known, growth, jnp.nan)
        return where_valid(on, (after, turned), kept), where_valid(on, growth, jnp.zeros_like(growth))

    frame = _frame(key, vector(carry), k)
    local = jax.lax.scan(body, (carry, frame), (cell.input_projection(params, xs), mask))[1]
    return _spectrum(local, burn, blocks, mask)


def qr_exponents(
    jacobians: Float[Array, "t *b n n"],
    key: Key[Array, ""],
    k: int | None = None,
    burn: int | Int[Array, "*b"] = 0,
    blocks: int = 10,
) -> Spectrum:
    """The exponents of the product … J_2 J_1 of given matrices."""
    frame = _frame(key, jacobians[0, ..., 0], k)
    local = jax.lax.scan(lambda frame, j: _turn(j @ frame), frame, jacobians)[1]
    return _spectrum(local, burn, blocks, None)


def over_inputs(exponents: Float[Array, " b *k"]) -> tuple[Float[Array, "*k"], Float[Array, "*k"]]:
    """(mean, standard error) of the exponents under several inputs, each counting the same; the error of one is NaN."""
    many = exponents.shape[0]
    mean = jnp.mean(exponents, axis=0)
    spread = jnp.sum(jnp.square(exponents - mean[None]), axis=0) / max(many - 1, 1)
    return mean, jnp.where(many > 1, jnp.sqrt(spread / many), jnp.nan)


def kaplan_yorke(exponents: Float[Array, "*b k"], n: int | None = None) -> Float[Array, "*b"]:
    """Dimension of the attractor, j + Σ_{i≤j} λ_i / |λ_{j+1}| with the largest j whose sum is not negative.

    0 if all exponents are negative; n, the size of the state, if the sum of all is not. With only the k < n largest,
    NaN where their sum is not negative: the dimension is then at least k. Kaplan & Yorke 1979.
    """
    k = exponents.shape[-1]
    ordered = -jnp.sort(-exponents, axis=-1)
    sums = jnp.cumsum(ordered, axis=-1)
    j = jnp.sum(jnp.cumprod((sums >= 0).astype(jnp.int32), axis=-1), axis=-1, keepdims=True)

    def at(values: Array, i: Array) -> Array:
        return jnp.take_along_axis(values, jnp.clip(i, 0, k - 1), axis=-1)

    sum_j = jnp.where(j > 0, at(sums, j - 1), 0)
    below = jnp.where(j < k, at(ordered, j), -jnp.inf)
    whole = j.astype(sums.dtype)
    dimension = whole + sum_j / jnp.abs(jnp.where(below < 0, below, -jnp.inf))
    known = ~jnp.any(jnp.isnan(ordered), axis=-1, keepdims=True) & ((j < k) | (k == (n or k)))
    return jnp.where(known, dimension, jnp.nan)[..., 0]


def two_trajectories(
    cell: Cell,
    params: Any,
    carry: Any,
    xs: Float[Array, "t *b d"],
    key: Key[Array, ""],
    distance: float = 1e-6,
    burn: int = 0,
) -> Float[Array, "*b"]:
    """The largest exponent without a derivative: mean log of how much two states part in a step. Benettin et al. 1976.

    The second state is put back to `distance` after each step, over the whole state. The error is of the order of
    `distance`, and of the precision over it: 1e-6 is for float64, 1e-3 for float32.
    """

    def body(kept: Any, z: Any) -> tuple[Any, Array]:
        carry, away = kept
        other = parts(carry, vector(carry) + distance * away)
        after = advance(cell, params, z, carry)
        gap = vector(advance(cell, params, z, other)) - vector(after)
        size = norm(gap)
        some = (size > 0)[..., None]
        away = jnp.where(some, gap / jnp.where(some, size[..., None], 1), away)
        return (after, away), jnp.log(size / distance)

    away = _frame(key, vector(carry), 1)[..., 0]
    growth = jax.lax.scan(body, (carry, away), cell.input_projection(params, xs))[1]
    return jnp.mean(growth[burn:], axis=0)


# --- the parts they share -----------------------------------------------------------------------------------


def _frame(key: Key[Array, ""], state: Float[Array, "*b n"], k: int | None) -> Float[Array, "*b n k"]:
    n = state.shape[-1]
    if not 1 <= (k or n) <= n:
        raise ValueError(f"k is {k}; it must lie in 1 … {n}, the size of the state.")
    return orthonormal(key, (*state.shape, k or n), state.dtype)


def _turn(pushed: Float[Array, "*b n k"]) -> tuple[Float[Array, "*b n k"], Float[Array, "*b k"]]:
    """(the frame for the next step, log |diag R| of this one).

    Directions that die leave rows of zeros; then as many of R's diagonal entries are 0, which rounding would hide.
    """
    frame, r = map_matrices(jnp.linalg.qr, pushed)
    size = jnp.abs(jnp.diagonal(r, axis1=-2, axis2=-1))
    rank = jnp.sum(jnp.any(pushed != 0, axis=-1), axis=-1, keepdims=True, dtype=jnp.int32)
    order = jnp.argsort(jnp.argsort(-size, axis=-1), axis=-1).astype(jnp.int32)
    return frame, jnp.log(jnp.where(order < rank, size, 0))


def _spectrum(
    local: Float[Array, "t *b k"], burn: int | Int[Array, "*b"], blocks: int, mask: Bool[Array, " t *b"] | None
) -> Spectrum:
    on = jnp.ones(local.shape[:-1], bool) if mask is None else mask
    walked = jnp.cumsum(on, axis=0, dtype=jnp.int32)
    burnt = jnp.broadcast_to(jnp.asarray(burn, jnp.int32), on.shape[1:])[None]
    counted = on & (walked > burnt)
    steps = jnp.sum(counted, axis=0, dtype=jnp.int32)
    exponents = jnp.sum(jnp.where(counted[..., None], local, 0), axis=0) / steps[..., None].astype(local.dtype)

    some = jnp.clip(steps, 1, blocks)  # as many blocks as there are steps, at most
    block = (walked - burnt - 1) * some[None] // jnp.maximum(steps, 1)[None]
    share = jax.nn.one_hot(jnp.where(counted, block, -1), blocks, dtype=local.dtype)
    total = jnp.einsum("t...k,t...m->...mk", jnp.where(jnp.isfinite(local), local, 0), share)
    size = jnp.sum(share, axis=0)[..., None]
    means, of = total / jnp.maximum(size, 1), some[..., None].astype(local.dtype)
    apart = means - jnp.sum(means, axis=-2, keepdims=True) / of[..., None]
    errors = jnp.sqrt(jnp.sum(jnp.where(size > 0, jnp.square(apart), 0), axis=-2) / (of - 1) / of)
    return Spectrum(exponents, jnp.where(jnp.isfinite(exponents), errors, jnp.nan), local)


# --- the probe ----------------------------------------------------------------------------------------------


def measure(spec: Spec, state: TrainState, view: View) -> dict[str, Array]:
    """Of each layer, its inputs held, on the view's batch from the state of rest; the first tenth of each example's
    steps aligns the tangents.

    `lyapunov_exponent` and `lyapunov_error` [layer, mode]: mean over the examples and its standard error (NaN beyond
    the size of the state). `kaplan_yorke` [layer]: of these means. `local_exponent` [layer, time]: growth of the
    leading direction at each step, mean over the examples that reach it, aligned at each one's last valid step.
    """
    found: list[tuple[Array, ...]] = []
    for layer in per_layer(spec, state.params, view.batch):
        n = vector(layer.carry).shape[-1]
        k = min(view.modes, n)
        mask = layer.mask
        on = jnp.ones(layer.xs.shape[:2], bool) if mask is None else mask
        burn = jnp.sum(on, axis=0, dtype=jnp.int32) // 10
        spectrum = lyapunov_spectrum(*layer[:4], jax.random.key(0), k, burn, mask=mask)
        mean, error = over_inputs(spectrum.exponents)
        count = jnp.sum(at_end(on.astype(mean.dtype), mask), axis=1)
        leading = jnp.sum(at_end(spectrum.local[..., 0], mask), axis=1) / count
        pad = (0, view.modes - k)
        padded = (jnp.pad(v, pad, constant_values=jnp.nan) for v in (mean, error))
        found.append((*padded, kaplan_yorke(mean, n), leading))
    names = ("lyapunov_exponent", "lyapunov_error", "kaplan_yorke", "local_exponent")
    return {name: jnp.stack(values) for name, values in zip(names, zip(*found, strict=True), strict=True)}
