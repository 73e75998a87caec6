"""Activations, each beside its derivative: z → (φ(z), φ'(z)), elementwise."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from seqdyn.backend import optimization_barrier
from seqdyn.types import Array

Activation = Literal[
    "tanh", "sigmoid", "relu", "leaky_relu", "elu", "gelu", "softplus", "softsign", "hard_tanh", "identity"
]

_erf_slope = (2 * jnp.pi) ** -0.5


def _gelu(z: Array) -> tuple[Array, Array]:
    cdf = 0.5 * (1 + jax.lax.erf(z * 0.5**0.5))
    return z * cdf, cdf + z * jnp.asarray(_erf_slope, z.dtype) * jnp.exp(-0.5 * z * z)


def _by_output(phi: Callable[[Array], Array], slope: Callable[[Array], Array]) -> Any:
    """An activation whose derivative is cheapest from its own value."""

    def both(z: Array) -> tuple[Array, Array]:
        y = optimization_barrier(phi(z))
        return y, slope(y)

    return both


def _where(positive: Callable[[Array], Array], value: Callable, slope: Callable) -> Any:
    return lambda z: (jnp.where(positive(z), z, value(z)), jnp.where(positive(z), jnp.ones_like(z), slope(z)))


ACTIVATIONS: dict[str, Callable[[Array], tuple[Array, Array]]] = {
    "tanh": _by_output(jnp.tanh, lambda y: 1 - y * y),
    "sigmoid": _by_output(jax.nn.sigmoid, lambda y: y * (1 - y)),
    "relu": _by_output(jax.nn.relu, lambda y: (y > 0).astype(y.dtype)),
    "leaky_relu": _where(lambda z: z > 0, lambda z: 0.01 * z, lambda z: jnp.full_like(z, 0.01)),
    "elu": _where(lambda z: z > 0, lambda z: jnp.expm1(jnp.minimum(z, 0)), lambda z: jnp.exp(jnp.minimum(z, 0))),
    "gelu": _gelu,
    "softplus": lambda z: (jax.nn.softplus(z), jax.nn.sigmoid(z)),
    "softsign": lambda z: (z / (1 + jnp.abs(z)), 1 / jnp.square(1 + jnp.abs(z))),
    "hard_tanh": lambda z: (jnp.clip(z, -1, 1), (jnp.abs(z) < 1).astype(z.dtype)),
    "identity": lambda z: (z, jnp.ones_like(z)),
}
"""name -> (z -> (φ(z), φ'(z))). A new activation is one line here (and its name in `Activation`)."""
