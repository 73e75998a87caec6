"""Training one run: `init`, `step`, `chunk`, `evaluate`, pure functions of (spec, state)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.data.augment import augmented
from seqdyn.data.check import check
from seqdyn.data.tasks import VECTORS, Batch, task_of
from seqdyn.learn import context, dropout, model, network, objective, optim, penalties, precision, start, stopping
from seqdyn.learn.objective import gradient, kind
from seqdyn.learn.own_cells import trains_apart
from seqdyn.learn.spec import Spec, check_one
from seqdyn.nets import statistics
from seqdyn.nets.bptt import Tap, at_end
from seqdyn.norms import Extended, mean_log2, norm, rms, rms_ranged, tree_norm
from seqdyn.parts import is_part
from seqdyn.types import Array, Bool, Float, Int, Key, Metrics, Tree, whole


class TrainState(NamedTuple):
    """Everything that changes; with the spec it determines the rest of the run, bit for bit."""

    params: Tree
    """A `Model`, or what a network's own `init` gives."""
    opt: Any
    step: Int[Array, ""]
    """Updates done."""
    alive: Bool[Array, ""]
    """False from the first step whose loss, gradient or update was not finite: the run is frozen before it."""
    carries: Any = None
    """Where a stateful task's last batch ended: every layer's carry. None for other tasks."""
    stopping: Any = None
    """What early stopping remembers, a `stopping.Stopping`. None without it."""

    @property
    def running(self) -> Any:
        """Is there anything to train? Neither for a run that diverged nor for one that was stopped."""
        return self.alive if self.stopping is None else self.alive & ~self.stopping.stopped


class Keys(NamedTuple):
    """What is random in a run: all from its seed alone."""

    params: Key[Array, ""]
    data: Key[Array, ""]
    noise: Key[Array, ""]
    """Of dropout and gates."""
    floss: Key[Array, ""]
    """Of what flossing looks at before training."""
    sampling: Key[Array, ""]
    """Of Monte Carlo evaluation."""
    augment: Key[Array, ""]
    """Of changes of training batches."""


RECORDS, PROBES, RULES = range(len(Keys._fields), len(Keys._fields) + 3)
"""Whose key `key_of` gives, beside those of a run."""


def keys(spec: Spec) -> Keys:
    """The keys of a run."""
    root = jax.random.key(spec.numbers.seed)
    return Keys(*(jax.random.fold_in(root, i) for i in range(len(Keys._fields))))


