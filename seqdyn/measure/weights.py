"""What can be read off a recurrent matrix alone: its eigenvalues, its singular values, how far they lie apart.

The eigenvalues say where repeated steps lead in the end, the singular values what one step can do; they agree for
normal matrices only, and a trained U is not normal: a spectral radius below 1 does not bound ‖U‖, nor do the moduli
of the eigenvalues say how far U is from orthogonal. All of it is computed on the host in float64, block by block: an
accelerator has no eigenvalues of general matrices.

A block is square, [*r, h, h], and acts as `x @ u`; none of these numbers would change if it acted from the left. A
block that is not finite gives NaN.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex

from seqdyn.learn import model
from seqdyn.learn.spec import Spec
from seqdyn.learn.train import TrainState
from seqdyn.measure.view import View, among
from seqdyn.types import Array, Float


def eigenvalues(u: Float[np.ndarray | Array, "*r h h"]) -> Complex[np.ndarray, "*r h"]:
    """λ_i with U v = λ_i v, by modulus, largest first; of a conjugate pair, Im λ > 0 first."""
    blocks, finite = _finite(u)
    values = np.linalg.eigvals(blocks).astype(complex)
    order = np.argsort(-np.abs(values), axis=-1, kind="stable")  # a pair's moduli are equal to the last bit
    return np.where(finite, np.take_along_axis(values, order, axis=-1), complex(np.nan, np.nan))


def spectral_radius(u: Float[np.ndarray | Array, "*r h h"]) -> Float[np.ndarray, "*r"]:
    """max |λ_i|, the growth per step of U^k as k → ∞ (Gelfand's formula); at most the largest singular value."""
    return _radius(eigenvalues(u))


def singular_values(u: Float[np.ndarray | Array, "*r h h"]) -> Float[np.ndarray, "*r h"]:
    """σ_i, the square roots of the eigenvalues of UᵀU, largest first."""
    blocks, finite = _finite(u)
    return np.where(finite, np.linalg.svd(blocks, compute_uv=False), np.nan)


def largest_singular_value(u: Float[np.ndarray | Array, "*r h h"]) -> Float[np.ndarray, "*r"]:
    """σ_max = max ‖x U‖ / ‖x‖, the spectral *norm*: what bounds one step's gradient (Pascanu et al. 2013, §2.1)."""
    return singular_values(u)[..., 0]


def departure_from_normality(u: Float[np.ndarray | Array, "*r h h"]) -> Float[np.ndarray, "*r"]:
    """√(‖U‖_F² − Σ|λ_i|²) / ‖U‖_F (Henrici 1962), in [0, 1]: 0 for a normal U, 1 for a nilpotent one, 0 for U = 0.

    The difference of two sums rounds at 10⁻¹⁶, so nothing below 10⁻⁸ is told from 0.
    """
    return _departure(eigenvalues(u), singular_values(u))


def orthogonality_distance(u: Float[np.ndarray | Array, "*r h h"]) -> Float[np.ndarray, "*r"]:
    """‖UᵀU − I‖_F / √h: root mean square of |σ_i² − 1|; |g² − 1| for g times an orthogonal matrix."""
    return _distance(singular_values(u))


def _finite(u: Any) -> tuple[np.ndarray, np.ndarray]:
    """(the blocks in float64, zeros where one is not finite; which are [*r, 1])."""
    blocks = np.asarray(u, np.float64)
    finite = np.asarray(np.isfinite(blocks).all(axis=(-2, -1), keepdims=True))
    return np.where(finite, blocks, 0), finite[..., 0]


def _radius(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(values).max(axis=-1))


def _departure(values: np.ndarray, singular: np.ndarray) -> np.ndarray:
    total = np.square(singular).sum(axis=-1)  # ‖U‖_F² = Σ σ_i²
    excess = total - np.square(np.abs(values)).sum(axis=-1)  # ≥ 0 (Schur 1909), but for rounding
    return np.asarray(np.sqrt(np.maximum(excess, 0) / np.where(total == 0, 1, total)))


def _distance(singular: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.square(np.square(singular) - 1).mean(axis=-1)))


# --- the probe ----------------------------------------------------------------------------------------------


def measure(spec: Spec, state: TrainState, view: View) -> dict[str, Array]:
    """Each layer's U cut into its gates' blocks, in the order of `cell.gates`: 'layer0' [g, h, h], …"""
    cells = model.layers(spec)
    return {  # with gates, U as it acts
        f"layer{i}": jnp.stack(jnp.split(params.u, len(cell.gates), axis=-1))
        for i, (cell, params) in enumerate(zip(cells, model.acting_params(spec, state.params).layers, strict=True))
    }


def finish(spec: Spec, looked: dict[str, np.ndarray], modes: int) -> dict[str, np.ndarray]:
    """The records of every run: [r, layer, gate] of what is defined above, and [r, layer, gate, unit] of the spectra.

    `eigenvalue_real`, `eigenvalue_imag` (by modulus) and `singular_value`, all largest first; units that a narrower
    layer does not have are NaN.
    """
    found, every = [], model.gates(spec)
    for i, (width, cell) in enumerate(zip(spec.widths, model.layers(spec), strict=True)):
        values, singular = eigenvalues(looked[f"layer{i}"]), singular_values(looked[f"layer{i}"])
        spectra = {"eigenvalue_real": np.real(values), "eigenvalue_imag": np.imag(values), "singular_value": singular}
        pad = [(0, 0)] * (values.ndim - 1) + [(0, max(spec.hidden) - width)]
        of = {
            "spectral_radius": _radius(values),
            "largest_singular_value": singular[..., 0],
            "departure_from_normality": _departure(values, singular),
            "orthogonality_distance": _distance(singular),
        } | {name: np.pad(v, pad, constant_values=np.nan) for name, v in spectra.items()}
        found.append({name: among(v, cell.gates, every, 1) for name, v in of.items()})
    return {name: np.stack([layer[name] for layer in found], axis=1) for name in found[0]}
