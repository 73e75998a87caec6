"""Tasks that are sampled on the device, as parts: each with what is known to reach back in time, its chance level, and
when it counts as learned. A word of `Spec.task` is the name of one of them.

`steps` is the whole length of a sequence, readout included. With `Spec.shortest` each sequence has a length of its own,
uniform between the two, and is padded after its end.
"""

import math

import jax
import jax.numpy as jnp

from seqdyn.data import losses
from seqdyn.data.batches import Task
from seqdyn.data.losses import Loss
from seqdyn.data.sampled import Drawn, whole_task
from seqdyn.fields import Fields
from seqdyn.nets.bptt import valid_steps
from seqdyn.parts import part
from seqdyn.types import Array, Bool, ConfigError, Float, Int, Key, whole


@part
class Sequences:
    """What the library's sampled tasks have in common."""

    steps: int = 100
    """T, time steps of a sequence."""
    least = 2
    """Steps without which it makes no sense."""
    any_length = False
    """May its sequences have lengths of their own, `Spec.shortest`?"""
    every_step = False
    """Does it ask for a prediction at every step? (`Spec.readout` is then 'every'.)"""

    def check(self) -> None:
        """Raises ConfigError for fewer steps than it needs."""
        whole(f"{type(self).__name__}.steps", self.steps, self.least)

    def sample(self, key: Key[Array, ""], lengths: Int[Array, " b"]) -> tuple[Array, Array]:
        """(xs, ys) of a batch of b sequences of these lengths."""
        raise NotImplementedError

    def build(self) -> Drawn:
        """Its draw, and its loss with what is known of it."""
        raise NotImplementedError

    def _drawn(self, inputs: int, outputs: int, loss: Loss, chance: float, learned: tuple[str, float]) -> Drawn:
        def draw(key: Key[Array, ""], batch: int) -> tuple[Array, Array]:
            return self.sample(key, jnp.full((batch,), self.steps, jnp.int32))

        of_lengths = self.sample if self.any_length else None
        return Drawn(draw, loss, inputs, outputs, chance=chance, learned=learned, of_lengths=of_lengths)

    def _times(self, batch: int) -> Int[Array, "t b"]:
        return jax.lax.broadcasted_iota(jnp.int32, (self.steps, batch), 0)


def _one_hot(symbols: Int[Array, "t b"], kinds: int) -> Float[Array, "t b d"]:
    return jax.nn.one_hot(symbols, kinds, dtype=jnp.float32)


# --- two marked numbers -------------------------------------------------------------------------------------


def _marked(
    task: Sequences, key: Key[Array, ""], lengths: Int[Array, " b"]
) -> tuple[Float[Array, "t b d"], Float[Array, " b"], Float[Array, " b"]]:
    """x_t = (value ~ U[0, 1], marker), one marker in each half of a sequence, and the two marked values."""
    k_value, k_first, k_second = jax.random.split(key, 3)
    b = lengths.shape[0]
    values = jax.random.uniform(k_value, (task.steps, b), jnp.float32)
    half = lengths // 2
    first = jax.random.randint(k_first, (b,), 0, half, jnp.int32)
    second = jax.random.randint(k_second, (b,), half, lengths, jnp.int32)
    t = task._times(b)
    one, two = t == first[None], t == second[None]

    def at(mark: Bool[Array, "t b"]) -> Float[Array, " b"]:
        return jnp.sum(jnp.where(mark, values, 0), axis=0)

    return jnp.stack([values, (one | two).astype(values.dtype)], axis=-1), at(one), at(two)


@part
class Adding(Sequences):
    """The adding problem: x_t = (value ~ U[0, 1], marker), one marker in each half, target the sum of the two marked.

    As in Arjovsky, Shah & Bengio 2016, §5.2, after Hochreiter & Schmidhuber 1997, whose ranges differ. Predicting
    the mean, 1, costs a mean squared error of 1/6; learned means a test error below 0.01.
    """

    any_length = True

    def sample(self, key: Key[Array, ""], lengths: Int[Array, " b"]) -> tuple[Array, Array]:
        """(xs, ys)"""
        xs, one, two = _marked(self, key, lengths)
        return xs, one + two

    def build(self) -> Drawn:
        """Its draw and its loss, the square."""
        return self._drawn(2, 1, losses.mse, 1 / 6, ("test_loss", 0.01))


@part
class Multiplication(Sequences):
    """The multiplication problem: as `Adding`, target the product. Hochreiter & Schmidhuber 1997, §5.5.

    Predicting the mean, 1/4, costs 1/9 − 1/16 = 7/144; learned means a test error below 0.003, the same share of
    chance as of adding.
    """

    any_length = True

    def sample(self, key: Key[Array, ""], lengths: Int[Array, " b"]) -> tuple[Array, Array]:
        """(xs, ys)"""
        xs, one, two = _marked(self, key, lengths)
        return xs, one * two

    def build(self) -> Drawn:
        """Its draw and its loss, the square."""
        return self._drawn(2, 1, losses.mse, 7 / 144, ("test_loss", 0.003))


