"""A task from a function that draws its batches and one that says what a prediction costs."""

import contextlib
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.building import check_function, check_repeats, is_real, kind_of, users
from seqdyn.data.batches import Batch, Task
from seqdyn.data.losses import Loss, applied
from seqdyn.fields import Fields
from seqdyn.nets.bptt import valid_steps
from seqdyn.parts import lenient
from seqdyn.types import Array, ConfigError, Float, Int, Key, Tree, whole


class Drawn(NamedTuple):
    """What a part for a task builds."""

    draw: Callable[[Key[Array, ""], int], tuple[Any, ...]]
    """(key, b) -> (xs, ys), xs [t, b, d] or ids [t, b], ys [b, …], or [t, b, …] of a task that asks at every step
    (`Spec.readout`); or (xs, ys, weight), weight [b] or, of such a task, [t, b], at least 0: see `Batch.weight`"""
    loss: Callable[[Float[Array, "*s k"], Array], Float[Array, "*s"]] | Loss | None
    """(predictions, ys) -> the loss of each prediction; or all that there is to say of it"""
    inputs: int
    """d; 0 of ids, of which there are `Spec.vocabulary`"""
    outputs: int
    """k"""
    correct: Callable[[Float[Array, "*s k"], Array], Array] | None = None
    """(predictions, ys) -> which predictions are right, if that has a meaning: their share is `accuracy`"""
    chance: float = math.nan
    """The loss of the best constant prediction; NaN where nobody knows it."""
    learned: tuple[str, float] = ("test_loss", math.nan)
    """Metric of the held-out split, and the value that counts as learned: see `batches.Task.learned`; NaN where nobody
    knows."""
    of_lengths: Callable[[Key[Array, ""], Int[Array, " b"]], tuple[Any, ...]] | None = None
    """(key, lengths [b]) -> (xs, ys) or (xs, ys, weight), as `draw`, of sequences that have these lengths, with padding
    behind; None where all sequences have as many steps: see `Spec.shortest`"""

    @property
    def whole_loss(self) -> Loss | None:
        """Its loss, and which predictions are right."""
        return self.loss if self.loss is None or isinstance(self.loss, Loss) else Loss(self.loss, self.correct)


UNSAID: dict[str, Any] = {name: Drawn._field_defaults[name] for name in ("chance", "learned", "of_lengths")}
"""What a task need not say."""


def task(
    draw: Any,
    *,
    loss: Any = None,
    inputs: Any = None,
    outputs: Any = None,
    correct: Any = None,
    of_lengths: Any = None,
    chance: Any = UNSAID["chance"],
    learned: Any = UNSAID["learned"],
) -> Drawn:
    """A task that is sampled on the device: see `Drawn`. Batches are drawn anew at every update, from a key of it, and
    `Spec.holdout` sequences for the test split, the same for every run. `Spec.shortest` draws them `of_lengths`.

    With `inputs=0` xs are ids, whole numbers from 0 to `Spec.vocabulary` − 1; `Spec.embedding` gives them vectors.
    Verification holds those of the first batch against the vocabulary; a run that meets another later diverges there.
    `chance` and `learned` are for reports, which then say of each run whether it learned: learned=("test_accuracy",
    0.99) is met above 0.99, ("test_loss", 0.01) below 0.01. For a network that is no stack (`learn.network`) `draw` is
    enough; its xs and ys may be any pytrees.
    """
    alone = (loss, inputs, outputs, correct) == (None,) * 4
    check_function("draw of a task", draw, "key", "batch")
    if not alone:
        check_function("loss of a task", loss, "predictions", "ys")
    if correct is not None:
        check_function("correct of a task", correct, "predictions", "ys")
    if of_lengths is not None:
        check_function("of_lengths of a task", of_lengths, "key", "lengths")
    if alone:
        for name, given in (("chance", chance), ("learned", learned), ("of_lengths", of_lengths)):
            if given is not UNSAID[name]:
                raise ConfigError(f"{name} of a task is {given!r:.80}; leave it out, or give loss, inputs and outputs.")
        return Drawn(draw, None, 0, 0)
    sizes = whole("inputs of a task", inputs, 0), whole("outputs of a task", outputs)
    return Drawn(draw, loss, *sizes, correct, chance, learned, of_lengths)


def check_criterion(drawn: Drawn) -> None:
    """Raises ConfigError for what a task cannot say of its losses."""
    loss = drawn.whole_loss
    counted = loss is not None and loss.correct is not None
    metrics = ("test_loss", "test_accuracy") if counted else ("test_loss",)
    right = f'("{metrics[-1]}", a number)' + ("" if counted else "; for test_accuracy give correct=, too")
    pair = drawn.learned if isinstance(drawn.learned, tuple | list) and len(drawn.learned) == 2 else ("", "")
    if not isinstance(pair[0], str) or pair[0] not in metrics or not _is_level(pair[1]):
        raise ConfigError(f"learned of a task is {drawn.learned!r:.80}; it must be {right}.")
    if not _is_level(drawn.chance):
        right = "a number of Python or NumPy, as math.log(4); not of JAX, nor an sd.number"
        raise ConfigError(f"chance of a task is {drawn.chance!r:.80}; it must be {right}.")


