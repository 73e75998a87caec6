"""minGRU and minLSTM: gates that see the input alone. Feng, Tung, Ahmed, Bengio & Hajimirsadeghi 2024 (2410.01201).

Both are diagonal linear recurrences whose factor is between 0 and 1, so no gradient explodes on its way back, and what
reaches lag k is what the forget gates of k steps let through. `diagonal.parallel` makes all states at once.

The paper prints two forms. The plain one has any candidate h̃. The one for scans of logarithms has positive states,
h̃ = g(W_h x + b_h) with g(x) = x + ½ for x ≥ 0 and σ(x) below: `positive`. Computed by either scan it is one function,
of which the logarithms are not needed here.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.backend import optimization_barrier
from seqdyn.nets.cells import Cell, split
from seqdyn.nets.diagonal import Coefficients, diagonal
from seqdyn.nets.inits import Uniform
from seqdyn.parts import Number, number, part
from seqdyn.types import Array, Float, Key, whole


class Linear(NamedTuple):
    """What both learn: the gates' and the candidate's layers of x, side by side."""

    w: Float[Array, "d k"]
    b: Float[Array, " k"]


@part
class MinGRU:
    """z_t = σ(W_z x_t + b_z)    h̃_t = W_h x_t + b_h    h_t = (1 − z_t) ⊙ h_{t−1} + z_t ⊙ h̃_t. Feng et al. 2024, §3.1.

    x [*b, d], h [*b, hidden]. W and b are drawn from U(−1/√d, 1/√d), as PyTorch's linear layers are.
    """

    hidden: int
    positive: bool = False
    """h̃ through g, so that h > 0: the form of the paper's scan of logarithms"""
    forget_bias: Number = number(0.0)
    """Taken off b_z: about σ(forget_bias) is kept a step"""

    def check(self) -> None:
        """Raises ConfigError for a width that is none."""
        whole("MinGRU.hidden", self.hidden)

    def build(self, inputs: int) -> Cell:
        """A `diagonal` cell."""

        def coefficients(params: Linear, xs: Float[Array, "*b d"]) -> Coefficients:
            z, candidate = split(_layer(params, xs), 2)
            z, keep = optimization_barrier(
                (jax.nn.sigmoid(z), jax.nn.sigmoid(-z))
            )  # 1 − σ(z) would lose what is near 0
            return Coefficients(keep, z * (_positive(candidate) if self.positive else candidate))

        return diagonal(_init(inputs, self.hidden, (-self.forget_bias, 0.0)), coefficients, self.hidden)


@part
class MinLSTM:
    """f_t = σ(W_f x_t + b_f)    i_t = σ(W_i x_t + b_i)    h̃_t = W_h x_t + b_h    h_t = f'_t ⊙ h_{t−1} + i'_t ⊙ h̃_t

    with f' = f / (f + i) and i' = i / (f + i), so that the size of h does not depend on the length. Feng et al. 2024,
    §3.2. x [*b, d], h [*b, hidden]. W and b are drawn from U(−1/√d, 1/√d), as PyTorch's linear layers are.
    """

    hidden: int
    positive: bool = False
    """h̃ through g, so that h > 0: the form of the paper's scan of logarithms"""
    forget_bias: Number = number(0.0)
    """Added to b_f and taken off b_i: about σ(forget_bias) is kept a step"""

    def check(self) -> None:
        """Raises ConfigError for a width that is none."""
        whole("MinLSTM.hidden", self.hidden)

    def build(self, inputs: int) -> Cell:
        """A `diagonal` cell."""

        def coefficients(params: Linear, xs: Float[Array, "*b d"]) -> Coefficients:
            f, i, candidate = split(_layer(params, xs), 3)
            # f/(f + i) = σ(log f − log i), which is no 0/0 where both gates are shut.
            odds = optimization_barrier(jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i))
            kept, taken = optimization_barrier((jax.nn.sigmoid(odds), jax.nn.sigmoid(-odds)))
            return Coefficients(kept, taken * (_positive(candidate) if self.positive else candidate))

        return diagonal(
            _init(inputs, self.hidden, (self.forget_bias, -self.forget_bias, 0.0)), coefficients, self.hidden
        )


def _positive(x: Array) -> Array:
    """g(x) > 0. Feng et al. 2024, appendix B."""
    return jnp.where(x >= 0, x + 0.5, jax.nn.sigmoid(x))


def _layer(params: Linear, xs: Array) -> Array:
    z = xs @ params.w
    return z + jnp.broadcast_to(params.b, z.shape)


def _init(inputs: int, hidden: int, biases: tuple[Any, ...]) -> Any:
    """W, and b around these values, a block each."""

    def init(key: Key[Array, ""]) -> Linear:
        k_w, k_b = jax.random.split(key)
        width, kind = hidden * len(biases), jnp.result_type(float)
        around = jnp.concatenate([jnp.full((hidden,), bias, kind) for bias in biases])
        drawn = jax.random.uniform(k_b, (width,), kind, -(inputs**-0.5), inputs**-0.5)
        return Linear(Uniform()(k_w, (inputs, width), kind), drawn + around)

    return init
