"""What the next update would do, and how the adjoint's norms are spread over orders of magnitude.

Two updates are tried from a state and thrown away: with n its step, g_n the gradient of training batch n, Δw what
update n makes of it, and g_{n+1} the gradient of batch n + 1 where Δw has led,

    gradient ratio  ‖g_n‖ / ‖w‖       update ratio  ‖Δw‖ / ‖w‖      for each group of parameters (`model.groups`)
    cosines         cos(g_n, g_{n+1}), near −1 where steps bounce between walls, near 1 where they run along a valley;
                    cos(−g_n, Δw), how far the optimiser turns away from steepest descent
    effective rate  η · ‖clipped g‖ / ‖g‖, the scheduled rate times what clipping left
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.data.tasks import Batch, task_of
from seqdyn.learn import model, train
from seqdyn.learn.model import Model
from seqdyn.learn.spec import Spec
from seqdyn.learn.train import TrainState
from seqdyn.measure.view import View
from seqdyn.nets.bptt import log2_norm, taps
from seqdyn.norms import tree_norm
from seqdyn.types import Array, Bool, Float, Metrics, Tree

DECADES = np.arange(-60, 21)
"""Edges of the histogram's bins in log₁₀: bin i is DECADES[i] ≤ log₁₀‖λ‖ < DECADES[i + 1], the first and the last
open to the outside."""


def cosine(a: Tree, b: Tree) -> Float[Array, ""]:
    """⟨a, b⟩ / (‖a‖ ‖b‖) over all leaves; NaN where either is 0 or not finite."""
    sizes = tree_norm(a), tree_norm(b)
    products = jax.tree.map(lambda x, y: jnp.vdot(x / sizes[0], y / sizes[1]), a, b)
    return jnp.sum(jnp.stack(jax.tree.leaves(products)))


def next_updates(spec: Spec, state: TrainState, data: Tree) -> Metrics:
    """Of updates `state.step` and the one after, as training will make them: norms and ratios [group], and scalars.

    Gradients are those before clipping (of the gradient; clipping of the adjoint is inside them, and not in
    `effective_lr`). Ratios to a group whose weights are all 0, as biases may start, are NaN.
    """
    task = task_of(spec)
    indices = task.batch_indices(data, train.keys(spec).data, state.step + jnp.arange(2))

    def sample_batch(i: int) -> Batch:
        index = jax.tree.map(lambda leaf: leaf[i], indices)
        return train.sample(spec, data, index, state.step + i)

    first, second = sample_batch(0), sample_batch(1)
    carries = train.initial_carry(spec, state.carries, first)
    out, grads, *_ = train.gradient(spec, state.params, first, carries)
    move = train.optimizer_step(spec, state, grads, first, carries)
    moved = jax.tree.map(jnp.add, state.params, move.updates)
    carries = train.initial_carry(spec, None if carries is None else out.last, second)
    later = train.gradient(spec, moved, second, carries).grads

    def norms(tree: Model) -> Float[Array, " group"]:
        return jnp.stack([tree_norm(group) for group in model.groups(tree).values()])

    weight, lr = norms(state.params), move.said.get("learning_rate", jnp.full((), jnp.nan))

    def over_weight(x: Float[Array, " group"]) -> Float[Array, " group"]:
        return jnp.where(weight > 0, x / jnp.where(weight > 0, weight, 1), jnp.nan)

    pairs = zip(model.groups(grads).values(), model.groups(later).values(), strict=True)
    return {
        "group_weight_norm": weight,
        "group_gradient_ratio": over_weight(move.by_group),
        "group_update_ratio": over_weight(norms(move.updates)),
        "group_gradient_cosine": jnp.stack([cosine(a, b) for a, b in pairs]),
        "gradient_cosine": cosine(grads, later),
        "gradient_update_cosine": -cosine(grads, move.updates),
        "effective_lr": lr * move.said.get("clip_scale", jnp.ones(())),
    }


def adjoint_log10(spec: Spec, params: Model, batch: Batch) -> Float[Array, "l t b"]:
    """log₁₀‖λ_t‖, λ_t = ∂L_b/∂h_t on example b's own loss, of every layer: −∞ at 0, +∞ or NaN where not finite.

    Truncation and adjoint clipping act as in training. A norm far outside the range of floats is still a number.
    """
    steps, size = batch.xs.shape[:2]
    watches = tuple(taps(cell, steps, (size,), ranged=True) for cell in model.layers(spec))
    readings = jax.grad(lambda w: model.loss(spec, params, batch, w))(watches)
    # The loss is the batch's mean: times its size, a λ is its example's own.
    logs = [math.log10(size) + math.log10(2) * log2_norm(r.adjoint_norm.h, r.exponent) for r in readings]
    ways = zip(logs, model.is_reversed(spec), strict=True)
    return jnp.stack([jnp.flip(log, axis=0) if back else log for log, back in ways])


def histogram(
    log10: Float[Array, "t b"], mask: Bool[Array, "t b"]
) -> tuple[Float[Array, " decade"], Float[Array, ""], Float[Array, ""]]:
    """(counts in `DECADES`, fraction that is 0, fraction that is Inf or NaN) over the valid entries.

    Every valid entry is in exactly one of the three: no comparison with NaN decides.
    """
    zero = mask & jnp.isneginf(log10)
    counted = mask & jnp.isfinite(log10)
    bins = len(DECADES) - 1
    decade = jnp.clip(jnp.floor(jnp.where(counted, log10, 0)).astype(jnp.int32) - int(DECADES[0]), 0, bins - 1)
    counts = jnp.einsum("tb,tbd->d", counted.astype(jnp.float32), jax.nn.one_hot(decade, bins, dtype=jnp.float32))
    total = jnp.sum(mask.astype(jnp.float32))
    strange = mask & ~zero & ~counted
    return counts, jnp.sum(zero.astype(jnp.float32)) / total, jnp.sum(strange.astype(jnp.float32)) / total


def measure(spec: Spec, state: TrainState, view: View) -> Metrics:
    """`next_updates`, and [layer, decade] `adjoint_histogram` with [layer] `adjoint_zero` and `adjoint_nonfinite` on
    the diagnostic batch. NaN for a run that is no longer alive."""
    mask = jnp.ones(view.batch.xs.shape[:2], bool) if view.batch.mask is None else view.batch.mask
    logs = adjoint_log10(spec, state.params, view.batch)
    counts, zero, strange = jax.vmap(histogram, in_axes=(0, None))(logs, mask)
    looked = next_updates(spec, state, view.data) | {
        "adjoint_histogram": counts,
        "adjoint_zero": zero,
        "adjoint_nonfinite": strange,
    }
    return {name: jnp.where(state.running, value, jnp.nan) for name, value in looked.items()}
