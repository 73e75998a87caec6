"""Where an update broke: the first number on its way that is Inf or NaN, in the order in which an update is made.

    batch, parameters, each layer's states from below, step by step, the predictions, the loss,
    each layer's adjoints from above, step by step backwards, the gradient, the optimiser's moments, the update

A run is frozen before the first update that is not finite (`TrainState.alive`), so its state is still what that update
was made of: nothing has to be kept while it trains.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.backend import compiled
from seqdyn.data.tasks import Batch, draws_ids
from seqdyn.learn import model, network, train
from seqdyn.learn.objective import gradient, layer_passes, watches
from seqdyn.learn.spec import Spec
from seqdyn.learn.train import TrainState
from seqdyn.nets.stack import scan_forward
from seqdyn.norms import tree_norm
from seqdyn.parts import is_part
from seqdyn.types import Array, Tree


class Break(NamedTuple):
    """The first number that is not finite."""

    what: str
    """'batch', 'parameters', 'state', 'predictions', 'loss', 'adjoint', 'gradient', 'moments', 'update' or 'norm'."""
    name: str = ""
    """The parameter, the moment, the scan of a network that is no stack, and of its loss 'network', as its states are
    its own; of a state the gate whose pre-activation is not finite either, or else 'h' or 'c'."""
    layer: int | None = None
    time: int | None = None
    """Index of the step in the batch, 0 the first; where each example has one number, None."""
    example: int | None = None
    """Index in the batch: of `time` and `example` those that are met first, forwards or backwards in time."""
    value: float = float("nan")
    """Inf, −Inf or NaN; of an adjoint log₂ of its size, which no float has."""

    def __str__(self) -> str:
        at = [f"layer {self.layer}"] if self.layer is not None else []
        at += [f"step {self.time}"] if self.time is not None else []
        at += [f"example {self.example}"] if self.example is not None else []
        what = {
            "batch": f"the batch has {self.value:g}"
            + (", no id of the vocabulary," if np.isfinite(self.value) else ""),
            "parameters": f"the parameter {self.name} is {self.value:g}",
            "state": f"{self.name} of the forward pass is {self.value:g}",
            "predictions": f"the prediction is {self.value:g}, of states that are finite",
            "loss": f"the loss is {self.value:g}" + ("" if self.name else ", of predictions that are finite"),
            "adjoint": f"the adjoint {self.name or '∂L/∂h_t'} overflows (its size is 2^{self.value:.0f})"
            if np.isfinite(self.value)
            else f"the adjoint {self.name or '∂L/∂h_t'} is {self.value:g}",
            "gradient": f"the gradient of {self.name} is {self.value:g}, of adjoints that are finite",
            "norm": f"the norm of the {self.name} is {self.value:g}, of numbers that are finite",
            "moments": f"the optimiser's {self.name} is {self.value:g}, after a gradient that is finite",
            "update": f"the update of {self.name} is {self.value:g}, of a gradient that is finite",
        }[self.what]
        return what + (f" at {', '.join(at)}" if at else "")


def first_break(spec: Spec, state: TrainState, batch: Batch) -> Break | None:
    """Of the update that `state` and its batch make; None where all of it is finite.

    Where the gradient of a term of the objective (`Spec.penalties`) is not finite, that is found as 'gradient'.
    """
    given = jax.tree.map(jnp.asarray, (state, batch))
    ids = np.asarray(batch.xs)[..., None] if draws_ids(spec) else np.zeros((0, 1))
    wrong = _first("batch", (ids < 0) | (ids >= spec.vocabulary), ids)
    for found in (
        wrong and wrong._replace(name="xs"),
        _of_batch({"xs": batch.xs}, batch),
        _of_leaves("parameters", state.params),
    ):
        if found:
            return found
    numbers, structure = jax.tree.flatten(spec)
    seen = jax.device_get(_looking(structure)(numbers, given))
    if spec.network is None:
        seen["gates"] = [cell.gates for cell in model.layers(spec)]
    return next((found for found in _in_order(spec, seen, state, batch) if found), None)


@cache
def _looking(structure: Any) -> Any:
    """Of all specs of one structure, compiled."""

    def looked(numbers: Any, given: Any) -> dict[str, Any]:
        spec = jax.tree.unflatten(structure, numbers)
        return (_stack if spec.network is None else _network)(spec, *given)

    return compiled(looked)


# --- what is looked at ------------------------------------------------------------------------------------------


def _stack(spec: Spec, state: TrainState, batch: Batch) -> dict[str, Any]:
    carries = train.initial_carry(spec, state.carries, batch)
    output = model.run(spec, state.params, batch, carries)
    ran = layer_passes(spec, state.params, batch, watches(spec, adjoint=True), carries)
    layers = []
    for layer, reading in ((one.ran, one.reading) for one in ran):
        before, after, zx = scan_forward(layer.cell, layer.params, layer.carry, layer.xs, layer.mask)
        zh = layer.cell.recurrent_projection(layer.params, before.h)
        z = [leaf for leaf in jax.tree.leaves((zx, zh)) if isinstance(leaf, Array)]
        z += [z[0] + z[1]] if len(z) == 2 and z[0].shape == z[1].shape else []
        layers.append({"z": z, "states": after._asdict(), "adjoint": _logs(reading)})
    made = gradient(spec, state.params, batch, carries)
    moved = train.optimizer_step(spec, state, made.grads, batch, carries)
    each = model.losses(spec, output.predictions, batch.ys)
    return {
        "layers": layers,
        "predictions": output.predictions,
        "losses": jnp.where(model.weights(spec, batch) > 0, each, 0),
        "loss": made.forward.loss,
        "grads": made.grads,
    } | _moves(moved)


def _logs(reading: Any) -> Array:
    """log₂ of the size of every entry of λ_t, [t, b, parts of the carry side by side]."""
    sizes = jnp.log2(jnp.abs(jnp.concatenate(jax.tree.leaves(reading.adjoint), axis=-1)))
    return sizes + jnp.broadcast_to(reading.exponent[..., None].astype(sizes.dtype), sizes.shape)


def _network(spec: Spec, state: TrainState, batch: Batch) -> dict[str, Any]:
    made = network.gradient(spec, state.params, batch)
    moved = train.optimizer_step(spec, state, made.grads, batch)
    scans = {name: one.each_log2 for name, one in made.seen.items()}
    return {"scans": scans, "loss": made.forward.loss, "grads": made.grads} | _moves(moved)


def _moves(moved: train.OptimizerStep) -> dict[str, Any]:
    norms = jnp.stack([tree_norm(update) for update in model.groups(moved.updates).values()])
    return {"opt": moved.opt, "updates": moved.updates, "update_norms": norms, "gradient_norms": moved.by_group}


# --- in the order in which it is made ---------------------------------------------------------------------------


def _in_order(spec: Spec, seen: dict[str, Any], state: TrainState, batch: Batch) -> Iterator[Break | None]:
    layers = seen.get("layers", [])
    turned = model.is_reversed(spec) if layers else ()
    for i, layer in enumerate(layers):
        yield _of_states(i, layer, seen["gates"][i], turned[i])
    if layers:
        yield _first("predictions", ~np.isfinite(seen["predictions"]), seen["predictions"])
    if not np.isfinite(seen["loss"]):  # a loss may leave out targets that are NaN
        yield _of_batch({"ys": batch.ys}, batch)
    if layers:
        yield _first("loss", ~np.isfinite(seen["losses"])[..., None], seen["losses"][..., None])
    if not np.isfinite(seen["loss"]):
        yield Break("loss", "" if layers else "network", value=float(seen["loss"]))
    ends = np.log2(np.finfo(seen["loss"].dtype).max)
    for i, layer in reversed([*enumerate(layers)]):
        yield _of_adjoint("", layer["adjoint"], ends, layer=i, turned=turned[i])
    for name, logs in seen.get("scans", {}).items():
        yield _of_adjoint(name, logs.reshape(-1, logs.shape[-1])[..., None], ends)
    yield _of_leaves("gradient", seen["grads"])
    own = not isinstance(spec.optimizer, str) or is_part(spec.clip)
    before = jax.device_get(state.opt)
    yield _of_leaves("moments", jax.tree.map(_moved, seen["opt"], before) if own else seen["opt"])
    yield _of_leaves("update", seen["updates"])
    for what in ("gradient", "update"):
        for group, value in zip(model.groups(seen["updates"]), seen[f"{what}_norms"], strict=True):
            if not np.isfinite(value):
                yield Break("norm", f"{what} of {group}", value=float(value))


def _moved(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """A moment where it was finite: in an optimiser of one's own something may begin at infinity."""
    return np.where(np.isfinite(old), new, 0) if jnp.issubdtype(new.dtype, jnp.floating) else new


