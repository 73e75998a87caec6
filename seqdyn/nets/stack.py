"""Layers on top of each other, and the same forward passes written plainly, which JAX differentiates.

`unroll_stack` runs all steps of one layer, then of the next, which lets each use one product for all its inputs. All
layers at one step, then at the next (`unroll_by_step`), and a loop in Python (`unroll_loop`) give the same numbers: a
scan is the folded form of the same recurrence.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.nets.bptt import Backprop, Tap, in_direction, unroll, where_valid
from seqdyn.nets.cells import Carry, Cell, advance, step
from seqdyn.types import Array, Bool, Float


class Layer(NamedTuple):
    """One recurrent layer as it ran on a batch, its steps in the order in which it read them: what the instruments
    of `measure` take apart."""

    cell: Cell
    params: Any
    carry: Carry
    """Before the first step."""
    xs: Float[Array, "t *b d"]
    """The network's inputs, or the outputs of the layer below."""
    mask: Bool[Array, " t *b"] | None
    hs: Float[Array, "t *b h"]
    """Its outputs."""

    @property
    def before(self) -> Float[Array, "t *b h"]:
        """h before each step."""
        return jnp.concatenate([self.carry.h[None], self.hs[:-1]])


class Stacked(NamedTuple):
    """What a stack did."""

    hs: Float[Array, "t *b h"]
    """Outputs of the top; of a bidirectional one both directions, side by side."""
    last: tuple[Carry, ...]
    """Every layer's carry after its last step."""
    layers: tuple[Layer, ...]


def unroll_stack(
    cells: tuple[Cell, ...],
    params: tuple[Any, ...],
    carries: tuple[Carry, ...],
    xs: Float[Array, "t *b d"],
    cut: Backprop = Backprop(),
    watches: tuple[Tap, ...] | None = None,
    by: Any = unroll,
    bidirectional: bool = False,
    masks: tuple[Array, ...] | None = None,
    inner: tuple[Array | None, ...] | None = None,
) -> Stacked:
    """The outputs of one level are the inputs of the next; one watch a layer. A stack of one is the cell.

    A level is a layer or, if `bidirectional`, two that read the same inputs, the first forwards, the second backwards
    (Schuster & Paliwal 1997); cells, params, carries and watches then alternate. `masks`, one [*b, d] a level,
    multiply its inputs, the same at every step; `inner`, one [t, *b, m] a layer or None, stand beside its inputs, for
    the cells of `dropped`. `by` unrolls a layer.
    """
    last, layers = [], []
    watches = watches or (Tap(),) * len(cells)
    ways = 2 if bidirectional else 1
    for level in range(len(cells) // ways):
        if masks is not None:
            xs = xs * jnp.broadcast_to(masks[level][None], xs.shape)
        outputs = []
        for i in range(ways * level, ways * (level + 1)):
            back = i > ways * level
            given = (cells[i], params[i], carries[i])
            noise = None if inner is None else inner[i]
            reads = xs if noise is None else jnp.concatenate([xs, noise], axis=-1)
            out, carry = in_direction(by, back, *given, reads, cut, watches[i])
            outputs.append(out)
            last.append(carry)
            mask = cut.mask if cut.mask is None or not back else jnp.flip(cut.mask, axis=0)
            read, written = (jnp.flip(reads, axis=0), jnp.flip(out, axis=0)) if back else (reads, out)
            layers.append(Layer(*given, read, mask, written))
        xs = outputs[0] if ways == 1 else jnp.concatenate(outputs, axis=-1)
    return Stacked(xs, tuple(last), tuple(layers))


# --- plainly ------------------------------------------------------------------------------------------------


def unroll_autodiff(
    cell: Cell,
    params: Any,
    carry: Carry,
    xs: Float[Array, "t *b d"],
    cut: Backprop = Backprop(),
    watch: Tap = Tap(),
) -> tuple[Float[Array, "t *b h"], Carry]:
    """`unroll`'s forward pass as a plain scan that JAX differentiates: the oracle it is held against.

    Knows `cut.mask`, and `watch.adjoint`, zeros that it adds to the state after each step: the gradient with respect to
    them is the adjoint. Raises ValueError for what has no meaning without our backward pass.
    """
    if cut.keep is not None or cut.clip is not None or watch._replace(adjoint=None) != Tap():
        raise ValueError("unroll_autodiff cannot truncate or clip the adjoint or read its norms; use unroll")
    # Where a step's input projection depends on the others' (on position, on the mean over all), it is taken at once.
    apart = cell.memory and cell.update_batch_stats is None
    whole = None if apart else cell.input_projection(params, xs)

    def body(carry: Carry, inputs: Any) -> tuple[Carry, Array]:
        x, zx, mask, zeros = inputs
        new = step(cell, params, carry, x) if apart else advance(cell, params, zx, carry)
        if zeros is not None:
            new = jax.tree.map(jnp.add, new, zeros)
        carry = where_valid(mask, new, carry)
        return carry, carry.h

    last, hs = jax.lax.scan(body, carry, (xs, whole, cut.mask, watch.adjoint))
    return hs, last


def scan_forward(
    cell: Cell, params: Any, carry: Carry, xs: Float[Array, "t *b d"], mask: Bool[Array, " t *b"] | None = None
) -> tuple[Carry, Carry, Any]:
    """(the carry before each step, the carry after it, zx): the path of a layer, held on padding."""
    zx = cell.input_projection(params, xs)

    def body(carry: Carry, inputs: Any) -> tuple[Carry, Carry]:
        new = where_valid(inputs[1], advance(cell, params, inputs[0], carry), carry)
        return new, new

    after = jax.lax.scan(body, carry, (zx, mask))[1]
    before = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest[:-1]]), carry, after)
    return before, after, zx


def unroll_loop(
    cell: Cell, params: Any, carry: Carry, xs: Float[Array, "t *b d"]
) -> tuple[Float[Array, "t *b h"], Carry]:
    """`unroll` as a loop in Python, the network drawn unrolled: T copies of the cell to compile instead of one."""
    hs = []
    for x in xs:
        carry = step(cell, params, carry, x)
        hs.append(carry.h)
    return jnp.stack(hs), carry


def unroll_by_step(
    cells: tuple[Cell, ...], params: tuple[Any, ...], carries: tuple[Carry, ...], xs: Float[Array, "t *b d"]
) -> tuple[Float[Array, "t *b h"], tuple[Carry, ...]]:
    """`unroll_stack` with all layers at step t before any at t + 1: what a network does that reads as it goes."""

    def body(carries: tuple[Carry, ...], x: Array) -> tuple[tuple[Carry, ...], Array]:
        new = []
        for cell, p, carry in zip(cells, params, carries, strict=True):
            new.append(step(cell, p, carry, x))
            x = new[-1].h
        return tuple(new), x

    last, hs = jax.lax.scan(body, carries, xs)
    return hs, last
