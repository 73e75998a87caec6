"""Where batches come from. The data of update n is a function of (data key, n): there is no iterator to save.

A task names the batches of a stretch of updates by *tickets*, computed before the scan, and turns one ticket into a
batch inside it. A synthetic task's ticket is a key, a data set's a row of example indices.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.nets.bptt import live_steps
from seqdyn.types import Array, Bool, ConfigError, Float, Int, Key

if TYPE_CHECKING:
    from seqdyn.learn.config import Spec


class Batch(NamedTuple):
    """Sequences and what they should give."""

    xs: Float[Array, "t b d"] | Int[Array, "t b"]
    ys: Array
    """[b] or [b, k]; [t, b] or [t, b, k] of a task that asks at every step."""
    live: Bool[Array, "t b"] | None = None
    """None: every step counts."""
    weight: Float[Array, " b"] | None = None
    """0 marks an example that only fills the last held-out batch; None: all count."""
    fresh: Bool[Array, ""] | None = None
    """Of a stateful task: does the state begin at rest here, or where the batch before left it?"""
    noise: Key[Array, ""] | None = None
    """Of dropout in training; None, as in evaluation: nothing is dropped."""


class Task(NamedTuple):
    """A problem to learn. Its functions are pure and run inside the compiled step."""

    inputs: int
    """Width of x, or 0 where x is an id."""
    outputs: int
    """Numbers that the readout predicts of a sequence, or of each step."""
    loss: str
    """'mse'; 'binary' (each output a logit against 0 or 1, losses summed); 'categorical' (logits of one class)."""
    chance: float
    """The loss of the best constant prediction."""
    learned: tuple[str, float]
    """Metric of a held-out split and the value that counts as learned: below it for a loss, above for an accuracy."""
    splits: Callable[[Any], tuple[str, ...]]
    """data -> the names of its held-out splits"""
    tickets: Callable[[Any, Key[Array, ""], Int[Array, " n"]], Any]
    """(data, key, update numbers) -> one ticket an update"""
    holdout: Callable[[Any, str], Any]
    """(data, split) -> the tickets that make up a held-out split"""
    batch: Callable[[Any, str, Any], Batch]
    """(data, 'train' or a held-out split, ticket) -> batch"""
    diagnostic: Callable[[Any, Key[Array, ""], str, int], Batch]
    """(data, key, 'holdout' or 'train', n) -> the same n sequences at every call: what the probes look at"""
    stateful: bool = False
    """Does a batch begin with the state in which the one before ended?"""


def _sampled(spec: "Spec", sample: Callable[[Any], Batch]) -> dict[str, Any]:
    """Tickets of a task that is sampled on the device, anew at every update or from a training set of the key's own;
    its test set is the same for every run."""
    rounds, in_set = -(-spec.holdout // spec.batch), spec.training_set // spec.batch

    def fold(key: Any, steps: Any) -> Any:
        return jax.vmap(lambda n: jax.random.fold_in(key, n))(steps)

    def tickets(data: Any, key: Any, steps: Any) -> Any:
        return fold(key, steps % in_set if in_set else steps)

    def diagnostic(data: Any, key: Any, split: str, n: int) -> Batch:
        batches = jnp.arange(-(-n // spec.batch))
        keys = tickets(data, key, batches) if split == "train" else fold(jax.random.key(2**31 - 2), batches)
        drawn = jax.vmap(sample)(keys)
        xs = jnp.moveaxis(drawn.xs, 0, 1).reshape(spec.steps, -1, *drawn.xs.shape[3:])
        return Batch(xs[:, :n], drawn.ys.reshape(-1, *drawn.ys.shape[2:])[:n])

    return dict(
        splits=lambda data: ("test",),
        tickets=tickets,
        holdout=lambda data, split: fold(jax.random.key(2**31 - 1), jnp.arange(rounds)),
        batch=lambda data, split, ticket: sample(ticket),
        diagnostic=diagnostic,
    )


def adding(spec: "Spec") -> Task:
    """The adding problem: x_t = (value ~ U[0, 1], marker), one marker in each half, target the sum of the two marked.

    As in Arjovsky, Shah & Bengio 2016, §5.2, after Hochreiter & Schmidhuber 1997, whose ranges differ. Predicting
    the mean, 1, costs a mean squared error of 1/6; learned means a test error below 0.01.
    """
    steps, batch = spec.steps, spec.batch

    def sample(key: Key[Array, ""]) -> Batch:
        k_value, k_first, k_second = jax.random.split(key, 3)
        values = jax.random.uniform(k_value, (steps, batch), jnp.float32)
        first = jax.random.randint(k_first, (batch,), 0, steps // 2, jnp.int32)
        second = jax.random.randint(k_second, (batch,), steps // 2, steps, jnp.int32)
        t = jax.lax.broadcasted_iota(jnp.int32, (steps, batch), 0)
        marks = (t == first[None]) | (t == second[None])
        ys = jnp.sum(jnp.where(marks, values, 0), axis=0)
        return Batch(jnp.stack([values, marks.astype(values.dtype)], axis=-1), ys)

    return Task(inputs=2, outputs=1, loss="mse", chance=1 / 6, learned=("test_loss", 0.01), **_sampled(spec, sample))


def xor_steps(steps: int) -> tuple[int, int]:
    """The steps, counted from 0, of the two bits that `delayed_xor` asks for: a third and two thirds of the way."""
    return steps // 3, 2 * steps // 3


def delayed_xor(spec: "Spec") -> Task:
    """Delayed XOR: x_t = ±1, a fair coin at every step; the target is 1 where the two bits of `xor_steps` differ.

    After the temporal XOR of x_{t−d} and x_{t−d/2} in Engelken 2023 ("Gradient flossing"), asked at the last step
    only. The first third lets the network leave its state of rest, and ±1 drives it with the same strength at every
    step. A coin costs log 2 nats; learned means a test accuracy above 0.95.
    """
    first, second = xor_steps(spec.steps)

    def sample(key: Key[Array, ""]) -> Batch:
        bits = jax.random.bernoulli(key, 0.5, (spec.steps, spec.batch))
        differ = bits[first] ^ bits[second]
        return Batch(jnp.where(bits[..., None], jnp.float32(1), jnp.float32(-1)), differ.astype(jnp.float32))

    learned = ("test_accuracy", 0.95)
    return Task(inputs=1, outputs=1, loss="binary", chance=math.log(2), learned=learned, **_sampled(spec, sample))


# --- data sets ----------------------------------------------------------------------------------------------

VECTORS = "vectors"
"""The name, among the splits of a data set of ids, of the word vectors that the embedding begins with."""


HELD_OUT = ("validation", "test", "shuffled")
"""The splits that are looked at and not trained on, if they are there; 'shuffled' is the test split with the steps of
each sequence in a random order."""


def held_out(data: Any) -> tuple[str, ...]:
    """The splits of a data set that are not trained on."""
    return tuple(name for name in HELD_OUT if name in data)


def _listed(spec: "Spec", one: Callable[[Any, Any], Batch]) -> dict[str, Any]:
    """Tickets of a task whose splits are `text.Examples`, from `one(split, rows) -> batch`.

    An epoch is a permutation of the training split, a function of (key, epoch); its last, incomplete batch is left
    out.
    """
    batch = spec.batch

    def tickets(data: Any, key: Key[Array, ""], steps: Int[Array, " n"]) -> Any:
        size = data["train"].xs.shape[0]
        if size < batch:
            raise ConfigError(f"batch is {batch}; there are only {size} training examples.")
        per_epoch = size // batch
        # A stretch of n updates touches at most this many epochs: shuffle those, before the scan.
        epochs = steps[0] // per_epoch + jnp.arange((steps.shape[0] - 1) // per_epoch + 2)
        orders = jax.vmap(lambda e: jax.random.permutation(jax.random.fold_in(key, e), size))(epochs)
        rows = orders[:, : per_epoch * batch].reshape(-1, batch)[steps - epochs[0] * per_epoch]
        return rows, jnp.ones(rows.shape)

    def holdout(data: Any, split: str) -> Any:
        size = data[split].xs.shape[0]
        rows = jnp.arange(-(-size // batch) * batch).reshape(-1, batch)
        return jnp.minimum(rows, size - 1), (rows < size).astype(jnp.float32)

    def drawn(data: Any, split: str, ticket: Any) -> Batch:
        rows, weight = ticket
        return one(data[split], rows)._replace(weight=None if split == "train" else weight)

    def diagnostic(data: Any, key: Any, split: str, n: int) -> Batch:
        name = "train" if split == "train" else "validation"
        size = data[name].xs.shape[0]
        if size < n:
            raise ConfigError(f"diagnostic is {n}; there are only {size} {name} examples.")
        return one(data[name], jnp.arange(n))

    return dict(splits=held_out, tickets=tickets, holdout=holdout, batch=drawn, diagnostic=diagnostic)


def _steps_first(rows: Array) -> Array:
    return jnp.moveaxis(rows, 1, 0)


def _live(spec: "Spec", examples: Any) -> Bool[Array, "t b"] | None:
    return live_steps(examples.lengths, spec.steps, spec.pad) if spec.mask else None


def labelled(spec: "Spec") -> Task:
    """Sequences with one label each: `data[split]` is a `text.Examples`, of ids (`Spec.vocabulary`) or of
    `Spec.features` numbers a step.

    `Spec.classes` says what a label is: 2 (a logit), more (a logit each) or, at 0, a number (squared error). Learned
    means a validation accuracy above half-way from that of a guess among equally frequent classes to 1.
    """

    def one(examples: Any, rows: Any) -> Batch:
        drawn = jax.tree.map(lambda leaf: leaf[rows], examples)
        ys = drawn.ys if spec.classes > 2 else drawn.ys.astype(jnp.float32)
        return Batch(_steps_first(drawn.xs), ys, _live(spec, drawn))

    k = spec.classes
    return Task(
        inputs=spec.features,
        outputs=k if k > 2 else 1,
        loss="categorical" if k > 2 else "binary" if k else "mse",
        chance=math.log(k) if k else 1.0,
        learned=("validation_accuracy", (1 + 1 / k) / 2) if k else ("validation_loss", 0.5),
        **_listed(spec, one),
    )


def next_step(spec: "Spec") -> Task:
    """What comes next, at every step: `Spec.features` bits of which any number may be 1, as the notes of a piano roll.

    `data[split]` is a `text.Examples` whose ys [n, s, k] are the steps after xs. Loss: Σ_k −log p(bit k) in nats a
    step, the negative log-likelihood of Boulanger-Lewandowski, Bengio & Vincent 2012, §6. A fair coin for each of 88
    notes costs 61; learned means a sixth of that, 10.2, where a network beats each note's frequency.
    """

    def one(examples: Any, rows: Any) -> Batch:
        drawn = jax.tree.map(lambda leaf: leaf[rows], examples)
        return Batch(_steps_first(drawn.xs), _steps_first(drawn.ys), _live(spec, drawn))

    coins = spec.features * math.log(2)
    learned = ("validation_loss", coins / 6)
    return Task(spec.features, spec.features, "binary", coins, learned, **_listed(spec, one))


def stream(spec: "Spec") -> Task:
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
        loss="categorical",
        chance=math.log(max(spec.vocabulary, 1)),
        learned=("validation_loss", 2.0),
        splits=held_out,
        tickets=lambda data, key, numbers: numbers % windows(data, "train")[1],
        holdout=lambda data, split: jnp.arange(windows(data, split)[1]),
        batch=one,
        diagnostic=diagnostic,
        stateful=True,
    )


TASKS: dict[str, Callable[["Spec"], Task]] = {
    "adding": adding,
    "delayed_xor": delayed_xor,
    "labelled": labelled,
    "next_step": next_step,
    "stream": stream,
}
"""By the names a `Spec` uses."""
