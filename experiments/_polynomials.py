"""Polynomials as models of a function on [−5, 5]: where capacity can be counted and every fit is a formula.

A polynomial is a vector of coefficients w of an orthonormal basis, φ_k(x) = √(2k + 1) P_k(x / 5) with Legendre's P_k:
for x uniform on [−5, 5], E φ_j φ_k is 1 if j = k and else 0, so that E f² = ‖w‖² and 'minimum norm' means the smallest
mean square of the function itself. The design Φ [n, p] holds p basis functions at n training points. The powers of x
span the same polynomials, but their design has a condition number of 3 · 10¹² at degree 17: of 16 digits QR loses four
and the normal equations ten, where the orthonormal basis loses none.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

HALF = 5.0
"""x lies in [−5, 5]."""
NODES = 128
"""Gauss–Legendre nodes at which means over x are taken: exact for polynomials up to degree 255."""

Vector = Float[np.ndarray, "*b n"]
Design = Float[np.ndarray, "*b n p"]
Truth = Callable[[np.ndarray], np.ndarray]
Model = Callable[[np.ndarray], np.ndarray]
"""x -> design: a basis up to some degree."""


def legendre(x: Vector, degree: int) -> Design:
    """φ_0 … φ_degree at x."""
    return np.polynomial.legendre.legvander(x / HALF, degree) * np.sqrt(2 * np.arange(degree + 1) + 1)


def unbiased(x: Vector, degree: int) -> Design:
    """The same, but at degree 1 only φ_1: y = a x, a line through the origin."""
    return legendre(x, degree)[..., degree == 1 :]


def powers(x: Vector, degree: int, scale: float = HALF) -> Design:
    """(x / scale)⁰ … (x / scale)^degree; at scale 1 the raw Vandermonde matrix."""
    return (x / scale)[..., None] ** np.arange(degree + 1)


@cache
def nodes() -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """(x, weights): Σ weight · f(x) is the mean of f over [−5, 5]."""
    x, weights = np.polynomial.legendre.leggauss(NODES)
    return HALF * x, weights / 2


class Sample(NamedTuple):
    """Training sets, or one."""

    x: Float[np.ndarray, "*draw n"]
    y: Float[np.ndarray, "*draw n"]


def draw(rng: np.random.Generator, shape: tuple[int, ...], noise: float, truth: Truth = np.sin) -> Sample:
    """Samples [*draw, n]: a point uniform in each of n equal parts of [−5, 5], y = truth(x) + noise · N(0, 1).

    Points that are uniform on the whole interval leave wide gaps at its ends, where a polynomial of high degree goes
    to 10¹⁰: the mean over draws is then the worst draw.
    """
    x = HALF * (2 * (np.arange(shape[-1]) + rng.uniform(size=shape)) / shape[-1] - 1)
    return Sample(x, truth(x) + noise * rng.standard_normal(shape))


# --- fits -----------------------------------------------------------------------------------------------------


def fit(design: Design, y: Vector) -> Float[np.ndarray, "*b p"]:
    """Least squares by QR: R w = Qᵀ y of Φ = Q R. With more coefficients than points (p > n), of all w that meet the
    points that of least norm, by QR of the transpose: w = Q R⁻ᵀ y of Φᵀ = Q R."""
    n, p = design.shape[-2:]
    if p <= n:
        q, r = np.linalg.qr(design)
        return np.linalg.solve(r, np.swapaxes(q, -1, -2) @ y[..., None])[..., 0]
    q, r = np.linalg.qr(np.swapaxes(design, -1, -2))
    return (q @ np.linalg.solve(np.swapaxes(r, -1, -2), y[..., None]))[..., 0]


class Spectrum(NamedTuple):
    """Φ = U diag(s) Vᵀ, and y in it."""

    s: Float[np.ndarray, "*b r"]
    v: Float[np.ndarray, "*b p r"]
    uy: Float[np.ndarray, "*b r"]
    """Uᵀ y"""
    points: int
    """n"""

    def learned(self, share: Float[np.ndarray, "*b r"]) -> Float[np.ndarray, "*b p"]:
        """V diag(share / s) Uᵀ y: the coefficients when a share of each direction is learned; of all, the fit."""
        return (self.v @ (share / self.s * self.uy)[..., None])[..., 0]


def spectrum(design: Design, y: Vector) -> Spectrum:
    """The singular value decomposition of a fit."""
    u, s, vt = np.linalg.svd(design, full_matrices=False)
    return Spectrum(s, np.swapaxes(vt, -1, -2), (np.swapaxes(u, -1, -2) @ y[..., None])[..., 0], design.shape[-2])


def ridge(of: Spectrum, penalty: float) -> Float[np.ndarray, "*b r"]:
    """What ridge learns of each direction, s² / (s² + nλ): the minimum of ‖Φw − y‖² / n + λ ‖w‖²."""
    return of.s**2 / (of.s**2 + of.points * penalty)


def descent(of: Spectrum, updates: float) -> Float[np.ndarray, "*b r"]:
    """What t updates of gradient descent learn of each direction, 1 − (1 − ημ)^t.

    w ← w − η ∇ ‖Φw − y‖² / 2n from w = 0. The Hessian's eigenvalues are μ = s² / n, the rate is η = 1 / max μ, half of
    the largest that is stable: the direction of the largest μ is learned in the first update, that of the smallest
    takes max μ / min μ of them.
    """
    share = (of.s / of.s[..., :1]) ** 2
    with np.errstate(divide="ignore"):  # the first direction: log 0
        return -np.expm1(updates * np.log1p(-share))


def effective(share: Float[np.ndarray, "*b r"]) -> Float[np.ndarray, "*b"]:
    """Effective number of coefficients (Hastie, Tibshirani & Friedman 2009, §3.4): the trace of the matrix that takes y
    to what is fitted at the training points."""
    return share.sum(-1)


# --- errors ---------------------------------------------------------------------------------------------------


def error(model: Model, w: Float[np.ndarray, "*draw p"], sample: Sample) -> Float[np.ndarray, "*draw"]:
    """Mean squared error at the points of a sample, of each draw its own."""
    return np.mean(((model(sample.x) @ w[..., None])[..., 0] - sample.y) ** 2, axis=-1)


def expected(
    model: Model, w: Float[np.ndarray, "*draw p"], noise: float, truth: Truth = np.sin
) -> Float[np.ndarray, "*draw"]:
    """The squared error to be expected at a new point with new noise: the mean over x of (f − truth)², and noise²."""
    x, weights = nodes()
    return (w @ model(x).T - truth(x)) ** 2 @ weights + noise**2


def bias_variance(model: Model, w: Float[np.ndarray, "draw p"], truth: Truth = np.sin) -> tuple[float, float]:
    """(bias², variance) of fits to many draws: bias² + variance + noise² is the mean of `expected` over the draws.

    Bias² is the mean over x of (f̄ − truth)², f̄ the mean over all draws there could be. That of these D is off by
    variance / D, which is taken away; what is left may be negative. Variance is the mean over x of f's over draws.
    """
    x, weights = nodes()
    f = w @ model(x).T
    variance = f.var(0, ddof=1) @ weights
    return float((f.mean(0) - truth(x)) ** 2 @ weights - variance / len(w)), float(variance)


def of_pairs(model: Model, w: Float[np.ndarray, "draw p"], truth: Truth = np.sin) -> Float[np.ndarray, "pair 2"]:
    """(bias², variance) of the fits f, f' to each two draws, the first and the second, the third and the fourth, …

    Means over x of (f − truth)(f' − truth) and (f − f')² / 2. Both have the expectation of `bias_variance`, as the two
    draws are independent; so they can be judged over pairs.
    """
    x, weights = nodes()
    f = w[: len(w) // 2 * 2] @ model(x).T
    one, other = f[::2], f[1::2]
    return np.stack([(one - truth(x)) * (other - truth(x)) @ weights, (one - other) ** 2 @ weights / 2], axis=-1)