# --- the order of symbols -----------------------------------------------------------------------------------


@part
class TemporalOrder(Sequences):
    """Temporal order: two of {A, B} among distractors {c, d, e, f}, one-hot; which of AA, AB, BA, BB was it?

    Hochreiter & Schmidhuber 1997, §5.6. The first stands in the second tenth of the sequence; the second in the sixth,
    as in the code of Pascanu, Mikolov & Bengio 2013 (their paper, §4.1, writes the fifth tenth). Of three, their task
    6b, in the second, fourth and seventh tenth, as in that code. A guess costs log 4 or log 8 nats; learned means under
    1% errors. Needs 10 steps.
    """

    symbols: int = 2
    """How many of {A, B} there are; 2^symbols classes."""
    least, any_length = 10, True

    def check(self) -> None:
        """Raises ConfigError for fewer steps than it needs, and for other numbers of symbols than 2 and 3."""
        super().check()
        if self.symbols not in (2, 3):
            raise ConfigError(f"TemporalOrder.symbols is {self.symbols!r}; it must be 2 or 3.")

    def sample(self, key: Key[Array, ""], lengths: Int[Array, " b"]) -> tuple[Array, Array]:
        """One of {A, B} at a random step of each window, [w, w + 1) tenths of a sequence; distractors elsewhere."""
        windows, b = {2: (1, 5), 3: (1, 3, 6)}[self.symbols], lengths.shape[0]
        k_distract, *k_windows = jax.random.split(key, 1 + len(windows))
        symbols = jax.random.randint(k_distract, (self.steps, b), 2, 6, jnp.int32)
        t, ys, tenth = self._times(b), jnp.zeros((b,), jnp.int32), lengths // 10
        for i, (w, k) in enumerate(zip(windows, k_windows, strict=True)):
            k_where, k_what = jax.random.split(k)
            start = lengths * w // 10
            where = jax.random.randint(k_where, (b,), start, start + tenth, jnp.int32)
            what = jax.random.bernoulli(k_what, 0.5, (b,)).astype(jnp.int32)
            symbols = jnp.where(t == where[None], what[None], symbols)
            ys = ys + what * 2**i
        return _one_hot(symbols, 6), ys

    def build(self) -> Drawn:
        """Its draw and its loss, the cross-entropy."""
        kinds = 2**self.symbols
        return self._drawn(6, kinds, losses.categorical, math.log(kinds), ("test_accuracy", 0.99))


@part
class RandomPermutation(Sequences):
    """What was the first symbol? One of two; then symbols drawn from 98 others, all one-hot.

    After Hochreiter & Schmidhuber 1997, §5.2 ('noise-free sequences with long time lags'), asked at the last step only
    as by Martens & Sutskever 2011 and Pascanu et al. 2013, whose code draws with replacement, as here. To know that
    it is one of the two and no more costs log 2 nats; learned means under 1% errors.
    """

    any_length = True

    def sample(self, key: Key[Array, ""], lengths: Int[Array, " b"]) -> tuple[Array, Array]:
        """(xs, ys)"""
        k_first, k_others = jax.random.split(key)
        b = lengths.shape[0]
        first = jax.random.bernoulli(k_first, 0.5, (b,)).astype(jnp.int32)
        others = jax.random.randint(k_others, (self.steps, b), 2, 100, jnp.int32)
        return _one_hot(others.at[0].set(first), 100), first

    def build(self) -> Drawn:
        """Its draw and its loss, the cross-entropy."""
        return self._drawn(100, 100, losses.categorical, math.log(2), ("test_accuracy", 0.99))


# --- bits ---------------------------------------------------------------------------------------------------


def xor_steps(steps: int) -> tuple[int, int]:
    """The steps, counted from 0, of the two bits that `delayed_xor` asks for: a third and two thirds of the way."""
    return steps // 3, 2 * steps // 3


