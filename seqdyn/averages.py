"""Activations as theory needs them, and averages over Gaussian pre-activations, in float64 on the host.

Gauss–Legendre sums on panels that are cut where φ is not smooth: Gauss–Hermite's nodes straddle the kinks of relu or
hard_tanh, and its sums converge like 1/√n there.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from seqdyn.types import ConfigError

Numbers = float | np.ndarray
"""One or many; functions of them work elementwise."""


class Phi(NamedTuple):
    """An activation as theory needs it; vectorised."""

    value: Callable[[np.ndarray], np.ndarray]
    """φ"""
    slope: Callable[[np.ndarray], np.ndarray]
    """φ'"""
    kinks: tuple[float, ...] = ()
    """Where φ or one of its derivatives jumps; what else it does, it does near them or, if there are none, near 0."""
    steepest: float = np.inf
    """γ = sup |φ'|, which the bounds read."""


def _density(z: Numbers) -> Any:
    return np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)


def _cdf(z: Numbers) -> Any:
    from scipy.special import ndtr  # here, not above: SciPy loads OpenBLAS, for which `backend.start` comes first

    return ndtr(z)


def sigmoid(z: Numbers) -> Any:
    """σ(z), accurate where it is tiny."""
    return np.exp(-np.logaddexp(0, -z))


def _steep(z: Numbers) -> Any:
    return 1 / np.cosh(np.clip(z, -300, 300)) ** 2


PHIS: dict[str, Phi] = {
    "tanh": Phi(np.tanh, _steep, (), 1.0),
    "sigmoid": Phi(sigmoid, lambda z: _steep(z / 2) / 4, (), 0.25),
    "relu": Phi(lambda z: np.maximum(z, 0), lambda z: np.where(z > 0, 1.0, 0.0), (0.0,), 1.0),
    "leaky_relu": Phi(lambda z: np.where(z > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1.0, 0.01), (0.0,), 1.0),
    "elu": Phi(
        lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))), lambda z: np.exp(np.minimum(z, 0)), (0.0,), 1.0
    ),
    "gelu": Phi(lambda z: z * _cdf(z), lambda z: _cdf(z) + z * _density(z), (), 1.128904145185155),
    "softplus": Phi(lambda z: np.logaddexp(0, z), sigmoid, (), 1.0),
    "softsign": Phi(lambda z: z / (1 + np.abs(z)), lambda z: (1 + np.abs(z)) ** -2.0, (0.0,), 1.0),
    "hard_tanh": Phi(lambda z: np.clip(z, -1, 1), lambda z: np.where(np.abs(z) < 1, 1.0, 0.0), (-1.0, 1.0), 1.0),
    "identity": Phi(lambda z: z, np.ones_like, (), 1.0),
}
"""By the names a `Spec` uses."""


def phi(name: str | Phi) -> Phi:
    """φ by name, or as it is; ConfigError for a name that is not one of `PHIS`."""
    if isinstance(name, Phi):
        return name
    if name not in PHIS:
        raise ConfigError(f"phi is {name!r}; it must be a Phi or one of {', '.join(PHIS)}.")
    return PHIS[name]


# --- averages over Gaussians --------------------------------------------------------------------------------

_REACH = 9.0  # deviations; 2e-19 of the mass lies beyond
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_EVEN = np.linspace(-_REACH, _REACH, 13)
_HALVED = np.outer([-1.0, 1.0], 2 * _REACH * 0.5 ** np.arange(15)).ravel()


def rule(centres: Float[np.ndarray, "*b k"]) -> tuple[Float[np.ndarray, "*b n"], Float[np.ndarray, "*b n"]]:
    """Nodes and weights of E over z ~ N(0, 1): panels with an edge at each centre that halve towards it."""
    near = (centres[..., None] + _HALVED).reshape(*centres.shape[:-1], -1)
    even = np.broadcast_to(_EVEN, (*centres.shape[:-1], len(_EVEN)))
    edges = np.sort(np.concatenate([centres, near, even], axis=-1).clip(-_REACH, _REACH), axis=-1)
    half = np.diff(edges)[..., None] / 2
    z = edges[..., :-1, None] + half * (1 + _NODES)
    return z.reshape(*edges.shape[:-1], -1), (half * _WEIGHTS * _density(z)).reshape(*edges.shape[:-1], -1)


def mean(f: Callable[[np.ndarray], np.ndarray], q: float, kinks: tuple[float, ...] = ()) -> float:
    """E f(u), u ~ N(0, q), of an f smooth but at `kinks`, with its features near them or, without any, near 0."""
    z, w = rule(np.asarray(kinks or [0.0]) / np.sqrt(q))
    some = w > 0  # elsewhere f may be infinite
    return float(np.sum(w[some] * f(np.sqrt(q) * z[some])))


def pair_mean(f: Callable[[np.ndarray], np.ndarray], q: float, c: float, kinks: tuple[float, ...] = ()) -> float:
    """E f(u) f(v), u and v ~ N(0, q) with correlation c. Poole et al. 2016."""
    root, away = np.sqrt(q), max(np.sqrt(1 - c * c), 1e-15)
    centres = np.asarray(kinks or [0.0]) / root
    z, w = rule(centres)
    y, v = rule((centres - c * z[:, None]) / away)
    return float(w @ (f(root * z) * np.sum(v * f(root * (c * z[:, None] + away * y)), axis=-1)))
