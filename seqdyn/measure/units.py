"""What the units of a cell do on a batch: how far their gates are from saturation, which are dead, how long an open
gate remembers, and by which path the gradient of an LSTM's memory comes.

Every gate is v = φ(z) of its own pre-activation z. What multiplies (i, f, o of the LSTM, r and z of the GRU) is a
sigmoid, whose margin is min(v, 1 − v), the distance to the nearer end: below 0.1 it is left- or right-saturated
(Karpathy, Johnson & Li 2015, §4.2). What enters the state (h of an rnn, g, n) has the margin |φ'(z)|, what a gradient
keeps when it passes; it is held to the same 0.1, which tanh crosses at |v| = 0.95.

A scan runs inside these functions: outside a probe, call them under `backend.compiled`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from seqdyn.data.tasks import Batch
from seqdyn.learn import model
from seqdyn.learn.model import Model
from seqdyn.learn.spec import Spec
from seqdyn.learn.train import TrainState
from seqdyn.measure.view import View, among
from seqdyn.nets.bptt import Tap, at_end
from seqdyn.nets.cells import Carry, Cell, Memory
from seqdyn.nets.stack import scan_forward
from seqdyn.norms import norm, rms
from seqdyn.types import Array, Bool, Float

CANDIDATES = frozenset("hgn")
"""The gates that enter the state; every other gate is a sigmoid that multiplies."""
SATURATED = 0.1
"""The margin below which a gate counts as saturated."""
Activity = dict[str, tuple[Float[Array, "t *b h"], Float[Array, "t *b h"]]]
"""gate -> (v, φ'(z)) at every step."""


def activity(
    cell: Cell, params: Any, carry: Carry, xs: Float[Array, "t *b d"], mask: Bool[Array, " t *b"] | None = None
) -> Activity:
    """v and φ'(z) of every gate at every step, by the names of `cell.gates`; a NaN slope where v is NaN.

    On padding (`mask` False) the carry is held, and the entry is what the step would have done. Raises ValueError
    for a cell without `units`.
    """
    return _run(cell, params, carry, xs, mask)[0]


def _run(cell: Cell, params: Any, carry: Carry, xs: Array, mask: Array | None) -> tuple[Activity, Carry]:
    """(activity, the carry after each step [t, *b, h])."""
    if cell.units is None:
        raise ValueError(f"a cell with the gates {cell.gates} has no `units` to look at")
    before, after, zx = scan_forward(cell, params, carry, xs, mask)
    units = cell.units(params, before, zx, cell.recurrent_projection(params, before.h))
    # A slope that is found by comparison, as a ReLU's, takes NaN for a number below 0.
    return {gate: (v, jnp.where(jnp.isnan(v), v, slope)) for gate, (v, slope) in units.items()}, after


def margins(seen: Activity) -> dict[str, Float[Array, "t *b h"]]:
    """min(v, 1 − v) of a sigmoid gate, in [0, ½]; |φ'(z)| of what enters the state."""
    return {gate: jnp.abs(slope) if gate in CANDIDATES else jnp.minimum(v, 1 - v) for gate, (v, slope) in seen.items()}


def dead(seen: Activity, mask: Bool[Array, " t *b"] | None = None) -> Float[Array, " h"]:
    """1 for a unit whose slopes are 0 in every gate, at every valid step of every example; else 0; NaN if one is NaN.

    Its weights then receive no gradient at all from this batch: the dead ReLU (Maas, Hannun & Ng 2013). A smooth φ
    is never dead in exact arithmetic, so what is counted of it has saturated to the last bit (in float32, tanh beyond
    |z| = 9 at *every* step).
    """
    largest = [jnp.max(_masked(jnp.abs(slope), mask), axis=tuple(range(slope.ndim - 1))) for _, slope in seen.values()]
    return 1 - jnp.sign(jnp.max(jnp.stack(largest), axis=0))


def time_constant(seen: Activity, mask: Bool[Array, " t *b"] | None = None) -> Float[Array, " h"]:
    """τ = −1 / mean log f, in steps, over valid steps and examples, f what multiplies the old state: the LSTM's f, the
    GRU's z; NaN for a cell with neither.

    After τ steps, ∏ f has fallen to 1/e on its path through these gates (Tallec & Ollivier 2018, §2); ways around
    them, through h, are not counted. In float32 f rounds to 1, and τ to ∞, beyond 10⁷ steps.
    """
    gate = next((gate for gate in ("f", "z") if gate in seen), None)
    if gate is None:
        v = next(iter(seen.values()))[0]
        return jnp.full(v.shape[-1:], jnp.nan, v.dtype)
    f = seen[gate][0]
    count = jnp.asarray(f[..., 0].size, f.dtype) if mask is None else jnp.sum(mask).astype(f.dtype)
    # |log f|, lest 0 be negative and τ −∞ where f is 1.
    return count / jnp.sum(_masked(jnp.abs(jnp.log(f)), mask), axis=tuple(range(f.ndim - 1)))


def paths(
    cell: Cell,
    params: Any,
    carry: Memory,
    xs: Float[Array, "t *b d"],
    adjoint: Memory,
    mask: Bool[Array, " t *b"] | None = None,
) -> tuple[Float[Array, "t *b h"], Float[Array, "t *b h"]]:
    """The total derivative of an LSTM's c_t, by the path it takes: λ^c_t (on through c) and λ^h_t ⊙ o_t(1 − tanh² c_t)
    (out through h_t). Their sum is dL/dc_t, h_t moving with c_t.

    `adjoint` is λ_t of c and of h with the other held fixed, as `bptt.Tap.adjoint` reads it.
    """
    return _paths(*_run(cell, params, carry, xs, mask), adjoint)


def _paths(seen: Activity, after: Memory, adjoint: Memory) -> tuple[Array, Array]:
    return adjoint.c, adjoint.h * seen["o"][0] * (1 - jnp.square(jnp.tanh(after.c)))


def adjoints(spec: Spec, params: Model, batch: Batch) -> tuple[Carry, ...]:
    """λ_t of every layer, [t, b, h] for each part of its carry, of the batch-mean loss, before adjoint clipping at its
    own step; truncation and padding as in training; steps in the order in which the layer reads them."""
    steps, size = batch.xs.shape[:2]

    def zeros(leaf: Array) -> Array:
        return jnp.zeros((steps, *leaf.shape), leaf.dtype)

    watches = tuple(Tap(adjoint=jax.tree.map(zeros, cell.initial_carry((size,)))) for cell in model.layers(spec))
    readings = jax.grad(lambda watches: model.loss(spec, params, batch, watches))(watches)
    return tuple(reading.adjoint for reading in readings)


def _masked(x: Array, mask: Array | None) -> Array:
    """x [t, *b, h] with 0 on padding."""
    return x if mask is None else jnp.where(jnp.broadcast_to(mask[..., None], x.shape), x, jnp.zeros_like(x))


# --- the probe ----------------------------------------------------------------------------------------------


def measure(spec: Spec, state: TrainState, view: View) -> dict[str, Array]:
    """The records of one run on the diagnostic batch.

    [layer, gate, time], means over units and the examples that reach that lag (NaN where none does): `gate_mean` of
    v, `saturation_margin` of the margin, `saturated` of 'the margin is below 0.1'.
    [layer]: `dead_fraction` of the units.    [layer, unit]: `time_constant`, NaN beyond a layer's width.
    [layer, time]: `adjoint_c_through_c`, `adjoint_c_through_h`, root mean squares over examples of the norms of the
    two parts of dL/dc_t, on each example's own loss; NaN for a cell without c.
    """
    batch = view.batch
    steps, size = batch.xs.shape[:2]
    reach = jnp.ones((steps, size)) if batch.mask is None else batch.mask.astype(jnp.float32)
    count = jnp.sum(at_end(reach, batch.mask), axis=1)

    def over_examples(reading: Float[Array, "g t b h"], mask: Array | None) -> Float[Array, "g t"]:
        mean = jnp.mean(reading, axis=-1)
        mean = mean if mask is None else jnp.where(jnp.broadcast_to(mask[None], mean.shape), mean, 0)
        ended = jax.vmap(lambda mean: at_end(mean, mask))(mean)
        return jnp.sum(ended, axis=-1) / count[None]  # 0 / 0 where no sequence is that long

    def root_mean_square(part: Float[Array, "t b h"], mask: Array | None) -> Float[Array, " t"]:
        square = size * rms(at_end(norm(_masked(part, mask)), mask), count)
        return jnp.where(count > 0, square, jnp.nan)

    def of(layer: model.Layer, adjoint: Carry) -> dict[str, Array]:
        mask = layer.mask
        seen, after = _run(*layer[:5])
        gates, by_gate = layer.cell.gates, margins(seen)
        v, margin = jnp.stack([seen[g][0] for g in gates]), jnp.stack([by_gate[g] for g in gates])
        low = jnp.where(jnp.isnan(margin), margin, (margin < SATURATED).astype(margin.dtype))
        found = {
            name: among(over_examples(value, mask), gates, model.gates(spec), 0)
            for name, value in (("gate_mean", v), ("saturation_margin", margin), ("saturated", low))
        } | {"dead_fraction": jnp.mean(dead(seen, mask))}
        tau = time_constant(seen, mask)
        found["time_constant"] = jnp.pad(tau, (0, max(spec.hidden) - tau.shape[0]), constant_values=jnp.nan)
        nothing = jnp.full((steps,), jnp.nan)
        through = (nothing, nothing)
        if isinstance(after, Memory) and isinstance(adjoint, Memory):
            through = [root_mean_square(part, mask) for part in _paths(seen, after, adjoint)]
        return found | dict(zip(("adjoint_c_through_c", "adjoint_c_through_h"), through, strict=True))

    stack = model.per_layer(spec, state.params, batch)
    found = [of(*pair) for pair in zip(stack, adjoints(spec, state.params, batch), strict=True)]
    return {name: jnp.stack([layer[name] for layer in found]) for name in found[0]}
