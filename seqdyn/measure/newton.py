"""All states of a sequence at once: Newton's method on the whole trajectory, each of its steps parallel in time.

The states s_1 … s_T solve s_t − f(s_{t−1}, x_t) = 0. A Newton step linearises f at all of them at once,

    s'_t = J_t s'_{t−1} + f(s_{t−1}, x_t) − J_t s_{t−1}        J_t = ∂f/∂s at s_{t−1}

a linear recurrence, which an associative scan solves in O(log T) steps one after the other (Lim et al. 2024,
'Parallelizing non-linear sequential models over the sequence length'). After n steps the first n states are exact, so T
are enough. How many it takes depends on the largest Lyapunov exponent: few below 0, about T above (Gonzalez et al.
2025). The way back is the recurrence λ_t = ∂L/∂s_t + J_{t+1}ᵀ λ_{t+1}, once. All this costs T products of n × n
matrices and the room for them. On a few cores `bptt.unroll` is faster: `experiments/reproduce/newton.py` measures it.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.measure.jacobians import jacobians_at, parts, vector
from seqdyn.nets.cells import Carry, Cell, advance
from seqdyn.types import Array, ConfigError, Float, Int, whole


class Newton(NamedTuple):
    """What Newton's method has found."""

    states: Carry
    """After each step, [t, *b, h] each part."""
    steps: Int[Array, " t *b"]
    """Newton steps after which s_1 … s_t are right: no |s_t − f(s_{t−1}, x_t)| up to there is above the tolerance.
    `most` + 1 where that was not reached."""


def newton(
    cell: Cell,
    params: Any,
    carry: Carry,
    xs: Float[Array, "t *b d"],
    *,
    tolerance: float = 1e-6,
    most: int | None = None,
    guess: Carry | None = None,
    sequential: bool = False,
) -> Newton:
    """The states that `bptt.unroll` finds, from `carry` on, to `tolerance`; differentiable in params, carry and xs.

    `guess` [t, *b, h] each part is where it begins, by default at `carry`. After at most `most` steps, by default T, it
    ends. `sequential` solves the linear recurrence step by step, with the same numbers to rounding: on a CPU that is
    how to count. A state that overflows on the way begins again at f of the one before it. Raises ConfigError for a
    tolerance that is none.
    """
    if not tolerance > 0:
        raise ConfigError(f"tolerance is {tolerance!r}; it must be above 0.")
    most = len(xs) if most is None else whole("most", most)
    begin = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(xs), *leaf.shape)), carry) if guess is None else guess
    return _newton((cell, float(tolerance), most, sequential), params, carry, xs, jax.lax.stop_gradient(begin))


def adjoints(
    jacobians: Float[Array, "t *b n n"], local: Float[Array, "t *b n"], sequential: bool = False
) -> Float[Array, "t *b n"]:
    """λ_t = local_t + J_{t+1}ᵀ λ_{t+1}, of all steps at once; local_t is ∂L/∂s_t where later states are held."""
    later = jnp.concatenate([jnp.swapaxes(jacobians[1:], -1, -2), jnp.zeros_like(jacobians[:1])])
    return _recurrence(later, local, sequential, reverse=True)


def _recurrence(j: Array, b: Array, sequential: bool, reverse: bool = False) -> Array:
    """s_t = j_t s_{t−1} + b_t, from s_0 = 0; in reverse from the end."""
    if sequential:

        def step(s: Array, jb: tuple[Array, Array]) -> tuple[Array, Array]:
            s = jnp.einsum("...ij,...j->...i", jb[0], s) + jb[1]
            return s, s

        return jax.lax.scan(step, jnp.zeros_like(b[0]), (j, b), reverse=reverse)[1]

    def after(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
        return other[0] @ one[0], jnp.einsum("...ij,...j->...i", other[0], one[1]) + other[1]

    return jax.lax.associative_scan(after, (j, b), reverse=reverse)[1]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _newton(how: tuple[Cell, float, int, bool], params: Any, carry: Carry, xs: Array, guess: Carry) -> Newton:
    cell, tolerance, most, sequential = how
    zx, first = cell.input_projection(params, xs), vector(carry)

    def off(states: Array, after: Array) -> Array:
        """The largest error up to each step."""
        error = jnp.max(jnp.abs(after - states), axis=-1)
        return jax.lax.cummax(jnp.where(jnp.isnan(error), jnp.inf, error), axis=0)

    def linearised(states: Array) -> tuple[Array, Array, Array]:
        """(f, J, b) at the states: f one step on, and the recurrence that their next values solve."""
        before = jnp.concatenate([first[None], states[:-1]])
        after, j = jacobians_at(cell, params, zx, parts(guess, before))
        after, j = vector(after), j.at[0].set(0)  # the state before the first step is known
        return after, j, after - jnp.einsum("...ij,...j->...i", j, before)

    def unfinished(loop: Any) -> Array:
        n, _, _, steps = loop
        return (n < most) & jnp.any(steps > n)

    def improved(loop: Any) -> Any:
        n, _, (after, j, b), steps = loop
        new = _recurrence(j, b, sequential)
        states = jnp.where(jnp.isfinite(new), new, after)
        at = linearised(states)
        return n + 1, states, at, jnp.where(off(states, at[0]) > tolerance, n + 2, jnp.minimum(steps, n + 1))

    states = vector(guess)
    at = linearised(states)
    steps = jnp.where(off(states, at[0]) > tolerance, 1, 0).astype(jnp.int32)
    _, found, _, steps = jax.lax.while_loop(unfinished, improved, (jnp.int32(0), states, at, steps))
    return Newton(parts(guess, found), steps)


def _forward(how: Any, params: Any, carry: Carry, xs: Array, guess: Carry) -> tuple[Newton, Any]:
    found: Any = _newton(how, params, carry, xs, guess)
    return found, (params, carry, xs, found.states)


def _backward(how: Any, kept: Any, cotangents: Newton) -> tuple[Any, Carry, Array, Carry]:
    cell, _, _, sequential = how
    params, carry, xs, states = kept
    before = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest[:-1]]), carry, states)
    _, j = jacobians_at(cell, params, cell.input_projection(params, xs), before)
    lam = adjoints(j, vector(cotangents.states), sequential)

    def step(params: Any, before: Carry, xs: Array) -> Carry:
        return advance(cell, params, cell.input_projection(params, xs), before)

    d_params, d_before, d_xs = jax.vjp(step, params, before, xs)[1](parts(states, lam))
    # What enters s_{t−1} through step t is in λ_{t−1} already; before the first step it is the carry's own.
    return d_params, jax.tree.map(lambda leaf: leaf[0], d_before), d_xs, jax.tree.map(jnp.zeros_like, states)


_newton.defvjp(_forward, _backward)
