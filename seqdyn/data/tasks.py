"""The tasks of data sets, and all tasks by name."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from seqdyn.building import built, users
from seqdyn.data import losses, synthetic
from seqdyn.data.batches import Batch, Task
from seqdyn.data.sampled import Drawn, whole_task
from seqdyn.fields import Fields
from seqdyn.nets.bptt import valid_steps
from seqdyn.types import Array, Bool, ConfigError, Int, Key, Pad

VECTORS = "vectors"
"""The name, among the splits of a data set of ids, of the word vectors that the embedding begins with."""
NEIGHBOURS = "neighbours"
"""The name, among the splits of a data set of ids, of the table of each word's neighbours, [vocabulary, k]; see
`vectors.neighbour_table`."""
BANK = "bank"
"""The name, among the splits of a data set, of K variants of each training example: a `text.Examples` with xs
[n, K, s] or [n, K, s, d], and lengths [n, K]. See `augment.from_bank`."""


DATA_SETS = ("labelled", "next_step", "stream")
"""The tasks whose sequences are given, not sampled."""
HELD_OUT = ("validation", "test", "shuffled")
"""The splits that are looked at and not trained on, if they are there; 'shuffled' is the test split with the steps of
each sequence in a random order."""


def held_out(data: Any) -> tuple[str, ...]:
    """The splits of a data set that are not trained on."""
    return tuple(name for name in HELD_OUT if name in data)


def _listed(spec: Fields, one: Callable[[Any, Any], Batch]) -> dict[str, Any]:
    """Batch indices of a task whose splits are `text.Examples`, from `one(split, rows) -> batch`.

    An epoch is a permutation of the training split, a function of (key, epoch); its last, incomplete batch is left
    out.
    """
    batch = spec.batch

    def batch_indices(data: Any, key: Key[Array, ""], steps: Int[Array, " n"]) -> Any:
        size = data["train"].xs.shape[0]
        if size < batch:
            raise ConfigError(f"batch is {batch}; there are only {size} training examples.")
        per_epoch = size // batch
        # A stretch of n updates touches at most this many epochs: shuffle those, before the scan.
        epochs = steps[0] // per_epoch + jnp.arange((steps.shape[0] - 1) // per_epoch + 2)
        orders = jax.vmap(lambda e: jax.random.permutation(jax.random.fold_in(key, e), size))(epochs)
        rows = orders[:, : per_epoch * batch].reshape(-1, batch)[steps - epochs[0] * per_epoch]
        return rows, None

    def eval_batches(data: Any, split: str) -> Any:
        size = data[split].xs.shape[0]
        rows = jnp.arange(-(-size // batch) * batch).reshape(-1, batch)
        return jnp.minimum(rows, size - 1), (rows < size).astype(jnp.float32)

    def drawn(data: Any, split: str, index: Any) -> Batch:
        rows, weight = index
        batch = one(data[split], rows)._replace(weight=weight)
        return batch._replace(rows=rows) if split == "train" else batch

    def diagnostic(data: Any, key: Any, split: str, n: int) -> Batch:
        name = "train" if split == "train" else "validation"
        size = data[name].xs.shape[0]
        if size < n:
            raise ConfigError(f"diagnostic is {n}; there are only {size} {name} examples.")
        return one(data[name], jnp.arange(n))

    return dict(
        splits=held_out, batch_indices=batch_indices, eval_batches=eval_batches, batch=drawn, diagnostic=diagnostic
    )


def _steps_first(rows: Array) -> Array:
    return jnp.moveaxis(rows, 1, 0)


def padding(spec: Fields) -> Pad:
    """On which side of sequences padding lies: that of the data, or the end of those that a task samples."""
    return spec.pad if spec.task in DATA_SETS else "after"


def valid_mask(spec: Fields, lengths: Int[Array, " b"]) -> Bool[Array, "t b"] | None:
    """`Batch.mask` of sequences of these lengths: None where padding of a data set is read like anything else."""
    return valid_steps(lengths, spec.steps, padding(spec)) if spec.mask or spec.task not in DATA_SETS else None


def labelled(spec: Fields) -> Task:
    """Sequences with one label each, or, with the readout 'every', one of each step: `data[split]` is a
    `text.Examples`, of ids (`Spec.vocabulary`) or of `Spec.features` numbers a step.

    `Spec.classes` says what a label is: 2 (a logit), more (a logit each) or, at 0, a number (squared error); of
    `Spec.targets` bits or numbers the losses add up. Learned means a validation accuracy above half-way from that of a
    guess among equally frequent classes to 1.
    """

    def one(examples: Any, rows: Any) -> Batch:
        drawn = jax.tree.map(lambda leaf: leaf[rows], examples)
        ys = drawn.ys.astype(jnp.int32 if spec.classes > 2 else jnp.float32)
        ys = _steps_first(ys) if spec.readout == "every" else ys
        return Batch(_steps_first(drawn.xs), ys, valid_mask(spec, drawn.lengths))

    k, targets = spec.classes, spec.targets
    return Task(
        inputs=spec.features,
        outputs=k if k > 2 else targets,
        loss=losses.categorical if k > 2 else losses.binary if k else losses.mse,
        chance=targets * (math.log(k) if k else 1.0),
        learned=("validation_accuracy", (1 + 1 / k) / 2) if k else ("validation_loss", 0.5 * targets),
        **_listed(spec, one),
    )


def next_step(spec: Fields) -> Task:
    """What comes next, at every step: `Spec.features` bits of which any number may be 1, as the notes of a piano roll.

    `data[split]` is a `text.Examples` whose ys [n, s, k] are the steps after xs. Loss: Σ_k −log p(bit k) in nats a
    step, the negative log-likelihood of Boulanger-Lewandowski, Bengio & Vincent 2012, §6. A fair coin for each of 88
    notes costs 61; learned means a sixth of that, 10.2, where a network beats each note's frequency. Under a loss of
    one's own (`Spec.loss`) ys are any numbers: the next values of a series, or what else each step should give.
    """

    def one(examples: Any, rows: Any) -> Batch:
        drawn = jax.tree.map(lambda leaf: leaf[rows], examples)
        return Batch(_steps_first(drawn.xs), _steps_first(drawn.ys), valid_mask(spec, drawn.lengths))

    coins = spec.features * math.log(2)
    learned = ("validation_loss", coins / 6)
    loss = losses.binary if spec.features == 1 else losses.binary._replace(correct=None)
    return Task(spec.features, spec.features, loss, coins, learned, **_listed(spec, one))


def stream(spec: Fields) -> Task:
    """The next symbol of one long text, at every step: `data[split]` is its ids [n].

    The text is cut into `batch` pieces that are read side by side, `steps` symbols an update, and the state is
    carried from update to update: truncated backpropagation as it is really used (Williams & Peng 1990). An epoch
    ends, and the state returns to rest, where the pieces do. Learned means below 2 nats a symbol, less than pairs of
    letters give in English (2.4; Shannon 1951).
    """
    steps, lanes = spec.steps, spec.batch

    def windows(data: Any, split: str) -> tuple[int, int]:
        """(symbols from one piece to the next, windows of an epoch)"""
        size = data[split].shape[0]
        if size < lanes * steps + 1:
            raise ConfigError(f"the {split} text has {size} symbols; batch × steps + 1 = {lanes * steps + 1} are read.")
        return (size - 1) // lanes, (size - 1) // lanes // steps

    def one(data: Any, split: str, window: Any) -> Batch:
        apart, _ = windows(data, split)
        t = jax.lax.broadcasted_iota(jnp.int32, (steps, lanes), 0)
        at = jax.lax.broadcasted_iota(jnp.int32, (steps, lanes), 1) * apart + window * steps + t
        return Batch(data[split][at], data[split][at + 1], fresh=window == 0)

    def diagnostic(data: Any, key: Any, split: str, n: int) -> Batch:
        name = "train" if split == "train" else "validation"
        if lanes < n:
            raise ConfigError(f"diagnostic is {n}; a stream has only batch = {lanes} sequences.")
        batch = one(data, name, 0)
        return Batch(batch.xs[:, :n], batch.ys[:, :n])

    return Task(
        inputs=0,
        outputs=spec.vocabulary,
        loss=losses.categorical,
        chance=math.log(max(spec.vocabulary, 1)),
        learned=("validation_loss", 2.0),
        splits=held_out,
        batch_indices=lambda data, key, numbers: numbers % windows(data, "train")[1],
        eval_batches=lambda data, split: jnp.arange(windows(data, split)[1]),
        batch=one,
        diagnostic=diagnostic,
        stateful=True,
    )


TASKS: dict[str, Callable[[Fields], Task]] = {
    **{name: partial(synthetic.of_word, name) for name in synthetic.PARTS},
    "labelled": labelled,
    "next_step": next_step,
    "stream": stream,
}
"""By the names a `Spec` uses."""


def task_of(spec: Fields) -> Task:
    """The task of a spec, a word's or a part's. Under a loss of one's own (`Spec.loss`) nobody knows its chance level,
    nor when it counts as learned: NaN. ConfigError for a word that is no task, as loops that are not ours may note."""
    if isinstance(spec.task, str):
        if spec.task not in TASKS:
            known = ", ".join(TASKS)
            raise ConfigError(f"task is {spec.task!r}; it must be one of {known}, to know when it is learned.")
        task = TASKS[spec.task](spec)
    else:
        task = whole_task(spec, built("task", spec.task, Drawn, "what seqdyn.task(…) returns"))
    if spec.loss is None:
        return task
    learned = (task.learned[0].partition("_")[0] + "_loss", math.nan)
    return task._replace(loss=losses.made_loss("loss", spec.loss), chance=math.nan, learned=learned)


def own_criterion(spec: Fields) -> list[Any] | None:
    """When a user's task is learned, which only its code knows, as JSON: [metric, value, chance], with None for what it
    does not say. None where it says nothing, and of all other tasks, and networks that are no stack."""
    if spec.network is not None or not users(spec.task):
        return None
    task = task_of(spec)
    metric, value = task.learned
    levels = [None if math.isnan(one) else float(one) for one in (value, task.chance)]
    return None if levels == [None, None] else [metric, *levels]


def sequences(spec: Fields) -> Any:
    """What the library samples for a spec, a word or a part of it; None where it samples nothing."""
    if isinstance(spec.task, str):
        return synthetic.PARTS.get(spec.task)
    return spec.task if isinstance(spec.task, synthetic.Sequences) else None


def draws_ids(spec: Fields) -> bool:
    """Is its task one of the user's own whose sequences are ids? (Of a network that is no stack nobody asks.)"""
    return not isinstance(spec.task, str) and spec.network is None and not task_of(spec).inputs