def key_of(spec: Spec, whose: int, step: Int[Array, ""]) -> Key[Array, ""]:
    """The key of users' records, probes or rules at an update."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(spec.numbers.seed), whose), step)


def init(spec: Spec, data: Any = None, given: Mapping[str, Array] | None = None) -> TrainState:
    """The state before the first update, or before flossing (`measure.flossing`); `data` holds the word vectors that
    `Spec.pretrained` asks for. Parameters that are `given`, by `start.names`, stand in the places of those drawn."""
    vectors = data[VECTORS] if spec.pretrained and VECTORS in data else None
    params = kind(spec).init(spec, keys(spec).params, vectors)
    carries = model.initial_carries(spec) if task_of(spec).stateful else None
    if given is not None:
        params = start.placed(params, given)
    opt, kept = optim.rule(spec).init(params), stopping.init(spec, params)
    return TrainState(params, opt, jnp.int32(0), jnp.bool_(True), carries, kept)


def read(spec: Spec, batch: Batch, readings: tuple[Tap, ...]) -> Metrics:
    """Adjoint norms [layer, time] from per-example readings of the batch-mean loss.

    λ_t is taken on example b's own loss (the readings times the batch size), aligned at the example's last valid
    step. `adjoint_norm`: √ of the mean over the examples that reach that lag of ‖λ_b,t‖². `adjoint_log_norm`: the
    mean of log₂ ‖λ_b,t‖ over those of them where it is not 0, and `adjoint_nonzero`, their share. An LSTM's
    `adjoint_norm_c` is ∂L/∂c_t with h_t held fixed.
    """
    size, real = batch.xs.shape[1], precision.trained(spec.dtype)
    readings = precision.widened(spec.dtype, readings)
    mask = jnp.ones(batch.xs.shape[:2], bool) if batch.mask is None else batch.mask
    count = jnp.sum(at_end(mask.astype(real), batch.mask), axis=1)

    def ended(r: Tap, back: bool) -> Tap:
        # A layer that reads backwards reports in the order in which it reads: its last step is the sequence's first.
        on = batch.mask if batch.mask is None or not back else jnp.flip(batch.mask, axis=0)
        return jax.tree.map(lambda leaf: at_end(leaf, on), r._replace(adjoint=None))  # its norms are what is recorded

    at_ends = [ended(*pair) for pair in zip(readings, model.is_reversed(spec), strict=True)]

    def over_layers(norms: Callable[[Any], Any]) -> Any:
        return jax.tree.map(lambda *layers: jnp.stack(layers), *[norms(r) for r in at_ends])

    def logs(r: Any) -> tuple[Extended, Float[Array, " t"]]:
        mean, some = mean_log2(size * r.adjoint_norm.h, r.exponent)
        return mean, some / count

    metrics = {
        "adjoint_norm": over_layers(lambda r: size * rms_ranged(r.adjoint_norm.h, r.exponent, count)),
        "carried_norm": over_layers(lambda r: size * rms(r.from_next_norm.h, count)),
        "adjoint_count": count,
    }
    metrics["adjoint_log_norm"], metrics["adjoint_nonzero"] = over_layers(logs)
    if any(hasattr(r.adjoint_norm, "c") for r in readings):

        def of_c(r: Any) -> Float[Array, " t"]:
            if not hasattr(r.adjoint_norm, "c"):  # one's own cells may lie on each other, with and without
                return jnp.full(count.shape, jnp.nan)
            return size * rms_ranged(r.adjoint_norm.c, r.exponent, count)

        metrics["adjoint_norm_c"] = over_layers(of_c)
    if spec.clip == "adjoint":
        scales = jnp.stack([r.scale for r in readings if r.scale is not None])
        steps = jnp.sum(mask).astype(scales.dtype) * len(readings)
        metrics["clip_scale"] = jnp.sum(scales) / steps
        bitten = jnp.where(jnp.broadcast_to(mask[None], scales.shape), scales < 1, False)
        metrics["clipped"] = jnp.sum(bitten).astype(scales.dtype) / steps
    return metrics


class OptimizerStep(NamedTuple):
    """What one gradient does to a state."""

    updates: Tree
    """Δw, to be added to the parameters."""
    opt: Any
    """The optimiser's state after it."""
    said: dict[str, Float[Array, ""]]
    """What the links report of it: see `rules.REPORTS`."""
    by_group: Float[Array, " group"]
    """‖g‖ of each of `model.groups`, before clipping."""
    size: Float[Array, ""]
    """‖g‖ of all parameters, before clipping."""


def update_batch_stats(spec: Spec, out: network.Forward, params: Tree) -> Tree:
    """`params` with the running statistics of its cells, or of a network that is no stack, moved by the batch that was
    evaluated."""
    if spec.network is not None:
        return params if out.statistics is None else statistics.put(params, out.statistics)
    cells = model.layers(spec, training=True)
    moved = [
        new if c.update_batch_stats is None else statistics.put(new, c.update_batch_stats(layer))
        for c, layer, new in zip(cells, out.path, params.layers, strict=True)
    ]
    return params._replace(layers=tuple(moved))


def initial_carry(spec: Spec, carries: Any, batch: Any) -> Any:
    """Where a batch begins: None is at rest, else where the one before ended, unless the batch is fresh."""
    if carries is None:
        return None
    return jax.tree.map(lambda r, c: jnp.where(batch.fresh, r, c), model.initial_carries(spec), carries)


def optimizer_step(spec: Spec, state: TrainState, grads: Tree, batch: Any = None, carries: Any = None) -> OptimizerStep:
    """Clip, rule, learning rate and proximal step of update `state.step`. Only a rule that asks for the objective needs
    the batch."""
    real = precision.trained(spec.dtype)
    unfrozen = (state.step.astype(real) >= spec.numbers.thaw).astype(real)

    def by_group(tree: Tree) -> Float[Array, " group"]:
        return jnp.stack([tree_norm(g) for g in model.groups(tree).values()])

    def trained(tree: Tree) -> Tree:
        return tree._replace(embedding=tree.embedding * unfrozen) if spec.pretrained else tree

    def global_norm(tree: Tree) -> Float[Array, ""]:
        # A frozen embedding's gradient is recorded, and feeds the rule's moments, but is no part of what is clipped.
        return norm(by_group(trained(tree)))

    def of_batch(params: Tree) -> Float[Array, ""]:
        if spec.pretrained:
            now = jnp.where(unfrozen > 0, params.embedding, state.params.embedding)
            params = params._replace(embedding=now)
        return objective.value(spec, params, batch, carries)

    # A part that clips has no other way to leave a frozen embedding out.
    shown = trained(grads) if is_part(spec.clip) else grads
    key = partial(key_of, spec, RULES, state.step)
    at = optim.At(state.step, global_norm, partial(penalties.counts, spec), shown, of_batch, trained, key)
    with jax.numpy_dtype_promotion("standard"):
        updates, opt, said = optim.rule(spec).update(shown, state.opt, state.params, at)
    if "l1_proximal" in spec.penalties:
        updates = penalties.proximal(spec, state.params, updates, said["learning_rate"])
    return OptimizerStep(trained(updates), opt, said, by_group(grads), global_norm(grads))


