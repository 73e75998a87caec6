"""The library's cells as parts, a level of `Spec.layers` each; a word of `Spec.cell` is the name of one of them.

Their equations, forwards and backwards, stand in `nets.cells` and `nets.memoryless`.
"""

from typing import Any

import jax.numpy as jnp

from seqdyn.building import check_part
from seqdyn.nets import cells, memoryless
from seqdyn.nets.activations import Activation
from seqdyn.nets.cells import Cell
from seqdyn.nets.inits import GlorotUniform, Orthogonal, chrono, constant, made_init
from seqdyn.parts import Number, Part, listed, number, part
from seqdyn.types import ConfigError, Initializer, whole


@part
class Level:
    """What the library's cells have in common: a width, and initialisations, parts as `seqdyn.Orthogonal()`."""

    hidden: int
    """Units."""
    activation = "tanh"
    word = ""
    """What `Spec.cell` calls it."""
    _drawn = ("w", "u")

    def check(self) -> None:
        """Raises ConfigError for a width that is none, and for an initialisation that is no part."""
        whole(f"{type(self).__name__}.hidden", self.hidden)
        for name in self._drawn:
            where, given = f"{type(self).__name__}.{name}", getattr(self, name)
            if given is None or isinstance(given, str):
                raise ConfigError(f"{where} is {given!r}; it must be a part, as seqdyn.Orthogonal().")
            check_part(where, given, "build")

    def _inits(self) -> dict[str, Initializer]:
        return {name: made_init(f"{type(self).__name__}.{name}", getattr(self, name)) for name in self._drawn}


@part
class RNN(Level):
    """h_t = φ(W x_t + U h_{t−1} + b). Elman 1990."""

    activation: Activation = "tanh"
    """φ, a word."""
    w: Part = GlorotUniform()
    """Initial W, a part with `build() -> (key, shape, dtype) -> array`."""
    u: Part = Orthogonal()
    """Initial U, likewise."""
    word = "rnn"

    def build(self, inputs: int, dtype: Any = jnp.float32) -> Cell:
        """The cell that reads `inputs` numbers a step; see `nets.cells.rnn`."""
        return cells.rnn(inputs, self.hidden, self.activation, **self._inits(), dtype=dtype)


@part
class LSTM(Level):
    """c_t = f ⊙ c_{t−1} + i ⊙ g, h_t = o ⊙ tanh(c_t), with gates i, f, o = σ(W x_t + U h_{t−1} + b) and g = tanh of the
    same. Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000."""

    w: Part = GlorotUniform()
    """Initial W of every gate, a part with `build() -> (key, shape, dtype) -> array`."""
    u: Part = Orthogonal()
    """Initial U of every gate, likewise."""
    forget_bias: Number = number(1.0)
    """Initial b of f (Jozefowicz et al. 2015); the other biases begin at 0."""
    chrono: Number = number(None, above=2.0)
    """T_max of a chrono initialisation instead, b_f = log U(1, T_max − 1) and b_i = −b_f. Tallec & Ollivier 2018."""
    word = "lstm"

    def check(self) -> None:
        """Raises ConfigError for a forget bias that chrono replaces, and as all cells do."""
        super().check()
        if self.chrono is not None and listed(self.forget_bias) != [1.0]:
            raise ConfigError(
                f"LSTM.forget_bias is {self.forget_bias!r:.60} and LSTM.chrono is {self.chrono!r:.60}, which replaces "
                "it; leave one out."
            )

    def build(self, inputs: int, dtype: Any = jnp.float32) -> Cell:
        """The cell that reads `inputs` numbers a step; see `nets.cells.lstm`."""
        zero = constant(0.0)
        bias = {"i": zero, "f": constant(self.forget_bias), "o": zero, "g": zero}
        return cells.lstm(inputs, self.hidden, **self._inits(), b=bias, longest=self.chrono, dtype=dtype)


@part
class GRU(Level):
    """h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}, with r, z = σ(W x_t + U h_{t−1} + b) and n = tanh(W_n x_t + b_n +
    r ⊙ (U_n h_{t−1} + b_hn)). Cho et al. 2014, with the reset after the product as cuDNN, PyTorch and Flax have it."""

    w: Part = GlorotUniform()
    """Initial W of every gate, a part with `build() -> (key, shape, dtype) -> array`."""
    u: Part = Orthogonal()
    """Initial U of every gate, likewise."""
    chrono: Number = number(None, above=2.0)
    """T_max of a chrono initialisation, b_z = log U(1, T_max − 1), where the biases else begin at 0."""
    reset_before: bool = False
    """n = tanh(W_n x_t + b_n + U_n (r ⊙ h_{t−1})), as first published, at autodiff's speed."""

    @property
    def word(self) -> str:  # type: ignore[override]
        """What `Spec.cell` calls it."""
        return "gru_reset_before" if self.reset_before else "gru"

    def build(self, inputs: int, dtype: Any = jnp.float32) -> Cell:
        """The cell that reads `inputs` numbers a step; see `nets.cells.gru` and `gru_reset_before`."""
        make, zero = cells.gru_reset_before if self.reset_before else cells.gru, constant(0.0)
        bias = {"r": zero, "z": zero if self.chrono is None else chrono(self.chrono), "n": zero}
        return make(inputs, self.hidden, **self._inits(), b=bias, dtype=dtype)


@part
class Dense(Level):
    """h_t = φ(W x_t + b), the same W and b at every step: no memory."""

    activation: Activation = "tanh"
    """φ, a word."""
    w: Part = GlorotUniform()
    """Initial W, a part with `build() -> (key, shape, dtype) -> array`."""
    word = "dense"
    _drawn = ("w",)

    def build(self, inputs: int, dtype: Any = jnp.float32) -> Cell:
        """The cell that reads `inputs` numbers a step; see `nets.memoryless.dense`."""
        return memoryless.dense(inputs, self.hidden, self.activation, **self._inits(), dtype=dtype)


@part
class DensePerPosition(Dense):
    """h_t = φ(W_t x_t + b_t), with weights for each of `steps` positions: no memory."""

    steps: int = 100
    """Those of the sequences."""
    word = "dense_per_position"

    def check(self) -> None:
        """Raises ConfigError for a number of steps that is none, and as all cells do."""
        super().check()
        whole("DensePerPosition.steps", self.steps)

    def build(self, inputs: int, dtype: Any = jnp.float32) -> Cell:
        """The cell that reads `inputs` numbers a step; see `nets.memoryless.dense_per_position`."""
        make = memoryless.dense_per_position
        return make(self.steps, inputs, self.hidden, self.activation, **self._inits(), dtype=dtype)