def _of_batch(parts: dict[str, Any], batch: Batch) -> Break | None:
    steps = {leaf.shape[:2] for _, leaf in _floats(batch.xs)}
    for name, leaf in _floats(parts):
        each = leaf if leaf.ndim > 1 and (name.startswith("xs") or leaf.shape[:2] in steps) else leaf[:, None]
        numbers = each.reshape(*each.shape[:2], -1)
        found = _first("batch", ~np.isfinite(numbers), numbers)
        if found:
            return found._replace(name=name, **({} if each is leaf else {"time": None, "example": found.time}))
    return None


def _of_leaves(what: str, tree: Tree) -> Break | None:
    for name, leaf in _floats(tree):
        if not np.isfinite(leaf).all():
            return Break(what, name, value=float(leaf[~np.isfinite(leaf)][0]))
    return None


def _of_states(i: int, layer: dict[str, Any], gates: tuple[str, ...], turned: bool) -> Break | None:
    """The first step at which a layer's state is not finite, by the name of the gate whose pre-activation is not there
    either, if there is one: alone that is no fault, as a sigmoid of infinity is 1."""
    states = layer["states"]
    side_by_side = np.concatenate([*states.values()], axis=-1)
    found = _first("state", ~np.isfinite(side_by_side), side_by_side, layer=i, turned=turned)
    if found is None or found.time is None:
        return found
    t = len(states["h"]) - 1 - found.time if turned else found.time
    blocks = [
        (gate, block)
        for z in layer["z"]
        if z.ndim == 3 and gates and z.shape[-1] == len(gates) * states["h"].shape[-1]
        for gate, block in zip(gates, np.split(z, len(gates), axis=-1), strict=True)
    ]
    for name, values in (*blocks, *states.items()):
        there = values[t, found.example]
        if not np.isfinite(there).all():
            return found._replace(name=name, value=float(there[~np.isfinite(there)][0]))
    return found


