"""Where a network goes on from the last states of sequences under a constant input: into how many attractors.

Ribeiro, Tiels, Aguirre & Schön 2020 (arXiv 1906.08482) draw these orbits along training. What must be told apart for
ever needs an attractor for each of its values.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import seqdyn as sd
from experiments._measured import check_memory
from seqdyn.measure.jacobians import parts, vector
from seqdyn.nets.bptt import Backprop, unroll
from seqdyn.nets.cells import Cell, advance
from seqdyn.norms import norm
from seqdyn.types import Array, Bool, Float, Int, whole

CLASSES = 4
"""Of temporal order."""
WINDOW = 256
"""The last steps of a wait, in which orbits have settled or not."""
SEEN = 16
"""The last steps that are kept, for the diagram."""
PERIODS = 8
"""The longest cycle that counts as one."""
STILL = 1e-3
"""A settled orbit comes back this near: the largest difference of a unit."""
TOUCHING = 4
"""The last states of an orbit that may lie on another."""
APART = 0.05
"""Two orbits end in one set where one comes this near to the other."""


def check(wait: int, orbits: int, hidden: int) -> None:
    """Raises ConfigError for a wait too short to be seen, no orbits, or more than this machine can hold."""
    sizes = {"wait": whole("wait", wait, 2 * SEEN), "orbits": whole("orbits", orbits, 1), "hidden": hidden}
    check_memory(sizes, wait * orbits * hidden)


class Ends(NamedTuple):
    """What orbits do in a window."""

    period: Int[Array, " b"]
    """1 of a fixed point, p of a cycle; 0 of what is neither."""
    attractors: Int[Array, ""]
    """How many sets they end in."""


def ends(states: Float[Array, "t b n"]) -> Ends:
    """A period p ≤ `PERIODS` is the smallest whose last p states, repeated, are all of the window's to `STILL`.

    Two orbits end in one set where one of the last `TOUCHING` states of one lies within `APART` of a state of the
    other, or where a chain of such orbits leads from one to the other. So orbits on one closed curve, or in one band of
    chaos that the window fills, count once.
    """
    t, b = states.shape[:2]

    def repeats(p: int) -> Bool[Array, " b"]:
        last = states[t - p + (jnp.arange(t) - t) % p]
        return jnp.max(jnp.abs(states - last), axis=(0, 2)) <= STILL

    found = jnp.stack([jnp.zeros(b, bool), *(repeats(p) for p in range(1, PERIODS + 1))])
    period = jnp.argmax(found, axis=0).astype(jnp.int32)
    touch = states[-TOUCHING:, :, None]

    def nearest(state: Float[Array, "b n"]) -> Float[Array, "b b"]:
        return jnp.min(jnp.max(jnp.abs(touch - state[None, None]), axis=-1), axis=0)

    near = jnp.min(jax.lax.map(nearest, states), axis=0) <= APART  # [one, other]
    near = near | near.T
    for _ in range(max(1, (b - 1).bit_length())):  # paths of twice the length
        near = (near.astype(jnp.float32) @ near.astype(jnp.float32)) > 0
    return Ends(period, jnp.sum(jnp.argmax(near, axis=1) == jnp.arange(b)).astype(jnp.int32))


def wait(
    cell: Cell, params: Any, carry: Any, x: Float[Array, " d"], steps: int, tangent: Float[Array, "b n"]
) -> tuple[Float[Array, "w b n"], Float[Array, "w b h"], Float[Array, " b"]]:
    """(the states of the second half of a wait under a constant input, their outputs, each orbit's largest exponent).

    The exponent is the mean growth of a tangent over that half without its first fifth, which turns it.
    """
    zx = cell.input_projection(params, x)[None]
    zx = jnp.broadcast_to(zx, (tangent.shape[0], zx.shape[-1]))
    forward = partial(advance, cell, params, zx)
    half = steps // 2

    def walk(kept: Any, _: None) -> tuple[Any, Any]:
        carry, tangent = kept
        after, moved = jax.jvp(forward, (carry,), (parts(carry, tangent),))
        size = jnp.maximum(norm(vector(moved)), 1e-30)
        return (after, vector(moved) / size[:, None]), (vector(after), after.h, jnp.log(size))

    carry = jax.lax.fori_loop(0, steps - half, lambda _, c: forward(c), carry)
    states, outputs, growth = jax.lax.scan(walk, (carry, tangent), None, length=half)[1]
    return states, outputs, jnp.mean(growth[half // 5 :], axis=0)


@sd.part
class Orbits:
    """Where the network goes from the last states of sequences, under the mean of all distractors."""

    wait: int
    orbits: int

    @property
    def variables(self) -> dict[str, sd.Variable]:
        axes = {"orbit": tuple(range(self.orbits)), "seen": tuple(range(SEEN))}
        one = {"orbit": axes["orbit"]}
        return {
            "orbit_read": sd.Variable(("orbit", "seen"), "mean class that the readout gives", axes=axes),
            "orbit_class": sd.Variable(("orbit",), "class of the sequence before", axes=one),
            "orbit_period": sd.Variable(("orbit",), "1: a fixed point, p: a cycle, 0: neither", axes=one),
            "orbit_exponent": sd.Variable(("orbit",), "largest Lyapunov exponent", "nats per step", one),
            "attractors": sd.Variable((), "sets that the orbits end in"),
            "held": sd.Variable((), "share of sequences whose class is still read out"),
        }

    def measure(self, look: sd.Look) -> dict[str, Any]:
        ran = look.layers[0].ran
        _, carry = unroll(ran.cell, ran.params, ran.carry, ran.xs, Backprop(ran.mask))
        x = jnp.full(ran.xs.shape[-1], 0.25).at[:2].set(0)  # of {A, B, c, d, e, f}
        tangent = jax.random.normal(look.key, vector(carry).shape)
        states, outputs, exponent = wait(ran.cell, ran.params, carry, x, self.wait, tangent)
        readout = look.params.readout
        logits = outputs[-SEEN:] @ readout.w
        logits = logits + jnp.broadcast_to(readout.b, logits.shape)
        classes = jnp.arange(CLASSES, dtype=logits.dtype)
        right = jnp.argmax(logits, axis=-1) == look.batch.ys[None]
        found = ends(states[-WINDOW:])
        return {
            "orbit_read": (jax.nn.softmax(logits) @ classes).T,
            "orbit_class": look.batch.ys,
            "orbit_period": found.period,
            "orbit_exponent": exponent,
            "attractors": found.attractors,
            "held": jnp.mean(right.astype(jnp.float32)),
        }
