"""draft docstring"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis import capacity as analysis
from experiments import _polynomials as poly
from seqdyn import backend
from seqdyn.data.packaged import digits
from seqdyn.data.splits import balanced_order
from seqdyn.data.text import Examples
from seqdyn.learn.config import CellName, Experiment, Spec, grid
from seqdyn.runs.script import Sizes, fingerprint, launch_all, script, sized
from seqdyn.types import ConfigError

PARABOLA = (1, 2, 11)
"""Degrees of a model that is too small, right and too large for x² / 10."""
COMPONENTS = 9
"""Degree whose fit is followed component by component."""


@dataclass(frozen=True, kw_only=True)
class Config(Sizes):
    """Of polynomials, the degree; of networks, width × training sequences × label noise × seeds."""

    points: int = 20
    """Of a polynomial's training set."""
    sigma: float = 0.3
    """Standard deviation of the noise on its y."""
    draws: int = 500
    """Training sets drawn for bias and variance."""
    degrees: tuple[int, ...] = (1, 3, 5, 7, 9, 11, 13, 15, 17)
    """Of the polynomials that are drawn; 1 has no bias."""
    beyond: int = 60
    """Largest degree of the sweep through the interpolation threshold."""
    cell: CellName = "rnn"
    """Recurrent cell."""
    hidden: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128)
    """Widths of the recurrent layer, a compiled program each."""
    training: tuple[int, ...] = (50, 200, 1000)
    """Numbers of training sequences, an experiment each; a smaller set is part of a larger one."""
    wrong: tuple[float, ...] = (0.0, 0.2)
    """Shares of the training labels that are replaced by another class, an experiment each."""
    seeds: int = 3
    """Seeds of parameters and order."""
    batch: int = 25
    """Sequences per update."""
    lr: float = 1e-3
    """Adam's learning rate."""
    updates: int = 8000
    """Of each network."""
    chunk: int = 200
    """Updates in one compiled call, and between two looks."""


SMOKE: dict[str, Any] = dict(
    draws=20, degrees=(1, 3, 17), beyond=24, hidden=(2, 6), training=(50,), seeds=2, updates=40, chunk=20
)
PAPER: dict[str, Any] = dict(seeds=10, updates=40_000, wrong=(0.0, 0.1, 0.2, 0.4), chunk=400)
PAPER |= dict(hidden=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512))


# --- polynomials ----------------------------------------------------------------------------------------------


def single(c: Config) -> dict[str, np.ndarray]:
    """One training set and its fits on a dense grid, each degree; and three of a parabola."""
    rng, x = np.random.default_rng(0), np.linspace(-poly.HALF, poly.HALF, 401)
    found: dict[str, np.ndarray] = {"grid": x}
    for name, truth, degrees, basis in (
        ("sine", np.sin, c.degrees, poly.unbiased),
        ("parabola", parabola, PARABOLA, poly.legendre),
    ):
        s = poly.draw(rng, (1, c.points), c.sigma, truth)
        ws = {d: poly.fit(basis(s.x, d), s.y) for d in degrees}
        of = [poly.errors(w.repeat(2, 0), d, basis, poly.Sample(s.x.repeat(2,0), s.y.repeat(2,0)), c.sigma, rng, truth) for d, w in ws.items()]
        found |= {
            f"{name}_x": s.x[0],
            f"{name}_y": s.y[0],
            f"{name}_truth": truth(x),
            f"{name}_degrees": np.asarray(degrees),
            f"{name}_fits": np.stack([basis(x, d) @ w[0] for d, w in ws.items()]),
            f"{name}_train": np.asarray([e.train[0] for e in of]),
            f"{name}_test": np.asarray([e.test[0] for e in of]),
        }
    return found
