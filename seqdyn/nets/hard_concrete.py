"""Hard-concrete gates, with which the number of weights, L0, has a gradient            Louizos, Welling & Kingma 2018

    s = σ((log u − log(1 − u) + log α) / β),   u ~ U(0, 1)                                        eq. 10
    z = clip(s (ζ − γ) + γ, 0, 1)                                                                 eq. 11
    P(z ≠ 0) = σ(log α − β log(−γ / ζ))                                                           eq. 12
    ẑ = clip(σ(log α) (ζ − γ) + γ, 0, 1)                                                          eq. 13

A weight w acts as z w. s, a binary variable relaxed at the temperature β, is stretched beyond 0 and 1 and clipped: z is
exactly 0, or 1, with a probability of its own, and what lies between carries the gradient to log α.
"""

import math

import jax
import jax.numpy as jnp

from seqdyn.types import Array, Float, Key

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
"""The temperature β and the ends γ, ζ of the stretched interval: §4 of the paper."""
DROPPED = 0.1
"""A gate begins at log α ~ N(log((1 − ρ) / ρ), 0.01²) with this ρ, the share of weights that dropout would leave out.

The authors' code has 0.5, and 0.2 for inputs; here every weight of a recurrence has a gate, and ẑ, then 0.5, would
halve the gain of U. At 0.1 gates begin open: ẑ = 0.98, P(z ≠ 0) = 0.98."""


def init(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """log α of gates that have not learned yet."""
    return math.log((1 - DROPPED) / DROPPED) + 0.01 * jax.random.normal(key, shape)


def gate(log_alpha: Float[Array, "*s"], key: Key[Array, ""] | None = None) -> Float[Array, "*s"]:
    """z, a fresh u for each, or without a key ẑ."""
    if key is None:
        s = jax.nn.sigmoid(log_alpha)
    else:
        noise = jax.random.logistic(key, log_alpha.shape, log_alpha.dtype)  # log u − log(1 − u)
        s = jax.nn.sigmoid((noise + log_alpha) / BETA)
    return jnp.clip(s * (ZETA - GAMMA) + GAMMA, 0, 1)


def expected(log_alpha: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """P(z ≠ 0)."""
    return jax.nn.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))