@part
class DelayedXOR(Sequences):
    """Delayed XOR: x_t = ±1, a fair coin at every step; the target is 1 where the two bits of `xor_steps` differ.

    After the temporal XOR of x_{t−d} and x_{t−d/2} in Engelken 2023 ("Gradient flossing"), asked at the last step
    only. The first third lets the network leave its state of rest, and ±1 drives it with the same strength at every
    step. A coin costs log 2 nats; learned means a test accuracy above 0.95.
    """

    def sample(self, key: Key[Array, ""], lengths: Int[Array, " b"]) -> tuple[Array, Array]:
        """(xs, ys)"""
        first, second = xor_steps(self.steps)
        bits = jax.random.bernoulli(key, 0.5, (self.steps, lengths.shape[0]))
        return _signs(bits), (bits[first] ^ bits[second]).astype(jnp.float32)

    def build(self) -> Drawn:
        """Its draw and its loss, the cross-entropy."""
        return self._drawn(1, 1, losses.binary, math.log(2), ("test_accuracy", 0.95))


@part
class Parity(Sequences):
    """Parity: x_t = ±1, a fair coin at every step; the target is 1 where the number of +1 is odd.

    Every step matters, and no part of a sequence says anything (Bengio, Simard & Frasconi 1994, §2; Hochreiter &
    Schmidhuber 1997, §5, who draw the lengths too: `Spec.shortest`). A coin costs log 2 nats; learned means a test
    accuracy above 0.95.
    """

    any_length = True

    def sample(self, key: Key[Array, ""], lengths: Int[Array, " b"]) -> tuple[Array, Array]:
        """(xs, ys)"""
        bits = jax.random.bernoulli(key, 0.5, (self.steps, lengths.shape[0]))
        counted = jnp.where(valid_steps(lengths, self.steps), bits, False)
        return _signs(bits), (jnp.sum(counted, axis=0) % 2).astype(jnp.float32)

    def build(self) -> Drawn:
        """Its draw and its loss, the cross-entropy."""
        return self._drawn(1, 1, losses.binary, math.log(2), ("test_accuracy", 0.95))


def _signs(bits: Bool[Array, "t b"]) -> Float[Array, "t b d"]:
    return jnp.where(bits[..., None], jnp.float32(1), jnp.float32(-1))


# --- sequences to be repeated -------------------------------------------------------------------------------


@part
class _Repeated(Sequences):
    """Some of a few symbols are read, and written when the cue, `cue` steps before the end, has passed."""

    every_step = True
    kinds, count, cue = 0, 0, 0

    def sample(self, key: Key[Array, ""], lengths: Int[Array, " b"]) -> tuple[Array, Array]:
        """(xs, ys)"""
        said = jax.random.randint(key, (self.count, lengths.shape[0]), 0, self.kinds, jnp.int32)
        silence = jnp.full((self.steps - self.count, lengths.shape[0]), self.kinds, jnp.int32)
        read = jnp.concatenate([said, silence]).at[self.steps - self.cue].set(self.kinds + 1)
        return _one_hot(read, self.kinds + 2), jnp.concatenate([silence, said])

    def build(self) -> Drawn:
        """Its draw and its loss, the cross-entropy."""
        chance = self.count * math.log(self.kinds) / self.steps
        return self._drawn(self.kinds + 2, self.kinds + 1, losses.categorical, chance, ("test_loss", chance / 10))


@part
class Copy(_Repeated):
    """The copy problem: 10 of 8 symbols, T − 1 blanks, a delimiter, 10 blanks; repeat the symbols at the last 10 steps.

    Arjovsky, Shah & Bengio 2016, §5.1, with T = steps − 20. A prediction is asked for at every step (blank before the
    last 10); a network without memory does best with a loss of 10 log 8 / (T + 20) a step. Learned means below a tenth
    of that. Needs 21 steps.
    """

    kinds, count, cue, least = 8, 10, 11, 21


@part
class Memorization(_Repeated):
    """Noiseless memorisation: 5 of 2 symbols, T blanks, then they are to be repeated, T = steps − 10.

    Hochreiter & Schmidhuber 1997's noise-free long lags in the form of Martens & Sutskever 2011 ('5-bit'), with the
    cue at the first of the last 5 steps as in the code of Pascanu, Mikolov & Bengio 2013. There are 32 sequences, so
    training and test sets are the same 32. Without memory the best loss is 5 log 2 / (T + 10) a step; learned means
    below a tenth of that. Needs 11 steps.
    """

    kinds, count, cue, least = 2, 5, 5, 11


PARTS: dict[str, type[Sequences]] = {
    "adding": Adding,
    "multiplication": Multiplication,
    "temporal_order": TemporalOrder,
    "temporal_order_3": TemporalOrder,
    "random_permutation": RandomPermutation,
    "delayed_xor": DelayedXOR,
    "parity": Parity,
    "copy": Copy,
    "memorization": Memorization,
}
"""By the names a `Spec` uses."""


def of_word(word: str, spec: Fields) -> Task:
    """The task of that name, with the rest of a spec."""
    part = TemporalOrder(spec.steps, 3) if word == "temporal_order_3" else PARTS[word](spec.steps)
    return whole_task(spec, part.build())