def check_lengths(spec: Fields) -> None:
    """Raises ConfigError for sequences that are too short for a task, or of lengths of their own where they cannot be,
    and for a training set that is no whole number of batches."""
    of, called = sequences(spec), spec.task if isinstance(spec.task, str) else type(spec.task).__name__
    for name in ("steps", "shortest") if spec.shortest else ("steps",):
        if of and getattr(spec, name) < of.least:
            raise ConfigError(f"{name} is {getattr(spec, name)}; a sequence of '{called}' needs at least {of.least}.")
    if spec.shortest > spec.steps:
        raise ConfigError(f"shortest is {spec.shortest}; it must be at most steps, {spec.steps}.")
    if spec.shortest and (of or isinstance(spec.task, str)) and not (of and of.any_length):
        raise ConfigError(f"shortest is {spec.shortest} for the task '{called}'; it must be 0.")
    if spec.training_set % spec.batch:
        raise ConfigError(f"training_set is {spec.training_set}; it must be a multiple of batch, {spec.batch}.")


def check(spec: Fields) -> None:
    """Raises ConfigError for what a spec says that its task does not take."""
    task = spec.task
    if spec.training_set and task in DATA_SETS:
        raise ConfigError(f"training_set is {spec.training_set} for the task '{task}'; a data set brings its own.")
    of, called = sequences(spec), task if isinstance(task, str) else type(task).__name__
    every_step = of.every_step if of else task in ("next_step", "stream")
    either = task == "labelled" or not (of or isinstance(task, str)) or spec.network is not None
    if not either and (spec.readout == "every") != every_step:
        right = "'every', as it asks at every step" if every_step else "'last', 'mean' or 'sum'"
        raise ConfigError(f"readout is '{spec.readout}' for the task '{called}'; it must be {right}.")
    ids, numbers = spec.vocabulary > 0, spec.features > 0
    right, taken = {
        "labelled": ("one of the two above 0: ids or numbers", [(True, False), (False, True)]),
        "next_step": ("features above 0 and no vocabulary", [(False, True)]),
        "stream": ("vocabulary above 0 and no features", [(True, False)]),
    }.get(task, ("neither: a synthetic task makes its own inputs", [(False, False)]))
    if draws_ids(spec):
        right, taken = "vocabulary above 0 and no features: it draws ids", [(True, False)]
    if (ids, numbers) not in taken:
        found = f"vocabulary is {spec.vocabulary} and features is {spec.features} for the task '{called}'"
        raise ConfigError(f"{found}; it takes {right}.")
    if spec.vocabulary == 1:
        raise ConfigError("vocabulary is 1; what is always the same id says nothing, so it must be 2 or more.")
    if spec.embedding and not ids:
        raise ConfigError(f"embedding is {spec.embedding} and vocabulary is 0; only ids are embedded.")
    if spec.pretrained and task not in DATA_SETS:
        raise ConfigError(f"pretrained is True for the task '{called}'; only a data set has word vectors.")
    if spec.pretrained and not spec.embedding:
        raise ConfigError("pretrained is True and embedding is 0; word vectors need an embedding of their width.")
    if task == "labelled" and spec.classes == 1:
        raise ConfigError("classes is 1; it must be 2 or more, or 0 for labels that are numbers.")
    if spec.targets > 1 and (task != "labelled" or spec.classes > 2):
        of = f"classes is {spec.classes}" if task == "labelled" else f"the task is {task!r:.60}"
        raise ConfigError(f"targets is {spec.targets} and {of}; several are of 'labelled' with 0 or 2 classes.")


def check_reads_past(spec: Fields) -> None:
    """Raises ConfigError for a network that reads what it is trained to predict. Computed it may be: weights from
    elsewhere tell something else of every step."""
    if spec.task in ("next_step", "stream") and spec.bidirectional:
        raise ConfigError(f"bidirectional is True for the task '{spec.task}'; it would read what it is to predict.")
