"""Cells that are a diagonal linear recurrence in h, a step after the other or all steps at once.

    h_t = a_t ⊙ h_{t−1} + b_t        a_t and b_t are functions of x_t alone

A complex recurrence is one of real numbers, twice as many: h = [Re s, Im s]; then a_t has Re λ twice, and `turn` has
Im λ. So ‖∂L/∂h_t‖ is defined, and equals that of s.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.backend import optimization_barrier, side_by_side
from seqdyn.nets.cells import Cell, Hidden, Partials, split
from seqdyn.types import Array, ConfigError, Float, Key


class Coefficients(NamedTuple):
    """h_t = a ⊙ h_{t−1} + turn ⊙ (i h_{t−1}) + b; i h = [−Im s, Re s]."""

    a: Float[Array, "*b h"]
    b: Float[Array, "*b h"]
    turn: Float[Array, "*b h"] | None = None
    """None: the recurrence is real."""


def diagonal(
    init: Callable[[Key[Array, ""]], Any], coefficients: Callable[[Any, Float[Array, "*b d"]], Coefficients], width: int
) -> Cell:
    """The cell of `coefficients`(params, x), h_0 = 0.

    Nothing of a step waits for h but the recurrence itself, so that they are made for all steps before the scan.
    Backward: ∂L/∂a_t = λ_t ⊙ h_{t−1}, ∂L/∂b_t = λ_t, λ_{t−1} receives a_t ⊙ λ_t; of a complex s, conj(λ) times it.
    """

    def nonlinearity(params: Any, carry: Hidden, zx: Coefficients, zh: Any) -> tuple[Hidden, Partials]:
        if zx.turn is None:
            return Hidden(zx.a * carry.h + zx.b), (zx.a, carry.h)
        turned = optimization_barrier(_times_i(carry.h))
        return Hidden(zx.a * carry.h + zx.turn * turned + zx.b), (zx.a, carry.h, zx.turn, turned)

    def vjp(adjoint: Hidden, partials: Partials) -> tuple[Hidden, Coefficients, tuple[()]]:
        a, before, *rest = partials
        received = Coefficients(adjoint.h * before, adjoint.h)
        if not rest:
            return Hidden(adjoint.h * a), received, ()
        turn, turned = rest
        back = adjoint.h * a - _times_i(optimization_barrier(adjoint.h * turn))
        return Hidden(back), received._replace(turn=adjoint.h * turned), ()

    return Cell(
        gates=("h",),
        init=init,
        initial_carry=lambda batch: Hidden(jnp.zeros((*batch, width))),
        input_projection=coefficients,
        recurrent_projection=lambda params, h: (),  # h enters the nonlinearity alone
        nonlinearity=nonlinearity,
        vjp=vjp,
    )


def _times_i(h: Array) -> Array:
    re, im = split(h, 2)
    return side_by_side(-im, re)


def parallel(cell: Cell, params: Any, xs: Float[Array, "t *b d"]) -> Float[Array, "t *b h"]:
    """All states h_1 … h_T of a cell of `diagonal`, from rest, in O(log T) steps one after the other. Blelloch 1990.

    Equals `bptt.unroll` to rounding, and so does its gradient. It is for states and gradients; what is read of λ_t is
    read by `unroll`. Raises ConfigError for a cell that is no diagonal linear recurrence.
    """
    zx = cell.input_projection(params, xs)
    if not isinstance(zx, Coefficients):
        raise ConfigError(
            f"cell is one of {', '.join(cell.gates)} whose step is not linear in h; it must be a diagonal linear "
            "recurrence, as MinGRU, MinLSTM and LRU build."
        )
    a, b = zx.a, zx.b
    if zx.turn is not None:
        a, b = jax.lax.complex(split(a, 2)[0], split(zx.turn, 2)[0]), jax.lax.complex(*split(b, 2))

    def after(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
        return other[0] * one[0], other[0] * one[1] + other[1]

    _, states = jax.lax.associative_scan(after, (a, b))
    return states if zx.turn is None else side_by_side(states.real, states.imag)
