"""Singular values of long products of matrices: more orders of magnitude than floating point has, each to its digits.

A matrix S is kept as diag(e^logs) rows, with rows of norm 1. `xp` is NumPy on the host and jax.numpy in a trace.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from seqdyn.backend import map_matrices
from seqdyn.types import Float


def window_singular(jacobians: Float[Any, "t *b n n"], lags: Sequence[int]) -> Float[np.ndarray, "w *b n"]:
    """Natural logarithms of the singular values of J_T J_{T−1} … J_{T−lag+1}, largest first, for each lag.

    In float64 on the host. A frame of adjoints goes back from T, Q R = J_tᵀ Q; the factors R are multiplied row by
    row in logarithms, S ← R S, and at each lag Jacobi rotations find S = V σ Wᵀ and start again from Q V and σ. What
    is lost of a value, relatively, is about 1e-16 times the condition of the *steps*, whatever the product's.

    −inf stands for as many values as a step has rows or columns of zeros; NaN where a step is not finite. Raises
    ValueError for a lag outside 1 … T.
    """
    steps, n = jacobians.shape[0], jacobians.shape[-1]
    if not all(1 <= lag <= steps for lag in lags):
        raise ValueError(f"lags are {tuple(lags)}; each must lie in 1 … {steps}.")
    finite = np.isfinite(jacobians).all(axis=(-2, -1))
    rank = np.minimum(*((jacobians != 0).any(axis=axis).sum(axis=-1) for axis in (-2, -1)))
    eye = np.broadcast_to(np.eye(n), jacobians.shape[1:])
    frame, logs, rows = eye, np.zeros(eye.shape[:-1]), eye
    found = {}
    with np.errstate(divide="ignore", invalid="ignore", under="ignore"):
        for lag in range(1, max(lags, default=0) + 1):
            j = np.where(finite[-lag, ..., None, None], jacobians[-lag], eye)
            frame, r = np.linalg.qr(np.swapaxes(j, -1, -2) @ frame)
            logs, rows = times(np, r, logs, rows)
            if lag in lags:
                logs, turned = jacobi(np, logs, rows)
                frame, rows = frame @ turned, eye
                sure = np.where(np.arange(n) < rank[-lag:].min(axis=0)[..., None], logs, -np.inf)
                found[lag] = np.where(finite[-lag:].all(axis=0)[..., None], sure, np.nan)
    return np.stack([found[lag] for lag in lags]) if lags else np.zeros((0, *logs.shape))


def times(xp: Any, r: Float[Any, "*b n n"], logs: Float[Any, "*b n"], rows: Float[Any, "*b n n"]) -> tuple[Any, Any]:
    """r S as (logs, rows): each row is summed in units of its own largest term."""
    top = xp.take_along_axis(logs, xp.argmax(xp.log(xp.abs(r)) + logs[..., None, :], axis=-1), axis=-1)
    bound = 0.95 * float(np.log(np.finfo(r.dtype).max))  # it is met only by entries of r that are 0
    return _unit(xp, top, (r * xp.exp(xp.minimum(_gaps(xp, logs, top), bound))) @ rows)


def jacobi(xp: Any, logs: Float[Any, "*b n"], rows: Float[Any, "*b n n"]) -> tuple[Any, Any]:
    """(logarithms of S's singular values, largest first, [*b, n]; its left singular vectors as columns [*b, n, n]).

    One-sided Jacobi rotations: each value is right to the precision times the condition of the *unit* rows, whatever
    the range of their lengths (Demmel & Veselić 1992). Before them, with S = D M and its largest rows first,
    M = L Z, Z orthogonal: the columns of D L are nearly orthogonal if S is graded (Drmač & Veselić 2008).
    """
    n = logs.shape[-1]
    order = xp.argsort(-logs, axis=-1)
    logs = xp.take_along_axis(logs, order, axis=-1)
    qr = np.linalg.qr if xp is np else partial(map_matrices, xp.linalg.qr)
    low = qr(xp.swapaxes(xp.take_along_axis(rows, order[..., None], axis=-2), -1, -2))[1]
    logs, rows = _unit(xp, logs, low * xp.exp(xp.minimum(_gaps(xp, logs, logs), 0.0)))
    if n % 2:
        pad = [(0, 0)] * (rows.ndim - 2)
        rows, logs = xp.pad(rows, [*pad, (0, 1), (0, 0)]), xp.pad(logs, [*pad, (0, 1)], constant_values=-xp.inf)
    seats = _seats(logs.shape[-1])
    rounds = len(seats) - 1
    if xp is np:
        for _ in range(30):  # sweeps; five to eight do
            worst = 0.0
            for _ in range(rounds):
                logs, rows, c = _round(np, seats, logs, rows)
                worst = max(worst, np.abs(c).max(initial=0.0))
            if worst < 1e-8:  # what this sweep left is its square
                break
    else:
        logs, rows = jax.lax.fori_loop(0, 8 * rounds, lambda _, s: _round(xp, seats, *s)[:2], (logs, rows))
    final = xp.argsort(-logs, axis=-1)[..., :n]
    rows = xp.take_along_axis(rows, final[..., None], axis=-2)
    left = xp.take_along_axis(rows, xp.argsort(order, axis=-1)[..., None, :], axis=-1)  # as S had its rows
    return xp.take_along_axis(logs, final, axis=-1), left.swapaxes(-1, -2)


def _gaps(xp: Any, logs: Any, of: Any) -> Any:
    """[i, j] = logs[j] − of[i], and −inf, not NaN, where row j is 0."""
    return xp.where(xp.isfinite(logs)[..., None, :], logs[..., None, :] - of[..., :, None], -xp.inf)


def _unit(xp: Any, logs: Any, rows: Any) -> tuple[Any, Any]:
    size = xp.sqrt(xp.sum(rows * rows, axis=-1))
    return logs + xp.log(size), rows / xp.where(size > 0, size, xp.ones_like(size))[..., None]


def _seats(n: int) -> np.ndarray:
    """The permutation between rounds of a tournament in which seats i and i + n/2 meet; n − 1 rounds meet all."""
    seat = np.r_[: n // 2, n - 1 : n // 2 - 1 : -1]
    return np.argsort(seat)[np.r_[0, n - 1, 1 : n - 1][seat]]


def _round(xp: Any, seats: np.ndarray, logs: Any, rows: Any) -> tuple[Any, Any, Any]:
    """Rotates n/2 disjoint pairs of rows until each pair is orthogonal; also returns the cosines there were.

    With r = |small|/|large| and c the cosine, tan θ = r k, k = 2c / (1 − r² + √((1 − r²)² + 4 r² c²)): the unit rows
    become large + k r² small and small − k large. For r → 0, where tan θ underflows, this is Gram–Schmidt.
    """
    half = logs.shape[-1] // 2
    (a, b), (x, y) = (logs[..., :half], logs[..., half:]), (rows[..., :half, :], rows[..., half:, :])
    c = xp.sum(x * y, axis=-1)
    gap = xp.where(a == b, xp.zeros_like(a), xp.abs(a - b))
    r, apart = xp.exp(-gap), -xp.expm1(-2 * gap)
    under = apart + xp.hypot(apart, 2 * r * c)
    k = xp.where(under > 0, 2 * c / xp.where(under > 0, under, xp.ones_like(under)), xp.zeros_like(under))
    first, shrink = a >= b, -0.5 * xp.log1p(xp.square(k * r))
    a, p = _unit(xp, a + shrink, x + xp.where(first, k * r * r, -k)[..., None] * y)
    b, q = _unit(xp, b + shrink, y + xp.where(first, -k, k * r * r)[..., None] * x)
    logs, rows = xp.concatenate([a, b], axis=-1), xp.concatenate([p, q], axis=-2)
    return logs[..., seats], rows[..., seats, :], c
