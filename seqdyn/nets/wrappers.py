"""Parts around one of the library's cells, which change how it steps: normalised, or with something dropped inside.

    LayerNorm(cell)          mean and variance over the units of an example, at each step   Ba, Kiros & Hinton 2016
    BatchNormDrive(cell)     of W x alone, over all examples and all steps                  Laurent et al. 2016
    BatchNorm(cell, steps=)  of W x, U h and c over the examples, each step its own         Cooijmans et al. 2017
    RecurrentDropout(cell)   h_{t−1} where it enters U, one mask for all steps or a new one at each
    CandidateDropout(cell)   g of an LSTM, n of a GRU, a new mask at each step              Semeniuta et al. 2016, §3
    Zoneout(cell)            each unit of h (and of c) keeps its old value, new masks each step   Krueger et al. 2017

Equations: `nets.normalised` and `nets.dropped`. A mask is 0 where something is dropped and 1 / (1 − rate) elsewhere, so
that its mean is 1 and evaluation needs none. Zoneout's is 0 where the old value stays and 1 elsewhere; its evaluation
takes the expectation of every step. Every example has masks of its own.

What is another cell in training is open to any level: beside `build`, the cell that evaluates, it has
`build_training(inputs) -> Cell`, with the same parameters. If it is random, it has `noise(key, steps, batch) -> m
[steps, batch, m]`, too, and the inputs of that cell are [x_t, m_t]. If it keeps running statistics, both cells say so:
see `nets.statistics`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from seqdyn.nets import dropped
from seqdyn.nets.activations import Activation
from seqdyn.nets.cells import Cell
from seqdyn.nets.levels import GRU, LSTM, RNN
from seqdyn.nets.normalised import normalised
from seqdyn.parts import Number, Part, number, part
from seqdyn.types import Array, ConfigError, Float, Key, whole


@part
class Wrapper:
    """What the wrappers have in common: the cell inside."""

    cell: Part
    """An `RNN`, `LSTM` or `GRU`."""
    _inside = (RNN, LSTM, GRU)

    def check(self) -> None:
        """Raises ConfigError for a cell that it does not take."""
        if not isinstance(self.cell, self._inside):
            found = self.cell.__name__ if isinstance(self.cell, type) else type(self.cell).__name__
            *others, last = (kind.__name__ for kind in self._inside)
            right = f"{', '.join(others)} or {last}"
            raise ConfigError(f"{type(self).__name__}.cell is {found}; it must be one of the library's {right}.")

    @property
    def hidden(self) -> int:
        """Units of the cell."""
        return self.cell.hidden

    @property
    def activation(self) -> Activation:
        """That of the cell."""
        return self.cell.activation

    @property
    def word(self) -> str:
        """What `Spec.cell` calls the cell."""
        return self.cell.word


@part
class LayerNorm(Wrapper):
    """N(x) = γ ⊙ (x − mean) / √(variance + ε) of the pre-activations, over the units of an example, at each step; of an
    LSTM of c, too. Ba, Kiros & Hinton 2016, eq. 3–4, 20–29."""

    gain: Number = number(1.0)
    """Initial γ."""

    def check(self) -> None:
        """Raises ConfigError for a single unit, which minus its mean is 0, and for a cell that it does not take."""
        super().check()
        if self.hidden == 1:
            raise ConfigError("LayerNorm.cell has 1 unit, which minus its mean is 0; it must have at least 2.")

    def build(self, inputs: int, dtype: Any = jnp.float32) -> Cell:
        """The cell that reads `inputs` numbers a step; see `nets.normalised`."""
        return normalised(self.cell.build(inputs, dtype), "layer", 0, self.gain, self.activation)


@part
class BatchNormDrive(Wrapper):
    """N(x) = γ ⊙ (x − mean) / √(variance + ε) of W x alone, in training over the examples and all steps of the batch,
    in evaluation by the running averages m ← (1 − renewed) m + renewed · (the batch's). Laurent et al. 2016, eq. 7–9;
    Ioffe & Szegedy 2015, algorithm 1."""

    gain: Number = number(1.0)
    """Initial γ."""
    renewed: Number = number(0.1, low=0.0, high=1.0)
    """The share of a running average that an update replaces by its batch's; PyTorch calls it momentum."""
    steps = 0
    _kind = "batch_drive"

    def build(self, inputs: int, dtype: Any = jnp.float32) -> Cell:
        """The cell of evaluation; see `nets.normalised`."""
        return self._made(inputs, dtype, training=False)

    def build_training(self, inputs: int, dtype: Any = jnp.float32) -> Cell:
        """The cell that normalises by its batch, and moves the averages."""
        return self._made(inputs, dtype, training=True)

    def _made(self, inputs: int, dtype: Any, training: bool) -> Cell:
        cell = self.cell.build(inputs, dtype)
        return normalised(cell, self._kind, self.steps, self.gain, self.activation, training, self.renewed)


@part
class BatchNorm(BatchNormDrive):
    """N(x) = γ ⊙ (x − mean) / √(variance + ε) of W x and U h apart, and of an LSTM's c before its tanh; in training
    over the examples of the batch, in evaluation by running averages, in both each step by its own. Cooijmans et al.
    2017, eq. 6–8."""

    gain: Number = number(0.1)
    """Initial γ. Cooijmans et al. 2017, §4: with γ = 1 tanh saturates and the gradient vanishes."""
    steps: int = 100
    """Those of the sequences."""
    _kind = "batch"

    def check(self) -> None:
        """Raises ConfigError for a number of steps that is none, and for a cell that it does not take."""
        super().check()
        whole("BatchNorm.steps", self.steps)


@part
class Dropped(Wrapper):
    """What the wrappers that drop have in common: a rate, and one mask of the cell's width, new at each step."""

    rate: Number = number(0.0, low=0.0, below=1.0)
    """The share that is dropped."""

    def build(self, inputs: int, dtype: Any = jnp.float32) -> Cell:
        """The cell of evaluation, which drops nothing."""
        return self.cell.build(inputs, dtype)

    def noise(self, key: Key[Array, ""], steps: int, batch: int) -> Float[Array, "t b m"]:
        """The masks of a batch."""
        return self._masks(key, (steps, batch, self.hidden), 1 / (1 - self.rate))

    def _masks(self, key: Key[Array, ""], shape: tuple[int, ...], kept: Any) -> Array:
        u = jax.random.uniform(key, shape)
        return jnp.where(u < 1 - self.rate, kept, jnp.zeros_like(u))


@part
class RecurrentDropout(Dropped):
    """U (m_t ⊙ h_{t−1}), with one mask for all gates. Gal & Ghahramani 2016, §4."""

    each_step: bool = False
    """Is the mask new at each step? Else it is the same at all."""

    def build_training(self, inputs: int, dtype: Any = jnp.float32) -> Cell:
        """The cell that reads [x_t, m_t]; see `nets.dropped.recurrent`."""
        return dropped.recurrent(self.cell.build(inputs, dtype))

    def noise(self, key: Key[Array, ""], steps: int, batch: int) -> Float[Array, "t b m"]:
        """The masks of a batch."""
        drawn = super().noise(key, steps if self.each_step else 1, batch)
        return jnp.broadcast_to(drawn, (steps, *drawn.shape[1:]))


@part
class CandidateDropout(Dropped):
    """LSTM: c_t = f ⊙ c_{t−1} + i ⊙ (m_t ⊙ g). GRU: h_t = (1 − z) ⊙ (m_t ⊙ n) + z ⊙ h_{t−1}. Semeniuta, Severyn & Barth
    2016, §3."""

    _inside = (LSTM, GRU)

    def build_training(self, inputs: int, dtype: Any = jnp.float32) -> Cell:
        """The cell that reads [x_t, m_t]; see `nets.dropped.candidate`."""
        return dropped.candidate(self.cell.build(inputs, dtype))


@part
class Zoneout(Dropped):
    """h_t = m_t ⊙ (new h) + (1 − m_t) ⊙ h_{t−1}, and c_t alike with masks of its own. Krueger et al. 2017, §3."""

    def build(self, inputs: int, dtype: Any = jnp.float32) -> Cell:
        """The cell of evaluation, every step in expectation; see `nets.dropped.expected`."""
        return dropped.expected(self.cell.build(inputs, dtype), self.rate)

    def build_training(self, inputs: int, dtype: Any = jnp.float32) -> Cell:
        """The cell that reads [x_t, m_t], of an LSTM [x_t, m_t of c, m_t of h]; see `nets.dropped.zoneout`."""
        return dropped.zoneout(self.cell.build(inputs, dtype))

    def noise(self, key: Key[Array, ""], steps: int, batch: int) -> Float[Array, "t b m"]:
        """The masks of a batch."""
        parts = 2 if isinstance(self.cell, LSTM) else 1
        return self._masks(key, (steps, batch, parts * self.hidden), 1.0)
