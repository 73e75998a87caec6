"""Tasks that are sampled on the device: each with what is known to reach back in time, its chance level, and when it
counts as learned.

`Spec.steps` is the whole length of a sequence, readout included. With `Spec.shortest` each sequence has a length of its
own, uniform between the two, and is padded after its end.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seqdyn.data import losses
from seqdyn.data.batches import Batch, Task
from seqdyn.fields import Fields
from seqdyn.nets.bptt import live_steps
from seqdyn.types import Array, Bool, Float, Int, Key


def _lengths(spec: Fields, key: Any) -> Int[Array, " b"]:
    """Of each sequence of a batch."""
    if not spec.shortest:
        return jnp.full((spec.batch,), spec.steps, jnp.int32)
    # A key of its own: what a sequence holds does not depend on whether lengths are drawn.
    return jax.random.randint(jax.random.fold_in(key, 0), (spec.batch,), spec.shortest, spec.steps + 1, jnp.int32)


def sampled(spec: Fields, sample: Callable[[Any, Any], tuple[Array, ...]]) -> dict[str, Any]:
    """Tickets of a task that is sampled on the device, from `sample(key, lengths) -> (xs, ys)`, or (xs, ys, weight),
    anew at every update or from a training set of the key's own; its test set is the same for every run."""
    rounds, in_set = -(-spec.holdout // spec.batch), spec.training_set // spec.batch

    def drawn(key: Any) -> Batch:
        lengths = _lengths(spec, key)
        xs, ys, *weight = sample(key, lengths)
        if not spec.shortest:
            return Batch(xs, ys, weight=weight[0] if weight else None)
        live = live_steps(lengths, spec.steps)
        return Batch(jnp.where(jnp.broadcast_to(live[..., None], xs.shape), xs, 0), ys, live)

    def fold(key: Any, steps: Any) -> Any:
        return jax.vmap(lambda n: jax.random.fold_in(key, n))(steps)

    def tickets(data: Any, key: Any, steps: Any) -> Any:
        return fold(key, steps % in_set if in_set else steps)

    def diagnostic(data: Any, key: Any, split: str, n: int) -> Batch:
        batches = jnp.arange(-(-n // spec.batch))
        keys = tickets(data, key, batches) if split == "train" else fold(jax.random.key(2**31 - 2), batches)
        many, every = jax.vmap(drawn)(keys), spec.readout == "every"

        def firsts(leaf: Array, timed: bool) -> Array:
            """Of n sequences, from [batches, …]."""
            if not timed:
                return leaf.reshape(-1, *leaf.shape[2:])[:n]
            return jnp.moveaxis(leaf, 0, 1).reshape(spec.steps, -1, *leaf.shape[3:])[:, :n]

        live = None if many.live is None else firsts(many.live, True)
        weight = None if many.weight is None else firsts(many.weight, many.weight.ndim == 3)
        return Batch(firsts(many.xs, True), firsts(many.ys, every), live, weight)

    return dict(
        splits=lambda data: ("test",),
        tickets=tickets,
        holdout=lambda data, split: fold(jax.random.key(2**31 - 1), jnp.arange(rounds)),
        batch=lambda data, split, ticket: drawn(ticket),
        diagnostic=diagnostic,
    )


def _steps(spec: Fields) -> Int[Array, "t b"]:
    return jax.lax.broadcasted_iota(jnp.int32, (spec.steps, spec.batch), 0)


def _one_hot(symbols: Int[Array, "t b"], kinds: int) -> Float[Array, "t b d"]:
    return jax.nn.one_hot(symbols, kinds, dtype=jnp.float32)


# --- two marked numbers -------------------------------------------------------------------------------------


def _marked(spec: Fields, combined: Callable[[Array, Array], Array]) -> Callable[[Any, Any], tuple[Array, Array]]:
    """x_t = (value ~ U[0, 1], marker), one marker in each half of a sequence; the target combines the two marked."""

    def sample(key: Key[Array, ""], lengths: Int[Array, " b"]) -> tuple[Array, Array]:
        k_value, k_first, k_second = jax.random.split(key, 3)
        values = jax.random.uniform(k_value, (spec.steps, spec.batch), jnp.float32)
        half = lengths // 2
        first = jax.random.randint(k_first, (spec.batch,), 0, half, jnp.int32)
        second = jax.random.randint(k_second, (spec.batch,), half, lengths, jnp.int32)
        t = _steps(spec)
        one, two = t == first[None], t == second[None]

        def at(mark: Bool[Array, "t b"]) -> Float[Array, " b"]:
            return jnp.sum(jnp.where(mark, values, 0), axis=0)

        return jnp.stack([values, (one | two).astype(values.dtype)], axis=-1), combined(at(one), at(two))

    return sample


def adding(spec: Fields) -> Task:
    """The adding problem: x_t = (value ~ U[0, 1], marker), one marker in each half, target the sum of the two marked.

    As in Arjovsky, Shah & Bengio 2016, §5.2, after Hochreiter & Schmidhuber 1997, whose ranges differ. Predicting
    the mean, 1, costs a mean squared error of 1/6; learned means a test error below 0.01.
    """
    sample = _marked(spec, jnp.add)
    return Task(
        inputs=2,
        outputs=1,
        loss=losses.mse,
        chance=1 / 6,
        learned=("test_loss", 0.01),
        **sampled(spec, sample),
        any_length=True,
    )


def multiplication(spec: Fields) -> Task:
    """The multiplication problem: as `adding`, target the product. Hochreiter & Schmidhuber 1997, §5.5.

    Predicting the mean, 1/4, costs 1/9 − 1/16 = 7/144; learned means a test error below 0.003, the same share of
    chance as of adding.
    """
    sample = _marked(spec, jnp.multiply)
    learned = ("test_loss", 0.003)
    return Task(
        inputs=2, outputs=1, loss=losses.mse, chance=7 / 144, learned=learned, **sampled(spec, sample), any_length=True
    )


# --- the order of symbols -----------------------------------------------------------------------------------


def _ordered(spec: Fields, windows: tuple[int, ...]) -> Task:
    """One of {A, B} at a random step of each window, [w, w + 1) tenths of a sequence; distractors elsewhere."""
    kinds = 2 ** len(windows)

    def sample(key: Key[Array, ""], lengths: Int[Array, " b"]) -> tuple[Array, Array]:
        k_distract, *k_windows = jax.random.split(key, 1 + len(windows))
        symbols = jax.random.randint(k_distract, (spec.steps, spec.batch), 2, 6, jnp.int32)
        t, ys, tenth = _steps(spec), jnp.zeros((spec.batch,), jnp.int32), lengths // 10
        for i, (w, k) in enumerate(zip(windows, k_windows, strict=True)):
            k_where, k_what = jax.random.split(k)
            start = lengths * w // 10
            where = jax.random.randint(k_where, (spec.batch,), start, start + tenth, jnp.int32)
            what = jax.random.bernoulli(k_what, 0.5, (spec.batch,)).astype(jnp.int32)
            symbols = jnp.where(t == where[None], what[None], symbols)
            ys = ys + what * 2**i
        return _one_hot(symbols, 6), ys

    learned = ("test_accuracy", 0.99)
    return Task(
        6, kinds, losses.categorical, math.log(kinds), learned, **sampled(spec, sample), least=10, any_length=True
    )


def temporal_order(spec: Fields) -> Task:
    """Temporal order: two of {A, B} among distractors {c, d, e, f}, one-hot; which of AA, AB, BA, BB was it?

    Hochreiter & Schmidhuber 1997, §5.6. The first stands in the second tenth of the sequence; the second in the sixth,
    as in the code of Pascanu, Mikolov & Bengio 2013 (their paper, §4.1, writes the fifth tenth). A guess costs log 4
    nats; learned means under 1% errors. Needs 10 steps.
    """
    return _ordered(spec, (1, 5))


def temporal_order_3(spec: Fields) -> Task:
    """Temporal order of three symbols of {A, B}: eight classes. Hochreiter & Schmidhuber 1997, §5.6, task 6b.

    In the second, fourth and seventh tenth of the sequence, as in the code of Pascanu, Mikolov & Bengio 2013. A guess
    costs log 8 nats; learned means under 1% errors. Needs 10 steps.
    """
    return _ordered(spec, (1, 3, 6))


def random_permutation(spec: Fields) -> Task:
    """What was the first symbol? One of two; then symbols drawn from 98 others, all one-hot.

    After Hochreiter & Schmidhuber 1997, §5.2 ('noise-free sequences with long time lags'), asked at the last step only
    as by Martens & Sutskever 2011 and Pascanu et al. 2013, whose code draws with replacement, as here. To know that
    it is one of the two and no more costs log 2 nats; learned means under 1% errors.
    """

    def sample(key: Key[Array, ""], lengths: Int[Array, " b"]) -> tuple[Array, Array]:
        k_first, k_others = jax.random.split(key)
        first = jax.random.bernoulli(k_first, 0.5, (spec.batch,)).astype(jnp.int32)
        others = jax.random.randint(k_others, (spec.steps, spec.batch), 2, 100, jnp.int32)
        return _one_hot(others.at[0].set(first), 100), first

    learned = ("test_accuracy", 0.99)
    return Task(100, 100, losses.categorical, math.log(2), learned, **sampled(spec, sample), any_length=True)


# --- bits ---------------------------------------------------------------------------------------------------


def xor_steps(steps: int) -> tuple[int, int]:
    """The steps, counted from 0, of the two bits that `delayed_xor` asks for: a third and two thirds of the way."""
    return steps // 3, 2 * steps // 3


def delayed_xor(spec: Fields) -> Task:
    """Delayed XOR: x_t = ±1, a fair coin at every step; the target is 1 where the two bits of `xor_steps` differ.

    After the temporal XOR of x_{t−d} and x_{t−d/2} in Engelken 2023 ("Gradient flossing"), asked at the last step
    only. The first third lets the network leave its state of rest, and ±1 drives it with the same strength at every
    step. A coin costs log 2 nats; learned means a test accuracy above 0.95.
    """
    first, second = xor_steps(spec.steps)

    def sample(key: Key[Array, ""], lengths: Int[Array, " b"]) -> tuple[Array, Array]:
        bits = jax.random.bernoulli(key, 0.5, (spec.steps, spec.batch))
        return _signs(bits), (bits[first] ^ bits[second]).astype(jnp.float32)

    learned = ("test_accuracy", 0.95)
    return Task(inputs=1, outputs=1, loss=losses.binary, chance=math.log(2), learned=learned, **sampled(spec, sample))


def parity(spec: Fields) -> Task:
    """Parity: x_t = ±1, a fair coin at every step; the target is 1 where the number of +1 is odd.

    Every step matters, and no part of a sequence says anything (Bengio, Simard & Frasconi 1994, §2; Hochreiter &
    Schmidhuber 1997, §5, who draw the lengths too: `Spec.shortest`). A coin costs log 2 nats; learned means a test
    accuracy above 0.95.
    """

    def sample(key: Key[Array, ""], lengths: Int[Array, " b"]) -> tuple[Array, Array]:
        bits = jax.random.bernoulli(key, 0.5, (spec.steps, spec.batch))
        counted = jnp.where(live_steps(lengths, spec.steps), bits, False)
        return _signs(bits), (jnp.sum(counted, axis=0) % 2).astype(jnp.float32)

    learned = ("test_accuracy", 0.95)
    return Task(
        inputs=1,
        outputs=1,
        loss=losses.binary,
        chance=math.log(2),
        learned=learned,
        **sampled(spec, sample),
        any_length=True,
    )


def _signs(bits: Bool[Array, "t b"]) -> Float[Array, "t b d"]:
    return jnp.where(bits[..., None], jnp.float32(1), jnp.float32(-1))


# --- sequences to be repeated -------------------------------------------------------------------------------


def _repeated(spec: Fields, symbols: int, count: int, cue: int, least: int) -> Task:
    """`count` of `symbols` symbols are read, and written when the cue, step `cue` of the sequence, has passed."""
    steps, b, blank = spec.steps, spec.batch, symbols

    def sample(key: Key[Array, ""], lengths: Int[Array, " b"]) -> tuple[Array, Array]:
        said = jax.random.randint(key, (count, b), 0, symbols, jnp.int32)
        silence = jnp.full((steps - count, b), blank, jnp.int32)
        read = jnp.concatenate([said, silence]).at[cue].set(blank + 1)
        return _one_hot(read, symbols + 2), jnp.concatenate([silence, said])

    chance = count * math.log(symbols) / steps
    learned = ("test_loss", chance / 10)
    return Task(
        symbols + 2,
        symbols + 1,
        losses.categorical,
        chance,
        learned,
        **sampled(spec, sample),
        least=least,
        every_step=True,
    )


def copy(spec: Fields) -> Task:
    """The copy problem: 10 of 8 symbols, T − 1 blanks, a delimiter, 10 blanks; repeat the symbols at the last 10 steps.

    Arjovsky, Shah & Bengio 2016, §5.1, with T = steps − 20. A prediction is asked for at every step (blank before the
    last 10); a network without memory does best with a loss of 10 log 8 / (T + 20) a step. Learned means below a tenth
    of that. Needs 21 steps.
    """
    return _repeated(spec, symbols=8, count=10, cue=spec.steps - 11, least=21)


def memorization(spec: Fields) -> Task:
    """Noiseless memorisation: 5 of 2 symbols, T blanks, then they are to be repeated, T = steps − 10.

    Hochreiter & Schmidhuber 1997's noise-free long lags in the form of Martens & Sutskever 2011 ('5-bit'), with the
    cue at the first of the last 5 steps as in the code of Pascanu, Mikolov & Bengio 2013. There are 32 sequences, so
    training and test sets are the same 32. Without memory the best loss is 5 log 2 / (T + 10) a step; learned means
    below a tenth of that. Needs 11 steps.
    """
    return _repeated(spec, symbols=2, count=5, cue=spec.steps - 5, least=11)


TASKS: dict[str, Callable[[Fields], Task]] = {
    "adding": adding,
    "multiplication": multiplication,
    "temporal_order": temporal_order,
    "temporal_order_3": temporal_order_3,
    "random_permutation": random_permutation,
    "delayed_xor": delayed_xor,
    "parity": parity,
    "copy": copy,
    "memorization": memorization,
}
"""By the names a `Spec` uses."""
