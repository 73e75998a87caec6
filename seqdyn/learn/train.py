"""Training one run: `init`, `step`, `chunk`, `evaluate`, pure functions of (spec, hypers, state)."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.data.tasks import TASKS, Batch
from seqdyn.learn import model, optim
from seqdyn.learn.config import Hypers, Spec
from seqdyn.learn.model import Model
from seqdyn.nets.bptt import Watch, at_end, watching
from seqdyn.norms import Extended, mean_log2, norm, rms, rms_ranged, tree_norm
from seqdyn.types import Array, Bool, Float, Int, Metrics


class TrainState(NamedTuple):
    """Everything that changes; with (spec, hypers) it determines the rest of the run, bit for bit."""

    params: Model
    opt: Any
    step: Int[Array, ""]
    """Updates done."""
    alive: Bool[Array, ""]
    """False from the first step whose loss, gradient or update was not finite: the run is frozen before it."""


def keys(hypers: Hypers) -> tuple[Array, Array]:
    """(for parameters, for data) of a run: both from its seed alone."""
    root = jax.random.key(hypers.seed)
    return jax.random.fold_in(root, 0), jax.random.fold_in(root, 1)


def init(spec: Spec, hypers: Hypers) -> TrainState:
    """The state before the first update."""
    params = model.init(spec, hypers, keys(hypers)[0])
    return TrainState(params, optim.rule(spec, hypers).init(params), jnp.int32(0), jnp.bool_(True))


def watches(spec: Spec, hypers: Hypers) -> tuple[Watch, ...]:
    """One watch a layer, for a whole batch."""
    return tuple(
        watching(cell, spec.steps, (spec.batch,), clipped=spec.clip == "adjoint", ranged=True)
        for cell in model.layers(spec, hypers)
    )


def read(batch: Batch, readings: tuple[Watch, ...], clipped: bool) -> Metrics:
    """Adjoint norms [layer, time] from per-example readings of the batch-mean loss.

    λ_t is taken on example b's own loss (the readings times the batch size), aligned at the example's last live
    step. `adjoint_norm`: √ of the mean over the examples that reach that lag of ‖λ_b,t‖². `adjoint_log_norm`: the
    mean of log₂ ‖λ_b,t‖ over those of them where it is not 0, and `adjoint_nonzero`, their share. An LSTM's
    `adjoint_norm_c` is ∂L/∂c_t with h_t held fixed.
    """
    size = batch.xs.shape[1]
    live = jnp.ones(batch.xs.shape[:2], bool) if batch.live is None else batch.live
    count = jnp.sum(at_end(live.astype(jnp.float32), batch.live), axis=1)

    def ended(reading: Any) -> Float[Array, "t b"]:
        return at_end(reading, batch.live)

    def over_layers(norms: Callable[[Any, Float[Array, "t b"]], Any]) -> Any:
        return jax.tree.map(lambda *layers: jnp.stack(layers), *[norms(r, ended(r.exponent)) for r in readings])

    def logs(r: Any, exponent: Float[Array, "t b"]) -> tuple[Extended, Float[Array, " t"]]:
        mean, some = mean_log2(size * ended(r.whole.h), exponent)
        return mean, some / count

    metrics = {
        "adjoint_norm": over_layers(lambda r, e: size * rms_ranged(ended(r.whole.h), e, count)),
        "carried_norm": over_layers(lambda r, e: size * rms(ended(r.travelled.h), count)),
        "adjoint_count": count,
    }
    metrics["adjoint_log_norm"], metrics["adjoint_nonzero"] = over_layers(logs)
    if hasattr(readings[0].whole, "c"):
        metrics["adjoint_norm_c"] = over_layers(lambda r, e: size * rms_ranged(ended(r.whole.c), e, count))
    if clipped:
        scales = jnp.stack([r.scale for r in readings if r.scale is not None])
        steps = jnp.sum(live).astype(scales.dtype) * len(readings)
        metrics["clip_scale"] = jnp.sum(scales) / steps
        bitten = jnp.where(jnp.broadcast_to(live[None], scales.shape), scales < 1, False)
        metrics["clipped"] = jnp.sum(bitten).astype(scales.dtype) / steps
    return metrics


class Move(NamedTuple):
    """What one gradient does to a state."""

    updates: Model
    """Δw, to be added to the parameters."""
    opt: Any
    """The optimiser's state after it."""
    clipped: optim.Clipped
    by_group: Float[Array, " group"]
    """‖g‖ of each of `model.groups`, before clipping."""
    size: Float[Array, ""]
    """‖g‖ of all parameters, before clipping."""
    lr: Float[Array, ""]
    """The scheduled learning rate."""


def gradient(
    spec: Spec, hypers: Hypers, params: Model, batch: Batch
) -> tuple[Float[Array, ""], Model, tuple[Watch, ...]]:
    """(loss, its gradient, readings of the adjoint) on one batch, before clipping of the gradient."""

    def objective(params: Model, watch: tuple[Watch, ...]) -> Float[Array, ""]:
        return model.loss(spec, hypers, params, batch, watch)

    loss, (grads, readings) = jax.value_and_grad(objective, argnums=(0, 1))(params, watches(spec, hypers))
    return loss, grads, readings


