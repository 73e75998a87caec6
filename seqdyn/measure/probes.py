"""Heavier looks at one state, taken at probe steps: they read parameters and change nothing."""

import numpy as np

from seqdyn.learn import model
from seqdyn.learn.config import Hypers, Spec
from seqdyn.learn.model import Model
from seqdyn.types import Float


def spectral_radius(spec: Spec, params: Model) -> Float[np.ndarray, "*r l g"]:
    """max |eig U| of each gate's recurrent block, per layer (not the largest singular value).

    `params` may have leading run axes. NaN where a block is not finite. On the host: accelerators have no
    eigenvalues of general matrices.
    """
    gates = gate_names(spec)
    radii = []
    for layer in params.layers:
        blocks = np.stack(np.split(np.asarray(layer.u, np.float64), len(gates), axis=-1), axis=-3)
        finite = np.asarray(np.isfinite(blocks).all(axis=(-2, -1)))
        eigenvalues = np.linalg.eigvals(np.where(finite[..., None, None], blocks, 0))
        radii.append(np.where(finite, np.abs(eigenvalues).max(axis=-1), np.nan))
    return np.stack(radii, axis=-2)


def gate_names(spec: Spec) -> tuple[str, ...]:
    """Names of the recurrent blocks, in the order in which they lie in U."""
    return model.layers(spec, Hypers())[0].gates
