"""Where batches come from. The data of update n is a function of (data key, n): there is no iterator to save.

A task names the batches of a stretch of updates by *tickets*, computed before the scan, and turns one ticket into a
batch inside it. A synthetic task's ticket is a key, a data set's a row of example indices.
"""

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
    live: Bool[Array, "t b"] | None = None
    """None: every step counts."""
    weight: Float[Array, " b"] | None = None
    """0 marks an example that only fills the last held-out batch; None: all count."""


class Task(NamedTuple):
    """A problem to learn. Its functions are pure and run inside the compiled step."""

    inputs: int
    """Width of x, or 0 where x is an id to embed."""
    loss: str
    """'mse' or 'binary' (a logit against 0 or 1)."""
    chance: float
    """The loss of the best constant prediction."""
    learned: tuple[str, float]
    """Metric of the held-out split and the value that counts as learned: below it for a loss, above for an accuracy."""
    splits: tuple[str, ...]
    """Held-out splits."""
    tickets: Callable[[Any, Key[Array, ""], Int[Array, " n"]], Any]
    """(data, key, update numbers) -> one ticket an update"""
    holdout: Callable[[Any, str], Any]
    """(data, split) -> the tickets that make up a held-out split"""
    batch: Callable[[Any, str, Any], Batch]
    """(data, 'train' or a held-out split, ticket) -> batch"""
    diagnostic: Callable[[Any, Key[Array, ""], str, int], Batch]
    """(data, key, 'holdout' or 'train', n) -> the same n sequences at every call: what the probes look at"""


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
        splits=("test",),
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

    return Task(inputs=2, loss="mse", chance=1 / 6, learned=("test_loss", 0.01), **_sampled(spec, sample))


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
    return Task(inputs=1, loss="binary", chance=0.6931471805599453, learned=learned, **_sampled(spec, sample))


def text(spec: "Spec") -> Task:
    """Labelled sequences of ids: `data[split]` is a `datasets.Examples`; padding is masked, not read.

    An epoch is a permutation of the training split, a function of (key, epoch); its last, incomplete batch is left
    out. Learned means a validation accuracy above 0.75 (chance 0.5 for balanced labels).
    """
    batch = spec.batch

    def tickets(data: Any, key: Key[Array, ""], steps: Int[Array, " n"]) -> Any:
        size = data["train"].ids.shape[0]
        if size < batch:
            raise ConfigError(f"batch is {batch}; there are only {size} training examples.")
        per_epoch = size // batch
        # A stretch of n updates touches at most this many epochs: shuffle those, before the scan.
        epochs = steps[0] // per_epoch + jnp.arange((steps.shape[0] - 1) // per_epoch + 2)
        orders = jax.vmap(lambda e: jax.random.permutation(jax.random.fold_in(key, e), size))(epochs)
        rows = orders[:, : per_epoch * batch].reshape(-1, batch)[steps - epochs[0] * per_epoch]
        return rows, jnp.ones(rows.shape)

    def holdout(data: Any, split: str) -> Any:
        size = data[split].ids.shape[0]
        rows = jnp.arange(-(-size // batch) * batch).reshape(-1, batch)
        return jnp.minimum(rows, size - 1), (rows < size).astype(jnp.float32)

    def one(data: Any, split: str, ticket: Any) -> Batch:
        rows, weight = ticket
        examples = jax.tree.map(lambda leaf: leaf[rows], data[split])
        live = live_steps(examples.lengths, spec.steps, "before")
        return Batch(examples.ids.T, examples.labels.astype(jnp.float32), live, None if split == "train" else weight)

    def diagnostic(data: Any, key: Any, split: str, n: int) -> Batch:
        name = "train" if split == "train" else "validation"
        size = data[name].ids.shape[0]
        if size < n:
            raise ConfigError(f"diagnostic is {n}; there are only {size} {name} examples.")
        return one(data, name, (jnp.arange(n), None))._replace(weight=None)

    return Task(
        inputs=0,
        loss="binary",
        chance=0.6931471805599453,
        learned=("validation_accuracy", 0.75),
        splits=("validation", "test"),
        tickets=tickets,
        holdout=holdout,
        batch=one,
        diagnostic=diagnostic,
    )


TASKS: dict[str, Callable[["Spec"], Task]] = {"adding": adding, "delayed_xor": delayed_xor, "text": text}
"""By the names a `Spec` uses."""
