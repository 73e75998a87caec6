"""One update at full resolution: every state, gate and adjoint of every layer, step and example.

`records` have their norms, over examples; this is what they are norms of, for a look at a few updates.
"""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.backend import compiled
from seqdyn.data.batches import Batch
from seqdyn.learn import model, network, precision, train
from seqdyn.learn.objective import layer_passes, watches
from seqdyn.learn.spec import Spec
from seqdyn.learn.train import TrainState
from seqdyn.nets.dropped import Masked
from seqdyn.nets.stack import scan_forward
from seqdyn.norms import norm, power_of_two
from seqdyn.types import Array

_EACH = ("layer", "time", "example")
DIMS: dict[str, tuple[str, ...]] = {
    "h": (*_EACH, "unit"),
    "c": (*_EACH, "unit"),
    "adjoint": (*_EACH, "unit"),
    "adjoint_c": (*_EACH, "unit"),
    "example_adjoint_norm": _EACH,
    "example_adjoint_log_norm": _EACH,
    "adjoint_scale": _EACH,
    "gate_value": ("layer", "gate", "time", "example", "unit"),
    "gate_slope": ("layer", "gate", "time", "example", "unit"),
}
"""What there is of a layer, and its axes."""
NAMES = {
    "h": "state h_t, held on padding",
    "c": "state c_t, held on padding",
    "adjoint": "∂L/∂h_t of each example's own loss, before clipping at its own step; 0 on padding",
    "adjoint_c": "∂L/∂c_t of each example's own loss with h_t held fixed; 0 on padding",
    "example_adjoint_norm": "‖∂L/∂h_t‖ of each example",
    "example_adjoint_log_norm": "log₂ ‖∂L/∂h_t‖ of each example, beyond the range of floats, too; −∞ where it is 0",
    "adjoint_scale": "what clipping of the adjoint multiplied it by; 0 on padding",
    "gate_value": "value of each gate",
    "gate_slope": "derivative of each gate at its pre-activation",
}


class Full(NamedTuple):
    """What an update was made of."""

    batch: Batch
    layers: tuple[dict[str, Any], ...]
    """Of each layer by the names of `DIMS`, [t, b] or [t, b, unit], steps in the order of the batch; gates are a dict
    of theirs. Of a network that is no stack, of each watched scan, its norms alone."""


@cache
def program(structure: Any) -> Any:
    """(numbers of a spec, state, data) -> `Full` of the update that the state is before, compiled."""

    def found(numbers: Any, state: TrainState, data: Any) -> Full:
        spec = jax.tree.unflatten(structure, numbers)
        batch = train.sample(spec, data, train.batch_index(spec, data, state.step), state.step)
        return Full(batch._replace(noise=None), (_stack if spec.network is None else _scans)(spec, state, batch))

    return compiled(found)


def _stack(spec: Spec, state: TrainState, batch: Batch) -> tuple[dict[str, Any], ...]:
    carries = train.initial_carry(spec, state.carries, batch)
    ran = layer_passes(spec, state.params, batch, watches(spec, adjoint=True), carries)
    return precision.widened(spec.dtype, tuple(map(_layer, ran, model.is_reversed(spec))))


def _layer(one: Any, turned: bool) -> dict[str, Any]:
    layer, reading, size = one.ran, one.reading, one.ran.hs.shape[1]
    before, after, zx = scan_forward(layer.cell, layer.params, layer.carry, layer.xs, layer.mask)
    found: dict[str, Any] = {
        "h": layer.hs,
        "adjoint": one.adjoint,
        "example_adjoint_norm": (norms := norm(one.adjoint)),
        "example_adjoint_log_norm": _log2(norms, jnp.where(one.reached, one.log2, -jnp.inf)),
    }
    if hasattr(after, "c"):
        power = size * power_of_two(reading.exponent, reading.adjoint.c.dtype)
        found |= {"c": after.c, "adjoint_c": reading.adjoint.c * jnp.broadcast_to(power[..., None], after.c.shape)}
    if reading.scale is not None:
        found["adjoint_scale"] = reading.scale
    if layer.cell.units is not None and not isinstance(zx, Masked):
        seen = layer.cell.units(layer.params, before, zx, layer.cell.recurrent_projection(layer.params, before.h))
        found |= {
            name: {gate: of[i] for gate, of in seen.items()} for i, name in enumerate(("gate_value", "gate_slope"))
        }
    return jax.tree.map(lambda leaf: jnp.flip(leaf, axis=0), found) if turned else found


def _log2(norms: Array, logs: Array) -> Array:
    """NaN, too, where λ is NaN: the exponent that the backward scan carries has no NaN."""
    return jnp.where(jnp.isnan(norms), norms, logs)


def _scans(spec: Spec, state: TrainState, batch: Batch) -> tuple[dict[str, Array], ...]:
    seen = network.gradient(spec, state.params, batch).seen

    def flat(leaf: Array) -> Array:
        return leaf.reshape(-1, leaf.shape[-1])  # a scan within scans has their times before

    each = {name: (flat(seen[name].each), flat(seen[name].each_log2)) for name in network.scans(spec)}
    return tuple(
        {"example_adjoint_norm": norms, "example_adjoint_log_norm": _log2(norms, logs)} for norms, logs in each.values()
    )
