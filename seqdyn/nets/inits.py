"""Initialisations of a weight matrix, each with a gain, and of a forget bias.

Each is a part that draws, `(key, shape, dtype) -> array` with shape [fan_in, fan_out], as in `jax.nn.initializers`, and
acts as `x @ w`. A cell draws each gate's block on its own: blocks cut out of one orthogonal [h, 4h] draw are far from
orthogonal. `gain` multiplies the draw and may be traced, so a grid of gains is one compiled program.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.nn import initializers

from seqdyn.building import built, is_real, known_at_run_time, takes
from seqdyn.parts import Number, lenient, number, part
from seqdyn.types import Array, ConfigError, Float, Initializer, Key, whole

InitName = Literal["glorot_uniform", "glorot_normal", "orthogonal", "gaussian", "uniform", "identity", "sparse"]
Gain = float | Float[Array, ""]


@part
class Init:
    """What the library's initialisations have in common: gain times a draw."""

    gain: Number = number(1.0, low=0.0)

    def _draw(self, key: Key[Array, ""], shape: Any, dtype: Any) -> Array:  # at gain 1
        raise NotImplementedError

    def __call__(self, key: Key[Array, ""], shape: Any, dtype: Any = jnp.float32) -> Array:
        return self._draw(key, shape, dtype) * jnp.asarray(self.gain, dtype)

    def build(self) -> Initializer:
        """(key, shape, dtype) -> array"""
        return self


@part
class GlorotUniform(Init):
    """W ~ U(−a, a), a = gain √(6 / (fan_in + fan_out)). Glorot & Bengio 2010, eq. 16."""

    def _draw(self, key: Key[Array, ""], shape: Any, dtype: Any) -> Array:
        return initializers.glorot_uniform()(key, shape, dtype)


@part
class GlorotNormal(Init):
    """W ~ N(0, gain² · 2 / (fan_in + fan_out)), truncated at two deviations. Glorot & Bengio 2010, eq. 12."""

    def _draw(self, key: Key[Array, ""], shape: Any, dtype: Any) -> Array:
        return initializers.glorot_normal()(key, shape, dtype)


@part
class Orthogonal(Init):
    """W = gain · Q, Q uniform over orthogonal matrices. Saxe, McClelland & Ganguli 2014, §3."""

    def _draw(self, key: Key[Array, ""], shape: Any, dtype: Any) -> Array:
        return initializers.orthogonal()(key, shape, dtype)


@part
class Gaussian(Init):
    """W ~ N(0, gain² / fan_in): spectral radius → gain for wide square W. Sompolinsky, Crisanti & Sommers 1988."""

    def _draw(self, key: Key[Array, ""], shape: Any, dtype: Any) -> Array:
        return initializers.variance_scaling(1.0, "fan_in", "normal")(key, shape, dtype)


@part
class Uniform(Init):
    """W ~ U(−a, a), a = gain / √fan_in: spectral radius → gain / √3. PyTorch takes a = 1/√h for all its weights."""

    def _draw(self, key: Key[Array, ""], shape: Any, dtype: Any) -> Array:
        bound = shape[0] ** -0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)


@part
class Identity(Init):
    """W = gain · I, the recurrence of an IRNN. Le, Jaitly & Hinton 2015, §2."""

    def _draw(self, key: Key[Array, ""], shape: Any, dtype: Any) -> Array:
        return jnp.eye(*shape, dtype=dtype)


@part
class Sparse(Init):
    """'Smart tanh': N(0, 1) on `nonzeros` inputs of each unit, then scaled to spectral radius `gain`.

    Non-square draws are scaled by gain / √nonzeros instead. Sutskever, Martens, Dahl & Hinton 2013, §3; Pascanu
    et al. 2013 take radius 0.95. The radius comes from powers of the matrix, ‖Wᵏ‖^(1/k) with k = 2¹³ (Gelfand),
    good to 1e-3, which works on every backend and under `vmap`.
    """

    nonzeros: int = 15

    def check(self) -> None:
        """Raises ConfigError for a unit that reads nothing."""
        whole("Sparse.nonzeros", self.nonzeros)

    def _draw(self, key: Key[Array, ""], shape: Any, dtype: Any) -> Array:
        k_where, k_value = jax.random.split(key)
        order = jnp.argsort(jax.random.uniform(k_where, shape), axis=0)
        w = jnp.where(order < self.nonzeros, jax.random.normal(k_value, shape, dtype), 0)
        if shape[0] != shape[1]:
            return w * jnp.asarray(min(self.nonzeros, shape[0]) ** -0.5, dtype)
        return w / gelfand_radius(w)


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


Inits = Initializer | Mapping[str, Initializer]
"""One initialiser for every gate, or one per gate by name."""


def blocks(key: Key[Array, ""], gates: tuple[str, ...], shape: tuple[int, ...], by: Inits, dtype: Any) -> Array:
    """Each gate's block from its own key (and, given a mapping, its own initialiser), side by side."""
    keys = jax.random.split(key, len(gates))
    if isinstance(by, Mapping):
        draws = [by[gate](k, shape, dtype) for gate, k in zip(gates, keys, strict=True)]
    elif len(gates) > 1 and isinstance(keys, Tracer):  # a draw is a large program: a loop has it compiled once
        draws = list(jax.lax.map(lambda k: by(k, shape, dtype), keys))
    else:
        draws = [by(k, shape, dtype) for k in keys]
    return jnp.concatenate(draws, axis=-1)


INITS: dict[str, Callable[..., Init]] = {
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "orthogonal": Orthogonal,
    "gaussian": Gaussian,
    "uniform": Uniform,
    "identity": Identity,
    "sparse": Sparse,
}
"""By the names a `Spec` uses."""


def made_init(where: str, init: Any) -> Initializer:
    """What a part for an initialisation builds. What a user's draws is cast to the parameters' type; it raises
    ConfigError where that is no array of real numbers of the shape that it was asked for."""
    right = "a function (key, shape, dtype) -> array"
    made, name = built(where, init, Callable, right), f"{where} is {type(init).__name__}"
    if isinstance(made, Init):
        return made
    if not takes(made, None, None, None):
        raise ConfigError(f"{name}, whose build returns {made!r:.60}; it must return {right}.")

    def draw(key: Key[Array, ""], shape: Any, dtype: Any = jnp.float32) -> Array:
        with lenient(), known_at_run_time(name):
            found = made(key, shape, dtype)
            if not is_real(found) or jnp.shape(found) != tuple(shape):
                got = f"the shape {jnp.shape(found)}" if is_real(found) else f"{found!r:.60}"
                raise ConfigError(f"{name}, which draws {got}; it must draw real numbers of the shape {tuple(shape)}.")
            return jnp.asarray(found).astype(dtype)

    return draw