def step(spec: Spec, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """One update, and what it says of itself (`records.VARIABLES` defines each name)."""
    carries = initial_carry(spec, state.carries, batch)
    out, grads, readings, penalised = gradient(spec, state.params, batch, carries)
    metrics = (read if spec.network is None else network.read)(spec, batch, readings) | out.others
    if "l1_proximal" in spec.penalties:
        metrics["penalty_l1_proximal"] = penalties.absolute(spec, state.params)
    metrics |= {f"penalty_{name}": value for name, value in penalised.items()}
    loss = metrics["loss"] = out.loss
    if out.accuracy is not None:
        metrics["accuracy"] = out.accuracy
    updates, opt, said, by_group, size = optimizer_step(spec, state, grads, batch, carries)
    metrics = said | metrics  # where adjoints are clipped, that is what the records of clipping are of
    update_norm = jnp.stack([tree_norm(u) for u in model.groups(updates).values()])

    finite = jnp.isfinite(loss) & jnp.isfinite(size) & jnp.all(jnp.isfinite(update_norm))
    own = not isinstance(spec.optimizer, str) or is_part(spec.clip)
    # An infinite second moment would freeze Adam, with finite updates of 0.
    for moment, before in zip(jax.tree.leaves(opt), jax.tree.leaves(state.opt), strict=True):
        if jnp.issubdtype(moment.dtype, jnp.floating):
            fine = jnp.isfinite(moment)
            # In an optimiser of one's own something may begin at infinity, as the best loss so far.
            finite &= jnp.all(fine | ~jnp.isfinite(before) if own else fine)
    metrics |= {
        "grad_norm": size,
        "group_grad_norm": by_group,
        "group_update_norm": update_norm,
        "finite": finite,
    }
    if spec.records:
        key = key_of(spec, RECORDS, state.step)
        shown = context.Context(batch, state.params, loss, grads, updates, state.step, key)
        layers = metrics["adjoint_norm"].shape[0]
        sizes = {"layer": layers, "time": spec.steps, "group": len(by_group), "unit": max(spec.hidden)}
        metrics |= context.recorded(spec, shown, sizes)
    params = update_batch_stats(spec, out, jax.tree.map(jnp.add, state.params, updates))
    after = None if carries is None else out.last
    moved = TrainState(params, opt, state.step + 1, finite, after, state.stopping)
    stays = state._replace(step=state.step + 1, alive=finite)
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, stays), metrics


def nan_like(shape: jax.ShapeDtypeStruct) -> Array:
    """What a run that is no longer running reports: NaN, or False."""
    return jnp.full(shape.shape, jnp.nan if jnp.issubdtype(shape.dtype, jnp.floating) else 0, shape.dtype)


def batch_index(spec: Spec, data: Any, n: Int[Array, ""]) -> Any:
    """What names the batch of update n: see `Task.batch_indices`."""
    indices = task_of(spec).batch_indices(data, keys(spec).data, n[None])
    return jax.tree.map(lambda leaf: leaf[0], indices)


def sample(spec: Spec, data: Any, index: Any, n: Int[Array, ""]) -> Batch:
    """The batch that a index names for update n, augmented, with a key if there is something that acts in training
    alone: see `Batch.noise`."""
    batch = _weighed(spec, task_of(spec).batch(data, "train", index))
    if spec.augment:
        key = jax.random.fold_in(keys(spec).augment, n)
        batch = augmented(spec.augment, key, batch, spec.numbers.strength, data, spec.pad)
    if spec.network is not None:
        return batch._replace(noise=jax.random.fold_in(keys(spec).noise, n), step=n)
    apart = spec.normalise.startswith("batch") or any(map(trains_apart, spec.layers))
    alike = not apart and not dropout.drops(spec) and "l0" not in spec.penalties
    return batch if alike else batch._replace(noise=jax.random.fold_in(keys(spec).noise, n))


def _weighed(spec: Spec, batch: Batch) -> Batch:
    """A batch of a user's task that weighs an example less than nothing has no mean: the run diverges."""
    if batch.weight is None or isinstance(spec.task, str):
        return batch
    return batch._replace(weight=jnp.where(batch.weight >= 0, batch.weight, jnp.nan))


