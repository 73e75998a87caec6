"""Initialisations of a weight matrix, each with a gain, and of a forget bias.

All are `(key, shape, dtype) -> array` with shape [fan_in, fan_out], as in `jax.nn.initializers`, and act as
`x @ w`. A cell draws each gate's block on its own: blocks cut out of one orthogonal [h, 4h] draw are far from
orthogonal. `gain` multiplies the draw and may be traced, so a grid of gains is one compiled program.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.nn import initializers

from seqdyn.types import Array, Float, Initializer, Key

InitName = Literal["glorot_uniform", "glorot_normal", "orthogonal", "gaussian", "uniform", "identity", "sparse"]
Gain = float | Float[Array, ""]


def _scaled(draw: Initializer, gain: Gain) -> Initializer:
    def init(key: Key[Array, ""], shape: Any, dtype: Any = jnp.float32) -> Array:
        return draw(key, shape, dtype) * jnp.asarray(gain, dtype)

    return init


def glorot_uniform(gain: Gain = 1.0) -> Initializer:
    """W ~ U(−a, a), a = gain √(6 / (fan_in + fan_out)). Glorot & Bengio 2010, eq. 16."""
    return _scaled(initializers.glorot_uniform(), gain)


def glorot_normal(gain: Gain = 1.0) -> Initializer:
    """W ~ N(0, gain² · 2 / (fan_in + fan_out)), truncated at two deviations. Glorot & Bengio 2010, eq. 12."""
    return _scaled(initializers.glorot_normal(), gain)


def orthogonal(gain: Gain = 1.0) -> Initializer:
    """W = gain · Q, Q uniform over orthogonal matrices. Saxe, McClelland & Ganguli 2014, §3."""
    return _scaled(initializers.orthogonal(), gain)


def gaussian(gain: Gain = 1.0) -> Initializer:
    """W ~ N(0, gain² / fan_in): spectral radius → gain for wide square W. Sompolinsky, Crisanti & Sommers 1988."""
    return _scaled(initializers.variance_scaling(1.0, "fan_in", "normal"), gain)


def uniform(gain: Gain = 1.0) -> Initializer:
    """W ~ U(−a, a), a = gain / √fan_in: spectral radius → gain / √3. PyTorch takes a = 1/√h for all its weights."""

    def draw(key: Key[Array, ""], shape: Any, dtype: Any = jnp.float32) -> Array:
        bound = shape[0] ** -0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return _scaled(draw, gain)


def identity(gain: Gain = 1.0) -> Initializer:
    """W = gain · I, the recurrence of an IRNN. Le, Jaitly & Hinton 2015, §2."""
    return _scaled(lambda key, shape, dtype=jnp.float32: jnp.eye(*shape, dtype=dtype), gain)


def sparse(gain: Gain = 1.0, nonzeros: int = 15) -> Initializer:
    """'Smart tanh': N(0, 1) on `nonzeros` inputs of each unit, then scaled to spectral radius `gain`.

    Non-square draws are scaled by gain / √nonzeros instead. Sutskever, Martens, Dahl & Hinton 2013, §3; Pascanu
    et al. 2013 take radius 0.95. The radius comes from powers of the matrix, ‖Wᵏ‖^(1/k) with k = 2¹³ (Gelfand),
    good to 1e-3, which works on every backend and under `vmap`.
    """

    def draw(key: Key[Array, ""], shape: Any, dtype: Any = jnp.float32) -> Array:
        k_where, k_value = jax.random.split(key)
        order = jnp.argsort(jax.random.uniform(k_where, shape), axis=0)
        w = jnp.where(order < nonzeros, jax.random.normal(k_value, shape, dtype), 0)
        if shape[0] != shape[1]:
            return w * jnp.asarray(min(nonzeros, shape[0]) ** -0.5, dtype)
        return w / gelfand_radius(w)

    return _scaled(draw, gain)


def gelfand_radius(w: Float[Array, "h h"], doublings: int = 13) -> Float[Array, ""]:
    """Spectral radius as lim ‖Wᵏ‖_F^(1/k), k = 2^doublings, by repeated squaring with the norm divided out."""

    def square(carry: Any, _: None) -> tuple[Any, None]:
        power, log_scale = carry
        power = power @ power
        size = jnp.linalg.norm(power)
        return (power / size, 2 * log_scale + jnp.log(size)), None

    size = jnp.linalg.norm(w)
    (_, log_norm), _ = jax.lax.scan(square, (w / size, jnp.log(size)), length=doublings)
    return jnp.exp(log_norm / 2**doublings)


def constant(value: Gain) -> Initializer:
    """b = value: a forget bias (Gers et al. 2000; Jozefowicz et al. 2015 take 1)."""
    return lambda key, shape, dtype=jnp.float32: jnp.full(shape, value, dtype)


def chrono(longest: Gain) -> Initializer:
    """b = log u, u ~ U(1, T_max − 1): the gate's time constants spread over 1 … T_max. Tallec & Ollivier 2018, §2.

    The LSTM's input bias is −b. A GRU whose gate z multiplies the old state takes +b for z.
    """

    def init(key: Key[Array, ""], shape: Any, dtype: Any = jnp.float32) -> Array:
        u = jax.random.uniform(key, shape, dtype)
        return jnp.log(1 + u * (jnp.asarray(longest, dtype) - 2))

    return init


INITS = {
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
    "orthogonal": orthogonal,
    "gaussian": gaussian,
    "uniform": uniform,
    "identity": identity,
    "sparse": sparse,
}
"""By the names a `Spec` uses."""
