"""The linear recurrent unit. Orvieto et al. 2023, arXiv 2303.06349."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.nets.cells import Cell
from seqdyn.nets.diagonal import Coefficients, diagonal
from seqdyn.nets.ranges import check_range
from seqdyn.parts import Number, number, part
from seqdyn.types import Array, ConfigError, Float, Key, whole

_INSIDE = 1 - 2.0**-20
"""The largest |λ|² that is drawn: at 1 the logarithms of ν and γ would be −∞."""


class LRUWeights(NamedTuple):
    """What it learns; ν, θ and γ as their logarithms, so that |λ| < 1 wherever training goes."""

    log_nu: Float[Array, " s"]
    log_theta: Float[Array, " s"]
    log_gamma: Float[Array, " s"]
    re: Float[Array, "d s"]
    im: Float[Array, "d s"]
    """B = re + i im"""


@part
class LRU:
    """s_t = λ ⊙ s_{t−1} + γ ⊙ (B x_t), λ = exp(−ν + iθ), of complex numbers. Orvieto et al. 2023, §3, eqs. 5–7.

    h = [Re s, Im s] [*b, hidden]: hidden / 2 complex units. The paper's output Re(C s) + D x is linear in h: C is the
    readout's or the next layer's matrix; there is no D, and nothing nonlinear. |λ|² is drawn uniformly between
    r_min² and r_max², the phase θ between 0 and max_phase, B from N(0, 1/(2d)) in each part, and γ is √(1 − |λ|²);
    all are then trained. `diagonal.parallel` makes all states at once.
    """

    hidden: int
    """An even number"""
    r_min: Number = number(0.0, low=0.0, high=1.0)
    """Smallest |λ| drawn"""
    r_max: Number = number(1.0, above=0.0, high=1.0)
    """Largest |λ| drawn"""
    max_phase: Number = number(2 * math.pi, above=0.0)
    """Largest phase drawn, in radians a step"""

    def check(self) -> None:
        """Raises ConfigError for an odd width or an empty ring."""
        whole("LRU.hidden", self.hidden)
        if self.hidden % 2:
            raise ConfigError(
                f"LRU.hidden is {self.hidden}; it must be even: a real and an imaginary part of each complex unit."
            )
        check_range(self, "r_min", "r_max")

    def build(self, inputs: int) -> Cell:
        """A `diagonal` cell."""
        units = self.hidden // 2

        def init(key: Key[Array, ""]) -> LRUWeights:
            kind = jnp.result_type(float)
            k_r, k_phase, k_re, k_im = jax.random.split(key, 4)
            least = float(jnp.finfo(kind).tiny)  # log 0 is −∞
            low, high = jnp.asarray(self.r_min, kind) ** 2, jnp.asarray(self.r_max, kind) ** 2
            u = jax.random.uniform(k_r, (units,), kind)
            square = jnp.clip(low + (high - low) * u, least, _INSIDE)
            phase = jnp.asarray(self.max_phase, kind) * jax.random.uniform(k_phase, (units,), kind, least)
            shape, size = (inputs, units), (2 * inputs) ** -0.5
            return LRUWeights(
                log_nu=jnp.log(-0.5 * jnp.log(square)),
                log_theta=jnp.log(phase),
                log_gamma=0.5 * jnp.log1p(-square),
                re=jax.random.normal(k_re, shape, kind) * size,
                im=jax.random.normal(k_im, shape, kind) * size,
            )

        def coefficients(params: LRUWeights, xs: Float[Array, "*b d"]) -> Coefficients:
            size, phase = jnp.exp(-jnp.exp(params.log_nu)), jnp.exp(params.log_theta)
            gamma = jnp.tile(jnp.exp(params.log_gamma), 2)
            b = xs @ (jnp.concatenate([params.re, params.im], axis=1) * gamma[None])
            a, turn = (jnp.broadcast_to(jnp.tile(size * of(phase), 2), b.shape) for of in (jnp.cos, jnp.sin))
            return Coefficients(a, b, turn)

        return diagonal(init, coefficients, self.hidden)