def training_batch(spec: Spec, data: Any, update: Any) -> Batch:
    """The batch that update `update` of a run is made on (0 is the first), augmented, time before examples.

    `spec` is one run's: `experiment.runs[0].at(i)` is run i of the first spec. `data` are what
    that experiment was run on. In a data set `Batch.rows` says which of the training split's examples they are.
    ConfigError if the data do not fit.
    """
    check_one(spec)
    n, of = jnp.int32(whole("update", update, 0)), spec.arrays()
    data = jax.tree.map(jnp.asarray, check(spec, data))
    return sample(of, data, batch_index(of, data, n), n)


def chunk(
    spec: Spec,
    state: TrainState,
    data: Any,
    updates: int,
    until: Int[Array, ""] | None = None,
) -> tuple[TrainState, Metrics]:
    """`updates` steps in one scan; metrics gain a leading axis of that length.

    A run that is no longer running is skipped, its metrics NaN (False, for `finite`); only its step count goes on. The
    step count does not go beyond `until`: what would be made from there on is skipped in the same way.
    """
    task = task_of(spec)
    indices = task.batch_indices(data, keys(spec).data, state.step + jnp.arange(updates, dtype=jnp.int32))

    def on(state: TrainState, index: Any) -> tuple[TrainState, Metrics]:
        return step(spec, state, sample(spec, data, index, state.step))

    def off(state: TrainState, index: Any) -> tuple[TrainState, Metrics]:
        shapes = jax.eval_shape(on, state, index)[1]
        return state._replace(step=state.step + 1), jax.tree.map(nan_like, shapes)

    def made(state: TrainState, index: Any) -> tuple[TrainState, Metrics]:
        return jax.lax.cond(state.running, on, off, state, index)

    def not_made(state: TrainState, index: Any) -> tuple[TrainState, Metrics]:
        return state, off(state, index)[1]

    def body(state: TrainState, index: Any) -> tuple[TrainState, Metrics]:
        if until is None:
            return made(state, index)
        return jax.lax.cond(state.step < until, made, not_made, state, index)

    return jax.lax.scan(body, state, indices)


def evaluate(spec: Spec, state: TrainState, data: Any) -> Metrics:
    """`<split>_loss` (and `<split>_accuracy` of classes) on each held-out split, over all of its examples, without
    dropout or, of `Spec.monte_carlo` networks with it, of their mean prediction; and, if `Spec.evaluate_train`, on the
    training split, without. Under a penalty that counts or sums |w|, `group_nonzero`.

    NaN for a run that is no longer running.
    """
    on = partial(_evaluate, spec)

    def off(state: TrainState, data: Any) -> Metrics:
        return jax.tree.map(nan_like, jax.eval_shape(on, state, data))

    return jax.lax.cond(state.running, on, off, state, data)


def update_early_stopping(spec: Spec, state: TrainState, metrics: Metrics) -> tuple[TrainState, Metrics]:
    """The state after a look with these metrics, and what early stopping makes of them: `best_step` and `stopped`."""
    kept = stopping.update(spec, state.stopping, state.params, state.step, metrics)
    seen = {"best_step": kept.at.astype(jnp.float32), "stopped": kept.stopped.astype(jnp.float32)}
    return state._replace(stopping=kept), seen


def _evaluate(spec: Spec, state: TrainState, data: Any) -> Metrics:
    task, of = task_of(spec), kind(spec)
    look = jax.random.fold_in(keys(spec).sampling, state.step)
    metrics = {}
    for split in (*(("train",) if spec.evaluate_train else ()), *task.splits(data)):

        def one(carries: Any, index: Any, split: str = split) -> tuple[Any, dict[str, Array]]:
            index, key = index
            batch = _weighed(spec, task.batch(data, split, index))
            if key is not None:
                out = model.mc_dropout(spec, state.params, batch, jax.random.split(key, spec.monte_carlo))
            else:
                out = of.forward(spec, state.params, batch, initial_carry(spec, carries, batch))
            said = {"loss": out.loss} | ({} if out.accuracy is None else {"accuracy": out.accuracy})
            count = of.total_weight(spec, batch)
            sums = {name: value * count for name, value in said.items()} | {"count": count}
            return None if carries is None else out.last, sums

        begin = None if state.carries is None else model.initial_carries(spec)
        indices = task.eval_batches(data, split)
        batches = jax.tree.leaves(indices)[0].shape[0]
        drawn = jax.random.split(look, batches) if spec.monte_carlo and split != "train" else None
        totals = jax.tree.map(jnp.sum, jax.lax.scan(one, begin, (indices, drawn))[1])
        count = totals.pop("count")
        metrics |= {f"{split}_{name}": total / count for name, total in totals.items()}
    if any(name in spec.penalties for name in ("l1", "l1_proximal", "l0")):
        metrics["group_nonzero"] = penalties.nonzero(spec, state.params)
    return metrics