def move(spec: Spec, hypers: Hypers, state: TrainState, grads: Model) -> Move:
    """Clip, rule and learning rate of update `state.step`."""
    by_group = jnp.stack([tree_norm(g) for g in model.groups(grads).values()])
    size = norm(by_group)
    clipped = optim.Clipped(grads, jnp.ones(()), jnp.zeros(()))
    if spec.clip != "adjoint":
        clip = {"norm": optim.clip_by_norm, "value": optim.clip_by_value}[spec.clip]
        clipped = clip(grads, hypers.clip, size)

    with jax.numpy_dtype_promotion("standard"):
        updates, opt = optim.rule(spec, hypers).update(clipped.grads, state.opt, state.params)
    lr = optim.learning_rate(spec, hypers, state.step)
    return Move(jax.tree.map(lambda u: -lr * u, updates), opt, clipped, by_group, size, lr)


def step(spec: Spec, hypers: Hypers, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """One update, and what it says of itself (`records.VARIABLES` defines each name)."""
    loss, grads, readings = gradient(spec, hypers, state.params, batch)
    metrics = {"loss": loss} | read(batch, readings, spec.clip == "adjoint")
    updates, opt, clipped, by_group, size, lr = move(spec, hypers, state, grads)
    if spec.clip != "adjoint":
        metrics |= {"clip_scale": clipped.scale, "clipped": clipped.fraction}
    metrics["learning_rate"] = lr
    update_norm = jnp.stack([tree_norm(u) for u in model.groups(updates).values()])

    finite = jnp.isfinite(loss) & jnp.isfinite(size) & jnp.all(jnp.isfinite(update_norm))
    for moment in jax.tree.leaves(opt):  # an infinite second moment would freeze Adam, with finite updates of 0
        if jnp.issubdtype(moment.dtype, jnp.floating):
            finite &= jnp.all(jnp.isfinite(moment))
    metrics |= {
        "grad_norm": size,
        "group_grad_norm": by_group,
        "group_update_norm": update_norm,
        "finite": finite,
    }
    params = jax.tree.map(jnp.add, state.params, updates)
    moved = TrainState(params, opt, state.step + 1, finite)
    stays = state._replace(step=state.step + 1, alive=finite)
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, stays), metrics


def nothing(shape: jax.ShapeDtypeStruct) -> Array:
    """What a run that is no longer alive reports: NaN, or False."""
    return jnp.full(shape.shape, jnp.nan if jnp.issubdtype(shape.dtype, jnp.floating) else 0, shape.dtype)


def chunk(spec: Spec, hypers: Hypers, state: TrainState, data: Any, updates: int) -> tuple[TrainState, Metrics]:
    """`updates` steps in one scan; metrics gain a leading axis of that length.

    A run that is no longer alive is skipped, its metrics NaN (False, for `finite`); only its step count goes on.
    """
    task = TASKS[spec.task](spec)
    tickets = task.tickets(data, keys(hypers)[1], state.step + jnp.arange(updates))

    def alive(state: TrainState, ticket: Any) -> tuple[TrainState, Metrics]:
        return step(spec, hypers, state, task.batch(data, "train", ticket))

    def dead(state: TrainState, ticket: Any) -> tuple[TrainState, Metrics]:
        shapes = jax.eval_shape(alive, state, ticket)[1]
        return state._replace(step=state.step + 1), jax.tree.map(nothing, shapes)

    def body(state: TrainState, ticket: Any) -> tuple[TrainState, Metrics]:
        return jax.lax.cond(state.alive, alive, dead, state, ticket)

    return jax.lax.scan(body, state, tickets)


def evaluate(spec: Spec, hypers: Hypers, state: TrainState, data: Any) -> Metrics:
    """`<split>_loss` (and `<split>_accuracy` of a binary task) on each held-out split, over all of its examples.

    NaN for a run that is no longer alive.
    """
    alive = partial(_evaluate, spec, hypers)

    def dead(state: TrainState, data: Any) -> Metrics:
        return jax.tree.map(nothing, jax.eval_shape(alive, state, data))

    return jax.lax.cond(state.alive, alive, dead, state, data)


def _evaluate(spec: Spec, hypers: Hypers, state: TrainState, data: Any) -> Metrics:
    task = TASKS[spec.task](spec)
    metrics = {}
    for split in task.splits:

        def one(ticket: Any, split: str = split) -> tuple[Array, ...]:
            batch = task.batch(data, split, ticket)
            weight = jnp.ones(batch.ys.shape) if batch.weight is None else batch.weight
            p = model.predict(spec, hypers, state.params, batch)
            right = (p > 0) == (batch.ys > 0.5)
            return jnp.sum(weight), weight @ model.losses(spec, p, batch.ys), weight @ right.astype(p.dtype)

        count, total, right = jax.tree.map(jnp.sum, jax.lax.map(one, task.holdout(data, split)))
        metrics[f"{split}_loss"] = total / count
        if task.loss == "binary":
            metrics[f"{split}_accuracy"] = right / count
    return metrics