def _of_adjoint(name: str, logs: np.ndarray, ends: float, **at: Any) -> Break | None:
    """Of log₂ of its size: beyond the ends of floats, or NaN."""
    found = _first("adjoint", np.isnan(logs) | (logs > ends), logs, back=True, **at)
    return found._replace(name=name) if found else None


def _first(
    what: str, bad: np.ndarray, values: np.ndarray, back: bool = False, turned: bool = False, **at: Any
) -> Break | None:
    """The first of [t, b, k] or [b, k] that is bad, in time or `back` in it; `turned` reads from the last step."""
    if not bad.any():
        return None
    if bad.ndim == 2:
        example = int(bad.any(axis=-1).argmax())
        return Break(what, example=example, value=float(values[example][bad[example]][0]), **at)
    times = np.flatnonzero(bad.any(axis=(1, 2)))
    t = int(times[-1] if back else times[0])
    example = int(bad[t].any(axis=-1).argmax())
    value = float(values[t, example][bad[t, example]][0])
    return Break(what, time=len(bad) - 1 - t if turned else t, example=example, value=value, **at)


def _floats(tree: Tree) -> list[tuple[str, np.ndarray]]:
    """(path, values) of the leaves that are floats."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    named = [(jax.tree_util.keystr(path, simple=True, separator="."), np.asarray(leaf)) for path, leaf in leaves]
    return [(name, leaf) for name, leaf in named if jnp.issubdtype(leaf.dtype, jnp.floating)]