def _is_level(value: Any) -> bool:
    """Is it a number, or NaN, which says that nobody knows?"""
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return bool(real and not abs(value) > 1e300)  # NaN is not above it


LENGTHS = 2**31 - 5
"""Folded into a batch's key, it gives that of the lengths."""


def _lengths(spec: Fields, key: Any) -> Int[Array, " b"]:
    """Of each sequence of a batch."""
    if not spec.shortest:
        return jnp.full((spec.batch,), spec.steps, jnp.int32)
    # A key of its own: what a sequence holds does not depend on whether lengths are drawn. Of small numbers the folded
    # keys are those that `split` gives, with which tasks draw.
    key = jax.random.fold_in(key, LENGTHS)
    return jax.random.randint(key, (spec.batch,), spec.shortest, spec.steps + 1, jnp.int32)


def sampled(spec: Fields, sample: Callable[[Any, Any], tuple[Array, ...]]) -> dict[str, Any]:
    """Batches of a task that is sampled on the device, from `sample(key, lengths) -> (xs, ys)`, or (xs, ys, weight),
    anew at every update or from a training set of the key's own; its test set is the same for every run."""
    rounds, in_set = -(-spec.holdout // spec.batch), spec.training_set // spec.batch

    def drawn(key: Any) -> Batch:
        lengths = _lengths(spec, key)
        xs, ys, *more = sample(key, lengths)
        weight = more[0] if more else None
        if not spec.shortest:
            return Batch(xs, ys, weight=weight)
        mask = valid_steps(lengths, spec.steps)
        real = mask if xs.ndim == 2 else jnp.broadcast_to(mask[..., None], xs.shape)
        return Batch(jnp.where(real, xs, 0), ys, mask, weight)

    def fold(key: Any, steps: Any) -> Any:
        return jax.vmap(lambda n: jax.random.fold_in(key, n))(steps)

    def batch_indices(data: Any, key: Any, steps: Any) -> Any:
        return fold(key, steps % in_set if in_set else steps)

    def diagnostic(data: Any, key: Any, split: str, n: int) -> Batch:
        batches = jnp.arange(-(-n // spec.batch))
        keys = batch_indices(data, key, batches) if split == "train" else fold(jax.random.key(2**31 - 2), batches)
        many, every = jax.vmap(drawn)(keys), spec.readout == "every"

        def firsts(leaf: Array, timed: bool) -> Array:
            """Of n sequences, from [batches, …]."""
            if not timed:
                return leaf.reshape(-1, *leaf.shape[2:])[:n]
            return jnp.moveaxis(leaf, 0, 1).reshape(spec.steps, -1, *leaf.shape[3:])[:, :n]

        mask = None if many.mask is None else firsts(many.mask, True)
        weight = None if many.weight is None else firsts(many.weight, many.weight.ndim == 3)
        return Batch(firsts(many.xs, True), firsts(many.ys, every), mask, weight)

    return dict(
        splits=lambda data: ("test",),
        batch_indices=batch_indices,
        eval_batches=lambda data, split: fold(jax.random.key(2**31 - 1), jnp.arange(rounds)),
        batch=lambda data, split, index: drawn(index),
        diagnostic=diagnostic,
    )


def whole_task(spec: Fields, drawn: Drawn) -> Task:
    """The task that a spec trains on."""
    return Task(
        inputs=drawn.inputs,
        outputs=drawn.outputs,
        loss=drawn.whole_loss,
        chance=drawn.chance,
        learned=drawn.learned,
        **sampled(spec, lambda key, lengths: batch_of(spec, drawn, key, lengths)),
    )


def batch_of(spec: Fields, drawn: Drawn, key: Key[Array, ""], lengths: Any = None) -> tuple[Tree, ...]:
    """(xs, ys), or (xs, ys, weight), of one batch, in 32 bits; of sequences of these lengths, if they may have some."""
    with lenient():
        drew = _drew(type(spec.task).__name__, drawn, key, spec.batch, lengths)
        xs, ys, *weight = jax.tree.map(jnp.asarray, drew)
    if spec.network is None and drawn.inputs:
        xs = xs.astype(jnp.float32)
    return (*jax.tree.map(_in_32_bits, (xs, ys)), *(w.astype(jnp.float32) for w in weight))


def _drew(name: str, drawn: Drawn, key: Key[Array, ""], batch: int, lengths: Any = None) -> tuple[Any, ...]:
    if drawn.of_lengths is not None and lengths is not None:
        what, found = "of_lengths", drawn.of_lengths(key, lengths)
    else:
        what, found = "draw", drawn.draw(key, batch)
    if not isinstance(found, tuple | list) or len(found) not in (2, 3):
        raise ConfigError(f"{what} of {name} returns {kind_of(found)}; it must return (xs, ys) or (xs, ys, weight).")
    for leaf in jax.tree.leaves(found):
        if not is_real(leaf):
            raise ConfigError(f"{what} of {name} returns {kind_of(leaf)}; it must return arrays of real numbers.")
        known = np.asarray(leaf) if isinstance(leaf, int | np.ndarray | np.generic) else np.zeros(())
        if known.dtype.kind in "iu" and (large := known[(known < -(2**31)) | (known >= 2**31)]).size:
            raise ConfigError(f"{what} of {name} returns {large[0]}; whole numbers must be below 2³¹ in size.")
    return tuple(found[:2] if found[-1] is None else found)


def _in_32_bits(leaf: Array) -> Array:
    return leaf.astype(jnp.float32 if jnp.issubdtype(leaf.dtype, jnp.floating) else jnp.int32)


def shapes(spec: Fields, name: str, drawn: Drawn) -> int:
    """How many steps its sequences have. Raises ConfigError, calling the task `name`, where the shapes that it draws,
    or those of its loss, do not fit."""

    def must(what: str, found: Any, right: str) -> ConfigError:
        return ConfigError(f"{what} of {name} {found}; it must {right}.")

    def drew(lengths: Any = None, batch: int = spec.batch) -> Any:
        with lenient():
            found = jax.eval_shape(lambda key: _drew(name, drawn, key, batch, lengths), jax.random.key(0))
        for what, leaf in zip(("xs", "ys", "weight"), found, strict=False):
            if not hasattr(leaf, "shape"):
                raise must(what, f"is {kind_of(leaf)}", "be an array")
        return found

    xs, ys, *weight = every = drew()
    if users(spec.task):
        check_repeats(f"draw of {name}", lambda key: _drew(name, drawn, key, spec.batch), jax.random.key(0))
    wanted = (spec.batch, drawn.inputs) if drawn.inputs else (spec.batch,)
    if xs.ndim != 1 + len(wanted) or xs.shape[1:] != wanted or not xs.shape[0]:
        right = "be [steps, batch, inputs]," + " or ids with inputs=0," * (xs.ndim == 2)
        right = right if drawn.inputs else "be ids [steps, batch], as inputs is 0,"
        raise must("xs", f"have the shape {xs.shape}", f"{right} (…, {', '.join(map(str, wanted))})")
    if xs.shape[0] == spec.batch:  # which axis is which? The first must not grow with the batch.
        larger = []
        with contextlib.suppress(Exception):  # a draw may know batches of one size alone
            larger = drew(batch=spec.batch + 1)
        each = spec.readout == "every"  # else ys is [batch, …]
        for what, of in zip(("xs", "ys")[: 1 + each], larger, strict=False):
            if of.shape[:2] == (spec.batch + 1, spec.batch):
                raise must(what, f"have the shape {of.shape} for a batch of {spec.batch + 1}", "be [steps, batch, …]")
    at_lengths = drew(jnp.ones(spec.batch, jnp.int32)) if drawn.of_lengths is not None else every
    for what, of in (("xs", every), ("xs of of_lengths", at_lengths)):
        if not drawn.inputs and not jnp.issubdtype(of[0].dtype, jnp.integer):
            raise must(what, f"have the type {of[0].dtype}", "be ids, whole numbers, as inputs is 0")
    if not any(jnp.issubdtype(xs.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise must("xs", f"have the type {xs.dtype}", "be numbers")
    each = xs.shape[:2] if spec.readout == "every" else xs.shape[1:2]
    if ys.shape[: len(each)] != each:
        raise must("ys", f"have the shape {ys.shape}", f"begin with {each} where readout is '{spec.readout}'")
    if weight and weight[0].shape not in (each, each[-1:]):
        right = " or ".join(map(str, dict.fromkeys((each, each[-1:]))))
        raise must("weight", f"has the shape {weight[0].shape}", f"be {right} where readout is '{spec.readout}'")
    predictions = jax.ShapeDtypeStruct((*each, drawn.outputs), jnp.float32)
    cast = jax.eval_shape(lambda: batch_of(spec, drawn, jax.random.key(0)))[1]
    loss = drawn.whole_loss
    for what, function in (("loss", loss and loss.each), ("correct", loss and loss.correct)):
        if function is not None:
            like = partial(applied, f"{what} of {name}", function, each, descended=what == "loss")
            jax.eval_shape(like, predictions, cast)
    one, other = ([leaf.shape for leaf in of] for of in (every, at_lengths))
    if one != other:
        raise must("of_lengths", f"has the shapes {other}", f"have those of draw, {one}")
    return xs.shape[0]
